//! A view as it is going to be when a batch is written that is still being filled.
//!
//! Who puts one thing after the other into a batch, each of which depends on those before it, reads through
//! this: what the batch writes is there already, all else is as the view has it. What was read once is not
//! read again.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Answers, Batch, Key, ReadError, Reads, Snapshot, Table,
    batch::Operation,
    read::{RawRange, RawRows},
};

/// What a batch is going to write, and what was read of the view below it.
#[derive(Debug, Default)]
pub(crate) struct Foresight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many of the batch's operations were looked at.
    seen: usize,
    written: BTreeMap<Vec<u8>, Row>,
    /// Ranges that it removes: whatever lies there cannot be read.
    removed: Vec<(Vec<u8>, Vec<u8>)>,
    keys: HashMap<Vec<u8>, Option<Bytes>>,
    /// Rows of ranges, and how many were asked for.
    ranges: HashMap<Bounds, (usize, RawRows)>,
}

/// From where to where, and whether backwards.
type Bounds = (Vec<u8>, Vec<u8>, bool);

/// What a batch makes of a row.
#[derive(Debug)]
enum Row {
    There(Bytes),
    Gone,
    /// Only the commit knows: it holds a position, or adds to what is there.
    Unforeseen,
}

impl Snapshot {
    /// The same view as one that foresees what a batch is going to write: [`Snapshot::foresee`] tells it.
    pub fn foreseeing(&self) -> Self {
        self.with_foresight(Foresight::default())
    }

    /// Takes note of what was put into the batch since the last time. Only for a view that is
    /// [foreseeing](Snapshot::foreseeing), and always with the same batch. Rows whose bytes only the commit
    /// knows cannot be read from then on ([`ReadError::Unforeseen`]).
    pub fn foresee(&self, batch: &Batch) {
        if let Some(foresight) = self.foresight() {
            foresight.0.lock().see(batch);
        }
    }

    /// Takes note that there is no row for a key, for who knows that and would ask for it.
    pub fn foresee_none<K: Key, V>(&self, table: &Table<K, V>, key: &K) {
        if let Some(foresight) = self.foresight() {
            let key = [&[table.info.id], key.encode().as_slice()].concat();
            let mut state = foresight.0.lock();
            state.keys.entry(key).or_insert(None);
        }
    }
}

impl Foresight {
    /// Answers a list of reads; `read` answers what is not known.
    pub(crate) async fn answer<R: Future<Output = Result<Answers, ReadError>>>(
        &self,
        reads: &Reads,
        read: impl FnOnce(Reads) -> R,
    ) -> Result<Answers, ReadError> {
        let unknown = self.0.lock().unknown(reads)?;
        let asked = (!unknown.is_empty()).then(|| Reads {
            keys: unknown.keys.clone(),
            ranges: unknown.ranges.clone(),
        });
        if let Some(asked) = asked {
            let answers = read(asked).await?;
            self.0.lock().remember(unknown, answers);
        }
        self.0.lock().answer(reads)
    }
}

impl State {
    fn see(&mut self, batch: &Batch) {
        for operation in batch.operations.iter().skip(self.seen) {
            let (key, row) = match operation {
                Operation::Put(key, value) => (key, Row::There(value.clone().into())),
                Operation::Delete(key) => (key, Row::Gone),
                Operation::PutStamped(key, ..)
                | Operation::PutStampedValue(key, ..)
                | Operation::Add(key, _)
                | Operation::Max(key, _) => (key, Row::Unforeseen),
                Operation::DeleteRange(from, to) => {
                    self.removed.push((from.clone(), to.clone()));
                    continue;
                }
            };
            self.written.insert(key.clone(), row);
        }
        self.seen = batch.operations.len();
    }

    /// How many rows have to be read of a range, so that enough are left of them.
    fn needed(&self, range: &RawRange) -> usize {
        let gone = self.within(range);
        let gone = gone.filter(|(_, row)| matches!(row, Row::Gone)).count();
        range.limit.saturating_add(gone)
    }

