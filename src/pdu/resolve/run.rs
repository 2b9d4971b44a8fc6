//! One pass of a resolution: what it starts from, looks up again and again, and ends with.

use std::collections::{BTreeSet, HashMap};

use ruma::events::StateEventType;

use super::{
    Candidates, Differences, Resolution, StateKey,
    facts::{Ask, EventFact, Facts},
    reset,
};
use crate::{EventNumber, RoomRules};

/// One pass over the facts.
pub(super) struct Run<'a> {
    pub(super) rules: &'a RoomRules,
    pub(super) differences: &'a Differences,
    pub(super) ask: Ask<'a>,
    /// The keys of the differences, once the events under them are known.
    keys: HashMap<&'a StateKey, &'a Candidates>,
    /// The agreed entries that were looked at.
    pub(super) agreed: BTreeSet<EventNumber>,
}

/// State as far as it is resolved: what was put over the agreed entries.
pub(super) type Resolved<'a> = HashMap<&'a StateKey, EventNumber>;

impl<'a> Run<'a> {
    pub(super) fn new(
        rules: &'a RoomRules,
        differences: &'a Differences,
        facts: &'a Facts,
    ) -> Self {
        Self {
            rules,
            differences,
            ask: Ask::new(facts),
            keys: HashMap::new(),
            agreed: BTreeSet::new(),
        }
    }

    /// Everything under the differing keys, each with its chain; `None` if some of it is not known yet.
    ///
    /// From here on the differing keys are known.
    pub(super) fn load_candidates(&mut self) -> Option<()> {
        for candidates in self.differing() {
            for number in candidates.iter().copied().flatten() {
                self.ask.chain(number);
                if let Some(key) = self.ask.event(number).and_then(|event| event.key.as_ref()) {
                    self.keys.insert(key, candidates);
                }
            }
        }
        self.ask.is_content().then_some(())
    }

    /// What the states hold under each key on which they do not agree.
    pub(super) fn differing(&self) -> impl Iterator<Item = &'a Candidates> + use<'a> {
        let entries = self.differences.entries.iter();
        entries.filter(|candidates| agreement(candidates).is_none())
    }

    /// What each of the states holds under this key, if they differ there.
    pub(super) fn candidates(&self, key: &StateKey) -> Option<&'a Candidates> {
        self.keys.get(key).copied()
    }

    /// What all states hold under a key; the outer `None` if it is not known yet.
    ///
    /// Nothing where they differ. The event is asked for as well.
    pub(super) fn agreed(&mut self, key: &StateKey) -> Option<Option<EventNumber>> {
        if self.keys.contains_key(key) {
            return Some(None);
        }
        let number = self.ask.entry(key)?;
        if let Some(number) = number
            && self.agreed.insert(number)
        {
            self.ask.event(number);
        }
        Some(number)
    }

    /// Asks for all that may be looked at when the auth rules are applied to an event: its auth events, and
    /// the agreed entries under its own key and, if they count, under those that the rules name.
    pub(super) fn load_surroundings(&mut self, number: EventNumber, agreed_count: bool) {
        let Some(event) = self.ask.event(number) else {
            return;
        };
        for &auth_event in &event.auth_events {
            self.ask.event(auth_event);
        }
        if self.rules.authorization.room_create_event_id_as_room_id {
            self.ask.event(self.differences.create);
        }
        if let Some(key) = &event.key {
            self.agreed(key);
        }
        if agreed_count {
            for key in event.auth_keys(self.rules) {
                self.agreed(key);
            }
        }
    }

    /// The event with this type and an empty state key among the auth events of an event; the outer `None`
    /// if not all of them are known yet.
    pub(super) fn find_auth_event(
        &mut self,
        event: &EventFact,
        event_type: &StateEventType,
    ) -> Option<Option<(EventNumber, &'a EventFact)>> {
        let mut found = None;
        let mut unknown = false;
        for &number in &event.auth_events {
            match self.ask.event(number) {
                Some(event) if event.is(event_type) => found = Some((number, event)),
                Some(_) => {}
                None => unknown = true,
            }
        }
        (!unknown).then_some(found)
    }

    /// Puts the result together from what was resolved for the keys in conflict.
    pub(super) fn finish(&mut self, resolved: &Resolved<'a>) -> Resolution {
        let winners: Vec<_> = self
            .differences
            .entries
            .iter()
            .map(|candidates| {
                agreement(candidates).or_else(|| {
                    let held = candidates.iter().copied().flatten().next()?;
                    resolved.get(self.ask.event(held)?.key.as_ref()?).copied()
                })
            })
            .collect();
        let mut added: Vec<_> = resolved
            .iter()
            .filter(|(key, _)| {
                self.candidates(key).is_none() && self.ask.entry(key).flatten().is_none()
            })
            .map(|(_, number)| *number)
            .collect();
        added.sort_unstable();
        let resets = reset::find(self, &winners);
        Resolution {
            winners,
            added,
            resets,
        }
    }
}

/// What all of the states hold, if they hold the same.
pub(super) fn agreement(candidates: &Candidates) -> Option<EventNumber> {
    let (first, others) = candidates.split_first()?;
    others
        .iter()
        .all(|other| other == first)
        .then_some(*first)
        .flatten()
}
