//! What a resolution asks for depends on what differs, not on how many people are in the room.

use pdu::EventNumber;

use crate::{
    crowd::{Fork, fork},
    room::index,
    store::{Cost, answer_of, resolve_counted},
};

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
        let small = cost(version, 100);
        let large = cost(version, 100_000);
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

/// Resolves a fork of a room with so many members.
fn cost(version: &str, members: usize) -> Cost {
    let Fork { room, left, right } = fork(version, members);
    let load = |number: EventNumber| room.event(index(number)).clone();
    let (resolution, keys, cost) = resolve_counted(&room, &load, &[&left, &right]);
    assert_eq!(keys.len(), 5);
    if version != "1" {
        let member = |user: &str| ("m.room.member".into(), user.to_owned());
        let levels = ("m.room.power_levels".into(), String::new());
        let on_the_right = [levels, member("@p7:b"), member("@p8:b")].map(|key| index(right[&key]));
        let mut expected = vec![index(left[&member("@new:b")])];
        expected.extend(on_the_right);
        expected.sort_unstable();
        // What the moderator did falls with the moderator: nobody removed the eighth, there is no topic.
        assert_eq!(answer_of(&resolution), expected);
    }
    cost
}
