//! Collecting hits of the index: messages in an order that stays what it is while the index grows, and people,
//! each once.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use pdu::EventNumber;
use serde::{Deserialize, Serialize};
use storage::{NameHash, ShortRoomId};
use tantivy::{
    DocId, Score, SegmentOrdinal, SegmentReader, TantivyError, Term,
    collector::{Collector, SegmentCollector},
    columnar::Column,
    query::Bm25StatisticsProvider,
    schema::Field,
};

use crate::fields::{columns, room_of, whole};

/// Ranks are told in parts of this: what floating-point sums differ in, from one segment to another, is less.
const RANK_UNIT: f32 = 1_024.0;

/// So many people are kept of a search, before the best of them are chosen. Who searches for one letter on a
/// large server does not see all it begins.
const PEOPLE_MAX: usize = 20_000;

/// Where a message stands among others: the greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Order {
    /// How well it fits; 0 if that does not matter.
    pub(crate) rank: u32,
    time: u64,
    room: u64,
    slot: u64,
    step: i64,
}

/// A message that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    pub(crate) order: Order,
    pub(crate) rank: u32,
    pub(crate) room: ShortRoomId,
    pub(crate) number: EventNumber,
    /// The event that says what was found: the message, or its edit.
    pub(crate) said: EventNumber,
    /// Everybody who is in the room may see it.
    pub(crate) shared: bool,
}

impl Hit {
    /// How well it fits, as clients get it.
    pub(crate) fn rank(&self) -> f64 {
        f64::from(self.rank) / f64::from(RANK_UNIT)
    }
}

/// Wants the first messages behind a place in the order.
#[derive(Clone, Debug)]
pub(crate) struct First {
    /// How many.
    pub(crate) limit: usize,
    /// Behind this one.
    pub(crate) after: Option<Order>,
    /// Ordered by rank, not only by time.
    pub(crate) by_rank: bool,
    /// The rooms that the viewer is in.
    pub(crate) joined: Arc<HashSet<ShortRoomId>>,
}

/// Messages that were found.
#[derive(Debug, Default)]
pub(crate) struct Hits {
    /// The first ones, in order.
    pub(crate) hits: Vec<Hit>,
    /// How many there are in all that the viewer may see for sure.
    pub(crate) sure: u64,
}

pub(crate) struct MessagesOfSegment {
    wanted: First,
    room: Column<u64>,
    time: Column<u64>,
    slot: Column<u64>,
    step: Column<i64>,
    number: Column<u64>,
    said: Column<u64>,
    shared: Column<u64>,
    heap: BinaryHeap<Reverse<Hit>>,
    sure: u64,
}

impl Collector for First {
    type Fruit = Hits;
    type Child = MessagesOfSegment;

