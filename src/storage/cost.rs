//! What reading and writing costs, counted: tests hold budgets by it.

use std::{
    ops::Sub,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{
    Batch,
    batch::Operation,
    read::{Answers, Reads},
};

/// What was read and written since the database was opened; the difference of two is what happened
/// between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Lists of reads that were answered: round trips to an engine that is elsewhere.
    pub round_trips: u64,
    /// Keys that were looked up.
    pub keys: u64,
    /// Ranges that were read.
    pub ranges: u64,
    /// Bytes of rows that were found.
    pub bytes_read: u64,
    /// Batches that were written.
    pub commits: u64,
    /// Rows that these wrote or removed.
    pub rows_written: u64,
    /// Bytes of keys and values that these wrote.
    pub bytes_written: u64,
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            round_trips: self.round_trips - earlier.round_trips,
            keys: self.keys - earlier.keys,
            ranges: self.ranges - earlier.ranges,
            bytes_read: self.bytes_read - earlier.bytes_read,
            commits: self.commits - earlier.commits,
            rows_written: self.rows_written - earlier.rows_written,
            bytes_written: self.bytes_written - earlier.bytes_written,
        }
    }
}

/// Counts what an open database is asked.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; 7]);

impl Counters {
    pub(crate) fn read(&self, reads: &Reads, answers: &Answers) {
        let keys = answers.keys.iter().flatten().map(bytes::Bytes::len);
        let rows = answers.ranges.iter().flatten();
        let bytes = keys.chain(rows.map(|(key, value)| key.len() + value.len()));
        self.add([
            1,
            reads.keys.len(),
            reads.ranges.len(),
            bytes.sum(),
            0,
            0,
            0,
        ]);
    }

    pub(crate) fn written(&self, batch: &Batch) {
        let bytes = batch.operations.iter().map(|operation| match operation {
            Operation::Put(key, value)
            | Operation::PutStamped(key, _, value)
            | Operation::PutStampedValue(key, value, _) => key.len() + value.len(),
            Operation::Delete(key) => key.len(),
            Operation::DeleteRange(from, to) => from.len() + to.len(),
            Operation::Add(key, _) | Operation::Max(key, _) => key.len() + size_of::<i64>(),
        });
        self.add([0, 0, 0, 0, 1, batch.operations.len(), bytes.sum()]);
    }

    pub(crate) fn cost(&self) -> Cost {
        let [
            round_trips,
            keys,
            ranges,
            bytes_read,
            commits,
            rows_written,
            bytes_written,
        ] = self
            .0
            .each_ref()
            .map(|counter| counter.load(Ordering::Relaxed));
        Cost {
            round_trips,
            keys,
            ranges,
            bytes_read,
            commits,
            rows_written,
            bytes_written,
        }
    }

    fn add(&self, amounts: [usize; 7]) {
        for (counter, amount) in self.0.iter().zip(amounts) {
            if amount > 0 {
                counter.fetch_add(amount as u64, Ordering::Relaxed);
            }
        }
    }
}
