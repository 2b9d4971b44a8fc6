//! Memberships: join, leave, invite, kick, ban, unban, knock, forget ([spec]).
//!
//! The rooms' rules judge each of them when its event is sent. Here stands what the client-server API
//! says besides, and what makes the events: profiles, reasons, who vouches for whom.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-membership

use std::sync::Arc;

use http::StatusCode;
use ruma::{OwnedServerName, OwnedUserId, RoomId, UserId};
use serde_json::{Map, Value, json, value::RawValue};
use storage::{
    Batch, CommitError, Position, ShortUserId, Snapshot, Topic,
    schema::{self, Membership, UserChange, UserRoomRow},
};

use crate::{Draft, Group, Room, Rooms, remote::Arriving, restricted};

/// Tries to mark a room as forgotten, while its row changes under our hands.
const TRIES_MAX: usize = 20;

/// What somebody says about a change of a membership.
#[derive(Clone, Debug, Default)]
pub struct Said {
    /// Why.
    pub reason: Option<String>,
    /// For an invite: that it is to a direct chat.
    pub is_direct: bool,
    /// Other keys that a client puts into the event, such as the content of its own member event.
    pub more: Map<String, Value>,
}

impl Rooms {
    /// Lets a user of ours join a room, by one of the servers that are in it if we are not; `via` may be such.
    ///
    /// # Errors
    ///
    /// As [`Rooms::join`], [`Rooms::join_from_outside`] and [`Rooms::check_admitted`].
    pub async fn join_anywhere(
        &self,
        room_id: &RoomId,
        user: &UserId,
        via: &[OwnedServerName],
        said: Said,
    ) -> error::Result<()> {
        if let Some(room) = self.find_room(room_id).await? {
            let snapshot = self.snapshot().await?;
            let (head, ours) = room.joined_of(self, &snapshot, self.server_name()).await?;
            if ours > 0 {
                let joined = head.partial
                    && self
                        .join_partial(&room, &snapshot, user, via, &said)
                        .await?;
                return match joined {
                    true => Ok(()),
                    false => self.join(&room, user, via, said).await,
                };
            }
        }
        self.check_admitted(room_id).await?;
        let arriving = self.arriving(room_id, user, via).await?;
        self.join_from_outside(&arriving, said).await?;
        Ok(())
    }

    /// Joins a room of which we do not know all members (MSC3902) by a server that may, as these say who may come
    /// in; whether one helped. If not we do what we can by ourselves.
    async fn join_partial(
        &self,
        room: &Arc<Room>,
        snapshot: &Snapshot,
        user: &UserId,
        via: &[OwnedServerName],
        said: &Said,
    ) -> error::Result<bool> {
        if room.membership(self, snapshot, user).await? == Some(Membership::Join) {
            return Ok(false);
        }
        let arriving = self.arriving(&room.room_id, user, via).await?;
        match self.join_by_voucher(&arriving, said.clone()).await {
            Ok(()) => Ok(true),
            Err(error) if error.status() == StatusCode::FORBIDDEN => Err(error),
            Err(error) => {
                tracing::info!(%error, room = %room.room_id, "no server lets somebody into a room of which we do not know all");
                Ok(false)
            }
        }
    }

