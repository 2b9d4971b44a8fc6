//! What a resolution asks for depends on what differs, not on how many people are in the room.

use pdu::{EventNumber, resolve::StateMap};
use serde_json::{Value, json};

use crate::{
    room::{Room, index, number},
    store::{Cost, answer_of, resolve_counted},
};

const ADMIN: &str = "@admin:a";
const MODERATOR: &str = "@moderator:a";

#[test]
fn a_fork_costs_the_same_in_a_large_room_as_in_a_small_one() {
    for (version, most) in [
        (
            "1",
            Cost {
                rounds: 3,
                events: 15,
                chains: 10,
                entries: 4,
                walked: 0,
            },
        ),
        (
            "6",
            Cost {
                rounds: 4,
                events: 22,
                chains: 18,
                entries: 7,
                walked: 4,
            },
        ),
        (
            "11",
            Cost {
                rounds: 4,
                events: 22,
                chains: 18,
                entries: 7,
                walked: 4,
            },
        ),
        (
            "12",
            Cost {
                rounds: 4,
                events: 22,
                chains: 18,
                entries: 7,
                walked: 4,
            },
        ),
    ] {
        let small = fork(version, 100);
        let large = fork(version, 100_000);
        assert_eq!(small, large, "room version {version}");
        assert!(
            large.rounds <= most.rounds
                && large.events <= most.events
                && large.chains <= most.chains
                && large.entries <= most.entries
                && large.walked <= most.walked,
            "room version {version}: {large:?}"
        );
    }
}

/// A room with so many members. On one side people come, change their names and leave, and the topic
/// changes; on the other the moderator is demoted and one of the people banned.
fn fork(version: &str, members: usize) -> Cost {
    let (mut room, state) = crowd(version, members);
    let member =
        |membership: &str, name: &str| json!({ "membership": membership, "displayname": name });

    let mut left = state.clone();
    let person = "@p7:b";
    for name in ["Seven", "Siebener", "Haft"] {
        room.send(
            ("m.room.member", person),
            person,
            member("join", name),
            &mut left,
        );
    }
    room.send(
        ("m.room.topic", ""),
        MODERATOR,
        json!({ "topic": "post" }),
        &mut left,
    );
    room.send(
        ("m.room.member", "@new:b"),
        "@new:b",
        member("join", "New"),
        &mut left,
    );
    room.send(
        ("m.room.member", "@p8:b"),
        MODERATOR,
        member("leave", ""),
        &mut left,
    );

    let mut right = state;
    let demoted = room.send(
        ("m.room.power_levels", ""),
        ADMIN,
        levels(version, 0),
        &mut right,
    );
    let banned = room.send(
        ("m.room.member", person),
        ADMIN,
        member("ban", ""),
        &mut right,
    );

    let load = |number: EventNumber| room.event(index(number)).clone();
    let (resolution, keys, cost) = resolve_counted(&room, &load, &[&left, &right]);
    assert_eq!(keys.len(), 5);
    if version != "1" {
        let joined = index(left[&("m.room.member".into(), "@new:b".to_owned())]);
        let stays = index(right[&("m.room.member".into(), "@p8:b".to_owned())]);
        // What the moderator did falls with the moderator.
        assert_eq!(answer_of(&resolution), [stays, joined, demoted, banned]);
    }
    cost
}

/// A public room: a creator, a moderator and the crowd, of which every tenth has changed the name once.
fn crowd(version: &str, members: usize) -> (Room, StateMap<EventNumber>) {
    let mut room = Room::new(version);
    let mut state = StateMap::new();
    let join = json!({ "membership": "join" });
    let create = json!({ "room_version": version, "creator": ADMIN });
    room.send(("m.room.create", ""), ADMIN, create, &mut state);
    room.send(("m.room.member", ADMIN), ADMIN, join.clone(), &mut state);
    room.send(
        ("m.room.power_levels", ""),
        ADMIN,
        levels(version, 50),
        &mut state,
    );
    let public = json!({ "join_rule": "public" });
    room.send(("m.room.join_rules", ""), ADMIN, public, &mut state);
    room.send(
        ("m.room.member", MODERATOR),
        MODERATOR,
        join.clone(),
        &mut state,
    );
    for person in 0..members {
        let user = format!("@p{person}:b");
        room.send(("m.room.member", &user), &user, join.clone(), &mut state);
        if person % 10 == 0 {
            let renamed = json!({ "membership": "join", "displayname": "P" });
            room.send(("m.room.member", &user), &user, renamed, &mut state);
        }
    }
    assert_eq!(room.len(), 5 + members + members / 10);
    assert_eq!(state.values().max().copied(), Some(number(room.len() - 1)));
    (room, state)
}

fn levels(version: &str, moderator: i64) -> Value {
    let mut users = json!({ MODERATOR: moderator });
    if version != "12" {
        users[ADMIN] = 100.into();
    }
    json!({ "users": users, "state_default": 50, "ban": 50, "kick": 50, "users_default": 0 })
}
