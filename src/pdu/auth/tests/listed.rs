//! Rules 1 and 2: `m.room.create` events, and what events list as their auth events.

use ruma::EventId;
use serde_json::{Value as Json, json};

use super::{ADMIN, CREATOR, MOD, USER, member, room};
use crate::{
    Pdu,
    auth::check_auth_without_state,
    fixture_tests::{Make, Room, VERSIONS, rules, spec_key, versions},
};

fn check_create(
    version: &str,
    creator: &str,
    change: impl Fn(&mut crate::Draft),
) -> Result<(), String> {
    let mut draft = Room::draft_create(version, creator, &json!({ "creator": creator }));
    change(&mut draft);
    let pdu = draft
        .sign(rules(version), &spec_key(), ruma::server_name!("a"))
        .unwrap();
    check_auth_without_state(&pdu, rules(version), |_| None::<&Pdu>)
        .map_err(|e| e.reason().to_owned())
}

fn content(json: &Json) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(json).unwrap()
}

#[test]
fn create_events() {
    for version in VERSIONS {
        assert_eq!(check_create(version, CREATOR, |_| {}), Ok(()), "{version}");
        let previous = if rules(version).has_event_id_field() {
            "$e:a"
        } else {
            "$e"
        };
        let refused = check_create(version, CREATOR, |draft| {
            draft.prev_events = vec![EventId::parse(previous).unwrap()];
        });
        assert!(refused.unwrap_err().contains("previous events"));
        for (room_version, known) in [
            (json!("1"), true),
            (json!("12"), true),
            (json!("99"), false),
            (json!(1), false),
        ] {
            let verdict = check_create(version, CREATOR, |draft| {
                draft.content =
                    content(&json!({ "creator": CREATOR, "room_version": room_version }));
            });
            assert_eq!(verdict.is_ok(), known, "{version} {room_version}");
        }
    }
}

#[test]
fn create_events_belong_to_the_server_of_the_room_id() {
    for version in versions(1, 11) {
        let refused = check_create(version, "@creator:b", |_| {});
        assert!(
            refused.unwrap_err().contains("not of the server"),
            "{version}"
        );
        let refused = check_create(version, CREATOR, |draft| {
            draft.room_id = Some(ruma::RoomId::parse("!no-server").unwrap());
        });
        assert!(
            refused.unwrap_err().contains("not of the server"),
            "{version}"
        );
    }
    assert_eq!(check_create("12", "@creator:b", |_| {}), Ok(()));
}

#[test]
fn create_events_name_their_creator_up_to_version_10() {
    for version in VERSIONS {
        let verdict = check_create(version, CREATOR, |draft| {
            draft.content = content(&json!({}))
        });
        assert_eq!(
            verdict.is_ok(),
            ["11", "12"].contains(&version),
            "{version}"
        );
    }
}

#[test]
fn additional_creators_are_user_ids_since_version_12() {
    let long = format!("@{}:a", "x".repeat(253));
    for (creators, valid) in [
        (json!([]), true),
        (json!([ADMIN, "@Histori cal:b"]), true),
        (json!(ADMIN), false),
        (json!(null), false),
        (json!({}), false),
        (json!([ADMIN, 1]), false),
        (json!(["admin:a"]), false),
        (json!(["@admin"]), false),
        (json!(["@admin:"]), false),
        (json!([long]), false),
    ] {
        for version in VERSIONS {
            let verdict = check_create(version, CREATOR, |draft| {
                draft.content =
                    content(&json!({ "creator": CREATOR, "additional_creators": creators }));
            });
            assert_eq!(
                verdict.is_ok(),
                valid || version != "12",
                "{version} {creators}"
            );
        }
    }
}

/// A message of the user in a room, with other auth events than it should have.
fn with_auth_events(
    room: &Room,
    change: impl Fn(&mut Vec<ruma::OwnedEventId>),
) -> Result<(), String> {
    let mut draft = room.draft(&Make::message(USER, "m.room.message", json!({})));
    change(&mut draft.auth_events);
    let pdu = draft
        .sign(room.rules, &spec_key(), ruma::server_name!("b"))
        .unwrap();
    room.check_without_state(&pdu)
        .map_err(|e| e.reason().to_owned())
}

