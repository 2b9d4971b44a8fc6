//! What somebody has not read: counts by running totals ([spec]).
//!
//! What the default push rules count is a subtraction: the room's total, less what it was at the receipt,
//! less what one has sent oneself since. Mentions are rows of their own. Only where threads matter are
//! events looked at one by one.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use pdu::EventNumber;
use ruma::{EventId, OwnedEventId};
use storage::{
    NameHash, Range, Reads, Snapshot,
    schema::{self, Head, MentionRow, Place, PlacedEvent, ReadRow},
};

use crate::{Room, Rooms, Viewer, accept::EVERYBODY, receipts::counted};

/// So many events are looked at one by one, the newest; what is older is not counted by thread.
const UNREAD_SCAN: usize = 1_000;
/// So many mentions count, at most.
const MENTIONS_MAX: usize = 1_000;
/// Threads with a receipt of their own that are looked at, at most.
const READ_THREADS_MAX: usize = 1_000;

/// What somebody has not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Events that notify.
    pub notifications: u64,
    /// Of these, the ones that concern the reader especially.
    pub highlights: u64,
}

/// What somebody has not read in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Outside of threads.
    pub main: Count,
    /// In threads, by their roots.
    pub threads: BTreeMap<OwnedEventId, Count>,
    /// In all.
    pub all: Count,
}

/// A room whose unread events are to be counted.
#[derive(Debug)]
struct Asked {
    room: Arc<Room>,
    head: Head,
    read: ReadRow,
    threads: HashMap<NameHash, ReadRow>,
    own: i64,
}

