//! Upgrading a room: another one, of another version, takes its place ([spec]).
//!
//! The new room and a job are one commit. What spans both rooms then (bans, the tombstone, aliases, the
//! directory, power levels) is done at once, in steps that may be repeated; the job is there for what a crash
//! leaves undone. Nobody knows of the new room before the tombstone, so that bans come first.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades

mod carry_over;
mod levels;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use pdu::{RoomRules, canonical};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use storage::{
    Batch, CommitError, NameHash, Range,
    schema::{self, JobRow, Membership},
};

pub(crate) use self::carry_over::{CARRY_OVER, leave_carry_over};
use crate::{
    Draft, Group, MoreRows, Room, Rooms, StateKey, StoredEvent, draft::NewRoom,
    jobs::unless_forbidden, membership::json_content,
};

/// The job of finishing an upgrade.
pub(crate) const UPGRADE: &str = "upgrade";

/// How long after an upgrade the job looks whether it was finished, in milliseconds.
const FINISHED_AFTER: u64 = 60_000;
/// Bans, and children of a space, that are carried over together.
const AT_ONCE: usize = 50;

/// State that the new room gets as it is, in this order. Aliases and power levels come by ways of their own.
const CARRIED: [StateEventType; 8] = [
    StateEventType::RoomJoinRules,
    StateEventType::RoomHistoryVisibility,
    StateEventType::RoomGuestAccess,
    StateEventType::RoomServerAcl,
    StateEventType::RoomEncryption,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
];

/// What is asked.
#[derive(Clone, Debug)]
pub struct UpgradeRequest {
    /// Who asks, a user of this server.
    pub user: OwnedUserId,
    /// The version of the new room.
    pub version: RoomVersionId,
    /// Who creates it besides them, in versions that know of that.
    pub additional_creators: Vec<OwnedUserId>,
}

/// An upgrade on its way: the body of the job.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Upgrade {
    old: String,
    new: String,
    user: String,
    /// The power levels of the new room, where the upgrade goes on with more power than these give.
    levels: Option<String>,
}

impl Rooms {
    /// Puts a room of another version in the place of this one; its id.
    ///
    /// # Errors
    ///
    /// 400 `M_UNSUPPORTED_ROOM_VERSION`; 403 `M_FORBIDDEN` for who may not send `m.room.tombstone`.
    pub async fn upgrade(
        &self,
        old: &Arc<Room>,
        request: UpgradeRequest,
    ) -> error::Result<OwnedRoomId> {
        let version = &request.version;
        let rules = RoomRules::of(version).ok_or_else(|| {
            error::unsupported_room_version(format!(
                "This server does not know room version {version}"
            ))
        })?;
        let user = &request.user;
        if !self.may_send_state(old, user, "m.room.tombstone").await? {
            return Err(error::forbidden(
                "You are not in this room, or lack the power to send m.room.tombstone",
            ));
        }
        let (drafts, levels) = self.first_drafts(old, rules, &request).await?;
        let new = self.new_room(rules, self.is_public(old).await?)?;
        let upgrade = Upgrade {
            old: old.room_id.to_string(),
            new: String::new(),
            user: user.to_string(),
            levels: match levels {
                Some(levels) => Some(json_content(levels)?.get().to_owned()),
                None => None,
            },
        };
        let group = Group {
            drafts,
            more: Some(self.job_rows(&new, &upgrade)),
            ..Group::default()
        };
        let room_id = self.send_first(new, group).await?;
        let upgrade = Upgrade {
            new: room_id.to_string(),
            ..upgrade
        };
        match self.go_on(&upgrade).await {
            Ok(()) => self.end_job(&upgrade).await?,
            Err(error) => tracing::warn!(%error, %room_id, "an upgrade is left to be finished"),
        }
        Ok(room_id)
    }

