//! Our hashes, signatures and redactions are those of Synapse, see `testdata/synapse_events.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::MilliSecondsSinceUnixEpoch;
use serde_json::Value as Json;

use crate::{
    Pdu, PublicKey, check_content_hash,
    fixture_tests::{VERSIONS, rules, spec_key},
    verify_signatures,
};

const RECORDED: &str = include_str!("testdata/synapse_events.json");

fn check_case(case: &Json) {
    let rules = rules(case["version"].as_str().unwrap());
    let text = case["event"].as_str().unwrap();
    let pdu = Pdu::parse(text.as_bytes(), rules).unwrap_or_else(|e| panic!("{e}: {text}"));
    assert_eq!(pdu.json().as_ref(), text.as_bytes());
    assert_eq!(pdu.event_id(), case["event_id"].as_str().unwrap(), "{text}");
    assert_eq!(pdu.room_id(), case["room_id"].as_str().unwrap());
    assert_eq!(
        pdu.redacts().map(|id| id.as_str()),
        case["redacts"].as_str()
    );
    assert!(check_content_hash(&pdu), "{text}");

    let redacted = pdu.redacted(rules).unwrap();
    assert_eq!(
        std::str::from_utf8(redacted.json()).unwrap(),
        case["redacted"].as_str().unwrap()
    );
    assert_eq!(redacted.event_id(), pdu.event_id());
    assert_eq!(redacted.reference_hash(rules), pdu.reference_hash(rules));
    if redacted.json() != pdu.json() {
        assert!(!check_content_hash(&redacted));
    }

    // Also as another server sends it: spelt otherwise, with an `unsigned`.
    let mut sent: Json = serde_json::from_str(text).unwrap();
    sent["unsigned"] = serde_json::json!({ "age": 5 });
    if rules.authorization.strict_canonical_json {
        let sent = serde_json::to_vec_pretty(&sent).unwrap();
        assert_eq!(Pdu::parse(&sent, rules).unwrap().json(), pdu.json());
    }

    let public = PublicKey {
        key: spec_key().verify_key(),
        valid_until: MilliSecondsSinceUnixEpoch(1_000_000_u32.into()),
    };
    let keys = |server: &ruma::ServerName, key_id: &ruma::ServerSigningKeyId| {
        (server == "domain" && key_id == "ed25519:1").then_some(public)
    };
    for event in [&pdu, &redacted] {
        let verdict = verify_signatures(event, rules, &keys);
        if text.contains(r#""membership":"join""#) && text.contains("@z:domain") {
            // Signed by the authorising user's server too, which is the same here.
            assert_eq!(verdict, Ok(()));
        }
        assert_eq!(verdict, Ok(()), "{text}");
    }
}

#[test]
fn events_are_hashed_signed_and_redacted_like_synapse_does() {
    let recorded: Json = serde_json::from_str(RECORDED).unwrap();
    let cases = recorded["cases"].as_array().unwrap();
    for version in VERSIONS {
        assert!(
            cases
                .iter()
                .filter(|case| case["version"] == version)
                .count()
                >= 15
        );
    }
    cases.iter().for_each(check_case);
}
