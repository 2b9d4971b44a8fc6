//! Members of a room, and rooms of a member.

use std::collections::BTreeSet;

use pdu::EventNumber;
use ruma::{OwnedRoomId, RoomId, UserId, events::StateEventType};
use storage::{
    Range, ShortRoomId, ShortUserId, Snapshot,
    schema::{self, MemberRow, Membership, UserRoomRow},
};

use crate::{Look, ReadEvent, Room, Rooms};

/// All memberships.
pub const MEMBERSHIPS: [Membership; 5] = [
    Membership::Join,
    Membership::Invite,
    Membership::Knock,
    Membership::Leave,
    Membership::Ban,
];

/// Rows of members that are read together.
const READ_AT_ONCE: usize = 2_000;

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

    /// Looks at the room's current members of a membership, some at a time: there may be very many.
    pub async fn each_member(
        &self,
        snapshot: &Snapshot,
        look: &Look,
        membership: Membership,
        mut each: impl FnMut(MemberRow),
    ) -> error::Result<()> {
        let all = Range::prefix(&(self.short, look.head.generation, membership as u8));
        let mut range = all.clone().limit(READ_AT_ONCE);
        loop {
            let ranges = [range];
            let rows = snapshot.multi_range(&schema::MEMBER_BY_ROOM, &ranges);
            let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
            let last = rows.last().filter(|_| rows.len() == READ_AT_ONCE);
            let rest = last.map(|(key, _)| all.clone().after(key).limit(READ_AT_ONCE));
            rows.into_iter().for_each(|(_, row)| each(row.value));
            match rest {
                Some(rest) => range = rest,
                None => return Ok(()),
            }
        }
    }

    /// The numbers of the events of a root's state, lowest first. The current state is read from the room's flat
    /// tables, any other one from the tree.
    pub async fn state_numbers_at(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        look: &Look,
        root: [u8; 16],
    ) -> error::Result<Vec<EventNumber>> {
        let mut numbers = if root == look.head.root {
            self.current_of_type(rooms, snapshot, look.head.generation, None)
                .await?
        } else {
            self.whole_state(snapshot, root).await?
        };
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The events of a root's state.
    pub async fn state_at(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        look: &Look,
        root: [u8; 16],
    ) -> error::Result<Vec<ReadEvent>> {
        let numbers = self.state_numbers_at(rooms, snapshot, look, root);
        self.read_state_events(snapshot, &numbers.await?).await
    }

    /// The events of a root's state without the member events, but those of `members`. Costs what the
    /// state differs from the current one, not what members there are.
    pub async fn state_with_members(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        look: &Look,
        root: [u8; 16],
        members: &BTreeSet<String>,
    ) -> error::Result<Vec<ReadEvent>> {
        let (head, current) = (&look.head, look.head.generation);
        let current = self
            .current_entries(rooms, snapshot, current, false)
            .await?;
        let mut numbers: BTreeSet<_> = current.into_iter().collect();
        for one in self.state_difference(snapshot, root, head.root).await? {
            if let Some(now) = one.right {
                numbers.remove(&now);
            }
            numbers.extend(one.left);
        }
        let keys: Vec<_> = members
            .iter()
            .map(|user| (StateEventType::RoomMember, user.clone()))
            .collect();
        let found = self.find_state(snapshot, &[root], &keys).await?;
        let wanted: BTreeSet<_> = found.into_values().collect();
        numbers.extend(&wanted);
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = self.read_state(snapshot, &numbers).await?;
        Ok(events
            .into_iter()
            .flatten()
            .filter(|event| !event.is_state("m.room.member") || wanted.contains(&event.number))
            .collect())
    }
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

    /// The rooms in which two people both are, in the order of their short ids. Three round trips.
    pub async fn mutual_rooms(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
        other: &UserId,
    ) -> error::Result<Vec<ShortRoomId>> {
        let own = self.rooms_of(snapshot, user).await?;
        let own: Vec<_> = own
            .into_iter()
            .filter(|(_, row)| row.value.membership == Membership::Join)
            .map(|(room, _)| room)
            .collect();
        let other = self.storage().user_hash(other);
        let keys: Vec<_> = self
            .generations(snapshot, &own)
            .await?
            .into_iter()
            .map(|(room, generation)| (room, generation, Membership::Join as u8, other))
            .collect();
        let rows = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
        Ok(keys
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| row.is_some())
            .map(|((room, ..), _)| room)
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
