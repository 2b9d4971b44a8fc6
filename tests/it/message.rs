//! Sending, and reading back page by page.

use harness::{User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bodies, ids, list, server};

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

#[tokio::test]
async fn a_transaction_id_acts_once() {
    let server = server().await;
    let alice = server.user("alice").await;
    let (room, other) = (alice.room_with(&[]).await, alice.room_with(&[]).await);
    let path = format!("/rooms/{room}/send/m.room.message/txn.1~x");
    let first = alice.put(&path, text("once")).await.ok();
    assert_eq!(alice.put(&path, text("once")).await.ok(), first);
    assert_eq!(alice.put(&path, text("changed")).await.ok(), first);
    assert_eq!(bodies(&alice.timeline(&room).await), ["once"]);

    let elsewhere = format!("/rooms/{other}/send/m.room.message/txn.1~x");
    assert_ne!(alice.put(&elsewhere, text("twice")).await.ok(), first);
    assert_eq!(bodies(&alice.timeline(&other).await), ["twice"]);
}

#[tokio::test]
async fn transaction_ids_belong_to_a_device() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let identifier = json!({"type": "m.id.user", "user": alice.name()});
    let password = format!("{}-password", alice.name());
    let body = json!({"type": "m.login.password", "identifier": identifier, "password": password});
    let tablet = server.user_of(&server.post("/login", body).await.ok());
    let path = format!("/rooms/{room}/send/m.room.message/1");
    let (one, two) = (
        alice.put(&path, text("a")).await.ok(),
        tablet.put(&path, text("b")).await.ok(),
    );
    assert_ne!(one, two);
    assert_eq!(bodies(&alice.timeline(&room).await), ["a", "b"]);
}

#[tokio::test]
async fn the_same_transaction_at_the_same_time_acts_once_too() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let path = format!("/rooms/{room}/send/m.room.message/same");
    let sends = (0..8).map(|_| {
        let (alice, path) = (alice.clone(), path.clone());
        tokio::spawn(async move { alice.put(&path, text("once")).await.ok()["event_id"].clone() })
    });
    let mut events = Vec::new();
    for send in sends.collect::<Vec<_>>() {
        events.push(send.await.unwrap());
    }
    assert!(events.iter().all(|e| *e == events[0]), "{events:?}");
    assert_eq!(bodies(&alice.timeline(&room).await), ["once"]);
}

#[tokio::test]
async fn only_the_sending_device_sees_its_transaction_id() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (alices, bobs) = (
        alice.sync(None).await.next_batch(),
        bob.sync(None).await.next_batch(),
    );
    let path = format!("/rooms/{room}/send/m.room.message/m123");
    let sent = alice.put(&path, text("hello")).await.ok();
    let event = sent["event_id"].as_str().unwrap();
    let own = alice.sync(Some(&alices)).await;
    assert_eq!(own.timeline(&room)[0]["unsigned"]["transaction_id"], "m123");
    let others = bob.sync(Some(&bobs)).await;
    assert_eq!(
        others.timeline(&room)[0]["unsigned"].get("transaction_id"),
        None
    );
    assert_eq!(
        alice.event(&room, event).await.ok()["unsigned"]["transaction_id"],
        "m123"
    );
    assert_eq!(
        bob.event(&room, event).await.ok()["unsigned"].get("transaction_id"),
        None
    );
}

#[tokio::test]
async fn sending_needs_to_be_inside_and_have_the_power() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let levels = json!({"events": {"org.example.loud": 50}});
    let body = json!({"preset": "public_chat", "power_level_content_override": levels});
    let room = alice.create_room(body).await;
    let send = |room: &str, kind: &str| format!("/rooms/{room}/send/{kind}/1");
    bob.put(&send(&room, "m.room.message"), text("x"))
        .await
        .refused(403, "M_FORBIDDEN");
    let nowhere = bob
        .put(&send("!nowhere:localhost", "m.room.message"), text("x"))
        .await;
    assert!([403, 404].contains(&nowhere.status), "{nowhere}");

    bob.join(&room).await;
    bob.put(&send(&room, "org.example.loud"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.put(&send(&room, "org.example.quiet"), json!({}))
        .await
        .ok();
    alice
        .put(&send(&room, "org.example.loud"), json!({}))
        .await
        .ok();
    let kinds: Vec<_> = alice
        .timeline(&room)
        .await
        .iter()
        .map(|e| e["type"].clone())
        .collect();
    assert!(
        kinds.ends_with(&[json!("org.example.quiet"), json!("org.example.loud")]),
        "{kinds:?}"
    );
}

#[tokio::test]
async fn content_comes_back_as_it_was_sent() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let content = json!({
        "body": "سلام 👋 \u{0} \u{202e} \" \\ / \u{7f}", "msgtype": "m.text",
        "nested": {"list": [1, -1, 0, true, null, "", {"": {}}], "big": 9007199254740991_i64, "small": -9007199254740991_i64},
    });
    let event = alice.send(&room, "m.room.message", content.clone()).await;
    assert_eq!(alice.event(&room, &event).await.ok()["content"], content);
    assert_eq!(
        alice.timeline(&room).await.last().unwrap()["content"],
        content
    );
}

