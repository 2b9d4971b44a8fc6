//! The tables of what comes in from other servers. Rooms write them.

use serde::{Deserialize, Serialize};

use crate::{Position, ShortRoomId, table::tables, value::records};

tables! { RECEIVING_TABLES:
    /// Events of other servers that wait until what they follow is fetched, in the order in which they came.
    190 WAITING_PDU_BY_ROOM Log: (ShortRoomId, Position) => WaitingPduRow;
}

/// An event that waits until what it follows is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPduRow {
    /// The server that sent it.
    pub origin: String,
    /// The event, as it came.
    pub json: String,
}

records!(WaitingPduRow);
