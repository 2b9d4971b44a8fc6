//! Typing notifications.

use error::Result;
use ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use super::{check_own, reading::viewer};
use crate::{Call, Server};

/// [`PUT /rooms/{roomId}/typing/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid).
pub(super) async fn create_typing_event(
    server: Server,
    call: Call<create_typing_event::v3::Request>,
) -> Result<create_typing_event::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let viewer = viewer(&server, &call.caller);
    let timeout = match call.state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    let room = server.rooms.room(&call.room_id).await?;
    let snapshot = server.rooms.snapshot().await?;
    room.check_joined(&snapshot, &viewer).await?;
    server.rooms.typing().set(&room, &viewer.user_id, timeout);
    server.rooms.is_active(&viewer).await;
    Ok(create_typing_event::v3::Response::new())
}
