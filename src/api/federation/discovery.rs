//! Where this server is, what it is, and its keys.

use error::Result;
use ruma::api::federation::discovery::{discover_homeserver, get_server_keys, get_server_version};

use crate::{Call, Server, endpoint::Written};

/// [`GET /.well-known/matrix/server`](https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver).
pub(super) async fn discover_homeserver(
    server: Server,
    _: Call<discover_homeserver::Request>,
) -> Result<discover_homeserver::Response> {
    let address = server.config.server.federation_address.clone();
    let address = address.ok_or_else(|| {
        error::not_found("The operator has not said at which address servers find this one")
    })?;
    Ok(discover_homeserver::Response::new(address))
}

/// [`GET /_matrix/key/v2/server`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2server).
pub(super) async fn get_server_keys(
    server: Server,
    _: Call<get_server_keys::v2::Request>,
) -> Result<Written> {
    Ok(Written(server.federation.own_keys_answer().into()))
}

/// [`GET /_matrix/federation/v1/version`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1version).
pub(super) async fn get_server_version(
    _: Server,
    _: Call<get_server_version::v1::Request>,
) -> Result<get_server_version::v1::Response> {
    let mut version = get_server_version::v1::Server::new();
    version.name = Some("Chapar".to_owned());
    version.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = get_server_version::v1::Response::new();
    response.server = Some(version);
    Ok(response)
}
