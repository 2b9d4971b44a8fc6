//! What judging an event will probably want, read in as few lists as there are steps that depend on each
//! other: the trees level by level, the events in which they differ, what these lean on.

use std::{collections::BTreeSet, sync::Arc};

use pdu::{
    AuthSetHash, EventNumber,
    tree::{self, NodeHash},
};
use storage::NameHash;

use super::Judging;
use crate::{
    Rooms, Standing, StoredEvent,
    writer::{load, needs::Needs},
};

/// Events are read ahead only if they are at most so many.
const EVENTS_MAX: usize = 2_000;

/// The name of the auth chain that events make which allow another.
fn set_of(rooms: &Rooms, auth_events: &[Arc<StoredEvent>]) -> NameHash {
    if auth_events.is_empty() {
        return NameHash::NONE;
    }
    let numbers = auth_events.iter().map(|event| event.number);
    NameHash(AuthSetHash::of(rooms.storage().hash_key(), numbers).0)
}

/// The names of that chain, and of those that it is made of if it is new.
pub(super) fn chains_of(rooms: &Rooms, auth_events: &[Arc<StoredEvent>]) -> Vec<NameHash> {
    let chains = auth_events.iter().map(|event| event.header.chain);
    let all = chains.chain([set_of(rooms, auth_events)]);
    all.filter(|chain| *chain != NameHash::NONE).collect()
}

impl Judging<'_> {
    /// Asks for the auth chain of the event, and those that it is made of if it is new.
    pub(super) fn auth_chain_ahead(&self) {
        let hash = self.auth_set();
        if self.working.auth_sets.contains_key(&hash) {
            return;
        }
        let sets = self.auth_events.iter().map(|event| event.header.chain);
        let sets = std::iter::once(hash).chain(sets);
        self.room.chains_ahead(self.snapshot, sets);
    }

    /// The name of the event's auth chain.
    pub(super) fn auth_set(&self) -> NameHash {
        set_of(self.rooms, &self.auth_events)
    }

    /// Walks down the trees of the states before the event, of those that stand beside it, and of the
    /// current one, side by side; then asks for what lies where they differ.
    pub(super) async fn states_ahead(&mut self, before: &[[u8; 16]]) -> error::Result<()> {
        let mut roots: BTreeSet<_> = before.iter().copied().collect();
        if let Standing::Live { .. } = self.incoming.standing {
            roots.insert(self.head().root);
            roots.extend(self.beside().await?);
        }
        let roots: Vec<_> = roots.into_iter().map(NodeHash).collect();
        let keys = self.keys();
        let (_, wanted) = self.known_entries(before, &keys);
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(root, (kind, key))| (NodeHash(*root), self.room.tree_key(kind, key)))
            .collect();
        let walk = self.room.on_tree(self.snapshot, &mut self.nodes, |nodes| {
            Ok(tree::find(&wanted, nodes)?.and(tree::diff_all(&roots, nodes)?))
        });
        let (found, divergences) = walk.await?;
        let differing = divergences.iter().flat_map(|one| &one.values);
        let numbers: BTreeSet<EventNumber> =
            found.iter().chain(differing).flatten().copied().collect();
        if numbers.len() > EVENTS_MAX {
            return Ok(());
        }
        self.room
            .stored_events_ahead(self.snapshot, numbers.iter().copied());
        let (Some(first), false) = (before.first().copied(), divergences.is_empty()) else {
            return Ok(());
        };
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = self.room.stored_events(self.snapshot, &numbers).await?;
        self.surroundings_ahead(&events, first).await
    }

    /// Reads what judging and writing events will want that are in conflict: their auth events and auth
    /// chains, what the state holds under the keys that the rules name for them, people and servers.
    async fn surroundings_ahead(
        &mut self,
        events: &[Arc<StoredEvent>],
        root: [u8; 16],
    ) -> error::Result<()> {
        let (room, snapshot) = (self.room, self.snapshot);
        let chains: BTreeSet<_> = events.iter().map(|event| event.header.chain).collect();
        room.chains_ahead(snapshot, chains);
        let cited: BTreeSet<_> = events
            .iter()
            .flat_map(|one| &one.header.auth_events)
            .collect();
        let cited: Vec<_> = cited.into_iter().copied().collect();
        let keys = events
            .iter()
            .flat_map(|event| event.pdu.auth_types(room.rules));
        let keys: BTreeSet<_> = keys.collect();
        let wanted: Vec<_> = keys
            .iter()
            .map(|(kind, key)| (NodeHash(root), room.tree_key(kind, key)))
            .collect();
        let needs = Needs::of_changes(self.rooms.server_name(), events.iter());
        let (nodes, working) = (&mut self.nodes, &mut *self.working);
        let entries = async {
            let found = room.on_tree(snapshot, nodes, |nodes| tree::find(&wanted, nodes));
            room.stored_events_ahead(snapshot, found.await?.into_iter().flatten());
            Ok(())
        };
        let cited = async {
            room.auth_ahead(snapshot, &room.stored_events(snapshot, &cited).await?);
            Ok(())
        };
        // What the first two ask for goes with the last list of the third.
        let more = load::more(self.rooms, snapshot, working, &needs);
        tokio::try_join!(entries, cited, more)?;
        Ok(())
    }
}
