//! Pages of what relates to an event, and of a room's threads.

use std::collections::{BTreeMap, HashSet};

use pdu::EventNumber;
use ruma::{EventId, api::Direction};
use storage::{
    NameHash, Range, ShortRoomId, Snapshot,
    schema::{self, Place, RelationRow},
};

use crate::{Look, Page, PlaceToken, ReadEvent, Room, Rooms, Span, Viewer};

/// Rows under one event that a page looks at.
const LOOKED_AT_MAX: usize = 2_000;
/// The same under each event that relates itself, however many these are.
const LOOKED_AT_DEEPER: usize = 50;
/// How far events are followed that relate to events that relate to the one that is asked for.
pub const RECURSION_DEPTH: u8 = 3;

/// Which related events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Related<'a> {
    /// Related in this way.
    pub rel_type: Option<&'a str>,
    /// Of this type.
    pub event_type: Option<&'a str>,
    /// Those too that relate to events that relate.
    pub recurse: bool,
}

impl Related<'_> {
    fn are(&self, row: &RelationRow) -> bool {
        self.rel_type.is_none_or(|wanted| row.rel_type == wanted)
            && self
                .event_type
                .is_none_or(|wanted| row.event_type == wanted)
    }
}

/// Events at places, in the direction of a span.
struct Placed {
    events: Vec<(Place, EventNumber)>,
    /// The place up to which these are all there are; none if there is nothing beyond them.
    more: Option<Place>,
}

impl Span {
    /// The places of the span: those after the first of these, up to the second.
    fn bounds(&self) -> (Place, Place) {
        let to = self.to.map(|to| to.0);
        match self.direction {
            Direction::Backward => (to.unwrap_or(Place::START), self.from.0),
            Direction::Forward => (self.from.0, to.unwrap_or(Place::END)),
        }
    }

    /// Where the page after one that ends with this place begins.
    fn next(&self, last: Place) -> PlaceToken {
        match self.direction {
            Direction::Backward => PlaceToken::before(last),
            Direction::Forward => PlaceToken(last),
        }
    }

    /// The nearer of two places in the direction of the span.
    fn nearer(&self, one: Place, other: Place) -> Place {
        match self.direction {
            Direction::Backward => one.max(other),
            Direction::Forward => one.min(other),
        }
    }
}

impl Room {
    /// A page of the events that relate to an event, as the viewer may see them. It may be short, or empty,
    /// though more events follow: `next` tells.
    ///
    /// # Errors
    ///
    /// 404 if the viewer may not see that event.
    pub async fn related(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        parent: &EventId,
        wanted: Related<'_>,
        span: Span,
    ) -> error::Result<Page> {
        let none = || error::not_found("There is no such event here, or you may not see it");
        let found = self.find_event(rooms, snapshot, parent).await?;
        let found = found.ok_or_else(none)?;
        let alone = std::slice::from_ref(&found);
        if self.visible(snapshot, viewer, look, alone).await? != [true] {
            return Err(none());
        }
        let placed = self
            .related_rows(rooms, snapshot, parent.as_str(), wanted, span)
            .await?;
        self.page_of(snapshot, (viewer, look), placed, span).await
    }

    /// What relates to an event, and to what does so, within a span.
    ///
    /// Where there is more than one page looks at, what lies beyond is left to the next one. Of what was
    /// said before the span only the latest is followed into it.
    async fn related_rows(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        parent: &str,
        wanted: Related<'_>,
        span: Span,
    ) -> error::Result<Placed> {
        let (low, _) = span.bounds();
        let depth = if wanted.recurse { RECURSION_DEPTH } else { 1 };
        let mut parents = vec![rooms.storage().event_hash(parent)];
        let mut all: BTreeMap<Place, RelationRow> = BTreeMap::new();
        let mut more: Option<Place> = None;
        for level in 1..=depth {
            let most = if level == 1 {
                LOOKED_AT_MAX
            } else {
                LOOKED_AT_DEEPER
            };
            let before = level < depth && low > Place::START;
            let ranges: Vec<_> = parents
                .iter()
                .flat_map(|parent| self.ranges_under(*parent, span, before))
                .map(|range| range.limit(most))
                .collect();
            let rows = snapshot
                .multi_range(&schema::RELATION_BY_PARENT, &ranges)
                .await?;
            let mut new = Vec::new();
            for rows in rows {
                let last = rows.last().map(|((.., place), _)| *place);
                if let Some(last) = last.filter(|last| rows.len() == most && *last > low) {
                    more = Some(more.map_or(last, |more| span.nearer(more, last)));
                }
                for ((.., place), row) in rows {
                    let number = row.value.number;
                    if all.insert(place, row.value).is_none() {
                        new.push(number);
                    }
                }
            }
            if level == depth || new.is_empty() {
                break;
            }
            let events = self.read_events(snapshot, &new).await?;
            parents = events
                .into_iter()
                .flatten()
                .map(|event| rooms.storage().event_hash(&event.row.header.event_id))
                .collect();
        }
        let mut events: Vec<_> = all
            .into_iter()
            .filter(|(place, row)| {
                *place > low
                    && wanted.are(row)
                    && more.is_none_or(|more| span.nearer(*place, more) == *place)
            })
            .map(|(place, row)| (place, row.number))
            .collect();
        if span.direction == Direction::Backward {
            events.reverse();
        }
        Ok(Placed { events, more })
    }

