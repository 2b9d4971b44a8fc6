//! Rule 5: `m.room.member`.

use ruma::EventId;
use serde_json::{Value as Json, json};

use super::{ADMIN, CREATOR, MOD, OUTSIDER, USER, allows, member, refuses, room, room_with};
use crate::fixture_tests::{Make, Room, VERSIONS, spec_key, versions};

#[test]
fn member_events_are_well_formed() {
    for version in VERSIONS {
        let room = room(version);
        refuses(
            &room,
            &Make::message(CREATOR, "m.room.member", json!({ "membership": "join" })),
            "state key",
        );
        refuses(
            &room,
            &member(CREATOR, "nobody", "invite"),
            "must be a user ID",
        );
        refuses(
            &room,
            &Make::state(CREATOR, "m.room.member", USER, json!({})),
            "must have a membership",
        );
        refuses(
            &room,
            &Make::state(CREATOR, "m.room.member", USER, json!({ "membership": 1 })),
            "membership",
        );
        refuses(&room, &member(CREATOR, CREATOR, "odd"), "is not known");
    }
}

#[test]
fn the_creator_joins_first() {
    for version in VERSIONS {
        let room = Room::new(version);
        let first = |user: &str, prev: &[&EventId]| Make {
            prev_events: Some(prev.iter().map(|&id| id.to_owned()).collect()),
            ..member(user, user, "join")
        };
        let create = room.create.event_id();
        let other = if room.rules.has_event_id_field() {
            "$o:a"
        } else {
            "$o"
        };
        let other = EventId::parse(other).unwrap();
        allows(&room, &first(CREATOR, &[create]));
        refuses(&room, &first(USER, &[create]), "not invited");
        refuses(&room, &first(CREATOR, &[create, &other]), "not invited");
        refuses(&room, &first(CREATOR, &[&other]), "not invited");
    }
    // The creator is who the content names up to version 10, the sender since.
    for version in VERSIONS {
        let room = Room::with_create(version, CREATOR, &json!({ "creator": ADMIN }));
        let prev_events = Some(vec![room.create.event_id().to_owned()]);
        let named = room.check_made(&Make {
            prev_events: prev_events.clone(),
            ..member(ADMIN, ADMIN, "join")
        });
        let sender = room.check_made(&Make {
            prev_events,
            ..member(CREATOR, CREATOR, "join")
        });
        let by_sender = ["11", "12"].contains(&version);
        assert_eq!(
            (named.is_ok(), sender.is_ok()),
            (!by_sender, by_sender),
            "{version}"
        );
    }
}

/// Which join rules let whom join, in which versions.
#[test]
fn joins() {
    for version in VERSIONS {
        let number: usize = version.parse().unwrap();
        for (rule, rule_since, open) in [
            ("public", 1, true),
            ("invite", 1, false),
            ("knock", 7, false),
            ("restricted", 8, false),
            ("knock_restricted", 10, false),
            ("private", 99, false),
            ("odd", 99, false),
        ] {
            let known = number >= rule_since;
            for membership in [
                None,
                Some("leave"),
                Some("join"),
                Some("invite"),
                Some("ban"),
                Some("knock"),
            ] {
                let mut room = room(version);
                room.put_state(
                    CREATOR,
                    "m.room.join_rules",
                    "",
                    json!({ "join_rule": rule }),
                );
                if let Some(membership) = membership {
                    room.put_member(OUTSIDER, membership);
                }
                let expected = match membership {
                    Some("ban") => false,
                    Some("join" | "invite") => known,
                    _ => known && open,
                };
                let verdict = room.check_made(&member(OUTSIDER, OUTSIDER, "join"));
                assert_eq!(
                    verdict.is_ok(),
                    expected,
                    "{version} {rule} {membership:?} {verdict:?}"
                );
            }
            let mut room = room(version);
            room.put_state(
                CREATOR,
                "m.room.join_rules",
                "",
                json!({ "join_rule": rule }),
            );
            refuses(
                &room,
                &member(CREATOR, OUTSIDER, "join"),
                "join for another",
            );
        }
        // Without join rules they are `invite`.
        let mut room = room(version);
        room.state
            .remove(&("m.room.join_rules".into(), String::new()));
        refuses(&room, &member(OUTSIDER, OUTSIDER, "join"), "not invited");
        room.put_member(OUTSIDER, "invite");
        allows(&room, &member(OUTSIDER, OUTSIDER, "join"));
    }
}

