//! A template makes the event that it was made of, but for its time; hostile ones make none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::{EventId, MilliSecondsSinceUnixEpoch, UInt, server_name};
use serde_json::{Value as Json, json};

use super::Draft;
use crate::{
    Pdu, check_content_hash,
    fixture_tests::{Make, Room, VERSIONS, spec_key},
};

const NOW: MilliSecondsSinceUnixEpoch = MilliSecondsSinceUnixEpoch(UInt::MIN);

#[test]
fn a_template_makes_an_event_in_every_version() {
    for version in VERSIONS {
        let room = Room::new(version);
        let join = json!({ "membership": "join" });
        let mut draft = room.draft(&Make::state("@u:b", "m.room.member", "@u:b", join));
        let known = EventId::parse("$known:a").unwrap();
        draft.prev_events = vec![known.clone()];
        draft.reference_hashes.insert(known, [7; 32]);
        let key = spec_key();
        let theirs = draft.sign(room.rules, &key, server_name!("b")).unwrap();
        let template = theirs.template(room.rules, server_name!("a")).unwrap();
        let told: Json = serde_json::from_str(&template).unwrap();
        assert_eq!(told["origin"], "a");
        for key in ["event_id", "hashes", "signatures"] {
            assert!(told.get(key).is_none(), "{key}");
        }
        let made = Draft::of_template(template.as_bytes(), room.rules, NOW).unwrap();
        let made = made.sign(room.rules, &key, server_name!("b")).unwrap();
        let read = Pdu::parse(made.json(), room.rules).unwrap();
        assert!(check_content_hash(&read));
        let (ours, theirs): (Json, Json) = (
            serde_json::from_slice(read.json()).unwrap(),
            serde_json::from_slice(theirs.json()).unwrap(),
        );
        for field in ["room_id", "sender", "type", "state_key", "content", "depth"] {
            assert_eq!(ours[field], theirs[field], "{version}: {field}");
        }
        for field in ["prev_events", "auth_events"] {
            assert_eq!(ours[field], theirs[field], "{version}: {field}");
        }
        assert_eq!(read.origin_server_ts(), NOW);
    }
}

#[test]
fn what_is_no_template_makes_nothing() {
    let room = Room::new("11");
    let whole = json!({
        "room_id": "!room:a", "sender": "@u:b", "type": "m.room.member", "state_key": "@u:b",
        "content": {}, "depth": 3, "prev_events": ["$a"], "auth_events": ["$b"],
    });
    let make = |template: &Json| {
        let text = template.to_string();
        Draft::of_template(text.as_bytes(), room.rules, NOW)
    };
    assert_eq!(make(&whole).unwrap().depth, 3);
    for field in [
        "room_id",
        "sender",
        "type",
        "state_key",
        "content",
        "prev_events",
        "auth_events",
    ] {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field);
        make(&without).unwrap_err();
        if field != "content" {
            let mut wrong = whole.clone();
            wrong[field] = json!(7);
            make(&wrong).unwrap_err();
        }
    }
    let mut many = whole.clone();
    many["prev_events"] = json!(vec!["$a"; 21]);
    make(&many).unwrap_err();
    many["prev_events"] = json!([["$a", 1], [7]]);
    make(&many).unwrap_err();
    let mut deep = whole;
    deep["depth"] = json!(-4);
    assert_eq!(make(&deep).unwrap().depth, 0);
    assert!(Draft::of_template(b"[]", room.rules, NOW).is_err());
}
