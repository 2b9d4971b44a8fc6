//! What the logs of rooms say happened between two positions.

use std::collections::HashMap;

use pdu::{EventNumber, tree::StateKeyHash};
use rooms::Room;
use storage::{
    Found, Position, Range, Reads, ShortRoomId, Slot, Snapshot,
    schema::{self, Gap, Head, Place, RoomChange},
};

/// Rows of one room's log that are read at once, at least and at most.
const PIECE: std::ops::RangeInclusive<usize> = 50..=200;
/// Rows of one room's log that are looked at for one answer.
const ROWS_MAX: usize = 2_000;

/// A part of a room's log, newest first, as far as it was read.
#[derive(Debug)]
pub(crate) struct RoomLog {
    room: ShortRoomId,
    /// The room's head.
    pub(crate) head: Head,
    since: Option<Position>,
    /// The rows, newest first.
    pub(crate) rows: Vec<Row>,
    /// Whether all rows after `since` are there.
    pub(crate) whole: bool,
    /// The room's state at `since`; none if it was not there.
    pub(crate) root: Option<[u8; 16]>,
    /// The latest place before which the timeline lacks events.
    pub(crate) gap: Option<Place>,
}

/// A row of a room's log.
#[derive(Debug)]
pub(crate) struct Row {
    position: Position,
    pub(crate) change: RoomChange,
}

impl Row {
    /// The event that this row brought to the end of the timeline.
    pub(crate) fn live(&self) -> Option<(Place, EventNumber)> {
        let change = &self.change;
        change.place.zip(change.number).filter(|_| !change.historic)
    }
}

/// Which part of a room's log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// After this; from the beginning if none.
    pub(crate) since: Option<Position>,
    /// Up to this.
    pub(crate) end: Position,
    /// How many events are wanted.
    pub(crate) limit: usize,
}

type Rows = Vec<((ShortRoomId, Position), Found<RoomChange>)>;
type GapRows = Vec<((ShortRoomId, Place), Found<Gap>)>;

/// Where a part will be found.
struct Asked {
    head: Slot<Option<Found<Head>>>,
    rows: Slot<Rows>,
    before: Option<Slot<Rows>>,
    gap: Slot<GapRows>,
    piece: usize,
}

/// Reads parts of the logs of some rooms, in their order: one round trip. `None` for a room that is gone.
pub(crate) async fn read(
    snapshot: &Snapshot,
    parts: &[(ShortRoomId, Part)],
) -> error::Result<Vec<Option<RoomLog>>> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut reads = Reads::new();
    let asked: Vec<_> = parts
        .iter()
        .map(|(room, part)| ask(&mut reads, *room, part))
        .collect();
    let answers = snapshot.read(&reads).await?;
    let mut logs = Vec::new();
    for ((room, part), asked) in parts.iter().zip(asked) {
        let Some(head) = answers.one(&asked.head)? else {
            logs.push(None);
            continue;
        };
        let rows = taken(answers.rows(&asked.rows)?);
        let before = match &asked.before {
            Some(slot) => answers.rows(slot)?,
            None => Vec::new(),
        };
        let gap = answers.rows(&asked.gap)?;
        logs.push(Some(RoomLog {
            room: *room,
            head: head.value,
            since: part.since,
            whole: rows.len() < asked.piece,
            rows,
            root: before.into_iter().next().map(|(_, row)| row.value.root),
            gap: gap.into_iter().next().map(|((_, place), _)| place),
        }));
    }
    Ok(logs)
}

fn ask(reads: &mut Reads, room: ShortRoomId, part: &Part) -> Asked {
    let piece = part
        .limit
        .saturating_add(2)
        .clamp(*PIECE.start(), *PIECE.end());
    let mut range = Range::prefix(&(room,)).up_to(&(room, part.end));
    if let Some(since) = part.since {
        range = range.after(&(room, since));
    }
    let range = range.reverse().limit(piece);
    let before = part.since.map(|since| {
        let range = Range::prefix(&(room,)).up_to(&(room, since));
        reads.range(&schema::CHANGE_BY_ROOM_POSITION, &range.reverse().limit(1))
    });
    let gap = Range::prefix(&(room,)).reverse().limit(1);
    Asked {
        head: reads.get(&schema::HEAD_BY_ROOM, &room),
        rows: reads.range(&schema::CHANGE_BY_ROOM_POSITION, &range),
        before,
        gap: reads.range(&schema::GAP_BY_PLACE, &gap),
        piece,
    }
}

