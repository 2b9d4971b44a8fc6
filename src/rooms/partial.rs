//! Rooms of which this server does not know all members yet: it came in by an answer that left most of them out
//! (MSC3706), so that people can use the room at once, and is told the rest in the background (MSC3902).
//!
//! Until then the room's head says `partial`. Whoever sends something brings their member event along, among
//! its auth events, and it is put into the state then (`writer/incoming/partial.rs`). When another server has told the
//! whole state before our join, all that happened since is judged again by it (`writer/fill.rs`). The job that does
//! this is written with the join, so a restart goes on where it stopped.
//!
//! It ends when the state is there, or when nobody of ours is in the room any more and nobody tells it: servers
//! tell it only to those who are. Who comes back before that goes on where the room stands.

mod devices;
mod fetch;

use std::{collections::BTreeSet, sync::Arc};

use ruma::{EventId, OwnedServerName, RoomId, ServerName};
use serde::{Deserialize, Serialize};
use storage::{
    Batch, CommitError, Found, NameHash, ShortRoomId, Storage, Topic,
    schema::{self, JobRow, ServerRow},
};

pub(crate) use self::devices::tell_late_changes;
use crate::{
    Room, Rooms, StoredEvent,
    writer::{Filling, Working},
};

/// The kind of the jobs that have the rest of a room's state told.
pub(crate) const FILL: &str = "fill partial room";

/// Servers that are remembered, and asked in turn.
const SERVERS_MAX: usize = 20;
/// So many rooms are told at once; the others wait until it is looked for jobs again.
const FILLED_AT_ONCE: usize = 1_000;
/// Servers that hear of what happens meanwhile though none of their people is known.
const TOLD_MAX: usize = 3_000;

/// A join that left members out: the body of the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartialJoin {
    room: ShortRoomId,
    /// The event by which we came in.
    event_id: String,
    /// The servers that may be asked for the rest.
    servers: Vec<String>,
    /// All that are said to be in the room.
    #[serde(skip)]
    told: Vec<OwnedServerName>,
}

impl PartialJoin {
    /// A join by one server, which says that these others are in the room too.
    pub(crate) fn new(
        room: &Room,
        join: &EventId,
        by: &ServerName,
        told: &[OwnedServerName],
    ) -> Self {
        let others = told.iter().filter(|server| *server != by);
        let servers = others.map(ToString::to_string);
        Self {
            room: room.short,
            event_id: join.to_string(),
            servers: std::iter::once(by.to_string())
                .chain(servers)
                .take(SERVERS_MAX)
                .collect(),
            told: told.iter().take(TOLD_MAX).cloned().collect(),
        }
    }

    /// Leaves the job to have the rest told, in the batch of the join, and notes the servers that must hear of
    /// the room until then.
    pub(crate) fn leave_job(&self, storage: &Storage, batch: &mut Batch, working: &Working) {
        let row = JobRow {
            kind: FILL.to_owned(),
            // Plain data into a vector has no way to fail.
            body: postcard::to_allocvec(self).unwrap_or_default(),
            not_before_ts: 0,
            attempts: 0,
        };
        let id = storage.hash(FILL, self.room.0);
        batch.put(&schema::JOB_BY_ID, &id, &row);
        batch.wake(Topic::Jobs);
        batch.put(&schema::PARTIAL_ROOM, &self.room, &());
        // Each has somebody there whom we do not know: until we know all it stays, whoever of theirs leaves.
        for server in &self.told {
            if *server == working.server_name {
                continue;
            }
            let key = (
                self.room,
                working.head.generation,
                storage.server_hash(server),
            );
            let known = working.servers.get(server).map_or(0, |row| row.joined);
            let row = ServerRow {
                name: server.to_string(),
                joined: known.saturating_add(1),
            };
            batch.put(&schema::SERVER_BY_ROOM, &key, &row);
        }
    }
}

