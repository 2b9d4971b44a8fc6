//! Restricted rooms: who may come in because of another room, and who vouches for them ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms

use pdu::{NamedLevel, PowerLevels};
use ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, UserId, events::StateEventType};
use serde::Deserialize;
use storage::{
    NameHash, Range, Reads, ShortRoomId, Snapshot,
    schema::{self, Membership},
};

use crate::{Room, Rooms};

/// Rooms of an `allow` list that are looked at.
const ALLOWED_ROOMS_MAX: usize = 100;
/// People of this server with a level of their own that are looked at for one who may vouch.
const VOUCHERS_MAX: usize = 100;
/// And others, where everybody may.
const MEMBERS_MAX: usize = 1_000;

/// Where a member stands in the room's flat tables.
type MemberKey = (ShortRoomId, schema::Generation, u8, NameHash);

/// What `m.room.join_rules` says.
#[derive(Deserialize)]
pub(crate) struct JoinRules {
    join_rule: String,
    #[serde(default)]
    allow: Vec<serde_json::Value>,
}

impl JoinRules {
    /// Reads the content of the event.
    pub(crate) fn of(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content).ok()
    }

    /// Whether members of other rooms may join.
    pub(crate) fn is_restricted(&self) -> bool {
        matches!(&*self.join_rule, "restricted" | "knock_restricted")
    }

    /// The rooms whose members may join, as far as they are looked at.
    pub(crate) fn allowed_rooms(&self) -> Vec<OwnedRoomId> {
        let by_membership = |allow: &&serde_json::Value| {
            allow.get("type").and_then(|kind| kind.as_str()) == Some("m.room_membership")
        };
        let rooms = self.allow.iter().filter(by_membership);
        rooms
            .filter_map(|allow| OwnedRoomId::try_from(allow.get("room_id")?.as_str()?).ok())
            .take(ALLOWED_ROOMS_MAX)
            .collect()
    }
}

/// Who of this server vouches for somebody's join; nobody has to if the room is not restricted.
///
/// # Errors
///
/// 403 `M_FORBIDDEN` if the user is in none of the rooms that open this one; 400 `M_UNABLE_TO_AUTHORISE_JOIN`
/// if they are of another server and this one is in none of these rooms; 400 `M_UNABLE_TO_GRANT_JOIN` if
/// nobody of this server has the power to let them in.
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
        .and_then(|event| JoinRules::of(event.pdu.content_bytes()));
    let Some(rules) = rules.filter(JoinRules::is_restricted) else {
        return Ok(None);
    };
    let allowed = rules.allowed_rooms();
    let is_in_one = if user.server_name() == rooms.server_name() {
        is_in_one(rooms, snapshot, user, &allowed).await?
    } else {
        is_guest_in_one(rooms, snapshot, user, &allowed).await?
    };
    if !is_in_one {
        return Err(error::forbidden(
            "You are in none of the rooms whose members may join this one",
        ));
    }
    let levels = state.get(&keys[2]).map(|event| &*event.pdu);
    let voucher = match state.get(&keys[1]) {
        Some(create) => {
            let power = PowerLevels::new(room.rules, &create.pdu, levels);
            find_voucher(rooms, snapshot, room, head.generation, &power).await?
        }
        None => None,
    };
    voucher.map(Some).ok_or_else(|| {
        error::unable_to_grant_join("Nobody of this server has the power to let you in")
    })
}

