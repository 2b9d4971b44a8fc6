//! The timeline of a room, in pages.

mod nearest;
mod stretch;
mod tokens;

use ruma::api::{Direction, client::filter::RoomEventFilter};
use storage::{
    Reads, Snapshot,
    schema::{self, Place},
};

use self::stretch::{Bounds, Stretch};
use crate::{
    Look, PlaceToken, ReadEvent, RelationFilter, Room, Rooms, Viewer,
    event_filter::{passes, wants_room},
};

/// How many events a page looks at, at most, for those that are wanted.
const LOOKED_AT_MAX: usize = 2_000;
/// How many events are looked at together, at most.
const CHUNK_MAX: usize = 500;
/// By how much more is looked at in the next round, where the last one held too little that is wanted.
const CHUNK_GROWTH: usize = 4;

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
    /// For a page that ends where the timeline lacks events: the place before which they belong, as in
    /// [`GAP_BY_PLACE`](storage::schema::GAP_BY_PLACE). What is found until the next page is read is on it.
    pub gap: Option<Place>,
    /// The same for a page that begins there, and goes back in time.
    pub from_gap: Option<Place>,
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
        relations: Option<(&Rooms, &RelationFilter)>,
    ) -> error::Result<Page> {
        let paging = Paging {
            room: self,
            snapshot,
            viewer,
            look,
            filter,
            relations,
        };
        paging.page(span, None).await
    }

    /// How the viewer stands to the room, and a page of its timeline, read together: two round trips in
    /// all. Without `from` the page begins at the end of what they may see, or at its beginning. Gives
    /// the boundary at which it begins, too.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the viewer may see nothing of the room.
    pub async fn look_at_page(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        from: Option<PlaceToken>,
        wanted: &Wanted<'_>,
    ) -> error::Result<(Look, PlaceToken, Page)> {
        let first = match wanted.direction {
            Direction::Backward => PlaceToken(Place::END),
            Direction::Forward => PlaceToken(Place::START),
        };
        let mut span = Span {
            from: from.unwrap_or(first),
            to: wanted.to,
            direction: wanted.direction,
            limit: wanted.limit,
        };
        let mut reads = Reads::new();
        let asked = self.ask_look(&mut reads, viewer);
        let bounds = Bounds::of(&span, Place::END);
        let ahead = self.ask_stretch(&mut reads, bounds, first_chunk(span.limit));
        let behind = from.filter(|_| span.direction == Direction::Backward);
        let behind = behind.map(|from| (self.short, from.next()));
        let hole = reads.get_all(&schema::GAP_BY_PLACE, &behind);
        let answers = snapshot.read(&reads).await?;
        let look = self.answered_look(snapshot, &answers, &asked).await?;
        let end = look.end()?;
        if from.is_none() && span.direction == Direction::Backward {
            span.from = PlaceToken(end);
        }
        // Who left sees less than was read.
        let ahead = Stretch::of(&answers, &ahead)?;
        let ahead = Some(ahead).filter(|ahead| ahead.ends_by(end));
        let paging = Paging {
            room: self,
            snapshot,
            viewer,
            look: &look,
            filter: wanted.filter,
            relations: wanted.relations,
        };
        let mut page = paging.page(span, ahead).await?;
        let hole = answers.all(&hole)?.into_iter().flatten().next();
        page.from_gap = hole.and(behind).map(|(_, place)| place);
        Ok((look, span.from, page))
    }
}

/// What is wanted of a timeline, but for where it begins.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The boundary at which the page ends at the latest.
    pub to: Option<PlaceToken>,
    /// Whether it goes back in time or on.
    pub direction: Direction,
    /// How many events it has at most.
    pub limit: usize,
    /// Which events are wanted.
    pub filter: &'a RoomEventFilter,
    /// And by how they relate or are related to, if that matters.
    pub relations: Option<(&'a Rooms, &'a RelationFilter)>,
}

/// One more than wanted tells whether there is another page.
fn first_chunk(limit: usize) -> usize {
    limit.saturating_add(1).min(CHUNK_MAX)
}

struct Paging<'a> {
    room: &'a Room,
    snapshot: &'a Snapshot,
    viewer: &'a Viewer,
    look: &'a Look,
    filter: &'a RoomEventFilter,
    relations: Option<(&'a Rooms, &'a RelationFilter)>,
}

impl Paging<'_> {
    /// A page, the first stretch of which may have been read already.
    async fn page(&self, span: Span, mut ahead: Option<Stretch>) -> error::Result<Page> {
        let mut bounds = Bounds::of(&span, self.look.end()?);
        let mut page = Page {
            events: Vec::new(),
            next: None,
            gap: None,
            from_gap: None,
        };
        if !wants_room(self.filter, &self.room.room_id) {
            return Ok(page);
        }
        let mut looked_at = 0;
        let mut chunk = first_chunk(span.limit);
        loop {
            let stretch = match ahead.take() {
                Some(stretch) => stretch,
                None => self.room.stretch(self.snapshot, bounds, chunk).await?,
            };
            for event in self.wanted(&stretch).await? {
                if page.events.len() == span.limit {
                    let last = page.events.last().and_then(|last| last.row.header.place);
                    page.next = Some(last.map_or(span.from, |last| bounds.beyond(last)));
                    return Ok(page);
                }
                page.events.push(event);
            }
            looked_at += stretch.placed.len();
            if let Some((last, _)) = stretch.placed.last() {
                bounds = bounds.after(*last);
            }
            page.gap = stretch.gap;
            if stretch.is_last {
                // Behind a gap there may be more by the time the next page is asked for.
                page.next = stretch.gap.map(|_| bounds.begin());
                return Ok(page);
            }
            if looked_at >= LOOKED_AT_MAX {
                page.next = Some(bounds.begin());
                return Ok(page);
            }
            chunk = chunk.saturating_mul(CHUNK_GROWTH).min(CHUNK_MAX);
        }
    }

    /// The events of a stretch that the filter lets through and the viewer may see.
    async fn wanted(&self, stretch: &Stretch) -> error::Result<Vec<ReadEvent>> {
        let numbers: Vec<_> = stretch.placed.iter().map(|(_, one)| one.number).collect();
        let events = self.room.read_events(self.snapshot, &numbers).await?;
        let events: Vec<_> = events
            .into_iter()
            .flatten()
            .filter(|event| passes(self.filter, event))
            .filter(|event| {
                self.relations
                    .is_none_or(|(_, relations)| relations.passes(event))
            })
            .collect();
        let related = match self.relations {
            Some((rooms, relations)) => {
                self.room
                    .related_as_wanted(rooms, self.snapshot, &events, relations)
                    .await?
            }
            None => vec![true; events.len()],
        };
        let events: Vec<_> = events
            .into_iter()
            .zip(related)
            .filter_map(|(event, related)| related.then_some(event))
            .collect();
        let visible = self
            .room
            .visible(self.snapshot, self.viewer, self.look, &events)
            .await?;
        let all = events.into_iter().zip(visible);
        Ok(all
            .filter(|(_, visible)| *visible)
            .map(|(event, _)| event)
            .collect())
    }
}