/// A public room with `count` messages "1", "2", … of alice.
async fn room_of(alice: &User, count: usize) -> String {
    let room = alice.room_with(&[]).await;
    for n in 1..=count {
        alice.say(&room, &n.to_string()).await;
    }
    room
}

#[tokio::test]
async fn pages_meet_without_gap_or_overlap_in_both_directions() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = room_of(&alice, 23).await;
    let forwards = alice.timeline(&room).await;
    let said: Vec<_> = (1..=23).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&forwards), said);
    for limit in [1, 7, 1000] {
        let mut backwards = Vec::new();
        let mut from = String::new();
        loop {
            let page = alice
                .get(&format!("/rooms/{room}/messages?dir=b&limit={limit}{from}"))
                .await
                .ok();
            assert!(page["start"].is_string());
            assert!(list(&page, "chunk").len() <= limit);
            backwards.extend(list(&page, "chunk").iter().cloned());
            let Some(end) = page["end"].as_str() else {
                break;
            };
            from = format!("&from={}", encode(end));
        }
        backwards.reverse();
        assert_eq!(ids(&backwards), ids(&forwards), "limit {limit}");
    }
}

#[tokio::test]
async fn a_page_ends_at_the_token_in_to_and_turns_around_at_its_start() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = room_of(&alice, 9).await;
    let path = format!("/rooms/{room}/messages");
    let first = alice.get(&format!("{path}?dir=b&limit=3")).await.ok();
    assert_eq!(bodies(list(&first, "chunk")), ["9", "8", "7"]);
    let end = encode(first["end"].as_str().unwrap());
    let second = alice
        .get(&format!("{path}?dir=b&limit=3&from={end}"))
        .await
        .ok();
    assert_eq!(bodies(list(&second, "chunk")), ["6", "5", "4"]);
    let until = encode(second["end"].as_str().unwrap());
    let between = alice
        .get(&format!("{path}?dir=b&limit=50&from={end}&to={until}"))
        .await
        .ok();
    assert_eq!(bodies(list(&between, "chunk")), ["6", "5", "4"]);
    let back = alice
        .get(&format!("{path}?dir=f&limit=50&from={until}&to={end}"))
        .await
        .ok();
    assert_eq!(bodies(list(&back, "chunk")), ["4", "5", "6"]);
}

#[tokio::test]
async fn reads_on_from_a_sync_token_in_both_directions() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = room_of(&alice, 3).await;
    let token = encode(&alice.sync(None).await.next_batch());
    for n in 4..=6 {
        alice.say(&room, &n.to_string()).await;
    }
    let path = format!("/rooms/{room}/messages");
    let later = alice.get(&format!("{path}?dir=f&from={token}")).await.ok();
    assert_eq!(bodies(list(&later, "chunk")), ["4", "5", "6"]);
    let earlier = alice
        .get(&format!("{path}?dir=b&limit=3&from={token}"))
        .await
        .ok();
    assert_eq!(bodies(list(&earlier, "chunk")), ["3", "2", "1"]);
}

#[tokio::test]
async fn the_newest_page_can_be_read_on_when_more_has_come() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = room_of(&alice, 2).await;
    let path = format!("/rooms/{room}/messages");
    let newest = alice.get(&format!("{path}?dir=b&limit=1")).await.ok();
    let start = encode(newest["start"].as_str().unwrap());
    alice.say(&room, "3").await;
    let later = alice.get(&format!("{path}?dir=f&from={start}")).await.ok();
    assert_eq!(bodies(list(&later, "chunk")), ["3"]);
}

