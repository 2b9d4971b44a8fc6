//! Against ruma, which resolves whole maps: random rooms, with rejected events in conflict too.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::{
    EventNumber, check_auth,
    resolve::{StateKey, StateMap},
};
use proptest::prelude::*;
use ruma::{
    EventId, OwnedEventId,
    events::StateEventType,
    room_version_rules::StateResolutionVersion,
    state_res::{self, utils::event_id_set::EventIdSet},
};
use serde_json::{Value, json};

use crate::{
    room::{Parts, Room, index, number},
    store::{answer_of, resolve_counted},
};

const USERS: usize = 6;

proptest! {
    #[test]
    fn differences_resolve_as_whole_maps_do_in_ruma(
        version in prop::sample::select(vec!["6", "9", "10", "11", "12"]),
        seed in any::<u64>(),
        length in 12_usize..40,
    ) {
        let mut dice = Dice(seed | 1);
        let (room, after) = grow(version, length, &mut dice);
        for _ in 0..4 {
            let count = 2 + dice.below(3);
            let states: Vec<_> = (0..count).map(|_| &after[3 + dice.below(after.len() - 3)]).collect();
            let load = |number: EventNumber| room.event(index(number)).clone();
            let (resolution, keys, _) = resolve_counted(&room, &load, &states);
            // ruma lets nobody in then, not even who is in already; the rules are those of `invite`.
            if loses_join_rules(&keys, &resolution.winners) {
                continue;
            }
            prop_assert_eq!(answer_of(&resolution), by_ruma(&room, &states));
        }
    }
}

/// Whether no join rules are left in a state.
fn loses_join_rules(keys: &[StateKey], winners: &[Option<EventNumber>]) -> bool {
    let mut all = keys.iter().zip(winners);
    all.any(|((kind, _), winner)| *kind == StateEventType::RoomJoinRules && winner.is_none())
}

/// What ruma resolves the states to, without what all of them hold.
fn by_ruma(room: &Room, states: &[&StateMap<EventNumber>]) -> Vec<usize> {
    let StateResolutionVersion::V2(rules) = room.rules.state_res else {
        panic!("not version 2")
    };
    let id = |number: EventNumber| room.event(index(number)).pdu.event_id().to_owned();
    let maps: Vec<state_res::StateMap<OwnedEventId>> = states
        .iter()
        .map(|state| {
            state
                .iter()
                .map(|(key, &number)| (key.clone(), id(number)))
                .collect()
        })
        .collect();
    let chain_of = |numbers: &mut dyn Iterator<Item = EventNumber>| -> BTreeSet<EventNumber> {
        let own: Vec<_> = numbers.collect();
        let chains = own
            .iter()
            .flat_map(|&n| room.event(index(n)).chain.numbers().iter());
        chains.map(EventNumber).chain(own.iter().copied()).collect()
    };
    let chains = states
        .iter()
        .map(|state| {
            chain_of(&mut state.values().copied())
                .into_iter()
                .map(id)
                .collect()
        })
        .collect();
    // By the words of the spec: all paths between two events of the conflicted state set.
    let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
        let conflicted: BTreeSet<_> = conflicted
            .values()
            .flatten()
            .map(|id| room.number_of(id))
            .collect();
        let between = |number: &EventNumber| {
            let own = chain_of(&mut std::iter::once(*number));
            !own.is_disjoint(&conflicted)
        };
        let below = chain_of(&mut conflicted.iter().copied());
        Some(
            below
                .into_iter()
                .filter(between)
                .map(id)
                .collect::<EventIdSet<_>>(),
        )
    };
    let fetch = |id: &EventId| room.find(id).map(|loaded| Arc::clone(&loaded.pdu));
    let resolved = state_res::resolve(
        &room.rules.authorization,
        &rules,
        &maps,
        chains,
        fetch,
        subgraph,
    )
    .unwrap();
    let same = |key: &StateKey, id: &OwnedEventId| maps.iter().all(|map| map.get(key) == Some(id));
    let changed = resolved.iter().filter(|(key, id)| !same(key, id));
    let mut answer: Vec<_> = changed.map(|(_, id)| index(room.number_of(id))).collect();
    answer.sort_unstable();
    answer
}

