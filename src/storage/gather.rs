//! Reading for several things that go on side by side: what they wait for together is one list.
//!
//! A sync looks at many rooms, and of each at several things, which know nothing of each other. Within
//! [`Snapshot::gathered`] each goes on until it needs rows; when all of them wait, their lists are
//! answered as one. So what it costs is the longest chain of reads that depend on each other, however many
//! chains there are. Rows that will probably be needed further on are [read ahead](Snapshot::read_ahead).

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Answers, ReadError, Reads, Snapshot,
    read::{RawRange, RawRows},
};

/// What is waited for, and what was read ahead.
#[derive(Debug, Default)]
pub(crate) struct Gather(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    asked: Vec<(u64, Reads)>,
    wakers: HashMap<u64, Waker>,
    answered: HashMap<u64, Answers>,
    ahead: Reads,
    keys: HashMap<Vec<u8>, Option<Bytes>>,
    ranges: HashMap<RawRange, RawRows>,
}

impl Snapshot {
    /// Does `work` on this view, answering in one list whatever it waits for at the same moment.
    ///
    /// # Errors
    ///
    /// What `work` says, or that rows could not be read.
    pub async fn gathered<T, E: From<ReadError>>(
        &self,
        work: impl AsyncFnOnce(Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let gather = Arc::new(Gather::default());
        let mut work = pin!(work(self.gathering(&gather)));
        loop {
            let done = poll_fn(|context| match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(Some(done)),
                Poll::Pending if gather.is_asked() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            if let Some(done) = done.await {
                return done;
            }
            let (list, parts) = gather.list();
            let answers = self.answer_list(&list).await?;
            gather.answer(&list, answers, parts);
        }
    }

    /// Asks for rows that will probably be needed, beside the next list that is read. Whoever reads them
    /// later has them. Outside of [`Snapshot::gathered`] it does nothing.
    pub fn read_ahead(&self, reads: &Reads) {
        if let Some(gather) = self.gather() {
            let mut state = gather.0.lock();
            let unknown = state.known(reads).rest;
            state.ahead.append(unknown);
        }
    }
}

impl Gather {
    fn is_asked(&self) -> bool {
        !self.0.lock().asked.is_empty()
    }

    /// Answers a list together with others, but for what is known.
    pub(crate) async fn read(&self, reads: &Reads) -> Result<Answers, ReadError> {
        let (number, mut known) = {
            let mut state = self.0.lock();
            let mut known = state.known(reads);
            if known.rest.is_empty() {
                return Ok(known.answers);
            }
            state.next += 1;
            let (number, rest) = (state.next, std::mem::take(&mut known.rest));
            state.asked.push((number, rest));
            (number, known)
        };
        let rest = poll_fn(|context| {
            let mut state = self.0.lock();
            match state.answered.remove(&number) {
                Some(answers) => Poll::Ready(answers),
                None => {
                    state.wakers.insert(number, context.waker().clone());
                    Poll::Pending
                }
            }
        });
        let rest = rest.await;
        for (index, answer) in known.keys.into_iter().zip(rest.keys) {
            if let Some(place) = known.answers.keys.get_mut(index) {
                *place = answer;
            }
        }
        for (index, answer) in known.ranges.into_iter().zip(rest.ranges) {
            if let Some(place) = known.answers.ranges.get_mut(index) {
                *place = answer;
            }
        }
        Ok(known.answers)
    }

    /// All that is asked, as one list, and what of it is whose.
    fn list(&self) -> (Reads, Vec<Part>) {
        let mut state = self.0.lock();
        let ahead = std::mem::take(&mut state.ahead);
        let mut list = Reads {
            keys: Vec::new(),
            ranges: ahead.ranges,
        };
        // What is read ahead is often asked for in the same list.
        let mut places = HashMap::new();
        for key in ahead.keys {
            places.entry(key).or_insert_with_key(|key| {
                list.keys.push(key.clone());
                list.keys.len() - 1
            });
        }
        let mut parts = vec![Part {
            number: AHEAD,
            keys: (0..list.keys.len()).collect(),
            ranges: list.ranges.len(),
        }];
        for (number, reads) in state.asked.drain(..) {
            let place = |key| {
                places.get(&key).copied().unwrap_or_else(|| {
                    list.keys.push(key);
                    list.keys.len() - 1
                })
            };
            parts.push(Part {
                number,
                keys: reads.keys.into_iter().map(place).collect(),
                ranges: reads.ranges.len(),
            });
            list.ranges.extend(reads.ranges);
        }
        (list, parts)
    }

    fn answer(&self, list: &Reads, answers: Answers, parts: Vec<Part>) {
        let mut state = self.0.lock();
        let mut ranges = answers.ranges.into_iter();
        for part in parts {
            let ranges = ranges.by_ref().take(part.ranges);
            let keys = part.keys.iter();
            let keys = keys.map(|place| answers.keys.get(*place).cloned().flatten());
            if part.number == AHEAD {
                state.keys.extend(list.keys.iter().cloned().zip(keys));
                state.ranges.extend(list.ranges.iter().cloned().zip(ranges));
                continue;
            }
            let answers = Answers {
                keys: keys.collect(),
                ranges: ranges.collect(),
            };
            state.answered.insert(part.number, answers);
            if let Some(waker) = state.wakers.remove(&part.number) {
                waker.wake();
            }
        }
    }
}

/// The number of what is read ahead, which nobody waits for.
const AHEAD: u64 = 0;

/// Somebody's part of a list.
struct Part {
    number: u64,
    /// Where in the list its keys stand.
    keys: Vec<usize>,
    /// How many ranges are its own, after those of the parts before it.
    ranges: usize,
}

/// What is known of a list, and what is not.
struct Known {
    answers: Answers,
    rest: Reads,
    /// Where in the answers the rest belongs.
    keys: Vec<usize>,
    ranges: Vec<usize>,
}

impl State {
    fn known(&self, reads: &Reads) -> Known {
        let mut known = Known {
            answers: Answers {
                keys: Vec::with_capacity(reads.keys.len()),
                ranges: Vec::with_capacity(reads.ranges.len()),
            },
            rest: Reads::new(),
            keys: Vec::new(),
            ranges: Vec::new(),
        };
        for (index, key) in reads.keys.iter().enumerate() {
            let found = self.keys.get(key);
            if found.is_none() {
                known.rest.keys.push(key.clone());
                known.keys.push(index);
            }
            known.answers.keys.push(found.cloned().flatten());
        }
        for (index, range) in reads.ranges.iter().enumerate() {
            let found = self.ranges.get(range);
            if found.is_none() {
                known.rest.ranges.push(range.clone());
                known.ranges.push(index);
            }
            known
                .answers
                .ranges
                .push(found.cloned().unwrap_or_default());
        }
        known
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;
    use crate::{Batch, Position, Range, ShortRoomId, Storage, schema};

    const ROOMS: [ShortRoomId; 3] = [
        ShortRoomId([1; 8]),
        ShortRoomId([2; 8]),
        ShortRoomId([3; 8]),
    ];

    async fn storage() -> Storage {
        let storage = Storage::model();
        let mut batch = Batch::new();
        for room in ROOMS {
            batch.put_stamped(&schema::TAIL_BY_ROOM, &room, 0, ());
        }
        batch.put(
            &schema::ALIAS_BY_ROOM,
            &(ROOMS[0], crate::NameHash([1; 16])),
            &"a".to_owned(),
        );
        storage.commit(batch).await.unwrap();
        storage
    }

    async fn is_there(snapshot: &Snapshot, room: ShortRoomId) -> bool {
        let rows = snapshot.multi_get(&schema::TAIL_BY_ROOM, &[room]).await;
        rows.unwrap()[0].is_some()
    }

    #[tokio::test]
    async fn what_waits_together_is_read_together() {
        let storage = storage().await;
        let snapshot = storage.snapshot(Position::START).await.unwrap();
        let before = storage.cost();
        let none = ShortRoomId([9; 8]);
        let found = snapshot.gathered(async |snapshot| {
            let twice = async |first, second| {
                let first = is_there(&snapshot, first).await;
                [first, is_there(&snapshot, second).await]
            };
            let once = is_there(&snapshot, none);
            let all =
                futures_util::future::join3(twice(ROOMS[0], none), once, twice(none, ROOMS[1]));
            Ok::<_, ReadError>(all.await)
        });
        let found = found.await.unwrap();
        assert_eq!(found, ([true, false], false, [false, true]));
        let cost = storage.cost() - before;
        assert_eq!((cost.round_trips, cost.keys), (2, 5));
    }

    #[tokio::test]
    async fn what_was_read_ahead_is_there() {
        let storage = storage().await;
        let snapshot = storage.snapshot(Position::START).await.unwrap();
        let before = storage.cost();
        let names = Range::prefix(&(ROOMS[0],));
        let work = async |snapshot: Snapshot| {
            let mut ahead = Reads::new();
            ahead.get(&schema::TAIL_BY_ROOM, &ROOMS[1]);
            ahead.get(&schema::TAIL_BY_ROOM, &ShortRoomId([9; 8]));
            ahead.range(&schema::ALIAS_BY_ROOM, &names);
            snapshot.read_ahead(&ahead);
            assert!(is_there(&snapshot, ROOMS[0]).await);
            let rooms = [ShortRoomId([9; 8]), ROOMS[1]];
            let rows = snapshot.multi_get(&schema::TAIL_BY_ROOM, &rooms).await?;
            assert!(rows[0].is_none() && rows[1].is_some());
            let names = snapshot
                .multi_range(&schema::ALIAS_BY_ROOM, std::slice::from_ref(&names))
                .await?;
            assert_eq!(names[0].len(), 1);
            assert_eq!((storage.cost() - before).round_trips, 1);
            let mut ahead = Reads::new();
            ahead.get_all(&schema::TAIL_BY_ROOM, &[ROOMS[2], ROOMS[1], ROOMS[2]]);
            snapshot.read_ahead(&ahead);
            let some = [ROOMS[1], ROOMS[2], ShortRoomId([9; 8]), ROOMS[0]];
            let rows = snapshot.multi_get(&schema::TAIL_BY_ROOM, &some).await?;
            let found: Vec<_> = rows.iter().map(Option::is_some).collect();
            assert_eq!(found, [true, true, false, true]);
            Ok::<_, ReadError>(())
        };
        snapshot.gathered(work).await.unwrap();
        // Nothing is read twice but what was asked for and not read ahead.
        let cost = storage.cost() - before;
        assert_eq!((cost.round_trips, cost.keys, cost.ranges), (2, 5, 1));
    }
}
