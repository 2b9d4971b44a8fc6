//! Changes of the current state that are too large for one commit.
//!
//! The flat tables of the state after the change are written as a new generation, in as many commits as it
//! takes: nobody reads them. The commit of the event then names the new generation in the room's head, on
//! the condition that the head is what it was. The old one is taken away by a job.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use pdu::{
    EventNumber,
    tree::{self, NodeHash, Nodes},
};
use ruma::{OwnedServerName, UserId, events::StateEventType};
use serde::{Deserialize, Serialize};
use storage::{
    Batch, NameHash, Range, Raw, ShortRoomId, Snapshot, Topic,
    schema::{
        self, Generation, JobRow, MemberRow, Membership, RemoteRoomRow, ServerRow, Visibility,
    },
};

use super::{judge::visibility_of, load::flat_key};
use crate::{Room, Rooms, StoredEvent};

/// The kind of the jobs that take an old generation away.
pub(crate) const DROP_GENERATION: &str = "drop generation";

/// Rows that are written together, well below what a batch may hold.
const ROWS_AT_ONCE: usize = 1_000;

/// What the head says of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) generation: Generation,
    pub(crate) joined: u64,
    pub(crate) invited: u64,
    pub(crate) visibility: Visibility,
    pub(crate) servers: HashMap<OwnedServerName, ServerRow>,
    /// Whether somebody of ours was in the room by the old generation.
    pub(crate) was_here: bool,
}

/// The body of a job that takes an old generation away.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct OldGeneration {
    pub(crate) room: ShortRoomId,
    pub(crate) generation: Generation,
}

/// Writes the nodes of a state and its flat tables as the generation after `old`. `unstored` is an event of
/// the state that is not stored yet.
pub(super) async fn write(
    rooms: &Rooms,
    room: &Room,
    root: [u8; 16],
    new_nodes: &[(NodeHash, Vec<u8>)],
    old: Generation,
    unstored: Option<&Arc<StoredEvent>>,
) -> error::Result<Written> {
    let generation = old.wrapping_add(1);
    let mut writing = Writing {
        rooms,
        room,
        written: Written {
            generation,
            joined: 0,
            invited: 0,
            visibility: Visibility::Shared,
            servers: HashMap::new(),
            was_here: false,
        },
        batch: Batch::new(),
        rows: 0,
        lasting: HashSet::new(),
    };
    // What a crash may have left behind.
    drop_generation(&mut writing.batch, room.short, generation);
    let mut nodes = Nodes::new();
    for (hash, bytes) in new_nodes {
        nodes.insert(*hash, bytes).map_err(error::internal)?;
        let key = (room.short, hash.0);
        writing
            .batch
            .put(&schema::NODE_BY_HASH, &key, &Raw(bytes.clone().into()));
        writing.next().await?;
    }
    let snapshot = rooms.snapshot().await?;
    let entries = room
        .on_tree(&snapshot, &mut nodes, |nodes| {
            tree::entries(NodeHash(root), nodes)
        })
        .await?;
    let numbers: Vec<_> = entries
        .into_iter()
        .map(|(_, number)| number)
        .filter(|number| unstored.is_none_or(|event| event.number != *number))
        .collect();
    let own = rooms.storage().server_hash(rooms.server_name());
    let own = [(room.short, old, own)];
    let own = snapshot.multi_get(&schema::SERVER_BY_ROOM, &own).await?;
    let own = own.into_iter().flatten().next();
    writing.written.was_here = own.is_some_and(|row| row.value.joined > 0);
    if let Some(unstored) = unstored {
        let events = std::slice::from_ref(unstored);
        writing.events(&snapshot, old, events).await?;
    }
    for numbers in numbers.chunks(ROWS_AT_ONCE) {
        // A view is not kept for as long as all of this takes.
        let snapshot = rooms.snapshot().await?;
        let events = room.stored_events(&snapshot, numbers).await?;
        writing.events(&snapshot, old, &events).await?;
    }
    writing.former_members(old).await?;
    writing.finish().await
}

/// Removes the flat tables of a generation.
pub(crate) fn drop_generation(batch: &mut Batch, room: ShortRoomId, generation: Generation) {
    let prefix = (room, generation);
    batch.delete_prefix(&schema::STATE_BY_ROOM, &prefix);
    batch.delete_prefix(&schema::MEMBER_BY_ROOM, &prefix);
    batch.delete_prefix(&schema::SERVER_BY_ROOM, &prefix);
    batch.delete_prefix(&schema::MEMBER_BY_SERVER, &prefix);
}

/// Leaves a job that takes an old generation away.
pub(crate) fn drop_later(rooms: &Rooms, batch: &mut Batch, old: OldGeneration) {
    let body = postcard::to_allocvec(&old).unwrap_or_default();
    let id = rooms.storage().hash(DROP_GENERATION, &body);
    let row = JobRow {
        kind: DROP_GENERATION.to_owned(),
        body,
        not_before_ts: 0,
        attempts: 0,
    };
    batch.put(&schema::JOB_BY_ID, &id, &row);
    batch.wake(Topic::Jobs);
}

struct Writing<'a> {
    rooms: &'a Rooms,
    room: &'a Room,
    written: Written,
    batch: Batch,
    rows: usize,
    /// Of the people whose rows are being written: who was joined before too.
    lasting: HashSet<NameHash>,
}

