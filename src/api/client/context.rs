//! The events around an event.

use error::Result;
use rooms::{PlaceToken, Span};
use ruma::api::{Direction, client::context::get_context};

use super::reading::Reading;
use crate::{Call, Server};

/// The most events around one.
const MOST: usize = 100;

/// [`GET /rooms/{roomId}/context/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid).
pub(super) async fn get_context(
    server: Server,
    call: Call<get_context::v3::Request>,
) -> Result<get_context::v3::Response> {
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let none = || error::not_found("There is no such event here, or you may not see it");
    let event = room
        .find_event(&server.rooms, snapshot, &call.event_id)
        .await?
        .ok_or_else(none)?;
    let alone = std::slice::from_ref(&event);
    let visible = room.visible(snapshot, viewer, look, alone).await?;
    let place = event.row.header.place.ok_or_else(none)?;
    if visible != [true] {
        return Err(none());
    }
    let limit = usize::try_from(u64::from(call.limit))
        .unwrap_or(MOST)
        .min(MOST);
    let page = |from, direction, limit| {
        let span = Span {
            from,
            to: None,
            direction,
            limit,
        };
        room.timeline(snapshot, viewer, look, span, &call.filter)
    };
    let before = page(PlaceToken::before(place), Direction::Backward, limit / 2).await?;
    let after = page(PlaceToken(place), Direction::Forward, limit - limit / 2).await?;

    let last = after.events.last().unwrap_or(&event);
    let root = last.roots.after;
    let shown: Vec<_> = before
        .events
        .iter()
        .chain(alone)
        .chain(&after.events)
        .collect();
    let state = if !call.filter.lazy_load_options.is_disabled() {
        reading.senders(root, &shown).await?
    } else {
        room.state_at(snapshot, root, None).await?
    };
    let mut response = get_context::v3::Response::new();
    let start = before
        .events
        .last()
        .and_then(|event| event.row.header.place)
        .unwrap_or(place);
    let end = last.row.header.place.unwrap_or(place);
    response.start = Some(PlaceToken::before(start).to_string());
    response.end = Some(PlaceToken(end).to_string());
    response.events_before = reading.events(&before.events).await?;
    response.event = reading.events(alone).await?.pop();
    response.events_after = reading.events(&after.events).await?;
    response.state = reading.events(&state).await?;
    Ok(response)
}
