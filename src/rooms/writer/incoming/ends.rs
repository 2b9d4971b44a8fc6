//! Which ends of the graph an event that came in follows.
//!
//! An event that is rejected or soft-failed takes no ends away from the graph; one that follows it does, for it
//! follows them too. So of such an event it is kept which accepted ones it follows.

use std::collections::BTreeSet;

use pdu::EventNumber;
use ruma::OwnedEventId;
use smallvec::SmallVec;
use storage::{
    Snapshot,
    schema::{self, Extremity, Outcome},
};

use super::Judging;
use crate::{
    Room,
    writer::{Way, graph::GraphEvent},
};

/// So many events are kept that one follows which was not accepted, at most.
const BEHIND_MAX: usize = 200;

/// Whether an event stands in the graph as one that others may follow.
fn is_accepted(event: &GraphEvent) -> bool {
    let verdict = event.verdict.as_ref();
    event.roots.is_some() && verdict.is_none_or(|one| one.outcome == Outcome::Accepted)
}

/// What an event follows, as far as its prev events are here.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Accepted events.
    pub(super) accepted: BTreeSet<EventNumber>,
    /// Such as were not: what these follow is not known yet.
    unaccepted: Vec<EventNumber>,
    /// Those of its prev events that are not here, or not accepted: if they come, or are sent again, they are no
    /// ends of the graph.
    pub(super) passed_over: Vec<OwnedEventId>,
}

impl Followed {
    pub(super) fn of<'a>(
        prev: &[OwnedEventId],
        known: impl Fn(&OwnedEventId) -> Option<&'a GraphEvent>,
    ) -> Self {
        let mut followed = Self::default();
        for id in prev {
            let event = known(id);
            match event {
                Some(event) if is_accepted(event) => {
                    followed.accepted.insert(event.event.number);
                    continue;
                }
                Some(event) => followed.unaccepted.push(event.event.number),
                None => {}
            }
            followed.passed_over.push(id.clone());
        }
        followed
    }

    /// Looks what those follow that were not accepted. One round trip, for nearly all none.
    pub(super) async fn look_behind(
        mut self,
        room: &Room,
        snapshot: &Snapshot,
    ) -> error::Result<Self> {
        if self.unaccepted.is_empty() {
            return Ok(self);
        }
        let keys = self.unaccepted.iter().map(|number| (room.short, *number));
        let keys: Vec<_> = keys.collect();
        let rows = snapshot
            .multi_get(&schema::ENDS_BEHIND_EVENT, &keys)
            .await?;
        let behind = rows.into_iter().flatten().flat_map(|row| row.value.events);
        self.accepted.extend(behind);
        Ok(self)
    }

    /// What is kept of it, should the event not be accepted: the latest.
    pub(super) fn behind(&self) -> schema::EndsBehind {
        let latest = self.accepted.iter().rev().take(BEHIND_MAX);
        schema::EndsBehind {
            events: latest.copied().collect(),
        }
    }
}

impl Judging<'_> {
    /// Whether nothing accepted follows the event yet. What stands in the current state though it was nobody's
    /// event so far, only a part of the state that another server told, has been followed since.
    pub(super) fn is_end(&self) -> bool {
        let key = self.own_key();
        let current = key.and_then(|key| self.working.state.get(&key)?.clone());
        let is_current = current.is_some_and(|event| Some(event.number) == self.known_as);
        !self.is_followed && !is_current
    }

    /// The forward extremities that the event does not follow.
    pub(super) fn others(&self) -> SmallVec<[Extremity; 1]> {
        if let Way::Entering { .. } = self.way {
            return SmallVec::new();
        }
        let mut extremities = self.head().extremities.clone();
        extremities.retain(|one| !self.followed.accepted.contains(&one.number));
        extremities
    }
}
