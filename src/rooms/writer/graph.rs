//! Loading the events of the graph that an event of another server names: in the same round trips in which
//! everything else is loaded that writing it needs.

use std::{collections::HashMap, sync::Arc};

use pdu::EventNumber;
use ruma::OwnedEventId;
use storage::{
    Answers, Found, NameHash, Range, Reads, ShortRoomId, Slot, Storage,
    schema::{self, EventRef, EventRoots, EventRow, Outcome, RedactionRow, Verdict},
};

use super::{needs::Needs, working::Working};
use crate::StoredEvent;

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
}

type Numbers = Slot<Vec<Option<Found<EventRef>>>>;
type Redactions = Slot<Vec<((ShortRoomId, NameHash, EventNumber), Found<RedactionRow>)>>;

/// The numbers of events, in the first round trip.
pub(super) struct AskedNumbers {
    numbers: Numbers,
    redactions: Option<Redactions>,
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
        let redactions = needs.incoming.as_ref().map(|id| {
            let range = Range::prefix(&(room, storage.event_hash(id)));
            reads.range(&schema::REDACTION_BY_TARGET, &range)
        });
        Self {
            numbers: reads.get_all(&schema::NUMBER_BY_EVENT, &names),
            redactions,
        }
    }

    /// The events that are here, with their numbers.
    pub(super) fn take(
        &self,
        answers: &Answers,
        needs: &Needs,
        working: &mut Working,
    ) -> error::Result<Vec<(OwnedEventId, EventNumber)>> {
        if let Some(redactions) = &self.redactions {
            let rows = answers.rows(redactions)?.into_iter();
            working.graph.redactions = rows.map(|((_, _, number), _)| number).collect();
        }
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
    rows: Slot<Vec<Option<Found<EventRow>>>>,
    verdicts: Slot<Vec<Option<Found<Verdict>>>>,
    roots: Slot<Vec<Option<Found<EventRoots>>>>,
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
            rows: reads.get_all(&schema::EVENT_BY_NUMBER, &keys),
            verdicts: reads.get_all(&schema::VERDICT_BY_EVENT, &keys),
            roots: reads.get_all(&schema::ROOTS_BY_EVENT, &keys),
        }
    }

    pub(super) fn take(self, answers: &Answers, working: &mut Working) -> error::Result<()> {
        let (rows, verdicts) = (answers.all(&self.rows)?, answers.all(&self.verdicts)?);
        let roots = answers.all(&self.roots)?;
        let all = self.events.into_iter().zip(rows).zip(verdicts).zip(roots);
        for ((((id, number), row), verdict), roots) in all {
            let row =
                row.ok_or_else(|| error::internal("an event that has a number is missing"))?;
            let verdict = verdict.map(|verdict| verdict.value);
            let rejected = verdict
                .as_ref()
                .is_some_and(|verdict| verdict.outcome == Outcome::Rejected);
            let event = StoredEvent::from_row(number, row.value, working.room.rules, rejected)?;
            let event = GraphEvent {
                event: Arc::new(event),
                verdict,
                roots: roots.map(|roots| roots.value),
            };
            working.graph.events.insert(id, event);
        }
        Ok(())
    }
}
