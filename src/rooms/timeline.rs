//! The timeline of a room, in pages.

use ruma::api::{Direction, client::filter::RoomEventFilter};
use storage::{
    Position, Range, Snapshot,
    schema::{self, Place},
};

use crate::{
    Look, PlaceToken, ReadEvent, Room, Viewer,
    event_filter::{passes, wants_room},
};

/// How many events a page looks at, at most, for those that are wanted.
const LOOKED_AT_MAX: usize = 2_000;
/// How many events are looked at together, at most.
const CHUNK_MAX: usize = 500;
/// How many rows of the room log are looked at for the place of a position.
const LOG_ROWS_MAX: usize = 100;

/// Which part of a timeline.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The boundary at which the page begins.
    pub from: PlaceToken,
    /// The boundary at which it ends at the latest.
    pub to: Option<PlaceToken>,
    /// Whether it goes back in time or on.
    pub direction: Direction,
    /// How many events it has at most.
    pub limit: usize,
}

/// A page of a timeline.
#[derive(Clone, Debug)]
pub struct Page {
    /// Its events, in the direction in which it goes.
    pub events: Vec<ReadEvent>,
    /// Where the next page begins; none if there is nothing beyond this one.
    pub next: Option<PlaceToken>,
}

impl Room {
    /// A page of the timeline as the viewer may see it; two round trips for a page all of which is wanted
    /// and shared. The page may be short, or empty, though more events follow: `next` tells.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the viewer may see nothing of the room.
    pub async fn timeline(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        span: Span,
        filter: &RoomEventFilter,
    ) -> error::Result<Page> {
        let (mut low, mut high) = bounds(&span, look.end()?);
        if !wants_room(filter, &self.room_id) {
            return Ok(Page {
                events: Vec::new(),
                next: None,
            });
        }
        let mut page = Vec::new();
        let mut looked_at = 0;
        while looked_at < LOOKED_AT_MAX {
            // One more than wanted tells whether there is another page.
            let ask = (span.limit - page.len() + 1).min(CHUNK_MAX);
            let places = self
                .places(snapshot, low, high, span.direction, ask)
                .await?;
            looked_at += places.len();
            let numbers: Vec<_> = places.iter().map(|(_, placed)| placed.number).collect();
            let events: Vec<_> = self
                .read_events(snapshot, &numbers)
                .await?
                .into_iter()
                .flatten()
                .filter(|event| passes(filter, event))
                .collect();
            let visible = self.visible(snapshot, viewer, look, &events).await?;
            for (event, visible) in events.into_iter().zip(visible) {
                if !visible {
                    continue;
                }
                if page.len() == span.limit {
                    let next = page.last().map(|last| beyond(last, span.direction));
                    return Ok(Page {
                        events: page,
                        next: next.or(Some(span.from)),
                    });
                }
                page.push(event);
            }
            let Some((last, _)) = places.last() else {
                break;
            };
            match span.direction {
                Direction::Backward => high = PlaceToken::before(*last).0,
                Direction::Forward => low = *last,
            }
            if places.len() < ask {
                return Ok(Page {
                    events: page,
                    next: None,
                });
            }
        }
        let next = match span.direction {
            Direction::Backward => PlaceToken(high),
            Direction::Forward => PlaceToken(low),
        };
        Ok(Page {
            events: page,
            next: (looked_at >= LOOKED_AT_MAX).then_some(next),
        })
    }

    /// Placed events with `low < place <= high`.
    async fn places(
        &self,
        snapshot: &Snapshot,
        low: Place,
        high: Place,
        direction: Direction,
        limit: usize,
    ) -> error::Result<Vec<(Place, schema::PlacedEvent)>> {
        if low >= high {
            return Ok(Vec::new());
        }
        let mut range = Range::prefix(&(self.short,))
            .after(&(self.short, low))
            .up_to(&(self.short, high))
            .limit(limit);
        if direction == Direction::Backward {
            range = range.reverse();
        }
        let rows = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|((_, place), row)| (place, row.value))
            .collect())
    }

    /// The last event before a boundary.
    pub async fn last_event(
        &self,
        snapshot: &Snapshot,
        boundary: PlaceToken,
    ) -> error::Result<Option<ReadEvent>> {
        let places = self
            .places(snapshot, Place::START, boundary.0, Direction::Backward, 1)
            .await?;
        let numbers: Vec<_> = places.iter().map(|(_, placed)| placed.number).collect();
        Ok(self.read_events(snapshot, &numbers).await?.pop().flatten())
    }

    /// The boundary in the timeline that was its end at a position.
    pub async fn place_at(
        &self,
        snapshot: &Snapshot,
        position: Position,
    ) -> error::Result<PlaceToken> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, position))
            .reverse()
            .limit(LOG_ROWS_MAX);
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &[range])
            .await?;
        let place = rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value)
            .filter(|change| !change.historic)
            .find_map(|change| change.place);
        Ok(PlaceToken(place.unwrap_or(Place::START)))
    }

    /// The root of the room's state at a position: after the last change up to it. `None` if the room was
    /// not there.
    pub async fn root_at(
        &self,
        snapshot: &Snapshot,
        position: Position,
    ) -> error::Result<Option<[u8; 16]>> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, position))
            .reverse()
            .limit(1);
        let rows = snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &[range])
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .next()
            .map(|(_, row)| row.value.root))
    }
}

/// The part of a timeline that a span names, up to `end`: above the first, up to the second.
fn bounds(span: &Span, end: Place) -> (Place, Place) {
    match span.direction {
        Direction::Backward => {
            let low = span.to.map_or(Place::START, |to| to.0);
            (low, span.from.0.min(end))
        }
        Direction::Forward => {
            let high = span.to.map_or(end, |to| to.0.min(end));
            (span.from.0, high)
        }
    }
}

/// The boundary beyond an event.
fn beyond(event: &ReadEvent, direction: Direction) -> PlaceToken {
    let place = event.row.header.place.unwrap_or_default();
    match direction {
        Direction::Backward => PlaceToken::before(place),
        Direction::Forward => PlaceToken(place),
    }
}
