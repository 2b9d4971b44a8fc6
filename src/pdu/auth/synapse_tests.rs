//! Our auth rules answer what Synapse's do, see `testdata/synapse_auth.py`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use ruma::EventId;
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

#[test]
fn synapse_agrees() {
    let recorded: Json = serde_json::from_str(RECORDED).unwrap();
    let (mut allowed, mut refused) = (0, 0);
    for recorded_room in recorded["rooms"].as_array().unwrap() {
        let version = recorded_room["version"].as_str().unwrap();
        let rows = recorded_room["state"].as_array().unwrap();
        let mut room = Room::with_create(version, "@creator:a", rows[0][3].clone());
        for row in &rows[1..] {
            room.put(&make(row));
        }
        for row in recorded_room["events"].as_array().unwrap() {
            let mut event = make(row);
            let other = EventId::parse("$other:a").unwrap();
            let prev = row[4].as_array().unwrap().iter();
            let create = room.create.event_id();
            event.prev_events = Some(
                prev.map(|p| {
                    if p == "create" {
                        create.to_owned()
                    } else {
                        other.clone()
                    }
                })
                .collect(),
            );
            let verdict = room.check_made(&event);
            let expected = row[5].as_bool().unwrap();
            assert_eq!(
                verdict.is_ok(),
                expected,
                "version {version}: {row} in {}: {verdict:?}",
                recorded_room["state"]
            );
            if expected { allowed += 1 } else { refused += 1 }
        }
    }
    assert!(
        allowed > 500 && refused > 2000,
        "{allowed} allowed, {refused} refused"
    );
}
