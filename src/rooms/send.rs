//! Sending: groups of drafts into a room's writer.

use std::sync::Arc;

use pdu::RoomRules;
use ruma::{OwnedEventId, OwnedRoomId, RoomId};
use storage::ShortRoomId;

use crate::{
    Group, Room, Rooms,
    blocked::comes_in,
    draft::NewRoom,
    invites::invited,
    remote::invitee_of,
    writer::{RoomWriter, Submitted},
};

/// Letters of a new room's id, before version 12.
const ROOM_ID_LETTERS: usize = 18;

impl Rooms {
    /// Sends drafts into a room, all or none. The ids of the events, in order, once they are stored; for a
    /// state event that says what is there already, the id of that.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room's rules do not allow one of them, 403 `M_INVITE_BLOCKED` if one is an
    /// invite that its invitee does not want, 400 `M_BAD_JSON` or 413
    /// `M_TOO_LARGE` if one cannot be an event, 404 `M_NOT_FOUND` for a redaction of nothing we know; as
    /// [`Rooms::invite_far`] for an invite of somebody of another server, as
    /// [`Rooms::fetch_policy_signature`] in a room with a policy server, and as [`Rooms::check_admitted`] for a
    /// membership by which somebody comes in.
    pub async fn send(&self, room: &Arc<Room>, group: Group) -> error::Result<Vec<OwnedEventId>> {
        if group.drafts.iter().any(comes_in) {
            self.check_admitted(&room.room_id).await?;
        }
        let invites = group.drafts.iter().filter_map(invited);
        self.check_invites(invites).await?;
        if let [draft] = group.drafts.as_slice()
            && invitee_of(self, draft).is_some()
        {
            return Ok(vec![self.invite_far(room, group).await?]);
        }
        match self.writer(room).submit(self, group).await? {
            Submitted::Sent(ids) => Ok(ids),
            Submitted::ToSign(to_sign) => Box::pin(self.send_signed(room, *to_sign)).await,
        }
    }

    /// What a new room of these rules is called until its first event is made; `public` if it is to be in
    /// the directory.
    pub(crate) fn new_room(
        &self,
        rules: &'static RoomRules,
        public: bool,
    ) -> error::Result<NewRoom> {
        let mut short = [0; 8];
        self.parts().random.fill(&mut short);
        let letters = self.parts().random.letters(ROOM_ID_LETTERS);
        let room_id =
            RoomId::parse(format!("!{letters}:{}", self.server_name())).map_err(error::internal)?;
        Ok(NewRoom {
            short: ShortRoomId(short),
            rules,
            room_id,
            public,
        })
    }

    /// Makes a room of its first events, `m.room.create` first, and sends them all in one commit. The
    /// room's id.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`].
    pub(crate) async fn send_first(
        &self,
        new: NewRoom,
        mut group: Group,
    ) -> error::Result<OwnedRoomId> {
        let room_id = new.room_id.clone();
        let room = Arc::new(Room::new(self.storage(), new.short, room_id, new.rules));
        group.create = Some(new.clone());
        let writer = Arc::new(RoomWriter::new(room));
        let Submitted::Sent(ids) = writer.submit(self, group).await? else {
            return Err(error::internal("a new room has a policy server"));
        };
        new.room_id(&ids)
            .ok_or_else(|| error::internal("a room without a first event"))
    }
}
