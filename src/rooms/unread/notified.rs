//! What somebody is, or was, notified of ([spec]), the latest first: nothing is kept of it. The logs of their
//! rooms are gone back through together, and what stands there is judged by their push rules as they are now.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#listing-notifications

use std::{
    collections::{BTreeMap, BinaryHeap, HashMap, VecDeque},
    sync::Arc,
};

use futures_util::future::try_join_all;
use pdu::EventNumber;
use ruma::push::{Action, PushConditionRoomCtx, Ruleset};
use storage::{
    Position, Range, Reads, ShortRoomId, Snapshot,
    schema::{self, Membership},
};

use super::{Asked, CountingRules, Mode, context::AskedContext, rules::effect_of};
use crate::{Look, ReadEvent, Room, Rooms, Viewer};

/// Events that are looked at for one page, at most.
const LOOKED_AT_MAX: usize = 2_000;
/// Events that are judged together.
const AT_ONCE: usize = 100;
/// Logs that are read together, and rows of each.
const LOGS_AT_ONCE: usize = 32;
const ROWS_AT_ONCE: usize = 50;

/// Which notifications are wanted.
#[derive(Clone, Copy, Debug)]
pub struct NotificationQuery {
    /// Only what came before this.
    pub before: Option<Position>,
    /// How many, at most.
    pub limit: usize,
    /// Only those that highlight.
    pub highlights: bool,
}

/// An event of which somebody is, or was, notified.
#[derive(Clone, Debug)]
pub struct Notified {
    /// Its room.
    pub room: Arc<Room>,
    /// How they stand to it.
    pub look: Look,
    /// The event.
    pub event: ReadEvent,
    /// What their rules say is to be done about it.
    pub actions: Vec<Action>,
    /// Whether they have read it.
    pub read: bool,
}

/// A page of notifications.
#[derive(Debug)]
pub struct NotificationPage {
    /// The view from which it was read.
    pub snapshot: Snapshot,
    /// The notifications, the latest first.
    pub notified: Vec<Notified>,
    /// Before what the next page lies; none if there is none. A page may be short, or empty, though more
    /// follow.
    pub next: Option<Position>,
}

/// An event that may notify.
struct Candidate {
    position: Position,
    room: ShortRoomId,
    number: EventNumber,
}

/// The log of a room on the way back. Ordered by what comes next of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Log {
    /// Nothing that is still to come of it is later than this.
    latest: Position,
    room: ShortRoomId,
    /// From before here on it is still to be read; none: from its end on.
    unread: Option<Position>,
    /// What was read of it, the latest first.
    rows: VecDeque<(Position, Option<EventNumber>)>,
}

/// The logs of some rooms, on the way back together.
struct Logs(BinaryHeap<Log>);

impl Logs {
    /// Those of these rooms, from before a position. One round trip.
    async fn of(
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
        before: Option<Position>,
    ) -> error::Result<Self> {
        let tails = snapshot.multi_get(&schema::TAIL_BY_ROOM, rooms).await?;
        let logs = rooms.iter().zip(tails).filter_map(|(room, tail)| {
            let tail = tail?.value.position;
            Some(Log {
                latest: before.map_or(tail, |before| before.min(tail)),
                room: *room,
                unread: before,
                rows: VecDeque::new(),
            })
        });
        Ok(Self(logs.collect()))
    }

    /// The next events that are live, at most so many; fewer only at the end.
    async fn next(&mut self, snapshot: &Snapshot, limit: usize) -> error::Result<Vec<Candidate>> {
        let mut candidates = Vec::new();
        while candidates.len() < limit {
            let Some(mut log) = self.0.pop() else { break };
            let Some((position, number)) = log.rows.pop_front() else {
                self.read(snapshot, log).await?;
                continue;
            };
            candidates.extend(number.map(|number| Candidate {
                position,
                room: log.room,
                number,
            }));
            // Once all that was read is told, more is read before anything earlier is told.
            log.latest = log.rows.front().map_or(position, |(next, _)| *next);
            self.0.push(log);
        }
        Ok(candidates)
    }

