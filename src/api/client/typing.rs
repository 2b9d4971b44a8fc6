//! Typing.

use error::Result;
use ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use super::{check_own, joined_room};
use crate::{Call, Server};

/// [`PUT /rooms/{roomId}/typing/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid).
pub(super) async fn create_typing_event(
    server: Server,
    call: Call<create_typing_event::v3::Request>,
) -> Result<create_typing_event::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let room = joined_room(&server, &call.room_id, &call.user_id).await?;
    let lasts = match &call.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    server.rooms.set_typing(&room, &call.user_id, lasts);
    Ok(create_typing_event::v3::Response::new())
}
