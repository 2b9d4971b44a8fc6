//! Where this server is.

use error::Result;
use ruma::api::federation::discovery::discover_homeserver;

use crate::{Call, Server};

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
