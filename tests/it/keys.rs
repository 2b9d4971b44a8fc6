//! Keys of devices and people ([spec](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption)).

use std::collections::BTreeSet;

use harness::User;
use pdu::SigningKey;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{another_device, server};

/// A key that signs; its seed tells it from others.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], "x").unwrap()
}

fn public(key: &SigningKey) -> String {
    key.verify_key().to_base64()
}

/// An object with a signature of a person by a key with that name.
fn signed(mut object: Value, user: &str, name: &str, key: &SigningKey) -> Value {
    let mut said = object.clone();
    said.as_object_mut().unwrap().remove("signatures");
    said.as_object_mut().unwrap().remove("unsigned");
    // Plain ASCII with sorted keys is canonical as it is.
    let signature = key.sign_base64(said.to_string().as_bytes());
    object["signatures"][user][format!("ed25519:{name}")] = json!(signature);
    object
}

/// The identity keys of a device, signed by themselves.
fn device_keys(user: &User, key: &SigningKey) -> Value {
    let device = &user.device;
    let keys = json!({
        "user_id": user.id,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): public(key),
            format!("curve25519:{device}"): public(key),
        },
    });
    signed(keys, &user.id, device, key)
}

/// A cross-signing key of a person.
fn cross_signing_key(user: &User, usage: &str, key: &SigningKey) -> Value {
    let public = public(key);
    json!({"user_id": user.id, "usage": [usage], "keys": {format!("ed25519:{public}"): public}})
}

/// Uploads identity keys of a device.
async fn upload_device_keys(user: &User, key: &SigningKey) -> Value {
    let keys = device_keys(user, key);
    user.post("/keys/upload", json!({"device_keys": keys}))
        .await
        .ok();
    keys
}

async fn query(asker: &User, user: &User) -> Value {
    let wanted = json!({"device_keys": {&user.id: []}});
    asker.post("/keys/query", wanted).await.ok()
}

