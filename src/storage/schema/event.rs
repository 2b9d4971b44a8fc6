//! The row of an event.

use std::ops::Range;

use bytes::Bytes;
use pdu::EventNumber;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::{
    NameHash, Value,
    schema::Place,
    value::{HEADER, ValueError, strip_header},
};

/// An event: a small header, from which clients are served without parsing, and the PDU's canonical
/// JSON as other servers get it (without `unsigned`, and from room version 3 on without `event_id`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// What is known of the event without parsing it.
    pub header: EventHeader,
    /// The PDU; pruned if the event was redacted.
    pub json: Bytes,
}

/// What is known of an event without parsing its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventHeader {
    /// The event's id.
    pub event_id: String,
    /// Its place in the timeline; none for outliers, rejected and soft-failed events.
    pub place: Option<Place>,
    /// Who sent it.
    pub sender: String,
    /// Its type.
    pub event_type: String,
    /// Its state key, for state events.
    pub state_key: Option<String>,
    /// What its sender's server said the time was, in milliseconds since 1970.
    pub origin_server_ts: u64,
    /// When we stored it, in milliseconds since 1970.
    pub received_ts: u64,
    /// Its depth, as its server claimed it; only ever passed on, never trusted.
    pub depth: u64,
    /// Where its `content` lies within the JSON.
    pub content: Range<u32>,
    /// The numbers of its auth events, rising; room version 12's create event included.
    pub auth_events: SmallVec<[EventNumber; 6]>,
    /// Names its auth chain in `CHAIN_BY_SET`: the hash of the set of its auth events.
    pub chain: NameHash,
    /// For a state event: the one it took the place of.
    pub replaces_state: Option<EventNumber>,
    /// `m.room.history_visibility` in force at the event.
    pub visibility: Visibility,
    /// The root of the thread it belongs to, by its own relation or by that of what it relates to.
    pub thread: Option<EventNumber>,
    /// For an event of ours: who may see its transaction id. For one of another server that we tell the others:
    /// [`Sent::passed_on`].
    pub sent: Option<Sent>,
    /// What it redacts, if it is a redaction.
    pub redacts: Option<String>,
    /// The redaction that pruned it.
    pub redacted_because: Option<EventNumber>,
}

/// The device that sent an event, and the transaction id it gave to it; of an event that was delayed
/// (MSC4140) its sender and no device, and its delay id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The hash of user and device, or of the user and an empty text.
    pub device: NameHash,
    /// Shown to that device only, as `unsigned.transaction_id`; a delay id to its sender only, as `delay_id`.
    pub transaction_id: String,
}

impl Sent {
    /// Says of an event of another server that it came into the room through us: no device sent it.
    pub fn passed_on() -> Self {
        Self {
            device: NameHash::NONE,
            transaction_id: String::new(),
        }
    }
}

impl EventHeader {
    /// Whether the event is of another server, and came into the room through us.
    pub fn is_passed_on(&self) -> bool {
        let device = self.sent.as_ref().map(|sent| sent.device);
        device == Some(NameHash::NONE)
    }
}

/// A room's `m.room.history_visibility`; anything unknown counts as `shared`, as the spec says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Visibility {
    /// Anyone may read.
    WorldReadable,
    /// Members may read all that was sent since it was so, before they joined too.
    Shared,
    /// Members may read what was sent since they were invited.
    Invited,
    /// Members may read what was sent since they joined.
    Joined,
}

impl Value for EventRow {
    fn encode(&self) -> Vec<u8> {
        // Serializing plain data into a vector has no way to fail.
        let header = postcard::to_extend(&self.header, Vec::new()).unwrap_or_default();
        let len = u32::try_from(header.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(6 + header.len() + self.json.len());
        bytes.extend_from_slice(&HEADER);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&header);
        bytes.extend_from_slice(&self.json);
        bytes
    }

    fn decode(bytes: &Bytes) -> Result<Self, ValueError> {
        let damaged = ValueError::Damaged("an event's header does not fit");
        let bytes = strip_header(bytes)?;
        let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
            return Err(damaged);
        };
        let end = u32::from_le_bytes(*len) as usize;
        let Some(header) = rest.get(..end) else {
            return Err(damaged);
        };
        let header = postcard::from_bytes(header).map_err(|_| damaged)?;
        Ok(Self {
            header,
            json: bytes.slice(4 + end..),
        })
    }
}
