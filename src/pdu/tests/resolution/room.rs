//! A room in memory whose events are made from their parts.

use std::{collections::HashMap, sync::Arc};

use pdu::{
    AuthChain, EventNumber, Pdu, RoomRules,
    resolve::{Loaded, StateKey, StateMap},
};
use ruma::{OwnedEventId, room_version_rules::EventsReferenceFormatVersion};
use serde_json::{Value, json};

/// A room in memory. Its events are numbered in the order in which they came, with holes.
pub(crate) struct Room {
    pub(crate) rules: &'static RoomRules,
    events: Vec<Loaded>,
    numbers: HashMap<OwnedEventId, EventNumber>,
}

/// What an event is made of. Other events are named by their index.
#[derive(Clone, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) id: String,
    pub(crate) kind: &'a str,
    pub(crate) state_key: &'a str,
    pub(crate) sender: &'a str,
    pub(crate) content: Value,
    pub(crate) prevs: &'a [usize],
    pub(crate) auths: &'a [usize],
    pub(crate) time: u64,
    pub(crate) depth: u64,
    pub(crate) rejected: bool,
}

/// The number of the event that came as this one of the room, counted from 0.
pub(crate) fn number(index: usize) -> EventNumber {
    EventNumber(u32::try_from(index * 2 + 1).unwrap())
}

pub(crate) fn index(number: EventNumber) -> usize {
    (number.0 as usize - 1) / 2
}

impl Room {
    pub(crate) fn new(version: &str) -> Self {
        Self {
            rules: RoomRules::named(version).unwrap(),
            events: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    pub(crate) fn event(&self, index: usize) -> &Loaded {
        &self.events[index]
    }

    pub(crate) fn create(&self) -> EventNumber {
        number(0)
    }

    pub(crate) fn key(&self, number: EventNumber) -> StateKey {
        let pdu = &self.events[index(number)].pdu;
        (
            pdu.event_type().to_string().into(),
            pdu.state_key().unwrap().to_owned(),
        )
    }

    pub(crate) fn find(&self, id: &ruma::EventId) -> Option<&Loaded> {
        Some(self.event(index(*self.numbers.get(id)?)))
    }

    pub(crate) fn number_of(&self, id: &ruma::EventId) -> EventNumber {
        self.numbers[id]
    }

    /// Makes an event that follows those that are there.
    pub(crate) fn make(&self, parts: &Parts<'_>) -> Loaded {
        let mut event = json!({
            "type": parts.kind,
            "state_key": parts.state_key,
            "sender": parts.sender,
            "content": parts.content,
            "depth": parts.depth,
            "origin_server_ts": parts.time,
            "prev_events": self.references(parts.prevs),
            "auth_events": self.references(parts.auths),
            "hashes": { "sha256": "x" },
            "signatures": {},
        });
        if !self.rules.authorization.room_create_event_id_as_room_id {
            event["room_id"] = "!r:s0".into();
        } else if let Some(create) = self.events.first() {
            event["room_id"] = create.pdu.event_id().as_str().replace('$', "!").into();
        }
        if self.rules.events_reference_format == EventsReferenceFormatVersion::V1 {
            event["event_id"] = parts.id.as_str().into();
        }
        let id = OwnedEventId::try_from(parts.id.as_str()).unwrap();
        let bytes = serde_json::to_vec(&event).unwrap();
        let pdu = Pdu::from_stored(id, bytes.into(), self.rules, parts.rejected).unwrap();
        let chain = AuthChain::of(
            parts
                .auths
                .iter()
                .map(|&i| (number(i), &*self.event(i).chain)),
        );
        Loaded {
            pdu: Arc::new(pdu),
            auth_events: parts.auths.iter().copied().map(number).collect(),
            chain: Arc::new(chain),
        }
    }

    fn references(&self, indexes: &[usize]) -> Value {
        let hashes = || json!({ "sha256": "x" });
        let old = self.rules.events_reference_format == EventsReferenceFormatVersion::V1;
        let ids = indexes
            .iter()
            .map(|&index| self.event(index).pdu.event_id().as_str());
        ids.map(|id| {
            if old {
                json!([id, hashes()])
            } else {
                id.into()
            }
        })
        .collect()
    }

    /// Adds an event made before; its index.
    pub(crate) fn add(&mut self, event: Loaded) -> usize {
        let index = self.len();
        self.numbers
            .insert(event.pdu.event_id().to_owned(), number(index));
        self.events.push(event);
        index
    }

    /// Adds an event that cites what `state` holds for it. Its index.
    pub(crate) fn send(
        &mut self,
        (kind, state_key): (&str, &str),
        sender: &str,
        content: Value,
        state: &mut StateMap<EventNumber>,
    ) -> usize {
        let mut parts = Parts {
            id: self.id(self.len()),
            kind,
            state_key,
            sender,
            content,
            prevs: &[],
            auths: &[],
            time: self.len() as u64,
            depth: self.len() as u64,
            rejected: false,
        };
        let auths = self.select_auths(&self.make(&parts), state);
        let before = self.len().checked_sub(1);
        let prevs: Vec<_> = before.into_iter().collect();
        parts.auths = &auths;
        parts.prevs = &prevs;
        let event = self.make(&parts);
        let index = self.add(event);
        state.insert(self.key(number(index)), number(index));
        index
    }

    /// An id for the event with this index.
    pub(crate) fn id(&self, index: usize) -> String {
        if self.rules.events_reference_format == EventsReferenceFormatVersion::V1 {
            format!("$e{index:042}:s{}", index % 3)
        } else {
            format!("${index:043}")
        }
    }

    /// The auth events that an event should have in a state, by index.
    pub(crate) fn select_auths(&self, event: &Loaded, state: &StateMap<EventNumber>) -> Vec<usize> {
        let keys = event.pdu.auth_types(self.rules);
        let mut auths: Vec<_> = keys
            .iter()
            .filter_map(|key| state.get(key).copied())
            .collect();
        auths.sort();
        auths.into_iter().map(index).collect()
    }
}
