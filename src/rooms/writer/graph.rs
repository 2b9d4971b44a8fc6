//! Loading the events of the graph that an event of another server names: in the same round trips in which
//! everything else is loaded that writing it needs.

use std::{collections::HashMap, sync::Arc};

use pdu::{EventNumber, RoomRules};
use ruma::OwnedEventId;
use storage::{
    Answers, Found, NameHash, Range, Reads, ShortRoomId, Slot, Snapshot, Storage,
    schema::{self, EventRef, EventRoots, EventRow, Outcome, RedactionRow, Verdict},
};

use super::{needs::Needs, working::Working};
use crate::{Room, Rooms, StoredEvent};

/// An event of the graph, whatever we think of it.
#[derive(Clone, Debug)]
pub(crate) struct GraphEvent {
    /// The event; a rejected one says so.
    pub(crate) event: Arc<StoredEvent>,
    /// What we think of it, if it is not simply accepted.
    pub(crate) verdict: Option<Verdict>,
    /// The states around it; none for an outlier.
    pub(crate) roots: Option<EventRoots>,
}

/// What is known of the graph around an event that came in.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    /// The events that were asked for and are in this room.
    pub(crate) events: HashMap<OwnedEventId, GraphEvent>,
    /// Redactions that came before their target.
    pub(crate) redactions: Vec<EventNumber>,
    /// Accepted events follow the one that came in already.
    pub(crate) is_followed: bool,
}

impl Room {
    /// Events of this room by their ids, in their order, whatever we think of them. Two round trips.
    pub(crate) async fn graph_events(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        ids: &[OwnedEventId],
    ) -> error::Result<Vec<Option<GraphEvent>>> {
        let storage = rooms.storage();
        let names: Vec<_> = ids.iter().map(|id| storage.event_hash(id)).collect();
        let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names);
        let numbers = rows.await?.into_iter().map(|row| {
            let row = row?.value;
            row.number.filter(|_| row.room == self.short)
        });
        let numbers: Vec<_> = numbers.collect();
        let known: Vec<_> = numbers.iter().copied().flatten().collect();
        let mut events = self.graph_by_number(snapshot, &known).await?;
        let found = numbers.into_iter().map(|number| events.remove(&number?));
        Ok(found.collect())
    }

    /// Events of this room by their numbers. One round trip.
    pub(crate) async fn graph_by_number(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<HashMap<EventNumber, GraphEvent>> {
        let keys: Vec<_> = numbers.iter().map(|one| (self.short, *one)).collect();
        let mut reads = Reads::new();
        let rows = GraphRows::ask(&mut reads, &keys);
        let answers = snapshot.read(&reads).await?;
        let events = rows.take(&answers, numbers, self.rules)?;
        Ok(events.into_iter().flatten().collect())
    }
}

/// The rows of events of the graph.
struct GraphRows {
    rows: Slot<Vec<Option<Found<EventRow>>>>,
    verdicts: Slot<Vec<Option<Found<Verdict>>>>,
    roots: Slot<Vec<Option<Found<EventRoots>>>>,
}

impl GraphRows {
    fn ask(reads: &mut Reads, keys: &[(ShortRoomId, EventNumber)]) -> Self {
        Self {
            rows: reads.get_all(&schema::EVENT_BY_NUMBER, keys),
            verdicts: reads.get_all(&schema::VERDICT_BY_EVENT, keys),
            roots: reads.get_all(&schema::ROOTS_BY_EVENT, keys),
        }
    }

