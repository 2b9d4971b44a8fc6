//! The tables of the public room directory.

use serde::{Deserialize, Serialize};

use crate::{ShortRoomId, Sum, table::tables, value::records};

tables! { DIRECTORY_TABLES:
    /// Rooms published in the directory, with what it shows of them. The room's writer keeps them true.
    130 DIRECTORY_BY_ROOM Point: ShortRoomId => DirectoryRow;
    /// Published rooms that somebody could come into or look at, by how many members they lack to the greatest number there is.
    131 ROOM_BY_SIZE Range: (u64, ShortRoomId) => ();
    /// How many rows the directory has, under 0.
    132 ROOM_COUNT_OF_DIRECTORY Sum: u8 => Sum;
}

/// What the directory shows of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryRow {
    /// How many members are joined.
    pub joined: u64,
    /// `m.room.name`
    pub name: Option<String>,
    /// `m.room.topic`, as text.
    pub topic: Option<String>,
    /// The alias of `m.room.canonical_alias`.
    pub canonical_alias: Option<String>,
    /// The URL of `m.room.avatar`.
    pub avatar_url: Option<String>,
    /// `m.room.join_rules`
    pub join_rule: Option<String>,
    /// `type` of `m.room.create`.
    pub room_type: Option<String>,
    /// Whether `m.room.history_visibility` lets everybody read.
    pub world_readable: bool,
    /// Whether `m.room.guest_access` lets guests join.
    pub guest_can_join: bool,
}

impl DirectoryRow {
    /// The room's place in the list, greatest rooms first; none if nobody could join, knock or look.
    pub fn place(&self) -> Option<u64> {
        let open = matches!(
            self.join_rule.as_deref(),
            Some("public" | "knock" | "knock_restricted")
        );
        (self.joined > 0 && (open || self.world_readable)).then(|| u64::MAX - self.joined)
    }
}

records!(DirectoryRow);
