//! Signatures: the spec's vectors, and who must have signed what.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::{MilliSecondsSinceUnixEpoch, ServerName, ServerSigningKeyId, server_name};
use serde_json::{Value as Json, json};

use super::{SignatureError, required_signatures, verify_signatures};
use crate::{
    KeyError, Pdu, PublicKey, SigningKey, VerifyKey,
    canonical::{Numbers, Object, Value},
    fixture_tests::{Make, Room, SEED, VERSIONS, rules, spec_key, versions},
    hash::content_hash,
    redact::signed_json,
};

fn object(text: &str) -> Object<'_> {
    match Value::parse(text.as_bytes(), Numbers::Canonical).unwrap() {
        Value::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn until(milliseconds: u32) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(milliseconds.into())
}

/// The spec's key, as the key of every server.
fn spec_keys(_: &ServerName, key_id: &ServerSigningKeyId) -> Option<PublicKey> {
    let public = PublicKey {
        key: spec_key().verify_key(),
        valid_until: until(u32::MAX),
    };
    (key_id == "ed25519:1").then_some(public)
}

#[test]
fn json_signing_vectors_of_the_spec() {
    for (given, expected) in [
        (
            "{}",
            r#"{"signatures":{"domain":{"ed25519:1":"K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"}}}"#,
        ),
        (
            r#"{"one": 1, "two": "Two"}"#,
            r#"{"one":1,"signatures":{"domain":{"ed25519:1":"KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw"}},"two":"Two"}"#,
        ),
    ] {
        let mut given = object(given);
        spec_key().sign_json(server_name!("domain"), &mut given);
        assert_eq!(String::from_utf8(given.to_canonical()).unwrap(), expected);
        let key = spec_key().verify_key();
        let key_id = spec_key().key_id().to_owned();
        assert!(key.verify_json("domain", key_id.as_str(), &given));
        assert!(!key.verify_json("other", key_id.as_str(), &given));
        given.insert("unsigned", Value::Integer(1));
        assert!(key.verify_json("domain", key_id.as_str(), &given));
        given.insert("more", Value::Integer(1));
        assert!(!key.verify_json("domain", key_id.as_str(), &given));
    }
}