impl Rooms {
    /// Waits until all of a room's state is known, which it is at once in nearly all rooms.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn await_whole_state(&self, room_id: &RoomId) -> error::Result<()> {
        let Some(room) = self.find_room(room_id).await? else {
            return Ok(());
        };
        let subscription = self.storage().subscribe(&[Topic::Room(room.short)]);
        loop {
            let snapshot = self.snapshot().await?;
            let own = self.server_name();
            let (head, joined) = room.joined_of(self, &snapshot, own).await?;
            // Once all of ours have left, nobody asks for the rest any more.
            if !head.partial || joined == 0 {
                return Ok(());
            }
            subscription.woken().await;
        }
    }

    /// Works off a [`FILL`] beside other jobs, as it may take long. Begun a second time, it goes on.
    pub(crate) fn fill_beside(&self, id: NameHash, row: &Found<JobRow>) {
        let name = self.storage().hash(FILL, [&id.0[..], &row.raw].concat());
        {
            let mut filling = self.filling().lock();
            if filling.len() >= FILLED_AT_ONCE || !filling.insert(name) {
                return;
            }
        }
        let (rooms, row) = (self.clone(), row.clone());
        tokio::spawn(async move {
            let done = rooms.fill(id, &row).await;
            if let Err(error) = rooms.end_row(id, &row, done).await {
                tracing::error!(%error, "the end of a job cannot be written");
            }
            rooms.filling().lock().remove(&name);
        });
    }

    /// Has the rest of a room's state told and puts it in its place.
    pub(crate) async fn fill(&self, id: NameHash, row: &Found<JobRow>) -> error::Result<()> {
        let join: PartialJoin = postcard::from_bytes(&row.value.body).map_err(error::internal)?;
        let Some(room) = self.find_short(join.room).await? else {
            return Ok(());
        };
        let snapshot = self.snapshot().await?;
        let (head, joined) = room.joined_of(self, &snapshot, self.server_name()).await?;
        if !head.partial || joined == 0 {
            // It is known meanwhile, or nobody of ours cares any more.
            return Ok(());
        }
        let own = self.event_of(&room, &join.event_id).await?;
        for server in self.servers_to_ask(&room, &join).await? {
            match self.fetch_whole(&room, &own, &server).await? {
                Ok(root) => {
                    let filling = Filling {
                        join: own.number,
                        whole: root,
                        job: (id, row.raw.clone()),
                    };
                    return self.writer(&room).fill(self, filling).await;
                }
                Err(why) => {
                    tracing::info!(%server, why, room = %room.room_id, "a server does not tell a room's state");
                }
            }
        }
        let snapshot = self.snapshot().await?;
        if !room.is_ours(self, &snapshot).await? {
            return Ok(());
        }
        Err(error::internal("no server tells the state of a room"))
    }

    /// Whom to ask for the rest: those that were told when we came in, then such as have been seen since.
    async fn servers_to_ask(
        &self,
        room: &Room,
        join: &PartialJoin,
    ) -> error::Result<Vec<OwnedServerName>> {
        let snapshot = self.snapshot().await?;
        let seen = room.servers(self, &snapshot, SERVERS_MAX).await?;
        let seen = seen.into_iter().map(|row| row.name);
        let mut known = BTreeSet::from([self.server_name().to_owned()]);
        let all = join.servers.iter().cloned().chain(seen);
        let all = all.filter_map(|name| OwnedServerName::try_from(name).ok());
        let all = all.filter(|server| known.insert(server.clone()));
        Ok(all.take(SERVERS_MAX).collect())
    }

    /// Whether the rest of a room's state is being told. If so, that goes on when somebody of ours comes into
    /// the room again.
    pub(crate) async fn find_partial_join(
        &self,
        room: &Room,
    ) -> error::Result<Option<Found<JobRow>>> {
        let id = self.storage().hash(FILL, room.short.0);
        let snapshot = self.snapshot().await?;
        let (head, _) = room.joined_of(self, &snapshot, self.server_name()).await?;
        let rows = snapshot.multi_get(&schema::JOB_BY_ID, &[id]).await?;
        Ok(rows.into_iter().flatten().next().filter(|_| head.partial))
    }

    /// Leaves a job again that may have ended since, because nobody of ours was in the room.
    pub(crate) async fn go_on_filling(
        &self,
        room: &Room,
        row: &Found<JobRow>,
    ) -> error::Result<()> {
        let id = self.storage().hash(FILL, room.short.0);
        let mut batch = Batch::new();
        batch.expect_absent(&schema::JOB_BY_ID, &id);
        let again = JobRow {
            not_before_ts: 0,
            attempts: 0,
            ..row.value.clone()
        };
        batch.put(&schema::JOB_BY_ID, &id, &again);
        batch.wake(Topic::Jobs);
        match self.storage().commit(batch).await {
            // It is there still.
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// An event of a room.
    async fn event_of(&self, room: &Room, event_id: &str) -> error::Result<Arc<StoredEvent>> {
        let event_id = EventId::parse(event_id).map_err(error::internal)?;
        self.find_stored(room, &event_id)
            .await?
            .ok_or_else(|| error::internal("the join of a partial room is missing"))
    }
}
