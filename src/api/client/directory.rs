//! Published rooms.

use error::Result;
use ruma::api::client::{
    directory::{get_room_visibility, set_room_visibility},
    room::Visibility,
};

use super::{check_not_suspended, joined_room};
use crate::{Call, Server};

/// [`GET /directory/list/room/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3directorylistroomroomid).
pub(super) async fn get_room_visibility(
    server: Server,
    call: Call<get_room_visibility::v3::Request>,
) -> Result<get_room_visibility::v3::Response> {
    let room = server.rooms.find_room(&call.room_id).await?;
    let room = room.ok_or_else(|| error::not_found("This server does not know this room"))?;
    let visibility = match server.rooms.is_public(&room).await? {
        true => Visibility::Public,
        false => Visibility::Private,
    };
    Ok(get_room_visibility::v3::Response::new(visibility))
}

/// [`PUT /directory/list/room/{roomId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directorylistroomroomid).
pub(super) async fn set_room_visibility(
    server: Server,
    call: Call<set_room_visibility::v3::Request>,
) -> Result<set_room_visibility::v3::Response> {
    check_not_suspended(&call.caller)?;
    let caller = &call.caller;
    let room = if caller.admin {
        server.rooms.room(&call.room_id).await?
    } else {
        let room = joined_room(&server, &call.room_id, &caller.user_id).await?;
        let may = server
            .rooms
            .may_send_state(&room, &caller.user_id, "m.room.canonical_alias")
            .await?;
        if !may {
            return Err(error::forbidden(
                "You lack the power over the room's aliases, and so over its place in the directory",
            ));
        }
        room
    };
    let public = match call.request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => {
            return Err(error::invalid_param(format!(
                "There is no visibility {other:?}; choose public or private"
            )));
        }
    };
    server.rooms.set_public(&room, public).await?;
    Ok(set_room_visibility::v3::Response::new())
}
