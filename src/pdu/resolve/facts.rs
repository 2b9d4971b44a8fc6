//! What a resolution asks for and what it was told.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, OnceLock},
};

use roaring::RoaringBitmap;
use ruma::events::StateEventType;
use smallvec::SmallVec;

use super::StateKey;
use crate::{AuthChain, EventNumber, Pdu, RoomRules};

/// What a resolution asks for. See the [module](super::resolve).
#[derive(Clone, Debug, PartialEq)]
pub enum Need {
    /// The event with this number, and its auth events.
    Event(EventNumber),
    /// The auth chain of the event with this number.
    Chain(EventNumber),
    /// What the states hold under this key, under which they do not differ.
    Entry(StateKey),
    /// Which of these events are among the entries on which the states agree, or in the auth chain of one.
    Reached(RoaringBitmap),
}

/// What a resolution has been told so far. Facts of another room or other states must not be mixed in.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    events: HashMap<EventNumber, EventFact>,
    chains: HashMap<EventNumber, Arc<AuthChain>>,
    entries: HashMap<StateKey, Option<EventNumber>>,
    asked: RoaringBitmap,
    reached: RoaringBitmap,
}

/// An event, and what of it is needed again and again.
#[derive(Clone, Debug)]
pub(super) struct EventFact {
    pub(super) pdu: Arc<Pdu>,
    pub(super) auth_events: SmallVec<[EventNumber; 6]>,
    /// `None` for what is no state event. Such an event may be cited by a broken one, but is never state.
    pub(super) key: Option<StateKey>,
    auth_keys: OnceLock<Vec<StateKey>>,
}

impl Facts {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer to [`Need::Event`], with the numbers of the event's auth events.
    pub fn add_event(&mut self, number: EventNumber, pdu: Arc<Pdu>, auth_events: &[EventNumber]) {
        let fact = EventFact {
            key: state_key(&pdu),
            pdu,
            auth_events: auth_events.into(),
            auth_keys: OnceLock::new(),
        };
        self.events.insert(number, fact);
    }

    /// The answer to [`Need::Chain`]: the auth chain of the event with this number. Events with the same
    /// chain are best given the same `Arc`.
    pub fn add_chain(&mut self, number: EventNumber, chain: Arc<AuthChain>) {
        self.chains.insert(number, chain);
    }

    /// The answer to [`Need::Entry`]; `None` if the states hold nothing there.
    pub fn add_entry(&mut self, key: StateKey, number: Option<EventNumber>) {
        self.entries.insert(key, number);
    }

    /// The answer to [`Need::Reached`]: of all that were asked for, those that are reached.
    pub fn add_reached(&mut self, asked: &RoaringBitmap, reached: &RoaringBitmap) {
        self.asked |= asked;
        self.reached |= reached & asked;
    }
}

/// The key under which an event stands in the state; `None` for what is no state event.
pub(super) fn state_key(pdu: &Pdu) -> Option<StateKey> {
    let (event_type, state_key) = pdu.state_slot()?;
    Some((event_type, state_key.to_owned()))
}

impl EventFact {
    /// Whether the event was rejected: then it vouches for no other.
    pub(super) fn is_rejected(&self) -> bool {
        self.pdu.rejected()
    }

    /// The keys of the state that the auth rules look at for this event.
    pub(super) fn auth_keys(&self, rules: &RoomRules) -> &[StateKey] {
        self.auth_keys.get_or_init(|| self.pdu.auth_types(rules))
    }

    /// Whether this is the state event with this type and an empty state key.
    pub(super) fn is(&self, event_type: &StateEventType) -> bool {
        self.key
            .as_ref()
            .is_some_and(|key| key.0 == *event_type && key.1.is_empty())
    }
}

/// Looks facts up, and remembers those that were not there.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    facts: &'a Facts,
    events: BTreeSet<EventNumber>,
    chains: BTreeSet<EventNumber>,
    entries: BTreeSet<StateKey>,
    reached: RoaringBitmap,
}

impl<'a> Ask<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self {
            facts,
            events: BTreeSet::new(),
            chains: BTreeSet::new(),
            entries: BTreeSet::new(),
            reached: RoaringBitmap::new(),
        }
    }

    pub(super) fn event(&mut self, number: EventNumber) -> Option<&'a EventFact> {
        let fact = self.facts.events.get(&number);
        if fact.is_none() {
            self.events.insert(number);
        }
        fact
    }

    pub(super) fn chain(&mut self, number: EventNumber) -> Option<&'a Arc<AuthChain>> {
        let chain = self.facts.chains.get(&number);
        if chain.is_none() {
            self.chains.insert(number);
        }
        chain
    }

    pub(super) fn entry(&mut self, key: &StateKey) -> Option<Option<EventNumber>> {
        let entry = self.facts.entries.get(key).copied();
        if entry.is_none() && !self.entries.contains(key) {
            self.entries.insert(key.clone());
        }
        entry
    }

    /// Those of the numbers that are among the agreed entries or in a chain of one.
    pub(super) fn reached(&mut self, numbers: &RoaringBitmap) -> Option<RoaringBitmap> {
        if numbers.is_subset(&self.facts.asked) {
            return Some(numbers & &self.facts.reached);
        }
        self.reached |= numbers - &self.facts.asked;
        None
    }

    /// Whether an entry was looked for and is not known yet, or may be once its event is.
    pub(super) fn lacks_entries(&self) -> bool {
        !self.entries.is_empty() || !self.events.is_empty()
    }

    /// Whether all that was looked for was there.
    pub(super) fn is_content(&self) -> bool {
        self.events.is_empty()
            && self.chains.is_empty()
            && self.entries.is_empty()
            && self.reached.is_empty()
    }

    pub(super) fn into_needs(self) -> Vec<Need> {
        let events = self.events.into_iter().map(Need::Event);
        let chains = self.chains.into_iter().map(Need::Chain);
        let entries = self.entries.into_iter().map(Need::Entry);
        let reached = (!self.reached.is_empty()).then_some(Need::Reached(self.reached));
        events.chain(chains).chain(entries).chain(reached).collect()
    }
}
