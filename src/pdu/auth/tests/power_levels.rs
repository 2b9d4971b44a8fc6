//! Rule 10: `m.room.power_levels`.

use serde_json::{Value as Json, json};

use super::{ADMIN, CREATOR, MOD, USER, allows, levels, member, refuses, room, room_with};
use crate::fixture_tests::{Make, Room, VERSIONS, versions};

#[test]
fn power_levels_are_integers_since_version_10() {
    let fields = [
        "users_default",
        "events_default",
        "state_default",
        "ban",
        "redact",
        "kick",
        "invite",
    ];
    for version in VERSIONS {
        let number: u32 = version.parse().unwrap();
        let mut first = room(version);
        first
            .state
            .remove(&("m.room.power_levels".into(), String::new()));
        for field in fields {
            for (value, valid) in [
                (json!(5), true),
                (json!("5"), number < 10),
                (json!(null), number < 10),
                (json!([]), number < 10),
            ] {
                let verdict = first.check_made(&levels(CREATOR, json!({ field: value })));
                assert_eq!(
                    verdict.is_ok(),
                    valid,
                    "{version} {field} {value} {verdict:?}"
                );
            }
        }
        for map in ["events", "notifications"] {
            for (value, valid) in [
                (json!({ "x": 5 }), true),
                (json!({ "x": "5" }), number < 10),
                (json!(1), number < 10),
            ] {
                let verdict = first.check_made(&levels(CREATOR, json!({ map: value })));
                assert_eq!(
                    verdict.is_ok(),
                    valid,
                    "{version} {map} {value} {verdict:?}"
                );
            }
        }
        for (users, valid) in [
            (json!({ USER: 5 }), true),
            (json!({}), true),
            (json!({ USER: "5" }), number < 10),
            (json!({ USER: " -5 " }), number < 10),
            (json!({ USER: "+05" }), number < 10),
            (json!({ USER: "5.0" }), false),
            (json!({ USER: "" }), false),
            (json!({ USER: "+" }), false),
            (json!({ USER: "--5" }), false),
            (json!({ USER: true }), false),
            (json!({ USER: [] }), false),
            (json!({ "nobody": 5 }), false),
            (json!({ "@nobody": 5 }), false),
            (json!([]), false),
            (json!(1), false),
        ] {
            let verdict = first.check_made(&levels(CREATOR, json!({ "users": users })));
            assert_eq!(verdict.is_ok(), valid, "{version} {users} {verdict:?}");
        }
    }
}

#[test]
fn stringy_and_broken_levels_count() {
    for version in versions(1, 9) {
        let room = room_with(
            version,
            &json!({ "users": { USER: " +0050 " }, "state_default": "50", "events": { "x": "-1" } }),
        );
        allows(&room, &Make::state(USER, "m.room.topic", "", json!({})));
        allows(&room, &Make::message(MOD, "x", json!({})));
    }
    // Fractions only where the JSON may hold them.
    for version in versions(1, 5) {
        let room = room_with(
            version,
            &json!({ "users": { USER: 50.57, MOD: 49.9 }, "state_default": 50.3 }),
        );
        allows(&room, &Make::state(USER, "m.room.topic", "", json!({})));
        refuses(
            &room,
            &Make::state(MOD, "m.room.topic", "", json!({})),
            "needs power level 50, @mod:b has 49",
        );
        let huge: Json = serde_json::from_str(
            r#"{"users": {"@user:b": 1e300, "@mod:b": 99999999999999999999}}"#,
        )
        .unwrap();
        let room = room_with(version, &huge);
        allows(&room, &Make::state(USER, "m.room.topic", "", json!({})));
        allows(&room, &Make::state(MOD, "m.room.topic", "", json!({})));
    }
    for version in versions(6, 12) {
        let make = levels(CREATOR, json!({ "ban": 50.5 }));
        let error = room(version).try_make(&make).unwrap_err();
        assert!(
            error.to_string().contains("numbers must be integers"),
            "{error}"
        );
    }
    // What nobody can read allows nothing.
    for version in versions(1, 9) {
        let room = room_with(version, &json!({ "state_default": "many", "kick": "x" }));
        refuses(
            &room,
            &Make::state(CREATOR, "m.room.topic", "", json!({})),
            "malformed",
        );
        refuses(&room, &member(CREATOR, USER, "leave"), "malformed");
    }
}

