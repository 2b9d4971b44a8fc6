//! What the writer knows of its room from one batch to the next.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use pdu::{AuthChain, EventNumber, tree::Nodes};
use ruma::{OwnedEventId, OwnedServerName, OwnedUserId, events::StateEventType};
use storage::{
    NameHash, ShortUserId, Value,
    schema::{Head, ServerRow, ThreadRow},
};

use super::graph::Graph;
use crate::{Group, Room, StateKey, StoredEvent, directory::Listing};

/// How much of a room's state its writer remembers, in entries.
const STATE_MAX: usize = 2_000;
/// How many nodes, auth sets, people and servers it remembers, each.
const CACHED_MAX: usize = 4_000;

/// What the writer knows of its room while it fills a batch.
#[derive(Debug)]
pub(crate) struct Working {
    pub(crate) room: Arc<Room>,
    /// Our name.
    pub(crate) server_name: OwnedServerName,
    pub(crate) head: Head,
    /// The head's bytes as stored; none for a room that is about to be made.
    pub(crate) head_raw: Option<Bytes>,
    /// Entries of the current state; `None` where there is known to be none.
    pub(crate) state: HashMap<StateKey, Option<Arc<StoredEvent>>>,
    pub(crate) nodes: Nodes,
    /// Auth sets by their hash; those known to be stored already have `true`.
    pub(crate) auth_sets: HashMap<NameHash, (Arc<AuthChain>, bool)>,
    pub(crate) users: HashMap<OwnedUserId, Option<LocalUser>>,
    pub(crate) servers: HashMap<OwnedServerName, ServerRow>,
    /// Events that drafts name; `None` where they are known not to be in this room.
    pub(crate) events: HashMap<OwnedEventId, Option<Arc<StoredEvent>>>,
    pub(crate) threads: HashMap<EventNumber, ThreadRow>,
    /// The room's row in the directory; none if that was not read yet.
    pub(crate) listing: Option<Listing>,
    /// For an event that came in: those that it names.
    pub(crate) graph: Graph,
    /// Answers of once keys.
    pub(crate) once: BTreeMap<NameHash, Vec<OwnedEventId>>,
    /// People who came into the room (`true`) or left it, in the batch that is being filled.
    pub(crate) moved: Vec<(ShortUserId, bool)>,
    /// Other servers of which nobody was in the room before that batch, and somebody is now.
    pub(crate) joined_servers: Vec<OwnedServerName>,
}

/// A person of ours.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalUser {
    pub(crate) short: ShortUserId,
}

impl Working {
    pub(crate) fn new(
        room: Arc<Room>,
        server_name: OwnedServerName,
        head: Head,
        head_raw: Option<Bytes>,
    ) -> Self {
        Self {
            room,
            server_name,
            head,
            head_raw,
            state: HashMap::new(),
            nodes: Nodes::new(),
            auth_sets: HashMap::new(),
            users: HashMap::new(),
            servers: HashMap::new(),
            events: HashMap::new(),
            threads: HashMap::new(),
            listing: None,
            graph: Graph::default(),
            once: BTreeMap::new(),
            moved: Vec::new(),
            joined_servers: Vec::new(),
        }
    }

    /// The current state's event under a key, if that is known and there is one.
    pub(crate) fn current(
        &self,
        event_type: &StateEventType,
        state_key: &str,
    ) -> Option<&Arc<StoredEvent>> {
        self.state
            .get(&(event_type.clone(), state_key.to_owned()))?
            .as_ref()
    }

    /// The batch was written: what is known now is what is stored.
    pub(crate) fn committed(&mut self) {
        self.head_raw = Some(self.head.encode().into());
        if let Some(listing) = &mut self.listing {
            listing.committed();
        }
        for (_, stored) in self.auth_sets.values_mut() {
            *stored = true;
        }
        // What others may change between two batches is not remembered.
        self.events.clear();
        self.once.clear();
        self.moved.clear();
        self.joined_servers.clear();
        self.users.retain(|_, user| user.is_some());
        if self.state.len() > STATE_MAX {
            self.state.clear();
        }
        if self.nodes.len() > CACHED_MAX {
            self.nodes = Nodes::new();
        }
        if self.auth_sets.len() > CACHED_MAX {
            self.auth_sets.clear();
        }
        if self.users.len() > CACHED_MAX {
            self.users.clear();
        }
        if self.servers.len() > CACHED_MAX {
            self.servers.clear();
        }
        if self.threads.len() > CACHED_MAX {
            self.threads.clear();
        }
    }

    /// What was answered to this group before, if it was sent before.
    pub(crate) fn answers(&self, group: &Group) -> Vec<OwnedEventId> {
        group
            .once
            .and_then(|once| self.once.get(&once.name))
            .cloned()
            .unwrap_or_default()
    }

    /// Whether this group was sent before, as far as was looked.
    pub(crate) fn was_sent(&self, group: &Group) -> bool {
        group
            .once
            .is_some_and(|once| self.once.contains_key(&once.name))
    }

    /// Remembers the answer to a group, for a second one with the same once key in the same batch.
    pub(crate) fn remember(&mut self, group: &Group, ids: &[OwnedEventId]) {
        if let Some(once) = group.once {
            self.once.insert(once.name, ids.to_vec());
        }
    }
}
