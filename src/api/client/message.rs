//! Messages of a room: sending them, and reading the timeline.

use error::Result;
use rooms::{Draft, Group, PlaceToken, Span};
use ruma::api::{
    Direction,
    client::message::{get_message_events, send_message_event},
};
use storage::schema::Place;

use super::{
    check_not_suspended,
    reading::{Reading, viewer},
    the_event,
    transaction::transaction,
};
use crate::{Call, Server};

/// [`PUT /rooms/{roomId}/send/{eventType}/{txnId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid).
pub(super) async fn send_message_event(
    server: Server,
    call: Call<send_message_event::v3::Request>,
) -> Result<send_message_event::v3::Response> {
    check_not_suspended(&call.caller)?;
    let request = call.request;
    let event_type = request.event_type.to_string();
    let action = ["send", request.room_id.as_str(), &event_type];
    let (once, sent) = transaction(&server, &call.caller, &action, &request.txn_id)?;
    let room = server.rooms.room(&request.room_id).await?;
    let sender = call.caller.user_id.clone();
    let draft = Draft {
        sent: Some(sent),
        ..Draft::message(sender, request.event_type, request.body.into_json())
    };
    let mut group = Group::one(draft);
    group.once = Some(once);
    let event_id = the_event(server.rooms.send(&room, group).await?)?;
    let sender = viewer(&server, &call.caller);
    server.rooms.is_active(&sender).await;
    Ok(send_message_event::v3::Response::new(event_id))
}

/// The most events on a page.
const MOST: usize = 1_000;

/// [`GET /rooms/{roomId}/messages`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages).
pub(super) async fn get_message_events(
    server: Server,
    call: Call<get_message_events::v3::Request>,
) -> Result<get_message_events::v3::Response> {
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let from = match (&call.from, call.dir) {
        (Some(token), _) => reading.boundary(token).await?,
        (None, Direction::Backward) => PlaceToken(reading.look.end()?),
        (None, Direction::Forward) => PlaceToken(Place::START),
    };
    let to = match &call.to {
        Some(token) => Some(reading.boundary(token).await?),
        None => None,
    };
    let limit = call.filter.limit.unwrap_or(call.limit).min(call.limit);
    let span = Span {
        from,
        to,
        direction: call.dir,
        limit: usize::try_from(u64::from(limit))
            .unwrap_or(MOST)
            .clamp(1, MOST),
    };
    let page = reading
        .room
        .timeline(
            &reading.snapshot,
            &reading.viewer,
            &reading.look,
            span,
            &call.filter,
        )
        .await?;
    let mut response = get_message_events::v3::Response::new();
    if !call.filter.lazy_load_options.is_disabled()
        && let Some(first) = page.events.first()
    {
        let events: Vec<_> = page.events.iter().collect();
        let members = reading.senders(first.roots.after, &events).await?;
        response.state = reading.events(&members).await?;
    }
    response.start = from.to_string();
    response.end = page.next.map(|next| next.to_string());
    response.chunk = reading.events(&page.events).await?;
    Ok(response)
}
