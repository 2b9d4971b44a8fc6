//! Memberships of rooms.

use std::fmt::Write as _;

use bytes::Bytes;
use error::Result;
use rooms::{MEMBERSHIPS, REDACT_EVENTS, ReadEvent, Room, Said, membership_of};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomId, RoomOrAliasId, UserId,
    api::client::membership::{
        ban_user, forget_room, get_member_events,
        invite_user::{self, v3::InvitationRecipient},
        join_room_by_id, join_room_by_id_or_alias, joined_members, joined_rooms, kick_user,
        leave_room, unban_user,
    },
    events::room::member::MembershipState,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use storage::schema::{MemberRow, Membership};
use users::Requester;

use super::{reading::Reading, room::no_third_parties};
use crate::{Call, Server, endpoint::Written, rate_limit::Action};

/// [`POST /rooms/{roomId}/join`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin).
pub(super) async fn join_room_by_id(
    server: Server,
    call: Call<join_room_by_id::v3::Request>,
) -> Result<join_room_by_id::v3::Response> {
    let said = said_in(&call.body)?;
    let request = call.request;
    join(&server, &request.room_id, &call.caller, &[], said).await?;
    Ok(join_room_by_id::v3::Response::new(request.room_id))
}

/// [`POST /join/{roomIdOrAlias}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias).
pub(super) async fn join_room_by_id_or_alias(
    server: Server,
    call: Call<join_room_by_id_or_alias::v3::Request>,
) -> Result<join_room_by_id_or_alias::v3::Response> {
    let said = said_in(&call.body)?;
    let (room_id, via) = resolve(&server, &call.room_id_or_alias, &call.via).await?;
    join(&server, &room_id, &call.caller, &via, said).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room_id))
}

async fn join(
    server: &Server,
    room_id: &RoomId,
    requester: &Requester,
    via: &[OwnedServerName],
    said: Said,
) -> Result<()> {
    // Of a room in which this server is not, nobody knows whether it lets guests in.
    if requester.guest {
        let lets_in = match server.rooms.find_room_of_ours(room_id).await? {
            Some(room) => server.rooms.lets_guests_in(&room).await?,
            None => false,
        };
        if !lets_in {
            return Err(error::guest_access_forbidden(
                "Guests may not join this room: its `guest_access` is not `can_join`",
            ));
        }
    }
    count_join(server, room_id, requester)?;
    check_rooms_of(server, requester).await?;
    let user = &requester.user_id;
    server.rooms.join_anywhere(room_id, user, via, said).await
}

/// Counts that somebody comes into a room, or wants to.
///
/// # Errors
///
/// 429 `M_LIMIT_EXCEEDED` if there were too many lately.
pub(super) fn count_join(server: &Server, room_id: &RoomId, requester: &Requester) -> Result<()> {
    server.count_of(Action::JoinsOfRoom, requester, room_id.as_str(), 1)
}

/// Whether somebody may leave a room or reject an invite to it ([spec]).
///
/// # Errors
///
/// 403 `M_CANNOT_LEAVE_SERVER_NOTICE_ROOM` if it is an invite to the room in which the server talks to them.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-notices
pub(super) async fn check_rejects(
    server: &Server,
    requester: &Requester,
    room: &Room,
) -> Result<()> {
    if server.rooms.notices_user().is_none() {
        return Ok(());
    }
    let notices = server.rooms.find_notices_room(requester.user).await?;
    if notices.is_none_or(|notices| notices.short != room.short) {
        return Ok(());
    }
    let snapshot = server.rooms.snapshot().await?;
    let user_id = &requester.user_id;
    match room.membership(&server.rooms, &snapshot, user_id).await? {
        Some(Membership::Invite) => Err(error::cannot_leave_server_notice_room(
            "The server talks to you in this room: its invite cannot be rejected",
        )),
        _ => Ok(()),
    }
}

/// Whether somebody may be in one more room.
///
/// # Errors
///
/// 403 `M_USER_LIMIT_EXCEEDED` if the operator allows no more.
pub(super) async fn check_rooms_of(server: &Server, requester: &Requester) -> Result<()> {
    let most = server.config.limits.max_rooms_of_user as usize;
    if most == 0 || server.rooms.joined_rooms(requester.user).await?.len() < most {
        return Ok(());
    }
    Err(error::user_limit_exceeded(
        server.config.support.uri().unwrap_or_default(),
        format!("You are in {most} rooms, and may not be in more"),
    ))
}

