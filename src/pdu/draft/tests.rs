//! What we make is what others read; and whatever others send does no harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use proptest::prelude::*;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, RoomId, ServerName, ServerSigningKeyId};
use serde_json::{Value as Json, json};

use super::Draft;
use crate::{
    Pdu, PduError, PublicKey, auth_types, check_content_hash,
    fixture_tests::{Make, Room, VERSIONS, rules, spec_key, versions},
    verify_signatures,
};

fn keys(_: &ServerName, _: &ServerSigningKeyId) -> Option<PublicKey> {
    let valid_until = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
    Some(PublicKey {
        key: spec_key().verify_key(),
        valid_until,
    })
}

#[test]
fn what_we_make_passes_every_check() {
    for version in VERSIONS {
        let room = Room::new(version);
        let made = room.make(&Make::state(
            "@u:b",
            "m.room.topic",
            "key",
            json!({ "topic": "é", "a": [1] }),
        ));
        let read = Pdu::parse(made.json(), room.rules).unwrap();
        for pdu in [&made, &read] {
            assert!(check_content_hash(pdu));
            assert_eq!(verify_signatures(pdu, room.rules, &keys), Ok(()));
            assert_eq!(pdu.event_id(), made.event_id());
            assert_eq!(pdu.room_id(), room.room_id());
            assert_eq!(pdu.sender(), "@u:b");
            assert_eq!(pdu.state_key(), Some("key"));
            assert_eq!(pdu.event_type().to_string(), "m.room.topic");
            assert_eq!(pdu.content().get(), r#"{"a":[1],"topic":"é"}"#);
            assert_eq!(pdu.prev_events(), made.prev_events());
            assert_eq!(pdu.depth(), made.depth());
            assert!(pdu.is_state(&"m.room.topic".into(), "key"));
            assert!(!pdu.is_state(&"m.room.topic".into(), ""));
            assert_eq!(pdu.state_slot(), Some(("m.room.topic".into(), "key")));
        }
        let json: Json = serde_json::from_slice(made.json()).unwrap();
        assert_eq!(
            json.get("event_id").is_some(),
            room.rules.has_event_id_field()
        );
        assert!(json.get("unsigned").is_none());
        let create: Json = serde_json::from_slice(room.create.json()).unwrap();
        assert_eq!(create.get("room_id").is_none(), version == "12");
    }
}

#[test]
fn versions_1_and_2_list_hashes_and_make_ids() {
    for version in versions(1, 2) {
        let room = Room::new(version);
        let mut draft = room.draft(&Make::message("@u:b", "m", json!({})));
        let known = EventId::parse("$known:a").unwrap();
        let unknown = EventId::parse("$unknown:a").unwrap();
        draft.prev_events = vec![known.clone(), unknown];
        draft.reference_hashes.insert(known, [7; 32]);
        let made = draft
            .sign(room.rules, &spec_key(), ruma::server_name!("b"))
            .unwrap();
        let json: Json = serde_json::from_slice(made.json()).unwrap();
        let hash = crate::base64::encode([7; 32]);
        assert_eq!(
            json["prev_events"],
            json!([["$known:a", { "sha256": hash }], ["$unknown:a", {}]])
        );
        assert_eq!(made.event_id().server_name(), Some(ruma::server_name!("b")));
        // Another event, another ID; the same draft, the same ID.
        let again = draft
            .sign(room.rules, &spec_key(), ruma::server_name!("b"))
            .unwrap();
        assert_eq!(again.event_id(), made.event_id());
        draft.depth += 1;
        let other = draft
            .sign(room.rules, &spec_key(), ruma::server_name!("b"))
            .unwrap();
        assert_ne!(other.event_id(), made.event_id());
    }
}

#[test]
fn redactions_are_written_where_the_version_wants_them() {
    for version in VERSIONS {
        let room = Room::new(version);
        let target = EventId::parse("$target:a").unwrap();
        let made = room.make(&Make {
            redacts: Some(target.clone()),
            ..Make::message("@u:b", "m.room.redaction", json!({ "reason": "r" }))
        });
        assert_eq!(made.redacts(), Some(&*target));
        let json: Json = serde_json::from_slice(made.json()).unwrap();
        let inside = ["11", "12"].contains(&version);
        assert_eq!(json.get("redacts").is_some(), !inside);
        assert_eq!(json["content"].get("redacts").is_some(), inside);
        assert_eq!(json["content"]["reason"], "r");
    }
}

fn draft(version: &str, content: &str) -> Draft {
    let room = Room::new(version);
    let mut draft = room.draft(&Make::message("@u:b", "m.room.message", json!({})));
    draft.content = serde_json::value::RawValue::from_string(content.to_owned()).unwrap();
    draft
}

#[test]
fn bad_drafts_are_refused() {
    let sign = |version: &str, draft: &Draft| {
        draft.sign(rules(version), &spec_key(), ruma::server_name!("b"))
    };
    for version in VERSIONS {
        for content in ["[]", "null", "\"x\""] {
            let error = sign(version, &draft(version, content)).unwrap_err();
            assert_eq!(
                error,
                PduError::Type {
                    field: "content",
                    expected: "an object"
                }
            );
        }
        let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(65_536));
        assert!(
            sign(version, &draft(version, &large))
                .unwrap_err()
                .is_too_large()
        );
        let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        assert!(matches!(
            sign(version, &draft(version, &deep)),
            Err(PduError::Json(_))
        ));
        for content in [
            r#"{"x":1.5}"#,
            r#"{"x":9007199254740992}"#,
            r#"{"x":-9007199254740992}"#,
        ] {
            let strict = version.parse::<u32>().unwrap() >= 6;
            assert_eq!(
                sign(version, &draft(version, content)).is_err(),
                strict,
                "{version} {content}"
            );
        }
        let mut long = draft(version, "{}");
        long.event_type = "x".repeat(256).into();
        assert_eq!(sign(version, &long).unwrap_err(), PduError::TooLong("type"));
        // 280 bytes, 70 code points.
        long.event_type = "💥".repeat(70).into();
        let counts_bytes = version.parse::<u32>().unwrap() >= 11;
        assert_eq!(sign(version, &long).is_err(), counts_bytes, "{version}");
        let mut many = draft(version, "{}");
        many.prev_events = vec![many.prev_events[0].clone(); 21];
        assert_eq!(
            sign(version, &many).unwrap_err(),
            PduError::TooMany {
                field: "prev_events",
                max: 20
            }
        );
        let mut nowhere = draft(version, "{}");
        nowhere.room_id = None;
        assert_eq!(
            sign(version, &nowhere).unwrap_err(),
            PduError::Missing("room_id")
        );
        let mut deepest = draft(version, "{}");
        deepest.depth = u64::MAX;
        assert_eq!(sign(version, &deepest).unwrap().depth(), (1 << 53) - 1);
    }
    let mut named = Room::draft_create("12", "@creator:a", &json!({}));
    named.room_id = Some(RoomId::parse("!r:a").unwrap());
    assert!(matches!(
        sign("12", &named),
        Err(PduError::Invalid {
            field: "room_id",
            ..
        })
    ));
}

