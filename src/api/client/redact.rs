//! Redactions.

use error::Result;
use rooms::{Draft, Group};
use ruma::{EventId, RoomId, api::client::redact::redact_event, events::TimelineEventType};
use serde_json::{json, value::to_raw_value};
use users::Requester;

use super::{the_event, transaction::transaction};
use crate::{Call, Server, suspended};

/// [`PUT /rooms/{roomId}/redact/{eventId}/{txnId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid).
pub(super) async fn redact_event(
    server: Server,
    call: Call<redact_event::v3::Request>,
) -> Result<redact_event::v3::Response> {
    if call.caller.suspended {
        check_own(&server, &call.caller, &call.room_id, &call.event_id).await?;
    }
    let request = call.request;
    let action = [
        "redact",
        request.room_id.as_str(),
        request.event_id.as_str(),
    ];
    let (once, sent) = transaction(&server, &call.caller, &action, &request.txn_id)?;
    let room = server.rooms.room(&request.room_id).await?;
    let content = match request.reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let content = to_raw_value(&content).map_err(error::internal)?;
    let sender = call.caller.user_id.clone();
    let draft = Draft {
        redacts: Some(request.event_id),
        sent: Some(sent),
        ..Draft::message(sender, TimelineEventType::RoomRedaction, content)
    };
    let mut group = Group::one(draft);
    group.once = Some(once);
    let event_id = the_event(server.rooms.send(&room, group).await?)?;
    Ok(redact_event::v3::Response::new(event_id))
}

/// Who is suspended redacts what they sent, and nothing else.
///
/// # Errors
///
/// 403 `M_USER_SUSPENDED`, for an event too that is not here.
pub(super) async fn check_own(
    server: &Server,
    requester: &Requester,
    room_id: &RoomId,
    event_id: &EventId,
) -> Result<()> {
    let Some(room) = server.rooms.find_room(room_id).await? else {
        return Err(suspended::refusal());
    };
    let snapshot = server.rooms.snapshot().await?;
    let event = room.find_event(&server.rooms, &snapshot, event_id).await?;
    match event {
        Some(event) if event.row.header.sender == requester.user_id.as_str() => Ok(()),
        _ => Err(suspended::refusal()),
    }
}
