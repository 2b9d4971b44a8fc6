//! The authorisation rules, one by one: each allows and each refuses something, in every version that has it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod listed;
mod member;
mod power_levels;

use ruma::EventId;
use serde_json::{Value as Json, json};

use crate::{
    PowerLevels, RoomRules,
    fixture_tests::{Make, Room, VERSIONS, rules, versions},
    membership_of, redaction_applies,
};

const CREATOR: &str = "@creator:a";
const ADMIN: &str = "@admin:a";
const MOD: &str = "@mod:b";
const USER: &str = "@user:b";
const OUTSIDER: &str = "@outsider:c";

/// A room with a creator (100 or infinite), an admin (100), a moderator (50), a user (0), and an outsider.
fn room(version: &str) -> Room {
    room_with(version, &json!({}))
}

/// The same with further power levels.
fn room_with(version: &str, extra: &Json) -> Room {
    let mut room = Room::new(version);
    for user in [CREATOR, ADMIN, MOD, USER] {
        room.put_member(user, "join");
    }
    let mut levels = json!({ "users": { ADMIN: 100, MOD: 50 }, "invite": 50, "state_default": 50 });
    if version != "12" {
        levels["users"][CREATOR] = 100.into();
    }
    for (key, value) in extra.as_object().unwrap() {
        levels[key] = value.clone();
    }
    room.put_state(CREATOR, "m.room.power_levels", "", levels);
    room.put_state(
        CREATOR,
        "m.room.join_rules",
        "",
        json!({ "join_rule": "invite" }),
    );
    room
}

#[track_caller]
fn allows(room: &Room, make: &Make) {
    if let Err(error) = room.check_made(make) {
        panic!("version {}: {error}", room.rules.version());
    }
}

/// Refused, and for that reason.
#[track_caller]
fn refuses(room: &Room, make: &Make, reason: &str) {
    let version = room.rules.version();
    let error = room.check_made(make).expect_err(version);
    assert!(
        error.reason().contains(reason),
        "version {version}: {error}"
    );
}

fn member(sender: &str, target: &str, membership: &str) -> Make {
    Make::state(
        sender,
        "m.room.member",
        target,
        json!({ "membership": membership }),
    )
}

fn levels(sender: &str, content: Json) -> Make {
    Make::state(sender, "m.room.power_levels", "", content)
}

// Rule 3: m.federate.

#[test]
fn rooms_that_do_not_federate_are_for_one_server() {
    for version in VERSIONS {
        for (federate, open) in [(Some(true), true), (None, true), (Some(false), false)] {
            let mut create = json!({ "creator": CREATOR });
            if let Some(federate) = federate {
                create["m.federate"] = federate.into();
            }
            let mut room = Room::with_create(version, CREATOR, &create);
            for user in [CREATOR, USER] {
                room.put_member(user, "join");
            }
            let foreign = Make::message(USER, "m.room.message", json!({}));
            let local = Make::message(CREATOR, "m.room.message", json!({}));
            let invite = member(CREATOR, OUTSIDER, "invite");
            allows(&room, &local);
            if open {
                allows(&room, &foreign);
                allows(&room, &invite);
            } else {
                refuses(&room, &foreign, "not open to b");
                refuses(&room, &invite, "not open to c");
            }
        }
    }
}

// Rule 4 of versions 1 to 5: m.room.aliases.

#[test]
fn aliases_are_special_up_to_version_5() {
    let aliases =
        |sender: &str, server: &str| Make::state(sender, "m.room.aliases", server, json!({}));
    for version in versions(1, 5) {
        let room = room(version);
        // Not even membership or power is needed.
        allows(&room, &aliases(OUTSIDER, "c"));
        refuses(
            &room,
            &aliases(OUTSIDER, "b"),
            "must be the sender's server",
        );
        refuses(&room, &aliases(CREATOR, ""), "must be the sender's server");
        refuses(
            &room,
            &Make::message(CREATOR, "m.room.aliases", json!({})),
            "must be the sender's server",
        );
    }
    for version in versions(6, 12) {
        let room = room(version);
        refuses(&room, &aliases(OUTSIDER, "c"), "is not in the room");
        refuses(&room, &aliases(USER, "b"), "needs power level 50");
        allows(&room, &aliases(MOD, "anything"));
    }
}

