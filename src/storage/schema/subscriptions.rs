//! The tables of subscriptions to threads (MSC4306). Rooms write them.

use pdu::EventNumber;
use serde::{Deserialize, Serialize};

use crate::{ShortRoomId, ShortUserId, schema::Place, table::tables, value::records};

tables! { SUBSCRIPTION_TABLES:
    /// How a user stands to a thread, by its root; those too to which they are subscribed no more.
    163 SUBSCRIPTION_BY_USER Range: (ShortUserId, ShortRoomId, EventNumber) => SubscriptionRow;
    /// The threads of a user in the order in which their subscriptions last changed; each stands there once.
    164 SUBSCRIPTION_BY_STAMP Range: (ShortUserId, u64) => SubscriptionRef;
}

/// How a user stands to a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRow {
    /// The id of the thread's root.
    pub root: String,
    /// Its place in the order of changes: about the time in milliseconds since 1970, and greater than all before.
    pub stamp: u64,
    /// How.
    pub subscription: Subscription,
}

/// How a user stands to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Subscription {
    /// Subscribed by a choice of theirs.
    Manual,
    /// Subscribed by their client.
    Automatic,
    /// Not subscribed since then: this was the last place of the room's timeline.
    Ended(Place),
}

/// A thread of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionRef {
    /// The room.
    pub room: ShortRoomId,
    /// The root.
    pub root: EventNumber,
}

records!(SubscriptionRow, SubscriptionRef);
