//! The room log of the time in which not all members were known: which states it names.
//!
//! Whoever looks back at that time, by a token of theirs, is told of the members then as we know them now; and
//! events of ours go to the servers that were there. What it says that changed stays as people have seen it.

use std::{collections::HashMap, sync::Arc};

use pdu::EventNumber;
use storage::{
    Batch, Range,
    schema::{self, EventRoots, PlacedEvent, RoomChange},
};

use super::replay::Replayed;
use crate::{Room, Rooms};

/// Rows that are looked at, and written, together.
const ROWS_AT_ONCE: usize = 500;

/// Names the whole states in the log from a join on.
pub(super) async fn rewrite(
    rooms: &Rooms,
    room: &Arc<Room>,
    join: EventNumber,
    replayed: &Replayed,
) -> error::Result<()> {
    let mut up_to = None;
    loop {
        let snapshot = rooms.snapshot().await?;
        let mut range = Range::prefix(&(room.short,));
        if let Some(up_to) = &up_to {
            range = range.before(up_to);
        }
        let ranges = [range.reverse().limit(ROWS_AT_ONCE)];
        let rows = snapshot.multi_range(&schema::CHANGE_BY_ROOM_POSITION, &ranges);
        let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
        let places = rows.iter().filter_map(|(_, row)| row.value.place);
        let places: Vec<_> = places.map(|place| (room.short, place)).collect();
        let placed = snapshot.multi_get(&schema::EVENT_BY_PLACE, &places).await?;
        let placed = places.into_iter().zip(placed);
        let placed = placed.filter_map(|(key, row)| Some((key, row?.value)));
        let placed: HashMap<_, _> = placed.collect();
        let mut batch = Batch::new();
        let mut done = rows.is_empty();
        for (key, row) in rows {
            up_to = Some(key);
            let change = row.value;
            let root = replayed.root_after(&change);
            let placed = change.place.and_then(|at| placed.get(&(room.short, at)));
            if let (Some(place), Some(placed)) = (change.place, placed)
                && let Some(placed) = anew(placed, root, replayed.roots.get(&placed.number))
            {
                batch.put(&schema::EVENT_BY_PLACE, &(room.short, place), &placed);
            }
            done = change.number == Some(join);
            let change = RoomChange { root, ..change };
            batch.put(&schema::CHANGE_BY_ROOM_POSITION, &key, &change);
            if done {
                break;
            }
        }
        if !batch.is_empty() {
            rooms.storage().commit(batch).await?;
        }
        if done {
            return Ok(());
        }
    }
}

/// What stands at a place, if it says of the room's state something else than before.
fn anew(placed: &PlacedEvent, root: [u8; 16], roots: Option<&EventRoots>) -> Option<PlacedEvent> {
    // Of history it says nothing.
    let after = roots?.after;
    let root = Some(root).filter(|root| *root != after);
    (placed.root != root).then_some(PlacedEvent { root, ..*placed })
}

impl Replayed {
    /// The room's state after what a row of the log says.
    fn root_after(&self, change: &RoomChange) -> [u8; 16] {
        let restored = change.number.is_some_and(|it| self.restored.contains(&it));
        let after = change.number.and_then(|number| self.current.get(&number));
        match after {
            Some(after) if !restored => *after,
            // It came when all else was judged.
            _ if restored => self.root,
            _ => change.root,
        }
    }
}