    /// What the batch writes within a range.
    fn within(&self, range: &RawRange) -> impl Iterator<Item = (&Vec<u8>, &Row)> {
        let is_some = range.from < range.to;
        let rows = is_some.then(|| self.written.range(range.from.clone()..range.to.clone()));
        rows.into_iter().flatten()
    }

    /// What of a list has to be read.
    fn unknown(&self, reads: &Reads) -> Result<Reads, ReadError> {
        let mut unknown = Reads::new();
        for key in &reads.keys {
            if self
                .removed
                .iter()
                .any(|(from, to)| from <= key && key < to)
            {
                return Err(ReadError::Unforeseen);
            }
            match self.written.get(key) {
                Some(Row::Unforeseen) => return Err(ReadError::Unforeseen),
                Some(_) => {}
                None if self.keys.contains_key(key) => {}
                None => unknown.keys.push(key.clone()),
            }
        }
        for range in &reads.ranges {
            let meets = |(from, to): &(Vec<u8>, Vec<u8>)| *from < range.to && range.from < *to;
            let mut within = self.within(range);
            if within.any(|(_, row)| matches!(row, Row::Unforeseen))
                || self.removed.iter().any(meets)
            {
                return Err(ReadError::Unforeseen);
            }
            let needed = self.needed(range);
            let known = self.ranges.get(&bounds(range));
            // Fewer than were asked for are all that there are.
            let enough = known.is_some_and(|(asked, rows)| *asked >= needed || rows.len() < *asked);
            if !enough {
                unknown.ranges.push(RawRange {
                    limit: needed,
                    ..range.clone()
                });
            }
        }
        Ok(unknown)
    }

    fn remember(&mut self, asked: Reads, answers: Answers) {
        self.keys.extend(asked.keys.into_iter().zip(answers.keys));
        for (range, rows) in asked.ranges.into_iter().zip(answers.ranges) {
            let known = (range.limit, rows);
            self.ranges.insert(bounds(&range), known);
        }
    }

    /// The answers, once all that was unknown is remembered.
    fn answer(&self, reads: &Reads) -> Result<Answers, ReadError> {
        let key = |key: &Vec<u8>| match self.written.get(key) {
            Some(Row::There(value)) => Ok(Some(value.clone())),
            Some(Row::Gone) => Ok(None),
            Some(Row::Unforeseen) => Err(ReadError::Unforeseen),
            None => Ok(self.keys.get(key).cloned().flatten()),
        };
        let keys = reads.keys.iter().map(key).collect::<Result<_, _>>()?;
        let ranges = reads.ranges.iter().map(|range| self.rows(range)).collect();
        Ok(Answers { keys, ranges })
    }

    fn rows(&self, range: &RawRange) -> RawRows {
        let known = self.ranges.get(&bounds(range));
        let known = known.map(|(_, rows)| rows.as_slice()).unwrap_or_default();
        let mut rows: BTreeMap<Bytes, Bytes> = known.iter().cloned().collect();
        for (key, row) in self.within(range) {
            match row {
                Row::There(value) => {
                    rows.insert(key.clone().into(), value.clone());
                }
                Row::Gone | Row::Unforeseen => {
                    rows.remove(key.as_slice());
                }
            }
        }
        if range.reverse {
            rows.into_iter().rev().take(range.limit).collect()
        } else {
            rows.into_iter().take(range.limit).collect()
        }
    }
}

