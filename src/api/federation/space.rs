//! Spaces and their rooms.

use error::Result;
use ruma::{RoomId, api::federation::space::get_hierarchy};
use serde::Serialize;

use crate::{
    Call, Server,
    client::space::{SpaceRoom, Summary},
    endpoint::Written,
};

/// [`GET /_matrix/federation/v1/hierarchy/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid).
pub(super) async fn get_hierarchy(
    server: Server,
    call: Call<get_hierarchy::v1::Request>,
) -> Result<Written> {
    #[derive(Serialize)]
    struct Answer<'a> {
        room: SpaceRoom<'a>,
        children: Vec<Summary<'a>>,
        inaccessible_children: Vec<&'a RoomId>,
    }
    let found = server
        .rooms
        .space_for(&call.caller, &call.room_id, call.suggested_only)
        .await?;
    // Whether there is such a room is not told.
    let found = found.ok_or_else(|| {
        error::not_found("This room is not open to your server, or not known here")
    })?;
    let answer = Answer {
        room: SpaceRoom::of(&found.room),
        children: found.children.iter().map(Summary::of).collect(),
        inaccessible_children: found.inaccessible.iter().map(AsRef::as_ref).collect(),
    };
    let json = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(json.into()))
}
