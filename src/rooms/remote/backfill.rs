//! History of a room from before this server had it: holes in the timeline, filled when somebody reads there
//! ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events

use std::{collections::HashSet, sync::Arc, time::Duration};

use federation::Patience;
use pdu::Pdu;
use ruma::{EventId, OwnedEventId, api::federation::backfill::get_backfill};
use storage::{
    Batch, CommitError, Found, ShortRoomId, Snapshot,
    schema::{self, Gap, Place},
};

use super::{asking::Asking, sorted::reached};
use crate::{Incoming, Received, Room, Rooms, Standing};

/// Events that are asked for at once: more nobody tells.
const AT_ONCE: usize = 100;
/// Missing events from which history is asked for, at most.
const NAMED_MAX: usize = 20;
/// Events of one answer for which the state before them is asked, at most.
const STATES_MAX: usize = 5;

/// For a page of history, while somebody waits for it.
const PAGE: Patience = Patience {
    time: Some(Duration::from_secs(20)),
    bytes: 16 << 20,
    ..Patience::QUERY
};

/// Rooms whose history is being fetched, each by one at a time.
pub(crate) type Fetching = quick_cache::sync::Cache<ShortRoomId, Arc<tokio::sync::Mutex<()>>>;

impl Rooms {
    /// Fetches events that belong into a hole of a room's timeline, which is known by the
    /// [place](schema::GAP_BY_PLACE) before which they are missing. Whether the timeline is another one
    /// afterwards.
    ///
    /// # Errors
    ///
    /// Storage fails. That no server answers is no error.
    pub async fn backfill(&self, room: &Arc<Room>, at: Place) -> error::Result<bool> {
        let turn = self.fetching().get_or_insert_with(&room.short, || {
            Ok::<_, std::convert::Infallible>(Arc::default())
        });
        let turn = match turn {
            Ok(turn) => turn,
            Err(never) => match never {},
        };
        let _turn = turn.lock().await;
        let snapshot = self.snapshot().await?;
        let Some(gap) = room.gap_at(&snapshot, at).await? else {
            // Somebody else was here.
            return Ok(true);
        };
        let missing = room
            .not_in_graph(self, &snapshot, &gap.value.missing)
            .await?;
        if missing.is_empty() {
            return self.close_gap(room, at, &gap).await;
        }
        let asking = Asking::about(self, room, &[]).await?;
        asking.fill(at, &missing).await
    }

    /// Takes a hole away of which nothing is missing any more. Whether it is gone.
    async fn close_gap(&self, room: &Room, at: Place, gap: &Found<Gap>) -> error::Result<bool> {
        let key = (room.short, at);
        let mut batch = Batch::new();
        batch.expect_equals(&schema::GAP_BY_PLACE, &key, &gap.raw);
        batch.delete(&schema::GAP_BY_PLACE, &key);
        match self.storage().commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::Unknown) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Room {
    /// The hole in the timeline before a place, if there is one. One round trip.
    async fn gap_at(&self, snapshot: &Snapshot, at: Place) -> error::Result<Option<Found<Gap>>> {
        let keys = [(self.short, at)];
        let rows = snapshot.multi_get(&schema::GAP_BY_PLACE, &keys).await?;
        Ok(rows.into_iter().flatten().next())
    }

    /// Those of some events of which the states around them are not known. Two round trips.
    async fn not_in_graph(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        ids: &[String],
    ) -> error::Result<Vec<OwnedEventId>> {
        let names: Vec<_> = ids
            .iter()
            .map(|id| rooms.storage().event_hash(id))
            .collect();
        let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await?;
        let numbers = rows.into_iter().map(|row| {
            let row = row?.value;
            row.number.filter(|_| row.room == self.short)
        });
        let numbers: Vec<_> = numbers.collect();
        let keys: Vec<_> = numbers
            .iter()
            .flatten()
            .map(|one| (self.short, *one))
            .collect();
        let roots = snapshot.multi_get(&schema::ROOTS_BY_EVENT, &keys).await?;
        let mut roots = roots.into_iter().map(|row| row.is_some());
        let missing = ids.iter().zip(numbers).filter(|(_, number)| {
            let known = number.is_some() && roots.next().unwrap_or(false);
            !known
        });
        missing
            .map(|(id, _)| EventId::parse(id).map_err(error::internal))
            .collect()
    }
}

impl Asking {
    /// Fills a hole with what the first server tells that has something for it.
    async fn fill(&self, at: Place, missing: &[OwnedEventId]) -> error::Result<bool> {
        for server in self.servers() {
            let from: Vec<_> = missing.iter().take(NAMED_MAX).cloned().collect();
            let room = self.room.room_id.clone();
            let limit = u32::try_from(AT_ONCE).unwrap_or(u32::MAX).into();
            let question = get_backfill::v1::Request::new(room, from, limit);
            let Some(answer) = self.ask(server, question, PAGE).await else {
                continue;
            };
            let events = self.checked(answer.pdus, AT_ONCE).await?;
            // What lies behind events that are here already belongs into another hole.
            let events = self.not_in_graph(events).await?;
            let events = reached(missing, &events);
            if !events.is_empty() && self.place_in(at, &events).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Those of some events of which the states around them are not known here.
    pub(super) async fn not_in_graph(
        &self,
        mut events: Vec<Arc<Pdu>>,
    ) -> error::Result<Vec<Arc<Pdu>>> {
        let ids = events.iter().map(|one| one.event_id().to_string());
        let ids: Vec<_> = ids.collect();
        let snapshot = self.rooms.snapshot().await?;
        let new = self.room.not_in_graph(&self.rooms, &snapshot, &ids).await?;
        let new: HashSet<_> = new.into_iter().collect();
        events.retain(|event| new.contains(event.event_id()));
        Ok(events)
    }

    /// Puts events into a hole, earliest first, so that each finds the state that those before it leave
    /// behind. Whether any has come into the timeline.
    async fn place_in(&self, at: Place, events: &[Arc<Pdu>]) -> error::Result<bool> {
        let standing = |index: usize, state_before| {
            let back = i32::try_from(events.len() - index).unwrap_or(i32::MAX);
            let place = Place {
                step: at.step.saturating_sub(back),
                ..at
            };
            Standing::Historic {
                place,
                fills: Some(at),
                state_before,
            }
        };
        let all = events.iter().enumerate().map(|(index, event)| Incoming {
            pdu: Arc::clone(event),
            standing: standing(index, None),
        });
        let all = self.rooms.receive_all(&self.room, all.collect()).await?;
        let (mut states, mut placed) = (STATES_MAX, false);
        for ((index, event), mut received) in events.iter().enumerate().zip(all) {
            let standing = |state_before| standing(index, state_before);
            if let Received::Missing { .. } = received {
                received = self.receive_with_auth(event, standing(None)).await?;
            }
            if matches!(&received, Received::Missing { auth, .. } if auth.is_empty()) && states > 0
            {
                states -= 1;
                if let Some(state) = self.fetch_state_before(event.event_id()).await? {
                    received = self.receive_with_auth(event, standing(Some(state))).await?;
                }
            }
            placed |= received == Received::Accepted;
        }
        Ok(placed)
    }
}