    /// Works off an [`UPGRADE`].
    pub(crate) async fn finish_upgrade(&self, row: &JobRow) -> error::Result<()> {
        let upgrade: Upgrade = postcard::from_bytes(&row.body).map_err(error::internal)?;
        self.go_on(&upgrade).await
    }

    fn upgrade_job_id(&self, new: &str) -> NameHash {
        self.storage().hash("upgrade job", new)
    }

    /// The job, as a part of the commit that makes the new room.
    fn job_rows(&self, new: &NewRoom, upgrade: &Upgrade) -> MoreRows {
        let (rooms, new, upgrade) = (self.clone(), new.clone(), upgrade.clone());
        Arc::new(move |batch, ids| {
            let Some(room_id) = new.room_id(ids) else {
                return;
            };
            let upgrade = Upgrade {
                new: room_id.to_string(),
                ..upgrade.clone()
            };
            let job = JobRow {
                kind: UPGRADE.to_owned(),
                // Plain data into a vector has no way to fail.
                body: postcard::to_allocvec(&upgrade).unwrap_or_default(),
                not_before_ts: rooms.now().saturating_add(FINISHED_AFTER),
                attempts: 0,
            };
            batch.put(
                &schema::JOB_BY_ID,
                &rooms.upgrade_job_id(&upgrade.new),
                &job,
            );
        })
    }

