//! Rooms and events for the tests of this crate.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{cell::Cell, collections::HashMap, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, RoomId, UInt, UserId,
    events::StateEventType, server_name,
};
use serde_json::{Value as Json, json, value::to_raw_value};

use crate::{
    AuthError, Draft, Pdu, PduError, RoomRules, SigningKey, check_auth, check_auth_without_state,
};

/// The seed of the spec's test vectors.
pub(crate) const SEED: &str = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

/// All room versions by number.
pub(crate) const VERSIONS: [&str; 12] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
];

pub(crate) fn spec_key() -> SigningKey {
    SigningKey::from_stored(&format!("ed25519 1 {SEED}")).unwrap()
}

pub(crate) fn rules(version: &str) -> &'static RoomRules {
    RoomRules::named(version).unwrap()
}

/// The versions from one to another, both included.
pub(crate) fn versions(from: usize, to: usize) -> impl Iterator<Item = &'static str> {
    VERSIONS.into_iter().skip(from - 1).take(to + 1 - from)
}

/// A room: its create event and a state to check events against.
pub(crate) struct Room {
    pub(crate) rules: &'static RoomRules,
    pub(crate) create: Arc<Pdu>,
    pub(crate) state: HashMap<(StateEventType, String), Arc<Pdu>>,
    made: Cell<u64>,
}

/// An event to make in a [`Room`].
#[derive(Clone)]
pub(crate) struct Make {
    pub(crate) sender: String,
    pub(crate) event_type: String,
    pub(crate) state_key: Option<String>,
    pub(crate) content: Json,
    pub(crate) prev_events: Option<Vec<OwnedEventId>>,
    pub(crate) redacts: Option<OwnedEventId>,
}

impl Make {
    pub(crate) fn message(sender: &str, event_type: &str, content: Json) -> Self {
        Self {
            sender: sender.to_owned(),
            event_type: event_type.to_owned(),
            state_key: None,
            content,
            prev_events: None,
            redacts: None,
        }
    }

    pub(crate) fn state(sender: &str, event_type: &str, state_key: &str, content: Json) -> Self {
        let state_key = Some(state_key.to_owned());
        Self {
            state_key,
            ..Self::message(sender, event_type, content)
        }
    }
}

impl Room {
    /// A room with nothing but its create event, by `@creator:a`.
    pub(crate) fn new(version: &str) -> Self {
        Self::with_create(version, "@creator:a", &json!({ "creator": "@creator:a" }))
    }

    pub(crate) fn with_create(version: &str, creator: &str, content: &Json) -> Self {
        let rules = rules(version);
        let create = Self::draft_create(version, creator, content)
            .sign(rules, &spec_key(), server_name!("a"))
            .unwrap();
        Self {
            rules,
            create: create.into(),
            state: HashMap::new(),
            made: Cell::new(0),
        }
    }

    pub(crate) fn draft_create(version: &str, creator: &str, content: &Json) -> Draft {
        Draft {
            room_id: (!rules(version).room_id_is_create_event_id())
                .then(|| RoomId::parse("!room:a").unwrap()),
            sender: UserId::parse(creator).unwrap(),
            event_type: "m.room.create".into(),
            state_key: Some(String::new()),
            content: to_raw_value(content).unwrap(),
            prev_events: Vec::new(),
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_000_000_u32)),
            redacts: None,
            reference_hashes: Default::default(),
        }
    }

    pub(crate) fn room_id(&self) -> OwnedRoomId {
        self.create.room_id().to_owned()
    }

    pub(crate) fn draft(&self, make: &Make) -> Draft {
        self.made.set(self.made.get() + 1);
        let sender = UserId::parse(make.sender.as_str()).unwrap();
        let content = to_raw_value(&make.content).unwrap();
        let event_type = make.event_type.as_str().into();
        let slots = crate::auth_types(
            &event_type,
            &sender,
            make.state_key.as_deref(),
            &content,
            self.rules,
        );
        let auth_events = slots
            .iter()
            .filter_map(|slot| match slot.0 {
                StateEventType::RoomCreate => Some(self.create.event_id().to_owned()),
                _ => Some(self.state.get(slot)?.event_id().to_owned()),
            })
            .collect();
        let other = if self.rules.has_event_id_field() {
            "$other:a"
        } else {
            "$other"
        };
        Draft {
            room_id: Some(self.room_id()),
            sender,
            event_type,
            state_key: make.state_key.clone(),
            content,
            prev_events: make
                .prev_events
                .clone()
                .unwrap_or_else(|| vec![EventId::parse(other).unwrap()]),
            auth_events,
            depth: 1 + self.made.get(),
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::try_from(self.made.get()).unwrap()),
            redacts: make.redacts.clone(),
            reference_hashes: Default::default(),
        }
    }

    pub(crate) fn try_make(&self, make: &Make) -> Result<Pdu, PduError> {
        let draft = self.draft(make);
        let server = draft.sender.server_name().to_owned();
        draft.sign(self.rules, &spec_key(), &server)
    }

    pub(crate) fn make(&self, make: &Make) -> Pdu {
        self.try_make(make).unwrap()
    }

    /// Puts an event into the state, whether it is allowed or not.
    pub(crate) fn put(&mut self, make: &Make) -> Arc<Pdu> {
        let pdu = Arc::new(self.make(make));
        let (event_type, state_key) = pdu.state_slot().unwrap();
        self.state
            .insert((event_type, state_key.to_owned()), pdu.clone());
        pdu
    }

    pub(crate) fn put_state(&mut self, sender: &str, event_type: &str, key: &str, content: Json) {
        self.put(&Make::state(sender, event_type, key, content));
    }

    pub(crate) fn put_member(&mut self, user: &str, membership: &str) {
        self.put_state(
            user,
            "m.room.member",
            user,
            json!({ "membership": membership }),
        );
    }

    pub(crate) fn find(&self, event_type: &StateEventType, state_key: &str) -> Option<Arc<Pdu>> {
        self.state
            .get(&(event_type.clone(), state_key.to_owned()))
            .cloned()
    }

    pub(crate) fn check(&self, pdu: &Pdu) -> Result<(), AuthError> {
        check_auth(pdu, self.rules, &self.create, |t, k| self.find(t, k))
    }

    pub(crate) fn check_made(&self, make: &Make) -> Result<(), AuthError> {
        self.check(&self.make(make))
    }

    /// Checks against the room's events by ID.
    pub(crate) fn check_without_state(&self, pdu: &Pdu) -> Result<(), AuthError> {
        check_auth_without_state(pdu, self.rules, |id| {
            if id == self.create.event_id() {
                return Some(self.create.clone());
            }
            self.state
                .values()
                .find(|event| event.event_id() == id)
                .cloned()
        })
    }
}
