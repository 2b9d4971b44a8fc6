//! Two servers of ours whose people talk with each other: rooms, keys, messages to devices, changes of devices.

use std::time::Duration;

use bytes::Bytes;
use config::Config;
use http::{Method, Response};
use ruma::ServerName;
use serde_json::{Value, json};
use storage::Clock;

use super::{Network, cross_signing_key, signing_key};
use crate::{
    Server,
    tests::{ALL, json as body_of, request},
};

/// So often somebody asks whether what they wait for has come.
const POLLS_MAX: usize = 40;

/// Somebody at their client.
struct Person {
    server: Server,
    id: String,
    token: String,
    device: String,
    since: String,
}

impl Person {
    async fn register(server: &Server, name: &str) -> Self {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse", "auth": auth });
        let made = ask(server, "", Method::POST, "/register", &body).await;
        Self::of(server, &made)
    }

    /// The same person at another device.
    async fn log_in(&self) -> Self {
        let identifier = json!({ "type": "m.id.user", "user": self.id });
        let body = json!({
            "type": "m.login.password", "identifier": identifier, "password": "correct horse",
        });
        let made = ask(&self.server, "", Method::POST, "/login", &body).await;
        Self::of(&self.server, &made)
    }

    fn of(server: &Server, made: &Value) -> Self {
        let text = |key: &str| made[key].as_str().unwrap().to_owned();
        Self {
            server: server.clone(),
            id: text("user_id"),
            token: text("access_token"),
            device: text("device_id"),
            since: String::new(),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        ask(&self.server, &self.token, method, path, body).await
    }

    async fn upload_keys(&self) {
        let (id, device) = (&self.id, &self.device);
        let keys = json!({
            "user_id": id, "device_id": device, "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": { format!("curve25519:{device}"): "aGVsbG8" }, "signatures": {},
        });
        let once = json!({ "signed_curve25519:AAAA": { "key": "once" } });
        let body = json!({ "device_keys": keys, "one_time_keys": once });
        self.ask(Method::POST, "/keys/upload", &body).await;
    }

    async fn devices_of(&self, user: &str) -> Vec<String> {
        let body = json!({ "device_keys": { user: [] } });
        let answer = self.ask(Method::POST, "/keys/query", &body).await;
        let devices = answer["device_keys"][user].as_object();
        devices
            .into_iter()
            .flatten()
            .map(|(id, _)| id.clone())
            .collect()
    }

    async fn send_to_device(&self, to: &Self, number: u32) {
        let content = json!({ "number": number });
        let body = json!({ "messages": { to.id.as_str(): { to.device.as_str(): content } } });
        let path = format!("/sendToDevice/org.example/{number}");
        self.ask(Method::PUT, &path, &body).await;
    }

    async fn say(&self, room: &str, text: &str) {
        let body = json!({ "msgtype": "m.text", "body": text });
        let transaction = text.replace(' ', "-");
        let path = format!("/rooms/{room}/send/m.room.message/{transaction}");
        let sent = self.ask(Method::PUT, &path, &body).await;
        assert!(sent["event_id"].is_string(), "{sent}");
    }

    /// Syncs until something is among what came.
    async fn until(&mut self, what: &str, found: impl Fn(&Value) -> bool) {
        let mut last = Value::Null;
        for _ in 0..POLLS_MAX {
            let since = match self.since.as_str() {
                "" => String::new(),
                since => format!("&since={since}"),
            };
            let path = format!("/sync?timeout=500{since}");
            last = self.ask(Method::GET, &path, &Value::Null).await;
            self.since = last["next_batch"].as_str().unwrap().to_owned();
            if found(&last) {
                return;
            }
        }
        panic!("{} does not see {what}: {last}", self.id);
    }
}

async fn ask(server: &Server, token: &str, method: Method, path: &str, body: &Value) -> Value {
    let body = match method {
        Method::GET => String::new(),
        _ => body.to_string(),
    };
    let mut request = request(method, &format!("/_matrix/client/v3{path}"), body);
    if !token.is_empty() {
        let token = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", token);
    }
    body_of(&server.answer(ALL, request).await)
}

async fn server(network: &Network, name: &str, clock: &Clock, deny: &[&str]) -> Server {
    let mut config = Config::default();
    config.federation.deny = deny.iter().map(|rule| rule.parse().unwrap()).collect();
    config.registration.enabled = true;
    config.registration.require_token = false;
    config.rate_limits.enabled = false;
    let server = network.server(name, clock, config).await;
    let telling = server.clone();
    tokio::spawn(async move { telling.outbox.work(telling.shutdown.begun()).await });
    server
}

fn has(list: &Value, wanted: &str) -> bool {
    let list = list.as_array();
    list.is_some_and(|list| list.iter().any(|one| one == wanted))
}

fn body_seen(sync: &Value, room: &str, text: &str) -> bool {
    let events = &sync["rooms"]["join"][room]["timeline"]["events"];
    let events = events.as_array();
    events.is_some_and(|events| events.iter().any(|event| event["content"]["body"] == text))
}

fn number_seen(sync: &Value, number: u32) -> bool {
    let events = sync["to_device"]["events"].as_array();
    events.is_some_and(|events| {
        events
            .iter()
            .any(|event| event["content"]["number"] == number)
    })
}

/// Alice and Bob of different servers, in a room of hers.
async fn pair() -> (Network, Clock, Person, Person, String) {
    pair_who_deny([&[], &[]]).await
}

/// The same, of servers that deny this.
async fn pair_who_deny(deny: [&[&str]; 2]) -> (Network, Clock, Person, Person, String) {
    let network = Network::default();
    let clock = Clock::standing_at(1_700_000_000_000);
    let a = server(&network, "a.example", &clock, deny[0]).await;
    let b = server(&network, "b.example", &clock, deny[1]).await;
    let mut alice = Person::register(&a, "alice").await;
    let bob = Person::register(&b, "bob").await;
    alice.upload_keys().await;
    bob.upload_keys().await;
    let body = json!({ "preset": "public_chat" });
    let room = alice.ask(Method::POST, "/createRoom", &body).await;
    let room = room["room_id"].as_str().unwrap().to_owned();
    alice
        .until("the room", |sync| sync["rooms"]["join"][&room].is_object())
        .await;
    let path = format!("/join/{room}?server_name=a.example");
    let joined = bob.ask(Method::POST, &path, &json!({})).await;
    assert_eq!(joined["room_id"], room.as_str(), "{joined}");
    (network, clock, alice, bob, room)
}

#[tokio::test]
async fn people_of_two_servers_talk_in_secret() {
    let (_, _, mut alice, mut bob, room) = pair().await;
    let bob_id = bob.id.clone();
    alice
        .until("that Bob came", |sync| {
            has(&sync["device_lists"]["changed"], &bob_id)
        })
        .await;
    assert_eq!(alice.devices_of(&bob.id).await, [bob.device.clone()]);
    assert_eq!(bob.devices_of(&alice.id).await, [alice.device.clone()]);
    let claim = json!({ "one_time_keys": { bob.id.as_str(): { bob.device.as_str(): "signed_curve25519" } } });
    let given = alice.ask(Method::POST, "/keys/claim", &claim).await;
    let key = &given["one_time_keys"][&bob.id][&bob.device]["signed_curve25519:AAAA"];
    assert_eq!(key["key"], "once", "{given}");
    let given = alice.ask(Method::POST, "/keys/claim", &claim).await;
    assert_eq!(given["one_time_keys"], json!({}), "each once");
    alice.send_to_device(&bob, 1).await;
    alice.say(&room, "hello").await;
    bob.until("the key", |sync| number_seen(sync, 1)).await;
    bob.since.clear();
    bob.until("the message", |sync| body_seen(sync, &room, "hello"))
        .await;
    bob.send_to_device(&alice, 2).await;
    bob.say(&room, "hello too").await;
    alice
        .until("the answer", |sync| body_seen(sync, &room, "hello too"))
        .await;
    // A new device, a new name for it, and its end.
    let tablet = bob.log_in().await;
    tablet.upload_keys().await;
    let mut devices = vec![bob.device.clone(), tablet.device.clone()];
    devices.sort();
    for _ in 0..POLLS_MAX {
        alice
            .until("a change", |sync| {
                has(&sync["device_lists"]["changed"], &bob_id)
            })
            .await;
        if alice.devices_of(&bob.id).await == devices {
            break;
        }
    }
    assert_eq!(alice.devices_of(&bob.id).await, devices);
    tablet.ask(Method::POST, "/logout", &json!({})).await;
    alice
        .until("the end of it", |sync| {
            has(&sync["device_lists"]["changed"], &bob_id)
        })
        .await;
    assert_eq!(alice.devices_of(&bob.id).await, [bob.device.clone()]);
    // The last room that they share.
    bob.ask(Method::POST, &format!("/rooms/{room}/leave"), &json!({}))
        .await;
    alice
        .until("that Bob went", |sync| {
            has(&sync["device_lists"]["left"], &bob_id)
        })
        .await;
}

#[tokio::test]
async fn whoever_reads_back_to_a_hole_that_nobody_fills_in_time_sees_what_is_here() {
    let (network, clock, _, bob, room) = pair().await;
    // Asked for history it takes its time, and then has none.
    let name = ServerName::parse("a.example").unwrap();
    network.play(&name, move |request| {
        if request.uri().path().contains("/backfill/") {
            clock.advance(Duration::from_secs(20));
        }
        let body = Bytes::from_static(b"{}");
        Response::builder().status(404).body(body).unwrap()
    });
    bob.say(&room, "here").await;
    let path = format!("/rooms/{room}/messages?dir=b&limit=10");
    let page = bob.ask(Method::GET, &path, &Value::Null).await;
    assert_eq!(page["chunk"][0]["content"]["body"], "here", "{page}");
}

#[tokio::test]
async fn what_was_sent_to_a_server_that_was_away_arrives_when_it_speaks() {
    let (network, _, alice, mut bob, room) = pair().await;
    bob.until("the room", |sync| sync["rooms"]["join"][&room].is_object())
        .await;
    let name = ServerName::parse("b.example").unwrap();
    network.take_away(&name);
    alice.say(&room, "one").await;
    alice.send_to_device(&bob, 1).await;
    alice.say(&room, "two").await;
    while alice.server.federation.backing_off(&name).is_none() {
        tokio::task::yield_now().await;
    }
    network.bring_back(&name);
    bob.say(&room, "here again").await;
    let (one, two, key) = (
        std::cell::Cell::new(0),
        std::cell::Cell::new(0),
        std::cell::Cell::new(0),
    );
    bob.until("what was missed", |sync| {
        one.set(one.get() + usize::from(body_seen(sync, &room, "one")));
        two.set(two.get() + usize::from(body_seen(sync, &room, "two")));
        key.set(key.get() + usize::from(number_seen(sync, 1)));
        one.get() > 0 && two.get() > 0 && key.get() > 0
    })
    .await;
}

#[tokio::test]
async fn people_see_of_each_other_what_they_do_now() {
    let (_, _, mut alice, mut bob, room) = pair().await;
    let bob_id = bob.id.clone();
    bob.until("the room", |sync| sync["rooms"]["join"][&room].is_object())
        .await;
    alice
        .until("that Bob came", |sync| {
            has(&sync["device_lists"]["changed"], &bob_id)
        })
        .await;
    alice.say(&room, "hello").await;
    let event = std::cell::RefCell::new(String::new());
    bob.until("the message", |sync| {
        let events = sync["rooms"]["join"][&room]["timeline"]["events"].as_array();
        let mut events = events.into_iter().flatten();
        let found = events.rfind(|event| event["content"]["body"] == "hello");
        if let Some(found) = found {
            *event.borrow_mut() = found["event_id"].as_str().unwrap().to_owned();
        }
        !event.borrow().is_empty()
    })
    .await;
    let ephemeral = |sync: &Value| sync["rooms"]["join"][&room]["ephemeral"]["events"].to_string();
    let path = format!("/rooms/{room}/typing/{}", bob.id);
    let body = json!({ "typing": true, "timeout": 20_000 });
    bob.ask(Method::PUT, &path, &body).await;
    alice
        .until("that Bob types", |sync| {
            let ephemeral = ephemeral(sync);
            ephemeral.contains("m.typing") && ephemeral.contains(&bob_id)
        })
        .await;
    let path = format!("/rooms/{room}/receipt/m.read/{}", event.borrow());
    bob.ask(Method::POST, &path, &json!({})).await;
    alice
        .until("what Bob has read", |sync| {
            ephemeral(sync).contains("m.receipt")
        })
        .await;
    let path = format!("/presence/{}/status", bob.id);
    let body = json!({ "presence": "unavailable", "status_msg": "away" });
    bob.ask(Method::PUT, &path, &body).await;
    alice
        .until("how Bob is", |sync| {
            sync["presence"].to_string().contains("away")
        })
        .await;
    let path = format!("/presence/{}/status", bob.id);
    let told = alice.ask(Method::GET, &path, &Value::Null).await;
    assert_eq!(told["status_msg"], "away", "{told}");
}

/// Says how somebody is.
async fn be(person: &Person, status: &str) {
    let path = format!("/presence/{}/status", person.id);
    let body = json!({ "presence": "unavailable", "status_msg": status });
    person.ask(Method::PUT, &path, &body).await;
}

#[tokio::test]
async fn how_people_are_is_told_and_heard_as_far_as_both_operators_want() {
    let deny: [[&[&str]; 2]; 2] = [
        [&["b.example out presence"], &[]],
        [&[], &["a.example in presence"]],
    ];
    for deny in deny {
        let (_, _, mut alice, mut bob, room) = pair_who_deny(deny).await;
        let bob_id = bob.id.clone();
        bob.until("the room", |sync| sync["rooms"]["join"][&room].is_object())
            .await;
        alice
            .until("that Bob came", |sync| {
                has(&sync["device_lists"]["changed"], &bob_id)
            })
            .await;
        be(&alice, "at home").await;
        let path = format!("/rooms/{room}/typing/{}", alice.id);
        let body = json!({ "typing": true, "timeout": 20_000 });
        alice.ask(Method::PUT, &path, &body).await;
        bob.until("that Alice types", |sync| {
            let ephemeral = &sync["rooms"]["join"][&room]["ephemeral"];
            ephemeral.to_string().contains("m.typing")
        })
        .await;
        // What follows comes when all that was told with it has been heard.
        alice.say(&room, "hello").await;
        bob.until("the message", |sync| body_seen(sync, &room, "hello"))
            .await;
        let path = format!("/presence/{}/status", alice.id);
        let told = bob.ask(Method::GET, &path, &Value::Null).await;
        assert_ne!(told["status_msg"], "at home", "{deny:?}");
        // The other way all is as it was.
        be(&bob, "away").await;
        alice
            .until("how Bob is", |sync| {
                sync["presence"].to_string().contains("away")
            })
            .await;
    }
}

/// What Alice is told of Bob's keys, once that is so.
async fn keys_of(alice: &mut Person, bob: &Person, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..POLLS_MAX {
        while !alice.server.tasks.is_empty() {
            tokio::task::yield_now().await;
        }
        let body = json!({ "device_keys": { bob.id.as_str(): [] } });
        let keys = alice.ask(Method::POST, "/keys/query", &body).await;
        if is_so(&keys) {
            return keys;
        }
        alice
            .until("a change", |sync| {
                has(&sync["device_lists"]["changed"], &bob.id)
            })
            .await;
    }
    panic!("{} does not hear of new keys", alice.id);
}

/// Gives Bob's device a name, and waits until Alice knows it.
async fn name_device(alice: &mut Person, bob: &Person, name: &str) {
    let path = format!("/devices/{}", bob.device);
    let body = json!({ "display_name": name });
    bob.ask(Method::PUT, &path, &body).await;
    let told = |keys: &Value| {
        let device = &keys["device_keys"][&bob.id][&bob.device];
        device["unsigned"]["device_display_name"] == name
    };
    keys_of(alice, bob, told).await;
}

#[tokio::test]
async fn new_names_of_devices_and_new_keys_of_people_are_told_without_being_asked_for() {
    let (network, _, mut alice, bob, _) = pair().await;
    let asked = || {
        let asked = network.asked_of("b.example".try_into().unwrap());
        let of = asked.iter().filter(|what| what.contains("/user/"));
        of.count()
    };
    // The first change may follow what nobody here ever saw; then all of it is asked for.
    name_device(&mut alice, &bob, "phone").await;
    let mut before = usize::MAX;
    while asked() != before {
        before = asked();
        keys_of(&mut alice, &bob, |_| true).await;
    }
    name_device(&mut alice, &bob, "Bob's phone").await;
    let (master, own) = (signing_key(1), signing_key(2));
    let new = json!({
        "master_key": cross_signing_key(&bob.id, "master", &master, &master),
        "self_signing_key": cross_signing_key(&bob.id, "self_signing", &own, &master),
    });
    let path = "/keys/device_signing/upload";
    assert_eq!(bob.ask(Method::POST, path, &new).await, json!({}));
    let keys = |keys: &Value, kind: &str| keys[kind][&bob.id]["keys"].clone();
    let told = |told: &Value| keys(told, "self_signing_keys").is_object();
    let told = keys_of(&mut alice, &bob, told).await;
    assert_eq!(keys(&told, "master_keys"), new["master_key"]["keys"]);
    let own = &new["self_signing_key"]["keys"];
    assert_eq!(keys(&told, "self_signing_keys"), *own);
    assert_eq!(asked(), before);
}
