//! The form of events: what each room version asks for, and the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use serde_json::{Value as Json, json};

use crate::{
    MAX_EVENT_BYTES, Pdu, PduError,
    fixture_tests::{VERSIONS, rules, versions},
};

/// An event that is well-formed in a version.
fn event(version: &str) -> Json {
    let mut event = json!({
        "auth_events": [], "content": {}, "depth": 1, "hashes": { "sha256": "x" }, "origin_server_ts": 1,
        "prev_events": [], "room_id": "!r:a", "sender": "@u:a", "signatures": {}, "type": "m.test",
    });
    if rules(version).has_event_id_field() {
        event["event_id"] = "$e:a".into();
    }
    event
}

fn parse(version: &str, event: &Json) -> Result<Pdu, PduError> {
    Pdu::parse(&serde_json::to_vec(event).unwrap(), rules(version))
}

fn error(version: &str, change: impl Fn(&mut Json)) -> String {
    let mut event = event(version);
    change(&mut event);
    parse(version, &event).expect_err(version).to_string()
}

fn accepts(version: &str, change: impl Fn(&mut Json)) -> Pdu {
    let mut event = event(version);
    change(&mut event);
    parse(version, &event).unwrap_or_else(|e| panic!("version {version}: {e}: {event}"))
}

fn reference(version: &str, id: &str) -> Json {
    if rules(version).has_event_id_field() {
        json!([format!("{id}:a"), { "sha256": "x" }])
    } else {
        json!(id)
    }
}

#[test]
fn required_fields_are_required() {
    for version in VERSIONS {
        accepts(version, |_| {});
        let fields = [
            "auth_events",
            "content",
            "depth",
            "origin_server_ts",
            "prev_events",
            "room_id",
            "sender",
            "type",
        ];
        for field in fields {
            let error = error(version, |event| {
                drop(event.as_object_mut().unwrap().remove(field))
            });
            assert_eq!(
                error,
                format!("the field `{field}` is missing"),
                "{version}"
            );
        }
    }
}

#[test]
fn fields_have_their_types() {
    for version in VERSIONS {
        for (field, odd, expected) in [
            ("auth_events", json!({}), "an array"),
            ("auth_events", json!("$x"), "an array"),
            ("prev_events", json!(null), "an array"),
            ("content", json!([]), "an object"),
            ("content", json!(null), "an object"),
            ("content", json!("{}"), "an object"),
            ("depth", json!("1"), "an integer"),
            ("depth", json!(-1), "an integer"),
            ("depth", json!(null), "an integer"),
            ("hashes", json!([]), "an object"),
            ("origin_server_ts", json!("1"), "an integer"),
            ("origin_server_ts", json!({}), "an integer"),
            ("room_id", json!(1), "a string"),
            ("sender", json!(["@u:a"]), "a string"),
            ("signatures", json!("x"), "an object"),
            ("state_key", json!(null), "a string"),
            ("state_key", json!(1), "a string"),
            ("type", json!(null), "a string"),
            ("type", json!({}), "a string"),
        ] {
            let error = error(version, |event| event[field] = odd.clone());
            let start = format!("the field `{field}` must be {expected}");
            assert!(
                error.starts_with(&start),
                "{version} {field} {odd}: {error}"
            );
        }
    }
}

#[test]
fn ids_are_ids() {
    for version in VERSIONS {
        for (field, odd) in [
            ("sender", "u:a"),
            ("sender", "@u"),
            ("sender", "@u:"),
            ("sender", "@u:a b"),
            ("sender", "@u\0:a"),
            ("sender", ""),
            ("room_id", "r:a"),
            ("room_id", "#r:a"),
            ("room_id", ""),
        ] {
            let error = error(version, |event| event[field] = odd.into());
            assert!(
                error.starts_with(&format!("the field `{field}` is invalid")),
                "{version} {odd:?}: {error}"
            );
        }
        // Historical user IDs.
        for sender in ["@Üser Name!:a", "@:a", "@u:1.2.3.4:8448", "@u:[::1]"] {
            accepts(version, |event| event["sender"] = sender.into());
        }
    }
}

