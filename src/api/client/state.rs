//! The state of a room.

use error::Result;
use rooms::{Draft, Group};
use ruma::api::client::state::send_state_event;

use super::{check_not_suspended, the_event};
use crate::{Call, Server};

/// [`PUT /rooms/{roomId}/state/{eventType}/{stateKey}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey).
pub(super) async fn send_state_event(
    server: Server,
    call: Call<send_state_event::v3::Request>,
) -> Result<send_state_event::v3::Response> {
    check_not_suspended(&call.caller)?;
    let request = call.request;
    let room = server.rooms.room(&request.room_id).await?;
    let draft = Draft::state(
        call.caller.user_id.clone(),
        request.event_type,
        request.state_key,
        request.body.into_json(),
    );
    let event_id = the_event(server.rooms.send(&room, Group::one(draft)).await?)?;
    Ok(send_state_event::v3::Response::new(event_id))
}
