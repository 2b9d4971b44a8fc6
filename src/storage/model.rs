//! The model engine: in memory, for tests, as hostile as they ask for.

mod faults;

pub use self::faults::Faults;
pub(crate) use self::faults::Wake;
use self::faults::{Dice, Fate};
use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Clock, CommitError, NameHash, Stamp,
    batch::{Batch, Operation, Precondition},
    position::{fill, stamp_of},
    read::{Answers, Reads},
};

type Rows = BTreeMap<Vec<u8>, Bytes>;

/// A database in memory.
#[derive(Debug)]
pub(crate) struct Model {
    state: Mutex<State>,
    dice: Arc<Dice>,
}

#[derive(Debug, Default)]
struct State {
    rows: Arc<Rows>,
    commits: u64,
}

/// One consistent view of a [`Model`].
#[derive(Clone, Debug)]
pub(crate) struct ModelSnapshot {
    rows: Arc<Rows>,
    pub(crate) stamp: Stamp,
    dice: Arc<Dice>,
}

impl Model {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            state: Mutex::default(),
            dice: Arc::new(Dice::new(faults)),
        }
    }

    pub(crate) fn snapshot(&self) -> ModelSnapshot {
        let state = self.state.lock();
        ModelSnapshot {
            rows: Arc::clone(&state.rows),
            stamp: stamp_of(state.commits),
            dice: Arc::clone(&self.dice),
        }
    }

    /// All rows.
    pub(crate) fn rows(&self) -> Vec<(Vec<u8>, Bytes)> {
        let rows = Arc::clone(&self.state.lock().rows);
        let rows = rows.iter();
        rows.map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    }

    /// Misbehaves in this way from now on.
    pub(crate) fn misbehave(&self, faults: Faults) {
        self.dice.change(faults);
    }

    /// A name for a commit by which it is found again if its reply is lost; none if replies never are.
    pub(crate) fn name_of_commit(&self) -> Option<NameHash> {
        self.dice.name()
    }

    /// Whether those who wait are woken late or not at all at times.
    pub(crate) fn wakes_badly(&self) -> bool {
        self.dice.wakes_badly()
    }

    /// When those who wait for what a batch changed are woken.
    pub(crate) fn wake(&self) -> Wake {
        self.dice.wake()
    }

    /// Writes the batch, or tells why not.
    pub(crate) fn commit(&self, batch: &Batch, epoch: u32) -> Result<Stamp, CommitError> {
        match self.dice.roll() {
            Fate::Conflict if !batch.preconditions.is_empty() => Err(CommitError::Conflict(0)),
            Fate::Good | Fate::Conflict => self.write(batch, epoch),
            Fate::ReplyLost => self.write(batch, epoch).and(Err(CommitError::Unknown)),
            Fate::BatchLost => Err(CommitError::Unknown),
        }
    }

    fn write(&self, batch: &Batch, epoch: u32) -> Result<Stamp, CommitError> {
        let mut state = self.state.lock();
        let unmet = batch
            .preconditions
            .iter()
            .position(|precondition| match precondition {
                Precondition::Absent(key) => state.rows.contains_key(key),
                Precondition::Equals(key, raw) => state.rows.get(key) != Some(raw),
            });
        if let Some(unmet) = unmet {
            return Err(CommitError::Conflict(unmet));
        }
        state.commits += 1;
        let stamp = stamp_of(state.commits);
        let rows = Arc::make_mut(&mut state.rows);
        for operation in &batch.operations {
            apply(rows, operation, epoch, stamp);
        }
        Ok(stamp)
    }
}

fn apply(rows: &mut Rows, operation: &Operation, epoch: u32, stamp: Stamp) {
    match operation {
        Operation::Put(key, value) => {
            rows.insert(key.clone(), value.clone().into());
        }
        Operation::PutStamped(key, at, value) => {
            let mut key = key.clone();
            fill(&mut key, *at, epoch, stamp);
            rows.insert(key, value.clone().into());
        }
        Operation::PutStampedValue(key, value, at) => {
            let mut value = value.clone();
            fill(&mut value, *at, epoch, stamp);
            rows.insert(key.clone(), value.into());
        }
        Operation::Delete(key) => {
            rows.remove(key);
        }
        Operation::DeleteRange(from, to) => {
            rows.retain(|key, _| key < from || key >= to);
        }
        Operation::Add(key, number) => merge(rows, key, *number, i64::wrapping_add),
        Operation::Max(key, number) => merge(rows, key, *number, i64::max),
    }
}

fn merge(rows: &mut Rows, key: &[u8], number: i64, change: fn(i64, i64) -> i64) {
    let old = rows
        .get(key)
        .and_then(|bytes| bytes.as_ref().try_into().ok())
        .map(i64::from_le_bytes);
    let new = old.map_or(number, |old| change(old, number));
    rows.insert(key.to_vec(), new.to_le_bytes().to_vec().into());
}

impl ModelSnapshot {
    /// Answers a list of reads; meanwhile time passes.
    pub(crate) fn read(&self, reads: &Reads, clock: &Clock) -> Answers {
        clock.advance(self.dice.read_takes());
        let keys = reads
            .keys
            .iter()
            .map(|key| self.rows.get(key).cloned())
            .collect();
        let ranges = reads
            .ranges
            .iter()
            .map(|range| {
                if range.from >= range.to {
                    return Vec::new();
                }
                let bounds = (
                    Bound::Included(range.from.as_slice()),
                    Bound::Excluded(range.to.as_slice()),
                );
                let rows = self.rows.range::<[u8], _>(bounds);
                let row =
                    |(key, value): (&Vec<u8>, &Bytes)| (Bytes::copy_from_slice(key), value.clone());
                if range.reverse {
                    rows.rev().take(range.limit).map(row).collect()
                } else {
                    rows.take(range.limit).map(row).collect()
                }
            })
            .collect();
        Answers { keys, ranges }
    }
}