fn one_time_keys(names: impl IntoIterator<Item = u32>) -> Value {
    names
        .into_iter()
        .map(|name| {
            let key = json!({"key": format!("key{name}"), "signatures": {}});
            (format!("signed_curve25519:{name:04}"), key)
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn claim(asker: &User, user: &User) -> Value {
    let wanted = json!({"one_time_keys": {&user.id: {&user.device: "signed_curve25519"}}});
    asker.post("/keys/claim", wanted).await.ok()["one_time_keys"][&user.id][&user.device].clone()
}

/// The users in one of the lists of an answer.
fn told<'a>(sync: &'a Value, list: &str) -> BTreeSet<&'a str> {
    sync["device_lists"][list]
        .as_array()
        .into_iter()
        .flatten()
        .map(|user| user.as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn identity_keys_are_stored_and_asked_for() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let keys = upload_device_keys(&alice, &key(1)).await;
    alice
        .put(
            &format!("/devices/{}", alice.device),
            json!({"display_name": "Phone"}),
        )
        .await
        .ok();
    let answer = query(&bob, &alice).await;
    let mut found = answer["device_keys"][&alice.id][&alice.device].clone();
    assert_eq!(found["unsigned"]["device_display_name"], "Phone");
    found.as_object_mut().unwrap().remove("unsigned");
    assert_eq!(found, keys);
    // Some devices only; who has none, and who is nobody.
    let wanted =
        json!({"device_keys": {&alice.id: ["OTHER"], &bob.id: [], "@nobody:localhost": []}});
    let answer = bob.post("/keys/query", wanted).await.ok();
    assert_eq!(answer["device_keys"][&alice.id], json!({}));
    assert_eq!(answer["device_keys"][&bob.id], json!({}));
    // Servers that cannot be asked are named.
    let wanted = json!({"device_keys": {"@carol:elsewhere.example": []}});
    let answer = bob.post("/keys/query", wanted).await.ok();
    assert!(answer["failures"]["elsewhere.example"].is_object());
}

#[tokio::test]
async fn what_is_no_identity_key_is_refused() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let of_bob = device_keys(&bob, &key(1));
    alice
        .post("/keys/upload", json!({"device_keys": of_bob}))
        .await
        .refused(400, "M_INVALID_PARAM");
    let bare = json!({"user_id": alice.id, "device_id": alice.device});
    alice
        .post("/keys/upload", json!({"device_keys": bare}))
        .await
        .refused(400, "M_BAD_JSON");
    for broken in [
        json!({"x": "y"}),
        json!({"signed_curve25519:a": {"no": "key"}}),
    ] {
        let answer = alice
            .post("/keys/upload", json!({"one_time_keys": broken}))
            .await;
        assert_eq!(answer.status, 400, "{answer}");
    }
    let objects = json!({"device_keys": {&alice.id: {"DEVICE": true}}});
    alice
        .post("/keys/query", objects)
        .await
        .refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn one_time_keys_are_claimed_in_order_and_once() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let upload = async |names: std::ops::Range<u32>| {
        let keys = json!({"one_time_keys": one_time_keys(names)});
        alice.post("/keys/upload", keys).await.ok()["one_time_key_counts"]["signed_curve25519"]
            .clone()
    };
    assert_eq!(upload(10..12).await, 2);
    // MSC4225: what came later comes later, whatever it is called.
    assert_eq!(upload(0..2).await, 4);
    // The same again changes nothing, another one of that name is refused.
    assert_eq!(upload(10..12).await, 4);
    let other = json!({"one_time_keys": {"signed_curve25519:0000": {"key": "other"}}});
    alice
        .post("/keys/upload", other)
        .await
        .refused(400, "M_INVALID_PARAM");
    let mut claimed = Vec::new();
    for _ in 0..4 {
        let keys = claim(&bob, &alice).await;
        let (name, key) = keys.as_object().unwrap().iter().next().unwrap();
        assert!(key["key"].is_string());
        claimed.push(name.clone());
    }
    let names = ["0010", "0011", "0000", "0001"].map(|name| format!("signed_curve25519:{name}"));
    assert_eq!(claimed, names);
    assert_eq!(claim(&bob, &alice).await, Value::Null);
}

#[tokio::test]
async fn many_at_once_claim_different_keys() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let keys = json!({"one_time_keys": one_time_keys(0..40)});
    alice.post("/keys/upload", keys).await.ok();
    let claims = (0..50).map(|_| {
        let (alice, bob) = (alice.clone(), bob.clone());
        tokio::spawn(async move { claim(&bob, &alice).await })
    });
    let mut names = Vec::new();
    for claim in claims.collect::<Vec<_>>() {
        if let Some(keys) = claim.await.unwrap().as_object() {
            names.extend(keys.keys().cloned());
        }
    }
    assert_eq!(names.len(), 40);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 40);
}

