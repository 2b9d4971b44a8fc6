//! Receipts as clients get them, and what events say to those who have read up to them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pdu::EventNumber;
use ruma::{EventId, OwnedEventId};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use storage::{
    NameHash, Position, Range, Reads, Snapshot, Storage,
    schema::{self, EventRow, Place, ReceiptKind, ReceiptRow, Totals},
};

use crate::{Room, Rooms, Viewer, event::Mentions, read::content_of};

/// How many receipts of a room a client gets at once: the latest. The older ones stand far up in the
/// timeline, where hardly anybody looks.
const RECEIPTS_MAX: usize = 1_000;

impl Rooms {
    /// The content of `m.receipt` of some rooms for a viewer, in their order: what changed after a position,
    /// or all that is recent. `None` where there is nothing. Two round trips.
    pub async fn receipts(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[(Arc<Room>, Option<Position>)],
    ) -> error::Result<Vec<Option<Box<RawValue>>>> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let user = self.storage().user_hash(&viewer.user_id);
        let mut reads = Reads::new();
        let slots: Vec<_> = rooms
            .iter()
            .map(|(room, since)| {
                let mut log = Range::prefix(&(room.short,));
                if let Some(since) = since {
                    log = log.after(&(room.short, *since));
                }
                let log = log.reverse().limit(RECEIPTS_MAX);
                let own = Range::prefix(&(room.short, user)).limit(RECEIPTS_MAX);
                (
                    reads.range(&schema::RECEIPT_BY_POSITION, &log),
                    reads.range(&schema::RECEIPT_BY_ROOM, &own),
                )
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut second = Reads::new();
        let mut found = Vec::new();
        for ((_, since), (log, own)) in rooms.iter().zip(&slots) {
            let (mut positions, mut keys) = (Vec::new(), Vec::new());
            for ((room, position), row) in answers.rows(log)? {
                let receipt = row.value;
                positions.push(position);
                keys.push((room, receipt.user, receipt.kind as u8, receipt.thread));
            }
            let own: Vec<_> = answers
                .rows(own)?
                .into_iter()
                .filter(|(_, row)| since.is_none_or(|since| row.value.position > since))
                .map(|((_, _, kind, _), row)| (kind, row.value.value))
                .collect();
            let rest = second.get_all(&schema::RECEIPT_BY_ROOM, &keys);
            found.push((positions, keys, rest, own));
        }
        let answers = snapshot.read(&second).await?;
        let mut contents = Vec::new();
        for (positions, keys, rest, own) in found {
            let rest = answers.all(&rest)?;
            let standing =
                rest.into_iter()
                    .zip(positions)
                    .zip(keys)
                    .filter_map(|((row, position), key)| {
                        // Others have since been replaced.
                        let row = row?.value;
                        (row.position == position).then_some((key.2, row.value))
                    });
            contents.push(content(viewer, own.into_iter().chain(standing))?);
        }
        Ok(contents)
    }
}

/// One receipt of `m.receipt`.
#[derive(Serialize)]
struct Receipt {
    ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread_id: Option<String>,
}

/// `m.receipt`, without the private ones of others.
fn content(
    viewer: &Viewer,
    rows: impl Iterator<Item = (u8, ReceiptRow)>,
) -> error::Result<Option<Box<RawValue>>> {
    type Users = BTreeMap<String, Receipt>;
    let mut events: BTreeMap<String, BTreeMap<&str, Users>> = BTreeMap::new();
    for (kind, row) in rows {
        let private = kind == ReceiptKind::ReadPrivate as u8;
        if private && row.user_id != viewer.user_id.as_str() {
            continue;
        }
        let kind = if private { "m.read.private" } else { "m.read" };
        let kinds = events.entry(row.event_id).or_default();
        let users = kinds.entry(kind).or_default();
        // MSC4102: an event has one receipt of a kind and user; the unthreaded one stands.
        if row.thread.is_none() || !users.contains_key(&row.user_id) {
            let receipt = Receipt {
                ts: row.ts,
                thread_id: row.thread,
            };
            users.insert(row.user_id, receipt);
        }
    }
    if events.is_empty() {
        return Ok(None);
    }
    to_raw_value(&events).map(Some).map_err(error::internal)
}

/// What a thread is called in the keys of receipts: nothing for a receipt without one.
pub(crate) fn thread_hash(storage: &Storage, thread: Option<&str>) -> NameHash {
    thread.map_or(NameHash::NONE, |thread| storage.thread_hash(thread))
}

/// The place whose totals hold at a place: for history that was found late, which does not count, that of
/// the live event before it.
fn with_totals(place: Place) -> Place {
    match place.step {
        0 => place,
        _ => Place::live(place.slot.saturating_sub(1)),
    }
}

/// An event that somebody has read up to, or the root of its thread.
#[derive(Debug)]
pub(crate) struct ReadEvent {
    pub(crate) number: EventNumber,
    pub(crate) row: EventRow,
    /// Events have been sent into its thread.
    pub(crate) is_thread_root: bool,
    /// Where it stands; none for events that are not in the timeline.
    placed: Option<Placed>,
}

impl ReadEvent {
    /// What it relates to.
    pub(crate) fn parent(&self) -> Option<OwnedEventId> {
        let relation = Mentions::of_content(content_of(&self.row)).relation;
        relation.map(|relation| relation.parent)
    }
}

/// Where an event stands in the timeline.
#[derive(Clone, Copy, Debug)]
struct Placed {
    place: Place,
    totals: Totals,
}

/// An event of the timeline that somebody has read up to.
pub(crate) struct PlacedReadEvent<'a> {
    event: &'a ReadEvent,
    pub(crate) place: Place,
    /// The room's totals there.
    pub(crate) totals: Totals,
}

