//! Storage: the only place that knows the engines.
//!
//! Ordered keys and values; a [`Snapshot`] to read from, one [`Storage::commit`] to write with. The
//! interface is shaped after the strictest engine it is meant for (versionstamps, optimistic
//! preconditions, small batches, short transactions), so that code written against it can move.

use std::{path::Path, sync::Arc};

use self::{cost::Counters, snapshot::View};

mod backup;
pub mod batch;
mod clock;
mod cost;
mod failure;
mod follow;
mod foresight;
mod gather;
pub mod key;
mod long;
mod model;
mod names;
mod once;
mod open;
mod position;
mod random;
pub mod read;
mod rocks;
pub mod schema;
mod snapshot;
pub mod table;
pub mod value;
mod wake;

pub use self::{
    backup::{BackupError, share_folder},
    batch::{Batch, MAX_BATCH, OnceKey},
    clock::Clock,
    cost::Cost,
    follow::{Ahead, Follower},
    key::{Key, KeyPrefix, NameHash, ShortRoomId, ShortUserId},
    long::MAX_VALUE,
    model::Faults,
    open::{FORMAT, OpenError, Options},
    position::{Position, Stamp},
    random::Random,
    read::{Answers, Found, Range, Reads, Rows, Slot},
    snapshot::{SNAPSHOT_LIFE, Snapshot},
    table::{Access, Table},
    value::{Greatest, Raw, Stamped, Sum, Value},
    wake::Subscription,
};

/// A read that could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A stored key is not what its table says.
    #[error(transparent)]
    Key(#[from] key::KeyError),
    /// A stored value is not what its table says.
    #[error(transparent)]
    Value(#[from] value::ValueError),
    /// The answer to another list of reads was asked.
    #[error("these answers belong to another list of reads")]
    Slot,
    /// A range answers more than [`read::MAX_ANSWER`].
    #[error("a range is too long to be read at once")]
    TooLarge,
    /// What is asked for is known only when the batch is written that the view foresees.
    #[error("what a batch is going to write there is not known yet")]
    Unforeseen,
    /// The view is older than [`SNAPSHOT_LIFE`].
    #[error("the snapshot is too old")]
    TooOld,
    /// The engine failed.
    #[error("the storage engine cannot read: {0}")]
    Engine(String),
}

/// What is to be woken after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// Something in a room changed.
    Room(ShortRoomId),
    /// Something of a local user changed.
    User(ShortUserId),
    /// A file was uploaded under the id that this is the hash of.
    Media(NameHash),
    /// The stream that followers read got longer.
    Stream,
    /// A job was left to be worked off.
    Jobs,
    /// An event was left to be sent later.
    DelayedEvents,
    /// Something was left for another server.
    Destinations,
}

/// A batch that was not written, or of which that is not known.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A precondition did not hold; nothing was written. The number tells which, in the order in
    /// which the batch was given them.
    #[error("something changed in the meantime (precondition {0})")]
    Conflict(usize),
    /// An action with the same once key was done before; nothing was written. This was its answer.
    #[error("this was done before")]
    Done(Vec<u8>),
    /// The reply was lost: it may have been written or not, and the batch has no once key to tell by.
    #[error("it is not known whether the change was stored")]
    Unknown,
    /// The batch, a key or a value is larger than an engine takes.
    #[error("the change is too large to be stored at once")]
    TooLarge,
    /// The reads on which the batch rests are too old.
    #[error("the change took too long to prepare")]
    TooOld,
    /// The engine failed; nothing was acknowledged.
    #[error("the storage engine cannot write: {0}")]
    Engine(String),
}

/// A handle to the database; clones share it.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    engine: Engine,
    epoch: u32,
    hash_key: [u8; 32],
    server_name: String,
    wakeups: Arc<wake::Wakeups>,
    counters: Counters,
    /// Tells how old a view is.
    clock: Clock,
}

