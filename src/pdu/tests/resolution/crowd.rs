//! A room of any size with a small fork.

use pdu::{EventNumber, resolve::StateMap};
use serde_json::{Value, json};

use crate::room::Room;

pub(crate) const ADMIN: &str = "@admin:a";
pub(crate) const MODERATOR: &str = "@moderator:a";

/// A room and the states of its two ends.
pub(crate) struct Fork {
    pub(crate) room: Room,
    pub(crate) left: StateMap<EventNumber>,
    pub(crate) right: StateMap<EventNumber>,
}

/// A room with so many members. On one side people come, change their names and leave, and the topic
/// changes; on the other the moderator is demoted and one of the people banned.
pub(crate) fn fork(version: &str, members: usize) -> Fork {
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
    room.send(
        ("m.room.power_levels", ""),
        ADMIN,
        levels(version, 0),
        &mut right,
    );
    room.send(
        ("m.room.member", person),
        ADMIN,
        member("ban", ""),
        &mut right,
    );
    Fork { room, left, right }
}

/// A public room: a creator, a moderator and the crowd, of which every tenth has changed the name once.
pub(crate) fn crowd(version: &str, members: usize) -> (Room, StateMap<EventNumber>) {
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
    (room, state)
}

pub(crate) fn levels(version: &str, moderator: i64) -> Value {
    let mut users = json!({ MODERATOR: moderator });
    if version != "12" {
        users[ADMIN] = 100.into();
    }
    json!({ "users": users, "state_default": 50, "ban": 50, "kick": 50, "users_default": 0 })
}
