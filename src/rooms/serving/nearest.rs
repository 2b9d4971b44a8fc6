//! The event nearest to a time, for another server.

use ruma::api::Direction;
use storage::{
    Range,
    schema::{self, Place},
};

use super::Serving;

/// Events that are looked at together.
const AT_ONCE: usize = 100;
/// Events that are looked at in all, at most.
const LOOKED_AT_MAX: usize = 2_000;

impl Serving {
    /// The id and the time of the event nearest to a time, at it or farther on in a direction, that the server
    /// may see; none if there is none among those that are looked at
    /// ([`GET /timestamp_to_event/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid)).
    pub async fn nearest_in_time(
        &self,
        time: u64,
        direction: Direction,
    ) -> error::Result<Option<(String, u64)>> {
        let short = self.room.short;
        let all = Range::prefix(&(short,)).limit(AT_ONCE);
        let mut range = match direction {
            Direction::Backward => all.up_to(&(short, time, Place::END)).reverse(),
            Direction::Forward => all.from(&(short, time, Place::START)),
        };
        let mut looked_at = 0;
        while looked_at < LOOKED_AT_MAX {
            let ranges = [range.clone()];
            let rows = self.snapshot.multi_range(&schema::EVENT_BY_TIME, &ranges);
            let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
            let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value).collect();
            let mut events = self.room.graph_by_number(&self.snapshot, &numbers).await?;
            let events = numbers.iter().filter_map(|number| events.remove(number));
            let events: Vec<_> = events.collect();
            let seen = self.may_see(&events).await?;
            if let Some((event, _)) = events.iter().zip(seen).find(|(_, seen)| *seen) {
                let header = &event.event.header;
                return Ok(Some((header.event_id.clone(), header.origin_server_ts)));
            }
            let Some((last, _)) = rows.last().filter(|_| rows.len() == AT_ONCE) else {
                return Ok(None);
            };
            range = match direction {
                Direction::Backward => range.before(last),
                Direction::Forward => range.after(last),
            };
            looked_at += rows.len();
        }
        Ok(None)
    }
}
