//! Which events a resolution is about: the full conflicted set, by algebra on auth chains.

use std::{collections::HashSet, sync::Arc};

use roaring::RoaringBitmap;

use super::run::Run;
use crate::{AuthChain, EventNumber};

/// Above so many candidates for the conflicted state subgraph, which of them are in it is found out before
/// the events themselves are asked for: a round more, but no flood of events that nobody needs.
const EAGER_MAX: u64 = 256;

/// The *full conflicted set*: the conflicted state set, the auth difference and, since version 2.1, the
/// conflicted state subgraph. `None` if a fact was missing.
///
/// `agreed_count` says whether the surroundings of the events will be looked for among the agreed entries.
pub(super) fn full_conflicted_set(
    run: &mut Run<'_>,
    with_subgraph: bool,
    agreed_count: bool,
) -> Option<RoaringBitmap> {
    run.load_candidates()?;
    let mut full = conflicted_state_set(run);
    if full.is_empty() {
        return Some(full);
    }
    for number in full.iter().map(EventNumber) {
        run.load_surroundings(number, agreed_count);
    }
    let mut difference = difference_candidates(run, &full)?;
    let subgraph = if with_subgraph {
        subgraph(run, &full)
    } else {
        Some(RoaringBitmap::new())
    };
    for number in difference.iter().map(EventNumber) {
        run.load_surroundings(number, agreed_count);
    }
    let subgraph = subgraph?;
    for number in subgraph.iter().map(EventNumber) {
        run.load_surroundings(number, agreed_count);
    }
    full |= subgraph;
    difference -= &full;
    full |= confirm_difference(run, difference)?;
    Some(full)
}

/// Everything under keys on which the states do not agree.
fn conflicted_state_set(run: &Run<'_>) -> RoaringBitmap {
    run.differing()
        .flatten()
        .flatten()
        .map(|number| number.0)
        .collect()
}

/// What lies in the auth chains of some states and not of all, as far as the differing entries tell.
///
/// The full auth chain of a state is the chain of its differing entries and that of the agreed ones
/// together. So the auth difference is the difference of the former, without the latter.
fn difference_candidates(run: &mut Run<'_>, conflicted: &RoaringBitmap) -> Option<RoaringBitmap> {
    let mut union = RoaringBitmap::new();
    let mut intersection: Option<RoaringBitmap> = None;
    for state in 0..run.differences.states {
        let mut chain = RoaringBitmap::new();
        let mut seen: HashSet<*const AuthChain> = HashSet::new();
        for candidates in run.differing() {
            let Some(number) = candidates.get(state).copied().flatten() else {
                continue;
            };
            let own = run.ask.chain(number)?;
            if seen.insert(Arc::as_ptr(own)) {
                chain |= own.numbers();
            }
        }
        union |= &chain;
        intersection = Some(match intersection {
            Some(intersection) => intersection & chain,
            None => chain,
        });
    }
    Some(union - intersection.unwrap_or_default() - conflicted)
}

/// The candidates that no agreed entry leans on, nor is.
///
/// NOTSPEC: by the spec's words an event is no part of its own chain, so that an agreed entry which only some
/// of the states cite would be in the difference. Synapse and the users of ruma count it in, and servers must
/// agree.
fn confirm_difference(run: &mut Run<'_>, mut difference: RoaringBitmap) -> Option<RoaringBitmap> {
    // What was looked at anyway settles most: old power levels stand behind the present ones.
    for number in &run.agreed {
        difference.remove(number.0);
    }
    for &number in &run.agreed {
        let Some(lowest) = difference.min() else {
            return Some(difference);
        };
        // Numbers rise along the chains: what is lower leans on none of them.
        if number.0 > lowest
            && let Some(chain) = run.ask.chain(number)
        {
            difference -= chain.numbers();
        }
    }
    if difference.is_empty() {
        return Some(difference);
    }
    // What is still to be looked at may settle more, and the agreed entries are many to go through.
    if run.ask.lacks_entries() {
        return None;
    }
    let reached = run.ask.reached(&difference)?;
    Some(difference - reached)
}

/// The conflicted state subgraph: what lies between two events of the conflicted state set, those included.
///
/// That is what lies in the chain of one and has another in its own chain.
fn subgraph(run: &mut Run<'_>, conflicted: &RoaringBitmap) -> Option<RoaringBitmap> {
    let mut below = RoaringBitmap::new();
    for number in conflicted.iter().map(EventNumber) {
        below |= run.ask.chain(number)?.numbers();
    }
    // Numbers rise along the chains: nothing below the lowest can lean on it.
    if let Some(lowest) = conflicted.min() {
        below.remove_range(..=lowest);
    }
    below -= conflicted;

    let eager = below.len() <= EAGER_MAX;
    let mut subgraph = RoaringBitmap::new();
    let mut incomplete = false;
    for number in below.iter().map(EventNumber) {
        match run.ask.chain(number) {
            Some(chain) if !chain.numbers().is_disjoint(conflicted) => {
                subgraph.insert(number.0);
            }
            Some(_) => {}
            None => {
                incomplete = true;
                if eager {
                    run.ask.event(number);
                }
            }
        }
    }
    (!incomplete).then_some(subgraph)
}

/// Finds the answer to [`Need::Reached`](super::Need::Reached) from the auth chains of the entries on which
/// the states agree, fed one after another and in any order.
///
/// Entries with the same chain may share one call for it.
#[derive(Clone, Debug)]
pub struct Reach {
    open: RoaringBitmap,
    reached: RoaringBitmap,
}

impl Reach {
    /// Nothing of what is asked for has been reached yet.
    pub fn new(asked: &RoaringBitmap) -> Self {
        Self {
            open: asked.clone(),
            reached: RoaringBitmap::new(),
        }
    }

    /// The lowest number still to be reached: entries below it need not be fed. `None` if all are reached.
    pub fn lowest(&self) -> Option<EventNumber> {
        self.open.min().map(EventNumber)
    }

    /// One more agreed entry.
    pub fn feed_entry(&mut self, entry: EventNumber) {
        if self.open.remove(entry.0) {
            self.reached.insert(entry.0);
        }
    }

    /// The auth chain of one more agreed entry.
    pub fn feed_chain(&mut self, chain: &AuthChain) {
        if !self.open.is_disjoint(chain.numbers()) {
            self.reached |= &self.open & chain.numbers();
            self.open -= chain.numbers();
        }
    }

    /// Of those that were asked for, the ones that are reached, once all entries were fed or
    /// [`lowest`](Self::lowest) is `None`.
    pub fn into_reached(self) -> RoaringBitmap {
        self.reached
    }
}
