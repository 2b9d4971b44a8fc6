//! Receipts: how far people have read ([spec]).
//!
//! A receipt never touches the room's head. It never goes back: what counts is the place of its event.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

use std::{collections::BTreeSet, sync::Arc};

use pdu::EventNumber;
use ruma::{EventId, events::receipt::ReceiptThread};
use serde_json::{Map, Value, json};
use storage::{
    Batch, CommitError, NameHash, Position, Range, Reads, Snapshot, Topic,
    schema::{self, Place, PlacedEvent, ReadRow, ReceiptKind, ReceiptRef, ReceiptRow, UserChange},
};

use crate::{ReadEvent, Room, Rooms, Viewer};

/// Tries to store a receipt, while others of the same user come in.
const TRIES_MAX: usize = 20;
/// How many receipts a sync gets of a room, at most; the newest.
const RECEIPTS_MAX: usize = 10_000;

impl Rooms {
    /// Stores a receipt of a member, and counts anew what they have not read. One at an older event than
    /// the one before changes nothing.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they are not in the room; 400 `M_INVALID_PARAM` if the event does not belong to
    /// the thread.
    pub async fn set_receipt(
        &self,
        room: &Arc<Room>,
        viewer: &Viewer,
        kind: ReceiptKind,
        event_id: &EventId,
        thread: &ReceiptThread,
    ) -> error::Result<()> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let look = room.look(&snapshot, viewer).await?;
            if !look.is_joined() {
                return Err(error::forbidden("You are not in this room"));
            }
            let event = room.find_event(self, &snapshot, event_id).await?;
            if let Some(event) = &event {
                check_thread(room, &snapshot, event, thread).await?;
            }
            let batch = self
                .receipt_batch(
                    room,
                    &snapshot,
                    viewer,
                    kind,
                    event_id,
                    event.as_ref(),
                    thread,
                )
                .await?;
            let Some(batch) = batch else { return Ok(()) };
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a receipt changes too fast"))
    }

    /// The rows of a receipt; none if it would go back.
    #[allow(clippy::too_many_arguments)]
    async fn receipt_batch(
        &self,
        room: &Room,
        snapshot: &Snapshot,
        viewer: &Viewer,
        kind: ReceiptKind,
        event_id: &EventId,
        event: Option<&ReadEvent>,
        thread: &ReceiptThread,
    ) -> error::Result<Option<Batch>> {
        let storage = self.storage();
        let user = storage.user_hash(&viewer.user_id);
        let thread_hash = thread_hash(self, thread);
        let key = (room.short, user, kind as u8, thread_hash);
        let read_key = (viewer.short, room.short, thread_hash);
        let place = event.and_then(|event| event.row.header.place);
        let mut reads = Reads::new();
        let old = reads.get(&schema::RECEIPT_BY_ROOM, &key);
        let old_read = reads.get(&schema::READ_BY_USER_ROOM, &read_key);
        let own = reads.get(&schema::OWN_TOTAL_BY_USER_ROOM, &(viewer.short, room.short));
        let placed = reads.get_all(
            &schema::EVENT_BY_PLACE,
            &place.map(|place| (room.short, place)),
        );
        let answers = snapshot.read(&reads).await?;
        let (old, old_read) = (answers.one(&old)?, answers.one(&old_read)?);
        let own = answers.one(&own)?.map_or(0, |row| row.value.0);
        let placed: Option<PlacedEvent> =
            answers.all(&placed)?.pop().flatten().map(|row| row.value);
        if let Some(old) = &old {
            let old = &old.value.value;
            if old.event_id == event_id.as_str() || (old.place.is_some() && old.place >= place) {
                return Ok(None);
            }
        }
        let mut batch = Batch::new();
        batch.expect_unchanged(
            &schema::RECEIPT_BY_ROOM,
            &key,
            old.as_ref().map(|row| &row.raw),
        );
        let row = ReceiptRow {
            user_id: viewer.user_id.to_string(),
            event_id: event_id.to_string(),
            place,
            thread: thread.as_str().map(ToOwned::to_owned),
            ts: self.now(),
        };
        batch.put_stamped(&schema::RECEIPT_BY_ROOM, &key, 0, row);
        let reference = ReceiptRef {
            user,
            kind,
            thread: thread_hash,
        };
        let position = Position::pending(0);
        batch.put(
            &schema::RECEIPT_BY_POSITION,
            &(room.short, position),
            &reference,
        );
        batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &room.short, 0, ());
        if kind == ReceiptKind::Read {
            batch.wake(Topic::Room(room.short));
        }
        let further = old_read
            .as_ref()
            .is_none_or(|old| Some(old.value.place) < place);
        if let (Some(place), Some(placed), true) = (place, placed, further) {
            let read = ReadRow {
                place,
                totals: placed.totals,
                own: own - own_after(room, snapshot, viewer, place).await?,
            };
            let raw = old_read.as_ref().map(|row| &row.raw);
            batch.expect_unchanged(&schema::READ_BY_USER_ROOM, &read_key, raw);
            batch.put(&schema::READ_BY_USER_ROOM, &read_key, &read);
        }
        let change = (viewer.short, position);
        let what = UserChange::Read(room.short);
        batch.put(&schema::CHANGE_BY_USER_POSITION, &change, &what);
        batch.put_stamped(&schema::TAIL_BY_USER, &viewer.short, 0, ());
        batch.wake(Topic::User(viewer.short));
        Ok(Some(batch))
    }

    /// The content of `m.receipt` of rooms for a viewer: what changed since a position, or all there is.
    /// `None` where there is nothing. Two round trips for all of them.
    pub async fn receipts(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        rooms: &[(Arc<Room>, Option<Position>)],
    ) -> error::Result<Vec<Option<Value>>> {
        let mut reads = Reads::new();
        let slots: Vec<_> = rooms
            .iter()
            .map(|(room, since)| match since {
                Some(since) => {
                    let range = Range::prefix(&(room.short,))
                        .after(&(room.short, since.end_of_commit()))
                        .reverse()
                        .limit(RECEIPTS_MAX);
                    (
                        Some(reads.range(&schema::RECEIPT_BY_POSITION, &range)),
                        None,
                    )
                }
                None => {
                    let range = Range::prefix(&(room.short,)).limit(RECEIPTS_MAX);
                    (None, Some(reads.range(&schema::RECEIPT_BY_ROOM, &range)))
                }
            })
            .collect();
        if reads.is_empty() {
            return Ok(Vec::new());
        }
        let answers = snapshot.read(&reads).await?;
        let mut second = Reads::new();
        let mut found = Vec::new();
        for ((room, since), (changed, all)) in rooms.iter().zip(&slots) {
            let mut rows = Vec::new();
            let mut later = None;
            if let Some(changed) = changed {
                let keys: BTreeSet<_> = answers
                    .rows(changed)?
                    .into_iter()
                    .map(|(_, row)| row.value)
                    .map(|it| (room.short, it.user, it.kind as u8, it.thread))
                    .collect();
                later = Some(second.get_all(&schema::RECEIPT_BY_ROOM, keys.iter()));
                rows.extend(keys.into_iter().map(|key| (key, None)));
            }
            if let Some(all) = all {
                rows.extend(
                    answers
                        .rows(all)?
                        .into_iter()
                        .map(|(key, row)| (key, Some(row.value))),
                );
            }
            found.push((rows, later, *since));
        }
        let answers = snapshot.read(&second).await?;
        let mut contents = Vec::new();
        for (mut rows, later, since) in found {
            if let Some(later) = later {
                let read = answers.all(&later)?;
                for ((_, row), read) in rows.iter_mut().zip(read) {
                    *row = read
                        .map(|read| read.value)
                        .filter(|row| since.is_none_or(|since| row.position > since));
                }
            }
            let rows = rows
                .into_iter()
                .filter_map(|((_, _, kind, _), row)| Some((kind, row?.value)));
            contents.push(content(viewer, rows));
        }
        Ok(contents)
    }
}

