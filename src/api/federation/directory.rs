//! The rooms that this server publishes.

use error::Result;
use rooms::DirectoryPage;
use ruma::{
    api::federation::directory::{get_public_rooms, get_public_rooms_filtered},
    directory::RoomNetwork,
};

use crate::{Call, Server, client::directory, endpoint::Written};

/// [`GET /_matrix/federation/v1/publicRooms`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1publicrooms).
pub(super) async fn get_public_rooms(
    server: Server,
    call: Call<get_public_rooms::v1::Request>,
) -> Result<Written> {
    if let RoomNetwork::ThirdParty(_) = call.room_network {
        return directory::written(&DirectoryPage::default());
    }
    let query = directory::query(call.since.as_deref(), call.limit)?;
    directory::written(&server.rooms.public_rooms_for_servers(&query).await?)
}

/// [`POST /_matrix/federation/v1/publicRooms`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1publicrooms).
pub(super) async fn get_public_rooms_filtered(
    server: Server,
    call: Call<get_public_rooms_filtered::v1::Request>,
) -> Result<Written> {
    if let RoomNetwork::ThirdParty(_) = call.room_network {
        return directory::written(&DirectoryPage::default());
    }
    let query = directory::query(call.since.as_deref(), call.limit)?;
    let query = directory::filtered(query, &call.filter);
    directory::written(&server.rooms.public_rooms_for_servers(&query).await?)
}
