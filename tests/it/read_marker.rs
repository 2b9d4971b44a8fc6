//! The fully-read marker.

use harness::Sync;
use serde_json::{Value, json};

use crate::server;

fn marker<'a>(sync: &'a Sync, room: &str) -> &'a Value {
    let events = sync.joined(room)["account_data"]["events"].as_array();
    let found = events.and_then(|e| e.iter().find(|e| e["type"] == "m.fully_read"));
    found.map_or(&Value::Null, |e| &e["content"]["event_id"])
}

#[tokio::test]
async fn sets_the_marker_and_both_receipts_at_once() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (one, two, three) = (
        alice.say(&room, "1").await,
        alice.say(&room, "2").await,
        alice.say(&room, "3").await,
    );
    let (alices, bobs) = (
        alice.sync(None).await.next_batch(),
        bob.sync(None).await.next_batch(),
    );
    let all = json!({"m.fully_read": one, "m.read": two, "m.read.private": three});
    assert_eq!(
        bob.to_room(&room, "read_markers", all).await.ok(),
        json!({})
    );

    let own = bob.sync(Some(&bobs)).await;
    assert_eq!(*marker(&own, &room), one);
    let receipts = json!(own.ephemeral(&room)).to_string();
    assert!(
        receipts.contains(&two) && receipts.contains(&three),
        "{receipts}"
    );
    let others = alice.sync(Some(&alices)).await;
    assert!(marker(&others, &room).is_null());
    let receipts = json!(others.ephemeral(&room)).to_string();
    assert!(
        receipts.contains(&two) && !receipts.contains(&three),
        "{receipts}"
    );
    let path = format!("/user/{}/rooms/{room}/account_data/m.fully_read", bob.id);
    assert_eq!(bob.get(&path).await.ok()["event_id"], one);
}

#[tokio::test]
async fn a_receipt_of_the_kind_moves_the_marker_too() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let event = alice.say(&room, "1").await;
    alice
        .post(
            &format!("/rooms/{room}/receipt/m.fully_read/{event}"),
            json!({}),
        )
        .await
        .ok();
    let sync = alice.sync(None).await;
    assert_eq!(*marker(&sync, &room), event);
    assert!(
        !json!(sync.ephemeral(&room))
            .to_string()
            .contains("m.fully_read")
    );
}

#[tokio::test]
async fn strangers_cannot_mark() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let event = alice.say(&room, "1").await;
    let body = json!({"m.fully_read": event});
    let refused = bob.to_room(&room, "read_markers", body).await;
    assert_eq!(refused.status, 403, "{refused}");
}