#[test]
fn signatures_of_others_stay() {
    let mut signed =
        object(r#"{"signatures":{"a":{"ed25519:x":"s"},"domain":{"ed25519:0":"t"}},"x":1}"#);
    spec_key().sign_json(server_name!("domain"), &mut signed);
    let text = String::from_utf8(signed.to_canonical()).unwrap();
    assert!(
        text.starts_with(
            r#"{"signatures":{"a":{"ed25519:x":"s"},"domain":{"ed25519:0":"t","ed25519:1":""#
        ),
        "{text}"
    );
    for odd in [r#"{"signatures":1}"#, r#"{"signatures":{"domain":[]}}"#] {
        let mut signed = object(odd);
        spec_key().sign_json(server_name!("domain"), &mut signed);
        let key_id = spec_key().key_id().to_owned();
        assert!(
            spec_key()
                .verify_key()
                .verify_json("domain", key_id.as_str(), &signed)
        );
    }
}

/// The spec's events lack fields that every event must have, so they are hashed and signed as bare JSON.
#[test]
fn event_signing_vectors_of_the_spec() {
    for (given, hash, signature) in [
        (
            r#"{"room_id":"!x:domain","sender":"@a:domain","origin":"domain","origin_server_ts":1000000,"signatures":{},"hashes":{},"type":"X","content":{},"prev_events":[],"auth_events":[],"depth":3,"unsigned":{"age_ts":1000000}}"#,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            r#"{"content":{"body":"Here is the message content"},"event_id":"$0:domain","origin":"domain","origin_server_ts":1000000,"type":"m.room.message","room_id":"!r:domain","sender":"@u:domain","signatures":{},"unsigned":{"age_ts":1000000}}"#,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ] {
        let mut event = object(given);
        let content_hash = crate::base64::encode(content_hash(&event.to_canonical()));
        assert_eq!(content_hash, hash);
        let mut hashes = Object::new();
        hashes.insert("sha256", Value::String(content_hash.into()));
        event.insert("hashes", Value::Object(hashes));
        let message = signed_json(&event.to_canonical(), rules("1"));
        assert_eq!(spec_key().sign_base64(&message), signature);
        assert!(spec_key().verify_key().verify_base64(&message, signature));
    }
}

#[test]
fn keys_are_stored_as_synapse_does() {
    let key = spec_key();
    // The spec's last character has bits that mean nothing.
    assert_eq!(
        key.to_stored(),
        "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA0"
    );
    assert_eq!(
        SigningKey::from_stored(&key.to_stored())
            .unwrap()
            .verify_key(),
        key.verify_key()
    );
    assert_eq!(key.key_id(), "ed25519:1");
    assert_eq!(
        key.verify_key().to_base64(),
        "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI"
    );
    let again = VerifyKey::from_base64(&key.verify_key().to_base64()).unwrap();
    assert_eq!(again, key.verify_key());
    assert_eq!(VerifyKey::from_bytes(&again.to_bytes()).unwrap(), again);
    assert!(SigningKey::from_stored(&format!("  ed25519 a_Bc {SEED}=\n")).is_ok());
    for (line, error) in [
        ("", KeyError::Stored),
        ("ed25519 1", KeyError::Stored),
        (
            "rsa 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
            KeyError::Stored,
        ),
        ("ed25519 1 YJDBA9Xn", KeyError::Stored),
        ("ed25519 1 ****", KeyError::Stored),
        (
            "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1 x",
            KeyError::Stored,
        ),
        (
            "ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
            KeyError::Name,
        ),
    ] {
        assert_eq!(SigningKey::from_stored(line).unwrap_err(), error, "{line}");
    }
    assert_eq!(
        SigningKey::from_seed(&[7; 32], "").unwrap_err(),
        KeyError::Name
    );
    assert!(!format!("{key:?}").contains(SEED));
    for text in ["", "AAAA", "*", SEED.get(1..).unwrap()] {
        assert_eq!(VerifyKey::from_base64(text).unwrap_err(), KeyError::Public);
    }
}

fn servers(pdu: &Pdu, version: &str) -> Vec<String> {
    let required = required_signatures(pdu, rules(version)).unwrap();
    required
        .into_iter()
        .map(|required| required.server.to_string())
        .collect()
}

#[test]
fn who_must_sign() {
    for version in VERSIONS {
        let room = Room::new(version);
        let message = room.make(&Make::message("@u:b", "m.room.message", json!({})));
        assert_eq!(servers(&message, version), ["b"]);
        assert_eq!(
            required_signatures(&message, room.rules).unwrap()[0].key_ids,
            ["ed25519:1"].map(|id| ServerSigningKeyId::parse(id).unwrap())
        );

        let authorised =
            json!({ "membership": "join", "join_authorised_via_users_server": "@m:c" });
        let join = room.make(&Make::state(
            "@u:b",
            "m.room.member",
            "@u:b",
            authorised.clone(),
        ));
        let restricted = version.parse::<u32>().unwrap() >= 8;
        assert_eq!(
            servers(&join, version),
            if restricted {
                vec!["b", "c"]
            } else {
                vec!["b"]
            }
        );
        // Only joins, and only of members.
        let mut leave = authorised.clone();
        leave["membership"] = "leave".into();
        let leave = room.make(&Make::state("@u:b", "m.room.member", "@u:b", leave));
        assert_eq!(servers(&leave, version), ["b"]);
        let other = room.make(&Make::state("@u:b", "m.other", "", authorised));
        assert_eq!(servers(&other, version), ["b"]);

        let invite = json!({ "membership": "invite", "third_party_invite": {} });
        let invite = room.make(&Make::state("@u:b", "m.room.member", "@v:d", invite));
        let id_domain = if room.rules.has_event_id_field() {
            vec!["b"]
        } else {
            vec![]
        };
        assert_eq!(servers(&invite, version), id_domain);
        let plain = room.make(&Make::state(
            "@u:b",
            "m.room.member",
            "@v:d",
            json!({ "membership": "invite" }),
        ));
        assert_eq!(servers(&plain, version), ["b"]);
    }
    for version in versions(8, 12) {
        let room = Room::new(version);
        for odd in [json!("nobody"), json!(1)] {
            let content = json!({ "membership": "join", "join_authorised_via_users_server": odd });
            let join = room.make(&Make::state("@u:b", "m.room.member", "@u:b", content));
            assert_eq!(
                verify_signatures(&join, room.rules, &spec_keys),
                Err(SignatureError::AuthorisingUser)
            );
        }
    }
    // The server of the event ID, where there is one.
    for version in versions(1, 2) {
        let room = Room::new(version);
        let draft = room.draft(&Make::message("@u:b", "m.room.message", json!({})));
        let pdu = draft
            .sign(room.rules, &spec_key(), server_name!("z"))
            .unwrap();
        assert_eq!(servers(&pdu, version), ["b", "z"]);
        assert_eq!(
            verify_signatures(&pdu, room.rules, &spec_keys),
            Err(SignatureError::Missing(server_name!("b").to_owned()))
        );
    }
}

/// A message by `@u:b`, with other `signatures`.
fn with_signatures(version: &str, change: impl Fn(&mut Json)) -> Pdu {
    let pdu = Room::new(version).make(&Make::message(
        "@u:b",
        "m.room.message",
        json!({ "body": "x" }),
    ));
    let mut event: Json = serde_json::from_slice(pdu.json()).unwrap();
    change(&mut event["signatures"]);
    Pdu::parse(event.to_string().as_bytes(), rules(version)).unwrap()
}

#[test]
fn signatures_are_checked() {
    let b = server_name!("b").to_owned();
    let id = |key_id: &str| ServerSigningKeyId::parse(key_id).unwrap();
    for version in VERSIONS {
        let rules = rules(version);
        let verify = |pdu: &Pdu| verify_signatures(pdu, rules, &spec_keys);
        assert_eq!(verify(&with_signatures(version, |_| {})), Ok(()));
        // Of keys and servers that do not count, anything is fine.
        let more = with_signatures(version, |all| {
            all["b"]["ed25519:unknown"] = "?".into();
            all["b"]["rsa:1"] = "?".into();
            all["c"] = json!({ "ed25519:1": "?" });
        });
        assert_eq!(verify(&more), Ok(()));
        let missing = SignatureError::Missing(b.clone());
        for odd in [
            json!({}),
            json!({ "b": {} }),
            json!({ "b": 1 }),
            json!({ "b": { "rsa:1": "?" } }),
        ] {
            assert_eq!(
                verify(&with_signatures(version, |all| *all = odd.clone())),
                Err(missing.clone())
            );
        }
        let unknown = with_signatures(version, |all| *all = json!({ "b": { "ed25519:2": "?" } }));
        assert_eq!(verify(&unknown), Err(SignatureError::NoKey(b.clone())));
        for odd in [
            json!("?"),
            json!(""),
            json!(1),
            json!("AAAA"),
            json!(spec_key().sign_base64(b"other")),
        ] {
            let wrong = with_signatures(version, |all| all["b"]["ed25519:1"] = odd.clone());
            assert_eq!(
                verify(&wrong),
                Err(SignatureError::Mismatch(b.clone(), id("ed25519:1"))),
                "{odd}"
            );
        }
    }
}

#[test]
fn keys_expire_since_version_5() {
    for version in VERSIONS {
        let pdu = with_signatures(version, |_| {});
        let time = u32::try_from(u64::from(pdu.origin_server_ts().get())).unwrap();
        let verify = |valid_until: u32| {
            verify_signatures(&pdu, rules(version), &|server, key_id| {
                spec_keys(server, key_id).map(|public| PublicKey {
                    valid_until: until(valid_until),
                    ..public
                })
            })
        };
        assert_eq!(verify(time), Ok(()));
        let late = verify(time - 1);
        if version.parse::<u32>().unwrap() >= 5 {
            assert_eq!(
                late,
                Err(SignatureError::Expired(server_name!("b").to_owned()))
            );
        } else {
            assert_eq!(late, Ok(()));
        }
    }
}

/// A key of small order "signs" every message; such keys and signatures never count.
#[test]
fn weak_keys_do_not_count() {
    let mut identity = [0; 32];
    identity[0] = 1;
    let Ok(weak) = VerifyKey::from_bytes(&identity) else {
        return;
    };
    let mut signature = [0; 64];
    signature[0] = 1;
    assert!(!weak.verify(b"anything", &signature));
}
