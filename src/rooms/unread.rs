//! What somebody has not read: counts by running totals ([spec]).
//!
//! What the default push rules count is a subtraction: the room's total, less what it was where the user
//! has read to. What one sends oneself counts as read, so nothing of one's own lies behind that place.
//! Mentions are rows of their own. Threads are told apart, and rules of one's own applied, by looking at
//! what came since the last count, which is remembered: each event is looked at once.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receiving-notifications

mod context;
mod notified;
mod rules;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedEventId, push::Ruleset};
use storage::{
    Found, Position, Range, Reads, ShortRoomId, ShortUserId, Slot, Snapshot, Stamped,
    schema::{self, AccountDataRow, Head, ReadScope},
};

pub use self::notified::{NotificationPage, NotificationQuery, Notified};
use self::{
    rules::{CountingRules, Mode},
    tally::{Read, Tally},
};
use crate::{Room, Rooms, Viewer};

/// So many events of a room are looked at one by one in one go; the rest is looked at in the background,
/// and counts when somebody asks again.
const UNREAD_SCAN: usize = 1_000;
/// How many counts are remembered, and how many users' rules.
const TALLIES_MAX: usize = 50_000;
const RULES_MAX: usize = 10_000;
/// In so many rooms the background is at work at once.
const BACKGROUND_MAX: usize = 64;
/// Threads of a room with a receipt of their own, at most; the rest count as unread.
pub(crate) const SCOPES_MAX: usize = 5_000;

/// Events that somebody has not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that notify.
    pub notifications: u64,
    /// Of these, the ones that highlight.
    pub highlights: u64,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.notifications += other.notifications;
        self.highlights += other.highlights;
    }
}

/// What somebody has not read in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Outside of threads.
    pub main: Count,
    /// In threads, by their roots; those in which something is unread.
    pub threads: BTreeMap<OwnedEventId, Count>,
}

impl Unread {
    /// In the whole room, threads and all: for clients that know none.
    pub fn whole(&self) -> Count {
        let mut whole = self.main;
        self.threads.values().for_each(|count| whole.add(*count));
        whole
    }
}

/// What is remembered of earlier counts.
pub(crate) struct Counts {
    tallies: Cache<(ShortUserId, ShortRoomId), Arc<Tally>>,
    rules: Cache<ShortUserId, (RulesId, Arc<CountingRules>)>,
    background: Mutex<HashSet<(ShortUserId, ShortRoomId)>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            tallies: Cache::new(TALLIES_MAX),
            rules: Cache::new(RULES_MAX),
            background: Mutex::default(),
        }
    }
}

/// Which rules, and which list of ignored people: when they were stored.
type RulesId = (Option<Position>, Option<Position>);

/// A room whose unread events are to be counted.
#[derive(Clone, Debug)]
struct Asked {
    room: Arc<Room>,
    head: Head,
    mode: Mode,
    read: Read,
    rules: RulesId,
}

impl Rooms {
    /// What somebody has not read in some rooms, in their order. Two round trips; a third where new threads
    /// are unread, or rules of their own apply. Nothing for a room that they never joined.
    pub async fn unread(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[Arc<Room>],
    ) -> error::Result<Vec<Unread>> {
        let (rules, asked) = self.asked(snapshot, viewer, rooms).await?;
        let (counted, behind) = self.count(snapshot, viewer, &rules, &asked).await?;
        for room in behind {
            self.count_in_background(viewer, room);
        }
        Ok(counted)
    }

    /// The first round trip: rules, heads, and up to where everything is read.
    async fn asked(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[Arc<Room>],
    ) -> error::Result<(Arc<CountingRules>, Vec<Option<Asked>>)> {
        let storage = self.storage();
        let global = |event_type| {
            let event_type = storage.type_hash(event_type);
            (viewer.short, ShortRoomId::NONE, event_type)
        };
        let mut reads = Reads::new();
        let data = [users::PUSH_RULES, "m.ignored_user_list"].map(global);
        let data = reads.get_all(&schema::ACCOUNT_DATA_BY_USER, &data);
        let slots: Vec<_> = rooms
            .iter()
            .map(|room| {
                let range = Range::prefix(&(viewer.short, room.short)).limit(SCOPES_MAX);
                (
                    reads.get(&schema::HEAD_BY_ROOM, &room.short),
                    reads.range(&schema::READ_BY_USER_ROOM, &range),
                )
            })
            .collect();
        for room in rooms {
            self.read_second_ahead(snapshot, viewer, room);
        }
        let answers = snapshot.read(&reads).await?;
        let (id, rules) = self.rules(viewer, &answers, &data)?;
        let mut asked = Vec::new();
        for (room, (head, read)) in rooms.iter().zip(&slots) {
            let rows: BTreeMap<ReadScope, _> = answers
                .rows(read)?
                .into_iter()
                .map(|((_, _, scope), row)| (scope, row.value))
                .collect();
            let head = answers.one(head)?.map(|head| head.value);
            asked.push(head.zip(Read::new(rows)).map(|(head, read)| Asked {
                room: Arc::clone(room),
                head,
                mode: rules.mode(&room.room_id),
                read,
                rules: id,
            }));
        }
        Ok((rules, asked))
    }

    /// Somebody's rules, put together anew when they have changed.
    fn rules(
        &self,
        viewer: &Viewer,
        answers: &storage::Answers,
        slot: &Slot<Vec<Option<Found<Stamped<AccountDataRow>>>>>,
    ) -> error::Result<(RulesId, Arc<CountingRules>)> {
        let mut rows = answers.all(slot)?.into_iter();
        let rules = rows.next().flatten().map(|row| row.value);
        let ignored = rows.next().flatten().map(|row| row.value);
        let id = (
            rules.as_ref().map(|row| row.position),
            ignored.as_ref().map(|row| row.position),
        );
        let cache = &self.counts().rules;
        if let Some((known, rules)) = cache.get(&viewer.short)
            && known == id
        {
            return Ok((id, rules));
        }
        let ruleset: Option<Ruleset> = rules
            .map(|row| users::ruleset(&viewer.user_id, &row.value))
            .transpose()?;
        let ignored = ignored.as_ref().map(|row| row.value.json.as_str());
        let rules = CountingRules::new(&viewer.user_id, ruleset, ignored);
        let rules = Arc::new(rules);
        cache.insert(viewer.short, (id, Arc::clone(&rules)));
        Ok((id, rules))
    }

    /// Looks at what was too much to look at in one go, so that the next count has it.
    fn count_in_background(&self, viewer: &Viewer, room: Arc<Room>) {
        let key = (viewer.short, room.short);
        {
            let mut background = self.counts().background.lock();
            if background.len() >= BACKGROUND_MAX || !background.insert(key) {
                return;
            }
        }
        let (rooms, viewer) = (self.clone(), viewer.clone());
        tokio::spawn(async move {
            let one = [room];
            loop {
                let counted = async {
                    let snapshot = rooms.snapshot().await?;
                    let (rules, asked) = rooms.asked(&snapshot, &viewer, &one).await?;
                    rooms.count(&snapshot, &viewer, &rules, &asked).await
                };
                match counted.await {
                    Ok((_, behind)) if !behind.is_empty() => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "unread events could not be counted");
                        break;
                    }
                }
            }
            rooms.counts().background.lock().remove(&key);
        });
    }
}
