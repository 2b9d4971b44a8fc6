//! What requests of people cost, beyond proving who asks.

use config::Config;
use serde_json::{Value, json};

use super::{get, ok, post, put, register};
use crate::{Server, tests::parts};

/// What it costs to answer a request, in round trips, less what it costs to prove who asks.
async fn cost(server: &Server, token: &str, path: &str) -> (u64, Value) {
    let before = server.storage.cost();
    ok(get(server, token, "/account/whoami").await);
    let proof = server.storage.cost() - before;
    let before = server.storage.cost();
    let answer = ok(get(server, token, path).await);
    let cost = server.storage.cost() - before;
    (cost.round_trips - proof.round_trips, answer)
}

#[tokio::test]
async fn a_page_of_messages_costs_two_round_trips_and_two_for_what_relates_to_it() {
    let mut config = Config::default();
    config.registration.enabled = true;
    config.registration.require_token = false;
    config.rate_limits.enabled = false;
    let server = Server::open(parts(config)).await.unwrap();
    let (alice, bob) = (
        register(&server, "alice").await,
        register(&server, "bob").await,
    );
    let preset = json!({ "preset": "public_chat" });
    let room = ok(post(&server, Some(&alice), "/createRoom", preset).await);
    let room = room["room_id"].as_str().unwrap().to_owned();
    ok(post(&server, Some(&bob), &format!("/join/{room}"), json!({})).await);
    let mut said = 0;
    let mut say = async |relation: Value| {
        said += 1;
        let mut content = json!({ "msgtype": "m.text", "body": said.to_string() });
        if !relation.is_null() {
            content["m.new_content"] = content.clone();
            content["m.relates_to"] = relation;
        }
        let path = format!("/rooms/{room}/send/m.room.message/{said}");
        let sent = ok(put(&server, &alice, &path, content).await);
        sent["event_id"].as_str().unwrap().to_owned()
    };
    let mut first = Vec::new();
    for _ in 0..20 {
        first.push(say(Value::Null).await);
    }
    let messages = format!("/rooms/{room}/messages?dir=b&limit=10");
    let (plain, page) = cost(&server, &bob, &messages).await;
    assert_eq!(page["chunk"].as_array().unwrap().len(), 10);
    let from = page["end"].as_str().unwrap();
    let (next, page) = cost(&server, &bob, &format!("{messages}&from={from}")).await;
    assert_eq!(page["chunk"].as_array().unwrap().len(), 10);

    // An edit, a thread with a reply, a reference: what they hold is read in the same list for all.
    for id in &first {
        say(json!({ "rel_type": "m.replace", "event_id": id })).await;
        say(json!({ "rel_type": "m.thread", "event_id": id })).await;
        say(json!({ "rel_type": "m.reference", "event_id": id })).await;
    }
    let all = format!("/rooms/{room}/messages?dir=b&limit=80");
    let (related, page) = cost(&server, &bob, &all).await;
    let chunk = page["chunk"].as_array().unwrap();
    let root = chunk.iter().find(|event| event["event_id"] == first[3]);
    let told = &root.unwrap()["unsigned"]["m.relations"];
    assert_eq!(told["m.thread"]["count"], 1);
    assert!(told["m.replace"].is_object() && told["m.reference"].is_object());
    assert_eq!((plain, next, related), (3, 3, 4));
}
