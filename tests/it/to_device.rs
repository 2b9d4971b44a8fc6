//! Messages from device to device ([spec](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging)).

use harness::{Sync, User};
use serde_json::{Value, json};

use crate::{another_device, server};

async fn send(from: &User, transaction: &str, messages: Value) {
    let path = format!("/sendToDevice/org.example.type/{transaction}");
    let answer = from.put(&path, json!({"messages": messages})).await.ok();
    assert_eq!(answer, json!({}));
}

fn bodies(sync: &Sync) -> Vec<&Value> {
    let events = sync.body["to_device"]["events"].as_array();
    let events = events.map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| &event["content"]["n"]).collect()
}

#[tokio::test]
async fn a_message_reaches_a_device_all_devices_or_none() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let second = another_device(&server, &bob, None).await;
    send(&alice, "1", json!({&bob.id: {&bob.device: {"n": 1}}})).await;
    send(&alice, "2", json!({&bob.id: {"*": {"n": 2}}})).await;
    let nowhere = json!({&bob.id: {"NOSUCH": {"n": 3}}, "@nobody:localhost": {"*": {"n": 4}}});
    send(&alice, "3", nowhere).await;
    let first = bob.sync(None).await;
    assert_eq!(bodies(&first), [1, 2]);
    assert_eq!(bodies(&second.sync(None).await), [2]);
    let event = &first.body["to_device"]["events"][0];
    let whole = json!({"type": "org.example.type", "sender": alice.id, "content": {"n": 1}});
    assert_eq!(*event, whole);
}

#[tokio::test]
async fn messages_come_again_until_the_device_goes_on_from_their_token() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let start = bob.sync(None).await.next_batch();
    send(&alice, "1", json!({&bob.id: {"*": {"n": 1}}})).await;
    let told = bob.sync(Some(&start)).await;
    assert_eq!(bodies(&told), [1]);
    assert_eq!(bodies(&bob.sync(Some(&start)).await), [1]);
    assert!(bodies(&bob.sync(Some(&told.next_batch())).await).is_empty());
    // It has it: even the old token brings it no more.
    assert!(bodies(&bob.sync(Some(&start)).await).is_empty());
    assert!(bodies(&bob.sync(None).await).is_empty());
}

#[tokio::test]
async fn the_same_transaction_sends_once() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for _ in 0..3 {
        send(&alice, "same", json!({&bob.id: {"*": {"n": 1}}})).await;
    }
    assert_eq!(bodies(&bob.sync(None).await), [1]);
}

#[tokio::test]
async fn who_waits_is_woken() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let start = bob.sync(None).await.next_batch();
    let waiting = {
        let bob = bob.clone();
        tokio::spawn(async move { bob.sync_with(Some(&start), "timeout=30000").await })
    };
    send(&alice, "1", json!({&bob.id: {&bob.device: {"n": 1}}})).await;
    assert_eq!(bodies(&waiting.await.unwrap()), [1]);
}

#[tokio::test]
async fn many_messages_come_in_order_and_in_pieces() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for n in 0..250 {
        send(
            &alice,
            &n.to_string(),
            json!({&bob.id: {&bob.device: {"n": n}}}),
        )
        .await;
    }
    let mut got: Vec<u64> = Vec::new();
    let mut since: Option<String> = None;
    loop {
        let sync = bob.sync(since.as_deref()).await;
        let some = bodies(&sync);
        if some.is_empty() {
            break;
        }
        assert!(some.len() <= 100);
        got.extend(some.iter().map(|n| n.as_u64().unwrap()));
        since = Some(sync.next_batch());
    }
    assert_eq!(got, (0..250).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_larger_than_a_batch_is_filled_whole() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut devices = vec![bob.clone()];
    for _ in 0..40 {
        devices.push(another_device(&server, &bob, None).await);
    }
    let padding = "x".repeat(50_000);
    for _ in 0..2 {
        let message = json!({"n": 1, "padding": padding});
        send(&alice, "large", json!({&bob.id: {"*": message}})).await;
    }
    for device in &devices {
        assert_eq!(bodies(&device.sync(None).await), [1]);
    }
}

#[tokio::test]
async fn a_queue_ends_with_its_device() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let second = another_device(&server, &bob, None).await;
    send(&alice, "1", json!({&bob.id: {"*": {"n": 1}}})).await;
    second.post("/logout", json!({})).await.ok();
    let identifier = json!({"type": "m.id.user", "user": bob.name()});
    let password = format!("{}-password", bob.name());
    let login = json!({"type": "m.login.password", "identifier": identifier, "password": password, "device_id": second.device});
    let again = server.user_of(&server.post("/login", login).await.ok());
    assert!(bodies(&again.sync(None).await).is_empty());
    assert_eq!(bodies(&bob.sync(None).await), [1]);
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let server = server().await;
    let alice = server.user("alice").await;
    let path = "/sendToDevice/org.example.type/1";
    for (wrong, status) in [
        (json!({}), 400),
        (json!({"messages": []}), 400),
        (json!({"messages": {"alice": {"*": {}}}}), 400),
        (json!({"messages": {&alice.id: {"*": "text"}}}), 400),
        (
            json!({"messages": {&alice.id: {"*": {"x": "y".repeat(66_000)}}}}),
            413,
        ),
    ] {
        let answer = alice.put(path, wrong).await;
        assert_eq!(answer.status, status, "{answer}");
    }
    assert!(bodies(&alice.sync(None).await).is_empty());
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let mut server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let start = bob.sync(None).await.next_batch();
    send(&alice, "1", json!({&bob.id: {"*": {"n": 1}}})).await;
    server.kill9();
    server.restart().await;
    send(&alice, "1", json!({&bob.id: {"*": {"n": 1}}})).await;
    assert_eq!(bodies(&bob.sync(Some(&start)).await), [1]);
}