#[tokio::test]
async fn pages_are_filtered() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for n in 0..4 {
        alice.say(&room, &format!("a{n}")).await;
        bob.say(&room, &format!("b{n}")).await;
        alice
            .send(
                &room,
                "org.example.noise",
                json!({"url": "mxc://localhost/x"}),
            )
            .await;
    }
    let page = async |filter: Value| {
        let filter = encode(&filter.to_string());
        let answer = alice
            .get(&format!(
                "/rooms/{room}/messages?dir=b&limit=100&filter={filter}"
            ))
            .await
            .ok();
        list(&answer, "chunk").to_vec()
    };
    let types = page(json!({"types": ["m.room.message"]})).await;
    assert_eq!(
        bodies(&types),
        ["b3", "a3", "b2", "a2", "b1", "a1", "b0", "a0"]
    );
    assert_eq!(types.len(), 8);
    let senders =
        page(json!({"senders": [bob.id], "types": ["m.room.*"], "not_types": ["m.room.member"]}))
            .await;
    assert_eq!(bodies(&senders), ["b3", "b2", "b1", "b0"]);
    assert_eq!(senders.len(), 4);
    let without = page(json!({"not_senders": [alice.id]})).await;
    assert!(without.iter().all(|e| e["sender"] == bob.id) && without.len() == 5);
    assert_eq!(page(json!({"contains_url": true})).await.len(), 4);
    // Behind chosen events there is a page that tells that there are no more.
    let filter = encode(r#"{"contains_url":true}"#);
    let whole = format!("/rooms/{room}/messages?dir=b&limit=100&filter={filter}");
    let end = alice.get(&whole).await.ok()["end"].clone();
    let next = format!("{whole}&from={}", encode(end.as_str().unwrap()));
    let next = alice.get(&next).await.ok();
    assert_eq!((&next["chunk"], next.get("end")), (&json!([]), None));
    assert!(page(json!({"types": []})).await.is_empty());
    assert!(page(json!({"not_rooms": [room]})).await.is_empty());
}

#[tokio::test]
async fn lazily_loaded_members_are_those_of_the_page() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&bob, &carol]).await;
    alice.say(&room, "a").await;
    bob.say(&room, "b").await;
    let filter = encode(&json!({"lazy_load_members": true}).to_string());
    let page = alice
        .get(&format!(
            "/rooms/{room}/messages?dir=b&limit=2&filter={filter}"
        ))
        .await
        .ok();
    let mut members: Vec<_> = list(&page, "state")
        .iter()
        .map(|e| e["state_key"].as_str().unwrap())
        .collect();
    members.sort();
    assert_eq!(members, [&alice.id, &bob.id]);
}

#[tokio::test]
async fn wrong_pages_are_refused() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = room_of(&alice, 1).await;
    let path = format!("/rooms/{room}/messages");
    for query in [
        "?dir=sideways",
        "?dir=b&from=nonsense",
        "?dir=b&limit=-1",
        "?dir=b&limit=x",
        "?dir=b&filter=%7B",
    ] {
        let refused = alice.get(&format!("{path}{query}")).await;
        assert_eq!(refused.status, 400, "{refused}");
        assert!(
            refused.body["errcode"].is_string() && refused.body["error"].is_string(),
            "{refused}"
        );
    }
    bob.get(&format!("{path}?dir=b"))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.get("/rooms/!nowhere:localhost/messages?dir=b")
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn events_that_are_too_large_are_refused_whole() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = room_of(&alice, 1).await;
    let before = ids(&alice.timeline(&room).await).len();
    let path = format!("/rooms/{room}/send/m.room.message/");
    let large = alice
        .put(&format!("{path}1"), text(&"x".repeat(65_000)))
        .await;
    large.refused(413, "M_TOO_LARGE");
    let kind = "x".repeat(256);
    let refused = alice
        .put(&format!("/rooms/{room}/send/{kind}/2"), json!({}))
        .await;
    assert!([400, 413].contains(&refused.status), "{refused}");
    let refused = alice
        .try_set_state(&room, "org.example.s", &"k".repeat(256), json!({}))
        .await;
    assert!([400, 413].contains(&refused.status), "{refused}");
    assert_eq!(ids(&alice.timeline(&room).await).len(), before);
    alice
        .put(&format!("{path}3"), text(&"x".repeat(60_000)))
        .await
        .ok();
    let ask = format!("/_matrix/client/v3{path}4");
    let body = text(&"x".repeat(10_000_000));
    let refused = alice.ask(Method::PUT, &ask, Some(&body)).await;
    refused.refused(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn unsigned_tells_age_and_membership() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let before = alice.say(&room, "before").await;
    bob.join(&room).await;
    let after = alice.say(&room, "after").await;
    for (event, membership) in [(&before, "leave"), (&after, "join")] {
        let event = bob.event(&room, event).await.ok();
        assert_eq!(event["unsigned"]["membership"], membership, "{event}");
        let age = event["unsigned"]["age"].as_i64().unwrap();
        assert!((0..60_000).contains(&age), "{event}");
    }
    let name = json!({"name": "one"});
    let first = alice
        .set_state(&room, "m.room.name", "", name.clone())
        .await;
    let again = alice.set_state(&room, "m.room.name", "", name).await;
    assert_eq!(first, again, "what says the same is not sent again");
}