#[test]
fn creators_have_no_level_since_version_12() {
    let create = json!({ "additional_creators": [ADMIN] });
    let mut room = Room::with_create("12", CREATOR, &create);
    for user in [CREATOR, ADMIN, MOD, USER] {
        room.put_member(user, "join");
    }
    for creator in [CREATOR, ADMIN] {
        refuses(
            &room,
            &levels(CREATOR, json!({ "users": { creator: 100 } })),
            "is a creator",
        );
    }
    allows(
        &room,
        &levels(ADMIN, json!({ "users": { MOD: 9007199254740991_i64 } })),
    );
    room.put_state(
        CREATOR,
        "m.room.power_levels",
        "",
        json!({ "users": { MOD: 9007199254740991_i64 }, "ban": 9007199254740991_i64 }),
    );
    for creator in [CREATOR, ADMIN] {
        allows(&room, &member(creator, MOD, "ban"));
        refuses(&room, &member(MOD, creator, "ban"), "may not ban");
    }
    refuses(&room, &member(CREATOR, ADMIN, "leave"), "may not remove");
    // Before, `additional_creators` means nothing.
    for version in versions(1, 11) {
        let create = json!({ "creator": CREATOR, "additional_creators": [ADMIN] });
        let mut room = Room::with_create(version, CREATOR, &create);
        for user in [CREATOR, ADMIN] {
            room.put_member(user, "join");
        }
        refuses(
            &room,
            &Make::state(ADMIN, "m.room.topic", "", json!({})),
            "needs power level 50",
        );
        allows(
            &room,
            &levels(CREATOR, json!({ "users": { CREATOR: 100, ADMIN: 100 } })),
        );
    }
}

/// The levels of a [`room`] after a change by a sender with 50.
fn changed(version: &str, change: impl Fn(&mut Json)) -> Result<(), String> {
    let extra = json!({
        "events": { "m.room.power_levels": 50, "high": 60, "low": 10 },
        "notifications": { "high": 60, "low": 10 },
        "ban": 60, "kick": 40, "events_default": 0,
    });
    let mut room = room_with(version, &extra);
    let current = room.find(&"m.room.power_levels".into(), "").unwrap();
    let mut content: Json = serde_json::from_slice(current.content_bytes()).unwrap();
    content["users"]["@peer:b"] = 50.into();
    content["users"]["@weak:b"] = 10.into();
    room.put_state(CREATOR, "m.room.power_levels", "", content.clone());
    change(&mut content);
    room.check_made(&levels(MOD, content))
        .map_err(|e| e.reason().to_owned())
}

#[test]
fn levels_up_to_ones_own_can_be_changed() {
    for version in VERSIONS {
        for (field, value, expected) in [
            ("kick", json!(30), true),
            ("kick", json!(50), true),
            ("kick", json!(51), false),
            ("ban", json!(50), false),
            ("ban", json!(60), true),
            ("redact", json!(50), true),
            ("redact", json!(51), false),
            ("users_default", json!(50), true),
            ("users_default", json!(51), false),
            ("events_default", json!(51), false),
            ("state_default", json!(51), false),
            ("state_default", json!(0), true),
            ("invite", json!(51), false),
        ] {
            let verdict = changed(version, |content| content[field] = value.clone());
            assert_eq!(
                verdict.is_ok(),
                expected,
                "{version} {field} {value} {verdict:?}"
            );
        }
        for (field, expected) in [("kick", true), ("ban", false)] {
            let verdict = changed(version, |content| {
                content.as_object_mut().unwrap().remove(field);
            });
            assert_eq!(
                verdict.is_ok(),
                expected,
                "{version} without {field}: {verdict:?}"
            );
        }
    }
}

#[test]
fn entries_up_to_ones_own_level_can_be_changed() {
    for version in VERSIONS {
        let number: u32 = version.parse().unwrap();
        for field in ["events", "notifications"] {
            // Nobody looked at notifications before version 6.
            let free = field == "notifications" && number < 6;
            for (key, value, expected) in [
                ("low", Some(50), true),
                ("low", Some(51), false),
                ("low", None, true),
                ("high", Some(50), false),
                ("high", Some(60), true),
                ("high", None, false),
                ("new", Some(50), true),
                ("new", Some(51), false),
            ] {
                let verdict = changed(version, |content| match value {
                    Some(value) => content[field][key] = value.into(),
                    None => drop(content[field].as_object_mut().unwrap().remove(key)),
                });
                assert_eq!(
                    verdict.is_ok(),
                    free || expected,
                    "{version} {field} {key} {value:?} {verdict:?}"
                );
            }
        }
    }
}

#[test]
fn users_below_oneself_can_be_changed() {
    for version in VERSIONS {
        for (user, value, expected) in [
            ("@new:b", Some(50), true),
            ("@new:b", Some(51), false),
            ("@weak:b", Some(50), true),
            ("@weak:b", Some(51), false),
            ("@weak:b", None, true),
            ("@peer:b", Some(49), false),
            ("@peer:b", None, false),
            ("@peer:b", Some(50), true),
            (ADMIN, Some(50), false),
            (ADMIN, None, false),
            (MOD, Some(0), true),
            (MOD, None, true),
            (MOD, Some(51), false),
        ] {
            let verdict = changed(version, |content| match value {
                Some(value) => content["users"][user] = value.into(),
                None => drop(content["users"].as_object_mut().unwrap().remove(user)),
            });
            assert_eq!(
                verdict.is_ok(),
                expected,
                "{version} {user} {value:?} {verdict:?}"
            );
        }
    }
}
