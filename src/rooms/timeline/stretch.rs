//! Stretches of a timeline: what lies between two boundaries and is not torn by a gap.

use ruma::api::Direction;
use storage::{
    Answers, Found, Range, Reads, ShortRoomId, Slot, Snapshot,
    schema::{self, Gap, Place, PlacedEvent},
};

use super::Span;
use crate::{PlaceToken, Room};

/// Gaps that are read with a stretch: the one at which it may begin, and the one at which it ends.
const GAPS: usize = 2;

/// The part of a timeline that is left to be read: places with `low < place <= high`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    low: Place,
    high: Place,
    direction: Direction,
}

impl Bounds {
    /// What a span names of a timeline that ends at `end`.
    pub(super) fn of(span: &Span, end: Place) -> Self {
        let (low, high) = match span.direction {
            Direction::Backward => (span.to.map(|to| to.0), Some(span.from.0)),
            Direction::Forward => (Some(span.from.0), span.to.map(|to| to.0)),
        };
        Self {
            low: low.unwrap_or(Place::START),
            high: high.unwrap_or(end).min(end),
            direction: span.direction,
        }
    }

    /// What is left after the event at `last`.
    pub(super) fn after(self, last: Place) -> Self {
        let PlaceToken(boundary) = self.beyond(last);
        match self.direction {
            Direction::Backward => Self {
                high: boundary,
                ..self
            },
            Direction::Forward => Self {
                low: boundary,
                ..self
            },
        }
    }

    /// The boundary beyond an event.
    pub(super) fn beyond(&self, event: Place) -> PlaceToken {
        match self.direction {
            Direction::Backward => PlaceToken::before(event),
            Direction::Forward => PlaceToken(event),
        }
    }

    /// The boundary at which reading goes on.
    pub(super) fn begin(&self) -> PlaceToken {
        PlaceToken(match self.direction {
            Direction::Backward => self.high,
            Direction::Forward => self.low,
        })
    }
}

/// Placed events in the order in which they are read.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) placed: Vec<(Place, PlacedEvent)>,
    /// Nothing more lies between its bounds, or a gap does.
    pub(super) is_last: bool,
    /// The gap at which it ends.
    pub(super) gap: Option<Place>,
}

type Rows<V> = Slot<Vec<((ShortRoomId, Place), Found<V>)>>;

/// Where the answers will be that a [`Stretch`] is made of.
pub(super) struct AskedStretch {
    placed: Rows<PlacedEvent>,
    gaps: Rows<Gap>,
    direction: Direction,
    limit: usize,
}

impl Stretch {
    /// Makes a stretch of the answers.
    pub(super) fn of(answers: &Answers, asked: &AskedStretch) -> error::Result<Self> {
        let placed = answers.rows(&asked.placed)?;
        let placed: Vec<_> = placed
            .into_iter()
            .map(|((_, place), row)| (place, row.value))
            .collect();
        let gaps = answers.rows(&asked.gaps)?;
        let gaps: Vec<_> = gaps.into_iter().map(|((_, place), _)| place).collect();
        Ok(Self::torn(placed, &gaps, asked.direction, asked.limit))
    }

    /// Ends what was read at the first gap.
    fn torn(
        mut placed: Vec<(Place, PlacedEvent)>,
        gaps: &[Place],
        direction: Direction,
        limit: usize,
    ) -> Self {
        let is_last = placed.len() < limit;
        let first = placed.first().map(|(place, _)| *place);
        let kept = |gap: Place| match direction {
            Direction::Backward => placed.partition_point(|(place, _)| *place >= gap),
            Direction::Forward => placed.partition_point(|(place, _)| *place < gap),
        };
        // Who reads on from before a gap has been told of it.
        let gap = gaps
            .iter()
            .copied()
            .find(|gap| direction == Direction::Backward || Some(*gap) != first);
        match gap.map(|gap| (gap, kept(gap))) {
            Some((gap, kept)) if is_last || kept < placed.len() => {
                placed.truncate(kept);
                Self {
                    placed,
                    is_last: true,
                    gap: Some(gap),
                }
            }
            _ => Self {
                placed,
                is_last,
                gap: None,
            },
        }
    }

