//! A room: what never changes of it.

use pdu::{RoomRules, tree::HashKey};
use ruma::{OwnedRoomId, RoomId};
use storage::{
    ShortRoomId, Storage,
    schema::{self, RoomRow},
};

use crate::Rooms;

/// A room that this server knows: what never changes of it.
#[derive(Clone, Debug)]
pub struct Room {
    /// Its short id here.
    pub short: ShortRoomId,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// The rules of its version.
    pub rules: &'static RoomRules,
    /// The key of its state trees.
    pub(crate) tree_key: HashKey,
}

impl Room {
    pub(crate) fn new(
        storage: &Storage,
        short: ShortRoomId,
        room_id: OwnedRoomId,
        rules: &'static RoomRules,
    ) -> Self {
        let tree_key = HashKey::for_room(storage.hash_key(), short.0);
        Self {
            short,
            room_id,
            rules,
            tree_key,
        }
    }

    pub(crate) async fn find(rooms: &Rooms, room_id: &RoomId) -> error::Result<Option<Self>> {
        let storage = rooms.storage();
        let snapshot = rooms.snapshot().await?;
        let name = storage.room_hash(room_id);
        let short = snapshot
            .multi_get(&schema::ROOM_BY_NAME, &[name])
            .await?
            .pop()
            .flatten();
        let Some(short) = short.map(|found| found.value) else {
            return Ok(None);
        };
        let row = snapshot
            .multi_get(&schema::ROOM_BY_SHORT_ID, &[short])
            .await?
            .pop()
            .flatten();
        let Some(row) = row.map(|found| found.value) else {
            return Ok(None);
        };
        Self::from_row(storage, short, &row).map(Some)
    }

    /// Makes a room again of its row.
    pub(crate) fn from_row(
        storage: &Storage,
        short: ShortRoomId,
        row: &RoomRow,
    ) -> error::Result<Self> {
        let rules = RoomRules::named(&row.version).ok_or_else(|| {
            error::internal(format!(
                "a stored room has the unknown version {}",
                row.version
            ))
        })?;
        let room_id = RoomId::parse(&row.room_id).map_err(error::internal)?;
        Ok(Self::new(storage, short, room_id, rules))
    }
}