    async fn end_job(&self, upgrade: &Upgrade) -> error::Result<()> {
        let mut batch = Batch::new();
        batch.delete(&schema::JOB_BY_ID, &self.upgrade_job_id(&upgrade.new));
        match self.storage().commit(batch).await {
            // It finds nothing left to do.
            Ok(_) | Err(CommitError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first events of the new room, and the power levels that it has in the end, if these are others.
    async fn first_drafts(
        &self,
        old: &Arc<Room>,
        rules: &'static RoomRules,
        request: &UpgradeRequest,
    ) -> error::Result<(Vec<Draft>, Option<Map<String, Value>>)> {
        let snapshot = self.snapshot().await?;
        let more = [StateEventType::RoomCreate, StateEventType::RoomPowerLevels];
        let keys: Vec<StateKey> = CARRIED
            .into_iter()
            .chain(more)
            .map(|event_type| (event_type, String::new()))
            .collect();
        let (head, found) = old.current_state(self, &snapshot, &keys).await?;
        let find = |event_type: StateEventType| found.get(&(event_type, String::new()));
        let create = find(StateEventType::RoomCreate)
            .ok_or_else(|| error::internal("a room without m.room.create"))?;
        let last = head.extremities.last().map(|event| event.event_id.as_str());
        // Versions that know of one creator only take no notice of others.
        // NOTSPEC: since version 12 the old room alone is named, as MSC4291 has it, and Synapse and
        // Complement. The specification would have its last event named where possible.
        let (creators, last) = match rules.room_id_is_create_event_id() {
            true => (request.additional_creators.as_slice(), None),
            false => (&[][..], last),
        };
        let content = creation_content(old, create, last, creators)?;
        let user = &request.user;
        let mut drafts = vec![
            self.create_draft(rules, user, content, &[])?,
            self.creator_joins(user).await?,
        ];
        let levels = levels::of_new(
            rules,
            create,
            find(StateEventType::RoomPowerLevels),
            request,
        );
        let first = levels.raised.as_ref().unwrap_or(&levels.levels);
        drafts.push(state(
            user,
            StateEventType::RoomPowerLevels,
            "",
            first.clone(),
        )?);
        for event_type in CARRIED {
            if let Some(event) = find(event_type.clone()) {
                drafts.push(state(user, event_type, "", content_of(event))?);
            }
        }
        Ok((drafts, levels.raised.is_some().then_some(levels.levels)))
    }

    /// Everything that is left to do once there is the new room. May be done again.
    async fn go_on(&self, upgrade: &Upgrade) -> error::Result<()> {
        let parse = |room_id: &str| RoomId::parse(room_id).map_err(error::internal);
        let old = self.room(&parse(&upgrade.old)?).await?;
        let new = self.room(&parse(&upgrade.new)?).await?;
        let user = UserId::parse(&upgrade.user).map_err(error::internal)?;
        self.carry_bans(&old, &new, &user).await?;
        self.carry_children(&old, &new, &user).await?;
        let tombstone = json!({
            "body": "This room has been replaced",
            "replacement_room": new.room_id,
        });
        let tombstone = object(tombstone);
        self.send_or_not(&old, &user, StateEventType::RoomTombstone, tombstone)
            .await?;
        self.move_aliases(&old, &new).await?;
        self.move_canonical_alias(&old, &new, &user).await?;
        if self.is_public(&old).await? {
            self.set_public(&new, true).await?;
            self.set_public(&old, false).await?;
        }
        self.lower_levels(&old, &user).await?;
        if let Some(levels) = &upgrade.levels {
            let levels = serde_json::from_str(levels).map_err(error::internal)?;
            self.send_or_not(&new, &user, StateEventType::RoomPowerLevels, levels)
                .await?;
        }
        Ok(())
    }

    /// Sends a state event, unless the room's rules do not let the user.
    async fn send_or_not(
        &self,
        room: &Arc<Room>,
        user: &UserId,
        event_type: StateEventType,
        content: Map<String, Value>,
    ) -> error::Result<()> {
        let draft = state(user, event_type, "", content)?;
        unless_forbidden(self.send(room, Group::one(draft)).await)
    }

    /// Bans in the new room whoever is banned from the old one.
    async fn carry_bans(&self, old: &Room, new: &Arc<Room>, user: &UserId) -> error::Result<()> {
        let mut after: Option<NameHash> = None;
        loop {
            let snapshot = self.snapshot().await?;
            let (head, _) = old.current_numbers(self, &snapshot, &[]).await?;
            let key = (old.short, head.generation, Membership::Ban as u8);
            let mut range = Range::prefix(&key).limit(AT_ONCE);
            if let Some(after) = after {
                range = range.after(&(key.0, key.1, key.2, after));
            }
            let rows = snapshot
                .multi_range(&schema::MEMBER_BY_ROOM, &[range])
                .await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let Some(last) = rows.last().map(|((.., user), _)| *user) else {
                return Ok(());
            };
            after = Some(last);
            let numbers: Vec<_> = rows.iter().map(|(_, row)| row.value.number).collect();
            for event in old
                .read_state(&snapshot, &numbers)
                .await?
                .into_iter()
                .flatten()
            {
                let mut content = object(json!({ "membership": "ban" }));
                if let Some(reason) = event.content_string("reason") {
                    content.insert("reason".to_owned(), json!(reason));
                }
                let banned = event.row.header.state_key.unwrap_or_default();
                let member = StateEventType::RoomMember;
                let draft = state(user, member, &banned, content)?;
                unless_forbidden(self.send(new, Group::one(draft)).await)?;
            }
        }
    }

    /// Gives the new space the children of the old one.
    async fn carry_children(
        &self,
        old: &Room,
        new: &Arc<Room>,
        user: &UserId,
    ) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let (head, _) = old.current_numbers(self, &snapshot, &[]).await?;
        let child = StateEventType::SpaceChild;
        let numbers = old
            .current_of_type(self, &snapshot, head.generation, Some("m.space.child"))
            .await?;
        for numbers in numbers.chunks(AT_ONCE) {
            let events = old.read_state(&self.snapshot().await?, numbers).await?;
            let children = events.iter().flatten().filter(|event| {
                // Who takes a child out of a space leaves an event without this.
                canonical::member(event.content(), "via").is_some()
            });
            let drafts = children
                .map(|event| {
                    let key = event.row.header.state_key.as_deref().unwrap_or_default();
                    let content = serde_json::from_slice(event.content());
                    state(user, child.clone(), key, content.map_err(error::internal)?)
                })
                .collect::<error::Result<Vec<_>>>()?;
            if !drafts.is_empty() {
                let group = Group {
                    drafts,
                    ..Group::default()
                };
                unless_forbidden(self.send(new, group).await)?;
            }
        }
        Ok(())
    }

    /// Names in the new room the aliases that moved to it, and no longer in the old one.
    async fn move_canonical_alias(
        &self,
        old: &Arc<Room>,
        new: &Arc<Room>,
        user: &UserId,
    ) -> error::Result<()> {
        let event_type = StateEventType::RoomCanonicalAlias;
        let content = self.current_content(old, &event_type, "").await?;
        let content = content.and_then(|content| serde_json::from_slice(&content).ok());
        let Some(content) = content else {
            return Ok(());
        };
        let moved: BTreeSet<String> = self.aliases(new).await?.into_iter().collect();
        let there = aliases_in(&content, |alias| moved.contains(alias));
        if !there.is_empty() {
            self.send_or_not(new, user, event_type.clone(), there)
                .await?;
            let here = aliases_in(&content, |alias| !moved.contains(alias));
            self.send_or_not(old, user, event_type, here).await?;
        }
        Ok(())
    }

    /// Keeps people from talking in the old room, and from inviting others to it.
    async fn lower_levels(&self, old: &Arc<Room>, user: &UserId) -> error::Result<()> {
        let event_type = StateEventType::RoomPowerLevels;
        let content = self.current_content(old, &event_type, "").await?;
        let content = content.and_then(|content| serde_json::from_slice(&content).ok());
        match content.and_then(levels::closed) {
            Some(closed) => self.send_or_not(old, user, event_type, closed).await,
            None => Ok(()),
        }
    }
}

/// The content of the new room's `m.room.create`.
fn creation_content(
    old: &Room,
    create: &StoredEvent,
    last: Option<&str>,
    additional_creators: &[OwnedUserId],
) -> error::Result<Map<String, Value>> {
    let old_content = content_of(create);
    let predecessor = match last {
        Some(last) => json!({ "room_id": old.room_id, "event_id": last }),
        None => json!({ "room_id": old.room_id }),
    };
    let mut content = Map::from_iter([("predecessor".to_owned(), predecessor)]);
    for kept in ["type", "m.federate"] {
        if let Some(value) = old_content.get(kept) {
            content.insert(kept.to_owned(), value.clone());
        }
    }
    if !additional_creators.is_empty() {
        content.insert("additional_creators".to_owned(), json!(additional_creators));
    }
    Ok(content)
}

/// The aliases of a `m.room.canonical_alias` that are wanted.
fn aliases_in(content: &Map<String, Value>, wanted: impl Fn(&str) -> bool) -> Map<String, Value> {
    let fits = |alias: &Value| alias.as_str().is_some_and(&wanted);
    let mut kept = Map::new();
    if let Some(alias) = content.get("alias").filter(|alias| fits(alias)) {
        kept.insert("alias".to_owned(), alias.clone());
    }
    let others = content.get("alt_aliases").and_then(Value::as_array);
    let others: Vec<_> = others
        .into_iter()
        .flatten()
        .filter(|alias| fits(alias))
        .collect();
    if !others.is_empty() {
        kept.insert("alt_aliases".to_owned(), json!(others));
    }
    kept
}

/// An event's content; empty if it is none that can be changed.
fn content_of(event: &StoredEvent) -> Map<String, Value> {
    serde_json::from_slice(event.pdu.content_bytes()).unwrap_or_default()
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(content) => content,
        _ => Map::new(),
    }
}

fn state(
    user: &UserId,
    event_type: StateEventType,
    state_key: &str,
    content: Map<String, Value>,
) -> error::Result<Draft> {
    let event_type = TimelineEventType::from(event_type);
    Ok(Draft::state(
        user.to_owned(),
        event_type,
        state_key,
        json_content(content)?,
    ))
}