/// Whether the user is joined to one of these rooms. Three round trips.
pub(crate) async fn is_in_one(
    rooms: &Rooms,
    snapshot: &Snapshot,
    user: &UserId,
    allowed: &[OwnedRoomId],
) -> error::Result<bool> {
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

/// The same for a user of another server, as far as we are in these rooms.
///
/// # Errors
///
/// 400 `M_UNABLE_TO_AUTHORISE_JOIN` if there are such, and we are in none of them.
async fn is_guest_in_one(
    rooms: &Rooms,
    snapshot: &Snapshot,
    user: &UserId,
    allowed: &[OwnedRoomId],
) -> error::Result<bool> {
    let known = rooms.find_rooms(snapshot, allowed).await?;
    let known: Vec<_> = known.iter().flatten().map(|room| room.short).collect();
    let own = rooms.storage().server_hash(rooms.server_name());
    let user = rooms.storage().user_hash(user);
    let generations = rooms.generations(snapshot, &known).await?;
    let ours = generations
        .iter()
        .map(|(room, generation)| (*room, *generation, own));
    let theirs = generations
        .iter()
        .map(|(room, generation)| (*room, *generation, Membership::Join as u8, user));
    let mut reads = Reads::new();
    let ours = reads.get_all(&schema::SERVER_BY_ROOM, &ours.collect::<Vec<_>>());
    let theirs = reads.get_all(&schema::MEMBER_BY_ROOM, &theirs.collect::<Vec<_>>());
    let answers = snapshot.read(&reads).await?;
    let (mut known, mut is_in_one) = (false, false);
    for (ours, theirs) in answers.all(&ours)?.into_iter().zip(answers.all(&theirs)?) {
        let ours = ours.is_some_and(|row| row.value.joined > 0);
        known |= ours;
        is_in_one |= ours && theirs.is_some();
    }
    if known || allowed.is_empty() {
        Ok(is_in_one)
    } else {
        Err(error::unable_to_authorize_join(
            "This server is in none of the rooms whose members may join this one",
        ))
    }
}

/// Of this server's people in the room, one who may invite: the most powerful of those who have a level of
/// their own, or anybody where all may. Two round trips at most.
async fn find_voucher(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
    generation: schema::Generation,
    power: &PowerLevels<'_>,
) -> error::Result<Option<OwnedUserId>> {
    let named = |level| power.named(level).map_err(error::internal);
    let needed = named(NamedLevel::Invite)?;
    let joined =
        |user: NameHash| -> MemberKey { (room.short, generation, Membership::Join as u8, user) };
    let mut strongest = strongest(power)?;
    strongest.retain(|user| user.server_name() == rooms.server_name());
    strongest.truncate(VOUCHERS_MAX);
    let keys: Vec<_> = strongest
        .iter()
        .map(|user| joined(rooms.storage().user_hash(user)))
        .collect();
    let own = rooms.storage().server_hash(rooms.server_name());
    let everybody = Range::prefix(&(room.short, generation, own)).limit(MEMBERS_MAX);
    let mut reads = Reads::new();
    let rows = reads.get_all(&schema::MEMBER_BY_ROOM, &keys);
    let everybody = (named(NamedLevel::UsersDefault)? >= needed)
        .then(|| reads.range(&schema::MEMBER_BY_SERVER, &everybody));
    let answers = snapshot.read(&reads).await?;
    let mut found = strongest.into_iter().zip(answers.all(&rows)?);
    if let Some((user, _)) = found.find(|(_, row)| row.is_some()) {
        return Ok(Some(user));
    }
    let Some(everybody) = everybody else {
        return Ok(None);
    };
    let keys: Vec<_> = answers
        .rows(&everybody)?
        .into_iter()
        .map(|((.., user), _)| joined(user))
        .collect();
    let rows = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
    Ok(rows
        .into_iter()
        .flatten()
        .filter_map(|row| UserId::parse(row.value.user_id).ok())
        .find(|user| matches!(power.user(user), Ok(level) if level >= needed.into())))
}

/// Those with a level of their own who may invite, the most powerful first.
fn strongest(power: &PowerLevels<'_>) -> error::Result<Vec<OwnedUserId>> {
    let needed = power.named(NamedLevel::Invite).map_err(error::internal)?;
    let mut strongest: Vec<_> = power
        .named_users()
        .into_iter()
        .filter_map(|user| Some((power.user(&user).ok()?, user)))
        .filter(|(level, _)| *level >= needed.into())
        .collect();
    strongest.sort_by(|one, other| other.cmp(one));
    Ok(strongest.into_iter().map(|(_, user)| user).collect())
}

/// The servers of those in a room who have a level of their own and may invite, the most powerful first; each once.
/// Three round trips.
pub(crate) async fn powerful_servers(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
) -> error::Result<Vec<OwnedServerName>> {
    let keys = [
        (StateEventType::RoomCreate, String::new()),
        (StateEventType::RoomPowerLevels, String::new()),
    ];
    let (head, state) = room.current_state(rooms, snapshot, &keys).await?;
    let Some(create) = state.get(&keys[0]) else {
        return Ok(Vec::new());
    };
    let levels = state.get(&keys[1]).map(|event| &*event.pdu);
    let mut strongest = strongest(&PowerLevels::new(room.rules, &create.pdu, levels))?;
    strongest.truncate(VOUCHERS_MAX);
    let join = Membership::Join as u8;
    let keys: Vec<MemberKey> = strongest
        .iter()
        .map(|user| {
            let user = rooms.storage().user_hash(user);
            (room.short, head.generation, join, user)
        })
        .collect();
    let rows = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
    let mut servers: Vec<OwnedServerName> = Vec::new();
    for (user, row) in strongest.iter().zip(rows) {
        let server = user.server_name();
        if row.is_some() && !servers.iter().any(|known| known == server) {
            servers.push(server.to_owned());
        }
    }
    Ok(servers)
}