#[tokio::test]
async fn a_fallback_key_is_given_out_again_and_again() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let first = alice.sync(None).await;
    // There even if it is empty: the server knows fallback keys.
    assert_eq!(first.body["device_unused_fallback_key_types"], json!([]));
    assert_eq!(
        first.body["device_one_time_keys_count"]["signed_curve25519"],
        0
    );
    let fallback =
        json!({"signed_curve25519:f": {"key": "fall", "fallback": true, "signatures": {}}});
    let keys = json!({"one_time_keys": one_time_keys(0..1), "fallback_keys": fallback});
    let counts = alice.post("/keys/upload", keys).await.ok();
    assert_eq!(
        counts["one_time_key_counts"],
        json!({"signed_curve25519": 1})
    );
    let sync = alice.sync(Some(&first.next_batch())).await;
    assert_eq!(
        sync.body["device_one_time_keys_count"]["signed_curve25519"],
        1
    );
    let unused = &sync.body["device_unused_fallback_key_types"];
    assert_eq!(*unused, json!(["signed_curve25519"]));
    let waiting = tokio::spawn({
        let (alice, since) = (alice.clone(), sync.next_batch());
        async move { alice.sync_with(Some(&since), "timeout=30000").await }
    });
    assert!(claim(&bob, &alice).await["signed_curve25519:0000"].is_object());
    // Who waits hears that a key is gone.
    let woken = waiting.await.unwrap();
    assert_eq!(
        woken.body["device_one_time_keys_count"]["signed_curve25519"],
        0
    );
    for _ in 0..2 {
        assert_eq!(
            claim(&bob, &alice).await["signed_curve25519:f"]["key"],
            "fall"
        );
    }
    let sync = alice.sync(Some(&woken.next_batch())).await;
    assert_eq!(sync.body["device_unused_fallback_key_types"], json!([]));
    // The used one again stays used; a new one is unused.
    for (name, unused) in [("f", json!([])), ("g", json!(["signed_curve25519"]))] {
        let name = format!("signed_curve25519:{name}");
        let key = if name.ends_with('f') { "fall" } else { "new" };
        let keys =
            json!({"fallback_keys": {&name: {"key": key, "fallback": true, "signatures": {}}}});
        alice.post("/keys/upload", keys).await.ok();
        let sync = alice.sync(None).await;
        assert_eq!(sync.body["device_unused_fallback_key_types"], unused);
    }
}

/// The password, as far as an answer asks for it.
async fn with_proof(user: &User, path: &str, mut body: Value) -> harness::Answer {
    let challenge = user.post(path, body.clone()).await;
    assert_eq!(challenge.status, 401, "{challenge}");
    body["auth"] = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.name()},
        "password": format!("{}-password", user.name()),
        "session": challenge.body["session"],
    });
    user.post(path, body).await
}

const SIGNING: &str = "/keys/device_signing/upload";

#[tokio::test]
async fn cross_signing_keys_are_replaced_with_a_proof_only() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    upload_device_keys(&alice, &key(1)).await;
    let (master, own, users) = (key(2), key(3), key(4));
    let by_master = |key| signed(key, &alice.id, &public(&master), &master);
    let self_signing = cross_signing_key(&alice, "self_signing", &own);
    let user_signing = cross_signing_key(&alice, "user_signing", &users);
    // Nothing without a master key, nothing that it did not sign.
    let early = json!({"self_signing_key": by_master(self_signing.clone())});
    alice
        .post(SIGNING, early)
        .await
        .refused(400, "M_MISSING_PARAM");
    let master_key = cross_signing_key(&alice, "master", &master);
    let unsigned = json!({"master_key": master_key, "self_signing_key": self_signing});
    alice
        .post(SIGNING, unsigned)
        .await
        .refused(400, "M_INVALID_SIGNATURE");
    let all = json!({
        "master_key": master_key,
        "self_signing_key": by_master(self_signing),
        "user_signing_key": by_master(user_signing),
    });
    // MSC3967: the first ones, and the same again, without a proof.
    for _ in 0..2 {
        assert_eq!(alice.post(SIGNING, all.clone()).await.ok(), json!({}));
    }
    let mine = query(&alice, &alice).await;
    assert_eq!(mine["master_keys"][&alice.id], all["master_key"]);
    assert_eq!(
        mine["self_signing_keys"][&alice.id],
        all["self_signing_key"]
    );
    assert_eq!(
        mine["user_signing_keys"][&alice.id],
        all["user_signing_key"]
    );
    let seen = query(&bob, &alice).await;
    assert_eq!(seen["master_keys"][&alice.id], all["master_key"]);
    assert_eq!(seen["user_signing_keys"], Value::Null);

    let new = key(5);
    let new_master = json!({"master_key": cross_signing_key(&alice, "master", &new)});
    with_proof(&alice, SIGNING, new_master.clone()).await.ok();
    let seen = query(&bob, &alice).await;
    assert_eq!(seen["master_keys"][&alice.id], new_master["master_key"]);
    // Keys of others, for something else, or called as a device, are none.
    let called = another_device(&server, &alice, Some(&public(&key(6)))).await;
    for wrong in [
        json!({"master_key": cross_signing_key(&bob, "master", &key(7))}),
        json!({"master_key": cross_signing_key(&alice, "self_signing", &key(7))}),
        json!({"master_key": {"user_id": alice.id, "usage": ["master"], "keys": {"ed25519:x": "y"}}}),
    ] {
        alice
            .post(SIGNING, wrong)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    let clash = json!({"master_key": cross_signing_key(&alice, "master", &key(6))});
    with_proof(&called, SIGNING, clash)
        .await
        .refused(400, "M_INVALID_PARAM");
}

