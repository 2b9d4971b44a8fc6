//! Reads from a snapshot: what is in memory on the calling task, the rest off it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use rocksdb::{DB, DBRawIterator, ErrorKind, ReadOptions, ReadTier, SnapshotWithThreadMode};
use yoke::{Yoke, Yokeable};

use super::{Shared, families};
use crate::{
    Access, ReadError, Stamp,
    position::stamp_of,
    read::{Answers, MAX_ANSWER, RawRange, RawRows, Reads},
};

/// How many rows a range may walk on the calling task; longer walks leave it.
const ROWS_ON_TASK: usize = 512;

/// A snapshot, which must not outlive its database: `yoke` proves that it does not.
#[derive(Yokeable)]
#[allow(
    unsafe_code,
    reason = "yoke's derive writes it, and checks what it rests on"
)]
struct Pinned<'a>(SnapshotWithThreadMode<'a, DB>);

/// One consistent view of the database.
#[derive(Clone)]
pub(crate) struct View(Arc<Inner>);

struct Inner {
    snapshot: Yoke<Pinned<'static>, Arc<DB>>,
    shared: Arc<Shared>,
}

/// What the memory could not answer.
#[derive(Default)]
struct Rest {
    /// Indexes into the keys asked for, and the keys.
    keys: Vec<(usize, Vec<u8>)>,
    /// Indexes into the ranges asked for, and what is left of them.
    ranges: Vec<(usize, RawRange)>,
}

impl View {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let snapshot =
            Yoke::attach_to_cart(Arc::clone(&shared.db), |db: &DB| Pinned(db.snapshot()));
        Self(Arc::new(Inner { snapshot, shared }))
    }

    /// The commit up to which this view holds everything.
    pub(crate) fn stamp(&self) -> Stamp {
        stamp_of(self.0.snapshot.get().0.sequence_number())
    }

    /// Answers a list of reads.
    pub(crate) async fn read(&self, reads: &Reads) -> Result<Answers, ReadError> {
        let (mut answers, rest) = self.0.read_memory(reads)?;
        if rest.keys.is_empty() && rest.ranges.is_empty() {
            return Ok(answers);
        }
        let inner = Arc::clone(&self.0);
        let (keys, ranges) = tokio::task::spawn_blocking(move || inner.read_disk(rest))
            .await
            .map_err(|error| ReadError::Engine(error.to_string()))??;
        for (index, value) in keys {
            if let Some(place) = answers.keys.get_mut(index) {
                *place = value;
            }
        }
        for (index, rows) in ranges {
            if let Some(place) = answers.ranges.get_mut(index) {
                place.extend(rows);
            }
        }
        Ok(answers)
    }
}

type OffTask = (Vec<(usize, Option<Bytes>)>, Vec<(usize, RawRows)>);

impl Inner {
    fn read_memory(&self, reads: &Reads) -> Result<(Answers, Rest), ReadError> {
        let mut rest = Rest::default();
        let mut keys = Vec::with_capacity(reads.keys.len());
        for (index, answer) in self
            .get(&reads.keys, ReadTier::BlockCache)?
            .into_iter()
            .enumerate()
        {
            // Where the block behind the one in memory is not, the engine says that it found nothing of no
            // length, instead of that it does not know; no value of ours is empty.
            let unknown = match &answer {
                Ok(value) => value.as_ref().is_some_and(Bytes::is_empty),
                Err(error) => error.kind() == ErrorKind::Incomplete,
            };
            if unknown {
                let key = reads.keys.get(index);
                rest.keys.extend(key.map(|key| (index, key.clone())));
                keys.push(None);
            } else {
                keys.push(answer.map_err(engine)?);
            }
        }
        let mut ranges = Vec::with_capacity(reads.ranges.len());
        for (index, range) in reads.ranges.iter().enumerate() {
            let (rows, left) = self.walk(range, ReadTier::BlockCache, ROWS_ON_TASK)?;
            ranges.push(rows);
            rest.ranges.extend(left.map(|left| (index, left)));
        }
        Ok((Answers { keys, ranges }, rest))
    }

    fn read_disk(&self, rest: Rest) -> Result<OffTask, ReadError> {
        let (indexes, keys): (Vec<_>, Vec<_>) = rest.keys.into_iter().unzip();
        let values = self.get(&keys, ReadTier::All)?;
        let keys = indexes
            .into_iter()
            .zip(values)
            .map(|(index, value)| Ok((index, value.map_err(engine)?)))
            .collect::<Result<_, ReadError>>()?;
        let ranges = rest
            .ranges
            .into_iter()
            .map(|(index, range)| Ok((index, self.walk(&range, ReadTier::All, usize::MAX)?.0)))
            .collect::<Result<_, ReadError>>()?;
        Ok((keys, ranges))
    }