    fn for_segment(
        &self,
        _: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> Result<MessagesOfSegment, TantivyError> {
        let fast = segment.fast_fields();
        Ok(MessagesOfSegment {
            wanted: self.clone(),
            room: fast.u64(columns::ROOM)?,
            time: fast.u64(columns::TIME)?,
            slot: fast.u64(columns::SLOT)?,
            step: fast.i64(columns::STEP)?,
            number: fast.u64(columns::NUMBER)?,
            said: fast.u64(columns::SAID)?,
            shared: fast.u64(columns::SHARED)?,
            heap: BinaryHeap::new(),
            sure: 0,
        })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    fn merge_fruits(&self, fruits: Vec<Hits>) -> Result<Hits, TantivyError> {
        let sure = fruits.iter().map(|fruit| fruit.sure).sum();
        let mut hits: Vec<_> = fruits.into_iter().flat_map(|fruit| fruit.hits).collect();
        hits.sort_unstable_by(|a, b| b.cmp(a));
        hits.truncate(self.limit);
        Ok(Hits { hits, sure })
    }
}

impl MessagesOfSegment {
    fn hit(&self, doc: DocId, score: Score) -> Option<Hit> {
        let room = self.room.first(doc)?;
        let number = |column: &Column<u64>| u32::try_from(column.first(doc)?).ok();
        // Scores are small and not negative.
        let rank = (score * RANK_UNIT).round() as u32;
        Some(Hit {
            order: Order {
                rank: if self.wanted.by_rank { rank } else { 0 },
                time: self.time.first(doc)?,
                room,
                slot: self.slot.first(doc)?,
                step: self.step.first(doc)?,
            },
            rank,
            room: room_of(room),
            number: EventNumber(number(&self.number)?),
            said: EventNumber(number(&self.said)?),
            shared: self.shared.first(doc)? == 1,
        })
    }
}

impl SegmentCollector for MessagesOfSegment {
    type Fruit = Hits;

    fn collect(&mut self, doc: DocId, score: Score) {
        let Some(hit) = self.hit(doc, score) else {
            return;
        };
        if hit.shared && self.wanted.joined.contains(&hit.room) {
            self.sure += 1;
        }
        if self.wanted.after.is_some_and(|after| hit.order >= after) {
            return;
        }
        self.heap.push(Reverse(hit));
        if self.heap.len() > self.wanted.limit {
            self.heap.pop();
        }
    }

    fn harvest(self) -> Hits {
        Hits {
            hits: self.heap.into_iter().map(|Reverse(hit)| hit).collect(),
            sure: self.sure,
        }
    }
}

/// A rank depends on the message and on what is searched for, and not on what else is in the index: it is
/// the same on the next page. So words count the same however frequent they are, and a message is long if
/// it is longer than most messages of this world.
pub(crate) struct FixedStatistics;

impl Bm25StatisticsProvider for FixedStatistics {
    fn total_num_tokens(&self, _: Field) -> Result<u64, TantivyError> {
        Ok(15_000_000)
    }

    fn total_num_docs(&self) -> Result<u64, TantivyError> {
        Ok(1_000_000)
    }

    fn doc_freq(&self, _: &Term) -> Result<u64, TantivyError> {
        Ok(1_000)
    }
}

/// Wants people, each once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct People;

/// Somebody who was found, and a room in which the viewer may find them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PersonHit {
    pub(crate) person: NameHash,
    pub(crate) room: ShortRoomId,
    pub(crate) score: Score,
}

pub(crate) struct PeopleOfSegment {
    room: Column<u64>,
    high: Column<u64>,
    low: Column<u64>,
    people: HashMap<(u64, u64), (Score, u64)>,
}

impl Collector for People {
    type Fruit = Vec<PersonHit>;
    type Child = PeopleOfSegment;

    fn for_segment(
        &self,
        _: SegmentOrdinal,
        segment: &SegmentReader,
    ) -> Result<PeopleOfSegment, TantivyError> {
        let fast = segment.fast_fields();
        Ok(PeopleOfSegment {
            room: fast.u64(columns::ROOM)?,
            high: fast.u64(columns::PERSON_HIGH)?,
            low: fast.u64(columns::PERSON_LOW)?,
            people: HashMap::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        true
    }

    /// The best first.
    fn merge_fruits(&self, fruits: Vec<Vec<PersonHit>>) -> Result<Vec<PersonHit>, TantivyError> {
        let mut hits: Vec<_> = fruits.into_iter().flatten().collect();
        hits.sort_unstable_by(|a, b| {
            b.score
                .total_cmp(&a.score)
                .then_with(|| a.person.cmp(&b.person))
        });
        let mut seen = HashSet::new();
        hits.retain(|hit| seen.insert(hit.person));
        Ok(hits)
    }
}

impl SegmentCollector for PeopleOfSegment {
    type Fruit = Vec<PersonHit>;

    fn collect(&mut self, doc: DocId, score: Score) {
        let columns = [&self.high, &self.low, &self.room].map(|column| column.first(doc));
        let [Some(high), Some(low), Some(room)] = columns else {
            return;
        };
        let room_for_more = self.people.len() < PEOPLE_MAX;
        match self.people.entry((high, low)) {
            Entry::Occupied(mut known) if known.get().0 < score => {
                known.insert((score, room));
            }
            Entry::Vacant(new) if room_for_more => {
                new.insert((score, room));
            }
            _ => {}
        }
    }

    fn harvest(self) -> Vec<PersonHit> {
        let all = self.people.into_iter();
        all.map(|((high, low), (score, room))| PersonHit {
            person: whole(high, low),
            room: room_of(room),
            score,
        })
        .collect()
    }
}
