//! How people of other servers come into rooms, leave them, knock, and invite people of ours.

use bytes::Bytes;
use error::Result;
use rooms::{BroughtInvite, JoinAnswer};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::federation::membership::{
        RawStrippedState, create_invite, create_join_event, create_knock_event, create_leave_event,
        prepare_join_event, prepare_knock_event, prepare_leave_event,
    },
};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::schema::Membership;

use crate::{Call, Server, endpoint::Written, rate_limit::Action};

/// What Ruma has no types for: the first versions of `send_join` and `send_leave`, of which the specification
/// says no more, and which old servers and Complement ask for.
pub(super) mod v1 {
    #![allow(unreachable_pub)]

    macro_rules! send_event {
        ($name:ident $path:literal) => {
            pub mod $name {
                use ruma::{
                    OwnedEventId, OwnedRoomId,
                    api::{federation::authentication::ServerSignatures, request, response},
                    metadata,
                };
                use serde_json::value::RawValue;

                metadata! {
                    method: PUT,
                    rate_limited: false,
                    authentication: ServerSignatures,
                    path: $path,
                }

                #[request]
                pub struct Request {
                    #[ruma_api(path)]
                    pub room_id: OwnedRoomId,

                    #[ruma_api(path)]
                    pub event_id: OwnedEventId,

                    #[ruma_api(body)]
                    pub pdu: Box<RawValue>,
                }

                #[response]
                pub struct Response {}
            }
        };
    }

    send_event!(create_join_event "/_matrix/federation/v1/send_join/{room_id}/{event_id}");
    send_event!(create_leave_event "/_matrix/federation/v1/send_leave/{room_id}/{event_id}");
}

/// [`GET /make_join/{roomId}/{userId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_joinroomiduserid).
pub(super) async fn prepare_join_event(
    server: Server,
    call: Call<prepare_join_event::v1::Request>,
) -> Result<prepare_join_event::v1::Response> {
    let (room_id, user_id, versions) = (&call.room_id, &call.user_id, Some(&*call.ver));
    let join = Membership::Join;
    let template = server
        .rooms
        .member_template(&call.caller, room_id, user_id, join, versions)
        .await?;
    let mut response = prepare_join_event::v1::Response::new(template.event);
    response.room_version = Some(template.room_version);
    Ok(response)
}

/// [`GET /make_leave/{roomId}/{userId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_leaveroomiduserid).
pub(super) async fn prepare_leave_event(
    server: Server,
    call: Call<prepare_leave_event::v1::Request>,
) -> Result<prepare_leave_event::v1::Response> {
    let (room_id, user_id) = (&call.room_id, &call.user_id);
    let leave = Membership::Leave;
    let template = server
        .rooms
        .member_template(&call.caller, room_id, user_id, leave, None)
        .await?;
    let version = Some(template.room_version);
    Ok(prepare_leave_event::v1::Response::new(
        version,
        template.event,
    ))
}

/// [`GET /make_knock/{roomId}/{userId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1make_knockroomiduserid).
pub(super) async fn prepare_knock_event(
    server: Server,
    call: Call<prepare_knock_event::v1::Request>,
) -> Result<prepare_knock_event::v1::Response> {
    let (room_id, user_id, versions) = (&call.room_id, &call.user_id, Some(&*call.ver));
    let knock = Membership::Knock;
    let template = server
        .rooms
        .member_template(&call.caller, room_id, user_id, knock, versions)
        .await?;
    let (version, event) = (template.room_version, template.event);
    Ok(prepare_knock_event::v1::Response::new(version, event))
}

/// [`PUT /send_join/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid).
pub(super) async fn create_join_event(
    server: Server,
    call: Call<create_join_event::v2::Request>,
) -> Result<Written> {
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let join = Membership::Join;
    let joined = server
        .rooms
        .take_member(&call.caller, room_id, event_id, &call.pdu, join)
        .await?;
    let omit = call.omit_members;
    let answer = server.rooms.answer_to_join(&joined, omit).await?;
    Ok(Written(written_join(&answer).into()))
}

/// `PUT /v1/send_join/{roomId}/{eventId}`: the same, its answer in a list behind a status.
///
/// NOTSPEC: gone from the specification since 1.12; old servers and Complement ask for it.
pub(super) async fn create_join_event_v1(
    server: Server,
    call: Call<v1::create_join_event::Request>,
) -> Result<Written> {
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let join = Membership::Join;
    let joined = server
        .rooms
        .take_member(&call.caller, room_id, event_id, &call.pdu, join)
        .await?;
    let answer = server.rooms.answer_to_join(&joined, false).await?;
    Ok(Written(
        [b"[200,", &*written_join(&answer), b"]"].concat().into(),
    ))
}

/// [`PUT /send_leave/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid).
pub(super) async fn create_leave_event(
    server: Server,
    call: Call<create_leave_event::v2::Request>,
) -> Result<create_leave_event::v2::Response> {
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let leave = Membership::Leave;
    server
        .rooms
        .take_member(&call.caller, room_id, event_id, &call.pdu, leave)
        .await?;
    Ok(create_leave_event::v2::Response::new())
}

