//! Rooms that nobody of this server may come into: those that an operator blocks, and those of which all rows
//! are being removed.

use http::StatusCode;
use ruma::{RoomId, UserId, events::TimelineEventType};
use serde::Deserialize;
use storage::{
    Batch, Reads,
    schema::{self, BlockedRoomRow},
};

use crate::{Draft, Rooms};

/// Whether somebody comes into a room by a draft, or is asked in.
pub(crate) fn comes_in(draft: &Draft) -> bool {
    #[derive(Deserialize)]
    struct Content {
        membership: String,
    }
    if draft.event_type != TimelineEventType::RoomMember || draft.state_key.is_none() {
        return false;
    }
    let content = serde_json::from_str::<Content>(draft.content.get());
    content.is_ok_and(|content| matches!(&*content.membership, "join" | "invite" | "knock"))
}

impl Rooms {
    /// Whether people of this server may come into a room, as far as this server has a say in it. One round trip.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the operator has blocked it, 503 `M_UNKNOWN` while it is being removed.
    pub async fn check_admitted(&self, room_id: &RoomId) -> error::Result<()> {
        let name = self.storage().room_hash(room_id);
        let mut reads = Reads::new();
        let blocked = reads.get(&schema::BLOCKED_ROOM_BY_NAME, &name);
        let purge = reads.get(&schema::PURGE_BY_NAME, &name);
        let answers = self.snapshot().await?.read(&reads).await?;
        if answers.one(&blocked)?.is_some() {
            return Err(error::forbidden(
                "This room has been blocked on this server",
            ));
        }
        if answers.one(&purge)?.is_some() {
            return Err(error::unknown(
                StatusCode::SERVICE_UNAVAILABLE,
                "This room is just being removed from this server; try again later",
            ));
        }
        Ok(())
    }

    /// Keeps people of this server out of a room, whether it is known here or not. Those who are in it stay.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn block(&self, room_id: &RoomId, by: &UserId) -> error::Result<()> {
        let row = BlockedRoomRow {
            room_id: room_id.to_string(),
            by: by.to_string(),
            since_ts: self.now(),
        };
        let name = self.storage().room_hash(room_id);
        let mut batch = Batch::new();
        batch.put(&schema::BLOCKED_ROOM_BY_NAME, &name, &row);
        self.storage().commit(batch).await?;
        Ok(())
    }

    /// Lets people of this server into a room again.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn unblock(&self, room_id: &RoomId) -> error::Result<()> {
        let name = self.storage().room_hash(room_id);
        let mut batch = Batch::new();
        batch.delete(&schema::BLOCKED_ROOM_BY_NAME, &name);
        self.storage().commit(batch).await?;
        Ok(())
    }

    /// Whether an operator has blocked a room, and who.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn find_block(&self, room_id: &RoomId) -> error::Result<Option<BlockedRoomRow>> {
        let name = [self.storage().room_hash(room_id)];
        let snapshot = self.snapshot().await?;
        let rows = snapshot
            .multi_get(&schema::BLOCKED_ROOM_BY_NAME, &name)
            .await?;
        Ok(rows.into_iter().flatten().next().map(|row| row.value))
    }
}