/// What a thread is called in keys: nothing for a receipt without one.
pub(crate) fn thread_hash(rooms: &Rooms, thread: &ReceiptThread) -> NameHash {
    thread
        .as_str()
        .map_or(NameHash::NONE, |thread| rooms.storage().thread_hash(thread))
}

/// How many events that the default rules count somebody has sent after a place.
async fn own_after(
    room: &Room,
    snapshot: &Snapshot,
    viewer: &Viewer,
    place: Place,
) -> error::Result<i64> {
    let range = Range::prefix(&(room.short,)).after(&(room.short, place));
    let rows = snapshot
        .multi_range(&schema::EVENT_BY_PLACE, &[range])
        .await?;
    let numbers = counted(rows.into_iter().flatten().map(|(_, row)| row.value), None);
    let events = room.read_events(snapshot, &numbers).await?;
    let own = events
        .iter()
        .flatten()
        .filter(|event| event.row.header.sender == viewer.user_id.as_str());
    Ok(i64::try_from(own.count()).unwrap_or(i64::MAX))
}

/// The events of a stretch of the timeline that the default rules count, given the totals before it.
pub(crate) fn counted(
    placed: impl Iterator<Item = PlacedEvent>,
    before: Option<u64>,
) -> Vec<EventNumber> {
    let mut last = before;
    let mut numbers = Vec::new();
    for placed in placed {
        // Without the totals before the first one, it may count or not: who reads it will see.
        if last.is_none_or(|last| placed.totals.notify > last) {
            numbers.push(placed.number);
        }
        last = Some(placed.totals.notify);
    }
    numbers
}