#[derive(Debug)]
enum Engine {
    Model(Box<model::Model>),
    Rocks(rocks::Rocks),
}

impl Storage {
    /// Opens the database in the folder `path`, making it if there is none. Blocks while it does.
    ///
    /// # Errors
    ///
    /// Each [`OpenError`] is a sentence for the operator.
    pub fn open(path: impl AsRef<Path>, options: &Options) -> Result<Self, OpenError> {
        let wakeups = Arc::default();
        let (rocks, meta) = rocks::Rocks::open(path.as_ref(), options, &wakeups)?;
        Ok(Self(Arc::new(Shared {
            engine: Engine::Rocks(rocks),
            epoch: meta.epoch,
            hash_key: meta.hash_key,
            server_name: meta.server_name,
            wakeups,
            counters: Counters::default(),
            clock: options.clock.clone(),
        })))
    }

    /// An empty database in memory, for tests.
    pub fn model() -> Self {
        Self::model_with(Faults::default())
    }

    /// An empty database in memory that misbehaves, for tests. Its clock stands still but for what reads take.
    pub fn model_with(faults: Faults) -> Self {
        Self::model_on(Clock::standing_at(0), faults)
    }

    /// An empty database in memory, for tests, which tells the age of views by this clock.
    pub fn model_on(clock: Clock, faults: Faults) -> Self {
        let model = model::Model::new(faults);
        let wakeups = if model.wakes_badly() {
            wake::Wakeups::with_backstop()
        } else {
            wake::Wakeups::default()
        };
        Self(Arc::new(Shared {
            engine: Engine::Model(Box::new(model)),
            epoch: 1,
            hash_key: [7; 32],
            server_name: "localhost".to_owned(),
            wakeups: Arc::new(wakeups),
            counters: Counters::default(),
            clock,
        }))
    }

    /// Lets the model misbehave in this way from now on, for tests: it rolls the dice that it had, and nobody
    /// is woken late or never who was not before. Other engines do as they do.
    pub fn misbehave(&self, faults: Faults) {
        if let Engine::Model(model) = &self.0.engine {
            model.misbehave(faults);
        }
    }

    /// All rows of the model as they are stored, for tests of what is left behind: keys with the table's id in
    /// front, and values. Of other engines none.
    pub fn rows_of_model(&self) -> Vec<(Vec<u8>, bytes::Bytes)> {
        match &self.0.engine {
            Engine::Model(model) => model.rows(),
            Engine::Rocks(_) => Vec::new(),
        }
    }

