//! Sending: groups of drafts into a room's writer.

use std::sync::Arc;

use pdu::RoomRules;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use storage::ShortRoomId;

use crate::{Group, Room, Rooms, draft::NewRoom, writer::RoomWriter};

/// Letters of a new room's id, before version 12.
const ROOM_ID_LETTERS: usize = 18;

impl Rooms {
    /// Sends drafts into a room, all or none. The ids of the events, in order, once they are stored; for a
    /// state event that says what is there already, the id of that.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room's rules do not allow one of them, 400 `M_BAD_JSON` or 413
    /// `M_TOO_LARGE` if one cannot be an event, 404 `M_NOT_FOUND` for a redaction of nothing we know.
    pub async fn send(&self, room: &Arc<Room>, group: Group) -> error::Result<Vec<OwnedEventId>> {
        self.writer(room).submit(self, group).await
    }

    /// Makes a room of its first events, `m.room.create` first, and sends them all in one commit. The
    /// room's id.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`].
    pub async fn send_first(
        &self,
        rules: &'static RoomRules,
        mut group: Group,
    ) -> error::Result<OwnedRoomId> {
        let mut short = [0; 8];
        self.parts().random.fill(&mut short);
        let short = ShortRoomId(short);
        let letters = self.parts().random.letters(ROOM_ID_LETTERS);
        // In versions whose rooms are named by their first event nobody reads this one.
        let room_id =
            RoomId::parse(format!("!{letters}:{}", self.server_name())).map_err(error::internal)?;
        let room = Arc::new(Room::new(self.storage(), short, room_id.clone(), rules));
        group.create = Some(NewRoom { short, rules });
        let writer = Arc::new(RoomWriter::new(room));
        let ids = writer.submit(self, group).await?;
        if !rules.room_id_is_create_event_id() {
            return Ok(room_id);
        }
        let create = ids
            .first()
            .ok_or_else(|| error::internal("a room without a first event"))?;
        let hash = create.as_str().trim_start_matches('$');
        RoomId::parse(format!("!{hash}")).map_err(error::internal)
    }
}
