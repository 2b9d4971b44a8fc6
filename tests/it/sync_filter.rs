//! `/sync` through a filter.

use harness::{Sync, User, encode};
use serde_json::{Value, json};

use crate::server;

async fn through(user: &User, since: Option<&str>, filter: &Value) -> Sync {
    user.sync_with(
        since,
        &format!("timeout=0&filter={}", encode(&filter.to_string())),
    )
    .await
}

#[tokio::test]
async fn a_kept_filter_and_the_same_inline_give_the_same() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    for n in 1..=5 {
        alice.say(&room, &n.to_string()).await;
    }
    let filter = json!({"room": {"timeline": {"limit": 2}}});
    let kept = alice
        .post(&format!("/user/{}/filter", alice.id), filter.clone())
        .await
        .ok();
    let by_id = alice
        .sync_with(
            None,
            &format!("timeout=0&filter={}", kept["filter_id"].as_str().unwrap()),
        )
        .await;
    assert_eq!(by_id.said(&room), ["4", "5"]);
    assert_eq!(through(&alice, None, &filter).await.said(&room), ["4", "5"]);
}

#[tokio::test]
async fn chooses_rooms_kinds_and_senders() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (
        alice.room_with(&[&bob]).await,
        alice.room_with(&[&bob]).await,
    );
    for room in [&room, &other] {
        alice.say(room, "a").await;
        bob.say(room, "b").await;
        alice.send(room, "org.example.noise", json!({})).await;
    }
    let only_room = through(&alice, None, &json!({"room": {"rooms": [room]}})).await;
    assert!(only_room.joined(&room).is_object() && only_room.joined(&other).is_null());
    let not_room = through(&alice, None, &json!({"room": {"not_rooms": [room]}})).await;
    assert!(not_room.joined(&room).is_null() && not_room.joined(&other).is_object());

    let kinds = json!({"room": {"timeline": {"types": ["m.room.message"], "senders": [bob.id]}}});
    let sync = through(&alice, None, &kinds).await;
    assert_eq!(sync.said(&room), ["b"]);
    assert_eq!(sync.timeline(&room).len(), 1);
    let state = json!({"room": {"state": {"types": ["m.room.create"]}, "timeline": {"limit": 1}}});
    let sync = through(&alice, None, &state).await;
    assert_eq!(sync.state(&room).len(), 1);
    assert_eq!(sync.state(&room)[0]["type"], "m.room.create");
}

#[tokio::test]
async fn keeps_ephemeral_things_and_account_data_out() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.say(&room, "1").await;
    bob.post(&format!("/rooms/{room}/receipt/m.read/{event}"), json!({}))
        .await
        .ok();
    alice
        .put(
            &format!("/user/{}/account_data/org.example.x", alice.id),
            json!({"x": 1}),
        )
        .await
        .ok();
    let none = json!({"types": []});
    let filter = json!({"account_data": none, "room": {"ephemeral": none, "account_data": none}});
    let sync = through(&alice, None, &filter).await;
    assert!(sync.ephemeral(&room).is_empty());
    assert!(!sync.body.to_string().contains("org.example.x"));
    let all = alice.sync(None).await;
    assert_eq!(all.ephemeral(&room).len(), 1);
    assert!(all.body.to_string().contains("org.example.x"));
}

#[tokio::test]
async fn leaves_unwanted_fields_away() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    alice.say(&room, "1").await;
    let fields =
        json!({"event_fields": ["type", "content.body"], "room": {"timeline": {"limit": 1}}});
    let sync = through(&alice, None, &fields).await;
    assert_eq!(
        sync.timeline(&room),
        [json!({"type": "m.room.message", "content": {"body": "1"}})]
    );
}

fn members<'a>(sync: &'a Sync, room: &str) -> Vec<&'a str> {
    let state = sync
        .state(room)
        .iter()
        .filter(|e| e["type"] == "m.room.member");
    let mut members: Vec<_> = state.map(|e| e["state_key"].as_str().unwrap()).collect();
    members.sort();
    members
}

#[tokio::test]
async fn lazily_loads_the_members_who_speak() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob, &carol]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "The relay"}))
        .await;
    for n in 0..3 {
        bob.say(&room, &n.to_string()).await;
    }
    let state = json!({"lazy_load_members": true});
    let lazy = json!({"room": {"state": state, "timeline": {"limit": 2}}});
    let sync = through(&alice, None, &lazy).await;
    assert_eq!(
        members(&sync, &room),
        [&alice.id, &bob.id],
        "oneself, and who speaks here"
    );
    carol.say(&room, "hello").await;
    let next = through(&alice, Some(&sync.next_batch()), &lazy).await;
    assert_eq!(members(&next, &room), [&carol.id]);
    assert_eq!(next.said(&room), ["hello"]);
}

#[tokio::test]
async fn the_heroes_of_a_nameless_room_are_always_loaded() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for n in 0..3 {
        alice.say(&room, &n.to_string()).await;
    }
    let state = json!({"lazy_load_members": true});
    let lazy = json!({"room": {"state": state, "timeline": {"limit": 2}}});
    let sync = through(&alice, None, &lazy).await;
    assert_eq!(sync.joined(&room)["summary"]["m.heroes"], json!([bob.id]));
    assert!(members(&sync, &room).contains(&bob.id.as_str()));
}