/// A room that forks at random, and the state after each of its events.
fn grow(version: &str, length: usize, dice: &mut Dice) -> (Room, Vec<StateMap<EventNumber>>) {
    let mut room = Room::new(version);
    let mut after: Vec<StateMap<EventNumber>> = Vec::new();
    let mut content = json!({ "room_version": version, "creator": user(0) });
    if version == "12" && dice.below(2) == 0 {
        content["additional_creators"] = json!([user(1)]);
    }
    let public = json!({ "join_rule": "public" });
    let join = || json!({ "membership": "join" });
    // ruma allows nobody to join where there are no join rules, so there are some.
    let beginning: [(&str, &str, usize, Value); 6] = [
        ("m.room.create", "", 0, content),
        ("m.room.member", &user(0), 0, join()),
        (
            "m.room.power_levels",
            "",
            0,
            levels(version, &HashMap::from([(2, 50), (3, 100)])),
        ),
        ("m.room.join_rules", "", 0, public),
        ("m.room.member", &user(2), 2, join()),
        ("m.room.member", &user(3), 3, join()),
    ];
    for (kind, state_key, sender, content) in beginning {
        let prev = after.len().checked_sub(1);
        let state = after.last().cloned().unwrap_or_default();
        add(
            &mut room,
            &mut after,
            (kind, state_key, sender, content),
            prev,
            state,
            dice,
        );
    }
    for _ in 0..length * 3 {
        if room.len() >= length {
            break;
        }
        let prev = after.len() - 1 - dice.below(8.min(after.len() - 5));
        let mut state = after[prev].clone();
        if dice.below(4) == 0 {
            // Another branch is merged in.
            let other = after.len() - 1 - dice.below(8.min(after.len() - 5));
            let load = |number: EventNumber| room.event(index(number)).clone();
            let states = [&state, &after[other]];
            let (resolution, keys, _) = resolve_counted(&room, &load, &states);
            if loses_join_rules(&keys, &resolution.winners) {
                continue;
            }
            for (key, winner) in keys.into_iter().zip(resolution.winners) {
                match winner {
                    Some(winner) => state.insert(key, winner),
                    None => state.remove(&key),
                };
            }
        }
        let action = action(version, dice);
        let (kind, state_key, sender, content) = action;
        add(
            &mut room,
            &mut after,
            (kind, &state_key, sender, content),
            Some(prev),
            state,
            dice,
        );
    }
    (room, after)
}

fn action(version: &str, dice: &mut Dice) -> (&'static str, String, usize, Value) {
    let (one, other) = (dice.below(USERS), dice.below(USERS));
    let member = |membership: &str| json!({ "membership": membership });
    match dice.below(20) {
        0..4 => ("m.room.member", user(one), one, member("join")),
        4 => ("m.room.member", user(one), one, member("leave")),
        5..8 => ("m.room.member", user(other), one, member("ban")),
        8..10 => ("m.room.member", user(other), one, member("leave")),
        10 => ("m.room.member", user(other), one, member("invite")),
        11..16 => {
            let mut users = HashMap::new();
            for _ in 0..1 + dice.below(4) {
                users.insert(1 + dice.below(USERS - 1), [0, 40, 50, 100][dice.below(4)]);
            }
            (
                "m.room.power_levels",
                String::new(),
                one,
                levels(version, &users),
            )
        }
        16 | 17 => {
            let rule = ["public", "invite"][dice.below(2)];
            (
                "m.room.join_rules",
                String::new(),
                one,
                json!({ "join_rule": rule }),
            )
        }
        _ => ("m.room.topic", String::new(), one, json!({})),
    }
}

fn levels(version: &str, users: &HashMap<usize, i64>) -> Value {
    let listed = users.iter().filter(|(one, _)| version != "12" || **one > 1);
    let mut users: Value = listed.map(|(&one, &level)| (user(one), level)).collect();
    if version != "12" {
        users[user(0)] = 100.into();
    }
    json!({
        "users": users, "users_default": 0, "events_default": 0, "state_default": 40,
        "ban": 40, "kick": 40, "redact": 40, "invite": 0,
    })
}

/// Adds an event if the rules allow it. Some are rejected later, when others may lean on them already.
fn add(
    room: &mut Room,
    after: &mut Vec<StateMap<EventNumber>>,
    (kind, state_key, sender, content): (&str, &str, usize, Value),
    prev: Option<usize>,
    mut state: StateMap<EventNumber>,
    dice: &mut Dice,
) {
    let stale = 12 < after.len() && dice.below(8) == 0;
    let cited = if stale {
        after[6 + dice.below(after.len() - 6)].clone()
    } else {
        state.clone()
    };
    let prevs: Vec<_> = prev.into_iter().collect();
    let mut parts = Parts {
        id: format!("${:043x}", dice.next() >> 8),
        kind,
        state_key,
        sender: &user(sender),
        content,
        prevs: &prevs,
        auths: &[],
        time: dice.below(10) as u64,
        depth: 1,
        // Where the only join rules are rejected, ruma lets nobody in, and others those who were invited.
        rejected: room.len() > 6 && kind != "m.room.join_rules" && dice.below(16) == 0,
    };
    let auths = room.select_auths(&room.make(&parts), &cited);
    parts.auths = &auths;
    let event = room.make(&parts);
    let allowed_by = |state: &StateMap<EventNumber>| {
        let create = room.len().checked_sub(1).map_or(&event, |_| room.event(0));
        check_auth(
            &event.pdu,
            room.rules,
            &create.pdu,
            |event_type, state_key| {
                let number = state.get(&(event_type.clone(), state_key.to_owned()))?;
                Some(&*room.event(index(*number)).pdu)
            },
        )
        .is_ok()
    };
    if allowed_by(&cited) && allowed_by(&state) {
        let at = number(room.add(event));
        state.insert(room.key(at), at);
        after.push(state);
    }
}

fn user(number: usize) -> String {
    format!("@u{number}:s{}", number % 3)
}

/// Random numbers from a seed: xorshift.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from((self.next() >> 16) % end as u64).unwrap()
    }
}