#[test]
fn strings_are_limited_in_length() {
    for version in VERSIONS {
        let fill = |before: &str, total: usize, after: &str| {
            format!(
                "{before}{}{after}",
                "x".repeat(total - before.len() - after.len())
            )
        };
        for (field, before, after) in [
            ("type", "", ""),
            ("state_key", "", ""),
            ("sender", "@", ":a"),
            ("room_id", "!", ":a"),
        ] {
            accepts(version, |event| {
                event[field] = fill(before, 255, after).into()
            });
            let long = error(version, |event| {
                event[field] = fill(before, 256, after).into()
            });
            assert_eq!(
                long,
                format!("the field `{field}` is longer than 255 bytes"),
                "{version}"
            );
            // 128 characters of two bytes: before version 11 characters are counted.
            let wide = format!("{before}{}{after}", "é".repeat(128));
            if rules(version).counts_code_points() {
                accepts(version, |event| event[field] = wide.clone().into());
                continue;
            }
            let long = error(version, |event| event[field] = wide.clone().into());
            assert_eq!(
                long,
                format!("the field `{field}` is longer than 255 bytes"),
                "{version}"
            );
        }
    }
    for version in versions(1, 2) {
        let long = error(version, |event| {
            event["event_id"] = format!("${}:a", "x".repeat(253)).into()
        });
        assert_eq!(long, "the field `event_id` is longer than 255 bytes");
    }
}

#[test]
fn lists_of_events_are_limited_and_well_formed() {
    for version in VERSIONS {
        for (field, max) in [("prev_events", 20), ("auth_events", 10)] {
            let list = |n: usize| -> Json {
                (0..n)
                    .map(|i| reference(version, &format!("$e{i}")))
                    .collect()
            };
            let pdu = accepts(version, |event| event[field] = list(max));
            let ids = if field == "prev_events" {
                pdu.prev_events()
            } else {
                pdu.auth_events()
            };
            assert_eq!(ids.len(), max);
            assert!(ids[3].as_str().starts_with("$e3"));
            let many = error(version, |event| event[field] = list(max + 1));
            assert_eq!(
                many,
                format!("the field `{field}` has more than {max} entries")
            );
            for odd in [
                json!([1]),
                json!([null]),
                json!([[]]),
                json!([{}]),
                json!([[1]]),
                json!([""]),
                json!(["x"]),
            ] {
                let error = error(version, |event| event[field] = odd.clone());
                assert!(
                    error.starts_with(&format!("the field `{field}` ")),
                    "{version} {odd}: {error}"
                );
            }
            // The other form.
            let other = if ["1", "2"].contains(&version) {
                "3"
            } else {
                "1"
            };
            let error = error(version, |event| {
                event[field] = json!([reference(other, "$e")])
            });
            assert!(
                error.starts_with(&format!("the field `{field}` must be an array of ")),
                "{error}"
            );
        }
    }
}

#[test]
fn event_ids_are_in_the_event_up_to_version_2() {
    for version in versions(1, 2) {
        assert_eq!(accepts(version, |_| {}).event_id(), "$e:a");
        let missing = error(version, |event| {
            drop(event.as_object_mut().unwrap().remove("event_id"))
        });
        assert_eq!(missing, "the field `event_id` is missing");
        for odd in ["e:a", "$e", "$e:", ""] {
            let error = error(version, |event| event["event_id"] = odd.into());
            assert!(
                error.starts_with("the field `event_id` is invalid"),
                "{odd}: {error}"
            );
        }
    }
    for version in versions(3, 12) {
        let error = error(version, |event| event["event_id"] = "$e:a".into());
        assert!(error.contains("must not have it"), "{version}: {error}");
    }
}

