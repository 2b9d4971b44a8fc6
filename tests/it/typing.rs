//! Who is typing.

use harness::{Sync, User};
use serde_json::{Value, json};

use crate::server;

fn typists<'a>(sync: &'a Sync, room: &str) -> &'a Value {
    let event = sync
        .ephemeral(room)
        .iter()
        .find(|e| e["type"] == "m.typing");
    event.map_or(&Value::Null, |e| &e["content"]["user_ids"])
}

async fn types(user: &User, room: &str, of: &User, typing: bool) -> harness::Answer {
    let body = if typing {
        json!({"typing": true, "timeout": 20_000})
    } else {
        json!({"typing": false})
    };
    user.put(&format!("/rooms/{room}/typing/{}", of.id), body)
        .await
}

#[tokio::test]
async fn others_are_told_when_one_begins_and_ends() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = alice.sync(None).await.next_batch();
    assert_eq!(types(&bob, &room, &bob, true).await.ok(), json!({}));
    let began = alice
        .sync_until(&since, |s| !typists(s, &room).is_null())
        .await;
    assert_eq!(*typists(&began, &room), json!([bob.id]));
    assert!(began.timeline(&room).is_empty());
    types(&bob, &room, &bob, false).await.ok();
    let ended = alice
        .sync_until(&began.next_batch(), |s| !typists(s, &room).is_null())
        .await;
    assert_eq!(*typists(&ended, &room), json!([]));
}

#[tokio::test]
async fn typing_ends_when_its_time_has_run_out() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = alice.sync(None).await.next_batch();
    let body = json!({"typing": true, "timeout": 1});
    bob.put(&format!("/rooms/{room}/typing/{}", bob.id), body)
        .await
        .ok();
    // Nobody says that bob has stopped: the time runs out.
    alice
        .sync_until(&since, |s| *typists(s, &room) == json!([]))
        .await;
}

#[tokio::test]
async fn one_types_for_oneself_and_inside() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    types(&bob, &room, &alice, true)
        .await
        .refused(403, "M_FORBIDDEN");
    types(&bob, &room, &bob, true)
        .await
        .refused(403, "M_FORBIDDEN");
    for body in [
        json!({}),
        json!({"typing": "yes"}),
        json!({"typing": true, "timeout": "long"}),
    ] {
        let refused = alice
            .put(&format!("/rooms/{room}/typing/{}", alice.id), body)
            .await;
        assert_eq!(refused.status, 400, "{refused}");
    }
    assert!(typists(&alice.sync(None).await, &room).is_null());
}
