//! Removing all that this server holds of a room.
//!
//! The first commit takes the room's name and head away, so that nobody finds it any more and nothing can be
//! written into it; a mark keeps it from being known anew. The rest is a job of many small commits, each of which
//! says where the next one goes on: whenever the server is stopped, it ends the same ([`steps`]). At the end the
//! mark goes, and the stream says so, for those who keep an index.
//!
//! Some rows are written without a look at the head: receipts, events that wait. One that was under way when the
//! purge began may come late, so after a while it is looked once more for what lies under the room's short id,
//! which is never used again.
//!
//! What stays: files; reports, which are the operator's; the keys that people backed up, and their other account
//! data, which are theirs; answers to transaction ids, which go after two days; that a room is blocked.

mod steps;

use pdu::EventNumber;
use ruma::RoomId;
use serde::{Deserialize, Serialize};
use storage::{
    Batch, CommitError, Found, NameHash, Position, Range, Reads, ShortRoomId, ShortUserId, Topic,
    Value as _,
    schema::{self, JobRow, PurgeRow, StreamRecord},
};

use crate::{Room, Rooms, directory::Listing};

/// The job of removing a room.
pub(crate) const PURGE: &str = "purge";

/// Commits of one purge before other jobs get their turn.
const COMMITS_AT_ONCE: usize = 20;
/// Tries to begin, while the room changes under our hands.
const TRIES_MAX: usize = 20;
/// After this time it is looked for what came late, in milliseconds.
const LATE: u64 = 10 * 60 * 1_000;

/// What is to be removed, and how far that is.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Purge {
    room: ShortRoomId,
    room_id: String,
    /// Where the records of the room lie in the stream, if it has any.
    stream: Option<(Position, Position)>,
    /// It was removed before: only what came late is left.
    again: bool,
    stage: Stage,
}

/// What comes next. A stage is passed when it finds nothing to remove any more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Stage {
    /// Jobs that are about the room, after this one.
    Jobs(Option<NameHash>),
    Aliases,
    /// Everybody who ever was in it: what other tables say of them and the room.
    Members,
    /// Its servers: what they were still to be told.
    Servers,
    /// People of ours, after this one.
    People(Option<ShortUserId>),
    /// What the log of one of them says of the room, after this position.
    Log(ShortUserId, Position),
    /// All else that is theirs and about the room.
    Person(ShortUserId),
    /// The stream, after this position.
    Stream(Position),
    Events,
    LooseEvents,
    /// All rows under the room's short id.
    Rows,
}

/// What one commit removes, and what is left then.
struct Step {
    batch: Batch,
    next: Option<Stage>,
}

impl Step {
    fn to(batch: Batch, next: Stage) -> Self {
        Self {
            batch,
            next: Some(next),
        }
    }
}

impl Purge {
    fn job(&self, not_before_ts: u64) -> JobRow {
        JobRow {
            kind: PURGE.to_owned(),
            // Plain data into a vector has no way to fail.
            body: postcard::to_allocvec(self).unwrap_or_default(),
            not_before_ts,
            attempts: 0,
        }
    }
}

