//! The tables of the server itself.

use serde::{Deserialize, Serialize};

use crate::{
    NameHash, Position, ShortRoomId, Stamped, schema::Place, table::tables, value::records,
};

tables! { SERVER_TABLES:
    /// What the storage keeps about itself: format version, epoch, hash key, server name. Storage alone writes it.
    1 META_BY_NUMBER Point: u16 => Vec<u8>;
    /// The answer of an action that must not happen twice, by day and name; once keys of today and yesterday count.
    2 ONCE_BY_DAY Range: (u32, NameHash) => Stamped<OnceRow>;
    /// Work that was promised and is left to do, in idempotent steps.
    3 JOB_BY_ID Range: NameHash => JobRow;
    /// How far a follower of the stream has come; each writes its own, with its output.
    4 POSITION_BY_FOLLOWER Hot: NameHash => PositionRow;
    /// What happened in rooms, in order, for followers; every accepted event has one record. Rooms write it.
    5 STREAM_BY_POSITION Log: Position => StreamRecord;
    /// The keys with which this server signs or has signed. Federation writes them.
    6 SIGNING_KEY_BY_NUMBER Range: u32 => SigningKeyRow;
    /// Registration tokens, by the hash of the token. Users write them.
    7 REGISTRATION_TOKEN_BY_HASH Range: NameHash => RegistrationTokenRow;
}

/// What was answered to an action that must not happen twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceRow {
    /// The answer, in the form of who asked: an event id, for instance.
    pub answer: Vec<u8>,
}

/// Work that was promised and is left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRow {
    /// Who works it off.
    pub kind: String,
    /// What is left to do, in that worker's form.
    pub body: Vec<u8>,
    /// Not before this time, in milliseconds since 1970.
    pub not_before_ts: u64,
    /// How often it was tried.
    pub attempts: u32,
}

/// A position as a row of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionRow(pub Position);

/// One thing that happened in a room, for followers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// The room.
    pub room: ShortRoomId,
    /// The event.
    pub number: pdu::EventNumber,
    /// Its place, if it has one.
    pub place: Option<Place>,
    /// Found later than it happened: for the search index only.
    pub historic: bool,
    /// Made by this server, so to be told to others.
    pub local: bool,
    /// Servers to tell beyond those that are in the room after it.
    pub servers: Vec<String>,
}

/// A key pair of this server.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningKeyRow {
    /// `ed25519:…`
    pub key_id: String,
    /// The 32 bytes of the private key.
    pub secret: [u8; 32],
    /// When it stopped being used, in milliseconds since 1970.
    pub expired_ts: Option<u64>,
}

/// A token that lets people register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationTokenRow {
    /// How many accounts it is good for; any number if none.
    pub uses_allowed: Option<u32>,
    /// How many it has made.
    pub completed: u32,
    /// When it ends, in milliseconds since 1970.
    pub expires_ts: Option<u64>,
    /// Made at the first start, for the first account.
    pub first: bool,
}

records!(
    OnceRow,
    JobRow,
    PositionRow,
    StreamRecord,
    SigningKeyRow,
    RegistrationTokenRow
);