// Rules 6 to 9.

#[test]
fn senders_are_members() {
    for version in VERSIONS {
        let mut room = room(version);
        let message = Make::message(USER, "m.room.message", json!({}));
        allows(&room, &message);
        for membership in ["leave", "invite", "ban", "knock"] {
            room.put_member(USER, membership);
            refuses(&room, &message, "is not in the room");
        }
    }
}

#[test]
fn third_party_invite_events_need_the_invite_level_only() {
    for version in VERSIONS {
        let make = |sender: &str| Make::state(sender, "m.room.third_party_invite", "t", json!({}));
        let room = room_with(
            version,
            &json!({ "events": { "m.room.third_party_invite": 100 } }),
        );
        allows(&room, &make(MOD));
        refuses(&room, &make(USER), "may not invite");
    }
}

#[test]
fn events_need_the_level_of_their_type() {
    for version in VERSIONS {
        let extra =
            json!({ "events": { "a": 50, "b": 0 }, "events_default": 10, "state_default": 60 });
        let mut room = room_with(version, &extra);
        for (event_type, state_key, user, moderator) in [
            ("a", None, false, true),
            ("a", Some(""), false, true),
            ("b", None, true, true),
            ("b", Some(""), true, true),
            ("c", None, false, true),
            ("c", Some(""), false, false),
        ] {
            for (sender, expected) in [
                (USER, user),
                (MOD, moderator),
                (ADMIN, true),
                (CREATOR, true),
            ] {
                let state_key = state_key.map(str::to_owned);
                let make = Make {
                    state_key,
                    ..Make::message(sender, event_type, json!({}))
                };
                let verdict = room.check_made(&make);
                assert_eq!(
                    verdict.is_ok(),
                    expected,
                    "{version} {sender} {event_type} {verdict:?}"
                );
            }
        }
        // Without power levels everybody may send messages, and the creator, who has 100, state.
        room.state
            .remove(&("m.room.power_levels".into(), String::new()));
        allows(&room, &Make::message(USER, "c", json!({})));
        refuses(
            &room,
            &Make::state(USER, "c", "", json!({})),
            "needs power level 50",
        );
        allows(&room, &Make::state(CREATOR, "c", "", json!({})));
    }
}

#[test]
fn state_keys_that_are_user_ids_are_theirs() {
    for version in VERSIONS {
        let room = room_with(version, &json!({ "state_default": 0 }));
        allows(&room, &Make::state(USER, "s", USER, json!({})));
        allows(&room, &Make::state(USER, "s", "x@admin:a", json!({})));
        for key in [ADMIN, "@", "@user:b_x", "@odd"] {
            refuses(
                &room,
                &Make::state(USER, "s", key, json!({})),
                "another user's",
            );
        }
        refuses(
            &room,
            &Make::state(CREATOR, "s", USER, json!({})),
            "another user's",
        );
    }
}

#[test]
fn owned_state_of_msc3757() {
    for version in ["org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
        let room = room_with(version, &json!({ "state_default": 0 }));
        let set = |sender: &str, key: &str| Make::state(sender, "s", key, json!({}));
        for key in [USER, "@user:b_", "@user:b_x", "@user:b_x_y"] {
            allows(&room, &set(USER, key));
            allows(&room, &set(MOD, key));
        }
        allows(&room, &set(USER, "x"));
        refuses(&room, &set(USER, "@mod:b_x"), "another user's");
        refuses(&room, &set(ADMIN, "@creator:a_x"), "another user's");
        for key in [
            "@",
            "@user",
            "@user_x",
            "@user:_x",
            "@user:b-_",
            "@user:b x",
        ] {
            assert!(room.check_made(&set(USER, key)).is_err(), "{key}");
        }
    }
}

// Rule 11 of versions 1 and 2: m.room.redaction, and who may redact since.