#[test]
fn auth_types_are_those_of_the_spec() {
    let types = |version: &str, make: &Make| {
        let content = serde_json::value::to_raw_value(&make.content).unwrap();
        let sender = ruma::UserId::parse(make.sender.as_str()).unwrap();
        let event_type = make.event_type.as_str().into();
        auth_types(
            &event_type,
            &sender,
            make.state_key.as_deref(),
            &content,
            rules(version),
        )
        .into_iter()
        .map(|(event_type, key)| {
            format!("{event_type} {key}")
                .trim()
                .replacen("m.room.", "", 1)
        })
        .collect::<Vec<_>>()
    };
    let member = |content: Json| Make::state("@s:a", "m.room.member", "@t:a", content);
    for version in VERSIONS {
        let create: &[&str] = if version == "12" { &[] } else { &["create"] };
        let check = |make: Make, more: &[&str]| {
            let expected = [create, &["power_levels", "member @s:a"], more].concat();
            assert_eq!(types(version, &make), expected, "{version}");
        };
        assert!(
            types(
                version,
                &Make::state("@s:a", "m.room.create", "", json!({}))
            )
            .is_empty()
        );
        check(
            Make::message("@s:a", "m.room.message", json!({ "membership": "join" })),
            &[],
        );
        check(member(json!({ "membership": "leave" })), &["member @t:a"]);
        check(member(json!({ "membership": "ban" })), &["member @t:a"]);
        for membership in ["join", "invite", "knock"] {
            check(
                member(json!({ "membership": membership })),
                &["member @t:a", "join_rules"],
            );
        }
        let own = Make::state(
            "@s:a",
            "m.room.member",
            "@s:a",
            json!({ "membership": "join" }),
        );
        check(own, &["join_rules"]);
        let signed = json!({ "signed": { "token": "tok" } });
        check(
            member(json!({ "membership": "invite", "third_party_invite": signed })),
            &["member @t:a", "join_rules", "third_party_invite tok"],
        );
        let authorised =
            json!({ "membership": "join", "join_authorised_via_users_server": "@z:a" });
        let restricted = version.parse::<u32>().unwrap() >= 8;
        let more: &[&str] = if restricted { &["member @z:a"] } else { &[] };
        check(
            member(authorised),
            &[&["member @t:a", "join_rules"], more].concat(),
        );
        // What is malformed asks for less, and is refused elsewhere.
        check(member(json!({ "membership": 1 })), &["member @t:a"]);
        check(Make::message("@s:a", "m.room.member", json!([])), &[]);
    }
}

