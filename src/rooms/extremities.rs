//! Forward extremities: where a room has many, an event that nobody sees ties them together.
//!
//! Each of them is another state to be resolved with every event. They come about where servers did not hear
//! of each other; any event that somebody here sends ends them. Where nobody does, the server does so in
//! the name of one of its people, as Synapse does: `org.matrix.dummy_event`, which clients are not shown.

use std::sync::Arc;

use pdu::MAX_PREV_EVENTS;
use ruma::{OwnedUserId, UserId};
use storage::{
    Batch, Range, ShortRoomId, Storage, Topic,
    schema::{self, Head, JobRow, Membership},
};

use crate::{Draft, Group, Room, Rooms, jobs::may_pass, membership::json_content};

/// The job of tying a room's forward extremities together.
pub(crate) const TIE_TOGETHER: &str = "tie together";

/// The event that does so.
pub(crate) const DUMMY_EVENT: &str = "org.matrix.dummy_event";

/// More forward extremities than this are tied together.
const EXTREMITIES_MAX: usize = 10;
/// People of ours in whose names it is tried.
const SENDERS_MAX: usize = 20;
/// Events that are sent for it at once; each ties [`MAX_PREV_EVENTS`] together.
const EVENTS_MAX: usize = 10;

/// Leaves the job, if a room has too many forward extremities.
pub(crate) fn leave_job(storage: &Storage, batch: &mut Batch, room: ShortRoomId, head: &Head) {
    if head.extremities.len() <= EXTREMITIES_MAX {
        return;
    }
    let job = JobRow {
        kind: TIE_TOGETHER.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&room).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    let id = storage.hash("extremities job", room.0);
    batch.put(&schema::JOB_BY_ID, &id, &job);
    batch.wake(Topic::Jobs);
}

impl Rooms {
    /// Works off a [`TIE_TOGETHER`]. Nothing is done if nobody of ours may send anything.
    pub(crate) async fn tie_together(&self, row: &JobRow) -> error::Result<()> {
        let short: ShortRoomId = postcard::from_bytes(&row.body).map_err(error::internal)?;
        let Some(room) = self.find_short(short).await? else {
            return Ok(());
        };
        let senders = self.some_of_ours(&room).await?;
        for _ in 0..EVENTS_MAX {
            let snapshot = self.snapshot().await?;
            let (head, _) = room.current_numbers(self, &snapshot, &[]).await?;
            if head.extremities.len() <= EXTREMITIES_MAX.min(MAX_PREV_EVENTS) {
                break;
            }
            if !self.send_dummy(&room, &senders).await? {
                tracing::info!(room = %room.room_id, "nobody may send what ties its extremities together");
                break;
            }
        }
        Ok(())
    }

    /// Sends the event in the name of the first who may. Whether anybody may.
    async fn send_dummy(&self, room: &Arc<Room>, senders: &[OwnedUserId]) -> error::Result<bool> {
        for sender in senders {
            let content = json_content(serde_json::Map::new())?;
            let draft = Draft::message(sender.clone(), DUMMY_EVENT, content);
            match self.send(room, Group::one(draft)).await {
                Ok(_) => return Ok(true),
                Err(error) if may_pass(&error) => return Err(error),
                Err(_) => {}
            }
        }
        Ok(false)
    }

    /// Some people of this server who are joined.
    async fn some_of_ours(&self, room: &Room) -> error::Result<Vec<OwnedUserId>> {
        let snapshot = self.snapshot().await?;
        let (head, _) = room.current_numbers(self, &snapshot, &[]).await?;
        let own = self.storage().server_hash(self.server_name());
        let prefix = (room.short, head.generation, own);
        let ranges = [Range::prefix(&prefix).limit(SENDERS_MAX * 10)];
        let rows = snapshot.multi_range(&schema::MEMBER_BY_SERVER, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let keys: Vec<_> = rows
            .map(|((room, generation, _, user), _)| {
                (room, generation, Membership::Join as u8, user)
            })
            .collect();
        let rows = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
        let users = rows.into_iter().flatten();
        let users = users.filter_map(|row| UserId::parse(&row.value.user_id).ok());
        Ok(users.take(SENDERS_MAX).collect())
    }
}
