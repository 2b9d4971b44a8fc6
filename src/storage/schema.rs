//! The schema: every table, what its rows mean, who writes them.
//!
//! A table's number and its rows' types are the disk format. Names read `<value>_by_<key>`. Keys hold
//! short ids and keyed hashes, never names or text.

mod directory;
mod event;
mod keys;
mod media;
mod moderation;
mod place;
mod probe;
mod rooms;
mod server;
mod users;

pub use self::{
    directory::*,
    event::{EventHeader, EventRow, Sent, Visibility},
    keys::*,
    media::*,
    moderation::*,
    place::Place,
    probe::*,
    rooms::*,
    server::*,
    users::*,
};
use crate::table::TableInfo;

/// Every table with its types' names, in the order of their numbers.
pub fn tables() -> Vec<(TableInfo, &'static str, &'static str)> {
    let parts = [
        SERVER_TABLES,
        ROOM_TABLES,
        USER_TABLES,
        KEY_TABLES,
        MEDIA_TABLES,
        MODERATION_TABLES,
        DIRECTORY_TABLES,
        PROBE_TABLES,
    ];
    let mut tables = parts.concat();
    tables.sort_by_key(|(info, ..)| info.id);
    tables
}
