//! State resolution: which state a room has where its history forked.
//!
//! Three algorithms: version 1 (room version 1), version 2 (room versions 2 to 11) and version 2.1
//! (room version 12), each with the answers of the spec's words on whole state maps. But whole maps
//! are not what goes in: a room of 100,000 members whose forks differ in three entries is resolved
//! from these three, from what the auth rules name for them, and from bitmaps of auth chains.
//!
//! [`resolve`] is given the [`Differences`] of the states and the [`Facts`] loaded so far. What it lacks
//! it asks for ([`Need`]) as many at a time as it can name: load them, [`Facts`] grows, call again. Each
//! call starts from the beginning, so nothing that was computed without a fact is ever used.
//!
//! How rooms on storage answer each need:
//! * [`Need::Event`]: the event's row, with the numbers of its auth events, and whether it is rejected;
//! * [`Need::Chain`]: the interned [`AuthChain`](crate::AuthChain) that the row names;
//! * [`Need::Entry`]: the number under that key in the state tree of any of the states: they agree there;
//! * [`Need::Reached`]: feed a [`Reach`] with the auth chains of the entries on which the states agree.
//!
//! Facts that were not asked for do no harm: who finds an entry may add its event in the same round.
//! A fact that storage does not have makes the whole resolution void: there is no answer without it.

mod check;
mod conflicted;
mod facts;
mod mainline;
mod maps;
mod power;
mod reset;
mod run;
mod v1;
mod v2;

use std::collections::HashMap;

use ruma::{events::StateEventType, room_version_rules::StateResolutionVersion};
use smallvec::SmallVec;

use self::run::Run;
pub use self::{
    conflicted::Reach,
    facts::{Facts, Need},
    maps::{Loaded, resolve_maps},
    reset::{Reset, ResetKind},
};
use crate::{EventNumber, RoomRules, Step};

/// The key of a state entry: event type and state key.
pub type StateKey = (StateEventType, String);

/// A room state as a map: what [`resolve_maps`] takes, and what small rooms can afford.
pub type StateMap<T> = HashMap<StateKey, T>;

/// Where several states of a room differ.
///
/// Entries are known by what lies under them; their keys are read from the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    create: EventNumber,
    states: usize,
    entries: Vec<Candidates>,
}

/// What each of the states holds under one key, in the order of the states.
type Candidates = SmallVec<[Option<EventNumber>; 4]>;

impl Differences {
    /// No differences yet between so many states of the room that began with this `m.room.create` event.
    pub fn new(states: usize, create: EventNumber) -> Self {
        Self {
            create,
            states,
            entries: Vec::new(),
        }
    }

    /// Adds an entry: the number of the event that each of the states holds under one key.
    ///
    /// What is missing at the end counts as *nothing there*, and what is beyond the number of states is
    /// ignored. An entry on which all agree does no harm.
    pub fn push(&mut self, candidates: impl IntoIterator<Item = Option<EventNumber>>) {
        let mut candidates: Candidates = candidates.into_iter().take(self.states).collect();
        candidates.resize(self.states, None);
        self.entries.push(candidates);
    }

    /// How many entries were added.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the states do not differ at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The result of a resolution.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolution {
    /// For each entry of the [`Differences`], in their order, what the resolved state holds there.
    pub winners: Vec<Option<EventNumber>>,
    /// Events of the resolved state under keys that none of the states had. The algorithm takes them
    /// from the auth chains; they are as good as any other.
    pub added: Vec<EventNumber>,
    /// State that was lost though nobody contested it: to be logged and counted.
    pub resets: Vec<Reset>,
}

/// Resolves the differences of several states of a room, by the algorithm of its version.
///
/// Room versions 1, 2 and 12, *State resolution*. Entries on which the states agree are in the resolved
/// state unchanged, and none of them is read but those that the auth rules name for the events in
/// conflict.
pub fn resolve(
    rules: &RoomRules,
    differences: &Differences,
    facts: &Facts,
) -> Step<Resolution, Need> {
    let mut run = Run::new(rules, differences, facts);
    let resolved = match rules.state_res {
        StateResolutionVersion::V2(v2) => v2::resolve(&mut run, v2),
        // Version 1 is what every room had before there were versions.
        _ => v1::resolve(&mut run),
    };
    match resolved {
        Some(resolution) if run.ask.is_content() => Step::Done(resolution),
        _ => Step::Need(run.ask.into_needs()),
    }
}
