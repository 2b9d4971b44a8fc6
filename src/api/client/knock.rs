//! Knocking.

use error::Result;
use ruma::api::client::knock::knock_room;

use super::membership::{because, count_join, known_room, resolve};
use crate::{Call, Server};

/// [`POST /knock/{roomIdOrAlias}`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias).
pub(super) async fn knock_room(
    server: Server,
    call: Call<knock_room::v3::Request>,
) -> Result<knock_room::v3::Response> {
    let request = call.request;
    let room_id = resolve(&server, &request.room_id_or_alias).await?;
    let room = known_room(&server, &room_id).await?;
    count_join(&server, &room, &call.caller)?;
    let said = because(request.reason);
    server
        .rooms
        .knock(&room, &call.caller.user_id, said)
        .await?;
    Ok(knock_room::v3::Response::new(room_id))
}