fn bounds(range: &RawRange) -> Bounds {
    (range.from.clone(), range.to.clone(), range.reverse)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{NameHash, Position, Range, ShortRoomId, Storage, schema};

    const ROOM: ShortRoomId = ShortRoomId([7; 8]);

    fn key(n: u8) -> (ShortRoomId, NameHash) {
        (ROOM, NameHash([n; 16]))
    }

    /// Some rows are put and some removed.
    fn fill(batch: &mut Batch, random: &mut StdRng, value: &str) {
        for n in 0..12 {
            match random.random_range(0..4) {
                0 => batch.put(&schema::ALIAS_BY_ROOM, &key(n), &format!("{value}{n}")),
                1 => batch.delete(&schema::ALIAS_BY_ROOM, &key(n)),
                _ => {}
            }
        }
    }

    /// All that can be read of the rows.
    async fn all(view: &Snapshot) -> Vec<Vec<(u8, String)>> {
        let mut ranges = Vec::new();
        for limit in [0, 1, 2, 5, usize::MAX] {
            for (from, to) in [(0, 11), (3, 8), (8, 3)] {
                let range = || Range::prefix(&(ROOM,)).from(&key(from)).before(&key(to));
                ranges.push(range().limit(limit));
                ranges.push(range().limit(limit).reverse());
            }
        }
        let rows = view.multi_range(&schema::ALIAS_BY_ROOM, &ranges).await;
        let rows = rows.unwrap().into_iter();
        let mut all: Vec<Vec<_>> = rows
            .map(|rows| {
                let row = |((_, name), row): ((_, NameHash), crate::Found<String>)| {
                    (name.0.first().copied().unwrap(), row.value)
                };
                rows.into_iter().map(row).collect()
            })
            .collect();
        let keys: Vec<_> = (0..12).map(key).collect();
        let found = view.multi_get(&schema::ALIAS_BY_ROOM, &keys).await.unwrap();
        let found = (0..).zip(found);
        all.push(found.filter_map(|(n, row)| Some((n, row?.value))).collect());
        all
    }

    #[tokio::test]
    async fn what_is_foreseen_is_what_is_there_afterwards() {
        for seed in 0..200 {
            let mut random = StdRng::seed_from_u64(seed);
            let storage = Storage::model();
            let mut before = Batch::new();
            before.put(&schema::ALIAS_BY_ROOM, &key(5), &"old".to_owned());
            fill(&mut before, &mut random, "old");
            storage.commit(before).await.unwrap();
            let view = storage.snapshot(Position::START).await.unwrap();
            let view = view.foreseeing();
            if seed % 2 == 0 {
                all(&view).await;
            }
            let mut batch = Batch::new();
            for value in ["new", "newer"] {
                fill(&mut batch, &mut random, value);
                view.foresee(&batch);
                let cost = storage.cost();
                let foreseen = all(&view).await;
                let read = storage.cost() - cost;
                assert!(read.round_trips <= 2);
                assert_eq!(all(&view).await, foreseen);
                assert_eq!((storage.cost() - cost).round_trips, read.round_trips);
                if value == "newer" {
                    storage.commit(std::mem::take(&mut batch)).await.unwrap();
                    let after = storage.snapshot(Position::START).await.unwrap();
                    assert_eq!(foreseen, all(&after).await, "seed {seed}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_only_the_commit_knows_cannot_be_read() {
        let storage = Storage::model();
        let view = storage.snapshot(Position::START).await.unwrap();
        let view = view.foreseeing();
        let mut batch = Batch::new();
        batch.put_stamped(&schema::TAIL_BY_ROOM, &ROOM, 0, ());
        let tail = async || view.multi_get(&schema::TAIL_BY_ROOM, &[ROOM]).await;
        assert!(tail().await.is_ok());
        view.foresee(&batch);
        assert!(matches!(tail().await, Err(ReadError::Unforeseen)));
        let ranges = [Range::prefix(&())];
        let rows = view.multi_range(&schema::TAIL_BY_ROOM, &ranges).await;
        assert!(matches!(rows, Err(ReadError::Unforeseen)));
        let alias = async || view.multi_get(&schema::ALIAS_BY_ROOM, &[key(1)]).await;
        assert!(alias().await.is_ok());
        batch.delete_prefix(&schema::ALIAS_BY_ROOM, &(ROOM,));
        view.foresee(&batch);
        assert!(matches!(alias().await, Err(ReadError::Unforeseen)));
    }
}
