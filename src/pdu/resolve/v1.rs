//! Version 1 of the algorithm, of room version 1.

use std::cmp::Reverse;

use ruma::events::StateEventType;
use sha1::{Digest, Sha1};

use super::{
    Resolution, StateKey,
    check::Pool,
    facts::EventFact,
    run::{Resolved, Run},
};
use crate::EventNumber;

/// Version 1 of the algorithm. Room version 1, *State resolution*. `None` if a fact was missing.
pub(super) fn resolve(run: &mut Run<'_>) -> Option<Resolution> {
    run.load_candidates()?;
    let mut decided = Resolved::new();
    let conflicts = find_conflicts(run, &mut decided)?;
    for (_, event) in conflicts.iter().flat_map(|conflict| &conflict.events) {
        for key in event.auth_keys(run.rules) {
            settled(run, key);
        }
    }
    if !run.ask.is_content() {
        return None;
    }

    // What was decided is seen by the next kind, not within one.
    let mut state = Resolved::new();
    for phase in [
        StateEventType::RoomPowerLevels,
        StateEventType::RoomJoinRules,
        StateEventType::RoomMember,
    ] {
        let mut winners = Vec::new();
        for conflict in conflicts
            .iter()
            .filter(|conflict| conflict.phase() == Some(&phase))
        {
            winners.push((conflict.key, last_allowed(run, conflict, &state)?));
        }
        state.extend(winners);
    }
    let mut winners = Vec::new();
    for conflict in conflicts
        .iter()
        .filter(|conflict| conflict.phase().is_none())
    {
        winners.push((conflict.key, best_allowed(run, conflict, &state)?));
    }
    state.extend(winners);
    state.extend(decided);
    Some(run.finish(&state))
}

/// A key under which the states hold different events.
struct Conflict<'a> {
    key: &'a StateKey,
    /// By ascending depth, then descending `sha1(event_id)`.
    events: Vec<(EventNumber, &'a EventFact)>,
}

impl Conflict<'_> {
    /// The kind of events among which this conflict is resolved; `None` for those that come last.
    fn phase(&self) -> Option<&StateEventType> {
        match &self.key.0 {
            StateEventType::RoomPowerLevels if !self.key.1.is_empty() => None,
            kind @ (StateEventType::RoomPowerLevels
            | StateEventType::RoomJoinRules
            | StateEventType::RoomMember) => Some(kind),
            _ => None,
        }
    }
}

/// Sorts the differences into conflicts and what is decided already: an entry that some states lack is none.
///
/// Rejected events do not take part: the spec has no word on them here, and this is what others do.
fn find_conflicts<'a>(run: &mut Run<'a>, decided: &mut Resolved<'a>) -> Option<Vec<Conflict<'a>>> {
    let mut conflicts = Vec::new();
    for candidates in run.differing() {
        let mut numbers: Vec<_> = candidates.iter().copied().flatten().collect();
        numbers.sort_unstable();
        numbers.dedup();
        let contested = numbers.len() > 1;
        let mut events = Vec::new();
        let mut key = None;
        for number in numbers {
            let event = run.ask.event(number)?;
            key = event.key.as_ref();
            if !(contested && event.is_rejected()) {
                events.push((number, event));
            }
        }
        let Some(key) = key else { continue };
        match events.as_slice() {
            [] => {}
            [(number, _)] => {
                decided.insert(key, *number);
            }
            _ => {
                events.sort_by_cached_key(|(_, event)| {
                    let id = Sha1::digest(event.pdu.event_id().as_bytes());
                    (event.pdu.depth(), Reverse(<[u8; 20]>::from(id)))
                });
                conflicts.push(Conflict { key, events });
            }
        }
    }
    Some(conflicts)
}

/// What the states hold under a key without conflict: the same, or one of them something and others nothing.
fn settled(run: &mut Run<'_>, key: &StateKey) -> Option<Option<EventNumber>> {
    let Some(candidates) = run.candidates(key) else {
        return run.agreed(key);
    };
    let mut held = candidates.iter().copied().flatten();
    let Some(first) = held.next() else {
        return Some(None);
    };
    Some(held.all(|other| other == first).then_some(first))
}

/// The state as far as it is resolved, cut down to what the auth rules name for an event.
fn pool<'a>(run: &mut Run<'a>, event: &EventFact, state: &Resolved<'a>) -> Option<Pool<'a>> {
    let mut pool = Pool::default();
    for key in event.auth_keys(run.rules) {
        let number = match state.get(key) {
            Some(&number) => Some(number),
            None => settled(run, key)?,
        };
        if let Some(number) = number {
            pool.put(run.ask.event(number)?);
        }
    }
    Some(pool)
}

/// Follows the list as long as each event is allowed by the one before it.
fn last_allowed<'a>(
    run: &mut Run<'a>,
    conflict: &Conflict<'a>,
    state: &Resolved<'a>,
) -> Option<EventNumber> {
    let (&(mut winner, mut last), others) = conflict.events.split_first()?;
    for &(number, event) in others {
        let mut pool = pool(run, event, state)?;
        pool.put(last);
        if !pool.allows(run, event) {
            break;
        }
        (winner, last) = (number, event);
    }
    Some(winner)
}

/// The deepest event that is allowed.
///
/// NOTSPEC: the spec does not say what happens if none is. Others take the least deep then.
fn best_allowed<'a>(
    run: &mut Run<'a>,
    conflict: &Conflict<'a>,
    state: &Resolved<'a>,
) -> Option<EventNumber> {
    for &(number, event) in conflict.events.iter().rev() {
        let pool = pool(run, event, state)?;
        if pool.allows(run, event) {
            return Some(number);
        }
    }
    conflict.events.first().map(|(number, _)| *number)
}
