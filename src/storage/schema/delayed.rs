//! The tables of delayed events (MSC4140). Rooms write them.

use serde::{Deserialize, Serialize};

use crate::{NameHash, ShortUserId, table::tables, value::records};

tables! { DELAYED_TABLES:
    /// An event that is to be sent later, or was to be, by the hash of its delay id.
    160 DELAYED_EVENT_BY_ID Point: NameHash => DelayedEventRow;
    /// Delayed events by when they are to be sent, in milliseconds since 1970; without those that are done with.
    161 DELAYED_EVENT_BY_TIME Log: (u64, NameHash) => ();
    /// A user's delayed events, those too that were done with lately.
    162 DELAYED_EVENTS_BY_USER Hot: ShortUserId => DelayedEventsRow;
}

/// An event that is to be sent later, or was to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEventRow {
    /// Its delay id.
    pub delay_id: String,
    /// Whose it is.
    pub user: ShortUserId,
    /// Their user id.
    pub user_id: String,
    /// Its room.
    pub room_id: String,
    /// Its type.
    pub event_type: String,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// Its content, as JSON.
    pub content: String,
    /// By how much it is delayed, in milliseconds.
    pub delay: u64,
    /// Since when, in milliseconds since 1970.
    pub since_ts: u64,
    /// When it is to be sent: under this time it stands in the queue.
    pub due_ts: u64,
    /// What became of it.
    pub finalised: Option<FinalisedRow>,
}

/// What became of a delayed event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalisedRow {
    /// When, in milliseconds since 1970.
    pub ts: u64,
    /// What.
    pub outcome: DelayedOutcome,
}

/// What can become of a delayed event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DelayedOutcome {
    /// It was sent, and is the event of this id.
    Sent(String),
    /// Somebody did not want it any more.
    Cancelled,
    /// It could not be sent when its time had come.
    Failed {
        /// The Matrix error.
        errcode: String,
        /// Its sentence.
        error: String,
    },
}

/// A user's delayed events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelayedEventsRow {
    /// The hashes of their delay ids.
    pub events: Vec<NameHash>,
}

records!(DelayedEventRow, DelayedEventsRow);
