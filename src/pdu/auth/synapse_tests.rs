//! Our auth rules answer what Synapse's do, see `testdata/synapse_auth.py`, and nearly always what Ruma's do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::{EventId, events::StateEventType};
use serde_json::Value as Json;

use crate::fixture_tests::{Make, Room};

const RECORDED: &str = include_str!("../testdata/synapse_auth.json");

fn make(row: &Json) -> Make {
    let text = |at: usize| row[at].as_str().unwrap();
    Make {
        state_key: row[2].as_str().map(str::to_owned),
        redacts: row[3]["redacts"]
            .as_str()
            .map(|id| EventId::parse(id).unwrap()),
        ..Make::message(text(0), text(1), row[3].clone())
    }
}

/// Calls `check` with each recorded room, event of it, and whether Synapse allows that.
fn each_recorded(mut check: impl FnMut(&Room, &Make, bool, &Json)) {
    let recorded: Json = serde_json::from_str(RECORDED).unwrap();
    for recorded_room in recorded["rooms"].as_array().unwrap() {
        let version = recorded_room["version"].as_str().unwrap();
        let rows = recorded_room["state"].as_array().unwrap();
        let mut room = Room::with_create(version, "@creator:a", &rows[0][3]);
        for row in &rows[1..] {
            room.put(&make(row));
        }
        for row in recorded_room["events"].as_array().unwrap() {
            let mut event = make(row);
            let other = EventId::parse("$other:a").unwrap();
            let create = room.create.event_id();
            let prev = row[4].as_array().unwrap().iter();
            let prev = prev.map(|p| {
                if p == "create" {
                    create.to_owned()
                } else {
                    other.clone()
                }
            });
            event.prev_events = Some(prev.collect());
            check(&room, &event, row[5].as_bool().unwrap(), row);
        }
    }
}

#[test]
fn synapse_agrees() {
    let (mut allowed, mut refused) = (0, 0);
    each_recorded(|room, event, expected, row| {
        let version = room.rules.version();
        let verdict = room.check_made(event);
        assert_eq!(
            verdict.is_ok(),
            expected,
            "version {version}: {row}: {verdict:?}"
        );
        if expected { allowed += 1 } else { refused += 1 }
    });
    assert!(
        allowed > 500 && refused > 2000,
        "{allowed} allowed, {refused} refused"
    );
}

/// Where Ruma's rules answer otherwise than Synapse's and ours, as far as the random rooms know.
fn ruma_differs(room: &Room, row: &Json) -> bool {
    let no_join_rules = room.find(&"m.room.join_rules".into(), "").is_none();
    let closed = room.create.content_member("m.federate") == Some(b"false");
    match row[1].as_str().unwrap() {
        // A room without join rules is like one for the invited for us, closed to all for Ruma; and what
        // an event is about is no matter to it in rooms for one server.
        "m.room.member" => no_join_rules || closed,
        // Ruma looks at the default of a level that is added or removed.
        "m.room.power_levels" => true,
        _ => false,
    }
}

#[test]
fn ruma_agrees_since_version_6() {
    let (mut compared, mut differing) = (0, 0);
    each_recorded(|room, event, expected, row| {
        let rules = room.rules;
        if !rules.authorization.strict_canonical_json || rules.has_owned_state() {
            return;
        }
        let verdict = ruma::state_res::check_state_dependent_auth_rules(
            &rules.authorization,
            room.make(event),
            |event_type, state_key| match event_type {
                StateEventType::RoomCreate => Some(room.create.clone()),
                _ => room.find(event_type, state_key),
            },
        );
        compared += 1;
        if verdict.is_ok() != expected {
            assert!(
                ruma_differs(room, row),
                "version {}: {row}: {verdict:?}",
                rules.version()
            );
            differing += 1;
        }
    });
    assert!(compared > 2000, "{compared}");
    assert!(differing * 20 < compared, "{differing} of {compared}");
}
