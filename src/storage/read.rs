//! Reads: a list of keys and ranges of any tables, answered together in one round trip.

use std::marker::PhantomData;

use bytes::Bytes;

use crate::{Key, KeyPrefix, ReadError, Table, Value, long, schema};

/// How many bytes one range may answer, at most. Longer ones are read in pieces, by a limit of rows.
pub const MAX_ANSWER: usize = 64 << 20;

/// A row as it was found: the value, and its bytes for a precondition.
#[derive(Clone, Debug)]
pub struct Found<V> {
    /// What the row holds.
    pub value: V,
    /// The stored bytes, for [`Batch::expect_equals`](crate::Batch::expect_equals).
    pub raw: Bytes,
}

/// Rows of a table: keys and what was found under them.
pub type Rows<K, V> = Vec<(K, Found<V>)>;

/// Which rows of a table, in which order, how many at most.
#[derive(Clone, Debug)]
pub struct Range<K> {
    from: Vec<u8>,
    to: Option<Vec<u8>>,
    reverse: bool,
    limit: usize,
    key: PhantomData<fn() -> K>,
}

impl<K> Range<K> {
    /// All rows whose keys begin with `prefix`, in rising order, without limit.
    pub fn prefix(prefix: &impl KeyPrefix<K>) -> Self {
        let from = prefix.prefix();
        let to = successor(&from);
        Self {
            from,
            to,
            reverse: false,
            limit: usize::MAX,
            key: PhantomData,
        }
    }

    /// Only keys from this one on.
    #[must_use]
    pub fn from(mut self, key: &K) -> Self
    where
        K: Key,
    {
        self.from = self.from.max(key.encode());
        self
    }

    /// Only keys after this one.
    #[must_use]
    pub fn after(mut self, key: &K) -> Self
    where
        K: Key,
    {
        // The first key that is longer is the first that is greater.
        let mut key = key.encode();
        key.push(0);
        self.from = self.from.max(key);
        self
    }

    /// Only keys before this one.
    #[must_use]
    pub fn before(mut self, key: &K) -> Self
    where
        K: Key,
    {
        let key = key.encode();
        self.to = Some(self.to.map_or(key.clone(), |to| to.min(key)));
        self
    }

    /// Only keys up to this one, itself included.
    #[must_use]
    pub fn up_to(mut self, key: &K) -> Self
    where
        K: Key,
    {
        let mut key = key.encode();
        key.push(0);
        self.to = Some(self.to.map_or(key.clone(), |to| to.min(key)));
        self
    }

    /// Greatest keys first.
    #[must_use]
    pub fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// At most `limit` rows.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// First key and the one after the last, with the table's id.
    pub(crate) fn bounds(&self, table: u8) -> (Vec<u8>, Vec<u8>) {
        let from = [&[table], self.from.as_slice()].concat();
        let to = match &self.to {
            Some(to) => [&[table], to.as_slice()].concat(),
            None => vec![table.saturating_add(1)],
        };
        (from, to)
    }
}

/// The first key that does not begin with `prefix` and is greater; `None` if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix.get(..=end)?.to_vec();
    if let Some(last) = next.last_mut() {
        *last += 1;
    }
    Some(next)
}

/// One range as the engines see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RawRange {
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
    pub(crate) reverse: bool,
    pub(crate) limit: usize,
}

/// A list of reads to be answered together, from one snapshot, in one round trip.
#[derive(Debug, Default)]
pub struct Reads {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) ranges: Vec<RawRange>,
}

/// Where the answer to some reads will be found.
#[derive(Debug)]
pub struct Slot<T> {
    at: usize,
    count: usize,
    answer: PhantomData<fn() -> T>,
}

impl Reads {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// Whether nothing is asked but rows that never change.
    pub(crate) fn is_lasting(&self) -> bool {
        let lasting = |key: &Vec<u8>| {
            let table = long::whole(key).first();
            table.is_some_and(|table| schema::LASTING.contains(table))
        };
        self.ranges.is_empty() && self.keys.iter().all(lasting)
    }

    /// Asks for what another list asks, too.
    pub(crate) fn append(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.ranges.extend(other.ranges);
    }

    /// Asks for one row.
    pub fn get<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        key: &K,
    ) -> Slot<Option<Found<V>>> {
        let at = self.keys.len();
        self.push(table, key);
        Slot {
            at,
            count: 1,
            answer: PhantomData,
        }
    }

    /// Asks for rows of one table; the answers come in the order of the keys.
    pub fn get_all<'a, K: Key + 'a, V: Value>(
        &mut self,
        table: &Table<K, V>,
        keys: impl IntoIterator<Item = &'a K>,
    ) -> Slot<Vec<Option<Found<V>>>> {
        let at = self.keys.len();
        for key in keys {
            self.push(table, key);
        }
        Slot {
            at,
            count: self.keys.len() - at,
            answer: PhantomData,
        }
    }

    /// Asks for a range of rows.
    pub fn range<K: Key, V: Value>(
        &mut self,
        table: &Table<K, V>,
        range: &Range<K>,
    ) -> Slot<Vec<(K, Found<V>)>> {
        let (from, to) = range.bounds(table.info.id);
        self.ranges.push(RawRange {
            from,
            to,
            reverse: range.reverse,
            limit: range.limit,
        });
        Slot {
            at: self.ranges.len() - 1,
            count: 1,
            answer: PhantomData,
        }
    }

    fn push<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) {
        let mut bytes = vec![table.info.id];
        bytes.extend(key.encode());
        self.keys.push(bytes);
    }
}

/// The rows of one range, keys with their table's id.
pub(crate) type RawRows = Vec<(Bytes, Bytes)>;

/// The answers to a list of reads.
#[derive(Debug, Default)]
pub struct Answers {
    pub(crate) keys: Vec<Option<Bytes>>,
    pub(crate) ranges: Vec<RawRows>,
}

impl Answers {
    /// The row asked for by [`Reads::get`].
    pub fn one<V: Value>(
        &self,
        slot: &Slot<Option<Found<V>>>,
    ) -> Result<Option<Found<V>>, ReadError> {
        self.keys
            .get(slot.at)
            .ok_or(ReadError::Slot)?
            .as_ref()
            .map(found)
            .transpose()
    }

    /// The rows asked for by [`Reads::get_all`].
    pub fn all<V: Value>(
        &self,
        slot: &Slot<Vec<Option<Found<V>>>>,
    ) -> Result<Vec<Option<Found<V>>>, ReadError> {
        let rows = self
            .keys
            .get(slot.at..slot.at + slot.count)
            .ok_or(ReadError::Slot)?;
        rows.iter()
            .map(|row| row.as_ref().map(found).transpose())
            .collect()
    }

    /// The rows asked for by [`Reads::range`].
    pub fn rows<K: Key, V: Value>(
        &self,
        slot: &Slot<Vec<(K, Found<V>)>>,
    ) -> Result<Vec<(K, Found<V>)>, ReadError> {
        let rows = self.ranges.get(slot.at).ok_or(ReadError::Slot)?;
        rows.iter()
            .map(|(key, value)| Ok((K::decode(key.get(1..).unwrap_or_default())?, found(value)?)))
            .collect()
    }
}

fn found<V: Value>(raw: &Bytes) -> Result<Found<V>, ReadError> {
    Ok(Found {
        value: V::decode(raw)?,
        raw: raw.clone(),
    })
}
