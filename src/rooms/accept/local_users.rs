//! What a room's event changes for people of this server: their list of rooms, their unread counts.

use ruma::{UserId, events::StateEventType};
use storage::{
    Position, Topic,
    schema::{self, Membership, Place, ReadRow, ReadScope, UserChange, UserRoomRow},
};

use super::Writing;
use crate::{StoredEvent, format::stripped, upgrade::leave_carry_over, writer::STRIPPED_STATE};

impl Writing<'_> {
    /// A changed membership of a person of ours.
    pub(super) fn local_member(
        &mut self,
        user: &UserId,
        event: &StoredEvent,
        old: Option<Membership>,
        new: Option<Membership>,
    ) {
        let Some(local) = self.working.users.get(user).copied().flatten() else {
            return;
        };
        let Some(membership) = new else { return };
        let short = self.short();
        let stripped_state = match membership {
            Membership::Invite | Membership::Knock => self.stripped_state(event),
            _ => Vec::new(),
        };
        let row = UserRoomRow {
            membership,
            number: Some(event.number),
            sender: event.header.sender.clone(),
            place: event.header.place,
            stripped_state,
            forgotten: false,
        };
        let joined = membership == Membership::Join;
        if joined != (old == Some(Membership::Join)) {
            self.working.moved.push((local.short, joined));
        }
        let key = (local.short, short);
        self.batch
            .put_stamped(&schema::ROOM_BY_USER, &key, self.index, row);
        if joined && old != Some(Membership::Join) {
            let read = ReadRow {
                place: event.header.place.unwrap_or_default(),
                totals: self.working.head.totals,
            };
            let key = (local.short, short, ReadScope::Room);
            self.batch.put(&schema::READ_BY_USER_ROOM, &key, &read);
            if let Some(create) = self.working.current(&StateEventType::RoomCreate, "") {
                leave_carry_over(self.storage, self.batch, create, local.short);
            }
        }
        let change_key = (local.short, Position::pending(self.index));
        self.batch.put(
            &schema::CHANGE_BY_USER_POSITION,
            &change_key,
            &UserChange::Room(short),
        );
        self.batch
            .put_stamped(&schema::TAIL_BY_USER, &local.short, self.index, ());
        self.batch.wake(Topic::User(local.short));
    }

    /// Who sends something has read up to it, in its thread or in the main timeline ([spec]). Not to be
    /// called for state that notifies nobody: a new display name is written to rooms that nobody looked
    /// at.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#marking-notifications-as-read
    pub(super) fn sender_has_read(&mut self, event: &StoredEvent, place: Place) {
        let Some(sender) = self
            .working
            .users
            .get(event.pdu.sender())
            .copied()
            .flatten()
        else {
            return;
        };
        let scope = event
            .header
            .thread
            .map_or(ReadScope::Main, ReadScope::Thread);
        let read = ReadRow {
            place,
            totals: self.working.head.totals,
        };
        let key = (sender.short, self.short(), scope);
        self.batch.put(&schema::READ_BY_USER_ROOM, &key, &read);
    }

    /// What somebody who is invited or knocks sees of the room, their own member event last.
    fn stripped_state(&self, event: &StoredEvent) -> Vec<String> {
        let mut seen: Vec<_> = STRIPPED_STATE
            .iter()
            .filter_map(|event_type| self.working.current(event_type, ""))
            .map(|event| stripped(&event.pdu))
            .collect();
        let sender = self
            .working
            .current(&StateEventType::RoomMember, &event.header.sender);
        seen.extend(
            sender
                .filter(|sender| sender.number != event.number)
                .map(|sender| stripped(&sender.pdu)),
        );
        seen.push(stripped(&event.pdu));
        seen
    }
}
