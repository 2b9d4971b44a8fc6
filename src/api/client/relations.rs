//! Events that relate to an event.

use error::Result;
use rooms::{Page, PlaceToken, RECURSION_DEPTH, Related, Span};
use ruma::{
    EventId, RoomId, UInt,
    api::{
        Direction,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type,
            get_relating_events_with_rel_type_and_event_type,
        },
    },
    events::AnyMessageLikeEvent,
    serde::Raw,
};
use storage::schema::Place;
use users::Requester;

use super::reading::Reading;
use crate::{Call, Server};

/// How many events a page has if the client does not say, and at most.
const PAGE: usize = 5;
const MOST: usize = 100;

/// What is asked, by whichever of the endpoints.
struct Asked<'a> {
    room_id: &'a RoomId,
    event_id: &'a EventId,
    related: Related<'a>,
    from: Option<&'a str>,
    to: Option<&'a str>,
    direction: Direction,
    limit: Option<UInt>,
}

/// What is answered.
struct Found {
    chunk: Vec<Raw<AnyMessageLikeEvent>>,
    next_batch: Option<String>,
    prev_batch: Option<String>,
    recursion_depth: Option<UInt>,
}

macro_rules! respond {
    ($module:ident, $found:expr) => {{
        let found: Found = $found;
        let mut response = $module::v1::Response::new(found.chunk);
        response.next_batch = found.next_batch;
        response.prev_batch = found.prev_batch;
        response.recursion_depth = found.recursion_depth;
        Ok(response)
    }};
}

/// [`GET /rooms/{roomId}/relations/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid).
pub(super) async fn get_relating_events(
    server: Server,
    call: Call<get_relating_events::v1::Request>,
) -> Result<get_relating_events::v1::Response> {
    let asked = Asked {
        room_id: &call.room_id,
        event_id: &call.event_id,
        related: Related {
            recurse: call.recurse,
            ..Related::default()
        },
        from: call.from.as_deref(),
        to: call.to.as_deref(),
        direction: call.dir,
        limit: call.limit,
    };
    respond!(
        get_relating_events,
        find(&server, &call.caller, asked).await?
    )
}

/// [`GET /rooms/{roomId}/relations/{eventId}/{relType}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype).
pub(super) async fn get_relating_events_with_rel_type(
    server: Server,
    call: Call<get_relating_events_with_rel_type::v1::Request>,
) -> Result<get_relating_events_with_rel_type::v1::Response> {
    let rel_type = call.rel_type.to_string();
    let asked = Asked {
        room_id: &call.room_id,
        event_id: &call.event_id,
        related: Related {
            rel_type: Some(&rel_type),
            event_type: None,
            recurse: call.recurse,
        },
        from: call.from.as_deref(),
        to: call.to.as_deref(),
        direction: call.dir,
        limit: call.limit,
    };
    respond!(
        get_relating_events_with_rel_type,
        find(&server, &call.caller, asked).await?
    )
}

/// [`GET /rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype).
pub(super) async fn get_relating_events_with_rel_type_and_event_type(
    server: Server,
    call: Call<get_relating_events_with_rel_type_and_event_type::v1::Request>,
) -> Result<get_relating_events_with_rel_type_and_event_type::v1::Response> {
    let (rel_type, event_type) = (call.rel_type.to_string(), call.event_type.to_string());
    let asked = Asked {
        room_id: &call.room_id,
        event_id: &call.event_id,
        related: Related {
            rel_type: Some(&rel_type),
            event_type: Some(&event_type),
            recurse: call.recurse,
        },
        from: call.from.as_deref(),
        to: call.to.as_deref(),
        direction: call.dir,
        limit: call.limit,
    };
    respond!(
        get_relating_events_with_rel_type_and_event_type,
        find(&server, &call.caller, asked).await?
    )
}

/// How many events a client wants on a page.
pub(super) fn page_limit(limit: Option<UInt>) -> Result<usize> {
    let limit = limit.map(|limit| usize::try_from(u64::from(limit)).unwrap_or(MOST));
    match limit {
        Some(0) => Err(error::invalid_param("`limit` is at least 1")),
        limit => Ok(limit.unwrap_or(PAGE).min(MOST)),
    }
}

async fn find(server: &Server, requester: &Requester, asked: Asked<'_>) -> Result<Found> {
    let limit = page_limit(asked.limit)?;
    let reading = Reading::begin(server, requester, asked.room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let from = match asked.from {
        Some(token) => reading.boundary(token).await?,
        None if asked.direction == Direction::Backward => PlaceToken(Place::END),
        None => PlaceToken(Place::START),
    };
    let to = match asked.to {
        Some(token) => Some(reading.boundary(token).await?),
        None => None,
    };
    let span = Span {
        from,
        to,
        direction: asked.direction,
        limit,
    };
    let page: Page = room
        .related(
            &server.rooms,
            snapshot,
            (viewer, look),
            asked.event_id,
            asked.related,
            span,
        )
        .await?;
    Ok(Found {
        chunk: reading.events(&page.events).await?,
        next_batch: page.next.map(|next| next.to_string()),
        prev_batch: asked.from.map(str::to_owned),
        recursion_depth: asked.related.recurse.then_some(UInt::from(RECURSION_DEPTH)),
    })
}