    /// Reads on in a log, and in those that would have to be read next. One round trip.
    async fn read(&mut self, snapshot: &Snapshot, first: Log) -> error::Result<()> {
        let mut logs = vec![first];
        while logs.len() < LOGS_AT_ONCE
            && let Some(log) = self.0.pop()
        {
            if !log.rows.is_empty() {
                self.0.push(log);
                break;
            }
            logs.push(log);
        }
        let ranges: Vec<_> = logs
            .iter()
            .map(|log| {
                let range = Range::prefix(&(log.room,)).reverse().limit(ROWS_AT_ONCE);
                match log.unread {
                    Some(end) => range.before(&(log.room, end)),
                    None => range,
                }
            })
            .collect();
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &ranges)
            .await?;
        for (mut log, rows) in logs.into_iter().zip(rows) {
            log.rows = rows
                .into_iter()
                .map(|((_, position), row)| {
                    let row = row.value;
                    let live = row.place.is_some() && !row.historic;
                    (position, row.number.filter(|_| live))
                })
                .collect();
            if let (Some(first), Some(last)) = (log.rows.front(), log.rows.back()) {
                (log.latest, log.unread) = (first.0, Some(last.0));
                self.0.push(log);
            }
        }
        Ok(())
    }
}

/// A room, and by what its events are judged.
struct Judging {
    asked: Asked,
    context: PushConditionRoomCtx,
    look: Look,
}

impl Rooms {
    /// What somebody is, or was, notified of in the rooms that they are in.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn notifications(
        &self,
        viewer: &Viewer,
        query: NotificationQuery,
    ) -> error::Result<NotificationPage> {
        let snapshot = self.snapshot().await?;
        let joined = self.rooms_of(&snapshot, viewer.short).await?;
        let joined = joined.into_iter();
        let joined = joined.filter(|(_, row)| row.value.membership == Membership::Join);
        let joined: Vec<_> = joined.map(|(room, _)| room).collect();
        let mut logs = Logs::of(&snapshot, &joined, query.before).await?;
        let defaults = users::default_rules(&viewer.user_id);
        let mut judging = HashMap::new();
        let (mut notified, mut looked_at) = (Vec::new(), 0);
        let mut next = None;
        while notified.len() < query.limit && looked_at < LOOKED_AT_MAX {
            let candidates = logs.next(&snapshot, AT_ONCE).await?;
            let Some(last) = candidates.last() else {
                next = None;
                break;
            };
            next = Some(last.position);
            looked_at += candidates.len();
            let rules = self
                .judge_rooms(&snapshot, viewer, &candidates, &mut judging)
                .await?;
            let events = read(&snapshot, viewer, &candidates, &judging).await?;
            for (candidate, event) in candidates.iter().zip(events) {
                let (Some(event), Some(Some(judging))) = (event, judging.get(&candidate.room))
                else {
                    continue;
                };
                let one = judging.judge(&rules, &defaults, event, query.highlights);
                if let Some(one) = one.await? {
                    notified.push(one);
                    if notified.len() == query.limit {
                        next = Some(candidate.position);
                        break;
                    }
                }
            }
        }
        Ok(NotificationPage {
            snapshot,
            notified,
            next,
        })
    }

    /// Looks at the rooms of some candidates that were not looked at before. None of one in which nothing
    /// notifies.
    async fn judge_rooms(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        candidates: &[Candidate],
        judging: &mut HashMap<ShortRoomId, Option<Judging>>,
    ) -> error::Result<Arc<CountingRules>> {
        let mut new: Vec<_> = candidates.iter().map(|candidate| candidate.room).collect();
        new.retain(|room| !judging.contains_key(room));
        new.sort_unstable();
        new.dedup();
        let rooms = self.by_short(snapshot, &new).await?;
        let (rules, asked) = self.asked(snapshot, viewer, &rooms).await?;
        judging.extend(new.into_iter().map(|room| (room, None)));
        let asked = asked.into_iter().flatten();
        let asked: Vec<_> = asked.filter(|room| room.mode != Mode::Muted).collect();
        let mut reads = Reads::new();
        let contexts: Vec<_> = asked
            .iter()
            .map(|asked| AskedContext::ask(self, &mut reads, viewer, asked))
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut reads = Reads::new();
        let contexts: Vec<_> = contexts
            .iter()
            .zip(&asked)
            .map(|(context, asked)| context.answered(&mut reads, &answers, asked.room.short))
            .collect::<error::Result<_>>()?;
        let answers = snapshot.read(&reads).await?;
        let looks = snapshot.gathered(async |snapshot| {
            let looks = asked.iter().map(|asked| asked.room.look(&snapshot, viewer));
            try_join_all(looks).await
        });
        let looks = looks.await?;
        for ((asked, context), look) in asked.into_iter().zip(contexts).zip(looks) {
            let context = context.context(viewer, &asked, &answers)?;
            let room = asked.room.short;
            let known = Judging {
                asked,
                context,
                look,
            };
            judging.insert(room, Some(known));
        }
        Ok(rules)
    }
}