fn any_content() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-100_i64..100).prop_map(Json::from),
        ".{0,8}".prop_map(Json::from),
    ];
    let key = prop_oneof![
        ".{0,8}",
        Just("membership".to_owned()),
        Just("third_party_invite".to_owned()),
        Just("signed".to_owned()),
        Just("users".to_owned()),
        Just("aliases".to_owned()),
        Just("redacts".to_owned()),
    ];
    let value = leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            proptest::collection::btree_map(key.clone(), inner, 0..4)
                .prop_map(|m| m.into_iter().collect()),
        ]
    });
    proptest::collection::btree_map(
        ".{0,8}|membership|third_party_invite|users|creator|allow",
        value,
        0..5,
    )
    .prop_map(|m| m.into_iter().collect())
}

fn any_type() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "m.room.member",
        "m.room.create_",
        "m.room.power_levels",
        "m.room.join_rules",
        "m.room.aliases",
        "m.room.history_visibility",
        "m.room.redaction",
        "m.room.message",
        "x \" \\ \u{e9}",
    ])
    .prop_map(str::to_owned)
}

fn any_event() -> impl Strategy<Value = (&'static str, Pdu)> {
    let version = proptest::sample::select(VERSIONS.to_vec());
    (
        version,
        any_type(),
        proptest::option::of(".{0,8}"),
        any_content(),
    )
        .prop_map(|(version, event_type, state_key, content)| {
            let make = Make {
                state_key,
                ..Make::message("@u:b", &event_type, content)
            };
            (version, Room::new(version).make(&make))
        })
}

