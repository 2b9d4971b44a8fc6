//! The event nearest to a time, where our timeline has holes ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid

use std::{sync::Arc, time::Duration};

use federation::Patience;
use pdu::Pdu;
use ruma::{
    MilliSecondsSinceUnixEpoch, UInt,
    api::{Direction, federation::event::get_event_by_timestamp},
};
use storage::{
    Range, Reads, Snapshot,
    schema::{self, Place},
};

use super::Asking;
use crate::{Received, Room, Rooms, Standing};

/// Holes of a timeline that are looked at, the latest first.
const HOLES_MAX: usize = 100;
/// Where history is found in the middle of a hole, so many places are left for what lies behind it.
const SPACING: i32 = 1 << 20;

/// For an answer of one id, while somebody waits for it.
const ONE: Patience = Patience {
    time: Some(Duration::from_secs(10)),
    ..Patience::QUERY
};

/// A hole of a timeline.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// Before this place events are missing.
    at: Place,
    /// The place of the event before it, if there is one.
    behind: Option<Place>,
}

impl Rooms {
    /// Asks other servers for the event nearest to a time, if our timeline has holes in which it may lie, and
    /// takes it into the timeline with a hole on both sides. Whether one came that is nearer than `found`, the
    /// time of the nearest one here.
    ///
    /// # Errors
    ///
    /// Storage fails. That no server answers is no error.
    pub async fn fetch_nearest(
        &self,
        room: &Arc<Room>,
        time: u64,
        direction: Direction,
        found: Option<u64>,
    ) -> error::Result<bool> {
        let snapshot = self.snapshot().await?;
        let Some(hole) = room.hole_around(&snapshot, time).await? else {
            return Ok(false);
        };
        let asking = Asking::about(self, room, &[]).await?;
        let is_nearer = |other: u64| match direction {
            Direction::Backward => other <= time && found.is_none_or(|found| other > found),
            Direction::Forward => other >= time && found.is_none_or(|found| other < found),
        };
        for server in asking.servers() {
            let ts = MilliSecondsSinceUnixEpoch(UInt::new_saturating(time));
            let room_id = room.room_id.clone();
            let question = get_event_by_timestamp::v1::Request::new(room_id, ts, direction);
            let Some(answer) = asking.ask(server, question, ONE).await else {
                continue;
            };
            if !is_nearer(answer.origin_server_ts.get().into()) {
                continue;
            }
            let event = asking.fetch_event(&answer.event_id).await?;
            // It may be here as an outlier: what our join followed is.
            let event = asking
                .not_in_graph(event.into_iter().collect())
                .await?
                .pop();
            let Some(event) = event else { continue };
            if is_nearer(event.origin_server_ts().get().into())
                && asking.place_within(hole, &event).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Asking {
    /// Puts an event into the middle of a hole. Whether it is in the timeline.
    async fn place_within(&self, hole: Hole, event: &Arc<Pdu>) -> error::Result<bool> {
        let Some(place) = hole.middle() else {
            return Ok(false);
        };
        let standing = |state_before| Standing::Historic {
            place,
            fills: None,
            state_before,
        };
        let mut received = self.receive_with_auth(event, standing(None)).await?;
        if matches!(&received, Received::Missing { auth, .. } if auth.is_empty())
            && let Some(state) = self.fetch_state_before(event.event_id()).await?
        {
            received = self.receive_with_auth(event, standing(Some(state))).await?;
        }
        Ok(received == Received::Accepted)
    }
}

impl Hole {
    /// A place within it that leaves room on both sides; none if there is none left.
    fn middle(self) -> Option<Place> {
        let behind = self.behind.filter(|behind| behind.slot == self.at.slot);
        let step = match behind {
            Some(behind) => {
                let half = self.at.step.checked_sub(behind.step)? / 2;
                self.at
                    .step
                    .checked_sub(half.min(SPACING))
                    .filter(|_| half > 0)?
            }
            None => self.at.step.checked_sub(SPACING)?,
        };
        Some(Place { step, ..self.at })
    }
}

impl Room {
    /// The hole in which an event of a time would lie: the earliest one that is followed by an event of that
    /// time or a later one, or else the latest of all. Three round trips where there are holes.
    async fn hole_around(&self, snapshot: &Snapshot, time: u64) -> error::Result<Option<Hole>> {
        let ranges = [Range::prefix(&(self.short,)).reverse().limit(HOLES_MAX)];
        let rows = snapshot.multi_range(&schema::GAP_BY_PLACE, &ranges).await?;
        let rows = rows.into_iter().flatten();
        let places: Vec<_> = rows.map(|((_, place), _)| place).collect();
        if places.is_empty() {
            return Ok(None);
        }
        let mut reads = Reads::new();
        let keys: Vec<_> = places.iter().map(|place| (self.short, *place)).collect();
        let own = reads.get_all(&schema::EVENT_BY_PLACE, &keys);
        let before: Vec<_> = keys
            .iter()
            .map(|key| {
                let range = Range::prefix(&(self.short,)).before(key).reverse().limit(1);
                reads.range(&schema::EVENT_BY_PLACE, &range)
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut holes = Vec::new();
        for ((at, own), before) in places.iter().zip(answers.all(&own)?).zip(&before) {
            let behind = answers.rows(before)?.into_iter().next();
            let behind = behind.map(|((_, place), _)| place);
            let Some(own) = own else { continue };
            holes.push((own.value.number, Hole { at: *at, behind }));
        }
        let numbers: Vec<_> = holes.iter().map(|(number, _)| *number).collect();
        let events = self.stored_events(snapshot, &numbers).await?;
        let later = holes.iter().zip(&events).rev();
        let later = later.filter(|(_, event)| event.header.origin_server_ts >= time);
        let first = later.map(|((_, hole), _)| *hole).next();
        Ok(first.or(holes.first().map(|(_, hole)| *hole)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_in_a_hole_leaves_room_on_both_sides() {
        let at = Place::live(7);
        let step = |step| Place { step, ..at };
        let middle = |behind| Hole { at, behind }.middle();
        assert_eq!(middle(None), Some(step(-SPACING)));
        assert_eq!(middle(Some(Place::live(6))), Some(step(-SPACING)));
        assert_eq!(middle(Some(step(-SPACING))), Some(step(-SPACING / 2)));
        assert_eq!(middle(Some(step(-2))), Some(step(-1)));
        assert_eq!(middle(Some(step(-1))), None);
        let lowest = Hole {
            at: step(i32::MIN),
            behind: None,
        };
        assert_eq!(lowest.middle(), None);
    }
}
