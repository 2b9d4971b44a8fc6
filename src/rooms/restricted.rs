//! Restricted rooms: who may come in because of another room, and who vouches for them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms

use std::collections::HashMap;

use pdu::{NamedLevel, PowerLevel, PowerLevels};
use ruma::{OwnedRoomId, OwnedUserId, UserId, events::StateEventType};
use serde::Deserialize;
use storage::{
    Range, Snapshot,
    schema::{self, Membership},
};

use crate::{Room, Rooms, StateKey, StoredEvent};

/// Rooms of an `allow` list that are looked at.
const ALLOWED_ROOMS_MAX: usize = 100;
/// People of this server that are looked at for somebody who may vouch.
const VOUCHERS_MAX: usize = 100;

#[derive(Deserialize)]
struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<serde_json::Value>,
}

/// Who of this server vouches for somebody's join; nobody has to if the room is not restricted.
///
/// # Errors
///
/// 403 `M_FORBIDDEN` if the user is in none of the rooms that open this one; 400 `M_UNABLE_TO_GRANT_JOIN`
/// if nobody of this server has the power to let them in.
pub(crate) async fn authoriser(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
    user: &UserId,
) -> error::Result<Option<OwnedUserId>> {
    let keys = [
        (StateEventType::RoomJoinRules, String::new()),
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let (head, state) = room.current_state(rooms, snapshot, &keys).await?;
    let rules = state
        .get(&keys[0])
        .and_then(|event| serde_json::from_slice::<JoinRules>(event.pdu.content_bytes()).ok());
    let Some(rules) = rules else { return Ok(None) };
    if !matches!(&*rules.join_rule, "restricted" | "knock_restricted") {
        return Ok(None);
    }
    if !is_in_one(rooms, snapshot, user, &rules).await? {
        return Err(error::forbidden(
            "You are in none of the rooms whose members may join this one",
        ));
    }
    let vouchers = local_members(rooms, snapshot, room, head.generation).await?;
    voucher(room, &keys, &state, &vouchers)
        .map(Some)
        .ok_or_else(|| {
            error::unable_to_grant_join("Nobody of this server has the power to let you in")
        })
}

/// Whether the user is joined to one of the rooms that open this one.
async fn is_in_one(
    rooms: &Rooms,
    snapshot: &Snapshot,
    user: &UserId,
    rules: &JoinRules,
) -> error::Result<bool> {
    let allowed: Vec<OwnedRoomId> = rules
        .allow
        .iter()
        .filter(|allow| {
            allow.get("type").and_then(|kind| kind.as_str()) == Some("m.room_membership")
        })
        .filter_map(|allow| OwnedRoomId::try_from(allow.get("room_id")?.as_str()?).ok())
        .take(ALLOWED_ROOMS_MAX)
        .collect();
    let names: Vec<_> = allowed
        .iter()
        .map(|room_id| rooms.storage().room_hash(room_id))
        .collect();
    let short = snapshot
        .multi_get(&schema::USER_BY_NAME, &[rooms.storage().user_hash(user)])
        .await?
        .pop()
        .flatten();
    let Some(short) = short else { return Ok(false) };
    let known = snapshot.multi_get(&schema::ROOM_BY_NAME, &names).await?;
    let keys: Vec<_> = known
        .into_iter()
        .flatten()
        .map(|room| (short.value, room.value))
        .collect();
    let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &keys).await?;
    Ok(rows
        .into_iter()
        .flatten()
        .any(|row| row.value.value.membership == Membership::Join))
}

/// Joined members of this server, the first that are found.
async fn local_members(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
    generation: schema::Generation,
) -> error::Result<Vec<StoredEvent>> {
    let own = rooms.storage().server_hash(rooms.server_name());
    let range = Range::prefix(&(room.short, generation, own)).limit(VOUCHERS_MAX);
    let rows = snapshot
        .multi_range(&schema::MEMBER_BY_SERVER, &[range])
        .await?;
    let numbers: Vec<_> = rows
        .into_iter()
        .flatten()
        .map(|(_, row)| (room.short, row.value))
        .collect();
    let rows = snapshot
        .multi_get(&schema::EVENT_BY_NUMBER, &numbers)
        .await?;
    let mut members = Vec::new();
    for ((_, number), row) in numbers.into_iter().zip(rows) {
        let Some(row) = row else { continue };
        let event = StoredEvent::from_row(number, row.value, room.rules, false)?;
        if event.member().membership == Some(Membership::Join) {
            members.push(event);
        }
    }
    Ok(members)
}

/// The one of these members with the most power, if it is enough to invite.
fn voucher(
    room: &Room,
    keys: &[StateKey; 3],
    state: &HashMap<StateKey, StoredEvent>,
    members: &[StoredEvent],
) -> Option<OwnedUserId> {
    let create = state.get(&keys[1])?;
    let levels = state.get(&keys[2]).map(|event| &*event.pdu);
    let power = PowerLevels::new(room.rules, &create.pdu, levels);
    let needed = PowerLevel::from(power.named(NamedLevel::Invite).ok()?);
    members
        .iter()
        .filter_map(|member| UserId::parse(member.header.state_key.as_deref()?).ok())
        .filter_map(|user| Some((power.user(&user).ok()?, user)))
        .filter(|(level, _)| *level >= needed)
        .max_by_key(|(level, _)| *level)
        .map(|(_, user)| user)
}