/// The auth rules and everything else that looks at an event answer whatever it is.
fn look_at(pdu: &Pdu, version: &str) {
    let rules = rules(version);
    let _ = check_content_hash(pdu);
    let _ = verify_signatures(pdu, rules, &keys);
    let _ = pdu.auth_types(rules);
    let mut room = Room::new(version);
    room.put_member("@u:b", "join");
    let _ = room.check(pdu);
    let _ = room.check_without_state(pdu);
    // Also as part of the state.
    if let Some((event_type, state_key)) = pdu.state_slot() {
        room.state
            .insert((event_type, state_key.to_owned()), pdu.clone().into());
        for event_type in ["m.room.message", "m.room.power_levels"] {
            let _ = room.check_made(&Make::state("@u:b", event_type, "", json!({})));
        }
        for membership in ["join", "invite", "leave", "ban", "knock"] {
            let content = json!({ "membership": membership });
            let _ = room.check_made(&Make::state("@u:b", "m.room.member", "@v:b", content));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn redactions_keep_ids_and_signatures((version, pdu) in any_event()) {
        let rules = rules(version);
        let redacted = pdu.redacted(rules).unwrap();
        prop_assert_eq!(redacted.event_id(), pdu.event_id());
        prop_assert_eq!(verify_signatures(&redacted, rules, &keys).is_ok(), verify_signatures(&pdu, rules, &keys).is_ok());
        let again = redacted.redacted(rules).unwrap();
        prop_assert_eq!(again.json(), redacted.json());
        // What another server reads of it is the same event.
        let read = Pdu::parse(redacted.json(), rules).unwrap();
        prop_assert_eq!(read.event_id(), pdu.event_id());
        prop_assert_eq!(read.json(), redacted.json());
    }

    /// Ruma makes the same hashes and the same redactions, but for a `third_party_invite` that is no object:
    /// it leaves that as it is, Synapse and we leave nothing of it.
    #[test]
    fn ruma_agrees((version, pdu) in any_event()) {
        let invite = pdu.content_member("third_party_invite");
        prop_assume!(invite.is_none_or(|invite| invite.starts_with(b"{")));
        let rules = rules(version);
        let object: ruma::CanonicalJsonObject = serde_json::from_slice(pdu.json()).unwrap();
        let hash = ruma::signatures::reference_hash(&object, rules).unwrap();
        let ours = pdu.reference_hash(rules);
        let ours = if rules.has_event_id_field() || version == "3" {
            crate::base64::encode(ours)
        } else {
            crate::base64::encode_url_safe(ours)
        };
        prop_assert_eq!(hash, ours);
        let hash = ruma::signatures::content_hash(&object).unwrap();
        prop_assert_eq!(hash.as_bytes(), &crate::hash::content_hash(pdu.json())[..]);
        let redacted = ruma::canonical_json::redact(object, &rules.redaction, None).unwrap();
        prop_assert_eq!(serde_json::to_vec(&redacted).unwrap(), pdu.redacted(rules).unwrap().json().to_vec());
    }

    /// A change of any byte that a signature or hash covers is found out.
    #[test]
    fn changes_are_found_out((version, pdu) in any_event(), at in any::<prop::sample::Index>(), to in 0x20_u8..0x7f) {
        let rules = rules(version);
        let mut changed = pdu.json().to_vec();
        let at = at.index(changed.len());
        prop_assume!(changed[at] != to);
        changed[at] = to;
        let Ok(read) = Pdu::parse(&changed, rules) else { return Ok(()) };
        // Spelt otherwise, or a signature spelt otherwise: trailing bits of Base64 mean nothing.
        prop_assume!(read.json() != pdu.json());
        let signed = |pdu: &Pdu| crate::redact::signed_json(pdu.json(), rules);
        let hash_says = |pdu: &Pdu| {
            let hashes = crate::canonical::member(pdu.json(), "hashes").map(<[u8]>::to_vec);
            (crate::hash::content_hash(pdu.json()), hashes)
        };
        if signed(&read) == signed(&pdu) && hash_says(&read) == hash_says(&pdu) {
            // Only the signatures changed.
            return Ok(());
        }
        let intact = check_content_hash(&read) && verify_signatures(&read, rules, &keys).is_ok();
        let by_third_party = pdu.content_member("third_party_invite").is_some();
        prop_assert!(!intact || by_third_party, "{}", String::from_utf8_lossy(&changed));
    }

    #[test]
    fn mutated_events_do_no_harm(
        (version, pdu) in any_event(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
        other in proptest::sample::select(VERSIONS.to_vec()),
    ) {
        let mut bytes = pdu.json().to_vec();
        for (at, byte, kind) in changes {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        for version in [version, other] {
            if let Ok(pdu) = Pdu::parse(&bytes, rules(version)) {
                look_at(&pdu, version);
            }
            // Damaged bytes of our own.
            let stored = Pdu::from_stored(pdu.event_id().to_owned(), bytes.clone().into(), rules(version), false);
            if let Ok(pdu) = stored {
                look_at(&pdu, version);
                let _ = pdu.redacted(rules(version));
            }
        }
    }

    #[test]
    fn arbitrary_members_do_no_harm(
        version in proptest::sample::select(VERSIONS.to_vec()),
        field in proptest::sample::select(vec![
            "auth_events", "content", "depth", "event_id", "hashes", "origin_server_ts", "prev_events", "redacts",
            "room_id", "sender", "signatures", "state_key", "type", "unsigned",
        ]),
        value in any_content(),
        event_type in any_type(),
    ) {
        let pdu = Room::new(version).make(&Make::state("@u:b", &event_type, "@v:b", json!({})));
        let mut event: Json = serde_json::from_slice(pdu.json()).unwrap();
        for value in [value.clone(), json!([value]), json!([[value]]), json!(value.to_string())] {
            event[field] = value;
            if let Ok(pdu) = Pdu::parse(event.to_string().as_bytes(), rules(version)) {
                look_at(&pdu, version);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in any::<Vec<u8>>()) {
        for version in VERSIONS {
            prop_assert!(Pdu::parse(&bytes, rules(version)).is_err());
        }
    }
}
