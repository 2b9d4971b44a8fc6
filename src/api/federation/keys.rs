//! The keys of people of this server, for other servers.

use std::collections::BTreeMap;

use error::Result;
use ruma::{
    OneTimeKeyId,
    api::federation::keys::{claim_keys, get_keys},
    serde::Raw,
};

use crate::{Call, Server};

/// The most users whose keys are asked for in one request.
const USERS: usize = 10_000;

/// [`POST /user/keys/query`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery).
pub(super) async fn get_keys(
    server: Server,
    call: Call<get_keys::v1::Request>,
) -> Result<get_keys::v1::Response> {
    let mut wanted = call.request.device_keys;
    if wanted.len() > USERS {
        return Err(error::invalid_param(format!(
            "The keys of at most {USERS} users can be asked for at once"
        )));
    }
    wanted.retain(|user, _| user.server_name() == server.users.server_name());
    let mut response = get_keys::v1::Response::new(BTreeMap::new());
    for (user, keys) in server.users.query_keys(None, &wanted).await? {
        let devices = keys.devices.into_iter();
        let devices = devices.map(|(device, keys)| (device, Raw::from_json(keys)));
        response.device_keys.insert(user.clone(), devices.collect());
        if let Some(key) = keys.master {
            response
                .master_keys
                .insert(user.clone(), Raw::from_json(key));
        }
        if let Some(key) = keys.self_signing {
            response.self_signing_keys.insert(user, Raw::from_json(key));
        }
    }
    Ok(response)
}

/// [`POST /user/keys/claim`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim).
pub(super) async fn claim_keys(
    server: Server,
    call: Call<claim_keys::v1::Request>,
) -> Result<claim_keys::v1::Response> {
    let mut wanted = call.request.one_time_keys;
    wanted.retain(|user, _| user.server_name() == server.users.server_name());
    let mut claimed = claim_keys::v1::OneTimeKeys::new();
    for (user, devices) in server.users.claim_keys(&wanted).await? {
        let of_user = claimed.entry(user).or_default();
        for (device, (key_id, key)) in devices {
            let key_id = OneTimeKeyId::parse(key_id).map_err(error::internal)?;
            of_user.insert(device, BTreeMap::from([(key_id, Raw::from_json(key))]));
        }
    }
    Ok(claim_keys::v1::Response::new(claimed))
}
