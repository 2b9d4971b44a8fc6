//! Answers to what a resolution asks for, counted.

use std::collections::{BTreeSet, HashSet};

use pdu::{
    EventNumber, Step,
    resolve::{Differences, Facts, Loaded, Need, Reach, Resolution, StateKey, StateMap, resolve},
};

use crate::room::{Room, index};

/// What a resolution asked of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    pub(crate) rounds: usize,
    pub(crate) events: usize,
    pub(crate) chains: usize,
    pub(crate) entries: usize,
    /// Auth chains of agreed entries that were looked through, each once.
    pub(crate) walked: usize,
}

/// Resolves states as rooms on storage do: from the differences alone, answering each round of needs.
pub(crate) fn resolve_counted(
    room: &Room,
    load: &dyn Fn(EventNumber) -> Loaded,
    states: &[&StateMap<EventNumber>],
) -> (Resolution, Vec<StateKey>, Cost) {
    let keys: BTreeSet<&StateKey> = states
        .iter()
        .flat_map(|state| state.iter())
        .filter(|(key, number)| states.iter().any(|state| state.get(*key) != Some(number)))
        .map(|(key, _)| key)
        .collect();
    let mut differences = Differences::new(states.len(), room.create());
    for key in &keys {
        differences.push(states.iter().map(|state| state.get(*key).copied()));
    }

    let mut facts = Facts::new();
    let mut cost = Cost::default();
    let resolution = loop {
        match resolve(room.rules, &differences, &facts) {
            Step::Done(resolution) => break resolution,
            Step::Need(needs) => {
                assert!(!needs.is_empty(), "asks for nothing");
                cost.rounds += 1;
                for need in needs {
                    answer(need, load, states[0], &keys, &mut facts, &mut cost);
                }
            }
        }
        assert!(cost.rounds < 40, "asks without end");
    };
    (resolution, keys.into_iter().cloned().collect(), cost)
}

fn answer(
    need: Need,
    load: &dyn Fn(EventNumber) -> Loaded,
    state: &StateMap<EventNumber>,
    keys: &BTreeSet<&StateKey>,
    facts: &mut Facts,
    cost: &mut Cost,
) {
    match need {
        Need::Event(number) => {
            cost.events += 1;
            let Loaded {
                pdu, auth_events, ..
            } = load(number);
            facts.add_event(number, pdu, &auth_events);
        }
        Need::Chain(number) => {
            cost.chains += 1;
            facts.add_chain(number, load(number).chain);
        }
        Need::Entry(key) => {
            assert!(!keys.contains(&key), "the states differ there");
            cost.entries += 1;
            let entry = state.get(&key).copied();
            facts.add_entry(key, entry);
        }
        Need::Reached(asked) => {
            let mut reach = Reach::new(&asked);
            let mut seen = HashSet::new();
            for (key, &number) in state {
                // Storage finds the entries above a number without walking over those below.
                if keys.contains(key) || asked.min().is_some_and(|lowest| number.0 < lowest) {
                    continue;
                }
                reach.feed_entry(number);
                let loaded = load(number);
                if seen.insert(loaded.auth_events.clone()) {
                    cost.walked += 1;
                    reach.feed_chain(&loaded.chain);
                }
            }
            facts.add_reached(&asked, &reach.into_reached());
        }
    }
}

/// The resolved state where the states do not all hold the same, as sorted indexes.
pub(crate) fn answer_of(resolution: &Resolution) -> Vec<usize> {
    let winners = resolution.winners.iter().copied().flatten();
    let mut answer: Vec<_> = winners
        .chain(resolution.added.iter().copied())
        .map(index)
        .collect();
    answer.sort_unstable();
    answer
}
