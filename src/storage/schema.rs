//! The schema: every table, what its rows mean, who writes them.
//!
//! A table's number and its rows' types are the disk format. Names read `<value>_by_<key>`. Keys hold
//! short ids and keyed hashes, never names or text.

mod delayed;
mod directory;
mod event;
mod federation;
mod keys;
mod media;
mod moderation;
mod outbox;
mod place;
mod probe;
mod purge;
mod receiving;
mod rooms;
mod server;
mod subscriptions;
mod users;

pub use self::{
    delayed::*,
    directory::*,
    event::{EventHeader, EventRow, Sent, Visibility},
    federation::*,
    keys::*,
    media::*,
    moderation::*,
    outbox::*,
    place::Place,
    probe::*,
    purge::*,
    receiving::*,
    rooms::*,
    server::*,
    subscriptions::*,
    users::*,
};
use crate::table::TableInfo;

/// Tables whose rows never change once they are there, but for what we think of an event and what a redaction
/// takes away from one: whoever reads in an old view is served as well, or better, by a later one. What
/// rests on them being as they were has the room's head as its precondition.
pub const LASTING: [u8; 6] = [
    ROOM_BY_SHORT_ID.info.id,
    EVENT_BY_NUMBER.info.id,
    VERDICT_BY_EVENT.info.id,
    ROOTS_BY_EVENT.info.id,
    NODE_BY_HASH.info.id,
    CHAIN_BY_SET.info.id,
];

/// Every table with its types' names, in the order of their numbers.
pub fn tables() -> Vec<(TableInfo, &'static str, &'static str)> {
    let parts = [
        SERVER_TABLES,
        ROOM_TABLES,
        USER_TABLES,
        KEY_TABLES,
        MEDIA_TABLES,
        MODERATION_TABLES,
        OUTBOX_TABLES,
        DIRECTORY_TABLES,
        DELAYED_TABLES,
        SUBSCRIPTION_TABLES,
        FEDERATION_TABLES,
        PROBE_TABLES,
        PURGE_TABLES,
        RECEIVING_TABLES,
    ];
    let mut tables = parts.concat();
    tables.sort_by_key(|(info, ..)| info.id);
    tables
}
