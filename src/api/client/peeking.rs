//! Looking into rooms without joining them, by the few old ways of reading that the specification keeps for
//! it.

use std::time::Duration;

use error::Result;
use rooms::{Page, PlaceToken, Wanted};
use ruma::{
    RoomId,
    api::{
        Direction,
        client::{
            filter::RoomEventFilter,
            peeking::get_current_state::{self, v3::PaginationChunk},
            room::Visibility,
        },
    },
    events::room::member::MembershipState,
    serde::Raw,
};
use storage::Topic;
use tokio::time::Instant;

use super::{old_sync::listen_to_new_events, reading::Reading};
use crate::{Call, Server};

/// Events of the timeline that are told of a room at first.
const FIRST_EVENTS: usize = 20;
/// Events that one poll brings.
const EVENTS_MAX: usize = 100;
/// The longest wait of one poll.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);

/// [`GET /rooms/{roomId}/initialSync`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidinitialsync).
pub(super) async fn get_current_state(
    server: Server,
    call: Call<get_current_state::v3::Request>,
) -> Result<get_current_state::v3::Response> {
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let (room, look) = (&reading.room, &reading.look);
    let filter = RoomEventFilter::default();
    let wanted = Wanted {
        to: None,
        direction: Direction::Backward,
        limit: FIRST_EVENTS,
        filter: &filter,
        relations: None,
    };
    let (_, end, mut page) = room
        .look_at_page(&reading.snapshot, &reading.viewer, None, &wanted)
        .await?;
    page.events.reverse();
    let chunk = reading.events(&page.events).await?;
    let mut messages = PaginationChunk::new(chunk, end.to_string());
    messages.start = page.next.map(|next| next.to_string());
    let numbers = reading.state_numbers(look.root()?).await?;
    let mut response = get_current_state::v3::Response::new(call.room_id.clone());
    response.membership = look
        .membership()
        .map(|membership| MembershipState::from(membership.as_str()));
    response.messages = Some(messages);
    response.state = reading.state_of(&numbers, |_| true).await?;
    response.visibility = Some(match server.rooms.is_public(room).await? {
        true => Visibility::Public,
        false => Visibility::Private,
    });
    let data = server
        .users
        .account_data(call.caller.user, Some(room.short))
        .await?;
    response.account_data = data
        .into_iter()
        .map(|data| account_data_event(&data))
        .collect::<Result<_>>()?;
    Ok(response)
}

fn account_data_event<T>(data: &users::AccountData) -> Result<Raw<T>> {
    let event = users::account_data_event(&data.event_type, data.content.get())?;
    Ok(Raw::from_json(event))
}

/// Listens to one room ([spec](https://spec.matrix.org/v1.19/client-server-api/#peek_events_endpoint)).
pub(super) async fn listen(
    server: &Server,
    call: &Call<listen_to_new_events::v3::Request>,
    room_id: &RoomId,
) -> Result<listen_to_new_events::v3::Response> {
    let timeout = call.timeout.unwrap_or_default().min(LONGEST_WAIT);
    let end = Instant::now() + timeout;
    let room = server.rooms.room(room_id).await?;
    let waiting = server.storage.subscribe(&[Topic::Room(room.short)]);
    let mut from = None;
    loop {
        waiting.take();
        let reading = Reading::begin(server, &call.caller, room_id).await?;
        let start = match from {
            Some(from) => from,
            None => match &call.from {
                Some(token) => reading.boundary(token).await?,
                None => PlaceToken(reading.look.end()?),
            },
        };
        from = Some(start);
        let page = new_events(&reading, start).await?;
        let late = Instant::now() >= end;
        if late || !page.events.is_empty() {
            let last = page.events.last().and_then(|last| last.row.header.place);
            return Ok(listen_to_new_events::v3::Response {
                chunk: reading.events(&page.events).await?,
                start: start.to_string(),
                end: last.map_or(start, PlaceToken).to_string(),
            });
        }
        drop(reading);
        tokio::select! {
            _ = waiting.woken() => {}
            () = tokio::time::sleep_until(end) => {}
            () = server.shutdown.begun() => return Err(error::unknown(
                http::StatusCode::SERVICE_UNAVAILABLE,
                "The server is about to stop",
            )),
        }
    }
}

/// What came after a boundary.
async fn new_events(reading: &Reading, from: PlaceToken) -> Result<Page> {
    let filter = RoomEventFilter::default();
    let wanted = Wanted {
        to: None,
        direction: Direction::Forward,
        limit: EVENTS_MAX,
        filter: &filter,
        relations: None,
    };
    let (_, _, page) = reading
        .room
        .look_at_page(&reading.snapshot, &reading.viewer, Some(from), &wanted)
        .await?;
    Ok(page)
}
