//! Room state: from the trees, at any root.

use std::collections::HashMap;

use pdu::{
    EventNumber, Step,
    tree::{self, Difference, NodeHash, Nodes, StateKeyHash, TreeError},
};
use ruma::events::StateEventType;
use storage::{NameHash, Range, Snapshot, schema};

use crate::{Room, Rooms, writer::flat_key};

/// A key of a room's state: event type and state key.
pub type StateKey = (StateEventType, String);

impl Room {
    /// The hash under which this room's trees hold a state key.
    pub fn tree_key(&self, event_type: &StateEventType, state_key: &str) -> StateKeyHash {
        StateKeyHash::new(&self.tree_key, &event_type.to_string(), state_key)
    }

    /// Loads nodes of this room's trees.
    pub(crate) async fn load_nodes(
        &self,
        snapshot: &Snapshot,
        wanted: &[NodeHash],
        nodes: &mut Nodes,
    ) -> error::Result<()> {
        let keys: Vec<_> = wanted.iter().map(|hash| (self.short, hash.0)).collect();
        let rows = snapshot.multi_get(&schema::NODE_BY_HASH, &keys).await?;
        for (hash, row) in wanted.iter().zip(rows) {
            let row = row.ok_or_else(|| {
                error::internal(format!(
                    "the state node {hash:?} of {} is missing",
                    self.room_id
                ))
            })?;
            nodes.insert(*hash, &row.value.0).map_err(error::internal)?;
        }
        Ok(())
    }

    /// Runs an algorithm on this room's trees, loading what it asks for, until it is done.
    pub(crate) async fn on_tree<T>(
        &self,
        snapshot: &Snapshot,
        nodes: &mut Nodes,
        mut algorithm: impl FnMut(&Nodes) -> Result<Step<T, NodeHash>, TreeError>,
    ) -> error::Result<T> {
        loop {
            match algorithm(nodes).map_err(error::internal)? {
                Step::Done(result) => return Ok(result),
                Step::Need(wanted) => self.load_nodes(snapshot, &wanted, nodes).await?,
            }
        }
    }

    /// What stands under some keys in the states of some roots: every key in every root.
    pub async fn find_state(
        &self,
        snapshot: &Snapshot,
        roots: &[[u8; 16]],
        keys: &[StateKey],
    ) -> error::Result<HashMap<([u8; 16], StateKey), EventNumber>> {
        let hashes: Vec<_> = keys.iter().map(|(t, k)| self.tree_key(t, k)).collect();
        let wanted: Vec<_> = roots
            .iter()
            .flat_map(|root| hashes.iter().map(|hash| (NodeHash(*root), *hash)))
            .collect();
        let mut nodes = Nodes::new();
        let found = self
            .on_tree(snapshot, &mut nodes, |nodes| tree::find(&wanted, nodes))
            .await?;
        let asked = roots
            .iter()
            .flat_map(|root| keys.iter().map(|key| (*root, key.clone())));
        Ok(asked
            .zip(found)
            .filter_map(|(asked, number)| Some((asked, number?)))
            .collect())
    }

    /// Everything that a root's state holds: the numbers of its events.
    pub async fn whole_state(
        &self,
        snapshot: &Snapshot,
        root: [u8; 16],
    ) -> error::Result<Vec<EventNumber>> {
        let mut nodes = Nodes::new();
        let entries = self
            .on_tree(snapshot, &mut nodes, |nodes| {
                tree::entries(NodeHash(root), nodes)
            })
            .await?;
        Ok(entries.into_iter().map(|(_, number)| number).collect())
    }

    /// Where two roots' states differ, and what stands there in each of them. Reads only the paths to what
    /// differs.
    pub async fn state_difference(
        &self,
        snapshot: &Snapshot,
        left: [u8; 16],
        right: [u8; 16],
    ) -> error::Result<Vec<Difference>> {
        if left == right {
            return Ok(Vec::new());
        }
        let mut nodes = Nodes::new();
        self.on_tree(snapshot, &mut nodes, |nodes| {
            tree::diff(NodeHash(left), NodeHash(right), nodes)
        })
        .await
    }

    /// The current state, of one type if one is named.
    pub(crate) async fn current_of_type(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: schema::Generation,
        event_type: Option<&str>,
    ) -> error::Result<Vec<EventNumber>> {
        let range = match event_type {
            None => Range::prefix(&(self.short, generation)),
            Some(event_type) => {
                let key = flat_key(rooms.storage(), self.short, generation, event_type, "");
                Range::prefix(&(self.short, generation, key.2))
            }
        };
        let rows = snapshot
            .multi_range(&schema::STATE_BY_ROOM, &[range])
            .await?;
        let rows = rows.into_iter().flatten();
        Ok(rows.map(|(_, row)| row.value).collect())
    }

    /// The current state, or what of it are no member events, which are most of it in large rooms. One
    /// round trip.
    pub async fn current_entries(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: schema::Generation,
        with_members: bool,
    ) -> error::Result<Vec<EventNumber>> {
        let member = flat_key(rooms.storage(), self.short, generation, "m.room.member", "");
        let all = Range::prefix(&(self.short, generation));
        let first = (self.short, generation, member.2, NameHash([0; 16]));
        let last = (self.short, generation, member.2, NameHash([u8::MAX; 16]));
        let ranges = if with_members {
            vec![all]
        } else {
            vec![all.clone().before(&first), all.after(&last)]
        };
        let rows = snapshot
            .multi_range(&schema::STATE_BY_ROOM, &ranges)
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value)
            .collect())
    }
}
