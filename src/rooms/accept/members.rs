//! Members: the flat tables of a room, and how many there are.

use std::sync::Arc;

use ruma::{OwnedServerName, UserId, events::StateEventType};
use storage::{
    NameHash,
    schema::{self, MemberRow, Membership, RemoteRoomRow},
};

use super::Writing;
use crate::{
    StoredEvent,
    presence::far_away,
    writer::{Entry, Judged},
};

impl Writing<'_> {
    /// A changed member of the current state.
    pub(super) fn member(&mut self, entry: &Entry) {
        let Ok(user) = UserId::parse(&entry.key.1) else {
            return;
        };
        let before = entry.before.as_ref().map(|event| event.member());
        let after = entry.after.as_ref().map(|event| event.member());
        let old = before.as_ref().and_then(|member| member.membership);
        let new = after.as_ref().and_then(|member| member.membership);
        let (short, generation) = (self.short(), self.working.head.generation);
        let user_hash = self.storage.user_hash(&user);
        let key = |membership: Membership| (short, generation, membership as u8, user_hash);
        if let Some(old) = old
            && Some(old) != new
        {
            self.batch.delete(&schema::MEMBER_BY_ROOM, &key(old));
        }
        if let (Some(membership), Some(event), Some(content)) = (new, &entry.after, after) {
            let row = MemberRow {
                number: event.number,
                user_id: user.to_string(),
                displayname: content.displayname,
                avatar_url: content.avatar_url,
            };
            self.batch
                .put(&schema::MEMBER_BY_ROOM, &key(membership), &row);
            let server = self.storage.server_hash(user.server_name());
            let server_key = (short, generation, server, user_hash);
            self.batch
                .put(&schema::MEMBER_BY_SERVER, &server_key, &event.number);
        }
        self.remote_member(&user, old, new);
        self.count_members(user.server_name().to_owned(), old, new);
        if let Some(event) = &entry.after {
            self.local_member(&user, event, old, new);
        }
    }

    /// A changed membership of a person of another server: in which rooms they are.
    fn remote_member(&mut self, user: &UserId, old: Option<Membership>, new: Option<Membership>) {
        if user.server_name() == self.working.server_name {
            return;
        }
        let key = (self.storage.user_hash(user), self.short());
        let join = Some(Membership::Join);
        if new == join && old != join {
            let row = RemoteRoomRow::default();
            self.batch
                .put_stamped(&schema::ROOM_BY_REMOTE_USER, &key, self.index, row);
            self.working.moved.push((far_away(key.0), true));
        } else if old == join && new != join {
            self.batch.delete(&schema::ROOM_BY_REMOTE_USER, &key);
            self.working.moved.push((far_away(key.0), false));
        }
    }

    /// Somebody of ours is in the room newly, or nobody any more.
    pub(super) fn our_presence(&mut self, present: bool) {
        let key = (NameHash::NONE, self.short());
        if present {
            let row = RemoteRoomRow::default();
            self.batch
                .put_stamped(&schema::ROOM_BY_REMOTE_USER, &key, self.index, row);
        } else {
            self.batch.delete(&schema::ROOM_BY_REMOTE_USER, &key);
        }
    }

    /// A changed membership of a person of ours, whose rows in the flat tables are written already.
    pub(super) fn our_member(&mut self, entry: &Entry) {
        let membership = |event: &Option<Arc<StoredEvent>>| {
            event.as_ref().and_then(|event| event.member().membership)
        };
        let (old, new) = (membership(&entry.before), membership(&entry.after));
        if entry.key.0 == StateEventType::RoomMember
            && let Ok(user) = UserId::parse(&entry.key.1)
            && let Some(event) = &entry.after
        {
            self.local_member(&user, event, old, new);
        }
    }

    fn count_members(
        &mut self,
        server: OwnedServerName,
        old: Option<Membership>,
        new: Option<Membership>,
    ) {
        let change =
            |membership| i64::from(new == Some(membership)) - i64::from(old == Some(membership));
        let (joined, invited) = (change(Membership::Join), change(Membership::Invite));
        let head = &mut self.working.head;
        head.joined = head.joined.saturating_add_signed(joined);
        head.invited = head.invited.saturating_add_signed(invited);
        if joined == 0 {
            return;
        }
        let key = (
            self.working.room.short,
            head.generation,
            self.storage.server_hash(&server),
        );
        let name = server.to_string();
        let ours = server == self.working.server_name;
        let row = self
            .working
            .servers
            .entry(server.clone())
            .or_insert_with(|| schema::ServerRow { name, joined: 0 });
        let before = row.joined;
        row.joined = row.joined.saturating_add_signed(joined);
        let after = row.joined;
        if after == 0 {
            self.batch.delete(&schema::SERVER_BY_ROOM, &key);
        } else {
            self.batch.put(&schema::SERVER_BY_ROOM, &key, row);
        }
        if ours && (before == 0) != (after == 0) {
            self.our_presence(after > 0);
        }
        if !ours && before == 0 && after > 0 {
            self.working.joined_servers.push(server);
        }
    }

    /// The servers that must hear of an event though none of their people may be joined after it: that
    /// of the person whom it concerns. Who is invited hears of it in another way, before it is accepted.
    pub(super) fn servers_to_tell(&self, judged: &Judged) -> Vec<String> {
        let own = &self.working.server_name;
        judged
            .change
            .entries
            .iter()
            .filter(|entry| entry.key.0 == StateEventType::RoomMember)
            .filter(|entry| {
                let after = entry.after.as_ref().map(|event| event.member());
                after.and_then(|member| member.membership) != Some(Membership::Invite)
            })
            .filter_map(|entry| UserId::parse(&entry.key.1).ok())
            .filter(|user| user.server_name() != own)
            .map(|user| user.server_name().to_string())
            .collect()
    }
}
