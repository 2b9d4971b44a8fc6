//! Read receipts: public, private, in threads.

use harness::{Sync, User};
use serde_json::{Value, json};

use crate::server;

async fn receipt(user: &User, room: &str, kind: &str, event: &str, body: Value) -> harness::Answer {
    user.post(&format!("/rooms/{room}/receipt/{kind}/{event}"), body)
        .await
}

/// The receipt of `user` for `event` in a sync, by kind.
fn seen<'a>(sync: &'a Sync, room: &str, event: &str, kind: &str, user: &User) -> &'a Value {
    let receipts = sync
        .ephemeral(room)
        .iter()
        .find(|e| e["type"] == "m.receipt");
    receipts.map_or(&Value::Null, |r| &r["content"][event][kind][&user.id])
}

#[tokio::test]
async fn a_public_receipt_reaches_everybody_and_replaces_the_last() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (one, two) = (alice.say(&room, "1").await, alice.say(&room, "2").await);
    let since = alice.sync(None).await.next_batch();
    assert_eq!(
        receipt(&bob, &room, "m.read", &one, json!({})).await.ok(),
        json!({})
    );
    let sync = alice.sync(Some(&since)).await;
    assert!(
        seen(&sync, &room, &one, "m.read", &bob)["ts"].is_i64(),
        "{:?}",
        sync.body
    );
    assert!(sync.timeline(&room).is_empty());

    receipt(&bob, &room, "m.read", &two, json!({})).await.ok();
    let next = alice.sync(Some(&sync.next_batch())).await;
    assert!(seen(&next, &room, &two, "m.read", &bob).is_object());
    let whole = alice.sync(None).await;
    assert!(seen(&whole, &room, &two, "m.read", &bob).is_object());
    assert!(seen(&whole, &room, &one, "m.read", &bob).is_null());
    let idle = alice.sync(Some(&next.next_batch())).await;
    assert!(idle.joined(&room).is_null(), "{:?}", idle.body);
}

#[tokio::test]
async fn a_private_receipt_is_seen_by_its_owner_only() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.say(&room, "1").await;
    let (alices, bobs) = (
        alice.sync(None).await.next_batch(),
        bob.sync(None).await.next_batch(),
    );
    receipt(&bob, &room, "m.read.private", &event, json!({}))
        .await
        .ok();
    let own = bob.sync(Some(&bobs)).await;
    assert!(
        seen(&own, &room, &event, "m.read.private", &bob).is_object(),
        "{:?}",
        own.body
    );
    let others = alice.sync(Some(&alices)).await;
    assert!(
        !others.body.to_string().contains("m.read.private"),
        "{:?}",
        others.body
    );
    assert!(
        !alice
            .sync(None)
            .await
            .body
            .to_string()
            .contains("m.read.private")
    );
}

#[tokio::test]
async fn receipts_of_threads_stand_beside_each_other() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.say(&room, "root").await;
    let relation = json!({"rel_type": "m.thread", "event_id": root});
    let content = json!({"msgtype": "m.text", "body": "in thread", "m.relates_to": relation});
    let reply = alice.send(&room, "m.room.message", content).await;
    receipt(&bob, &room, "m.read", &root, json!({"thread_id": "main"}))
        .await
        .ok();
    receipt(&bob, &room, "m.read", &reply, json!({"thread_id": root}))
        .await
        .ok();
    let sync = alice.sync(None).await;
    assert_eq!(
        seen(&sync, &room, &root, "m.read", &bob)["thread_id"],
        "main"
    );
    assert_eq!(
        seen(&sync, &room, &reply, "m.read", &bob)["thread_id"],
        root
    );

    for wrong in [json!({"thread_id": ""}), json!({"thread_id": 7})] {
        let refused = receipt(&bob, &room, "m.read", &reply, wrong).await;
        assert_eq!(refused.status, 400, "{refused}");
    }
    receipt(&bob, &room, "m.read", &reply, json!({"thread_id": "main"}))
        .await
        .refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn unknown_kinds_rooms_and_strangers_are_refused() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let event = alice.say(&room, "1").await;
    let refused = receipt(&alice, &room, "m.unheard_of", &event, json!({})).await;
    assert_eq!(refused.status, 400, "{refused}");
    let refused = receipt(&bob, &room, "m.read", &event, json!({})).await;
    assert_eq!(refused.status, 403, "{refused}");
    assert!(!alice.sync(None).await.body.to_string().contains(&bob.id));
}

#[tokio::test]
async fn where_both_kinds_stand_the_unthreaded_receipt_counts() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let said = bob.say(&room, "salaam").await;
    receipt(&alice, &room, "m.read", &said, json!({}))
        .await
        .ok();
    receipt(&alice, &room, "m.read", &said, json!({"thread_id": "main"}))
        .await
        .ok();
    let sync = bob.sync(None).await;
    let events = sync.ephemeral(&room).iter();
    let receipts: Vec<_> = events
        .filter(|event| event["type"] == "m.receipt")
        .collect();
    assert_eq!(receipts.len(), 1);
    let read = &receipts[0]["content"][&said]["m.read"][&alice.id];
    assert!(read["ts"].is_i64(), "{read}");
    assert_eq!(read.get("thread_id"), None, "MSC4102");
}
