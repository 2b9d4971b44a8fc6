//! Events as they lie in storage, for those who read them.

use std::sync::Arc;

use pdu::{EventNumber, canonical, tree::EMPTY_ROOT};
use ruma::{EventId, UserId};
use storage::{
    Answers, Found, Reads, ShortRoomId, Slot, Snapshot,
    schema::{self, EventRoots, EventRow, Outcome, Standing, Verdict},
};

use crate::{Room, Rooms};

/// Events of a state that are in memory together before they are written for a client: there may be very many.
pub const EVENTS_AT_ONCE: usize = 2_000;

/// An accepted event, as it is stored.
#[derive(Clone, Debug)]
pub struct ReadEvent {
    /// Its number.
    pub number: EventNumber,
    /// Its row.
    pub row: EventRow,
    /// The room's state around it. Empty around an outlier, of which nothing is known, and where it was not read.
    pub roots: EventRoots,
}

impl ReadEvent {
    /// Its content, as it is stored.
    pub fn content(&self) -> &[u8] {
        content_of(&self.row)
    }

    /// Whether it relates to another event.
    pub fn relates(&self) -> bool {
        canonical::member(self.content(), "m.relates_to").is_some()
    }

    /// Whether it is a state event of that type.
    pub(crate) fn is_state(&self, event_type: &str) -> bool {
        self.row.header.state_key.is_some() && self.row.header.event_type == event_type
    }

    /// Whether it says what somebody's membership is.
    pub(crate) fn is_member_event_of(&self, user: &UserId) -> bool {
        self.is_state("m.room.member")
            && self.row.header.state_key.as_deref() == Some(user.as_str())
    }

    /// A string in its content.
    pub(crate) fn content_string(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        canonical::string(canonical::member(self.content(), key)?)
    }
}

/// The content of an event, as it is stored.
pub(crate) fn content_of(row: &EventRow) -> &[u8] {
    let span = row.header.content.start as usize..row.header.content.end as usize;
    row.json.get(span).unwrap_or(b"{}")
}

/// Where events will be found.
pub(crate) struct AskedEvents {
    numbers: Vec<EventNumber>,
    rows: Slot<Vec<Option<Found<EventRow>>>>,
    verdicts: Slot<Vec<Option<Found<Verdict>>>>,
    roots: Slot<Vec<Option<Found<EventRoots>>>>,
}

impl AskedEvents {
    fn ask(reads: &mut Reads, room: ShortRoomId, numbers: &[EventNumber]) -> Self {
        let keys: Vec<_> = numbers.iter().map(|number| (room, *number)).collect();
        Self {
            numbers: numbers.to_vec(),
            rows: reads.get_all(&schema::EVENT_BY_NUMBER, &keys),
            verdicts: reads.get_all(&schema::VERDICT_BY_EVENT, &keys),
            roots: reads.get_all(&schema::ROOTS_BY_EVENT, &keys),
        }
    }

    /// Events that a state is made of: see [`Room::read_state`].
    pub(crate) fn state(&self, answers: &Answers) -> error::Result<Vec<Option<ReadEvent>>> {
        self.answer_where(answers, Some(NOTHING_AROUND), |verdict| {
            verdict.is_none_or(|verdict| verdict.outcome != Outcome::Rejected)
        })
    }

    fn answer_where(
        &self,
        answers: &Answers,
        around: Option<EventRoots>,
        shown: impl Fn(Option<&Verdict>) -> bool,
    ) -> error::Result<Vec<Option<ReadEvent>>> {
        let (rows, verdicts) = (answers.all(&self.rows)?, answers.all(&self.verdicts)?);
        let roots = answers.all(&self.roots)?;
        let all = self.numbers.iter().zip(rows).zip(verdicts).zip(roots);
        Ok(all
            .map(|(((number, row), verdict), roots)| {
                let row = row.filter(|_| shown(verdict.as_ref().map(|found| &found.value)))?;
                Some(ReadEvent {
                    number: *number,
                    row: row.value,
                    roots: roots.map(|found| found.value).or(around)?,
                })
            })
            .collect())
    }
}