/// A person with identity and cross-signing keys.
struct Keys {
    device: SigningKey,
    master: SigningKey,
    own: SigningKey,
    users: SigningKey,
}

async fn set_up(user: &User, seed: u8) -> Keys {
    let keys = Keys {
        device: key(seed),
        master: key(seed + 1),
        own: key(seed + 2),
        users: key(seed + 3),
    };
    upload_device_keys(user, &keys.device).await;
    let by_master = |key| signed(key, &user.id, &public(&keys.master), &keys.master);
    let all = json!({
        "master_key": cross_signing_key(user, "master", &keys.master),
        "self_signing_key": by_master(cross_signing_key(user, "self_signing", &keys.own)),
        "user_signing_key": by_master(cross_signing_key(user, "user_signing", &keys.users)),
    });
    user.post(SIGNING, all).await.ok();
    keys
}

#[tokio::test]
async fn signatures_of_ones_own_keys_everybody_sees() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    bob.room_with(&[&alice]).await;
    let keys = set_up(&alice, 10).await;
    let since = bob.sync(None).await.next_batch();
    let device = device_keys(&alice, &keys.device);
    let device = signed(device, &alice.id, &public(&keys.own), &keys.own);
    let master = cross_signing_key(&alice, "master", &keys.master);
    let master = signed(master, &alice.id, &alice.device, &keys.device);
    let body = json!({&alice.id: {&alice.device: device, public(&keys.master): master}});
    let answer = alice
        .post("/keys/signatures/upload", body.clone())
        .await
        .ok();
    assert_eq!(answer, json!({}));
    let seen = query(&bob, &alice).await;
    let of_device = &seen["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
    assert_eq!(of_device.as_object().unwrap().len(), 2);
    let name = format!("ed25519:{}", alice.device);
    assert!(seen["master_keys"][&alice.id]["signatures"][&alice.id][name].is_string());
    bob.sync_until(&since, |sync| {
        told(&sync.body, "changed").contains(&*alice.id)
    })
    .await;
    // They stay when the device uploads the same keys again.
    upload_device_keys(&alice, &keys.device).await;
    let seen = query(&bob, &alice).await;
    let of_device = &seen["device_keys"][&alice.id][&alice.device]["signatures"][&alice.id];
    assert_eq!(of_device.as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn signatures_of_others_only_their_author_sees() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let (alices, bobs) = (set_up(&alice, 10).await, set_up(&bob, 20).await);
    let since = alice.sync(None).await.next_batch();
    let master = cross_signing_key(&bob, "master", &bobs.master);
    let of_alice = signed(master, &alice.id, &public(&alices.users), &alices.users);
    let body = json!({&bob.id: {public(&bobs.master): of_alice}});
    let answer = alice.post("/keys/signatures/upload", body).await.ok();
    assert_eq!(answer, json!({}));
    let sync = alice.sync(Some(&since)).await;
    assert!(told(&sync.body, "changed").contains(&*bob.id));
    let signatures =
        |answer: &Value| answer["master_keys"][&bob.id]["signatures"][&alice.id].clone();
    assert!(signatures(&query(&alice, &bob).await).is_object());
    for other in [&bob, &carol] {
        assert_eq!(signatures(&query(other, &bob).await), Value::Null);
    }
}

#[tokio::test]
async fn signatures_that_do_not_hold_are_refused_one_by_one() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (alices, bobs) = (set_up(&alice, 10).await, set_up(&bob, 20).await);
    let device = device_keys(&alice, &alices.device);
    // By another key than it says; of something else than what is there; of what is not there.
    let forged = signed(device.clone(), &alice.id, &public(&alices.own), &key(99));
    let mut other = device_keys(&alice, &alices.device);
    other["algorithms"] = json!([]);
    let other = signed(other, &alice.id, &public(&alices.own), &alices.own);
    let master = cross_signing_key(&bob, "master", &bobs.master);
    let unsigned = json!({public(&bobs.master): master, "unknown": master});
    for (wrong, errcode) in [
        (
            json!({&alice.id: {&alice.device: forged}}),
            "M_INVALID_SIGNATURE",
        ),
        (
            json!({&alice.id: {&alice.device: other}}),
            "M_INVALID_SIGNATURE",
        ),
        (json!({&alice.id: {"NOSUCH": device}}), "M_NOT_FOUND"),
        (json!({"@nobody:localhost": {"x": master}}), "M_NOT_FOUND"),
    ] {
        let answer = alice
            .post("/keys/signatures/upload", wrong.clone())
            .await
            .ok();
        let failure = answer["failures"].as_object().unwrap().values().next();
        let failure = failure
            .unwrap()
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap();
        assert_eq!(failure["errcode"], errcode, "{wrong}");
    }
    let answer = alice
        .post("/keys/signatures/upload", json!({&bob.id: unsigned}))
        .await
        .ok();
    assert_eq!(answer["failures"][&bob.id].as_object().unwrap().len(), 2);
    assert!(query(&alice, &bob).await["master_keys"][&bob.id]["signatures"].is_null());
}

