//! The piece of a room's timeline that a device gets.

use std::collections::HashSet;

use pdu::EventNumber;
use rooms::{
    Look, PlaceToken, ReadEvent, Room,
    event_filter::{passes, wants_room},
};
use storage::schema::Place;

use crate::{Reading, log::RoomLog, state::key_of};

/// Events that are looked at together, when some of them turned out not to be wanted.
const MORE: usize = 100;

/// The newest events that a device does not know, as far as it wants them.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// Oldest first.
    pub(crate) events: Vec<ReadEvent>,
    /// The row of the room's log that brought the first of them.
    pub(crate) first: Option<usize>,
    /// Whether the device lacks events before them.
    pub(crate) limited: bool,
    /// The boundary before them.
    pub(crate) before: Option<PlaceToken>,
}

/// The next events to look at.
struct Candidates {
    rows: Vec<(usize, EventNumber)>,
    /// The row after the last one that was looked at.
    next: usize,
    /// The timeline lacks events here.
    gap: bool,
}

impl Reading<'_> {
    /// The newest events of a part of a room's log that the viewer may see and wants.
    pub(crate) async fn shown(
        &self,
        room: &Room,
        look: &Look,
        log: &mut RoomLog,
        ignored: &HashSet<String>,
    ) -> error::Result<Shown> {
        let filter = &self.request.filter.room.timeline;
        let relations = &self.request.relations;
        let passes = |event: &ReadEvent| passes(filter, event) && relations.passes(event);
        let wanted = wants_room(filter, &room.room_id);
        let limit = self.request.timeline_limit();
        let mut newest_first: Vec<(usize, ReadEvent)> = Vec::new();
        let (mut next, mut limited, mut ask) = (0, false, limit.saturating_add(1));
        loop {
            if !wanted {
                break;
            }
            let candidates = candidates(log, next, ask);
            next = candidates.next;
            let numbers: Vec<_> = candidates.rows.iter().map(|(_, number)| *number).collect();
            let rows = candidates.rows.into_iter().map(|(row, _)| row);
            let events = room.read_events(self.snapshot, &numbers).await?;
            let (rows, events): (Vec<_>, Vec<_>) = rows
                .zip(events)
                .filter_map(|(row, event)| Some((row, event?)))
                .filter(|(_, event)| passes(event) && !is_ignored(event, ignored))
                .unzip();
            let rooms = self.rooms();
            let related = room.related_as_wanted(rooms, self.snapshot, &events, relations);
            let visible = self.visible(room, look, &events);
            let (related, visible) = tokio::try_join!(related, visible)?;
            let seen = rows
                .into_iter()
                .zip(events)
                .zip(related.into_iter().zip(visible));
            for (found, _) in seen.filter(|(_, (related, visible))| *related && *visible) {
                if newest_first.len() == limit {
                    limited = true;
                    break;
                }
                newest_first.push(found);
            }
            if limited {
                break;
            }
            ask = MORE;
            if candidates.gap {
                limited = true;
                break;
            }
            if next >= log.rows.len() && !log.read_on(self.snapshot).await? {
                // Whatever lies beyond was not looked at, or is missing from the timeline.
                limited = !log.whole || log.begins_at_gap();
                break;
            }
        }
        if !self.request.wants_state_after() {
            limited |= self.cut_stale(room, log, &mut newest_first).await?;
        }
        let end = log.rows.iter().find_map(|row| row.live());
        let place = |event: &ReadEvent| event.row.header.place;
        let before = newest_first
            .last()
            .and_then(|(_, event)| place(event))
            .map(PlaceToken::before)
            .or(end.map(|(place, _)| PlaceToken(place)));
        Ok(Shown {
            first: newest_first.last().map(|(row, _)| *row),
            events: newest_first
                .into_iter()
                .rev()
                .map(|(_, event)| event)
                .collect(),
            limited,
            before,
        })
    }

    /// A device takes the last event of its timeline under a key for the state. Where that has changed since
    /// without an event that it may see (the viewer was out of the room for a while), its timeline begins
    /// behind it instead. Whether anything was left away.
    async fn cut_stale(
        &self,
        room: &Room,
        log: &mut RoomLog,
        newest_first: &mut Vec<(usize, ReadEvent)>,
    ) -> error::Result<bool> {
        let is_state = |(_, event): &(usize, ReadEvent)| event.row.header.state_key.is_some();
        let Some((first, _)) = newest_first.last() else {
            return Ok(false);
        };
        if !newest_first.iter().any(is_state) {
            return Ok(false);
        }
        let entries = log.changes_from(room, self.snapshot, *first).await?;
        let mut latest = HashSet::new();
        let stale = newest_first.iter().position(|(_, event)| {
            let Some(key) = key_of(room, event) else {
                return false;
            };
            let changed = entries
                .get(&key)
                .is_some_and(|entry| entry.end != Some(event.number));
            latest.insert(key) && changed
        });
        if let Some(stale) = stale {
            newest_first.truncate(stale);
        }
        Ok(stale.is_some())
    }

    async fn visible(
        &self,
        room: &Room,
        look: &Look,
        events: &[ReadEvent],
    ) -> error::Result<Vec<bool>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        room.visible(self.snapshot, self.viewer(), look, events)
            .await
    }
}

/// The next rows of a log that brought events, at most so many, as far as they were read.
fn candidates(log: &RoomLog, from: usize, at_most: usize) -> Candidates {
    let mut found = Candidates {
        rows: Vec::new(),
        next: from,
        gap: false,
    };
    let behind_gap = |place: Place| log.gap.is_some_and(|gap| place < gap);
    for (index, row) in log.rows.iter().enumerate().skip(from) {
        if found.rows.len() >= at_most {
            break;
        }
        found.next = index + 1;
        let Some((place, number)) = row.live() else {
            continue;
        };
        if behind_gap(place) {
            found.gap = true;
            break;
        }
        found.rows.push((index, number));
    }
    found
}

/// Whether an event comes from somebody of whom the viewer does not want to hear. State is never hidden.
fn is_ignored(event: &ReadEvent, ignored: &HashSet<String>) -> bool {
    event.row.header.state_key.is_none() && ignored.contains(&event.row.header.sender)
}
