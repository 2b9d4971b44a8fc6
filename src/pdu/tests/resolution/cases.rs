//! Single cases, by hand.

use pdu::{
    EventNumber, Step,
    resolve::{Differences, Facts, Reach, ResetKind, Resolution, StateMap, resolve, resolve_maps},
};
use roaring::RoaringBitmap;
use serde_json::{Value, json};

use crate::{
    crowd::{ADMIN, MODERATOR, crowd, levels},
    room::{Room, index, number},
    store::{Cost, resolve_counted},
};

const PERSON: &str = "@p3:b";
const LEVELS: (&str, &str) = ("m.room.power_levels", "");
const TOPIC: (&str, &str) = ("m.room.topic", "");

fn member(membership: &str) -> Value {
    json!({ "membership": membership })
}

fn run(room: &Room, states: &[&StateMap<EventNumber>]) -> (Resolution, Cost) {
    let load = |number: EventNumber| room.event(index(number)).clone();
    let (resolution, _, cost) = resolve_counted(room, &load, states);
    (resolution, cost)
}

#[test]
fn what_does_not_differ_is_not_looked_at() {
    for version in ["1", "2", "12"] {
        let rules = Room::new(version).rules;
        for states in [0, 1, 3] {
            let mut differences = Differences::new(states, number(0));
            let step = resolve(rules, &differences, &Facts::new());
            assert_eq!(step, Step::Done(Resolution::default()));

            differences.push(vec![Some(number(9)); states]);
            differences.push([]);
            let step = resolve(rules, &differences, &Facts::new());
            let held = (states > 0).then_some(number(9));
            assert_eq!(step.done().map(|done| done.winners), Some(vec![held, None]));
        }
    }
}

#[test]
fn removals_by_somebody_without_power_are_reverted() {
    let (mut room, state) = crowd("6", 10);
    let (mut left, mut right) = (state.clone(), state);
    let kicked = room.send(
        ("m.room.member", PERSON),
        MODERATOR,
        member("leave"),
        &mut left,
    );
    room.send(LEVELS, ADMIN, levels("6", 0), &mut right);

    let (resolution, _) = run(&room, &[&left, &right]);
    let [reset] = resolution.resets.as_slice() else {
        panic!("{:?}", resolution.resets)
    };
    assert_eq!(reset.kind, ResetKind::Reverted);
    assert_eq!(reset.key, ("m.room.member".into(), PERSON.to_owned()));
    assert_eq!(reset.from, number(kicked));
    assert_eq!(reset.to, Some(right[&reset.key]));
}

#[test]
fn what_no_state_held_any_more_is_revived() {
    let (mut room, state) = crowd("6", 10);
    let (mut left, mut right) = (state.clone(), state);
    let renamed = room.send(("m.room.member", PERSON), PERSON, member("join"), &mut left);
    let kicked = room.send(
        ("m.room.member", PERSON),
        MODERATOR,
        member("leave"),
        &mut left,
    );
    room.send(LEVELS, ADMIN, levels("6", 0), &mut right);

    let (resolution, _) = run(&room, &[&left, &right]);
    let [reset] = resolution.resets.as_slice() else {
        panic!("{:?}", resolution.resets)
    };
    assert_eq!(reset.kind, ResetKind::Revived);
    assert_eq!(
        (reset.from, reset.to),
        (number(kicked), Some(number(renamed)))
    );
}

#[test]
fn what_all_states_held_can_be_removed() {
    let (mut room, state) = crowd("6", 10);
    let (mut left, mut right) = (state.clone(), state);
    room.send(TOPIC, MODERATOR, json!({ "topic": "left" }), &mut left);
    let topic = room.send(TOPIC, MODERATOR, json!({ "topic": "right" }), &mut right);
    room.send(LEVELS, ADMIN, levels("6", 0), &mut right);

    let (resolution, _) = run(&room, &[&left, &right]);
    let [reset] = resolution.resets.as_slice() else {
        panic!("{:?}", resolution.resets)
    };
    assert_eq!(reset.kind, ResetKind::Removed);
    assert_eq!((reset.from, reset.to), (number(topic), None));
}