fn taken(rows: Rows) -> Vec<Row> {
    rows.into_iter()
        .map(|((_, position), row)| Row {
            position,
            change: row.value,
        })
        .collect()
}

impl RoomLog {
    /// Whether the timeline lacks events right before one of these.
    pub(crate) fn begins_at_gap(&self) -> bool {
        let live = self.rows.iter().filter_map(Row::live);
        self.gap.is_some() && live.into_iter().any(|(place, _)| Some(place) == self.gap)
    }

    /// Reads on; whether there was more, and it is not too much already.
    pub(crate) async fn read_on(&mut self, snapshot: &Snapshot) -> error::Result<bool> {
        let Some(last) = self.rows.last().map(|row| row.position) else {
            return Ok(false);
        };
        if self.whole || self.rows.len() >= ROWS_MAX {
            return Ok(false);
        }
        let mut range = Range::prefix(&(self.room,)).before(&(self.room, last));
        if let Some(since) = self.since {
            range = range.after(&(self.room, since));
        }
        let range = range.reverse().limit(*PIECE.end());
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &[range])
            .await?;
        let rows: Rows = rows.into_iter().flatten().collect();
        self.whole = rows.len() < *PIECE.end();
        let more = !rows.is_empty();
        self.rows.extend(taken(rows));
        Ok(more)
    }

    /// The state before a row; none if there was none. One more row is read if need be.
    pub(crate) async fn root_before(
        &mut self,
        snapshot: &Snapshot,
        row: usize,
    ) -> error::Result<Option<[u8; 16]>> {
        if let Some(before) = self.rows.get(row + 1) {
            return Ok(Some(before.change.root));
        }
        if self.whole {
            return Ok(self.root);
        }
        let Some(row) = self.rows.get(row) else {
            return Ok(self.root);
        };
        let range = Range::prefix(&(self.room,)).before(&(self.room, row.position));
        let rows = snapshot
            .multi_range(
                &schema::CHANGE_BY_ROOM_POSITION,
                &[range.reverse().limit(1)],
            )
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .next()
            .map(|(_, row)| row.value.root))
    }

    /// Leaves away what came after the event at a place; whether that event is there.
    pub(crate) async fn cut_after(
        &mut self,
        snapshot: &Snapshot,
        place: Place,
    ) -> error::Result<bool> {
        loop {
            let at = |row: &Row| row.live().is_some_and(|(found, _)| found == place);
            if let Some(last) = self.rows.iter().position(at) {
                self.rows.drain(..last);
                return Ok(true);
            }
            if !self.read_on(snapshot).await? {
                return Ok(false);
            }
        }
    }

    /// The state after the newest row.
    pub(crate) fn end(&self) -> Option<[u8; 16]> {
        self.rows.first().map(|row| row.change.root).or(self.root)
    }

    /// Whether all members became known within this (MSC3902).
    pub(crate) fn was_partial(&self) -> bool {
        self.rows.iter().any(|row| row.change.number.is_none())
    }

    /// Whether this begins with the room itself.
    pub(crate) fn begins_with_create(&self) -> bool {
        let first = self.rows.last().and_then(|row| row.change.state.as_ref());
        self.whole
            && self.root.is_none()
            && first.is_some_and(|changes| {
                changes
                    .iter()
                    .any(|entry| entry.event_type == "m.room.create")
            })
    }

    /// Whether members, or what the room is called, may have changed.
    pub(crate) fn touches_summary(&self) -> bool {
        let summarised = |event_type: &str| {
            let types = ["m.room.member", "m.room.name", "m.room.canonical_alias"];
            types.contains(&event_type)
        };
        !self.whole
            || self.rows.iter().any(|row| match &row.change.state {
                Some(changes) => changes.iter().any(|entry| summarised(&entry.event_type)),
                None => true,
            })
    }

    /// Whose membership changed, as far as the rows tell.
    pub(crate) fn changed_members(&self) -> impl Iterator<Item = &str> {
        let changes = self.rows.iter().filter_map(|row| row.change.state.as_ref());
        let members = changes
            .flatten()
            .filter(|entry| entry.event_type == "m.room.member" && entry.after.is_some());
        members.map(|entry| entry.state_key.as_str())
    }

    /// How the entries of the state changed: what stood under a key at `since`, before the row `start`
    /// (none: after all rows), and in the end. One walk over the trees where the rows do not tell.
    pub(crate) async fn changes(
        &mut self,
        room: &Room,
        snapshot: &Snapshot,
        start: Option<usize>,
    ) -> error::Result<HashMap<StateKeyHash, Entry>> {
        let told = self.whole && self.rows.iter().all(|row| row.change.state.is_some());
        if told {
            return Ok(self.told_changes(room, start));
        }
        let end = self.end();
        let at_start = match start {
            Some(row) => self.root_before(snapshot, row).await?,
            None => end,
        };
        let (Some(start), Some(end), Some(since)) = (at_start, end, self.root) else {
            return Ok(HashMap::new());
        };
        let mut entries: HashMap<StateKeyHash, Entry> = HashMap::new();
        for difference in room.state_difference(snapshot, since, end).await? {
            let entry = Entry {
                since: difference.left,
                start: difference.left,
                end: difference.right,
            };
            entries.insert(difference.key, entry);
        }
        for difference in room.state_difference(snapshot, since, start).await? {
            let entry = entries.entry(difference.key).or_insert(Entry {
                since: difference.left,
                start: None,
                end: difference.left,
            });
            entry.start = difference.right;
        }
        Ok(entries)
    }

    fn told_changes(&self, room: &Room, start: Option<usize>) -> HashMap<StateKeyHash, Entry> {
        let mut entries: HashMap<StateKeyHash, Entry> = HashMap::new();
        for (index, row) in self.rows.iter().enumerate().rev() {
            let before_start = start.is_none_or(|start| index > start);
            for change in row.change.state.iter().flatten() {
                let key = room.tree_key(&change.event_type.as_str().into(), &change.state_key);
                let entry = entries.entry(key).or_insert(Entry {
                    since: change.before,
                    start: change.before,
                    end: None,
                });
                entry.end = change.after;
                if before_start {
                    entry.start = change.after;
                }
            }
        }
        entries
    }

    /// How the entries of the state changed from the row `start` on.
    pub(crate) async fn changes_from(
        &mut self,
        room: &Room,
        snapshot: &Snapshot,
        start: usize,
    ) -> error::Result<HashMap<StateKeyHash, Entry>> {
        let mut entries: HashMap<StateKeyHash, Entry> = HashMap::new();
        let shown = self.rows.get(..=start).unwrap_or_default();
        if shown.iter().all(|row| row.change.state.is_some()) {
            for change in shown
                .iter()
                .rev()
                .flat_map(|row| &row.change.state)
                .flatten()
            {
                let key = room.tree_key(&change.event_type.as_str().into(), &change.state_key);
                let entry = entries.entry(key).or_insert(Entry {
                    since: change.before,
                    start: change.before,
                    end: None,
                });
                entry.end = change.after;
            }
            return Ok(entries);
        }
        let end = self.end();
        let before = self.root_before(snapshot, start).await?;
        if let (Some(before), Some(end)) = (before, end) {
            for difference in room.state_difference(snapshot, before, end).await? {
                let entry = Entry {
                    since: difference.left,
                    start: difference.left,
                    end: difference.right,
                };
                entries.insert(difference.key, entry);
            }
        }
        Ok(entries)
    }
}

/// What stood under a key of the state, at three moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the device was last told.
    pub(crate) since: Option<EventNumber>,
    /// Before its timeline.
    pub(crate) start: Option<EventNumber>,
    /// In the end.
    pub(crate) end: Option<EventNumber>,
}