#[tokio::test]
async fn those_who_share_a_room_hear_of_changed_devices() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    alice.room_with(&[&bob]).await;
    let (of_alice, of_bob, of_carol) = (
        alice.sync(None).await.next_batch(),
        bob.sync(None).await.next_batch(),
        carol.sync(None).await.next_batch(),
    );
    upload_device_keys(&bob, &key(1)).await;
    let sync = alice
        .sync_until(&of_alice, |sync| {
            told(&sync.body, "changed").contains(&*bob.id)
        })
        .await;
    // One's own devices too, and nobody else.
    bob.sync_until(&of_bob, |sync| {
        told(&sync.body, "changed").contains(&*bob.id)
    })
    .await;
    let other = carol.sync(Some(&of_carol)).await;
    assert_eq!(other.body["device_lists"], Value::Null);
    // Told once; again to who asks with the old token.
    let next = alice.sync(Some(&sync.next_batch())).await;
    assert!(told(&next.body, "changed").is_empty());
    let again = alice.sync(Some(&of_alice)).await;
    assert!(told(&again.body, "changed").contains(&*bob.id));
    let changes = format!("/keys/changes?from={of_alice}&to={}", sync.next_batch());
    let changes = alice.get(&changes).await.ok();
    assert_eq!(changes, json!({"changed": [bob.id], "left": []}));
    alice
        .get("/keys/changes?from=x&to=y")
        .await
        .refused(400, "M_INVALID_PARAM");
    // A device that goes is news too.
    let second = another_device(&server, &bob, Some("SECOND")).await;
    upload_device_keys(&second, &key(2)).await;
    let sync = alice
        .sync_until(&sync.next_batch(), |sync| {
            told(&sync.body, "changed").contains(&*bob.id)
        })
        .await;
    second.post("/logout", json!({})).await.ok();
    alice
        .sync_until(&sync.next_batch(), |sync| {
            told(&sync.body, "changed").contains(&*bob.id)
        })
        .await;
    let left = query(&alice, &bob).await["device_keys"][&bob.id].clone();
    assert_eq!(left.as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn who_shares_a_room_newly_and_who_shares_none_any_more() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let (one, two) = (
        alice.room_with(&[&carol]).await,
        alice.room_with(&[&carol]).await,
    );
    let token = alice.sync(None).await.next_batch();
    bob.join(&one).await;
    let sync = alice.sync(Some(&token)).await;
    assert_eq!(told(&sync.body, "changed"), BTreeSet::from([&*bob.id]));
    // To who comes, all that are there.
    let of_bob = bob.sync(None).await.next_batch();
    bob.join(&two).await;
    let there = bob.sync(Some(&of_bob)).await;
    let both = BTreeSet::from([&*alice.id, &*carol.id]);
    assert!(told(&there.body, "changed").is_superset(&both));
    // One room is left that they share; then none.
    let token = alice.sync(None).await.next_batch();
    bob.to_room(&one, "leave", json!({})).await.ok();
    let sync = alice.sync(Some(&token)).await;
    assert!(told(&sync.body, "left").is_empty());
    alice
        .to_room(&two, "kick", json!({"user_id": bob.id}))
        .await
        .ok();
    let after = alice.sync(Some(&sync.next_batch())).await;
    assert_eq!(told(&after.body, "left"), BTreeSet::from([&*bob.id]));
    let gone = bob.sync(Some(&there.next_batch())).await;
    assert_eq!(told(&gone.body, "left"), both);
}

