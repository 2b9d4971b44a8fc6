//! Which content names a policy server, and which signatures are its.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::server_name;
use serde_json::{Value as Json, json};

use super::{POLICY_KEY_NAME, PolicyServer};
use crate::{
    MAX_EVENT_BYTES, PduError, SigningKey,
    fixture_tests::{Make, Room, VERSIONS},
    required_signatures,
};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], POLICY_KEY_NAME).unwrap()
}

fn content(via: &Json, ed25519: &Json) -> Vec<u8> {
    let content = json!({ "public_keys": { "ed25519": ed25519 }, "via": via });
    content.to_string().into_bytes()
}

fn named(key: &SigningKey) -> PolicyServer {
    let public = key.verify_key().to_base64();
    PolicyServer::of(&content(&json!("p"), &json!(public))).unwrap()
}

#[test]
fn a_policy_server_is_named_by_its_name_and_a_key() {
    let public = key(1).verify_key().to_base64();
    let policy = PolicyServer::of(&content(&json!("p.example:1"), &json!(public))).unwrap();
    assert_eq!(policy.via, "p.example:1");
    assert_eq!(policy.key, Some(key(1).verify_key()));
    // The specification writes keys in either alphabet.
    let url_safe = public.replace('+', "-").replace('/', "_");
    let policy = PolicyServer::of(&content(&json!("p"), &json!(url_safe))).unwrap();
    assert_eq!(policy.key, Some(key(1).verify_key()));
    // A string is all that it takes to be valid; nobody can have signed with this.
    let policy = PolicyServer::of(&content(&json!("p"), &json!("no key"))).unwrap();
    assert_eq!(policy.key, None);
    for invalid in [
        json!({}),
        json!({ "via": "p" }),
        json!({ "via": "p", "public_keys": {} }),
        json!({ "via": "p", "public_keys": { "ed25519": 1 } }),
        json!({ "via": "p", "public_keys": [] }),
        json!({ "via": "p", "public_key": public }),
        json!({ "via": 1, "public_keys": { "ed25519": public } }),
        json!({ "via": "", "public_keys": { "ed25519": public } }),
        json!({ "via": "no name", "public_keys": { "ed25519": public } }),
        json!({ "public_keys": { "ed25519": public } }),
    ] {
        let text = invalid.to_string();
        assert_eq!(PolicyServer::of(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn its_signature_is_its_keys_and_survives_a_redaction() {
    let policy = named(&key(1));
    for version in VERSIONS {
        let room = Room::new(version);
        let made = room.make(&Make::message(
            "@u:b",
            "m.room.message",
            json!({ "body": "x" }),
        ));
        assert!(!policy.has_signed(&made, room.rules));
        let via = server_name!("p");
        let put = |signature: &str| made.with_policy_signature(room.rules, via, signature);
        let signed = put(&made.policy_signature(room.rules, &key(1))).unwrap();
        assert!(policy.has_signed(&signed, room.rules), "{version}");
        assert_eq!(signed.event_id(), made.event_id());
        let pruned = signed.redacted(room.rules).unwrap();
        assert!(policy.has_signed(&pruned, room.rules));
        let other = put(&made.policy_signature(room.rules, &key(2))).unwrap();
        assert!(!policy.has_signed(&other, room.rules));
        assert!(!policy.has_signed(&put("nonsense").unwrap(), room.rules));
        // A new one takes the place of one that is of no use any more.
        let again = other.with_policy_signature(
            room.rules,
            via,
            &made.policy_signature(room.rules, &key(1)),
        );
        assert_eq!(again.unwrap().json(), signed.json());
    }
}

#[test]
fn signatures_of_the_same_server_stay_and_its_policy_key_proves_nothing_else() {
    let room = Room::new("11");
    let made = room.make(&Make::message("@u:b", "m.room.message", json!({})));
    let signature = made.policy_signature(room.rules, &key(1));
    let signed = made
        .with_policy_signature(room.rules, server_name!("b"), &signature)
        .unwrap();
    let both: Json = serde_json::from_slice(signed.json()).unwrap();
    let theirs = both["signatures"]["b"].as_object().unwrap();
    assert_eq!(theirs.len(), 2);
    assert_eq!(theirs["ed25519:policy_server"], signature);
    // It is not looked for among the keys that servers publish.
    let required = required_signatures(&signed, room.rules).unwrap();
    let ids: Vec<_> = required[0].key_ids.iter().map(|id| id.as_str()).collect();
    assert_eq!(ids, ["ed25519:1"]);
}

#[test]
fn all_but_what_names_a_policy_server_is_for_it_to_judge() {
    let room = Room::new("11");
    let asked = |make: &Make| PolicyServer::is_asked_about(&room.make(make));
    let policy = "m.room.policy";
    assert!(!asked(&Make::state("@u:b", policy, "", json!({}))));
    assert!(asked(&Make::state("@u:b", policy, "x", json!({}))));
    assert!(asked(&Make::message("@u:b", policy, json!({}))));
    assert!(asked(&Make::state("@u:b", "m.room.name", "", json!({}))));
}

#[test]
fn an_event_that_is_full_takes_no_more_signatures() {
    let room = Room::new("11");
    let say = |text: &str| {
        room.make(&Make::message(
            "@u:b",
            "m.room.message",
            json!({ "body": text }),
        ))
    };
    let empty = say("").json().len();
    // The depth has as many digits.
    let made = say(&"x".repeat(MAX_EVENT_BYTES - empty - 10));
    let signature = made.policy_signature(room.rules, &key(1));
    let signed = made.with_policy_signature(room.rules, server_name!("p"), &signature);
    assert!(matches!(signed, Err(PduError::TooLarge(_))), "{signed:?}");
}
