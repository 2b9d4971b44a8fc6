//! Asking to be let in.

use harness::{Answer, User, encode};
use serde_json::{Value, json};

use crate::{list, only, server};

async fn knock(user: &User, room: &str, body: Value) -> Answer {
    user.post(&format!("/knock/{}", encode(room)), body).await
}

/// Sets who may join.
async fn rule(user: &User, room: &str, content: Value) {
    user.set_state(room, "m.room.join_rules", "", content).await;
}

/// What somebody's membership is, as its member event has it.
async fn content(user: &User, room: &str, of: &User) -> Value {
    user.state(room, "m.room.member", &of.id).await.ok()
}

#[tokio::test]
async fn who_knocks_is_seen_and_can_be_let_in() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"name": "hall"})).await;
    knock(&bob, &room, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    rule(&alice, &room, json!({"join_rule": "knock"})).await;
    bob.post(&format!("/join/{room}"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");

    let since = bob.sync(None).await.next_batch();
    let answer = knock(&bob, &room, json!({"reason": "it rains"})).await.ok();
    assert_eq!(answer, json!({"room_id": room}));
    for sync in [bob.sync(Some(&since)).await, bob.sync(None).await] {
        let state = list(&sync.body["rooms"]["knock"][&room]["knock_state"], "events");
        only(state, "m.room.create", "");
        only(state, "m.room.join_rules", "");
        assert_eq!(only(state, "m.room.name", "")["content"]["name"], "hall");
        let own = only(state, "m.room.member", &bob.id);
        assert_eq!(
            own["content"],
            json!({"membership": "knock", "reason": "it rains"})
        );
    }
    let seen = alice.sync(None).await;
    let seen = only(seen.timeline(&room), "m.room.member", &bob.id).clone();
    assert_eq!(seen["content"]["reason"], "it rains");
    bob.get(&format!("/rooms/{room}/messages?dir=b"))
        .await
        .refused(403, "M_FORBIDDEN");

    // Louder, which is nothing wrong.
    knock(&bob, &room, json!({"reason": "it pours"})).await.ok();
    let told = content(&alice, &room, &bob).await;
    assert_eq!(told["reason"], "it pours");

    alice
        .to_room(&room, "invite", json!({"user_id": bob.id}))
        .await
        .ok();
    let sync = bob.sync(Some(&since)).await;
    assert!(sync.invited(&room).is_object(), "{}", sync.body);
    assert!(sync.body["rooms"]["knock"].is_null(), "{}", sync.body);
    knock(&bob, &room, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;
    knock(&bob, &room, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .to_room(&room, "ban", json!({"user_id": bob.id}))
        .await
        .ok();
    knock(&bob, &room, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_knock_can_be_taken_back_and_refused() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let name = format!("door-{}", alice.name());
    let room = alice.create_room(json!({"room_alias_name": name})).await;
    rule(&alice, &room, json!({"join_rule": "knock"})).await;
    let alias = alice
        .id
        .replace(&format!("@{}", alice.name()), &format!("#{name}"));
    for ends in ["leave", "kick"] {
        knock(&bob, &alias, json!({})).await.ok();
        let since = bob.sync(None).await.next_batch();
        match ends {
            "leave" => bob.to_room(&room, ends, json!({})).await.ok(),
            _ => {
                let body = json!({"user_id": bob.id, "reason": "no"});
                alice.to_room(&room, ends, body).await.ok()
            }
        };
        let sync = bob.sync(Some(&since)).await;
        let events = list(&sync.left(&room)["timeline"], "events");
        let own = only(events, "m.room.member", &bob.id);
        assert_eq!(own["content"]["membership"], "leave", "{ends}");
        assert!(bob.sync(None).await.body["rooms"].is_null());
    }
}

#[tokio::test]
async fn a_room_can_be_open_to_some_and_take_the_knocks_of_others() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    for version in ["10", "11", "12"] {
        let club = alice.room_with(&[&bob]).await;
        let room = alice.create_room(json!({"room_version": version})).await;
        let allow = json!([{"type": "m.room_membership", "room_id": club}]);
        let both = json!({"join_rule": "knock_restricted", "allow": allow});
        rule(&alice, &room, both).await;
        bob.join(&room).await;
        let told = content(&alice, &room, &bob).await;
        assert_eq!(told["join_authorised_via_users_server"], alice.id);
        carol
            .post(&format!("/join/{room}"), json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        knock(&carol, &room, json!({})).await.ok();
        let told = content(&alice, &room, &carol).await;
        assert_eq!(told, json!({"membership": "knock"}));
    }
}

#[tokio::test]
async fn there_was_no_knocking_before_version_7() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"room_version": "6"})).await;
    rule(&alice, &room, json!({"join_rule": "knock"})).await;
    knock(&bob, &room, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    knock(&bob, "!nowhere:localhost", json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}
