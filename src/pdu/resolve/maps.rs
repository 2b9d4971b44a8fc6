//! Resolution of whole state maps in memory.

use std::{collections::BTreeSet, sync::Arc};

use smallvec::SmallVec;

use super::{
    Differences, Facts, Need, Reach, Reset, StateKey, StateMap, facts::state_key, resolve,
};
use crate::{AuthChain, EventNumber, Pdu, RoomRules, Step};

/// An event with all that a resolution may ask of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// The numbers of its auth events.
    pub auth_events: SmallVec<[EventNumber; 6]>,
    /// Its auth chain.
    pub chain: Arc<AuthChain>,
}

/// Resolves whole state maps, for tests and for rooms whose states are in memory anyway.
///
/// The same algorithm as [`resolve`], with everything it may ask for at hand.
///
/// # Errors
///
/// The number of an event that `load` does not have: there is no resolution without it.
pub fn resolve_maps(
    rules: &RoomRules,
    create: EventNumber,
    maps: &[StateMap<EventNumber>],
    mut load: impl FnMut(EventNumber) -> Option<Loaded>,
) -> Result<(StateMap<EventNumber>, Vec<Reset>), EventNumber> {
    let Some(first) = maps.first() else {
        return Ok(Default::default());
    };
    let keys: BTreeSet<&StateKey> = maps
        .iter()
        .flatten()
        .filter(|(key, number)| maps.iter().any(|map| map.get(*key) != Some(*number)))
        .map(|(key, _)| key)
        .collect();
    let mut differences = Differences::new(maps.len(), create);
    for key in &keys {
        differences.push(maps.iter().map(|map| map.get(*key).copied()));
    }

    let mut facts = Facts::new();
    let resolution = loop {
        let needs = match resolve(rules, &differences, &facts) {
            Step::Done(resolution) => break resolution,
            Step::Need(needs) => needs,
        };
        for need in needs {
            match need {
                Need::Event(number) => {
                    let loaded = load(number).ok_or(number)?;
                    facts.add_event(number, loaded.pdu, &loaded.auth_events);
                }
                Need::Chain(number) => {
                    facts.add_chain(number, load(number).ok_or(number)?.chain);
                }
                Need::Entry(key) => {
                    let entry = first.get(&key).copied();
                    facts.add_entry(key, entry);
                }
                Need::Reached(asked) => {
                    let mut reach = Reach::new(&asked);
                    for (key, &number) in first {
                        if keys.contains(key) || reach.lowest().is_none_or(|lowest| number < lowest)
                        {
                            continue;
                        }
                        reach.feed_entry(number);
                        reach.feed_chain(&load(number).ok_or(number)?.chain);
                    }
                    facts.add_reached(&asked, &reach.into_reached());
                }
            }
        }
    };
    let mut resolved = first.clone();
    for (&key, winner) in keys.iter().zip(&resolution.winners) {
        match winner {
            Some(winner) => resolved.insert(key.clone(), *winner),
            None => resolved.remove(key),
        };
    }
    for number in resolution.added {
        if let Some(key) = state_key(&load(number).ok_or(number)?.pdu) {
            resolved.insert(key, number);
        }
    }
    Ok((resolved, resolution.resets))
}
