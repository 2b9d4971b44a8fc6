//! Members of a room, and rooms of a member.

use pdu::EventNumber;
use ruma::{OwnedRoomId, RoomId};
use storage::{
    Range, ShortRoomId, ShortUserId, Snapshot,
    schema::{self, MemberRow, Membership, UserRoomRow},
};

use crate::{Look, ReadEvent, Room, Rooms, viewer::membership_in};

/// All memberships.
pub const MEMBERSHIPS: [Membership; 5] = [
    Membership::Join,
    Membership::Invite,
    Membership::Knock,
    Membership::Leave,
    Membership::Ban,
];

impl Room {
    /// The room's current members of some memberships.
    pub async fn members(
        &self,
        snapshot: &Snapshot,
        look: &Look,
        memberships: &[Membership],
    ) -> error::Result<Vec<MemberRow>> {
        let ranges: Vec<_> = memberships
            .iter()
            .map(|membership| Range::prefix(&(self.short, look.head.generation, *membership as u8)))
            .collect();
        let rows = snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &ranges)
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value)
            .collect())
    }

    /// The events of a root's state, of one type if one is named.
    pub async fn state_at(
        &self,
        snapshot: &Snapshot,
        root: [u8; 16],
        event_type: Option<&str>,
    ) -> error::Result<Vec<ReadEvent>> {
        let mut numbers: Vec<EventNumber> = self.whole_state(snapshot, root).await?;
        numbers.sort_unstable();
        let events = self.read_events(snapshot, &numbers).await?;
        Ok(events
            .into_iter()
            .flatten()
            .filter(|event| event_type.is_none_or(|wanted| event.is_state(wanted)))
            .collect())
    }
}

/// The membership that a member event says.
pub fn membership_of(event: &ReadEvent) -> Option<Membership> {
    membership_in(&event.row)
}

impl Rooms {
    /// A user's rooms, those they left and did not forget too.
    pub async fn rooms_of(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
    ) -> error::Result<Vec<(ShortRoomId, storage::Stamped<UserRoomRow>)>> {
        let rows = snapshot
            .multi_range(&schema::ROOM_BY_USER, &[Range::prefix(&(user,))])
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|((_, room), row)| (room, row.value))
            .filter(|(_, row)| !row.value.forgotten)
            .collect())
    }

    /// The ids of the rooms that a user is joined to.
    pub async fn joined_rooms(&self, user: ShortUserId) -> error::Result<Vec<OwnedRoomId>> {
        let snapshot = self.snapshot().await?;
        let rooms = self.rooms_of(&snapshot, user).await?;
        let joined: Vec<_> = rooms
            .into_iter()
            .filter(|(_, row)| row.value.membership == Membership::Join)
            .map(|(room, _)| room)
            .collect();
        let rows = snapshot
            .multi_get(&schema::ROOM_BY_SHORT_ID, &joined)
            .await?;
        rows.into_iter()
            .flatten()
            .map(|row| RoomId::parse(&row.value.room_id).map_err(error::internal))
            .collect()
    }
}
