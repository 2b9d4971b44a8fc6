//! Single events, the state at them, and what lies between them, for other servers.

use bytes::Bytes;
use error::Result;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, UInt,
    api::federation::event::{
        get_event, get_event_by_timestamp, get_missing_events, get_room_state, get_room_state_ids,
    },
};
use serde_json::value::RawValue;

use crate::{Call, Server, endpoint::Written};

/// [`GET /event/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid).
pub(super) async fn get_event(
    server: Server,
    call: Call<get_event::v1::Request>,
) -> Result<get_event::v1::Response> {
    let event = server
        .rooms
        .serve_event(&call.caller, &call.event_id)
        .await?;
    let name = server.rooms.server_name().to_owned();
    let now = server.clock.now();
    Ok(get_event::v1::Response::new(name, now, raw_event(&event)?))
}

/// [`GET /state/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid).
pub(super) async fn get_room_state(
    server: Server,
    call: Call<get_room_state::v1::Request>,
) -> Result<Written> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let served = serving.state(&call.event_id).await?;
    // Too many to be looked at again, one by one: they are canonical JSON.
    let mut body = Vec::new();
    body.extend_from_slice(b"{\"auth_chain\":[");
    append(&mut body, &served.auth_chain);
    body.extend_from_slice(b"],\"pdus\":[");
    append(&mut body, &served.state);
    body.extend_from_slice(b"]}");
    Ok(Written(body.into()))
}

fn append(body: &mut Vec<u8>, events: &[Bytes]) {
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
}

/// [`GET /state_ids/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid).
pub(super) async fn get_room_state_ids(
    server: Server,
    call: Call<get_room_state_ids::v1::Request>,
) -> Result<get_room_state_ids::v1::Response> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let served = serving.state_ids(&call.event_id).await?;
    let (chain, state) = (ids(&served.auth_chain)?, ids(&served.state)?);
    Ok(get_room_state_ids::v1::Response::new(chain, state))
}

fn ids(texts: &[String]) -> Result<Vec<OwnedEventId>> {
    let ids = texts.iter().map(EventId::parse);
    ids.collect::<Result<_, _>>().map_err(error::internal)
}

/// [`POST /get_missing_events/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid).
pub(super) async fn get_missing_events(
    server: Server,
    call: Call<get_missing_events::v1::Request>,
) -> Result<get_missing_events::v1::Response> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let limit = usize::try_from(u64::from(call.limit)).unwrap_or(usize::MAX);
    let (earliest, latest) = (&call.earliest_events, &call.latest_events);
    let events = serving.missing_events(earliest, latest, limit, call.min_depth.into());
    let events = raw_events(&events.await?)?;
    Ok(get_missing_events::v1::Response::new(events))
}

/// [`GET /timestamp_to_event/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1timestamp_to_eventroomid).
pub(super) async fn get_event_by_timestamp(
    server: Server,
    call: Call<get_event_by_timestamp::v1::Request>,
) -> Result<get_event_by_timestamp::v1::Response> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let found = serving
        .nearest_in_time(call.ts.get().into(), call.dir)
        .await?;
    let (id, time) = found.ok_or_else(|| {
        error::not_found("There is no event in this direction that your server may see")
    })?;
    let id = EventId::parse(id).map_err(error::internal)?;
    let time = MilliSecondsSinceUnixEpoch(UInt::new_saturating(time));
    Ok(get_event_by_timestamp::v1::Response::new(id, time))
}

/// Events as they lie, to be put into an answer.
pub(super) fn raw_events(events: &[Bytes]) -> Result<Vec<Box<RawValue>>> {
    events.iter().map(raw_event).collect()
}

fn raw_event(event: &Bytes) -> Result<Box<RawValue>> {
    let text = String::from_utf8(event.to_vec()).map_err(error::internal)?;
    RawValue::from_string(text).map_err(error::internal)
}