#[test]
fn restricted_joins_need_a_member_who_may_invite() {
    let join = |authoriser: Json| {
        let content =
            json!({ "membership": "join", "join_authorised_via_users_server": authoriser });
        Make::state(OUTSIDER, "m.room.member", OUTSIDER, content)
    };
    for (rule, since) in [("restricted", 8), ("knock_restricted", 10)] {
        for version in versions(1, since - 1) {
            let mut room = room(version);
            room.put_state(
                CREATOR,
                "m.room.join_rules",
                "",
                json!({ "join_rule": rule }),
            );
            refuses(&room, &join(json!(MOD)), "not invited");
        }
        for version in versions(since, 12) {
            let mut room = room(version);
            room.put_state(
                CREATOR,
                "m.room.join_rules",
                "",
                json!({ "join_rule": rule }),
            );
            allows(&room, &join(json!(MOD)));
            allows(&room, &join(json!(CREATOR)));
            refuses(&room, &join(json!(USER)), "may not invite");
            refuses(&room, &join(json!("@nobody:a")), "not in the room");
            refuses(&room, &join(json!("nobody")), "needs an invite");
            refuses(&room, &join(json!(1)), "needs an invite");
            refuses(
                &room,
                &member(OUTSIDER, OUTSIDER, "join"),
                "needs an invite",
            );
            room.put_member(MOD, "leave");
            refuses(&room, &join(json!(MOD)), "not in the room");
            room.put_member(OUTSIDER, "ban");
            refuses(&room, &join(json!(CREATOR)), "banned");
        }
    }
}

#[test]
fn invites() {
    for version in VERSIONS {
        let mut room = room(version);
        allows(&room, &member(MOD, OUTSIDER, "invite"));
        refuses(&room, &member(USER, OUTSIDER, "invite"), "may not invite");
        refuses(
            &room,
            &member("@stranger:c", OUTSIDER, "invite"),
            "not in the room",
        );
        refuses(&room, &member(MOD, USER, "invite"), "in the room already");
        for membership in ["leave", "invite", "knock"] {
            room.put_member(OUTSIDER, membership);
            allows(&room, &member(MOD, OUTSIDER, "invite"));
        }
        room.put_member(OUTSIDER, "ban");
        refuses(&room, &member(MOD, OUTSIDER, "invite"), "banned");
        // Everybody may by default.
        let mut room = room_with(version, &json!({ "invite": 0 }));
        allows(&room, &member(USER, OUTSIDER, "invite"));
        room.state
            .remove(&("m.room.power_levels".into(), String::new()));
        allows(&room, &member(USER, OUTSIDER, "invite"));
    }
}

#[test]
fn leaving_and_removing() {
    for version in VERSIONS {
        let knocking = version.parse::<u32>().unwrap() >= 7;
        let mut room = room(version);
        for (membership, may_leave) in [
            ("join", true),
            ("invite", true),
            ("knock", knocking),
            ("leave", false),
            ("ban", false),
        ] {
            room.put_member(OUTSIDER, membership);
            let verdict = room.check_made(&member(OUTSIDER, OUTSIDER, "leave"));
            assert_eq!(
                verdict.is_ok(),
                may_leave,
                "{version} {membership} {verdict:?}"
            );
        }
        allows(&room, &member(MOD, USER, "leave"));
        refuses(&room, &member(USER, MOD, "leave"), "may not remove");
        refuses(&room, &member(MOD, ADMIN, "leave"), "may not remove");
        refuses(
            &room,
            &member("@stranger:c", USER, "leave"),
            "not in the room",
        );
        // Power that is equal is not enough.
        room.put_state(
            CREATOR,
            "m.room.power_levels",
            "",
            json!({ "users": { USER: 50, MOD: 50 } }),
        );
        refuses(&room, &member(MOD, USER, "leave"), "may not remove");
        // To lift a ban needs the ban level as well.
        let mut room = room_with(version, &json!({ "ban": 60, "kick": 40 }));
        room.put_member(OUTSIDER, "ban");
        refuses(&room, &member(MOD, OUTSIDER, "leave"), "may not lift bans");
        allows(&room, &member(ADMIN, OUTSIDER, "leave"));
        let mut room = room_with(version, &json!({ "ban": 40, "kick": 60 }));
        room.put_member(OUTSIDER, "ban");
        refuses(&room, &member(MOD, OUTSIDER, "leave"), "may not remove");
        allows(&room, &member(ADMIN, OUTSIDER, "leave"));
    }
}

#[test]
fn bans() {
    for version in VERSIONS {
        let room = room(version);
        for target in [USER, OUTSIDER] {
            allows(&room, &member(MOD, target, "ban"));
        }
        refuses(&room, &member(USER, OUTSIDER, "ban"), "may not ban");
        refuses(&room, &member(MOD, ADMIN, "ban"), "may not ban");
        refuses(&room, &member(MOD, MOD, "ban"), "may not ban");
        refuses(
            &room,
            &member("@stranger:c", OUTSIDER, "ban"),
            "not in the room",
        );
        let room = room_with(version, &json!({ "ban": 60 }));
        refuses(&room, &member(MOD, OUTSIDER, "ban"), "may not ban");
    }
}

