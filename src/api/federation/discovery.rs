//! Where this server is, what it is, and its keys.

use error::Result;
use ruma::{
    OwnedServerName,
    api::federation::discovery::{
        discover_homeserver, get_remote_server_keys, get_remote_server_keys_batch, get_server_keys,
        get_server_version,
    },
};
use serde_json::value::RawValue;

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

/// [`GET /_matrix/key/v2/query/{serverName}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixkeyv2queryservername).
pub(super) async fn get_remote_server_keys(
    server: Server,
    call: Call<get_remote_server_keys::v2::Request>,
) -> Result<Written> {
    let until = call.minimum_valid_until_ts.get().into();
    vouch(&server, vec![(call.server_name.clone(), until)]).await
}

/// [`POST /_matrix/key/v2/query`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixkeyv2query).
pub(super) async fn get_remote_server_keys_batch(
    server: Server,
    call: Call<get_remote_server_keys_batch::v2::Request>,
) -> Result<Written> {
    let now = server.clock.now();
    let wanted = call.server_keys.iter().map(|(name, keys)| {
        let times = keys
            .values()
            .map(|wanted| wanted.minimum_valid_until_ts.unwrap_or(now));
        // Whoever names no key wants those of now.
        let until = times.max().unwrap_or(now);
        (name.clone(), until.get().into())
    });
    vouch(&server, wanted.collect()).await
}

/// What servers said of their keys, signed by us too.
async fn vouch(server: &Server, wanted: Vec<(OwnedServerName, u64)>) -> Result<Written> {
    #[derive(serde::Serialize)]
    struct Answer {
        server_keys: Vec<Box<RawValue>>,
    }
    let answers = server.federation.vouch_for_keys(wanted).await?;
    let answers = answers.into_iter().filter_map(|json| {
        let json = String::from_utf8(json).ok()?;
        RawValue::from_string(json).ok()
    });
    let answer = Answer {
        server_keys: answers.collect(),
    };
    let json = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(json.into()))
}