#[tokio::test]
async fn keys_and_claims_survive_a_kill() {
    let mut server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    upload_device_keys(&alice, &key(1)).await;
    let keys = json!({"one_time_keys": one_time_keys(0..3)});
    alice.post("/keys/upload", keys).await.ok();
    let claimed = claim(&bob, &alice).await;
    assert!(claimed["signed_curve25519:0000"].is_object());
    server.kill9();
    server.restart().await;
    assert!(claim(&bob, &alice).await["signed_curve25519:0001"].is_object());
    let found = query(&bob, &alice).await;
    assert!(found["device_keys"][&alice.id][&alice.device].is_object());
}

#[tokio::test]
async fn numbers_that_nobody_can_hold_are_no_fault_of_ours() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let huge = r#"{"x":1e400}"#;
    let send = async |method: Method, path: String, body: String| {
        let url = format!("{}{}{path}", server.base(), User::PREFIX);
        let request = reqwest::Client::new().request(method, url);
        let answer = request.bearer_auth(&alice.token).body(body).send().await;
        answer.unwrap().status().as_u16()
    };
    let device = &alice.device;
    let (own, data) = (
        &alice.id,
        format!("/user/{}/rooms/{room}/account_data/x", alice.id),
    );
    for (method, path, body) in [
        (
            Method::PUT,
            "/sendToDevice/x/1".to_owned(),
            format!(r#"{{"messages":{{"{own}":{{"{device}":{huge}}}}}}}"#),
        ),
        (
            Method::POST,
            "/keys/upload".to_owned(),
            r#"{"one_time_keys":{"a:b":{"key":"k","x":1e400}}}"#.to_owned(),
        ),
        (Method::PUT, data, huge.to_owned()),
        (
            Method::POST,
            "/room_keys/version".to_owned(),
            format!(r#"{{"algorithm":"x","auth_data":{huge}}}"#),
        ),
        (
            Method::GET,
            format!("/rooms/{room}/initialSync"),
            String::new(),
        ),
        (Method::GET, "/room_keys/version".to_owned(), String::new()),
        (Method::GET, "/sync".to_owned(), String::new()),
    ] {
        let status = send(method, path.clone(), body).await;
        assert!(status < 500, "{path}: {status}");
    }
    assert!(!server.log().contains("panic"), "{}", server.log());
}