/// Counts that somebody is invited.
///
/// # Errors
///
/// 429 `M_LIMIT_EXCEEDED` if they were too often lately.
pub(super) fn count_invite_of(
    server: &Server,
    requester: &Requester,
    invitee: &UserId,
) -> Result<()> {
    server.count_of(Action::InvitesOfUser, requester, invitee.as_str(), 1)
}

/// [`POST /rooms/{roomId}/leave`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave).
pub(super) async fn leave_room(
    server: Server,
    call: Call<leave_room::v3::Request>,
) -> Result<leave_room::v3::Response> {
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    check_rejects(&server, &call.caller, &room).await?;
    let said = because(request.reason);
    server
        .rooms
        .leave(&room, &call.caller.user_id, said)
        .await?;
    Ok(leave_room::v3::Response::new())
}

/// [`POST /rooms/{roomId}/invite`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite).
pub(super) async fn invite_user(
    server: Server,
    call: Call<invite_user::v3::Request>,
) -> Result<invite_user::v3::Response> {
    let request = call.request;
    let InvitationRecipient::UserId(invitee) = request.recipient else {
        return Err(no_third_parties());
    };
    let room = server.rooms.room(&request.room_id).await?;
    let (requester, invited_to) = (&call.caller, room.room_id.as_str());
    server.count_of(Action::InvitesToRoom, requester, invited_to, 1)?;
    count_invite_of(&server, requester, &invitee.user_id)?;
    let said = because(invitee.reason);
    let sender = &call.caller.user_id;
    server
        .rooms
        .invite(&room, sender, &invitee.user_id, said)
        .await?;
    Ok(invite_user::v3::Response::new())
}

/// [`POST /rooms/{roomId}/kick`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick).
pub(super) async fn kick_user(
    server: Server,
    call: Call<kick_user::v3::Request>,
) -> Result<kick_user::v3::Response> {
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    let said = removing(request.reason, &call.body)?;
    let sender = &call.caller.user_id;
    server
        .rooms
        .kick(&room, sender, &request.user_id, said)
        .await?;
    Ok(kick_user::v3::Response::new())
}

/// [`POST /rooms/{roomId}/ban`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban).
pub(super) async fn ban_user(
    server: Server,
    call: Call<ban_user::v3::Request>,
) -> Result<ban_user::v3::Response> {
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    let said = removing(request.reason, &call.body)?;
    let sender = &call.caller.user_id;
    server
        .rooms
        .ban(&room, sender, &request.user_id, said)
        .await?;
    Ok(ban_user::v3::Response::new())
}

/// [`POST /rooms/{roomId}/unban`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban).
pub(super) async fn unban_user(
    server: Server,
    call: Call<unban_user::v3::Request>,
) -> Result<unban_user::v3::Response> {
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    let said = because(request.reason);
    let sender = &call.caller.user_id;
    server
        .rooms
        .unban(&room, sender, &request.user_id, said)
        .await?;
    Ok(unban_user::v3::Response::new())
}

/// [`POST /rooms/{roomId}/forget`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget).
pub(super) async fn forget_room(
    server: Server,
    call: Call<forget_room::v3::Request>,
) -> Result<forget_room::v3::Response> {
    server.rooms.forget(&call.room_id, call.caller.user).await?;
    Ok(forget_room::v3::Response::new())
}

/// [`GET /joined_rooms`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms).
pub(super) async fn joined_rooms(
    server: Server,
    call: Call<joined_rooms::v3::Request>,
) -> Result<joined_rooms::v3::Response> {
    let rooms = server.rooms.joined_rooms(call.caller.user).await?;
    Ok(joined_rooms::v3::Response::new(rooms))
}

/// [`GET /rooms/{roomId}/joined_members`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members).
pub(super) async fn joined_members(
    server: Server,
    call: Call<joined_members::v3::Request>,
) -> Result<Written> {
    // Who has nothing to do with the room is told so at once.
    let reading = Reading::look(&server, &call.caller, &call.room_id).await?;
    if !reading.look.is_joined() {
        return Err(not_joined());
    }
    server.rooms.await_whole_state(&call.room_id).await?;
    let reading = Reading::look(&server, &call.caller, &call.room_id).await?;
    if !reading.look.is_joined() {
        return Err(not_joined());
    }
    // Written as they are read: there may be very many.
    let mut body = String::from("{\"joined\":{");
    let each = |row: MemberRow| {
        // Complement looks for both keys, whether there is anything to say or not.
        let member = json!({
            "display_name": row.displayname.unwrap_or_default(),
            "avatar_url": row.avatar_url.unwrap_or_default(),
        });
        let separator = if body.ends_with('{') { "" } else { "," };
        let user = Value::from(row.user_id);
        let _ = write!(body, "{separator}{user}:{member}");
    };
    reading
        .room
        .each_member(&reading.snapshot, &reading.look, Membership::Join, each)
        .await?;
    body.push_str("}}");
    Ok(Written(Bytes::from(body)))
}

