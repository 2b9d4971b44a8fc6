//! Events as they lie in storage, for those who read them.

use pdu::EventNumber;
use ruma::EventId;
use storage::{
    Reads, Snapshot,
    schema::{self, EventRoots, EventRow, Outcome, Standing},
};

use crate::{Room, Rooms};

/// An accepted event, as it is stored.
#[derive(Clone, Debug)]
pub struct ReadEvent {
    /// Its number.
    pub number: EventNumber,
    /// Its row.
    pub row: EventRow,
    /// The room's state around it.
    pub roots: EventRoots,
}

impl ReadEvent {
    /// Its content, as it is stored.
    pub fn content(&self) -> &[u8] {
        content_of(&self.row)
    }

    /// Whether it is a state event of that type.
    pub(crate) fn is_state(&self, event_type: &str) -> bool {
        self.row.header.state_key.is_some() && self.row.header.event_type == event_type
    }
}

/// The content of an event, as it is stored.
pub(crate) fn content_of(row: &EventRow) -> &[u8] {
    let span = row.header.content.start as usize..row.header.content.end as usize;
    row.json.get(span).unwrap_or(b"{}")
}

impl Room {
    /// Reads events, in the order of `numbers`; `None` for one that is not here, or that nobody may see:
    /// an outlier, a rejected or a soft-failed one. One round trip.
    pub async fn read_events(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<Option<ReadEvent>>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let mut reads = Reads::new();
        let rows = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        let verdicts = reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
        let roots = reads.get_all(&schema::ROOTS_BY_EVENT, &keys);
        let answers = snapshot.read(&reads).await?;
        let (rows, verdicts) = (answers.all(&rows)?, answers.all(&verdicts)?);
        let roots = answers.all(&roots)?;
        let all = numbers.iter().zip(rows).zip(verdicts).zip(roots);
        Ok(all
            .map(|(((number, row), verdict), roots)| {
                let shown = verdict.is_none_or(|verdict| {
                    verdict.value.outcome == Outcome::Accepted
                        && verdict.value.standing != Standing::Outlier
                });
                Some(ReadEvent {
                    number: *number,
                    row: row.filter(|_| shown)?.value,
                    roots: roots?.value,
                })
            })
            .collect())
    }

    /// Reads events of the room's state, in the order of `numbers`, those too that are known as somebody's
    /// state only; for these `root` stands for the state around them. One round trip.
    pub async fn read_state_events(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
        root: [u8; 16],
    ) -> error::Result<Vec<ReadEvent>> {
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let mut reads = Reads::new();
        let rows = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        let roots = reads.get_all(&schema::ROOTS_BY_EVENT, &keys);
        let answers = snapshot.read(&reads).await?;
        let (rows, roots) = (answers.all(&rows)?, answers.all(&roots)?);
        let all = numbers.iter().zip(rows).zip(roots);
        let around = EventRoots {
            before: root,
            after: root,
        };
        Ok(all
            .filter_map(|((number, row), roots)| {
                Some(ReadEvent {
                    number: *number,
                    row: row?.value,
                    roots: roots.map_or(around, |roots| roots.value),
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