impl Writing<'_> {
    /// Counts a row, and commits if there are many.
    async fn next(&mut self) -> error::Result<()> {
        self.rows += 1;
        if self.rows < ROWS_AT_ONCE {
            return Ok(());
        }
        self.commit().await
    }

    async fn commit(&mut self) -> error::Result<()> {
        self.rows = 0;
        let batch = std::mem::take(&mut self.batch);
        self.rooms.storage().commit(batch).await?;
        Ok(())
    }

    /// The rows of some events of the state.
    async fn events(
        &mut self,
        snapshot: &Snapshot,
        old: Generation,
        events: &[Arc<StoredEvent>],
    ) -> error::Result<()> {
        let storage = self.rooms.storage();
        let people = events
            .iter()
            .filter_map(|event| match event.pdu.state_slot()? {
                (StateEventType::RoomMember, user) => UserId::parse(user).ok(),
                _ => None,
            });
        let join = Membership::Join as u8;
        let keys: Vec<_> = people
            .map(|user| (self.room.short, old, join, storage.user_hash(&user)))
            .collect();
        let before = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
        let before = keys.iter().zip(before).filter(|(_, row)| row.is_some());
        self.lasting = before.map(|((.., user), _)| *user).collect();
        for event in events {
            self.event(event).await?;
        }
        Ok(())
    }

    /// The rows of one event of the state.
    async fn event(&mut self, event: &StoredEvent) -> error::Result<()> {
        let Some((event_type, state_key)) = event.pdu.state_slot() else {
            return Ok(());
        };
        let key = flat_key(
            self.rooms.storage(),
            self.room.short,
            self.written.generation,
            &event_type.to_string(),
            state_key,
        );
        self.batch.put(&schema::STATE_BY_ROOM, &key, &event.number);
        if event_type == StateEventType::RoomHistoryVisibility && state_key.is_empty() {
            self.written.visibility = visibility_of(Some(&event.pdu));
        }
        if event_type == StateEventType::RoomMember
            && let Ok(user) = UserId::parse(state_key)
        {
            self.member(&user, event);
        }
        self.next().await
    }

    fn member(&mut self, user: &UserId, event: &StoredEvent) {
        let content = event.member();
        let Some(membership) = content.membership else {
            return;
        };
        let storage = self.rooms.storage();
        let (short, generation) = (self.room.short, self.written.generation);
        let user_hash = storage.user_hash(user);
        let row = MemberRow {
            number: event.number,
            user_id: user.to_string(),
            displayname: content.displayname,
            avatar_url: content.avatar_url,
        };
        let key = (short, generation, membership as u8, user_hash);
        self.batch.put(&schema::MEMBER_BY_ROOM, &key, &row);
        let server = storage.server_hash(user.server_name());
        let key = (short, generation, server, user_hash);
        self.batch
            .put(&schema::MEMBER_BY_SERVER, &key, &event.number);
        match membership {
            Membership::Join => {
                self.written.joined += 1;
                let remote = user.server_name() != self.rooms.server_name();
                if remote && !self.lasting.contains(&user_hash) {
                    // Whoever has left meanwhile keeps a row, which nobody relies on.
                    let key = (user_hash, short);
                    let row = RemoteRoomRow::default();
                    self.batch
                        .put_stamped(&schema::ROOM_BY_REMOTE_USER, &key, 0, row);
                }
                let name = user.server_name().to_string();
                let row = self
                    .written
                    .servers
                    .entry(user.server_name().to_owned())
                    .or_insert(ServerRow { name, joined: 0 });
                row.joined += 1;
            }
            Membership::Invite => self.written.invited += 1,
            Membership::Knock | Membership::Leave | Membership::Ban => {}
        }
    }

    /// Who once was a member stays known, with what the old generation says of them unless the new one
    /// says something.
    async fn former_members(&mut self, old: Generation) -> error::Result<()> {
        self.commit().await?;
        let mut after: Option<(ShortRoomId, Generation, NameHash, NameHash)> = None;
        loop {
            let mut range = Range::prefix(&(self.room.short, old)).limit(ROWS_AT_ONCE);
            if let Some(after) = &after {
                range = range.after(after);
            }
            let snapshot = self.rooms.snapshot().await?;
            let rows: BTreeMap<_, EventNumber> = snapshot
                .multi_range(&schema::MEMBER_BY_SERVER, &[range])
                .await?
                .into_iter()
                .flatten()
                .map(|(key, row)| (key, row.value))
                .collect();
            let Some((last, _)) = rows.last_key_value() else {
                return Ok(());
            };
            after = Some(*last);
            let new: Vec<_> = rows
                .keys()
                .map(|(room, _, server, user)| (*room, self.written.generation, *server, *user))
                .collect();
            let there = snapshot.multi_get(&schema::MEMBER_BY_SERVER, &new).await?;
            for ((key, there), number) in new.iter().zip(there).zip(rows.values()) {
                if there.is_none() {
                    self.batch.put(&schema::MEMBER_BY_SERVER, key, number);
                    self.next().await?;
                }
            }
        }
    }

    async fn finish(mut self) -> error::Result<Written> {
        let servers: Vec<_> = self.written.servers.clone().into_iter().collect();
        for (server, row) in servers {
            let server = self.rooms.storage().server_hash(&server);
            let key = (self.room.short, self.written.generation, server);
            self.batch.put(&schema::SERVER_BY_ROOM, &key, &row);
            self.next().await?;
        }
        self.commit().await?;
        Ok(self.written)
    }
}