impl Rooms {
    /// What somebody has not read in some rooms, in their order; two round trips for all rooms in which
    /// no thread matters. `by_thread`: whether threads are to be told apart.
    pub async fn unread(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[(Arc<Room>, Head)],
        by_thread: bool,
    ) -> error::Result<Vec<Unread>> {
        let asked = self.asked(snapshot, viewer, rooms).await?;
        let mut reads = Reads::new();
        let slots: Vec<_> = asked
            .iter()
            .map(|asked| {
                [viewer.short, EVERYBODY].map(|who| {
                    let range = Range::prefix(&(who, asked.room.short))
                        .after(&(who, asked.room.short, asked.read.place))
                        .reverse()
                        .limit(MENTIONS_MAX);
                    reads.range(&schema::MENTION_BY_USER_ROOM, &range)
                })
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut counts = Vec::new();
        for (asked, [own, everybody]) in asked.iter().zip(&slots) {
            let mut mentions: Vec<_> = answers.rows(own)?;
            let of_all = answers.rows(everybody)?;
            mentions.extend(not_by(asked, snapshot, viewer, of_all).await?);
            let mentions: BTreeMap<Place, MentionRow> = mentions
                .into_iter()
                .map(|((_, _, place), row)| (place, row.value))
                .collect();
            let threads_since = asked.head.totals.threaded != asked.read.totals.threaded
                || mentions.values().any(|mention| mention.thread.is_some());
            let by_thread = (by_thread && threads_since) || !asked.threads.is_empty();
            counts.push(if by_thread {
                asked.count_each(self, snapshot, viewer, &mentions).await?
            } else {
                asked.subtract(&mentions)
            });
        }
        Ok(counts)
    }

    async fn asked(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[(Arc<Room>, Head)],
    ) -> error::Result<Vec<Asked>> {
        let mut reads = Reads::new();
        let slots: Vec<_> = rooms
            .iter()
            .map(|(room, _)| {
                let range = Range::prefix(&(viewer.short, room.short)).limit(READ_THREADS_MAX);
                let read = reads.range(&schema::READ_BY_USER_ROOM, &range);
                let own = (viewer.short, room.short);
                (read, reads.get(&schema::OWN_TOTAL_BY_USER_ROOM, &own))
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut asked = Vec::new();
        for ((room, head), (read, own)) in rooms.iter().zip(&slots) {
            let mut threads = HashMap::new();
            let mut unthreaded = ReadRow {
                place: Place::START,
                totals: schema::Totals::default(),
                own: 0,
            };
            for ((_, _, thread), row) in answers.rows(read)? {
                if thread == NameHash::NONE {
                    unthreaded = row.value;
                } else {
                    threads.insert(thread, row.value);
                }
            }
            // What is behind the unthreaded receipt is read in all threads.
            threads.retain(|_, row: &mut ReadRow| row.place > unthreaded.place);
            asked.push(Asked {
                room: Arc::clone(room),
                head: head.clone(),
                read: unthreaded,
                threads,
                own: answers.one(own)?.map_or(0, |row| row.value.0),
            });
        }
        Ok(asked)
    }
}

/// The mentions of everybody that somebody else has made.
async fn not_by(
    asked: &Asked,
    snapshot: &Snapshot,
    viewer: &Viewer,
    rows: Vec<(
        (storage::ShortUserId, storage::ShortRoomId, Place),
        storage::Found<MentionRow>,
    )>,
) -> error::Result<
    Vec<(
        (storage::ShortUserId, storage::ShortRoomId, Place),
        storage::Found<MentionRow>,
    )>,
> {
    let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value.number).collect();
    let events = asked.room.read_events(snapshot, &numbers).await?;
    Ok(rows
        .into_iter()
        .zip(events)
        .filter(|(_, event)| {
            event
                .as_ref()
                .is_some_and(|event| event.row.header.sender != viewer.user_id.as_str())
        })
        .map(|(row, _)| row)
        .collect())
}

impl Asked {
    /// The counts by running totals, threads and all.
    fn subtract(&self, mentions: &BTreeMap<Place, MentionRow>) -> Unread {
        let sent = u64::try_from(self.own - self.read.own).unwrap_or(0);
        let counted = self
            .head
            .totals
            .notify
            .saturating_sub(self.read.totals.notify)
            .saturating_sub(sent);
        let count = |test: fn(&MentionRow) -> bool| {
            u64::try_from(mentions.values().filter(|row| test(row)).count()).unwrap_or(u64::MAX)
        };
        let all = Count {
            notifications: counted + count(|row| row.notify),
            highlights: count(|row| row.highlight),
        };
        Unread {
            main: all,
            threads: BTreeMap::new(),
            all,
        }
    }

    /// The counts by looking at the events, each in its thread.
    async fn count_each(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        mentions: &BTreeMap<Place, MentionRow>,
    ) -> error::Result<Unread> {
        let room = self.room.short;
        let range = Range::prefix(&(room,))
            .after(&(room, self.read.place))
            .reverse()
            .limit(UNREAD_SCAN);
        let rows = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await?;
        let mut placed: Vec<(Place, PlacedEvent)> = rows
            .into_iter()
            .flatten()
            .map(|((_, place), row)| (place, row.value))
            .collect();
        placed.reverse();
        let whole = placed.len() < UNREAD_SCAN;
        let before = whole.then_some(self.read.totals.notify);
        let numbers = counted(placed.iter().map(|(_, placed)| *placed), before);
        let events = self.room.read_events(snapshot, &numbers).await?;
        let others: std::collections::BTreeSet<EventNumber> = events
            .iter()
            .flatten()
            .filter(|event| event.row.header.sender != viewer.user_id.as_str())
            .map(|event| event.number)
            .collect();
        let roots = self.roots(snapshot, &placed, mentions).await?;
        let mut unread = Unread::default();
        for (place, placed) in &placed {
            if others.contains(&placed.number) {
                self.add(rooms, &roots, placed.thread, *place, &mut unread, |count| {
                    count.notifications += 1;
                });
            }
        }
        for (place, mention) in mentions {
            self.add(
                rooms,
                &roots,
                mention.thread,
                *place,
                &mut unread,
                |count| {
                    count.notifications += u64::from(mention.notify);
                    count.highlights += u64::from(mention.highlight);
                },
            );
        }
        Ok(unread)
    }

    /// The ids of the roots of all threads that are spoken of.
    async fn roots(
        &self,
        snapshot: &Snapshot,
        placed: &[(Place, PlacedEvent)],
        mentions: &BTreeMap<Place, MentionRow>,
    ) -> error::Result<HashMap<EventNumber, OwnedEventId>> {
        let threads = placed.iter().filter_map(|(_, placed)| placed.thread);
        let threads = threads.chain(mentions.values().filter_map(|mention| mention.thread));
        let threads: std::collections::BTreeSet<_> = threads.collect();
        let threads: Vec<_> = threads.into_iter().collect();
        let events = self.room.read_events(snapshot, &threads).await?;
        events
            .into_iter()
            .flatten()
            .map(|event| {
                let id = EventId::parse(&event.row.header.event_id).map_err(error::internal)?;
                Ok((event.number, id))
            })
            .collect()
    }

    /// Counts something at a place of a thread, if it is not read.
    fn add(
        &self,
        rooms: &Rooms,
        roots: &HashMap<EventNumber, OwnedEventId>,
        thread: Option<EventNumber>,
        place: Place,
        unread: &mut Unread,
        count: impl Fn(&mut Count),
    ) {
        let root = thread.and_then(|thread| roots.get(&thread));
        let name = root.map_or("main", |root| root.as_str());
        let hash = rooms.storage().thread_hash(name);
        if self
            .threads
            .get(&hash)
            .is_some_and(|read| read.place >= place)
        {
            return;
        }
        count(&mut unread.all);
        match root {
            Some(root) => count(unread.threads.entry(root.clone()).or_default()),
            None => count(&mut unread.main),
        }
    }
}