#[test]
fn redactions_are_special_up_to_version_2() {
    let redaction = |sender: &str, target: Option<&str>| Make {
        redacts: target.map(|id| EventId::parse(id).unwrap()),
        ..Make::message(sender, "m.room.redaction", json!({}))
    };
    for version in versions(1, 2) {
        let room = room(version);
        allows(&room, &redaction(MOD, Some("$x:c")));
        allows(&room, &redaction(USER, Some("$x:b")));
        refuses(&room, &redaction(USER, Some("$x:c")), "may not redact");
        refuses(&room, &redaction(USER, None), "may not redact");
    }
    for version in versions(3, 12) {
        allows(&room(version), &redaction(USER, Some("$x")));
        let room = room_with(version, &json!({ "events": { "m.room.redaction": 50 } }));
        refuses(&room, &redaction(USER, Some("$x")), "needs power level 50");
    }
}

#[test]
fn redactions_apply_to_events_of_the_same_server_or_with_power() {
    for version in VERSIONS {
        let room = room(version);
        let target = room.make(&Make::message("@author:c", "m.room.message", json!({})));
        let power_levels = room.find(&"m.room.power_levels".into(), "").unwrap();
        let power = PowerLevels::new(room.rules, &room.create, Some(&power_levels));
        let applies = |sender: &str, id: &EventId| {
            let redaction = Make {
                redacts: Some(id.to_owned()),
                ..Make::message(sender, "m.room.redaction", json!({}))
            };
            redaction_applies(&room.make(&redaction), &target, room.rules, &power).unwrap()
        };
        assert!(applies(MOD, target.event_id()));
        assert!(applies("@friend:c", target.event_id()));
        // Versions 1 and 2 have asked that when they accepted the redaction.
        assert_eq!(
            applies(USER, target.event_id()),
            ["1", "2"].contains(&version)
        );
        assert!(!applies(MOD, room.create.event_id()));
    }
}

#[test]
fn state_is_read_leniently() {
    let room = room("11");
    let event = |content: Json| room.make(&Make::state(USER, "m.room.member", USER, content));
    use ruma::events::room::member::MembershipState::{Ban, Leave};
    assert_eq!(membership_of(None), Leave);
    assert_eq!(
        membership_of(Some(&event(json!({ "membership": 1 })))),
        Leave
    );
    assert_eq!(
        membership_of(Some(&event(json!({ "membership": "ban" })))),
        Ban
    );
    use ruma::events::room::history_visibility::HistoryVisibility as Visibility;
    let visibility = |value: Json| {
        crate::history_visibility_of(Some(&event(json!({ "history_visibility": value }))))
    };
    assert_eq!(crate::history_visibility_of(None), Visibility::Shared);
    assert_eq!(visibility(json!("odd")), Visibility::Shared);
    assert_eq!(visibility(json!(["joined"])), Visibility::Shared);
    assert_eq!(visibility(json!("joined")), Visibility::Joined);
    assert_eq!(visibility(json!("invited")), Visibility::Invited);
    assert_eq!(
        visibility(json!("world_readable")),
        Visibility::WorldReadable
    );
    assert_eq!(visibility(json!("shared")), Visibility::Shared);
}

#[test]
fn notifying_has_levels_too() {
    let room = room_with("11", &json!({ "notifications": { "room": 20 } }));
    let event = room.find(&"m.room.power_levels".into(), "").unwrap();
    let power = PowerLevels::new(room.rules, &room.create, Some(&event));
    assert_eq!(power.to_notify("room").unwrap(), 20);
    assert_eq!(power.to_notify("other").unwrap(), 50);
    assert_eq!(
        PowerLevels::new(room.rules, &room.create, None)
            .to_notify("room")
            .unwrap(),
        50
    );
}

#[test]
fn all_versions_are_known() {
    for version in VERSIONS {
        let id = ruma::RoomVersionId::try_from(version).unwrap();
        let rules = RoomRules::of(&id).unwrap();
        assert!(rules.is_stable());
        assert_eq!(rules.version_id(), id);
    }
    assert_eq!(
        RoomRules::all().filter(|rules| rules.is_stable()).count(),
        12
    );
    assert!(!rules("org.matrix.msc3757.10").is_stable());
    assert!(RoomRules::named("13").is_none());
    assert!(RoomRules::named("").is_none());
}