    /// Whether nothing in it lies after `end`.
    pub(super) fn ends_by(&self, end: Place) -> bool {
        let within = |place: &Place| *place <= end;
        self.placed.iter().all(|(place, _)| within(place)) && self.gap.as_ref().is_none_or(within)
    }
}

impl Room {
    /// Asks for a stretch of at most `limit` events, among other things.
    pub(super) fn ask_stretch(
        &self,
        reads: &mut Reads,
        bounds: Bounds,
        limit: usize,
    ) -> AskedStretch {
        let range = || {
            let range = Range::prefix(&(self.short,))
                .after(&(self.short, bounds.low))
                .up_to(&(self.short, bounds.high));
            match bounds.direction {
                Direction::Backward => range.reverse(),
                Direction::Forward => range,
            }
        };
        AskedStretch {
            placed: reads.range(&schema::EVENT_BY_PLACE, &range().limit(limit)),
            gaps: reads.range(&schema::GAP_BY_PLACE, &range().limit(GAPS)),
            direction: bounds.direction,
            limit,
        }
    }

    /// Reads a stretch of at most `limit` events. One round trip.
    pub(super) async fn stretch(
        &self,
        snapshot: &Snapshot,
        bounds: Bounds,
        limit: usize,
    ) -> error::Result<Stretch> {
        let mut reads = Reads::new();
        let asked = self.ask_stretch(&mut reads, bounds, limit);
        let answers = snapshot.read(&reads).await?;
        Stretch::of(&answers, &asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(slots: &[u64]) -> Vec<(Place, PlacedEvent)> {
        let placed = PlacedEvent {
            number: pdu::EventNumber(1),
            totals: schema::Totals::default(),
            state: false,
            thread: None,
            root: None,
        };
        let all = slots.iter();
        all.map(|slot| (Place::live(*slot), placed)).collect()
    }

    fn torn(slots: &[u64], gaps: &[u64], direction: Direction, limit: usize) -> Stretch {
        let gaps: Vec<_> = gaps.iter().map(|slot| Place::live(*slot)).collect();
        Stretch::torn(places(slots), &gaps, direction, limit)
    }

    fn slots(stretch: &Stretch) -> Vec<u64> {
        let all = stretch.placed.iter();
        all.map(|(place, _)| place.slot).collect()
    }

    #[test]
    fn a_gap_ends_a_stretch_in_both_directions() {
        let back = torn(&[9, 8, 7, 6], &[7, 3], Direction::Backward, 4);
        assert_eq!(slots(&back), [9, 8, 7]);
        assert_eq!((back.gap, back.is_last), (Some(Place::live(7)), true));
        let on = torn(&[5, 6, 7, 8], &[7, 9], Direction::Forward, 4);
        assert_eq!(slots(&on), [5, 6]);
        assert_eq!((on.gap, on.is_last), (Some(Place::live(7)), true));
    }

    #[test]
    fn a_gap_is_crossed_from_its_own_boundary() {
        let on = torn(&[7, 8], &[7], Direction::Forward, 4);
        assert_eq!(slots(&on), [7, 8]);
        assert_eq!((on.gap, on.is_last), (None, true));
        let next = torn(&[7, 8, 9], &[7, 9], Direction::Forward, 3);
        assert_eq!(slots(&next), [7, 8]);
        assert_eq!(next.gap, Some(Place::live(9)));
    }

    #[test]
    fn a_gap_beyond_what_was_read_is_none_yet() {
        let back = torn(&[9, 8], &[3], Direction::Backward, 2);
        assert_eq!((back.gap, back.is_last), (None, false));
        // At the very beginning of what there is, it is.
        let back = torn(&[9, 8], &[8], Direction::Backward, 4);
        assert_eq!(slots(&back), [9, 8]);
        assert_eq!((back.gap, back.is_last), (Some(Place::live(8)), true));
    }
}
