//! The event nearest to a time ([spec]).
//!
//! Places are in the order in which events came, and an event may come late or tell any time: application
//! services choose it. So the timeline has an index by time, in which the answer is the next row that the
//! viewer may see.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event

use ruma::api::Direction;
use storage::{
    Range, Snapshot,
    schema::{self, Place},
};

use super::{CHUNK_GROWTH, CHUNK_MAX, LOOKED_AT_MAX};
use crate::{Look, ReadEvent, Room, Viewer};

/// Events that are looked at first: most often the very next one may be seen.
const FIRST_CHUNK: usize = 4;

/// How far along the index one has come.
enum Found {
    Event(Box<ReadEvent>),
    /// Nothing to be seen is left.
    Nothing,
    /// Nothing was seen as far as this time, and more follows.
    NothingUpTo(u64),
}

impl Room {
    /// The event nearest to a time, at it or farther on in a direction, that the viewer may see; of events of
    /// the same time the one that comes first in that direction. Two round trips, where the next few events
    /// hold one.
    ///
    /// What hides many events in a row from somebody is that they were not in the room: after so many as a
    /// page looks at, the search goes on at their latest member event, if that lies farther on.
    pub async fn nearest_in_time(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        time: u64,
        direction: Direction,
    ) -> error::Result<Option<ReadEvent>> {
        let from = |time| self.first_seen(snapshot, viewer, look, time, direction);
        let end = match from(time).await? {
            Found::Event(event) => return Ok(Some(*event)),
            Found::Nothing => return Ok(None),
            Found::NothingUpTo(end) => end,
        };
        let own: Vec<_> = look.row.iter().filter_map(|row| row.number).collect();
        let own = self.read_events(snapshot, &own).await?;
        let own = own.into_iter().flatten().next();
        let time = own.map(|own| own.row.header.origin_server_ts);
        let time = time.filter(|time| match direction {
            Direction::Backward => *time < end,
            Direction::Forward => *time > end,
        });
        match time {
            Some(time) => match from(time).await? {
                Found::Event(event) => Ok(Some(*event)),
                Found::Nothing | Found::NothingUpTo(_) => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// The first event from a time on that the viewer may see.
    async fn first_seen(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        time: u64,
        direction: Direction,
    ) -> error::Result<Found> {
        let all = Range::prefix(&(self.short,));
        let mut range = match direction {
            Direction::Backward => all.up_to(&(self.short, time, Place::END)).reverse(),
            Direction::Forward => all.from(&(self.short, time, Place::START)),
        };
        let (mut chunk, mut looked_at) = (FIRST_CHUNK, 0);
        loop {
            let ranges = [range.clone().limit(chunk)];
            let rows = snapshot.multi_range(&schema::EVENT_BY_TIME, &ranges);
            let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
            let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value).collect();
            let events = self.read_events(snapshot, &numbers).await?;
            let events: Vec<_> = events.into_iter().flatten().collect();
            let seen = self.visible(snapshot, viewer, look, &events).await?;
            let mut seen = events.into_iter().zip(seen).filter(|(_, seen)| *seen);
            if let Some((event, _)) = seen.next() {
                return Ok(Found::Event(Box::new(event)));
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == chunk) else {
                return Ok(Found::Nothing);
            };
            looked_at += chunk;
            if looked_at >= LOOKED_AT_MAX {
                return Ok(Found::NothingUpTo(last.1));
            }
            range = match direction {
                Direction::Backward => range.before(last),
                Direction::Forward => range.after(last),
            };
            chunk = chunk.saturating_mul(CHUNK_GROWTH).min(CHUNK_MAX);
        }
    }
}
