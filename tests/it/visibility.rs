//! Who may read what was said before they came and after they went.

use harness::User;
use serde_json::json;

use crate::{bodies, list, server};

/// What `user` can read of the room, oldest first.
async fn readable(user: &User, room: &str) -> Vec<String> {
    bodies(&user.timeline(room).await)
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// alice says "early", invites bob, says "invited", bob joins, "joined", bob leaves, "late".
async fn story(visibility: &str) -> (harness::Server, User, User, String, Vec<String>) {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let state =
        json!({"type": "m.room.history_visibility", "content": {"history_visibility": visibility}});
    let room = alice
        .create_room(json!({"preset": "public_chat", "initial_state": [state]}))
        .await;
    let mut events = vec![alice.say(&room, "early").await];
    alice
        .to_room(&room, "invite", json!({"user_id": bob.id}))
        .await
        .ok();
    events.push(alice.say(&room, "invited").await);
    bob.join(&room).await;
    events.push(alice.say(&room, "joined").await);
    bob.to_room(&room, "leave", json!({})).await.ok();
    events.push(alice.say(&room, "late").await);
    (server, alice, bob, room, events)
}

#[tokio::test]
async fn each_setting_shows_its_part_of_the_story() {
    for (visibility, seen) in [
        ("joined", vec!["joined"]),
        ("invited", vec!["invited", "joined"]),
        ("shared", vec!["early", "invited", "joined"]),
        // Synapse ends the pages of who has left there; the rules let anybody read on.
        ("world_readable", vec!["early", "invited", "joined", "late"]),
    ] {
        let (_server, alice, bob, room, events) = story(visibility).await;
        assert_eq!(
            readable(&alice, &room).await,
            ["early", "invited", "joined", "late"]
        );
        let page = bob
            .get(&format!("/rooms/{room}/messages?dir=b&limit=100"))
            .await
            .ok();
        let mut page = bodies(list(&page, "chunk"));
        page.reverse();
        assert_eq!(page, seen, "{visibility}, backwards");
        for (event, name) in events.iter().zip(["early", "invited", "joined", "late"]) {
            let may = seen.contains(&name);
            let answer = bob.event(&room, event).await;
            assert_eq!(answer.status == 200, may, "{visibility} {name}: {answer}");
            if !may {
                answer.refused(404, "M_NOT_FOUND");
            }
            let context = bob.get(&format!("/rooms/{room}/context/{event}")).await;
            assert_eq!(context.status == 200, may, "{visibility} {name}: {context}");
        }
    }
}

#[tokio::test]
async fn the_first_sync_shows_no_more_than_may_be_read() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let state =
        json!({"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}});
    let room = alice
        .create_room(json!({"preset": "public_chat", "initial_state": [state]}))
        .await;
    alice.say(&room, "secret").await;
    bob.join(&room).await;
    alice.say(&room, "open").await;
    let sync = bob.sync(None).await;
    assert_eq!(sync.said(&room), ["open"]);
    let context = bob
        .get(&format!("/rooms/{room}/messages?dir=b&limit=100"))
        .await
        .ok();
    assert_eq!(bodies(list(&context, "chunk")), ["open"]);
}

#[tokio::test]
async fn a_setting_holds_for_what_is_said_after_it() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    alice.say(&room, "shared").await;
    let set = json!({"history_visibility": "joined"});
    alice
        .set_state(&room, "m.room.history_visibility", "", set)
        .await;
    alice.say(&room, "closed").await;
    let set = json!({"history_visibility": "shared"});
    alice
        .set_state(&room, "m.room.history_visibility", "", set)
        .await;
    alice.say(&room, "shared again").await;
    bob.join(&room).await;
    assert_eq!(readable(&bob, &room).await, ["shared", "shared again"]);
}

#[tokio::test]
async fn anyone_may_look_into_a_room_that_the_world_may_read() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let state = json!({"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}});
    let room = alice.create_room(json!({"initial_state": [state]})).await;
    let event = alice.say(&room, "hear ye").await;
    assert_eq!(
        bob.event(&room, &event).await.ok()["content"]["body"],
        "hear ye"
    );
    assert_eq!(readable(&bob, &room).await, ["hear ye"]);
    let state = bob.get(&format!("/rooms/{room}/state")).await;
    assert_eq!(state.status, 200, "{state}");
    assert!(bob.sync(None).await.joined(&room).is_null());
}
