//! The tables of rooms that are taken away from this server. Rooms write them.

use serde::{Deserialize, Serialize};

use crate::{NameHash, table::tables, value::records};

tables! { PURGE_TABLES:
    /// Rooms of which all rows are being removed, by the hash of their id: until that is done nobody comes into them.
    210 PURGE_BY_NAME Point: NameHash => PurgeRow;
    /// Rooms that nobody of this server may come into, by the hash of their id.
    211 BLOCKED_ROOM_BY_NAME Point: NameHash => BlockedRoomRow;
}

/// A room of which all rows are being removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurgeRow {
    /// Since when, in milliseconds since 1970.
    pub since_ts: u64,
}

/// A room that nobody of this server may come into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedRoomRow {
    /// The room's id.
    pub room_id: String,
    /// Who decided so.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub since_ts: u64,
}

records!(PurgeRow, BlockedRoomRow);
