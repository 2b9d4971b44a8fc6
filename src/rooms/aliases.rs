//! Room aliases of this server.

use std::sync::Arc;

use http::StatusCode;
use ruma::{OwnedRoomId, RoomAliasId, UserId, events::StateEventType};
use serde_json::{Map, Value};
use storage::{
    Batch, CommitError, Range, ShortRoomId, Value as _,
    schema::{self, AliasRow},
};

use crate::{Draft, Group, MoreRows, Room, Rooms, draft::NewRoom, membership::json_content};

/// Aliases that one room may have here.
const ALIASES_MAX: usize = 1_000;

/// Aliases that are pointed to another room together.
const MOVED_AT_ONCE: usize = 200;
/// Tries to do so, and rounds of it.
const TRIES_MAX: usize = 40;

impl Rooms {
    /// What an alias of this server points to.
    pub async fn find_alias(&self, alias: &RoomAliasId) -> error::Result<Option<AliasRow>> {
        let snapshot = self.snapshot().await?;
        let name = self.storage().alias_hash(alias);
        let mut rows = snapshot.multi_get(&schema::ROOM_BY_ALIAS, &[name]).await?;
        Ok(rows.pop().flatten().map(|row| row.value))
    }

    /// The aliases that this server has for a room.
    pub async fn aliases(&self, room: &Room) -> error::Result<Vec<String>> {
        let snapshot = self.snapshot().await?;
        let range = Range::prefix(&(room.short,)).limit(ALIASES_MAX);
        let rows = snapshot
            .multi_range(&schema::ALIAS_BY_ROOM, &[range])
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value)
            .collect())
    }

    /// Points a new alias to a room.
    ///
    /// # Errors
    ///
    /// 409 `M_UNKNOWN` if the alias is taken, or the room gone; as [`Rooms::check_admitted`].
    pub async fn create_alias(
        &self,
        alias: &RoomAliasId,
        room: &Room,
        creator: &UserId,
    ) -> error::Result<()> {
        self.check_admitted(&room.room_id).await?;
        let mut batch = Batch::new();
        let name = self.storage().room_hash(&room.room_id);
        let raw = room.short.encode().into();
        batch.expect_equals(&schema::ROOM_BY_NAME, &name, &raw);
        self.put_alias(&mut batch, alias, room.short, &room.room_id, creator);
        match self.storage().commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(error::unknown(
                StatusCode::CONFLICT,
                format!("The alias {alias} is taken, or its room was removed"),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an alias, from the room's `m.room.canonical_alias` too where the user has the power for that.
    /// Who made it may, and who has the power to set the room's canonical alias, and `by_admin` anybody.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND`, 403 `M_FORBIDDEN`.
    pub async fn delete_alias(
        &self,
        alias: &RoomAliasId,
        user: &UserId,
        by_admin: bool,
    ) -> error::Result<()> {
        let name = self.storage().alias_hash(alias);
        let snapshot = self.snapshot().await?;
        let mut rows = snapshot.multi_get(&schema::ROOM_BY_ALIAS, &[name]).await?;
        let row = rows
            .pop()
            .flatten()
            .ok_or_else(|| error::not_found(format!("There is no alias {alias}")))?;
        let room_id = OwnedRoomId::try_from(row.value.room_id.as_str()).map_err(error::internal)?;
        let room = self.find_room(&room_id).await?;
        let own = row.value.creator == user.as_str();
        if !own && !by_admin {
            let allowed = match &room {
                Some(room) => {
                    self.may_send_state(room, user, "m.room.canonical_alias")
                        .await?
                }
                None => false,
            };
            if !allowed {
                return Err(error::forbidden(
                    "You have neither made this alias nor the power over the room's aliases",
                ));
            }
        }
        let mut batch = Batch::new();
        batch.expect_equals(&schema::ROOM_BY_ALIAS, &name, &row.raw);
        batch.delete(&schema::ROOM_BY_ALIAS, &name);
        if let Some(room) = &room {
            batch.delete(&schema::ALIAS_BY_ROOM, &(room.short, name));
        }
        match self.storage().commit(batch).await {
            Ok(_) => {}
            Err(CommitError::Conflict(_)) => {
                return Err(error::not_found(format!("There is no alias {alias}")));
            }
            Err(error) => return Err(error.into()),
        }
        if let Some(room) = &room
            && let Err(error) = self.take_from_canonical(room, alias, user).await
        {
            // The alias is gone all the same: the specification wants the deletion to succeed.
            tracing::debug!(%error, "the room still names an alias that was removed");
        }
        Ok(())
    }

    /// Takes an alias out of the room's `m.room.canonical_alias`, if it is there.
    async fn take_from_canonical(
        &self,
        room: &Arc<Room>,
        alias: &RoomAliasId,
        user: &UserId,
    ) -> error::Result<()> {
        let event_type = StateEventType::RoomCanonicalAlias;
        let old = self.current_content(room, &event_type, "").await?;
        let old = old.and_then(|old| serde_json::from_slice::<Map<String, Value>>(&old).ok());
        let Some(old) = old else { return Ok(()) };
        let mut content = old.clone();
        if content.get("alias").and_then(Value::as_str) == Some(alias.as_str()) {
            content.remove("alias");
        }
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            others.retain(|other| other.as_str() != Some(alias.as_str()));
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if content == old {
            return Ok(());
        }
        let draft = Draft::state(user.to_owned(), event_type, "", json_content(content)?);
        self.send(room, Group::one(draft)).await?;
        Ok(())
    }

    /// Whether a joined member has the power to set a state event of that type.
    pub async fn may_send_state(
        &self,
        room: &Arc<Room>,
        user: &UserId,
        event_type: &str,
    ) -> error::Result<bool> {
        let snapshot = self.snapshot().await?;
        let keys = [
            (StateEventType::RoomCreate, String::new()),
            (StateEventType::RoomPowerLevels, String::new()),
            (StateEventType::RoomMember, user.to_string()),
        ];
        let (_, state) = room.current_state(self, &snapshot, &keys).await?;
        let [create, levels, member] = keys.map(|key| state.get(&key));
        let joined =
            member.and_then(|event| event.member().membership) == Some(schema::Membership::Join);
        let Some(create) = create.filter(|_| joined) else {
            return Ok(false);
        };
        let power = pdu::PowerLevels::new(room.rules, &create.pdu, levels.map(|event| &*event.pdu));
        Ok(matches!(
            (power.user(user), power.to_send(event_type, true)),
            (Ok(level), Ok(needed)) if level >= needed.into()
        ))
    }

    fn put_alias(
        &self,
        batch: &mut Batch,
        alias: &RoomAliasId,
        room: ShortRoomId,
        room_id: &ruma::RoomId,
        creator: &UserId,
    ) {
        let name = self.storage().alias_hash(alias);
        let row = AliasRow {
            alias: alias.to_string(),
            room_id: room_id.to_string(),
            creator: creator.to_string(),
        };
        batch.expect_absent(&schema::ROOM_BY_ALIAS, &name);
        batch.put(&schema::ROOM_BY_ALIAS, &name, &row);
        batch.put(&schema::ALIAS_BY_ROOM, &(room, name), &alias.to_string());
    }

    /// Points the aliases of one room to another.
    pub(crate) async fn move_aliases(&self, from: &Room, to: &Room) -> error::Result<()> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let range = Range::prefix(&(from.short,)).limit(MOVED_AT_ONCE);
            let rows = snapshot
                .multi_range(&schema::ALIAS_BY_ROOM, &[range])
                .await?;
            let names: Vec<_> = rows
                .into_iter()
                .flatten()
                .map(|((_, name), _)| name)
                .collect();
            if names.is_empty() {
                return Ok(());
            }
            let rows = snapshot.multi_get(&schema::ROOM_BY_ALIAS, &names).await?;
            let mut batch = Batch::new();
            for (name, row) in names.into_iter().zip(rows) {
                batch.delete(&schema::ALIAS_BY_ROOM, &(from.short, name));
                let Some(row) = row else { continue };
                batch.expect_equals(&schema::ROOM_BY_ALIAS, &name, &row.raw);
                let alias = row.value.alias.clone();
                let moved = AliasRow {
                    room_id: to.room_id.to_string(),
                    ..row.value
                };
                batch.put(&schema::ROOM_BY_ALIAS, &name, &moved);
                batch.put(&schema::ALIAS_BY_ROOM, &(to.short, name), &alias);
            }
            match self.storage().commit(batch).await {
                Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("the aliases of a room change too fast"))
    }

    /// The rows of a new room's alias.
    pub(crate) fn alias_rows(
        &self,
        new: &NewRoom,
        creator: &UserId,
        alias: Option<&RoomAliasId>,
    ) -> Option<MoreRows> {
        let (rooms, new) = (self.clone(), new.clone());
        let (alias, creator) = (alias?.to_owned(), creator.to_owned());
        Some(Arc::new(move |batch, ids| {
            if let Some(room_id) = new.room_id(ids) {
                rooms.put_alias(batch, &alias, new.short, &room_id, &creator);
            }
        }))
    }
}