impl std::ops::Deref for PlacedReadEvent<'_> {
    type Target = ReadEvent;

    fn deref(&self) -> &ReadEvent {
        self.event
    }
}

/// The events that new receipts name.
#[derive(Debug)]
pub(crate) struct ReadEvents(HashMap<OwnedEventId, ReadEvent>);

impl ReadEvents {
    /// Loads those that are in the room; three round trips.
    pub(crate) async fn load(
        rooms: &Rooms,
        room: &Room,
        snapshot: &Snapshot,
        wanted: &BTreeSet<OwnedEventId>,
    ) -> error::Result<Self> {
        let names: Vec<_> = wanted
            .iter()
            .map(|id| rooms.storage().event_hash(id))
            .collect();
        let found = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await?;
        let numbers: Vec<_> = wanted
            .iter()
            .zip(found)
            .filter_map(|(id, found)| {
                let found = found?.value;
                let number = found.number.filter(|_| found.room == room.short)?;
                Some((id.clone(), (room.short, number)))
            })
            .collect();
        let mut reads = Reads::new();
        let rows = reads.get_all(&schema::EVENT_BY_NUMBER, numbers.iter().map(|(_, key)| key));
        let threads = reads.get_all(&schema::THREAD_BY_ROOT, numbers.iter().map(|(_, key)| key));
        let answers = snapshot.read(&reads).await?;
        let (rows, threads) = (answers.all(&rows)?, answers.all(&threads)?);
        let mut events = Vec::new();
        let mut places = Vec::new();
        for (((id, (_, number)), row), thread) in numbers.into_iter().zip(rows).zip(threads) {
            let row = row.ok_or_else(|| error::internal("an event with a number is missing"))?;
            places.extend(row.value.header.place);
            let event = ReadEvent {
                number,
                row: row.value,
                is_thread_root: thread.is_some_and(|thread| thread.value.count > 0),
                placed: None,
            };
            events.push((id, event));
        }
        let before: Vec<_> = places
            .iter()
            .map(|place| (room.short, with_totals(*place)))
            .collect();
        let placed = snapshot.multi_get(&schema::EVENT_BY_PLACE, &before).await?;
        let totals: HashMap<_, _> = places
            .into_iter()
            .zip(placed)
            .map(|(place, placed)| {
                let totals = placed.map(|placed| placed.value.totals);
                (place, totals.unwrap_or_default())
            })
            .collect();
        for (_, event) in &mut events {
            let place = event.row.header.place;
            event.placed = place.and_then(|place| {
                let totals = *totals.get(&place)?;
                Some(Placed { place, totals })
            });
        }
        Ok(Self(events.into_iter().collect()))
    }

    /// An event that is in the room.
    pub(crate) fn find(&self, event_id: &EventId) -> Option<&ReadEvent> {
        self.0.get(event_id)
    }

    /// An event that is in the room's timeline.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` for any other.
    pub(crate) fn placed(&self, event_id: &EventId) -> error::Result<PlacedReadEvent<'_>> {
        let found = self.find(event_id).and_then(|event| {
            let Placed { place, totals } = event.placed?;
            Some(PlacedReadEvent {
                event,
                place,
                totals,
            })
        });
        found.ok_or_else(|| error::not_found("This event is not in this room's timeline"))
    }
}