#[test]
fn rivals_and_entries_that_one_state_lacks_are_no_resets() {
    let (mut room, state) = crowd("6", 10);
    let (mut left, mut right) = (state.clone(), state);
    room.send(("m.room.member", PERSON), PERSON, member("join"), &mut left);
    room.send(("m.room.member", PERSON), ADMIN, member("ban"), &mut right);
    room.send(LEVELS, ADMIN, levels("6", 0), &mut right);
    room.send(TOPIC, MODERATOR, json!({ "topic": "left" }), &mut left);

    let (resolution, _) = run(&room, &[&left, &right]);
    assert_eq!(
        resolution
            .winners
            .iter()
            .filter(|winner| winner.is_none())
            .count(),
        1
    );
    assert_eq!(resolution.resets, []);
}

#[test]
fn a_long_history_of_power_levels_takes_a_few_rounds() {
    for version in ["11", "12"] {
        let (mut room, mut state) = crowd(version, 10);
        let mut history = Vec::new();
        for turn in 0..300 {
            let moderator = 60 + turn % 2;
            let levels = room.send(LEVELS, ADMIN, levels(version, moderator), &mut state);
            history.push(number(levels));
        }
        let key = (LEVELS.0.into(), String::new());
        let (mut left, mut right) = (state.clone(), state.clone());
        // Since version 12 only power levels in conflict have a mainline.
        let newest = room.send(LEVELS, ADMIN, levels(version, 70), &mut right);
        let topic = |text: &str| json!({ "topic": text });
        let recent = room.send(TOPIC, MODERATOR, topic("recent"), &mut right);
        // Sent later, but by a server that believes in power levels of long ago.
        let mut stale = StateMap::from([(key, history[2])]);
        stale.extend(
            state
                .into_iter()
                .filter(|(key, _)| key.0 != LEVELS.0.into()),
        );
        let late = room.send(TOPIC, MODERATOR, topic("stale"), &mut stale);
        left.insert(room.key(number(late)), number(late));

        let (resolution, cost) = run(&room, &[&left, &right]);
        assert_eq!(
            resolution.winners,
            [newest, recent].map(|at| Some(number(at)))
        );
        assert!(cost.rounds <= 8, "{cost:?}");
        assert!(cost.chains <= 8, "{cost:?}");
    }
}

#[test]
fn without_an_event_there_is_no_resolution() {
    let (mut room, state) = crowd("11", 10);
    let (mut left, mut right) = (state.clone(), state.clone());
    room.send(("m.room.member", PERSON), PERSON, member("join"), &mut left);
    room.send(("m.room.member", PERSON), ADMIN, member("ban"), &mut right);
    let lost = state[&("m.room.join_rules".into(), String::new())];
    let load = |number| (number != lost).then(|| room.event(index(number)).clone());
    let resolved = resolve_maps(room.rules, room.create(), &[left, right], load);
    assert_eq!(resolved, Err(lost));
}

#[test]
fn reach_tells_what_entries_stand_on() {
    let asked: RoaringBitmap = [3, 5, 9].into_iter().collect();
    let chain = |numbers: &[u32]| numbers.iter().copied().map(EventNumber).collect();
    let mut reach = Reach::new(&asked);
    assert_eq!(reach.lowest(), Some(EventNumber(3)));
    reach.feed_chain(&chain(&[1, 3, 4]));
    reach.feed_entry(EventNumber(4));
    assert_eq!(reach.lowest(), Some(EventNumber(5)));
    reach.feed_entry(EventNumber(9));
    assert_eq!(reach.clone().into_reached(), [3, 9].into_iter().collect());
    reach.feed_chain(&chain(&[5]));
    assert_eq!(reach.lowest(), None);
    assert_eq!(reach.into_reached(), asked);
}