#[test]
fn knocks() {
    for version in VERSIONS {
        let number: u32 = version.parse().unwrap();
        for (rule, since) in [
            ("knock", 7),
            ("knock_restricted", 10),
            ("public", 99),
            ("invite", 99),
            ("restricted", 99),
        ] {
            let mut room = room(version);
            room.put_state(
                CREATOR,
                "m.room.join_rules",
                "",
                json!({ "join_rule": rule }),
            );
            let knock = member(OUTSIDER, OUTSIDER, "knock");
            if number < 7 {
                refuses(&room, &knock, "is not known");
            } else if number < since {
                refuses(&room, &knock, "does not allow to knock");
            } else {
                allows(&room, &knock);
                refuses(&room, &member(USER, OUTSIDER, "knock"), "knock for another");
                for (membership, reason) in [
                    ("ban", "banned"),
                    ("invite", "invited already"),
                    ("join", "in the room"),
                ] {
                    room.put_member(OUTSIDER, membership);
                    refuses(&room, &knock, reason);
                }
                for membership in ["leave", "knock"] {
                    room.put_member(OUTSIDER, membership);
                    allows(&room, &knock);
                }
            }
        }
    }
}

/// The content of an invite that answers a third-party invite, signed by the spec's key.
fn third_party(mxid: &str, token: &str) -> Json {
    let message = format!(r#"{{"mxid":"{mxid}","token":"{token}"}}"#);
    let signature = spec_key().sign_base64(message.as_bytes());
    let signed = json!({ "mxid": mxid, "token": token, "signatures": { "identity.server": { "ed25519:0": signature } } });
    json!({ "membership": "invite", "third_party_invite": { "display_name": "o", "signed": signed } })
}

#[test]
fn third_party_invites() {
    for version in VERSIONS {
        let mut room = room(version);
        let key = spec_key().verify_key().to_base64();
        room.put_state(
            USER,
            "m.room.third_party_invite",
            "token",
            json!({ "public_key": key }),
        );
        let invite =
            |sender: &str, content: Json| Make::state(sender, "m.room.member", OUTSIDER, content);
        let good = third_party(OUTSIDER, "token");
        // The sender needs neither membership nor power: that was looked at when they sent the other event.
        allows(&room, &invite(USER, good.clone()));
        room.put_member(USER, "leave");
        allows(&room, &invite(USER, good.clone()));
        refuses(&room, &invite(MOD, good.clone()), "did not send");
        refuses(
            &room,
            &invite(USER, third_party(ADMIN, "token")),
            "not the invited user",
        );
        refuses(
            &room,
            &invite(USER, third_party(OUTSIDER, "other")),
            "with that token",
        );
        for (pointer, reason) in [
            ("signed", "no `signed`"),
            ("signed/mxid", "must have `mxid` and `token`"),
            ("signed/token", "must have `mxid` and `token`"),
            ("signed/signatures", "not signed with a key"),
        ] {
            let mut content = good.clone();
            let mut place = &mut content["third_party_invite"];
            let (parents, last) = pointer
                .rsplit_once('/')
                .map_or((None, pointer), |(p, l)| (Some(p), l));
            if let Some(parent) = parents {
                place = &mut place[parent];
            }
            place.as_object_mut().unwrap().remove(last).unwrap();
            refuses(&room, &invite(USER, content), reason);
        }
        let mut forged = good.clone();
        forged["third_party_invite"]["signed"]["extra"] = 1.into();
        refuses(&room, &invite(USER, forged), "not signed with a key");
        // What is in `unsigned` is not signed.
        let mut extra = good.clone();
        extra["third_party_invite"]["signed"]["unsigned"] = json!({});
        allows(&room, &invite(USER, extra));

        let keys = json!({ "public_keys": [{ "public_key": "AAAA" }, { "public_key": key }] });
        room.put_state(USER, "m.room.third_party_invite", "token", keys);
        allows(&room, &invite(USER, good.clone()));
        let other = json!({ "public_key": "y2jfwhNGEDoVGbAb+aeIRSj+JJCg6VQYqDuSeu6OSDQ" });
        room.put_state(USER, "m.room.third_party_invite", "token", other);
        refuses(&room, &invite(USER, good.clone()), "not signed with a key");
        room.put_member(OUTSIDER, "ban");
        refuses(&room, &invite(USER, good), "banned");
    }
}