/// What is known of events as state only, and not as part of a timeline.
const NOTHING_AROUND: EventRoots = EventRoots {
    before: EMPTY_ROOT.0,
    after: EMPTY_ROOT.0,
};

impl Room {
    /// Reads events, in the order of `numbers`; `None` for one that is not here, or that nobody may see:
    /// an outlier, a rejected or a soft-failed one. One round trip.
    pub async fn read_events(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<Option<ReadEvent>>> {
        let shown = |verdict: Option<&Verdict>| {
            verdict.is_none_or(|verdict| {
                verdict.outcome == Outcome::Accepted && verdict.standing != Standing::Outlier
            })
        };
        self.read_where(snapshot, numbers, None, shown).await
    }

    /// Reads events that a state of the room is made of, in the order of `numbers`: outliers too, since
    /// the state in which we joined a room is made of these. One round trip.
    pub async fn read_state(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<Option<ReadEvent>>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = Reads::new();
        let asked = self.ask_state(&mut reads, numbers);
        asked.state(&snapshot.read(&reads).await?)
    }

    /// Asks for events that a state of the room is made of, as [`Room::read_state`] reads them.
    pub(crate) fn ask_state(&self, reads: &mut Reads, numbers: &[EventNumber]) -> AskedEvents {
        AskedEvents::ask(reads, self.short, numbers)
    }

    /// Events whose verdict lets them be shown. One without roots gets `around`, or is left out.
    async fn read_where(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
        around: Option<EventRoots>,
        shown: impl Fn(Option<&Verdict>) -> bool,
    ) -> error::Result<Vec<Option<ReadEvent>>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = Reads::new();
        let asked = AskedEvents::ask(&mut reads, self.short, numbers);
        asked.answer_where(&snapshot.read(&reads).await?, around, shown)
    }

    /// Reads events of the room's state, in the order of `numbers`, those too that are known as somebody's
    /// state only. What the state around each was is not read: many are read where it would not be asked for.
    /// One round trip.
    pub async fn read_state_events(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<ReadEvent>> {
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let rows = snapshot.multi_get(&schema::EVENT_BY_NUMBER, &keys).await?;
        let all = numbers.iter().zip(rows);
        Ok(all
            .filter_map(|(number, row)| {
                Some(ReadEvent {
                    number: *number,
                    row: row?.value,
                    roots: NOTHING_AROUND,
                })
            })
            .collect())
    }

    /// The number of an event of this room by its id.
    pub async fn find_number(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        event_id: &EventId,
    ) -> error::Result<Option<EventNumber>> {
        let name = rooms.storage().event_hash(event_id);
        let mut rows = snapshot
            .multi_get(&schema::NUMBER_BY_EVENT, &[name])
            .await?;
        let found = rows.pop().flatten().map(|row| row.value);
        Ok(found
            .filter(|event| event.room == self.short)
            .and_then(|event| event.number))
    }

    /// An event of this room by its id, if it is one to be seen. Two round trips.
    pub async fn find_event(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        event_id: &EventId,
    ) -> error::Result<Option<ReadEvent>> {
        let Some(number) = self.find_number(rooms, snapshot, event_id).await? else {
            return Ok(None);
        };
        Ok(self.read_events(snapshot, &[number]).await?.pop().flatten())
    }
}

impl Rooms {
    /// The room that an event is in, if we know the event.
    pub async fn find_room_of_event(&self, event_id: &EventId) -> error::Result<Option<Arc<Room>>> {
        let snapshot = self.snapshot().await?;
        let name = self.storage().event_hash(event_id);
        let rows = snapshot
            .multi_get(&schema::NUMBER_BY_EVENT, &[name])
            .await?;
        let Some(row) = rows.into_iter().flatten().next() else {
            return Ok(None);
        };
        let rooms = self.by_short(&snapshot, &[row.value.room]).await?;
        Ok(rooms.into_iter().next())
    }
}