    /// Looks up keys of any families, those of one family together; answers in the order of the keys.
    fn get(&self, keys: &[Vec<u8>], tier: ReadTier) -> Result<Vec<Lookup>, ReadError> {
        let mut options = self.read_options();
        options.set_read_tier(tier);
        let mut answers = Vec::new();
        answers.resize_with(keys.len(), || Ok(None));
        for (access, indexes) in self.by_access(keys) {
            let db = self.snapshot.backing_cart();
            let family = families::family(db, access).map_err(engine)?;
            let of_family = indexes.iter().filter_map(|index| keys.get(*index));
            // Most lists are in order already, and need not be sorted by the engine.
            let sorted = of_family.clone().is_sorted();
            let found = db.batched_multi_get_cf_opt(family, of_family, sorted, &options);
            for (index, value) in indexes.into_iter().zip(found) {
                if let Some(place) = answers.get_mut(index) {
                    *place = value.map(|value| value.map(|value| Bytes::copy_from_slice(&value)));
                }
            }
        }
        Ok(answers)
    }

    fn by_access(&self, keys: &[Vec<u8>]) -> Vec<(Access, Vec<usize>)> {
        let mut all: Vec<(Access, Vec<usize>)> = Vec::new();
        for (index, key) in keys.iter().enumerate() {
            let access = self.shared.families.access(key);
            match all.iter_mut().find(|(found, _)| *found == access) {
                Some((_, indexes)) => indexes.push(index),
                None => all.push((access, vec![index])),
            }
        }
        all
    }

    /// Walks through a range: its rows, and what is left of it if the memory did not hold all of it or
    /// it has more than `max_rows`.
    fn walk(
        &self,
        range: &RawRange,
        tier: ReadTier,
        max_rows: usize,
    ) -> Result<(RawRows, Option<RawRange>), ReadError> {
        let mut rows = RawRows::new();
        if range.from >= range.to || range.limit == 0 {
            return Ok((rows, None));
        }
        let mut options = self.read_options();
        options.set_read_tier(tier);
        options.set_iterate_lower_bound(range.from.as_slice());
        options.set_iterate_upper_bound(range.to.as_slice());
        let db = self.snapshot.backing_cart();
        let family = self
            .shared
            .families
            .of_key(db, &range.from)
            .map_err(engine)?;
        let mut at = db.raw_iterator_cf_opt(family, options);
        let complete = collect(&mut at, range, max_rows, &mut rows)?;
        if complete {
            return Ok((rows, None));
        }
        let left = left_of(range, &rows);
        Ok((rows, Some(left)))
    }

    fn read_options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.snapshot.get().0);
        options
    }
}

type Lookup = Result<Option<Bytes>, rocksdb::Error>;

/// Takes rows up to the limits, and tells whether the range is at its end.
fn collect(
    at: &mut DBRawIterator<'_>,
    range: &RawRange,
    max_rows: usize,
    rows: &mut RawRows,
) -> Result<bool, ReadError> {
    if range.reverse {
        at.seek_to_last();
    } else {
        at.seek_to_first();
    }
    let mut bytes = 0;
    while let Some((key, value)) = at.item() {
        if rows.len() == max_rows {
            return Ok(false);
        }
        bytes += key.len() + value.len();
        if bytes > MAX_ANSWER {
            return Err(ReadError::TooLarge);
        }
        rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
        if rows.len() == range.limit {
            return Ok(true);
        }
        if range.reverse {
            at.prev();
        } else {
            at.next();
        }
    }
    match at.status() {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
        Err(error) => Err(engine(error)),
    }
}

/// The range behind the rows that were found.
fn left_of(range: &RawRange, rows: &RawRows) -> RawRange {
    let mut left = range.clone();
    left.limit -= rows.len();
    if let Some((last, _)) = rows.last() {
        if range.reverse {
            left.to = last.to_vec();
        } else {
            left.from = last.to_vec();
            left.from.push(0);
        }
    }
    left
}

fn engine(error: impl std::error::Error) -> ReadError {
    ReadError::Engine(error.to_string())
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("View").field(&self.stamp()).finish()
    }
}