#[test]
fn auth_events_are_those_selected() {
    for version in VERSIONS {
        let mut room = room(version);
        room.put_state(ADMIN, "m.room.topic", "", json!({}));
        let id = |room: &Room, event_type: &str, key: &str| {
            room.find(&event_type.into(), key)
                .unwrap()
                .event_id()
                .to_owned()
        };
        assert_eq!(with_auth_events(&room, |_| {}), Ok(()), "{version}");

        let again = id(&room, "m.room.member", USER);
        let refused = with_auth_events(&room, |ids| ids.push(again.clone())).unwrap_err();
        assert!(refused.contains("more than one"), "{version}: {refused}");

        for (event_type, key) in [
            ("m.room.join_rules", ""),
            ("m.room.member", MOD),
            ("m.room.topic", ""),
        ] {
            let odd = id(&room, event_type, key);
            let refused = with_auth_events(&room, |ids| ids.push(odd.clone())).unwrap_err();
            assert!(refused.contains("does not belong"), "{version}: {refused}");
        }

        let unknown = if room.rules.has_event_id_field() {
            "$unknown:a"
        } else {
            "$unknown"
        };
        let refused =
            with_auth_events(&room, |ids| ids.push(EventId::parse(unknown).unwrap())).unwrap_err();
        assert!(refused.contains("is not known"), "{version}: {refused}");
    }
}

#[test]
fn auth_events_are_state_events_of_the_same_room() {
    for version in VERSIONS {
        let here = room(version);
        let elsewhere = Room::with_create(version, "@other:a", &json!({ "creator": "@other:a" }));
        let stranger = elsewhere.make(&member(USER, USER, "join"));
        let mut draft = here.draft(&Make::message(USER, "m.room.message", json!({})));
        let message = here.make(&Make::message(USER, "m.room.member", json!({})));
        if version != "12" {
            // The rooms of this fixture have one ID.
            draft.room_id = Some(ruma::RoomId::parse("!elsewhere:a").unwrap());
        }
        for (odd, reason) in [(&stranger, "another room"), (&message, "no state event")] {
            let mut draft = draft.clone();
            draft.auth_events = vec![odd.event_id().to_owned()];
            if reason == "no state event" {
                draft.room_id = Some(here.room_id());
            }
            let pdu = draft
                .sign(here.rules, &spec_key(), ruma::server_name!("b"))
                .unwrap();
            let verdict = check_auth_without_state(&pdu, here.rules, |id| {
                [odd, &here.create]
                    .into_iter()
                    .find(|event| event.event_id() == id)
            });
            assert!(verdict.unwrap_err().reason().contains(reason), "{version}");
        }
    }
}

#[test]
fn rejected_auth_events_reject() {
    for version in VERSIONS {
        let room = room(version);
        let pdu = room.make(&Make::message(USER, "m.room.message", json!({})));
        for rejected in pdu
            .auth_events()
            .iter()
            .map(|id| &**id)
            .chain([room.create.event_id()])
        {
            let verdict = check_auth_without_state(&pdu, room.rules, |id| {
                let known = room
                    .state
                    .values()
                    .chain([&room.create])
                    .find(|e| e.event_id() == id)?;
                let mut event = Pdu::clone(known);
                event.set_rejected(id == rejected);
                Some(event)
            });
            assert!(
                verdict.unwrap_err().reason().contains("was rejected"),
                "{version}"
            );
        }
    }
}

#[test]
fn the_create_event_is_listed_up_to_version_11_and_implied_since() {
    for version in versions(1, 11) {
        let room = room(version);
        let create = room.create.event_id();
        let refused = with_auth_events(&room, |ids| ids.retain(|id| id != create)).unwrap_err();
        assert!(
            refused.contains("m.room.create event is not among"),
            "{version}: {refused}"
        );
    }
    let room = room("12");
    let pdu = room.make(&Make::message(USER, "m.room.message", json!({})));
    let unknown = check_auth_without_state(&pdu, room.rules, |id| {
        room.state
            .values()
            .find(|event| event.event_id() == id)
            .cloned()
    });
    assert!(
        unknown
            .unwrap_err()
            .reason()
            .contains("create event is not known")
    );
    // The room ID names an event of another type.
    let message = room.make(&Make::message(USER, "m.room.message", json!({})));
    let mut draft = room.draft(&Make::message(USER, "m.room.message", json!({})));
    draft.auth_events.clear();
    let id = format!(
        "!{}",
        message.event_id().as_str().strip_prefix('$').unwrap()
    );
    draft.room_id = Some(ruma::RoomId::parse(id).unwrap());
    let pdu = draft
        .sign(room.rules, &spec_key(), ruma::server_name!("b"))
        .unwrap();
    let verdict = check_auth_without_state(&pdu, room.rules, |_| Some(&message));
    assert!(
        verdict
            .unwrap_err()
            .reason()
            .contains("does not name an m.room.create")
    );
}
