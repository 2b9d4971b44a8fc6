//! Whose invites people want (<https://spec.matrix.org/v1.19/client-server-api/#invite-permission>, MSC4155).

use harness::{Answer, Server, User};
use serde_json::{Value, json};

use crate::{list, server};

const ALL: &str = "m.invite_permission_config";
const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

async fn set(user: &User, event_type: &str, content: Value) {
    let path = format!("/user/{}/account_data/{event_type}", user.id);
    user.put(&path, content).await.ok();
}

async fn invite(from: &User, room: &str, whom: &User) -> Answer {
    from.to_room(room, "invite", json!({"user_id": whom.id}))
        .await
}

async fn people(server: &Server) -> (User, User, User) {
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    (alice, bob, server.user("evil").await)
}

#[tokio::test]
async fn who_wants_no_invites_gets_none_by_whatever_way() {
    let server = server().await;
    let (alice, bob, _) = people(&server).await;
    let [before, room] = [
        bob.create_room(json!({})).await,
        bob.create_room(json!({})).await,
    ];
    invite(&bob, &before, &alice).await.ok();
    assert!(alice.sync(None).await.invited(&before).is_object());
    set(&alice, ALL, json!({"default_action": "block"})).await;

    invite(&bob, &room, &alice)
        .await
        .refused(403, "M_INVITE_BLOCKED");
    let member = json!({"membership": "invite"});
    let state = bob
        .try_set_state(&room, "m.room.member", &alice.id, member.clone())
        .await;
    state.refused(403, "M_INVITE_BLOCKED");
    let wish = json!({"invite": [alice.id]});
    bob.post("/createRoom", wish)
        .await
        .refused(403, "M_INVITE_BLOCKED");
    let joined = bob.get("/joined_rooms").await.ok();
    assert_eq!(
        list(&joined, "joined_rooms").len(),
        2,
        "no half of a room was made"
    );
    assert_eq!(
        bob.state(&room, "m.room.member", &alice.id).await.status,
        404
    );
    // What was there before is shown no more, and to others as before.
    assert!(alice.sync(None).await.invited(&before).is_null());
    let told = bob.state(&before, "m.room.member", &alice.id).await.ok();
    assert_eq!(told["membership"], "invite");

    // A ban that is taken back and a name that changes are no invites; nor is one's own join.
    let own = bob.create_room(json!({"preset": "public_chat"})).await;
    alice.join(&own).await;
    bob.to_room(&own, "kick", json!({"user_id": alice.id}))
        .await
        .ok();

    for open in [
        json!({}),
        json!({"default_action": "sideways"}),
        json!({"default_action": 7}),
    ] {
        set(&alice, ALL, open).await;
        let room = bob.create_room(json!({})).await;
        invite(&bob, &room, &alice).await.ok();
        assert!(alice.sync(None).await.invited(&room).is_object());
    }
    assert!(alice.sync(None).await.invited(&before).is_object());
}

#[tokio::test]
async fn lists_say_whose_invites_are_wanted() {
    let server = server().await;
    let (_, bob, evil) = people(&server).await;
    let here = bob.id.split_once(':').unwrap().1;
    let versions = server
        .ask(reqwest::Method::GET, "/_matrix/client/versions", None)
        .await
        .ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc4155"], true);
    // The lists; what becomes of invites by bob and by evil: shown, ignored (not shown), blocked.
    for (lists, bobs, evils) in [
        (json!({}), "shown", "shown"),
        (json!({"blocked_users": [evil.id]}), "shown", "blocked"),
        (json!({"ignored_users": [evil.id]}), "shown", "ignored"),
        (json!({"blocked_servers": [here]}), "blocked", "blocked"),
        (json!({"ignored_servers": [here]}), "ignored", "ignored"),
        (json!({"blocked_servers": ["*"]}), "blocked", "blocked"),
        (json!({"blocked_servers": ["other*"]}), "shown", "shown"),
        (
            json!({"blocked_users": [format!("@ev?l-*:{here}")]}),
            "shown",
            "blocked",
        ),
        (
            json!({"allowed_users": [bob.id], "blocked_servers": [here]}),
            "shown",
            "blocked",
        ),
        (
            json!({"allowed_servers": [here], "blocked_users": [evil.id]}),
            "shown",
            "blocked",
        ),
        (
            json!({"allowed_users": [bob.id, evil.id], "ignored_users": [bob.id], "blocked_users": [evil.id]}),
            "shown",
            "shown",
        ),
        (
            json!({"allowed_users": null, "blocked_users": null, "ignored_servers": null}),
            "shown",
            "shown",
        ),
        (
            json!({"enabled": false, "blocked_servers": [here]}),
            "shown",
            "shown",
        ),
    ] {
        let alice = server.user("alice").await;
        set(&alice, LISTS, lists.clone()).await;
        let since = alice.sync(None).await.next_batch();
        for (from, becomes) in [(&bob, bobs), (&evil, evils)] {
            let room = from.create_room(json!({})).await;
            let answer = invite(from, &room, &alice).await;
            match becomes {
                "blocked" => drop(answer.refused(403, "M_INVITE_BLOCKED")),
                _ => drop(answer.ok()),
            }
            for sync in [alice.sync(None).await, alice.sync(Some(&since)).await] {
                let shown = sync.invited(&room).is_object();
                assert_eq!(shown, becomes == "shown", "{lists} {}", from.id);
            }
        }
    }
}

#[tokio::test]
async fn invites_of_ignored_people_are_not_shown() {
    let server = server().await;
    let (alice, bob, evil) = people(&server).await;
    set(
        &alice,
        "m.ignored_user_list",
        json!({"ignored_users": {&evil.id: {}}}),
    )
    .await;
    let since = alice.sync(None).await.next_batch();
    let rooms = [
        bob.create_room(json!({})).await,
        evil.create_room(json!({})).await,
    ];
    invite(&bob, &rooms[0], &alice).await.ok();
    invite(&evil, &rooms[1], &alice).await.ok();
    for sync in [alice.sync(None).await, alice.sync(Some(&since)).await] {
        assert!(sync.invited(&rooms[0]).is_object());
        assert!(sync.invited(&rooms[1]).is_null());
    }
}