/// The events that may notify, as far as they may be seen; in the order of the candidates.
async fn read(
    snapshot: &Snapshot,
    viewer: &Viewer,
    candidates: &[Candidate],
    judging: &HashMap<ShortRoomId, Option<Judging>>,
) -> error::Result<Vec<Option<ReadEvent>>> {
    let mut by_room: BTreeMap<ShortRoomId, Vec<usize>> = BTreeMap::new();
    for (index, candidate) in candidates.iter().enumerate() {
        by_room.entry(candidate.room).or_default().push(index);
    }
    let of_rooms = snapshot.gathered(async |snapshot| {
        let reading = by_room.iter().filter_map(|(room, indices)| {
            let judging = judging.get(room)?.as_ref()?;
            let candidates = indices.iter().filter_map(|index| candidates.get(*index));
            let numbers: Vec<_> = candidates.map(|candidate| candidate.number).collect();
            let snapshot = &snapshot;
            Some(async move {
                let (room, look) = (&judging.asked.room, &judging.look);
                let read = room.read_events(snapshot, &numbers).await?;
                let there = indices.iter().copied().zip(read);
                let there = there.filter_map(|(index, event)| Some((index, event?)));
                let (indices, events): (Vec<_>, Vec<_>) = there.unzip();
                let visible = room.visible(snapshot, viewer, look, &events).await?;
                let seen = indices.into_iter().zip(events).zip(visible);
                let seen = seen.filter(|(_, visible)| *visible);
                Ok::<_, error::Error>(seen.map(|(event, _)| event).collect::<Vec<_>>())
            })
        });
        try_join_all(reading).await
    });
    let mut events = vec![None; candidates.len()];
    for (index, event) in of_rooms.await?.into_iter().flatten() {
        if let Some(place) = events.get_mut(index) {
            *place = Some(event);
        }
    }
    Ok(events)
}

impl Judging {
    /// The notification of an event, if it makes one.
    async fn judge(
        &self,
        rules: &CountingRules,
        defaults: &Ruleset,
        event: ReadEvent,
        highlights: bool,
    ) -> error::Result<Option<Notified>> {
        let header = &event.row.header;
        let Some(place) = header.place.filter(|_| header.redacted_because.is_none()) else {
            return Ok(None);
        };
        if header.sender == self.context.user_id {
            return Ok(None);
        }
        let actions = rules.actions(defaults, &event.row, &self.context).await?;
        let (notify, highlight) = effect_of(actions);
        if !notify || (highlights && !highlight) {
            return Ok(None);
        }
        Ok(Some(Notified {
            room: Arc::clone(&self.asked.room),
            look: self.look.clone(),
            read: self.asked.read.of(header.thread).place >= place,
            actions: actions.to_vec(),
            event,
        }))
    }
}
