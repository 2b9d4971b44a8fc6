//! Keys of devices and people, for end-to-end encryption.

use std::{collections::BTreeMap, time::Duration};

use error::Result;
use ruma::{
    OneTimeKeyId, OwnedUserId, UserId,
    api::client::keys::{
        claim_keys, get_key_changes, get_keys, upload_keys,
        upload_signatures::{self, v3::Failure},
        upload_signing_keys,
    },
    serde::Raw,
};
use serde_json::{json, value::RawValue};
use sync::Token;
use users::{CrossSigningUpload, KeyUpload};

use super::reading::viewer;
use crate::{
    Call, Server,
    remote_devices::{fetch_claims, fetch_keys},
};

/// The most users whose keys are asked for in one request.
const USERS: usize = 10_000;
/// How long other servers are waited for, if the client does not say.
const TIMEOUT: Duration = Duration::from_secs(10);

/// [`POST /keys/upload`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload).
pub(super) async fn upload_keys(
    server: Server,
    call: Call<upload_keys::v3::Request>,
) -> Result<upload_keys::v3::Response> {
    let upload = KeyUpload {
        device_keys: call.request.device_keys,
        one_time_keys: call.request.one_time_keys,
        fallback_keys: call.request.fallback_keys,
    };
    let counts = server.users.upload_keys(&call.caller, &upload).await?;
    let counts = counts
        .into_iter()
        .map(|(algorithm, count)| (algorithm.into(), count.into()));
    Ok(upload_keys::v3::Response::new(counts.collect()))
}

/// [`POST /keys/query`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery).
pub(super) async fn get_keys(
    server: Server,
    call: Call<get_keys::v3::Request>,
) -> Result<get_keys::v3::Response> {
    if call.device_keys.len() > USERS {
        return Err(error::invalid_param(format!(
            "The keys of at most {USERS} users can be asked for at once"
        )));
    }
    let timeout = call.timeout.unwrap_or(TIMEOUT);
    let caller = Some(&*call.caller);
    let (found, elsewhere) = tokio::try_join!(
        server.users.query_keys(caller, &call.device_keys),
        fetch_keys(&server, &call.device_keys, timeout),
    )?;
    let (mut elsewhere, failures) = elsewhere;
    let people: Vec<_> = elsewhere.keys().cloned().collect();
    let signed = server.users.signatures_of_others(&call.caller, &people);
    for (user, signature) in signed.await? {
        if let Some(keys) = elsewhere.get_mut(&user) {
            keys.add_signature(&call.caller.user_id, &signature)?;
        }
    }
    let mut response = get_keys::v3::Response::new();
    response.failures = failures;
    for user in call.device_keys.keys() {
        if user.server_name() == server.users.server_name() {
            // Who has no devices, or no account, is answered for too.
            response.device_keys.entry(user.clone()).or_default();
        }
    }
    for (user, keys) in found.into_iter().chain(elsewhere) {
        let devices = keys
            .devices
            .into_iter()
            .map(|(device, keys)| (device, Raw::from_json(keys)));
        response.device_keys.insert(user.clone(), devices.collect());
        for (key, keys) in [
            (keys.master, &mut response.master_keys),
            (keys.self_signing, &mut response.self_signing_keys),
            (keys.user_signing, &mut response.user_signing_keys),
        ] {
            if let Some(key) = key {
                keys.insert(user.clone(), Raw::from_json(key));
            }
        }
    }
    Ok(response)
}

/// [`POST /keys/claim`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim).
pub(super) async fn claim_keys(
    server: Server,
    call: Call<claim_keys::v3::Request>,
) -> Result<claim_keys::v3::Response> {
    let timeout = call.timeout.unwrap_or(TIMEOUT);
    let claimed = server.users.claim_keys(&call.one_time_keys).await?;
    let (elsewhere, failures) = fetch_claims(&server, &call.one_time_keys, timeout).await;
    let mut one_time_keys = BTreeMap::new();
    for (user, devices) in claimed.into_iter().chain(elsewhere) {
        let mut keys = BTreeMap::new();
        for (device, (key_id, key)) in devices {
            let key_id = OneTimeKeyId::parse(key_id).map_err(error::internal)?;
            keys.insert(device, BTreeMap::from([(key_id, Raw::from_json(key))]));
        }
        one_time_keys.insert(user, keys);
    }
    let mut response = claim_keys::v3::Response::new(one_time_keys);
    response.failures = failures;
    Ok(response)
}

/// [`GET /keys/changes`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges).
///
/// What changed since `to` is told too: it is all the same to who asks for the keys afterwards.
pub(super) async fn get_key_changes(
    server: Server,
    call: Call<get_key_changes::v3::Request>,
) -> Result<get_key_changes::v3::Response> {
    let token = |name: &str, text: &str| {
        text.parse::<Token>().map_err(|_| {
            error::invalid_param(format!("`{name}` is no token that this server gave out"))
        })
    };
    let since = token("from", &call.from)?;
    token("to", &call.to)?;
    let viewer = viewer(&server, &call.caller);
    let lists = server.syncs.device_lists_since(viewer, since).await?;
    let ids = |users: &std::collections::BTreeSet<String>| -> Vec<OwnedUserId> {
        users
            .iter()
            .filter_map(|id| UserId::parse(id).ok())
            .collect()
    };
    Ok(get_key_changes::v3::Response::new(
        ids(&lists.changed),
        ids(&lists.left),
    ))
}

/// [`POST /keys/device_signing/upload`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload).
pub(super) async fn upload_signing_keys(
    server: Server,
    call: Call<upload_signing_keys::v3::Request>,
) -> Result<upload_signing_keys::v3::Response> {
    let request = call.request;
    let upload = CrossSigningUpload {
        master: request.master_key,
        self_signing: request.self_signing_key,
        user_signing: request.user_signing_key,
    };
    server
        .users
        .upload_cross_signing_keys(&call.caller, &upload, request.auth.as_ref())
        .await?;
    Ok(upload_signing_keys::v3::Response::new())
}

/// [`POST /keys/signatures/upload`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload).
pub(super) async fn upload_signatures(
    server: Server,
    call: Call<upload_signatures::v3::Request>,
) -> Result<upload_signatures::v3::Response> {
    let signed: BTreeMap<_, BTreeMap<String, Box<RawValue>>> = call
        .signed_keys
        .iter()
        .map(|(user, keys)| {
            let keys = keys.iter();
            let keys = keys.map(|(name, key)| (name.to_owned(), key.to_owned()));
            (user.clone(), keys.collect())
        })
        .collect();
    let failures = server
        .users
        .upload_signatures(&call.caller, &signed)
        .await?;
    let mut response = upload_signatures::v3::Response::new();
    for (user, keys) in failures {
        for (name, failure) in keys {
            let failure = json!({
                "errcode": failure.kind().map(|kind| kind.errcode().to_string()),
                "error": failure.message(),
            });
            let failure: Failure = serde_json::from_value(failure).map_err(error::internal)?;
            let failures = response.failures.entry(user.clone()).or_default();
            failures.insert(name, failure);
        }
    }
    Ok(response)
}
