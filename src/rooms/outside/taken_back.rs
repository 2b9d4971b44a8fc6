//! Member events of rooms in which this server is not, by which an invite is taken back or a knock refused.
//!
//! Nothing here can say whether the room allows them. So an invite is taken back only by who sent it, and a
//! knock is refused only by people of servers that the knock's answer has shown to be in the room.

use pdu::Pdu;
use ruma::{UserId, events::TimelineEventType};
use storage::schema::{Membership, UserRoomRow};

use super::{Outside, seen::servers_of};
use crate::{Rooms, event::MemberContent, format::ending};

impl Rooms {
    /// Takes note of an event of a room in which we are not, whose form, signatures and hash are checked.
    /// Whether it concerned somebody.
    pub async fn hear_from_outside(&self, pdu: &Pdu) -> error::Result<bool> {
        if *pdu.event_type() != TimelineEventType::RoomMember {
            return Ok(false);
        }
        let new = match MemberContent::of(pdu).membership {
            Some(new @ (Membership::Leave | Membership::Ban)) => new,
            _ => return Ok(false),
        };
        let user = pdu.state_key().and_then(|user| UserId::parse(user).ok());
        let Some(user) = user.filter(|user| user.server_name() == self.server_name()) else {
            return Ok(false);
        };
        let Some(room) = self.find_room(pdu.room_id()).await? else {
            return Ok(false);
        };
        let Some(short) = self.find_account(&user).await? else {
            return Ok(false);
        };
        let time = u64::from(pdu.origin_server_ts().get());
        let event = ending(pdu.event_id(), pdu.sender(), &user, time, &pdu.content());
        let change = |row: Option<&UserRoomRow>| {
            row.filter(|row| may_end(row, pdu)).map(|_| Outside {
                membership: new,
                sender: pdu.sender().to_string(),
                stripped_state: vec![event.clone()],
            })
        };
        self.set_outside(&room, short, change).await
    }
}

/// Whether the sender of an event may end what somebody is to a room.
fn may_end(row: &UserRoomRow, pdu: &Pdu) -> bool {
    match row.membership {
        Membership::Invite => row.sender == pdu.sender().as_str(),
        Membership::Knock => servers_of(&row.stripped_state).contains(pdu.sender().server_name()),
        Membership::Join | Membership::Leave | Membership::Ban => false,
    }
}
