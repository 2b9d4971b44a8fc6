//! The committing thread: it takes all batches that wait, writes them together, brings the log to the
//! disk once, and only then tells anybody.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use rocksdb::{WriteBatch, WriteOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{RocksError, Shared, families};
use crate::{
    Access, Batch, CommitError, Stamp,
    batch::{Operation, Precondition},
    position::{fill, stamp_of},
    wake::Wakeups,
};

/// How many bytes of batches are written together, at most (one batch always is).
const MAX_GROUP: usize = 8 << 20;

/// How many KiB of batches may wait, at most; who comes then waits before it queues.
const MAX_WAITING_KIB: u32 = 64 << 10;

/// The batches that wait to be written.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
    /// Why nothing more can be written.
    failed: Option<String>,
}

struct Waiting {
    batch: Arc<Batch>,
    reply: oneshot::Sender<Result<Stamp, CommitError>>,
    _room: OwnedSemaphorePermit,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            room: Arc::new(Semaphore::new(MAX_WAITING_KIB as usize)),
        }
    }
}

impl Queue {
    pub(super) async fn commit(&self, batch: Arc<Batch>) -> Result<Stamp, CommitError> {
        let kib = u32::try_from(batch.len_bytes() / 1024 + 1).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(kib.min(MAX_WAITING_KIB))
            .await
            .map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            if let Some(reason) = &state.failed {
                return Err(CommitError::Engine(reason.clone()));
            }
            if state.closed {
                return Err(stopped());
            }
            state.waiting.push_back(Waiting {
                batch,
                reply,
                _room: room,
            });
        }
        self.changed.notify_one();
        // The thread always answers, unless it panicked: then nobody knows.
        answer.await.unwrap_or(Err(CommitError::Unknown))
    }

    /// Lets the thread write what waits, and end.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_one();
    }

    /// What to write next; waits for it. `None`: nothing more will come.
    fn next_group(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.changed.wait(&mut state);
        }
        let mut bytes = 0;
        let mut group = Vec::new();
        while let Some(next) = state.waiting.front() {
            bytes += next.batch.len_bytes();
            if bytes > MAX_GROUP && !group.is_empty() {
                break;
            }
            group.extend(state.waiting.pop_front());
        }
        Some(group)
    }

    /// Refuses all that waits and all that comes.
    fn fail(&self, reason: &str) {
        let waiting = {
            let mut state = self.state.lock();
            state.failed = Some(reason.to_owned());
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            waiting.refuse(reason);
        }
    }
}

impl Waiting {
    fn refuse(self, reason: &str) {
        self.answer(Err(CommitError::Engine(reason.to_owned())));
    }

    fn answer(self, answer: Result<Stamp, CommitError>) {
        // Who stopped waiting does not want to know.
        let _ = self.reply.send(answer);
    }
}

fn stopped() -> CommitError {
    CommitError::Engine("the storage is closed".to_owned())
}

/// Everything the committing thread has.
pub(super) struct Committer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    wakeups: Arc<Wakeups>,
    epoch: u32,
    write: WriteOptions,
}

/// The rows that the preconditions of a group name, as they are by now.
type Known<'a> = HashMap<&'a [u8], Option<Vec<u8>>>;