fn not_joined() -> error::Error {
    error::forbidden("You are not in this room, or it does not exist")
}

/// [`GET /rooms/{roomId}/members`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers).
pub(super) async fn get_member_events(
    server: Server,
    call: Call<get_member_events::v3::Request>,
) -> Result<get_member_events::v3::Response> {
    // Who has nothing to do with the room is told so at once.
    Reading::begin(&server, &call.caller, &call.room_id).await?;
    server.rooms.await_whole_state(&call.room_id).await?;
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let (wanted, unwanted) = (call.membership.as_ref(), call.not_membership.as_ref());
    let memberships: Vec<_> = MEMBERSHIPS
        .into_iter()
        .filter(|one| is_wanted(*one, wanted, unwanted))
        .collect();
    let root = match &call.at {
        Some(token) => reading.root_at(token).await?,
        None => reading.look.root()?,
    };
    let (room, snapshot, look) = (&reading.room, &reading.snapshot, &reading.look);
    let chunk = if root == look.head.root {
        let rows = room.members(snapshot, look, &memberships).await?;
        let numbers: Vec<_> = rows.into_iter().map(|row| row.number).collect();
        reading.state_of(&numbers, |_| true).await?
    } else {
        let numbers = reading.state_numbers(root).await?;
        let is_asked = |event: &ReadEvent| {
            event.row.header.event_type == "m.room.member"
                && membership_of(event).is_some_and(|one| memberships.contains(&one))
        };
        reading.state_of(&numbers, is_asked).await?
    };
    Ok(get_member_events::v3::Response::new(chunk))
}

/// Whether `membership` and `not_membership` of `/members` ask for one: with both it is enough that one
/// of them does.
fn is_wanted(
    one: Membership,
    wanted: Option<&MembershipState>,
    unwanted: Option<&MembershipState>,
) -> bool {
    let is = |named: &MembershipState| named.as_str() == one.as_str();
    match (wanted, unwanted) {
        (None, None) => true,
        (Some(wanted), None) => is(wanted),
        (None, Some(unwanted)) => !is(unwanted),
        (Some(wanted), Some(unwanted)) => is(wanted) || !is(unwanted),
    }
}

/// All that a client says of its join, for the member event: keys that the specification does not know too.
fn said_in(body: &[u8]) -> Result<Said> {
    if body.is_empty() {
        return Ok(Said::default());
    }
    let mut more: Map<String, Value> =
        serde_json::from_slice(body).map_err(|fault| error::bad_json(fault.to_string()))?;
    more.remove("third_party_signed");
    // Who vouches for a join is for the server to say.
    more.remove("join_authorised_via_users_server");
    Ok(Said {
        more,
        ..Said::default()
    })
}

/// What is said with a kick or a ban, which may take away all that its target has said (MSC4293).
fn removing(reason: Option<String>, body: &[u8]) -> Result<Said> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default, rename = "org.matrix.msc4293.redact_events")]
        redact_events: bool,
    }
    let body: Body =
        serde_json::from_slice(body).map_err(|fault| error::bad_json(fault.to_string()))?;
    let mut said = because(reason);
    if body.redact_events {
        said.more.insert(REDACT_EVENTS.to_owned(), json!(true));
    }
    Ok(said)
}

pub(super) fn because(reason: Option<String>) -> Said {
    Said {
        reason,
        ..Said::default()
    }
}

/// The id of a room that is given by its id or by an alias, and servers that may be in it: those that are named,
/// and those that the alias's server names.
pub(super) async fn resolve(
    server: &Server,
    name: &RoomOrAliasId,
    via: &[OwnedServerName],
) -> Result<(OwnedRoomId, Vec<OwnedServerName>)> {
    let alias = match <&RoomId>::try_from(name) {
        Ok(room_id) => return Ok((room_id.to_owned(), via.to_vec())),
        Err(alias) => alias,
    };
    if alias.server_name() == server.rooms.server_name() {
        let row = server.rooms.find_alias(alias).await?;
        let row = row.ok_or_else(|| error::not_found(format!("There is no room alias {alias}")))?;
        let room_id = RoomId::parse(row.room_id).map_err(error::internal)?;
        return Ok((room_id, via.to_vec()));
    }
    let (room_id, servers) = server.rooms.fetch_alias(alias).await?;
    Ok((room_id, [via, &servers].concat()))
}