#[test]
fn event_ids_are_hashes_since_version_3() {
    // Contents whose hash uses the characters in which the two alphabets differ.
    let mut seen = [false; 2];
    for n in 0..40 {
        for version in versions(3, 12) {
            let pdu = accepts(version, |event| event["origin_server_ts"] = n.into());
            let hash = pdu.event_id().as_str().strip_prefix('$').unwrap();
            assert_eq!(hash.len(), 43);
            let standard = hash.contains(['+', '/']);
            let url_safe = hash.contains(['-', '_']);
            let odd = if version == "3" { url_safe } else { standard };
            assert!(!odd, "{version} {hash}");
            seen[0] |= standard;
            seen[1] |= url_safe;
        }
    }
    assert_eq!(seen, [true, true]);
}

#[test]
fn numbers_are_strict_since_version_6() {
    let text = |number: &str| {
        let event = event("6").to_string();
        event.replacen(
            "\"content\":{}",
            &format!("\"content\":{{\"n\":{number}}}"),
            1,
        )
    };
    for number in ["1.5", "1e3", "9007199254740992", "-9007199254740992", "-0"] {
        for version in versions(6, 12) {
            let error = Pdu::parse(text(number).as_bytes(), rules(version)).unwrap_err();
            assert!(
                matches!(error, PduError::Json(_)),
                "{version} {number}: {error}"
            );
        }
        for version in versions(3, 5) {
            assert!(
                Pdu::parse(text(number).as_bytes(), rules(version)).is_ok(),
                "{version} {number}"
            );
        }
    }
    // Also in keys that mean nothing.
    let outside = event("6")
        .to_string()
        .replacen('{', "{\"x\":[{\"y\":0.5}],", 1);
    assert!(Pdu::parse(outside.as_bytes(), rules("6")).is_err());
    assert!(Pdu::parse(outside.as_bytes(), rules("5")).is_ok());
    // But not in what is dropped.
    let unsigned = event("6")
        .to_string()
        .replacen('{', "{\"unsigned\":{\"age\":1},", 1);
    assert!(Pdu::parse(unsigned.as_bytes(), rules("6")).is_ok());
}

#[test]
fn times_of_old_versions_may_be_absurd() {
    let max = 9_007_199_254_740_991_u64;
    for version in versions(1, 5) {
        for (time, expected) in [(json!(-5), 0), (json!(i64::MAX), max), (json!(7), 7)] {
            let pdu = accepts(version, |event| event["origin_server_ts"] = time.clone());
            assert_eq!(u64::from(pdu.origin_server_ts().get()), expected);
        }
        let pdu = accepts(version, |event| event["depth"] = i64::MAX.into());
        assert_eq!(pdu.depth(), i64::MAX as u64);
    }
    for version in versions(6, 12) {
        assert!(
            error(version, |event| event["origin_server_ts"] = (-5).into())
                .contains("not negative")
        );
        assert_eq!(
            accepts(version, |event| event["depth"] = max.into()).depth(),
            max
        );
    }
}

#[test]
fn the_whole_event_is_limited() {
    for version in VERSIONS {
        let base = accepts(version, |event| event["content"]["pad"] = "".into())
            .json()
            .len();
        let padded = |total: usize| {
            let mut event = event(version);
            event["content"]["pad"] = "x".repeat(total - base).into();
            // What is dropped does not count.
            event["unsigned"] = json!({ "invite_room_state": "y".repeat(MAX_EVENT_BYTES) });
            parse(version, &event)
        };
        assert_eq!(
            padded(MAX_EVENT_BYTES).unwrap().json().len(),
            MAX_EVENT_BYTES
        );
        assert_eq!(
            padded(MAX_EVENT_BYTES + 1).unwrap_err(),
            PduError::TooLarge(MAX_EVENT_BYTES + 1)
        );
    }
    let spaces = vec![b' '; 2 << 20];
    assert!(Pdu::parse(&spaces, rules("12")).unwrap_err().is_too_large());
}

