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

/// An endpoint that answers with a page of related events, of those that it names.
macro_rules! relating {
    ($(#[$doc:meta])* $name:ident, $call:ident => $rel_type:expr, $event_type:expr) => {
        $(#[$doc])*
        pub(super) async fn $name(
            server: Server,
            $call: Call<$name::v1::Request>,
        ) -> Result<$name::v1::Response> {
            let related = Related {
                rel_type: $rel_type,
                event_type: $event_type,
                recurse: $call.recurse,
            };
            let asked = Asked {
                room_id: &$call.room_id,
                event_id: &$call.event_id,
                related,
                from: $call.from.as_deref(),
                to: $call.to.as_deref(),
                direction: $call.dir,
                limit: $call.limit,
            };
            let found = find(&server, &$call.caller, asked).await?;
            let mut response = $name::v1::Response::new(found.chunk);
            response.next_batch = found.next_batch;
            response.prev_batch = $call.from.clone();
            response.recursion_depth = related.recurse.then_some(UInt::from(RECURSION_DEPTH));
            Ok(response)
        }
    };
}

relating! {
    /// [`GET /rooms/{roomId}/relations/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid).
    get_relating_events, call => None, None
}

relating! {
    /// [`GET /rooms/{roomId}/relations/{eventId}/{relType}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype).
    get_relating_events_with_rel_type, call => Some(call.rel_type.as_str()), None
}

relating! {
    /// [`GET /rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype).
    get_relating_events_with_rel_type_and_event_type,
    call => Some(call.rel_type.as_str()), Some(&call.event_type.to_string())
}

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

/// What is found.
struct Found {
    chunk: Vec<Raw<AnyMessageLikeEvent>>,
    next_batch: Option<String>,
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
    })
}