impl Committer {
    pub(super) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        wakeups: Arc<Wakeups>,
        epoch: u32,
        sync: bool,
    ) -> Self {
        let mut write = WriteOptions::default();
        write.set_sync(sync);
        Self {
            shared,
            queue,
            wakeups,
            epoch,
            write,
        }
    }

    /// Writes until the queue is closed. After a failed write nothing more is written: what is on the
    /// disk then is known only to the next start.
    pub(super) fn run(self) {
        /// Refuses what waits, however the thread ends.
        struct AtEnd(Arc<Queue>);
        impl Drop for AtEnd {
            fn drop(&mut self) {
                self.0.fail("the committing thread has ended");
            }
        }
        let _at_end = AtEnd(Arc::clone(&self.queue));

        while let Some(group) = self.queue.next_group() {
            match self.write_group(&group) {
                Ok(outcomes) => self.acknowledge(group, outcomes),
                Err(reason) => {
                    let reason = format!("{reason}; nothing is written until the next start");
                    tracing::error!(%reason, "the storage stopped");
                    self.queue.fail(&reason);
                    for waiting in group {
                        waiting.refuse(&reason);
                    }
                }
            }
        }
    }

    fn acknowledge(&self, group: Vec<Waiting>, outcomes: Vec<Result<Stamp, usize>>) {
        for (waiting, outcome) in group.iter().zip(&outcomes) {
            if outcome.is_ok() {
                self.wakeups.wake(&waiting.batch.topics);
            }
        }
        for (waiting, outcome) in group.into_iter().zip(outcomes) {
            waiting.answer(outcome.map_err(CommitError::Conflict));
        }
    }

    /// Writes all batches of a group whose preconditions hold. For each its stamp, or the precondition
    /// that does not hold.
    fn write_group(&self, group: &[Waiting]) -> Result<Vec<Result<Stamp, usize>>, String> {
        let text = |error: RocksError| error.to_string();
        let mut known = self.read_known(group).map_err(text)?;
        // The number that RocksDB will give to the first operation: nobody else writes.
        let next = self.shared.db.latest_sequence_number() + 1;
        let mut writing = WriteBatch::default();
        let mut outcomes = Vec::with_capacity(group.len());
        for waiting in group {
            let unmet = waiting
                .batch
                .preconditions
                .iter()
                .position(|precondition| !holds(precondition, &known));
            outcomes.push(match unmet {
                Some(unmet) => Err(unmet),
                None => {
                    let before = writing.len() as u64;
                    // A batch that writes nothing stands where the last one that did stands.
                    let stands = next + before - u64::from(waiting.batch.operations.is_empty());
                    let stamp = stamp_of(stands);
                    for operation in &waiting.batch.operations {
                        self.add(&mut writing, operation, stamp, &mut known)
                            .map_err(text)?;
                    }
                    Ok(stamp)
                }
            });
        }
        let count = writing.len() as u64;
        if count > 0 {
            self.shared
                .db
                .write_opt(writing, &self.write)
                .map_err(|error| error.to_string())?;
            let last = self.shared.db.latest_sequence_number();
            if last + 1 != next + count {
                return Err(format!(
                    "the engine counted up to {last} where {} was due",
                    next + count - 1
                ));
            }
        }
        Ok(outcomes)
    }

    fn read_known<'a>(&self, group: &'a [Waiting]) -> Result<Known<'a>, RocksError> {
        let mut keys: Vec<(Access, &[u8])> = group
            .iter()
            .flat_map(|waiting| &waiting.batch.preconditions)
            .map(|precondition| {
                let (Precondition::Absent(key) | Precondition::Equals(key, _)) = precondition;
                (self.shared.families.access(key), key.as_slice())
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let db = &self.shared.db;
        let mut known = Known::with_capacity(keys.len());
        for of_family in keys.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((access, _)) = of_family.first() else {
                continue;
            };
            let family = families::family(db, *access)?;
            let keys = of_family.iter().map(|(_, key)| *key);
            let values = db.batched_multi_get_cf(family, keys.clone(), true);
            for (key, value) in keys.zip(values) {
                known.insert(key, value?.map(|value| value.to_vec()));
            }
        }
        Ok(known)
    }

    /// Adds one operation to what will be written, and to what is known to later batches of the group.
    fn add(
        &self,
        writing: &mut WriteBatch,
        operation: &Operation,
        stamp: Stamp,
        known: &mut Known<'_>,
    ) -> Result<(), RocksError> {
        let db = &self.shared.db;
        let families = &self.shared.families;
        match operation {
            Operation::Put(key, value) => put(self, writing, known, key, value)?,
            Operation::PutStamped(key, at, value) => {
                let mut key = key.clone();
                fill(&mut key, *at, self.epoch, stamp);
                put(self, writing, known, &key, value)?;
            }
            Operation::PutStampedValue(key, value, at) => {
                let mut value = value.clone();
                fill(&mut value, *at, self.epoch, stamp);
                put(self, writing, known, key, &value)?;
            }
            Operation::Delete(key) => {
                writing.delete_cf(families.of_key(db, key)?, key);
                if let Some(row) = known.get_mut(key.as_slice()) {
                    *row = None;
                }
            }
            Operation::DeleteRange(from, to) => {
                writing.delete_range_cf(families.of_key(db, from)?, from, to);
                let range = from.as_slice()..to.as_slice();
                for (key, row) in known.iter_mut() {
                    if range.contains(key) {
                        *row = None;
                    }
                }
            }
            Operation::Add(key, number) => {
                writing.merge_cf(families.of_key(db, key)?, key, number.to_le_bytes());
                merge(known, key, *number, i64::wrapping_add);
            }
            Operation::Max(key, number) => {
                writing.merge_cf(families.of_key(db, key)?, key, number.to_le_bytes());
                merge(known, key, *number, i64::max);
            }
        }
        Ok(())
    }
}

fn put(
    committer: &Committer,
    writing: &mut WriteBatch,
    known: &mut Known<'_>,
    key: &[u8],
    value: &[u8],
) -> Result<(), RocksError> {
    let Shared { db, families, .. } = &*committer.shared;
    writing.put_cf(families.of_key(db, key)?, key, value);
    if let Some(row) = known.get_mut(key) {
        *row = Some(value.to_vec());
    }
    Ok(())
}

fn merge(known: &mut Known<'_>, key: &[u8], number: i64, change: fn(i64, i64) -> i64) {
    if let Some(row) = known.get_mut(key) {
        let old = row
            .as_deref()
            .and_then(|bytes| bytes.try_into().ok())
            .map(i64::from_le_bytes);
        let new = old.map_or(number, |old| change(old, number));
        *row = Some(new.to_le_bytes().to_vec());
    }
}

fn holds(precondition: &Precondition, known: &Known<'_>) -> bool {
    match precondition {
        Precondition::Absent(key) => known.get(key.as_slice()).is_none_or(Option::is_none),
        Precondition::Equals(key, raw) => {
            known.get(key.as_slice()).and_then(Option::as_deref) == Some(raw)
        }
    }
}