#[test]
fn the_room_is_named_by_its_create_event_since_version_12() {
    let create = |event: &mut Json| {
        event["type"] = "m.room.create".into();
        event["state_key"] = "".into();
    };
    for version in versions(1, 11) {
        assert_eq!(accepts(version, create).room_id(), "!r:a");
        let missing = error(version, |event| {
            create(event);
            event.as_object_mut().unwrap().remove("room_id");
        });
        assert_eq!(missing, "the field `room_id` is missing");
    }
    let pdu = accepts("12", |event| {
        create(event);
        event.as_object_mut().unwrap().remove("room_id");
    });
    assert_eq!(pdu.room_id().as_str()[1..], pdu.event_id().as_str()[1..]);
    assert_eq!(
        rules("12").implied_create_event(pdu.room_id()).unwrap(),
        pdu.event_id()
    );
    assert_eq!(ruma::state_res::Event::room_id(&pdu), None);
    assert!(error("12", create).contains("must not have one"));
    let keyed = error("12", |event| {
        create(event);
        event["state_key"] = "x".into();
        event.as_object_mut().unwrap().remove("room_id");
    });
    assert!(keyed.contains("`state_key` is invalid"), "{keyed}");
    let listed = error("12", |event| {
        event["room_id"] = pdu.room_id().as_str().into();
        event["auth_events"] = json!([pdu.event_id()]);
    });
    assert!(
        listed.contains("the m.room.create event must not be listed"),
        "{listed}"
    );
    let pdu = accepts("11", |event| event["room_id"] = "!r".into());
    assert_eq!(rules("11").implied_create_event(pdu.room_id()), None);
}

#[test]
fn redactions_name_their_target_where_the_version_wants_it() {
    let redaction = |event: &mut Json| {
        event["type"] = "m.room.redaction".into();
        event["redacts"] = "$top:a".into();
        event["content"] = json!({ "redacts": "$inside:a" });
    };
    for version in VERSIONS {
        let pdu = accepts(version, redaction);
        let inside = ["11", "12"].contains(&version);
        assert_eq!(
            pdu.redacts().unwrap(),
            if inside { "$inside:a" } else { "$top:a" }
        );
        for odd in [json!(1), json!("x"), json!(format!("${}", "x".repeat(255)))] {
            let pdu = accepts(version, |event| {
                redaction(event);
                event["redacts"] = odd.clone();
                event["content"]["redacts"] = odd.clone();
            });
            assert_eq!(pdu.redacts(), None, "{version} {odd}");
        }
        let other = accepts(version, |event| event["redacts"] = "$top:a".into());
        assert_eq!(other.redacts(), None);
    }
}

#[test]
fn what_is_no_object_is_no_event() {
    for text in ["[]", "null", "1", "\"x\""] {
        assert_eq!(
            Pdu::parse(text.as_bytes(), rules("12")).unwrap_err(),
            PduError::NotAnObject
        );
    }
    let error = Pdu::parse(b"{", rules("12")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the event is not valid JSON: "),
        "{error}"
    );
    assert!(!error.is_too_large());
}

#[test]
fn the_content_is_where_the_span_says() {
    for version in VERSIONS {
        let pdu = accepts(version, |event| {
            event["content"] = json!({ "b": [1, { "}": "\"" }], "a": "é\n" });
            event["zzz"] = json!({ "content": 1 });
        });
        let expected = r#"{"a":"é\n","b":[1,{"}":"\""}]}"#;
        assert_eq!(pdu.content_bytes(), expected.as_bytes());
        assert_eq!(pdu.content().get(), expected);
        let span = pdu.content_span();
        assert_eq!(
            &pdu.json()[span.start as usize..span.end as usize],
            expected.as_bytes()
        );
        assert_eq!(pdu.content_string("a").unwrap(), "é\n");

        let again = Pdu::from_stored(
            pdu.event_id().to_owned(),
            pdu.json().clone(),
            rules(version),
            true,
        )
        .unwrap();
        assert!(again.rejected() && !pdu.rejected());
        assert_eq!(again.content_span(), span);
        assert_eq!(again.sender(), pdu.sender());
    }
}
