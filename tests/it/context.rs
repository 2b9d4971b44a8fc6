//! An event and what stands around it.

use harness::encode;
use serde_json::json;

use crate::{bodies, list, only, server};

#[tokio::test]
async fn shows_what_came_before_and_after() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let mut events = Vec::new();
    for n in 1..=9 {
        events.push(alice.say(&room, &n.to_string()).await);
    }
    let path = format!("/rooms/{room}/context/{}", events[4]);
    let context = alice.get(&format!("{path}?limit=4")).await.ok();
    assert_eq!(context["event"]["event_id"], events[4]);
    assert_eq!(bodies(list(&context, "events_before")), ["4", "3"]);
    assert_eq!(bodies(list(&context, "events_after")), ["6", "7"]);
    only(list(&context, "state"), "m.room.create", "");

    let messages = format!("/rooms/{room}/messages?limit=2");
    let before = encode(context["start"].as_str().unwrap());
    let page = alice
        .get(&format!("{messages}&dir=b&from={before}"))
        .await
        .ok();
    assert_eq!(bodies(list(&page, "chunk")), ["2", "1"]);
    let after = encode(context["end"].as_str().unwrap());
    let page = alice
        .get(&format!("{messages}&dir=f&from={after}"))
        .await
        .ok();
    assert_eq!(bodies(list(&page, "chunk")), ["8", "9"]);

    let alone = alice.get(&format!("{path}?limit=0")).await.ok();
    assert_eq!(alone["event"]["event_id"], events[4]);
    for side in ["events_before", "events_after"] {
        assert!(
            alone
                .get(side)
                .is_none_or(|l| l.as_array().unwrap().is_empty()),
            "{alone}"
        );
    }
    let outside = bob.get(&path).await;
    assert!([403, 404].contains(&outside.status), "{outside}");
    alice
        .get(&format!("/rooms/{room}/context/$nosuchevent"))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_state_is_that_of_the_newest_event_shown() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "old"}))
        .await;
    let event = alice.say(&room, "here").await;
    alice.say(&room, "after").await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "new"}))
        .await;
    let context = alice
        .get(&format!("/rooms/{room}/context/{event}?limit=2"))
        .await
        .ok();
    assert_eq!(bodies(list(&context, "events_after")), ["after"]);
    assert_eq!(
        only(list(&context, "state"), "m.room.name", "")["content"]["name"],
        "old"
    );
}

#[tokio::test]
async fn follows_a_filter_and_loads_members_lazily() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.say(&room, "a").await;
    alice.send(&room, "org.example.noise", json!({})).await;
    let event = bob.say(&room, "b").await;
    alice.send(&room, "org.example.noise", json!({})).await;
    alice.say(&room, "c").await;
    let filter = json!({"types": ["m.room.message"], "lazy_load_members": true});
    let query = format!("limit=10&filter={}", encode(&filter.to_string()));
    let context = alice
        .get(&format!("/rooms/{room}/context/{event}?{query}"))
        .await
        .ok();
    assert_eq!(bodies(list(&context, "events_before")), ["a"]);
    assert!(!context.to_string().contains("org.example.noise"));
    assert_eq!(bodies(list(&context, "events_after")), ["c"]);
    let state = list(&context, "state");
    let mut members: Vec<_> = state
        .iter()
        .map(|e| e["state_key"].as_str().unwrap())
        .collect();
    members.sort();
    assert_eq!(members, [&alice.id, &bob.id]);
}