impl Rooms {
    /// Begins to remove all that this server holds of a room, whoever is in it: from then on nobody finds it.
    /// Begun a second time, it goes on.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn purge(&self, room: &Room) -> error::Result<()> {
        let (storage, short) = (self.storage(), room.short);
        let name = storage.room_hash(&room.room_id);
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let mut reads = Reads::new();
            let named = reads.get(&schema::ROOM_BY_NAME, &name);
            let head = reads.get(&schema::HEAD_BY_ROOM, &short);
            let listed = reads.get(&schema::DIRECTORY_BY_ROOM, &short);
            let first = Range::prefix(&(short,)).limit(1);
            let first = reads.range(&schema::CHANGE_BY_ROOM_POSITION, &first);
            let answers = snapshot.read(&reads).await?;
            let named = answers.one(&named)?.filter(|named| named.value == short);
            let (Some(named), Some(head)) = (named, answers.one(&head)?) else {
                return Ok(());
            };
            let first = answers.rows(&first)?.into_iter().next();
            let purge = Purge {
                room: short,
                room_id: room.room_id.to_string(),
                stream: first.map(|((_, first), _)| (first, snapshot.position())),
                again: false,
                stage: Stage::Jobs(None),
            };
            let mut batch = Batch::new();
            batch.expect_equals(&schema::HEAD_BY_ROOM, &short, &head.raw);
            batch.delete(&schema::HEAD_BY_ROOM, &short);
            batch.expect_equals(&schema::ROOM_BY_NAME, &name, &named.raw);
            batch.delete(&schema::ROOM_BY_NAME, &name);
            let mark = PurgeRow {
                since_ts: self.now(),
            };
            batch.put(&schema::PURGE_BY_NAME, &name, &mark);
            let mut listing = Listing::found(answers.one(&listed)?);
            listing.withdraw();
            listing.write(&mut batch, short, 0);
            let id = storage.hash("purge job", short.0);
            batch.put(&schema::JOB_BY_ID, &id, &purge.job(0));
            batch.wake(Topic::Jobs);
            batch.wake(Topic::Room(short));
            match storage.commit(batch).await {
                Ok(_) => {
                    self.forget_cached(&room.room_id);
                    return Ok(());
                }
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a room changes too fast to be removed"))
    }

    /// Whether a room is being removed.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn is_being_purged(&self, room_id: &RoomId) -> error::Result<bool> {
        let name = [self.storage().room_hash(room_id)];
        let snapshot = self.snapshot().await?;
        let rows = snapshot.multi_get(&schema::PURGE_BY_NAME, &name).await?;
        Ok(rows.iter().any(Option::is_some))
    }

    /// Waits until a room is not being removed any more.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn await_purged(&self, room_id: &RoomId) -> error::Result<()> {
        let subscription = self.storage().subscribe(&[Topic::Jobs]);
        while self.is_being_purged(room_id).await? {
            subscription.woken().await;
        }
        Ok(())
    }

    /// Works on a [`PURGE`] for a while; what is left is another row of the job.
    pub(crate) async fn purge_some(&self, id: NameHash, row: &Found<JobRow>) -> error::Result<()> {
        let mut purge: Purge = postcard::from_bytes(&row.value.body).map_err(error::internal)?;
        let mut raw = row.raw.clone();
        for turn in 1..=COMMITS_AT_ONCE {
            let Step { mut batch, next } = self.purge_step(&purge, id).await?;
            batch.expect_equals(&schema::JOB_BY_ID, &id, &raw);
            if next.is_none() || turn == COMMITS_AT_ONCE {
                batch.wake(Topic::Jobs);
            }
            match next {
                Some(stage) => {
                    purge.stage = stage;
                    let job = purge.job(0);
                    batch.put(&schema::JOB_BY_ID, &id, &job);
                    raw = job.encode().into();
                }
                None => self.end_purge(&mut batch, id, &purge),
            }
            match self.storage().commit(batch).await {
                Ok(_) => {}
                // What there is now is read the next time.
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            if next.is_none() {
                self.forget_cached_by_short(purge.room);
                return Ok(());
            }
        }
        Ok(())
    }

    /// Puts the end of a purge into a batch: the room is unknown, and those who keep an index hear of it.
    fn end_purge(&self, batch: &mut Batch, id: NameHash, purge: &Purge) {
        batch.delete(&schema::ROOM_BY_SHORT_ID, &purge.room);
        batch.delete(&schema::JOB_BY_ID, &id);
        if purge.again {
            return;
        }
        let name = self.storage().room_hash(&purge.room_id);
        batch.delete(&schema::PURGE_BY_NAME, &name);
        let record = StreamRecord {
            room: purge.room,
            number: EventNumber(0),
            place: None,
            historic: true,
            local: false,
            servers: Vec::new(),
        };
        batch.put(&schema::STREAM_BY_POSITION, &Position::pending(0), &record);
        batch.wake(Topic::Stream);
        let again = Purge {
            again: true,
            stage: Stage::Jobs(None),
            stream: None,
            ..purge.clone()
        };
        let id = self.storage().hash("late purge job", purge.room.0);
        let job = again.job(self.now().saturating_add(LATE));
        batch.put(&schema::JOB_BY_ID, &id, &job);
    }
}
