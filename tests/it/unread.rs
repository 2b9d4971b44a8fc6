//! Unread counts, highlights, and the same by thread.

use harness::{Sync, User, encode};
use serde_json::{Value, json};

use crate::server;

fn counts(sync: &Sync, room: &str) -> (u64, u64) {
    let unread = &sync.joined(room)["unread_notifications"];
    (
        unread["notification_count"].as_u64().unwrap(),
        unread["highlight_count"].as_u64().unwrap(),
    )
}

async fn read(user: &User, room: &str, event: &str, body: Value) {
    user.post(&format!("/rooms/{room}/receipt/m.read/{event}"), body)
        .await
        .ok();
}

async fn mention(from: &User, room: &str, whom: &User) -> String {
    let content =
        json!({"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [whom.id]}});
    from.send(room, "m.room.message", content).await
}

async fn in_thread(from: &User, room: &str, root: &str) -> String {
    let relation = json!({"rel_type": "m.thread", "event_id": root});
    let content = json!({"msgtype": "m.text", "body": "in thread", "m.relates_to": relation, "m.mentions": {}});
    from.send(room, "m.room.message", content).await
}

#[tokio::test]
async fn counts_what_others_have_said_since_the_receipt() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let first = alice.say(&room, "1").await;
    read(&bob, &room, &first, json!({})).await;
    let start = bob.sync(None).await;
    assert_eq!(counts(&start, &room), (0, 0));

    alice.say(&room, "2").await;
    let middle = alice.say(&room, "3").await;
    mention(&alice, &room, &bob).await;
    let sync = bob.sync(Some(&start.next_batch())).await;
    assert_eq!(counts(&sync, &room), (3, 1));
    assert_eq!(counts(&bob.sync(None).await, &room), (3, 1));

    read(&bob, &room, &middle, json!({})).await;
    let sync = bob.sync(Some(&sync.next_batch())).await;
    assert_eq!(
        counts(&sync, &room),
        (1, 1),
        "what came after the receipt's event"
    );
    bob.say(&room, "my own words").await;
    let sync = bob.sync(Some(&sync.next_batch())).await;
    assert_eq!(
        counts(&sync, &room),
        (0, 0),
        "who answers has read, and one's own words are nothing to read"
    );
    let last = alice.say(&room, "4").await;
    read(&bob, &room, &last, json!({})).await;
    assert_eq!(counts(&bob.sync(None).await, &room), (0, 0));
}

#[tokio::test]
async fn a_private_receipt_counts_as_reading() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = mention(&alice, &room, &bob).await;
    assert_eq!(counts(&bob.sync(None).await, &room), (1, 1));
    bob.post(
        &format!("/rooms/{room}/receipt/m.read.private/{event}"),
        json!({}),
    )
    .await
    .ok();
    assert_eq!(counts(&bob.sync(None).await, &room), (0, 0));
}

#[tokio::test]
async fn ones_own_words_state_and_notices_are_nothing_unread() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let first = alice.say(&room, "1").await;
    read(&bob, &room, &first, json!({})).await;
    alice
        .set_state(&room, "m.room.topic", "", json!({"topic": "x"}))
        .await;
    alice
        .send(
            &room,
            "m.room.message",
            json!({"msgtype": "m.notice", "body": "beep", "m.mentions": {}}),
        )
        .await;
    let relation = json!({"rel_type": "m.annotation", "event_id": first, "key": "👍"});
    alice
        .send(&room, "m.reaction", json!({"m.relates_to": relation}))
        .await;
    assert_eq!(counts(&bob.sync(None).await, &room), (0, 0));
    assert_eq!(counts(&alice.sync(None).await, &room), (0, 0));
}

#[tokio::test]
async fn a_thread_counts_for_itself_where_a_client_asks_so() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.say(&room, "root").await;
    read(&bob, &room, &root, json!({"thread_id": "main"})).await;
    in_thread(&alice, &room, &root).await;
    let last = in_thread(&alice, &room, &root).await;
    alice.say(&room, "main").await;

    assert_eq!(
        counts(&bob.sync(None).await, &room),
        (3, 0),
        "without threads all is one"
    );
    let filter = json!({"room": {"timeline": {"unread_thread_notifications": true}}});
    let query = format!("timeout=0&filter={}", encode(&filter.to_string()));
    let threaded = bob.sync_with(None, &query).await;
    assert_eq!(counts(&threaded, &room), (1, 0));
    let of_thread = &threaded.joined(&room)["unread_thread_notifications"][&root];
    assert_eq!(
        *of_thread,
        json!({"notification_count": 2, "highlight_count": 0})
    );

    read(&bob, &room, &last, json!({"thread_id": root})).await;
    let after = bob.sync_with(None, &query).await;
    assert_eq!(counts(&after, &room), (1, 0));
    let of_thread = &after.joined(&room)["unread_thread_notifications"][&root];
    assert!(
        of_thread.is_null() || of_thread["notification_count"] == 0,
        "{of_thread}"
    );
}

#[tokio::test]
async fn calling_the_whole_room_is_a_highlight_if_one_may() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let content = json!({"msgtype": "m.text", "body": "all of you", "m.mentions": {"room": true}});
    alice.send(&room, "m.room.message", content.clone()).await;
    assert_eq!(counts(&bob.sync(None).await, &room), (1, 1));
    // Bob may not call the whole room.
    bob.send(&room, "m.room.message", content).await;
    assert_eq!(counts(&alice.sync(None).await, &room), (1, 0));
}

#[tokio::test]
async fn what_is_redacted_is_not_unread() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let start = bob.sync(None).await;
    let gone = alice.say(&room, "1").await;
    alice.say(&room, "2").await;
    let mentioned = mention(&alice, &room, &bob).await;
    let sync = bob.sync(Some(&start.next_batch())).await;
    assert_eq!(counts(&sync, &room), (3, 1));
    for (number, event) in [gone, mentioned].iter().enumerate() {
        let path = format!("/rooms/{room}/redact/{event}/{number}");
        alice.put(&path, json!({})).await.ok();
    }
    let sync = bob.sync(Some(&sync.next_batch())).await;
    assert_eq!(counts(&sync, &room), (1, 0));
}

/// Whom a body names by their whole id is mentioned by it, unless `m.mentions` says otherwise.
#[tokio::test]
async fn a_name_in_the_body_mentions_where_nothing_else_says_who_is() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob, &carol]).await;
    // With rules of one's own each event is looked at by itself.
    let rule = json!({"actions": ["notify"], "pattern": "needle"});
    carol
        .put("/pushrules/global/content/needle", rule)
        .await
        .ok();
    let first = alice.say(&room, "first").await;
    for user in [&bob, &carol] {
        read(user, &room, &first, json!({})).await;
    }
    alice
        .say(&room, &format!("Hello {} and {}!", bob.id, carol.id))
        .await;
    let silent = json!({
        "msgtype": "m.text", "body": format!("{} {}", bob.id, carol.id), "m.mentions": {},
    });
    alice.send(&room, "m.room.message", silent).await;
    for user in [&bob, &carol] {
        assert_eq!(counts(&user.sync(None).await, &room), (2, 1));
    }
}
