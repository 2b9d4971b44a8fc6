//! Shutting a room down on this server: everybody of ours is put out of it, and perhaps into another one in which
//! they are told why.

use std::sync::Arc;

use http::StatusCode;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, UserId};
use serde_json::{Map, json};
use storage::{
    Range, ShortUserId,
    schema::{self, Membership},
};

use crate::{Draft, Group, NewRoomRequest, Preset, Room, Rooms, Said, membership::json_content};

/// Accounts that are looked at together.
const LOOKED_AT: usize = 1_000;

/// The level of those who are put into the new room: they do not speak there.
const SILENT: i64 = -10;

/// What a new room is called, and what is said in it, where nobody says; as Synapse has it.
const NAME: &str = "Content Violation Notification";
const MESSAGE: &str = "Sharing illegal content on this server is not permitted and rooms in violation will be blocked.";

/// A room in the place of one that is shut down.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// Who makes it, and speaks in it.
    pub creator: OwnedUserId,
    /// Its version.
    pub version: RoomVersionId,
    /// What it is called.
    pub name: Option<String>,
    /// What is said in it.
    pub message: Option<String>,
}

/// Somebody of ours who was in a room, invited to it, or knocked.
#[derive(Clone, Debug)]
pub struct Kicked {
    /// The short id.
    pub user: ShortUserId,
    /// The whole user id.
    pub user_id: OwnedUserId,
}

/// What became of a room that was shut down.
#[derive(Clone, Debug, Default)]
pub struct ShutDown {
    /// Who is out of it now.
    pub kicked: Vec<Kicked>,
    /// Who could not be put out of it.
    pub failed: Vec<Kicked>,
    /// The aliases that lead to the new room.
    pub aliases: Vec<String>,
    /// The new room, if one was wanted.
    pub new_room: Option<OwnedRoomId>,
}

impl Rooms {
    /// Puts everybody of ours out of a room, as if they left and forgot it; they come into the room in its place if
    /// there is to be one, and its aliases here lead there.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` if who is to make the new room has no account here; as [`Rooms::create`].
    pub async fn shut_down(
        &self,
        room: &Arc<Room>,
        replacement: Option<Replacement>,
    ) -> error::Result<ShutDown> {
        let mut done = ShutDown::default();
        let new_room = match replacement {
            Some(replacement) => Some(self.replace(replacement).await?),
            None => None,
        };
        for person in self.people_of(room).await? {
            match self.put_out(room, &person).await {
                Ok(()) => {
                    if let Some(new_room) = &new_room {
                        self.put_in(new_room, &person.user_id).await;
                    }
                    done.kicked.push(person);
                }
                Err(error) => {
                    tracing::warn!(%error, user = %person.user_id, room = %room.room_id, "somebody cannot be put out of a room");
                    done.failed.push(person);
                }
            }
        }
        if let Some(new_room) = new_room {
            done.aliases = self.aliases(room).await?;
            self.move_aliases(room, &new_room).await?;
            done.new_room = Some(new_room.room_id.clone());
        }
        Ok(done)
    }

    /// Everybody of ours who is in a room, invited or knocking. It takes as long as there are accounts: where this
    /// server is not in the room, nothing else tells of them.
    async fn people_of(&self, room: &Room) -> error::Result<Vec<Kicked>> {
        let mut people = Vec::new();
        let mut range = Range::prefix(&()).limit(LOOKED_AT);
        loop {
            let snapshot = self.snapshot().await?;
            let accounts = snapshot
                .multi_range(&schema::ACCOUNT_BY_USER, &[range])
                .await?;
            let accounts: Vec<_> = accounts.into_iter().flatten().collect();
            let keys: Vec<_> = accounts
                .iter()
                .map(|(user, _)| (*user, room.short))
                .collect();
            let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &keys).await?;
            for ((user, account), row) in accounts.iter().zip(rows) {
                let there = row.is_some_and(|row| {
                    matches!(
                        row.value.value.membership,
                        Membership::Join | Membership::Invite | Membership::Knock
                    )
                });
                if there {
                    people.push(Kicked {
                        user: *user,
                        user_id: UserId::parse(account.value.user_id.as_str())
                            .map_err(error::internal)?,
                    });
                }
            }
            let Some((last, _)) = accounts.last() else {
                return Ok(people);
            };
            range = Range::prefix(&()).after(last).limit(LOOKED_AT);
        }
    }

    async fn put_out(&self, room: &Arc<Room>, person: &Kicked) -> error::Result<()> {
        self.leave(room, &person.user_id, Said::default()).await?;
        self.forget(&room.room_id, person.user).await
    }

    /// Who cannot come in is told nothing.
    async fn put_in(&self, new_room: &Arc<Room>, user: &UserId) {
        if let Err(error) = self.join(new_room, user, &[], Said::default()).await {
            tracing::warn!(%error, %user, room = %new_room.room_id, "somebody cannot be put into the room that takes the place of another");
        }
    }

    async fn replace(&self, replacement: Replacement) -> error::Result<Arc<Room>> {
        let creator = &replacement.creator;
        if self.find_person(creator).await?.is_none() {
            return Err(error::invalid_param(format!(
                "{creator} has no account on this server"
            )));
        }
        let levels = json!({ "users_default": SILENT });
        let new = NewRoomRequest {
            creator: creator.clone(),
            version: replacement.version,
            creation_content: Map::new(),
            preset: Preset::PublicChat,
            public: false,
            initial_state: Vec::new(),
            invite: Vec::new(),
            is_direct: false,
            name: Some(replacement.name.unwrap_or_else(|| NAME.to_owned())),
            topic: None,
            alias: None,
            power_level_content_override: levels.as_object().cloned(),
            notices_of: None,
        };
        let room_id = self.create(new).await?;
        let room = self.room(&room_id).await?;
        let message = replacement.message.as_deref().unwrap_or(MESSAGE);
        let mut content = Map::new();
        content.insert("msgtype".to_owned(), json!("m.text"));
        content.insert("body".to_owned(), json!(message));
        let draft = Draft::message(creator.clone(), "m.room.message", json_content(content)?);
        self.send(&room, Group::one(draft)).await?;
        Ok(room)
    }

    /// Removes all that this server holds of a room that was shut down; with `force` also if people of ours are
    /// still in it.
    ///
    /// # Errors
    ///
    /// 400 `M_UNKNOWN` if they are.
    pub async fn purge_shut_down(&self, room: &Room, force: bool) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        if !force && room.is_ours(self, &snapshot).await? {
            return Err(error::unknown(
                StatusCode::BAD_REQUEST,
                "People of this server are still in the room: it is not removed",
            ));
        }
        self.purge(room).await
    }

    /// Whether other servers are in a room.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn is_shared(&self, room: &Room) -> error::Result<bool> {
        let snapshot = self.snapshot().await?;
        let servers = room.servers(self, &snapshot, 2).await?;
        let own = self.server_name().as_str();
        Ok(servers.iter().any(|server| server.name != own))
    }
}