    async fn arriving<'a>(
        &self,
        room_id: &'a RoomId,
        user: &'a UserId,
        via: &'a [OwnedServerName],
    ) -> error::Result<Arriving<'a>> {
        let short = self.find_person(user).await?;
        let short = short.ok_or_else(|| error::forbidden(format!("There is no {user} here")))?;
        Ok(Arriving {
            room_id,
            user,
            short,
            via,
        })
    }

    /// Lets a user of ours join a room that this server is in. If nobody here may vouch for it, somebody of another
    /// server may; `via` may be such.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room's rules do not let them in; 400 `M_UNABLE_TO_GRANT_JOIN` if they
    /// would, but nobody here may vouch for it, nor anybody of another server in the room.
    pub async fn join(
        &self,
        room: &Arc<Room>,
        user: &UserId,
        via: &[OwnedServerName],
        said: Said,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let old = room.membership(self, &snapshot, user).await?;
        if old == Some(Membership::Join) {
            return Ok(());
        }
        let authoriser = match old {
            Some(Membership::Invite) => Ok(None),
            _ => restricted::authoriser(self, &snapshot, room, user).await,
        };
        let authoriser = match authoriser {
            Ok(authoriser) => authoriser,
            Err(error) if error.status() == StatusCode::BAD_REQUEST => {
                // Others who are in the room may be able to.
                let via = self.voucher_servers(room, via).await?;
                let arriving = match self.arriving(&room.room_id, user, &via).await {
                    Err(nobody) if nobody.status() == StatusCode::FORBIDDEN => return Err(error),
                    arriving => arriving?,
                };
                return match self.join_by_voucher(&arriving, said).await {
                    Err(other) if other.status() == StatusCode::NOT_FOUND => Err(error),
                    joined => joined,
                };
            }
            Err(error) => return Err(error),
        };
        let mut content = self.own_content("join", user, said).await?;
        if let Some(authoriser) = authoriser {
            content.insert(
                "join_authorised_via_users_server".to_owned(),
                json!(authoriser),
            );
        }
        self.send_member(room, user, user, content).await
    }

    /// Asks to be let into a room, by one of the servers that are in it if we are not; `via` may be such.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the room takes no knocks, or not from them; as [`Rooms::knock_from_outside`].
    pub async fn knock(
        &self,
        room_id: &RoomId,
        user: &UserId,
        via: &[OwnedServerName],
        said: Said,
    ) -> error::Result<()> {
        if let Some(room) = self.find_room_of_ours(room_id).await? {
            let content = self.own_content("knock", user, said).await?;
            return self.send_member(&room, user, user, content).await;
        }
        self.check_admitted(room_id).await?;
        let arriving = self.arriving(room_id, user, via).await?;
        self.knock_from_outside(&arriving, said).await
    }

    /// Leaves a room, rejects an invite to it, or takes a knock back. Who has left already stays gone.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they are banned, or were never there.
    pub async fn leave(&self, room: &Arc<Room>, user: &UserId, said: Said) -> error::Result<()> {
        if let Some(short) = self.find_account(user).await?
            && let Some(row) = self.find_outside(room, short).await?
            && !self.finds_deserted(room).await?
        {
            return self.leave_from_outside(room, user, short, &row, said).await;
        }
        let snapshot = self.snapshot().await?;
        match room.membership(self, &snapshot, user).await? {
            Some(Membership::Leave) => Ok(()),
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {
                self.send_member(room, user, user, content_of("leave", said))
                    .await
            }
            Some(Membership::Ban) => Err(error::forbidden("You are banned from this room")),
            None => Err(error::forbidden("You are not in this room")),
        }
    }

    /// Invites somebody.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the sender may not, or the other one is in the room already or banned from it.
    pub async fn invite(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        user: &UserId,
        said: Said,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        self.check_joined(room, &snapshot, sender).await?;
        if room.membership(self, &snapshot, user).await? == Some(Membership::Ban) {
            return Err(error::forbidden(
                "This user is banned from the room: unban them first",
            ));
        }
        let content = self.own_content("invite", user, said).await?;
        self.send_member(room, sender, user, content).await
    }

    /// Removes somebody who is in the room, is invited to it or knocks.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the sender may not, or the other one is not there.
    pub async fn kick(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        user: &UserId,
        said: Said,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        self.check_joined(room, &snapshot, sender).await?;
        match room.membership(self, &snapshot, user).await? {
            Some(Membership::Join | Membership::Invite | Membership::Knock) => {
                self.send_member(room, sender, user, content_of("leave", said))
                    .await
            }
            Some(Membership::Leave | Membership::Ban) | None => {
                Err(error::forbidden("This user is not in the room"))
            }
        }
    }

    /// Bans somebody.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the sender may not.
    pub async fn ban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        user: &UserId,
        said: Said,
    ) -> error::Result<()> {
        self.send_member(room, sender, user, content_of("ban", said))
            .await
    }

    /// Takes a ban back.
    ///
    /// # Errors
    ///
    /// 403 `M_BAD_STATE` if the user is not banned, 403 `M_FORBIDDEN` if the sender may not.
    pub async fn unban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        user: &UserId,
        said: Said,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        self.check_joined(room, &snapshot, sender).await?;
        if room.membership(self, &snapshot, user).await? != Some(Membership::Ban) {
            return Err(error::bad_state("This user is not banned from the room"));
        }
        self.send_member(room, sender, user, content_of("leave", said))
            .await
    }

    /// Forgets a room that the user has left: it is shown to them no more.
    ///
    /// # Errors
    ///
    /// 400 `M_UNKNOWN` if they are in it, or knock, or are invited; 403 `M_FORBIDDEN` if they never were.
    pub async fn forget(&self, room_id: &RoomId, user: ShortUserId) -> error::Result<()> {
        let never = || error::forbidden("You never were in this room");
        let room = self.find_room(room_id).await?.ok_or_else(never)?;
        let key = (user, room.short);
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let mut rows = snapshot.multi_get(&schema::ROOM_BY_USER, &[key]).await?;
            let row = rows.pop().flatten().ok_or_else(never)?;
            match row.value.value.membership {
                Membership::Leave | Membership::Ban => {}
                Membership::Join | Membership::Invite | Membership::Knock => {
                    return Err(error::unknown(
                        StatusCode::BAD_REQUEST,
                        "You are in this room, or invited, or knocking: leave it first",
                    ));
                }
            }
            if row.value.value.forgotten {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.expect_equals(&schema::ROOM_BY_USER, &key, &row.raw);
            let forgotten = UserRoomRow {
                forgotten: true,
                ..row.value.value
            };
            batch.put_stamped(&schema::ROOM_BY_USER, &key, 0, forgotten);
            let change = (user, Position::pending(0));
            let what = UserChange::Room(room.short);
            batch.put(&schema::CHANGE_BY_USER_POSITION, &change, &what);
            batch.put_stamped(&schema::TAIL_BY_USER, &user, 0, ());
            batch.wake(Topic::User(user));
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a membership changes too fast"))
    }

    /// Who is not in the room is told no more than that.
    async fn check_joined(
        &self,
        room: &Room,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> error::Result<()> {
        match room.membership(self, snapshot, user).await? {
            Some(Membership::Join) => Ok(()),
            _ => Err(error::forbidden("You are not in this room")),
        }
    }

    /// The content of a member event that repeats its user's profile.
    pub(crate) async fn own_content(
        &self,
        membership: &str,
        user: &UserId,
        said: Said,
    ) -> error::Result<Map<String, Value>> {
        let snapshot = self.snapshot().await?;
        let users: [OwnedUserId; 1] = [user.to_owned()];
        let mut profiles = self.profiles(&snapshot, &users).await?;
        let mut content = profiles.remove(user).unwrap_or_default();
        content.extend(content_of(membership, said));
        Ok(content)
    }

    async fn send_member(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        user: &UserId,
        content: Map<String, Value>,
    ) -> error::Result<()> {
        let content = json_content(content)?;
        let draft = Draft::state(sender.to_owned(), "m.room.member", user.as_str(), content);
        self.send(room, Group::one(draft)).await?;
        Ok(())
    }
}

/// A member event's content without a profile.
pub(crate) fn content_of(membership: &str, said: Said) -> Map<String, Value> {
    let mut content = said.more;
    content.insert("membership".to_owned(), json!(membership));
    if let Some(reason) = said.reason {
        content.insert("reason".to_owned(), json!(reason));
    }
    if said.is_direct {
        content.insert("is_direct".to_owned(), json!(true));
    }
    content
}

/// An event's content as JSON text.
pub(crate) fn json_content(content: Map<String, Value>) -> error::Result<Box<RawValue>> {
    serde_json::value::to_raw_value(&Value::Object(content)).map_err(error::internal)
}
