//! Rooms: making them, and what they are called.

use bytes::Bytes;
use error::Result;
use rooms::{
    InitialState, NewReport, NewRoomRequest, Preset, ReadEvent, ReportKind, UpgradeRequest,
};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedRoomAliasId, OwnedUserId, RoomAliasId, RoomId, UInt,
    api::client::room::{
        Visibility, aliases,
        create_room::{self, v3::RoomPreset},
        get_event_by_timestamp, get_room_event, get_summary, report_content, report_room,
        upgrade_room,
    },
    events::AnyTimelineEvent,
    serde::Raw,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use storage::schema::Membership;
use users::Requester;

use super::{
    joined_room,
    membership::{check_rooms_of, count_invite_of, resolve},
    reading::{Reading, viewer},
    reporting::checked_reason,
    space::Summary,
};
use crate::{Call, Server, endpoint::Written, rate_limit::Action};

/// [`POST /createRoom`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom).
pub(super) async fn create_room(
    server: Server,
    call: Call<create_room::v3::Request>,
) -> Result<create_room::v3::Response> {
    let request = call.request;
    if !request.invite_3pid.is_empty() {
        return Err(no_third_parties());
    }
    count_invites(&server, &call.caller, &request.invite)?;
    check_rooms_of(&server, &call.caller).await?;
    let public = request.visibility == Visibility::Public;
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::PrivateChat,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(RoomPreset::PublicChat) => Preset::PublicChat,
        Some(other) => {
            return Err(error::invalid_param(format!(
                "There is no preset {other:?}; choose private_chat, trusted_private_chat or public_chat",
            )));
        }
        None if public => Preset::PublicChat,
        None => Preset::PrivateChat,
    };
    if let Some(name) = &request.room_alias_name
        && let Ok(alias) = RoomAliasId::parse(format!("#{name}:{}", server.rooms.server_name()))
    {
        server.users.check_alias(&call.caller, &alias)?;
    }
    let default = server.config.server.default_room_version.clone();
    let new = NewRoomRequest {
        creator: call.caller.user_id.clone(),
        version: request.room_version.unwrap_or(default),
        creation_content: match &request.creation_content {
            Some(content) => object(content.json().get(), "creation_content")?,
            None => Map::new(),
        },
        preset,
        public,
        initial_state: request
            .initial_state
            .iter()
            .map(initial_state)
            .collect::<Result<_>>()?,
        invite: request.invite,
        is_direct: request.is_direct,
        name: request.name,
        topic: request.topic,
        alias: request.room_alias_name,
        power_level_content_override: match &request.power_level_content_override {
            Some(content) => Some(object(
                content.json().get(),
                "power_level_content_override",
            )?),
            None => None,
        },
        notices_of: None,
    };
    let room_id = server.rooms.create(new).await?;
    Ok(create_room::v3::Response::new(room_id))
}

/// Counts that people are invited to a new room.
fn count_invites(server: &Server, requester: &Requester, invite: &[OwnedUserId]) -> Result<()> {
    let times = u32::try_from(invite.len()).unwrap_or(u32::MAX);
    server.count(Action::Invite, Some(requester), None, times)?;
    for invitee in invite {
        count_invite_of(server, requester, invitee)?;
    }
    Ok(())
}

/// [`POST /rooms/{roomId}/upgrade`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade).
pub(super) async fn upgrade_room(
    server: Server,
    call: Call<upgrade_room::v3::Request>,
) -> Result<upgrade_room::v3::Response> {
    let room = joined_room(&server, &call.room_id, &call.caller.user_id).await?;
    let upgrade = UpgradeRequest {
        user: call.caller.user_id.clone(),
        version: call.request.new_version,
        additional_creators: call.request.additional_creators,
    };
    let replacement = server.rooms.upgrade(&room, upgrade).await?;
    Ok(upgrade_room::v3::Response::new(replacement))
}

/// [`GET /rooms/{roomId}/aliases`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases).
pub(super) async fn aliases(
    server: Server,
    call: Call<aliases::v3::Request>,
) -> Result<aliases::v3::Response> {
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let found = server.rooms.aliases(&reading.room).await?;
    let found = found
        .iter()
        .map(RoomAliasId::parse)
        .collect::<Result<Vec<OwnedRoomAliasId>, _>>()
        .map_err(error::internal)?;
    Ok(aliases::v3::Response::new(found))
}

/// [`GET /rooms/{roomId}/event/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid).
pub(super) async fn get_room_event(
    server: Server,
    call: Call<get_room_event::v3::Request>,
) -> Result<get_room_event::v3::Response> {
    let event = find_event(&server, &call.caller, &call.room_id, &call.event_id).await?;
    Ok(get_room_event::v3::Response::new(event))
}

