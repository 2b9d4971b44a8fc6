//! What one commit writes, and on what conditions.

use bytes::Bytes;

use crate::{
    Key, NameHash, Position, Stamped, Table, Topic, Value,
    schema::{ONCE_BY_DAY, OnceRow},
    table::Access,
    value::{Greatest, Record, Sum},
};

/// The greatest size of a batch on every engine: the sum of its keys and values, in bytes.
pub const MAX_BATCH: usize = 1_000_000;

/// Something that must hold for a batch to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such row.
    Absent(Vec<u8>),
    /// The row's bytes are these.
    Equals(Vec<u8>, Bytes),
}

/// One change. Keys begin with their table's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writes a row.
    Put(Vec<u8>, Vec<u8>),
    /// Writes a row whose key holds the commit's position, from the given byte on.
    PutStamped(Vec<u8>, usize, Vec<u8>),
    /// Writes a row whose value holds the commit's position, from the given byte on.
    PutStampedValue(Vec<u8>, Vec<u8>, usize),
    /// Removes a row.
    Delete(Vec<u8>),
    /// Removes all rows from the first key on, up to but without the second. For purges only.
    DeleteRange(Vec<u8>, Vec<u8>),
    /// Adds to a number, blindly.
    Add(Vec<u8>, i64),
    /// Raises a number to at least this, blindly.
    Max(Vec<u8>, i64),
}

/// Names one action that must not happen twice: what it is about, and the day on which it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnceKey {
    /// Days since 1970, UTC. Yesterday's once keys count too; older ones are removed.
    pub day: u32,
    /// Whose action, which one: a hash of sender, device, endpoint, transaction id.
    pub name: NameHash,
}

const MILLISECONDS_A_DAY: u64 = 24 * 60 * 60 * 1_000;

impl OnceKey {
    /// The day of a time in milliseconds since 1970.
    pub fn day_of(time: u64) -> u32 {
        u32::try_from(time / MILLISECONDS_A_DAY).unwrap_or(u32::MAX)
    }

    /// Today's and yesterday's key, to be read before acting.
    pub fn keys(self) -> [(u32, NameHash); 2] {
        [
            (self.day, self.name),
            (self.day.saturating_sub(1), self.name),
        ]
    }
}

/// What one commit writes: all of it or nothing.
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) preconditions: Vec<Precondition>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) once: Vec<(OnceKey, Vec<u8>)>,
    pub(crate) topics: Vec<Topic>,
    bytes: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether it would write nothing.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The sum of its keys and values, in bytes: what [`MAX_BATCH`] limits.
    pub fn len_bytes(&self) -> usize {
        self.bytes
    }

    /// Requires that `key` has no row.
    pub fn expect_absent<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) {
        let key = self.key(table, key).0;
        self.preconditions.push(Precondition::Absent(key));
    }

    /// Requires that `key` still has the bytes `raw`, as found by a read.
    pub fn expect_equals<K: Key, V>(&mut self, table: &Table<K, V>, key: &K, raw: &Bytes) {
        let key = self.key(table, key).0;
        self.bytes += raw.len();
        self.preconditions
            .push(Precondition::Equals(key, raw.clone()));
    }

    /// Requires that `key` is as it was read: absent, or with the same bytes.
    pub fn expect_unchanged<K: Key, V>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
        found: Option<&Bytes>,
    ) {
        match found {
            Some(raw) => self.expect_equals(table, key, raw),
            None => self.expect_absent(table, key),
        }
    }

    /// Writes a row. A key that holds a pending position gets the commit's.
    pub fn put<K: Key, V: Value>(&mut self, table: &Table<K, V>, key: &K, value: &V) {
        let (key, stamp_at) = self.key(table, key);
        let value = value.encode();
        self.bytes += value.len();
        self.operations.push(match stamp_at {
            Some(at) => Operation::PutStamped(key, at, value),
            None => Operation::Put(key, value),
        });
    }

    /// Writes a row whose value carries the position of its `index`th thing in this commit.
    pub fn put_stamped<K: Key, R: Record>(
        &mut self,
        table: &Table<K, Stamped<R>>,
        key: &K,
        index: u16,
        value: R,
    ) {
        let (key, _) = self.key(table, key);
        let value = Stamped {
            position: Position::pending(index),
            value,
        }
        .encode();
        self.bytes += value.len();
        self.operations.push(Operation::PutStampedValue(
            key,
            value,
            Stamped::<R>::POSITION_AT,
        ));
    }

    /// Removes a row.
    pub fn delete<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) {
        let key = self.key(table, key).0;
        self.operations.push(Operation::Delete(key));
    }

    /// Removes every row whose key begins with `prefix`. For purges: many of these slow reads down.
    pub fn delete_prefix<K: Key, V>(
        &mut self,
        table: &Table<K, V>,
        prefix: &impl crate::KeyPrefix<K>,
    ) {
        let (from, to) = crate::read::Range::prefix(prefix).bounds(table.info.id);
        self.bytes += from.len() + to.len();
        if table.info.access == Access::Bulk {
            // Other values are never so long.
            let (from, to) = crate::long::pieces_between(&from, &to);
            self.bytes += from.len() + to.len();
            self.operations.push(Operation::DeleteRange(from, to));
        }
        self.operations.push(Operation::DeleteRange(from, to));
    }

    /// Adds to a number, whatever it is now; where there is none, it begins at 0.
    pub fn add<K: Key>(&mut self, table: &Table<K, Sum>, key: &K, delta: i64) {
        let key = self.key(table, key).0;
        self.operations.push(Operation::Add(key, delta));
    }

    /// Raises a number to at least `value`, whatever it is now; where there is none, it is `value`.
    pub fn max<K: Key>(&mut self, table: &Table<K, Greatest>, key: &K, value: i64) {
        let key = self.key(table, key).0;
        self.operations.push(Operation::Max(key, value));
    }

    /// Makes this the only commit ever with this once key, and keeps `answer` for who asks again.
    pub fn once(&mut self, key: OnceKey, answer: Vec<u8>) {
        for key in key.keys() {
            self.expect_absent(&ONCE_BY_DAY, &key);
        }
        self.put_stamped(
            &ONCE_BY_DAY,
            &(key.day, key.name),
            0,
            OnceRow {
                answer: answer.clone(),
            },
        );
        self.once.push((key, answer));
    }

    /// Wakes who waits for `topic`, after the commit.
    pub fn wake(&mut self, topic: Topic) {
        if !self.topics.contains(&topic) {
            self.topics.push(topic);
        }
    }

    fn key<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) -> (Vec<u8>, Option<usize>) {
        let mut writer = crate::key::KeyWriter::default();
        writer.bytes(&[table.info.id]);
        key.write(&mut writer);
        let key = writer.finish();
        self.bytes += key.0.len();
        key
    }
}
