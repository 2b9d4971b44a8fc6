//! Knocking.

use error::Result;
use ruma::api::client::knock::knock_room;

use super::membership::{because, count_join, resolve};
use crate::{Call, Server};

/// [`POST /knock/{roomIdOrAlias}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias).
pub(super) async fn knock_room(
    server: Server,
    call: Call<knock_room::v3::Request>,
) -> Result<knock_room::v3::Response> {
    let request = call.request;
    let (room_id, via) = resolve(&server, &request.room_id_or_alias, &request.via).await?;
    count_join(&server, &room_id, &call.caller)?;
    let said = because(request.reason);
    let user = &call.caller.user_id;
    server.rooms.knock(&room_id, user, &via, said).await?;
    Ok(knock_room::v3::Response::new(room_id))
}
