//! The tables of what comes in from other servers. Rooms write them.

use pdu::EventNumber;
use serde::{Deserialize, Serialize};

use crate::{
    NameHash, Position, ShortRoomId,
    table::tables,
    value::{Sum, records},
};

tables! { RECEIVING_TABLES:
    /// Events of other servers that wait until what they follow is fetched, in the order in which they came.
    190 WAITING_PDU_BY_ROOM Log: (ShortRoomId, Position) => WaitingPduRow;
    /// Events that accepted ones follow though they were missing then, or not accepted themselves: when they
    /// come, or are judged again, they are no ends of the graph.
    191 FOLLOWED_BY_EVENT Point: (ShortRoomId, NameHash) => ();
    /// Of events that were rejected or soft-failed: the accepted ones that they follow, through others like them.
    192 ENDS_BEHIND_EVENT Point: (ShortRoomId, EventNumber) => EndsBehind;
    /// At how many events of a room a resolution lost state that nobody had contested.
    193 RESETS_BY_ROOM Sum: ShortRoomId => Sum;
}

/// The accepted events that one follows which was not accepted. It takes no ends away from the graph, but what
/// follows it does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndsBehind {
    /// Their numbers.
    pub events: Vec<EventNumber>,
}

/// An event that waits until what it follows is fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingPduRow {
    /// The server that sent it.
    pub origin: String,
    /// The event, as it came.
    pub json: String,
}

records!(WaitingPduRow, EndsBehind);
