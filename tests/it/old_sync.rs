//! The first ways of synchronising
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync)).

use harness::encode;
use serde_json::{Value, json};

use crate::{bodies, list, only, server};

fn room_of<'a>(told: &'a Value, room: &str) -> Option<&'a Value> {
    let rooms = list(told, "rooms");
    rooms.iter().find(|told| told["room_id"] == room)
}

#[tokio::test]
async fn all_rooms_are_told_at_once() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for i in 0..5 {
        alice.say(&room, &i.to_string()).await;
    }
    let tag = format!("/user/{}/rooms/{room}/tags/u.work", bob.id);
    bob.put(&tag, json!({})).await.ok();
    let left = alice.room_with(&[&bob]).await;
    bob.post(&format!("/rooms/{left}/leave"), json!({}))
        .await
        .ok();
    let invited = alice.create_room(json!({"invite": [bob.id]})).await;

    let told = bob.get("/initialSync?limit=3").await.ok();
    let joined = room_of(&told, &room).unwrap();
    assert_eq!(
        (&joined["membership"], &joined["visibility"]),
        (&json!("join"), &json!("private"))
    );
    let chunk = list(&joined["messages"], "chunk");
    assert_eq!(bodies(chunk), ["2", "3", "4"]);
    assert_eq!(chunk[0]["room_id"], room);
    let start = encode(joined["messages"]["start"].as_str().unwrap());
    let earlier = format!("/rooms/{room}/messages?dir=b&limit=2&from={start}");
    let earlier = bob.get(&earlier).await.ok();
    assert_eq!(bodies(list(&earlier, "chunk")), ["1", "0"]);
    let state = list(joined, "state");
    only(state, "m.room.member", &alice.id);
    assert_eq!(only(state, "m.room.create", "")["sender"], json!(alice.id));
    assert_eq!(list(joined, "account_data")[0]["type"], "m.tag");
    let invitation = room_of(&told, &invited).unwrap();
    assert_eq!(invitation["membership"], "invite");
    assert_eq!(invitation["invite"]["content"]["membership"], "invite");
    assert!(invitation["invite"]["event_id"].is_string());
    assert!(room_of(&told, &left).is_none());
    assert!(
        list(&told, "account_data")
            .iter()
            .any(|data| data["type"] == "m.push_rules")
    );
    assert!(told["presence"].is_array());

    let told = bob.get("/initialSync?archived=true").await.ok();
    assert_eq!(room_of(&told, &left).unwrap()["membership"], "leave");
}

#[tokio::test]
async fn what_happens_in_any_room_is_heard() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (one, two) = (
        alice.room_with(&[&bob]).await,
        alice.room_with(&[&bob]).await,
    );
    let told = bob.get("/initialSync").await.ok();
    let listen = async |from: &str| {
        let path = format!("/events?timeout=30000&from={}", encode(from));
        bob.get(&path).await.ok()
    };
    let mut from = told["end"].as_str().unwrap().to_owned();
    for (room, body) in [(&one, "salaam"), (&two, "khubi?")] {
        let (heard, said) = tokio::join!(listen(&from), alice.say(room, body));
        let chunk = list(&heard, "chunk");
        assert_eq!(
            (chunk.len(), &chunk[0]["event_id"], &chunk[0]["room_id"]),
            (1, &json!(said), &json!(room))
        );
        assert_eq!(heard["start"], from);
        from = heard["end"].as_str().unwrap().to_owned();
    }
    let begun = bob.get("/events?timeout=0").await.ok();
    assert!(list(&begun, "chunk").is_empty());
    let said = alice.say(&one, "again").await;
    let heard = listen(begun["end"].as_str().unwrap()).await;
    assert_eq!(list(&heard, "chunk")[0]["event_id"], said);
    bob.get("/events?from=x")
        .await
        .refused(400, "M_INVALID_PARAM");
}

/// Who listens so is not taken for having received what only `/sync` tells.
#[tokio::test]
async fn messages_to_a_device_wait_for_sync() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let messages = json!({"messages": {bob.id.as_str(): {"*": {"key": "secret"}}}});
    alice
        .put("/sendToDevice/org.example/1", messages)
        .await
        .ok();
    let told = bob.get("/initialSync").await.ok();
    alice.say(&room, "salaam").await;
    let from = encode(told["end"].as_str().unwrap());
    let heard = bob.get(&format!("/events?from={from}")).await.ok();
    assert_eq!(bodies(list(&heard, "chunk")), ["salaam"]);
    let from = encode(heard["end"].as_str().unwrap());
    bob.get(&format!("/events?timeout=0&from={from}"))
        .await
        .ok();
    let synced = bob.sync(None).await;
    let messages = list(&synced.body["to_device"], "events");
    assert_eq!(messages[0]["content"]["key"], "secret");
}

#[tokio::test]
async fn an_event_is_found_without_its_room() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let said = alice.say(&room, "salaam").await;
    let path = format!("/events/{}", encode(&said));
    let event = alice.get(&path).await.ok();
    assert_eq!(
        (&event["event_id"], &event["room_id"]),
        (&json!(said), &json!(room))
    );
    bob.get(&path).await.refused(404, "M_NOT_FOUND");
    alice.get("/events/$none").await.refused(404, "M_NOT_FOUND");
}