/// `PUT /v1/send_leave/{roomId}/{eventId}`: the same, its answer in a list behind a status.
///
/// NOTSPEC: gone from the specification since 1.12; old servers and Complement ask for it.
pub(super) async fn create_leave_event_v1(
    server: Server,
    call: Call<v1::create_leave_event::Request>,
) -> Result<Written> {
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let leave = Membership::Leave;
    server
        .rooms
        .take_member(&call.caller, room_id, event_id, &call.pdu, leave)
        .await?;
    Ok(Written(Bytes::from_static(b"[200,{}]")))
}

/// [`PUT /send_knock/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid).
pub(super) async fn create_knock_event(
    server: Server,
    call: Call<create_knock_event::v1::Request>,
) -> Result<Written> {
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let knock = Membership::Knock;
    let knocked = server
        .rooms
        .take_member(&call.caller, room_id, event_id, &call.pdu, knock)
        .await?;
    let seen = server.rooms.answer_to_knock(&knocked.room).await?;
    let mut answer = b"{\"knock_room_state\":".to_vec();
    write_list(&mut answer, &seen);
    answer.push(b'}');
    Ok(Written(answer.into()))
}

/// [`PUT /v2/invite/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid).
pub(super) async fn create_invite_v2(
    server: Server,
    call: Call<create_invite::v2::Request>,
) -> Result<Written> {
    let request = call.request;
    let invite = BroughtInvite {
        room_id: request.room_id,
        event_id: request.event_id,
        room_version: Some(request.room_version),
        event: request.event,
        room_state: request
            .invite_room_state
            .into_iter()
            .filter_map(raw_of)
            .collect(),
    };
    count(&server, &invite)?;
    let event = server.rooms.take_invite(&call.caller, invite).await?;
    let answer = [b"{\"event\":", &*event, b"}"].concat();
    Ok(Written(answer.into()))
}

/// [`PUT /v1/invite/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1inviteroomideventid),
/// for rooms of versions 1 and 2, which it does not tell apart: neither do we, as nothing but the resolution of
/// states differs, and that of a room which we are not in yet is not ours to do. Where we are in the room it is read by
/// the rules of the room, whatever its version.
pub(super) async fn create_invite_v1(
    server: Server,
    call: Call<create_invite::v1::Request>,
) -> Result<Written> {
    let invite = old_invite(call.room_id.clone(), call.event_id.clone(), &call.body)?;
    count(&server, &invite)?;
    let event = server.rooms.take_invite(&call.caller, invite).await?;
    let answer = [b"[200,{\"event\":", &*event, b"}]"].concat();
    Ok(Written(answer.into()))
}

/// Counts an invite, as those are counted that people of this server make: whoever makes them, they cost the one who
/// is invited as much.
///
/// # Errors
///
/// 429 `M_LIMIT_EXCEEDED` if there were too many lately.
fn count(server: &Server, invite: &BroughtInvite) -> Result<()> {
    #[derive(Deserialize)]
    struct Event {
        state_key: String,
    }
    // One that says no such thing is refused for that.
    if let Ok(event) = serde_json::from_str::<Event>(invite.event.get()) {
        server.count_from_afar(Action::InvitesOfUser, &event.state_key)?;
    }
    server.count_from_afar(Action::InvitesToRoom, invite.room_id.as_str())
}

/// An invite whose room is described in its `unsigned`.
fn old_invite(room_id: OwnedRoomId, event_id: OwnedEventId, body: &[u8]) -> Result<BroughtInvite> {
    #[derive(Default, Deserialize)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<Box<RawValue>>,
    }
    #[derive(Deserialize)]
    struct Event {
        #[serde(default)]
        unsigned: Unsigned,
    }
    let bad = |fault: serde_json::Error| error::bad_json(fault.to_string());
    let event: Event = serde_json::from_slice(body).map_err(bad)?;
    Ok(BroughtInvite {
        room_id,
        event_id,
        room_version: None,
        event: serde_json::from_slice(body).map_err(bad)?,
        room_state: event.unsigned.invite_room_state,
    })
}

fn raw_of(told: RawStrippedState) -> Option<Box<RawValue>> {
    match told {
        RawStrippedState::Pdu(event) => Some(event),
        #[allow(deprecated)]
        RawStrippedState::Stripped(event) => Some(event.into_json()),
        _ => None,
    }
}

/// The answer to a `send_join`, from events that are JSON already.
fn written_join(answer: &JoinAnswer) -> Vec<u8> {
    let all = answer.state.iter().chain(&answer.auth_chain);
    let length: usize = all.map(|event| event.len() + 1).sum();
    let mut body = Vec::with_capacity(length + answer.event.len() + 200);
    body.extend_from_slice(b"{\"state\":");
    write_list(&mut body, &answer.state);
    body.extend_from_slice(b",\"auth_chain\":");
    write_list(&mut body, &answer.auth_chain);
    body.extend_from_slice(b",\"event\":");
    body.extend_from_slice(&answer.event);
    if let Some(servers) = &answer.servers_in_room {
        body.extend_from_slice(b",\"members_omitted\":true,\"servers_in_room\":");
        // Names of servers have no way to be no JSON.
        body.extend(serde_json::to_vec(servers).unwrap_or_default());
    }
    body.push(b'}');
    body
}

fn write_list(body: &mut Vec<u8>, events: &[Bytes]) {
    body.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    body.push(b']');
}
