//! Small questions: who somebody is, which room an alias means.

use error::Result;
use ruma::{
    RoomId,
    api::federation::query::{
        get_custom_information, get_profile_information, get_room_information,
    },
};
use serde_json::{Map, Value};

use crate::{Call, Server, client::alias::servers_of, endpoint::Written};

/// [`GET /_matrix/federation/v1/query/profile`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile).
pub(super) async fn get_profile_information(
    server: Server,
    call: Call<get_profile_information::v1::Request>,
) -> Result<Written> {
    if call.user_id.server_name() != server.federation.server_name() {
        return Err(error::not_found("This user is of another server"));
    }
    let profile = server.users.find_profile(&call.user_id).await?;
    let profile = profile.ok_or_else(|| error::not_found("There is no such user here"))?;
    let wanted = call.field.as_ref().map(|field| field.as_str());
    let fields = profile.into_iter();
    let fields: Map<String, Value> = fields
        .filter(|(field, _)| wanted.is_none_or(|wanted| wanted == field))
        .collect();
    let json = serde_json::to_vec(&fields).map_err(error::internal)?;
    Ok(Written(json.into()))
}

/// [`GET /_matrix/federation/v1/query/directory`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1querydirectory).
pub(super) async fn get_room_information(
    server: Server,
    call: Call<get_room_information::v1::Request>,
) -> Result<get_room_information::v1::Response> {
    let row = server.rooms.find_alias(&call.room_alias).await?;
    let row = row.ok_or_else(|| {
        error::not_found(format!("There is no room alias {} here", call.room_alias))
    })?;
    let room_id = RoomId::parse(row.room_id).map_err(error::internal)?;
    let servers = servers_of(&server, &room_id).await?;
    Ok(get_room_information::v1::Response::new(room_id, servers))
}

/// [`GET /_matrix/federation/v1/query/{queryType}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryquerytype):
/// of no type but those above.
pub(super) async fn get_custom_information(
    _: Server,
    call: Call<get_custom_information::v1::Request>,
) -> Result<get_custom_information::v1::Response> {
    Err(error::not_found(format!(
        "This server answers no queries of the type {:.100}",
        call.query_type
    )))
}