/// An event must belong to the thread that a receipt for it names.
async fn check_thread(
    room: &Room,
    snapshot: &Snapshot,
    event: &ReadEvent,
    thread: &ReceiptThread,
) -> error::Result<()> {
    let Some(place) = event.row.header.place else {
        return Ok(());
    };
    let placed = snapshot
        .multi_get(&schema::EVENT_BY_PLACE, &[(room.short, place)])
        .await?
        .pop()
        .flatten();
    let root = placed.and_then(|placed| placed.value.thread);
    let root = match root {
        Some(root) => room.read_events(snapshot, &[root]).await?.pop().flatten(),
        None => None,
    };
    let root = root.map(|root| root.row.header.event_id);
    let fits = match thread {
        ReceiptThread::Main => root.is_none(),
        ReceiptThread::Thread(wanted) => {
            let wanted = wanted.as_str();
            // What relates to an event of a thread in another way belongs to the thread too.
            event.row.header.event_id == wanted
                || root.as_deref() == Some(wanted)
                || (root.is_none() && relates(event))
        }
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err(error::invalid_param(
            "The event does not belong to the thread that thread_id names",
        ))
    }
}

fn relates(event: &ReadEvent) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Option<Value>,
    }
    serde_json::from_slice::<Content>(event.content())
        .is_ok_and(|content| content.relates_to.is_some())
}

/// `m.receipt`, without the private ones of others. Where somebody has an unthreaded receipt and one of a
/// thread at the same event, the unthreaded one stands (MSC4102).
fn content(viewer: &Viewer, rows: impl Iterator<Item = (u8, ReceiptRow)>) -> Option<Value> {
    let mut events: Map<String, Value> = Map::new();
    for (kind, row) in rows {
        let private = kind == ReceiptKind::ReadPrivate as u8;
        if private && row.user_id != viewer.user_id.as_str() {
            continue;
        }
        let kind = if private { "m.read.private" } else { "m.read" };
        let event = events.entry(row.event_id).or_insert_with(|| json!({}));
        let users = event
            .as_object_mut()?
            .entry(kind)
            .or_insert_with(|| json!({}));
        let mut receipt = json!({ "ts": row.ts });
        if let (Some(thread), Some(receipt)) = (&row.thread, receipt.as_object_mut()) {
            receipt.insert("thread_id".to_owned(), json!(thread));
        }
        let users = users.as_object_mut()?;
        if row.thread.is_none() || !users.contains_key(&row.user_id) {
            users.insert(row.user_id, receipt);
        }
    }
    (!events.is_empty()).then_some(Value::Object(events))
}
