//! The tables of what operators and moderators do about people.

use serde::{Deserialize, Serialize};

use crate::{ShortRoomId, ShortUserId, table::tables, value::records};

tables! { MODERATION_TABLES:
    /// How often a user may do things, if not as often as others. Users write it.
    150 LIMIT_BY_USER Point: ShortUserId => LimitRow;
    /// What people reported, by kind and number; at most so many of a kind, the latest. Rooms write it.
    151 REPORT_BY_NUMBER Range: (u8, u64) => ReportRow;
    /// The last number that a report of a kind was given.
    152 LAST_REPORT_BY_KIND Hot: u8 => u64;
    /// The room in which the server talks to a user. Rooms write it.
    153 NOTICES_ROOM_BY_USER Point: ShortUserId => ShortRoomId;
}

/// How often a user may do things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRow {
    /// How often they may send messages, as in the settings; if none, nothing of theirs is limited.
    pub message: Option<String>,
}

/// What somebody reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// Who reported it.
    pub reporter: String,
    /// Why.
    pub reason: Option<String>,
    /// When, in milliseconds since 1970.
    pub received_ts: u64,
    /// The room that was reported, or that the event is in.
    pub room_id: Option<String>,
    /// The event that was reported.
    pub event_id: Option<String>,
    /// The user that was reported, or the sender of the event.
    pub user_id: Option<String>,
}

records!(LimitRow, ReportRow);
