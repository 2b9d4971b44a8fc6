//! Messages of a room.

use error::Result;
use rooms::{Draft, Group};
use ruma::api::client::message::send_message_event;

use super::{check_not_suspended, the_event, transaction::transaction};
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
    Ok(send_message_event::v3::Response::new(event_id))
}
