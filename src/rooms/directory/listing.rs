//! A room's row in the directory, on its way through the commits that change it.

use bytes::Bytes;
use pdu::canonical;
use ruma::events::StateEventType;
use storage::{
    Batch, Found, ShortRoomId, Value,
    schema::{self, DirectoryRow},
};

use crate::{guests, writer::Entry};

/// A room's row in the directory: as it is stored, and as it is to be.
#[derive(Debug)]
pub(crate) struct Listing {
    raw: Option<Bytes>,
    stored: Option<DirectoryRow>,
    now: Option<DirectoryRow>,
    /// Something changed of which the row would have to tell.
    touched: bool,
}

impl Listing {
    /// The row as it was found.
    pub(crate) fn found(row: Option<Found<DirectoryRow>>) -> Self {
        let stored = row.as_ref().map(|row| row.value.clone());
        Self {
            raw: row.map(|row| row.raw),
            now: stored.clone(),
            stored,
            touched: false,
        }
    }

    /// That of a room which is about to be made.
    pub(crate) fn of_new_room(public: bool) -> Self {
        Self {
            raw: None,
            stored: None,
            now: public.then(DirectoryRow::default),
            touched: false,
        }
    }

    /// Whether the room is in the directory.
    pub(super) fn is_public(&self) -> bool {
        self.now.is_some()
    }

    /// Puts this row in the place of the one that was there.
    pub(super) fn set(&mut self, row: Option<DirectoryRow>) {
        self.now = row;
        self.touched = true;
    }

    /// Takes the room out of the directory.
    pub(crate) fn withdraw(&mut self) {
        self.set(None);
    }

    /// Takes note of what changes in the room's current state.
    pub(crate) fn see(&mut self, entries: &[Entry]) {
        for entry in entries {
            let (event_type, state_key) = &entry.key;
            self.touched |= *event_type == StateEventType::RoomMember;
            if state_key.is_empty() {
                let after = entry.after.as_ref();
                let content = after.map(|event| event.pdu.content_bytes());
                let mut nobody = DirectoryRow::default();
                let row = self.now.as_mut().unwrap_or(&mut nobody);
                self.touched |= show(row, event_type, content);
            }
        }
    }

    /// Puts the row into a batch if it changed, on the condition that it is stored as it was found: also that
    /// there is none, for whoever publishes the room looks at its state.
    pub(crate) fn write(&mut self, batch: &mut Batch, room: ShortRoomId, joined: u64) {
        if let Some(row) = &mut self.now {
            row.joined = joined;
        }
        if !self.touched && self.now == self.stored {
            return;
        }
        batch.expect_unchanged(&schema::DIRECTORY_BY_ROOM, &room, self.raw.as_ref());
        if self.now == self.stored {
            return;
        }
        match &self.now {
            Some(row) => batch.put(&schema::DIRECTORY_BY_ROOM, &room, row),
            None => batch.delete(&schema::DIRECTORY_BY_ROOM, &room),
        }
        let place = |row: &Option<DirectoryRow>| row.as_ref().and_then(DirectoryRow::place);
        let (old, new) = (place(&self.stored), place(&self.now));
        if old == new {
            return;
        }
        if let Some(old) = old {
            batch.delete(&schema::ROOM_BY_SIZE, &(old, room));
        }
        if let Some(new) = new {
            batch.put(&schema::ROOM_BY_SIZE, &(new, room), &());
        }
        let more = i64::from(new.is_some()) - i64::from(old.is_some());
        if more != 0 {
            batch.add(&schema::ROOM_COUNT_OF_DIRECTORY, &0, more);
        }
    }

    /// What was to be is stored now.
    pub(crate) fn committed(&mut self) {
        self.raw = self.now.as_ref().map(|row| row.encode().into());
        self.stored = self.now.clone();
        self.touched = false;
    }
}

/// Shows the content of a state event, or that there is none, in a row. Whether it is one of which the
/// directory shows something.
pub(crate) fn show(
    row: &mut DirectoryRow,
    event_type: &StateEventType,
    content: Option<&[u8]>,
) -> bool {
    let text = |key: &str| {
        let value = canonical::string(canonical::member(content?, key)?)?;
        Some(value.into_owned()).filter(|text| !text.is_empty())
    };
    match event_type {
        StateEventType::RoomCreate => row.room_type = text("type"),
        StateEventType::RoomName => row.name = text("name"),
        StateEventType::RoomTopic => row.topic = text("topic"),
        StateEventType::RoomCanonicalAlias => row.canonical_alias = text("alias"),
        StateEventType::RoomAvatar => row.avatar_url = text("url"),
        StateEventType::RoomJoinRules => row.join_rule = text("join_rule"),
        StateEventType::RoomGuestAccess => {
            row.guest_can_join = content.is_some_and(guests::can_join);
        }
        StateEventType::RoomHistoryVisibility => {
            let visibility = text("history_visibility");
            row.world_readable = visibility.as_deref() == Some("world_readable");
        }
        _ => return false,
    }
    true
}