    /// The events, in the order in which they were asked for.
    fn take(
        &self,
        answers: &Answers,
        numbers: &[EventNumber],
        rules: &'static RoomRules,
    ) -> error::Result<Vec<Option<(EventNumber, GraphEvent)>>> {
        let (rows, verdicts) = (answers.all(&self.rows)?, answers.all(&self.verdicts)?);
        let roots = answers.all(&self.roots)?;
        let all = numbers.iter().zip(rows).zip(verdicts).zip(roots);
        let mut events = Vec::with_capacity(numbers.len());
        for (((number, row), verdict), roots) in all {
            let Some(row) = row else {
                events.push(None);
                continue;
            };
            let verdict = verdict.map(|verdict| verdict.value);
            let rejected = verdict
                .as_ref()
                .is_some_and(|verdict| verdict.outcome == Outcome::Rejected);
            let event = StoredEvent::from_row(*number, row.value, rules, rejected)?;
            let event = GraphEvent {
                event: Arc::new(event),
                verdict,
                roots: roots.map(|roots| roots.value),
            };
            events.push(Some((*number, event)));
        }
        Ok(events)
    }
}

type Numbers = Slot<Vec<Option<Found<EventRef>>>>;
type Redactions = Slot<Vec<((ShortRoomId, NameHash, EventNumber), Found<RedactionRow>)>>;

/// The numbers of events, in the first round trip.
pub(super) struct AskedNumbers {
    numbers: Numbers,
    redactions: Vec<Redactions>,
    followed: Slot<Vec<Option<Found<()>>>>,
}

impl AskedNumbers {
    pub(super) fn ask(
        storage: &Storage,
        room: ShortRoomId,
        reads: &mut Reads,
        needs: &Needs,
    ) -> Self {
        let names: Vec<_> = needs
            .graph
            .iter()
            .map(|id| storage.event_hash(id))
            .collect();
        let redactions = needs.incoming.iter().map(|id| {
            let range = Range::prefix(&(room, storage.event_hash(id)));
            reads.range(&schema::REDACTION_BY_TARGET, &range)
        });
        let redactions = redactions.collect();
        let incoming = needs.incoming.iter();
        let incoming: Vec<_> = incoming.map(|id| (room, storage.event_hash(id))).collect();
        Self {
            numbers: reads.get_all(&schema::NUMBER_BY_EVENT, &names),
            redactions,
            followed: reads.get_all(&schema::FOLLOWED_BY_EVENT, &incoming),
        }
    }

    /// The events that are here, with their numbers.
    pub(super) fn take(
        &self,
        answers: &Answers,
        needs: &Needs,
        working: &mut Working,
    ) -> error::Result<Vec<(OwnedEventId, EventNumber)>> {
        for redactions in &self.redactions {
            let rows = answers.rows(redactions)?.into_iter();
            let numbers = rows.map(|((_, _, number), _)| number);
            working.graph.redactions.extend(numbers);
        }
        let followed = answers.all(&self.followed)?;
        working.graph.is_followed = followed.iter().any(Option::is_some);
        let room = working.room.short;
        let rows = needs.graph.iter().zip(answers.all(&self.numbers)?);
        Ok(rows
            .filter_map(|(id, row)| {
                let row = row?.value;
                (row.room == room).then_some((id.clone(), row.number?))
            })
            .collect())
    }
}

/// The rows of events, in the second round trip.
pub(super) struct AskedEvents {
    events: Vec<(OwnedEventId, EventNumber)>,
    rows: GraphRows,
}

impl AskedEvents {
    pub(super) fn ask(
        room: ShortRoomId,
        reads: &mut Reads,
        events: Vec<(OwnedEventId, EventNumber)>,
    ) -> Self {
        let keys: Vec<_> = events.iter().map(|(_, number)| (room, *number)).collect();
        Self {
            events,
            rows: GraphRows::ask(reads, &keys),
        }
    }

    pub(super) fn take(self, answers: &Answers, working: &mut Working) -> error::Result<()> {
        let numbers: Vec<_> = self.events.iter().map(|(_, number)| *number).collect();
        let events = self.rows.take(answers, &numbers, working.room.rules)?;
        for ((id, _), event) in self.events.into_iter().zip(events) {
            let event = event.map(|(_, event)| event);
            let missing = || error::internal("an event that has a number is missing");
            working.graph.events.insert(id, event.ok_or_else(missing)?);
        }
        Ok(())
    }
}
