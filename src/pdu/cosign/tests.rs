//! Signatures are put beside those that are there, and taken over from copies without anything else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::server_name;
use serde_json::{Value as Json, json};

use crate::{
    Pdu, SigningKey,
    fixture_tests::{Make, Room, VERSIONS},
};

#[test]
fn a_second_server_signs_too() {
    let key = SigningKey::from_seed(&[9; 32], "second").unwrap();
    for version in VERSIONS {
        let room = Room::new(version);
        let invite = json!({ "membership": "invite" });
        let made = room.make(&Make::state("@u:b", "m.room.member", "@v:c", invite));
        let both = made
            .signed_also(room.rules, &key, server_name!("c"))
            .unwrap();
        assert_eq!(both.event_id(), made.event_id());
        assert_eq!(
            Pdu::parse(both.json(), room.rules).unwrap().event_id(),
            made.event_id()
        );
        let json: Json = serde_json::from_slice(both.json()).unwrap();
        let old: Json = serde_json::from_slice(made.json()).unwrap();
        assert_eq!(json["signatures"]["b"], old["signatures"]["b"]);
        assert!(json["signatures"]["c"]["ed25519:second"].is_string());
        let taken = made
            .with_signatures_from(room.rules, server_name!("c"), both.json())
            .unwrap();
        assert_eq!(taken.json(), both.json());
    }
}

#[test]
fn nothing_but_signatures_of_that_server_is_taken_from_a_copy() {
    let room = Room::new("11");
    let invite = json!({ "membership": "invite" });
    let made = room.make(&Make::state("@u:b", "m.room.member", "@v:c", invite));
    let take = |copy: Json| {
        made.with_signatures_from(room.rules, server_name!("c"), copy.to_string().as_bytes())
    };
    for copy in [
        json!({}),
        json!([]),
        json!({ "signatures": 1 }),
        json!({ "signatures": { "c": {} } }),
        json!({ "signatures": { "c": { "ed25519:x": 7 } } }),
        json!({ "signatures": { "c": { "ed25519:x": "x".repeat(256) } } }),
        json!({ "signatures": { "d": { "ed25519:x": "sig" } } }),
    ] {
        take(copy).unwrap_err();
    }
    let forged = json!({
        "type": "m.room.power_levels", "content": { "users": {} },
        "signatures": { "b": { "ed25519:x": "forged" }, "c": { "ed25519:x": "sig" } },
    });
    let taken: Json = serde_json::from_slice(take(forged).unwrap().json()).unwrap();
    let old: Json = serde_json::from_slice(made.json()).unwrap();
    assert_eq!(taken["content"], old["content"]);
    assert_eq!(taken["signatures"]["b"], old["signatures"]["b"]);
    assert_eq!(taken["signatures"]["c"]["ed25519:x"], "sig");
    let many: serde_json::Map<_, _> = (0..50)
        .map(|n| (format!("ed25519:{n}"), json!("s")))
        .collect();
    let taken: Json =
        serde_json::from_slice(take(json!({ "signatures": { "c": many } })).unwrap().json())
            .unwrap();
    assert_eq!(taken["signatures"]["c"].as_object().unwrap().len(), 10);
}
