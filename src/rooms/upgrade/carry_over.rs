//! What people keep of a room when they join the one that replaces it.

use std::{borrow::Cow, sync::Arc};

use futures_util::future::try_join_all;
use pdu::canonical;
use ruma::{OwnedRoomId, RoomId, events::StateEventType};
use serde::{Deserialize, Serialize};
use storage::{
    Batch, ShortUserId, Snapshot, Storage, Topic,
    schema::{self, JobRow},
};
use users::NamedRoom;

use crate::{Room, Rooms, StoredEvent};

/// The job of carrying over what somebody keeps of a room.
pub(crate) const CARRY_OVER: &str = "carry over";

/// The body of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CarryOver {
    user: ShortUserId,
    from: String,
    to: String,
}

/// The id of the room that a first event names as the one that was before.
fn predecessor_of(create: &StoredEvent) -> Option<String> {
    let named = canonical::member(create.pdu.content_bytes(), "predecessor")?;
    canonical::string(canonical::member(named, "room_id")?).map(Cow::into_owned)
}

/// Leaves the job for somebody who joins a room, if its first event names a room that was before it.
pub(crate) fn leave_carry_over(
    storage: &Storage,
    batch: &mut Batch,
    create: &StoredEvent,
    user: ShortUserId,
) {
    let Some(from) = predecessor_of(create) else {
        return;
    };
    let body = CarryOver {
        user,
        from,
        to: create.pdu.room_id().to_string(),
    };
    let id = [&user.0, body.to.as_bytes()].concat();
    let job = JobRow {
        kind: CARRY_OVER.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&body).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    batch.put(
        &schema::JOB_BY_ID,
        &storage.hash("carry over job", id),
        &job,
    );
    batch.wake(Topic::Jobs);
}

impl Rooms {
    /// The ids of the rooms that some rooms took the place of. Two round trips.
    pub async fn predecessors(
        &self,
        snapshot: &Snapshot,
        rooms: &[Arc<Room>],
    ) -> error::Result<Vec<OwnedRoomId>> {
        let key = [(StateEventType::RoomCreate, String::new())];
        let states = snapshot.gathered(async |snapshot| {
            let states = rooms
                .iter()
                .map(|room| room.current_state(self, &snapshot, &key));
            try_join_all(states).await
        });
        let creates = states
            .await?
            .into_iter()
            .flat_map(|(_, state)| state.into_values());
        Ok(creates
            .filter_map(|create| RoomId::parse(predecessor_of(&create)?).ok())
            .collect())
    }

    /// Works off a [`CARRY_OVER`].
    pub(crate) async fn carry_over(&self, row: &JobRow) -> error::Result<()> {
        let job: CarryOver = postcard::from_bytes(&row.body).map_err(error::internal)?;
        let (Ok(from), Ok(to)) = (RoomId::parse(&job.from), RoomId::parse(&job.to)) else {
            return Ok(());
        };
        let named = |room: &Room| NamedRoom {
            short: room.short,
            room_id: room.room_id.clone(),
        };
        // Only of rooms that they had to do with is there anything to carry over.
        let from = self.find_own_room(job.user, &from).await?;
        let to = self.find_own_room(job.user, &to).await?;
        let (Some(from), Some(to)) = (from, to) else {
            return Ok(());
        };
        users::carry_over(self.storage(), job.user, &named(&from), &named(&to)).await
    }
}