    /// The rows under one event within a span; and, if wanted, the latest ones before it.
    fn ranges_under(
        &self,
        parent: NameHash,
        span: Span,
        before: bool,
    ) -> impl Iterator<Item = Range<(ShortRoomId, NameHash, Place)>> + use<> {
        let (low, high) = span.bounds();
        let at = |place| (self.short, parent, place);
        let all = || Range::prefix(&(self.short, parent));
        let within = all().after(&at(low)).up_to(&at(high));
        let within = match span.direction {
            Direction::Backward => within.reverse(),
            Direction::Forward => within,
        };
        let before = before.then(|| all().up_to(&at(low)).reverse());
        std::iter::once(within).chain(before)
    }

    /// A page of threads, those with the latest replies first: their roots, as the viewer may see them. It
    /// may be short, or empty, though more follow: `next` tells.
    pub async fn threads(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        only_participated: bool,
        span: Span,
    ) -> error::Result<Page> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, span.from.0))
            .reverse()
            .limit(LOOKED_AT_MAX);
        let rows = snapshot
            .multi_range(&schema::THREAD_BY_PLACE, &[range])
            .await?;
        let mut events: Vec<_> = rows
            .into_iter()
            .flatten()
            .map(|((_, place), row)| (place, row.value))
            .collect();
        let last = events.last().map(|(place, _)| *place);
        let more = last.filter(|_| events.len() == LOOKED_AT_MAX);
        if only_participated {
            let numbers: Vec<_> = events.iter().map(|(_, root)| *root).collect();
            let own = self.participated(rooms, snapshot, viewer, &numbers).await?;
            events.retain(|(_, root)| own.contains(root));
        }
        let placed = Placed { events, more };
        self.page_of(snapshot, (viewer, look), placed, span).await
    }

    /// Those of some threads in which the viewer has said something.
    async fn participated(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        roots: &[EventNumber],
    ) -> error::Result<HashSet<EventNumber>> {
        let user = rooms.storage().user_hash(&viewer.user_id);
        let keys: Vec<_> = roots.iter().map(|root| (self.short, *root, user)).collect();
        let rows = snapshot
            .multi_get(&schema::PARTICIPANT_BY_THREAD, &keys)
            .await?;
        Ok(roots
            .iter()
            .zip(rows)
            .filter(|(_, row)| row.is_some())
            .map(|(root, _)| *root)
            .collect())
    }

    /// A page of the first of some events that may be seen.
    async fn page_of(
        &self,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        placed: Placed,
        span: Span,
    ) -> error::Result<Page> {
        let mut events: Vec<ReadEvent> = Vec::new();
        let mut last = None;
        // What may not be seen makes room for more.
        for some in placed.events.chunks(span.limit.max(1)) {
            let numbers: Vec<_> = some.iter().map(|(_, number)| *number).collect();
            let read = self.read_events(snapshot, &numbers).await?;
            let (places, read): (Vec<_>, Vec<_>) = some
                .iter()
                .zip(read)
                .filter_map(|((place, _), event)| Some((*place, event?)))
                .unzip();
            let visible = self.visible(snapshot, viewer, look, &read).await?;
            for ((place, event), visible) in places.into_iter().zip(read).zip(visible) {
                if !visible {
                    continue;
                }
                if events.len() == span.limit {
                    return Ok(Page {
                        events,
                        next: last.map(|last| span.next(last)),
                        gap: None,
                        from_gap: None,
                    });
                }
                last = Some(place);
                events.push(event);
            }
        }
        Ok(Page {
            events,
            next: placed.more.map(|more| span.next(more)),
            gap: None,
            from_gap: None,
        })
    }
}