    /// A view that holds at least everything up to `at_least` ([`Position::START`]: whatever there is),
    /// and every commit that was acknowledged before this call. It can be read from for [`SNAPSHOT_LIFE`].
    pub async fn snapshot(&self, _at_least: Position) -> Result<Snapshot, ReadError> {
        let (view, stamp) = match &self.0.engine {
            Engine::Model(model) => {
                let view = model.snapshot();
                let stamp = view.stamp;
                (View::Model(view), stamp)
            }
            Engine::Rocks(rocks) => {
                let view = rocks.snapshot();
                let stamp = view.stamp();
                (View::Rocks(view), stamp)
            }
        };
        let position = Position::new(self.0.epoch, stamp, u16::MAX);
        Ok(Snapshot::new(self.clone(), view, position))
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Writes a batch whole, or not at all. When this returns `Ok`, the batch survives a crash. The
    /// position is that of its thing number 0.
    ///
    /// # Errors
    ///
    /// See [`CommitError`]. A batch with a once key is never [`Unknown`](CommitError::Unknown): whether
    /// it was written is looked up. On engines that lose replies every batch has one.
    pub async fn commit(&self, mut batch: Batch) -> Result<Position, CommitError> {
        if let Engine::Model(model) = &self.0.engine
            && batch.once.is_empty()
            && let Some(name) = model.name_of_commit()
        {
            batch.once(OnceKey { day: 0, name }, Vec::new());
        }
        long::prepare(&mut batch)?;
        let batch = Arc::new(batch);
        let written = match &self.0.engine {
            Engine::Model(model) => {
                let written = model.commit(&batch, self.0.epoch);
                // Whoever waits is woken even if the reply is lost, for the batch may be there.
                if !matches!(written, Err(CommitError::Conflict(_))) {
                    self.wake_by(model, &batch);
                }
                written
            }
            Engine::Rocks(rocks) => rocks.commit(Arc::clone(&batch)).await,
        };
        match written {
            Ok(stamp) => {
                self.0.counters.written(&batch);
                Ok(Position::new(self.0.epoch, stamp, 0))
            }
            Err(CommitError::Unknown) if !batch.once.is_empty() => {
                let done = self.done(&batch).await?;
                done.map(|(position, _)| position)
                    .ok_or(CommitError::Conflict(usize::MAX))
            }
            Err(CommitError::Conflict(unmet)) if !batch.once.is_empty() => {
                match self.done(&batch).await? {
                    Some((_, answer)) => Err(CommitError::Done(answer)),
                    None => Err(CommitError::Conflict(unmet)),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Wakes who waits for what a batch changed, as the model's faults have it.
    fn wake_by(&self, model: &model::Model, batch: &Arc<Batch>) {
        match model.wake() {
            model::Wake::Now => self.0.wakeups.wake(&batch.topics),
            model::Wake::After(time) => {
                let (wakeups, batch) = (Arc::clone(&self.0.wakeups), Arc::clone(batch));
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    wakeups.wake(&batch.topics);
                });
            }
            model::Wake::Never => {}
        }
    }

    /// When an action of a batch that must not happen twice was done, and what was answered.
    async fn done(&self, batch: &Batch) -> Result<Option<(Position, Vec<u8>)>, CommitError> {
        let keys: Vec<_> = batch.once.iter().flat_map(|(key, _)| key.keys()).collect();
        let text = |error: ReadError| CommitError::Engine(error.to_string());
        let snapshot = self.snapshot(Position::START).await.map_err(text)?;
        let rows = snapshot.multi_get(&schema::ONCE_BY_DAY, &keys).await;
        let mut rows = rows.map_err(text)?.into_iter().flatten();
        Ok(rows
            .next()
            .map(|row| (row.value.position, row.value.value.answer)))
    }

    /// What was read and written since this database was opened.
    pub fn cost(&self) -> Cost {
        self.0.counters.cost()
    }

    /// The name of the server that this database belongs to, as stored at its first start.
    pub fn server_name(&self) -> &str {
        &self.0.server_name
    }

    /// How often the engine brought its log to the disk since the start; `None` if it does not count
    /// (see [`Options::statistics`]) or has no log.
    pub fn log_syncs(&self) -> Option<u64> {
        match &self.0.engine {
            Engine::Model(_) => None,
            Engine::Rocks(rocks) => rocks.log_syncs(),
        }
    }

    /// The keyed hash of a name: `kind` keeps names of different kinds apart.
    pub fn hash(&self, kind: &str, name: impl AsRef<[u8]>) -> NameHash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.hash_key);
        hasher.update(kind.as_bytes());
        hasher.update(&[0]);
        hasher.update(name.as_ref());
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        NameHash(hash)
    }

    /// The key of all keyed hashes of this database: 32 bytes made at the first start.
    pub fn hash_key(&self) -> &[u8; 32] {
        &self.0.hash_key
    }

    /// The history that positions belong to now.
    pub fn epoch(&self) -> u32 {
        self.0.epoch
    }

    /// Wakes who waits for these topics, for what changed in memory only.
    pub fn wake(&self, topics: &[Topic]) {
        self.0.wakeups.wake(topics);
    }

    /// Begins to wait for topics. Register first, then read a snapshot, then wait: nothing is missed.
    pub fn subscribe(&self, topics: &[Topic]) -> Subscription {
        self.0.wakeups.subscribe(topics)
    }
}
