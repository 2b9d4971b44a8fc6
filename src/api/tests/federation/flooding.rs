//! Servers that are slow, that never end, or that send too much: each is held to its limits, and others are
//! served meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use federation::Federation;
use futures_util::{StreamExt as _, future::join_all, stream};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use ruma::{RoomVersionId, ServerName};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::far::{FAR, NEAR, World};
use crate::{
    Body,
    tests::{ALL, json as body_of},
};

fn near() -> &'static ServerName {
    NEAR.try_into().unwrap()
}

/// A transaction as a server signs it.
fn transaction(from: &Federation, id: &str, body: &Value) -> Request<Bytes> {
    let mut request = Request::builder()
        .method(Method::PUT)
        .uri(format!("/_matrix/federation/v1/send/{id}"))
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_string()))
        .unwrap();
    from.sign(&mut request, near()).unwrap();
    request
}

fn of(from: &Federation, pdus: &[Value], edus: &[Value]) -> Value {
    let (origin, now) = (from.server_name(), 1_700_000_000_000_u64);
    json!({ "origin": origin, "origin_server_ts": now, "pdus": pdus, "edus": edus })
}

fn whole(body: Bytes) -> Body {
    Full::new(body)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// What a request is answered, and how long that takes.
async fn answer(world: &World, request: Request<Body>) -> (u16, Value, Duration) {
    let began = Instant::now();
    let answer = world.server.answer(ALL, request).await;
    (answer.status().as_u16(), body_of(&answer), began.elapsed())
}

/// Whether somebody who asks at this moment is answered at once.
async fn others_are_served(world: &World, other: &Federation, id: &str) {
    let began = Instant::now();
    let timeline = world.timeline().await;
    assert!(!timeline.is_empty());
    let request = transaction(other, id, &of(other, &[], &[])).map(whole);
    let (status, body, _) = answer(world, request).await;
    assert_eq!(status, 200, "{body}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn who_sends_a_byte_a_second_is_given_up_and_keeps_nobody_waiting() {
    let world = World::new(RoomVersionId::V11).await;
    let other = world.network.peer("other.example", &world.clock).await;
    let request = transaction(&world.far, "slow", &of(&world.far, &[], &[]));
    tokio::time::pause();
    let bytes: Vec<u8> = request.body().to_vec();
    let slow = stream::iter(bytes.into_iter().cycle()).then(|byte| async move {
        tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
        Ok::<_, error::Source>(Frame::data(Bytes::copy_from_slice(&[byte])))
    });
    let request = request.map(|_| StreamBody::new(slow).boxed_unsync());
    let (slow, ()) = tokio::join!(
        answer(&world, request),
        others_are_served(&world, &other, "quick")
    );
    let (status, body, time) = slow;
    assert_eq!((status, &body["errcode"]), (408, &json!("M_UNKNOWN")));
    assert!(time < Duration::from_secs(70), "{time:?}");
}

#[tokio::test]
async fn of_a_body_without_end_so_much_is_read_and_no_more() {
    let world = World::new(RoomVersionId::V11).await;
    let other = world.network.peer("other.example", &world.clock).await;
    let read = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&read);
    let piece = Bytes::from(vec![b' '; 64 << 10]);
    let endless = stream::iter(std::iter::repeat(piece)).map(move |piece| {
        counted.fetch_add(piece.len(), Ordering::Relaxed);
        Ok::<_, error::Source>(Frame::data(piece))
    });
    let request = transaction(&world.far, "endless", &of(&world.far, &[], &[]));
    let request = request.map(|_| StreamBody::new(endless).boxed_unsync());
    let (status, body, _) = answer(&world, request).await;
    assert_eq!((status, &body["errcode"]), (413, &json!("M_TOO_LARGE")));
    // What it may have, and as much again that is thrown away so that the answer is seen.
    let read = read.load(Ordering::Relaxed);
    assert!(read <= 34 << 20, "{read}");
    others_are_served(&world, &other, "small").await;
}

#[tokio::test]
async fn a_server_that_never_answers_keeps_those_waiting_who_ask_for_it_alone() {
    let world = World::new(RoomVersionId::V11).await;
    let other = world.network.peer("other.example", &world.clock).await;
    let silent = ServerName::parse("silent.example").unwrap();
    world.network.hush(&silent);
    tokio::time::pause();
    let began = Instant::now();
    let path = format!("/join/!room:{silent}?via={silent}");
    let empty = json!({});
    let asked = world.client(Method::POST, &path, &empty);
    let (refused, ()) = tokio::join!(asked, others_are_served(&world, &other, "meanwhile"));
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    let time = began.elapsed();
    assert!(time <= Duration::from_secs(61), "{time:?}");
    // From then on it is left alone, and nobody waits for it.
    let began = Instant::now();
    let refused = world.client(Method::POST, &path, &empty).await;
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn of_the_transactions_of_one_server_few_wait_and_those_of_others_go_on() {
    let world = World::new(RoomVersionId::V11).await;
    let other = world.network.peer("other.example", &world.clock).await;
    // One is under way.
    let far = ServerName::parse(FAR).unwrap();
    let turn = world.server.transaction_turns.take(&far).await.unwrap();
    let flood = (0..50).map(|n| {
        let request = transaction(&world.far, &format!("flood{n}"), &of(&world.far, &[], &[]));
        answer(&world, request.map(whole))
    });
    let then = async {
        others_are_served(&world, &other, "beside").await;
        drop(turn);
    };
    let (flood, ()) = tokio::join!(join_all(flood), then);
    let mut taken = 0;
    for (status, body, _) in flood {
        match status {
            200 => taken += 1,
            _ => assert_eq!(
                (status, &body["errcode"]),
                (429, &json!("M_LIMIT_EXCEEDED"))
            ),
        }
    }
    assert!((1..10).contains(&taken), "{taken}");
    let request = transaction(&world.far, "after", &of(&world.far, &[], &[]));
    assert_eq!(answer(&world, request.map(whole)).await.0, 200);
}

#[tokio::test]
async fn what_is_told_beside_events_is_counted_and_only_what_may_be_told_is_kept() {
    let world = World::new(RoomVersionId::V11).await;
    let other = world.network.peer("other.example", &world.clock).await;
    let typing = |user: &str| {
        let content = json!({ "room_id": world.room, "user_id": user, "typing": true });
        json!({ "edu_type": "m.typing", "content": content })
    };
    let many: Vec<_> = (0..101).map(|n| typing(&format!("@u{n}:{FAR}"))).collect();
    let request = transaction(&world.far, "many", &of(&world.far, &[], &many));
    let (status, body, _) = answer(&world, request.map(whole)).await;
    assert_eq!((status, &body["errcode"]), (400, &json!("M_BAD_JSON")));
    let pdus = vec![json!({ "room_id": world.room }); 51];
    let request = transaction(&world.far, "events", &of(&world.far, &pdus, &[]));
    assert_eq!(answer(&world, request.map(whole)).await.0, 400);

    // As many as there may be, again and again: of people who are not in the room, or of another server, of
    // rooms that are none, of everybody's presence, for devices that are not there.
    let everybody: Vec<_> = (0..5_000)
        .map(|n| json!({ "user_id": format!("@u{n}:{FAR}"), "presence": "online", "last_active_ago": 1 }))
        .collect();
    let messages = json!({ "@nobody:near.example": { "*": { "a": "b" } } });
    let before = world.server.storage.rows_of_model().len();
    for round in 0..10 {
        let mut edus = many.iter().take(95).cloned().collect::<Vec<_>>();
        edus.push(typing("@alice:near.example"));
        edus.push(json!({ "edu_type": "m.presence", "content": { "push": everybody } }));
        edus.push(json!({ "edu_type": "m.direct_to_device", "content": {
            "sender": world.bob, "type": "a", "message_id": format!("m{round}"), "messages": messages,
        } }));
        edus.push(json!({ "edu_type": "no.such.thing", "content": { "a": "x".repeat(10_000) } }));
        edus.push(json!({ "edu_type": 7 }));
        let request = transaction(
            &world.far,
            &format!("round{round}"),
            &of(&world.far, &[], &edus),
        );
        let (status, body, _) = answer(&world, request.map(whole)).await;
        assert_eq!(status, 200, "{body}");
        others_are_served(&world, &other, &format!("beside{round}")).await;
    }
    // The answers to the transactions, that the message came, and the keys of the other server: nothing of all else.
    let after = world.server.storage.rows_of_model().len();
    assert!(after - before <= 3 * 10 + 2, "{before} {after}");
    let sync = world.client(Method::GET, "/sync", &Value::Null).await;
    let room = &sync["rooms"]["join"][world.room.as_str()];
    assert_eq!(room["ephemeral"]["events"], json!([]), "{room}");
    let presence = sync["presence"]["events"].as_array().unwrap();
    let senders: Vec<_> = presence.iter().map(|event| &event["sender"]).collect();
    assert_eq!(senders, ["@alice:near.example"]);
}