/// [`GET /rooms/{roomId}/timestamp_to_event`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event).
pub(super) async fn get_event_by_timestamp(
    server: Server,
    call: Call<get_event_by_timestamp::v1::Request>,
) -> Result<get_event_by_timestamp::v1::Response> {
    let time = u64::from(call.ts.get());
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let mut found = reading.nearest_in_time(time, call.dir).await?;
    let here = found
        .as_ref()
        .map(|event| event.row.header.origin_server_ts);
    let elsewhere = server
        .rooms
        .fetch_nearest(&reading.room, time, call.dir, here)
        .await;
    match elsewhere {
        Ok(false) => {}
        Ok(true) => {
            let again = Reading::begin(&server, &call.caller, &call.room_id).await?;
            found = again.nearest_in_time(time, call.dir).await?;
        }
        Err(error) => tracing::error!(%error, "an event of another server cannot be taken in"),
    }
    let event = found.ok_or_else(|| {
        error::not_found("There is no event from that time on, in that direction, that you may see")
    })?;
    let header = &event.row.header;
    Ok(get_event_by_timestamp::v1::Response::new(
        EventId::parse(&header.event_id).map_err(error::internal)?,
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(header.origin_server_ts)),
    ))
}

/// [`GET /room_summary/{roomIdOrAlias}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias).
pub(super) async fn get_summary(
    server: Server,
    call: Call<get_summary::v1::Request>,
) -> Result<Written> {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(flatten)]
        summary: Summary<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        membership: Option<&'a str>,
    }
    let (room_id, _) = resolve(&server, &call.room_id_or_alias, &call.via).await?;
    let viewer = call.caller.as_ref().map(|caller| viewer(&server, caller));
    let summary = server
        .rooms
        .summary(viewer.as_ref(), &room_id, &call.via)
        .await?;
    let summary = summary
        .ok_or_else(|| error::not_found("There is no such room, or it is not open to you"))?;
    let membership = summary.membership.unwrap_or(Membership::Leave);
    let answer = Answer {
        summary: Summary::of(&summary),
        membership: viewer.map(|_| membership.as_str()),
    };
    let json = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(Bytes::from(json)))
}

/// An event of a room that the requester may see.
///
/// # Errors
///
/// 404 `M_NOT_FOUND`.
pub(super) async fn find_event(
    server: &Server,
    requester: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<Raw<AnyTimelineEvent>> {
    let (reading, event) = seen_event(server, requester, room_id, event_id).await?;
    let written = reading.events(&[event]).await?.pop();
    written.ok_or_else(no_event)
}

/// The same, not yet written, and its room as the requester reads it.
///
/// # Errors
///
/// 404 `M_NOT_FOUND`.
pub(super) async fn seen_event(
    server: &Server,
    requester: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<(Reading, ReadEvent)> {
    // Whoever may not see the event is not told whether it, or the room, exists.
    let room = server.rooms.find_room(room_id).await?;
    room.ok_or_else(no_event)?;
    let reading = Reading::look(server, requester, room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let event = room
        .find_event(&server.rooms, snapshot, event_id)
        .await?
        .ok_or_else(no_event)?;
    let alone = [event];
    if room.visible(snapshot, viewer, look, &alone).await? != [true] {
        return Err(no_event());
    }
    let [event] = alone;
    Ok((reading, event))
}

fn no_event() -> error::Error {
    error::not_found("There is no such event here, or you may not see it")
}

/// [`POST /rooms/{roomId}/report/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid).
pub(super) async fn report_content(
    server: Server,
    call: Call<report_content::v3::Request>,
) -> Result<report_content::v3::Response> {
    let reason = checked_reason(call.reason.as_deref().unwrap_or_default())?;
    let (room_id, event_id) = (&call.room_id, &call.event_id);
    let (reading, event) = seen_event(&server, &call.caller, room_id, event_id).await?;
    if !reading.look.is_joined() {
        return Err(no_event());
    }
    let report = NewReport {
        kind: ReportKind::Event,
        reporter: call.caller.user_id.to_string(),
        reason,
        room_id: Some(room_id.to_string()),
        event_id: Some(event_id.to_string()),
        user_id: Some(event.row.header.sender),
    };
    server.rooms.report(report).await?;
    Ok(report_content::v3::Response::new())
}

/// [`POST /rooms/{roomId}/report`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport).
///
/// Who reports a room that is not here is not told so.
pub(super) async fn report_room(
    server: Server,
    call: Call<report_room::v3::Request>,
) -> Result<report_room::v3::Response> {
    let reason = checked_reason(&call.reason)?;
    if server.rooms.find_room(&call.room_id).await?.is_some() {
        let report = NewReport {
            kind: ReportKind::Room,
            reporter: call.caller.user_id.to_string(),
            reason,
            room_id: Some(call.room_id.to_string()),
            event_id: None,
            user_id: None,
        };
        server.rooms.report(report).await?;
    }
    Ok(report_room::v3::Response::new())
}

/// That nobody can be invited by an address of mail or telephone.
pub(super) fn no_third_parties() -> error::Error {
    error::other(
        http::StatusCode::FORBIDDEN,
        "M_THREEPID_DENIED",
        "This server invites nobody by mail address or telephone number; use a user ID",
    )
}

fn object(json: &str, name: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|_| error::bad_json(format!("{name} is a JSON object")))
}

fn initial_state<T>(event: &Raw<T>) -> Result<InitialState> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(default)]
        state_key: String,
        content: Map<String, Value>,
    }
    let event: Event = serde_json::from_str(event.json().get())
        .map_err(|error| error::bad_json(format!("initial_state: {error}")))?;
    Ok(InitialState {
        event_type: event.event_type,
        state_key: event.state_key,
        content: event.content,
    })
}
