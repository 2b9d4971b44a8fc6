//! What this server is and can do.

use bytes::Bytes;
use error::Result;
use pdu::RoomRules;
use ruma::{
    api::client::discovery::{
        discover_homeserver::{self, HomeserverInfo},
        discover_policy_server,
        discover_support::{self, Contact, ContactRole},
        get_capabilities::{
            self,
            v3::{
                AccountModerationCapability, Capabilities, ProfileFieldsCapability,
                RoomVersionStability, RoomVersionsCapability, ThirdPartyIdChangesCapability,
            },
        },
        get_supported_versions,
    },
    serde::Base64,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{Call, Server, endpoint::Written};

/// The versions of the specification that clients may count on.
///
/// A version stands here once what clients need of it passes tests. matrix-js-sdk refuses servers
/// without one of v1.1 and later, Element X asks for v1.11 for media that need a token; r0.6.1 is what
/// the oldest libraries look for.
const VERSIONS: &[&str] = &[
    "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
    "v1.11", "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// What is there before the specification has it: names that clients ask for before they use it.
const UNSTABLE: &[&str] = &[
    "org.matrix.msc3391",
    "org.matrix.msc3874",
    "org.matrix.msc4140",
    "org.matrix.msc4140.stable",
    "org.matrix.msc4155",
    "uk.half-shot.msc2666.query_mutual_rooms",
];

/// [`GET /_matrix/client/versions`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions).
pub(super) async fn get_supported_versions(
    _: Server,
    _: Call<get_supported_versions::Request>,
) -> Result<get_supported_versions::Response> {
    let versions = VERSIONS.iter().map(ToString::to_string).collect();
    let mut response = get_supported_versions::Response::new(versions);
    response.unstable_features = UNSTABLE
        .iter()
        .map(|name| (name.to_string(), true))
        .collect();
    Ok(response)
}

/// [`GET /capabilities`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities).
pub(super) async fn get_capabilities(
    server: Server,
    call: Call<get_capabilities::v3::Request>,
) -> Result<Written> {
    let versions = RoomRules::all().map(|rules| {
        let stability = match rules.is_stable() {
            true => RoomVersionStability::Stable,
            false => RoomVersionStability::Unstable,
        };
        (rules.version_id(), stability)
    });
    let mut capabilities = Capabilities::new();
    capabilities.room_versions = RoomVersionsCapability::new(
        server.config.server.default_room_version.clone(),
        versions.collect(),
    );
    capabilities.thirdparty_id_changes = ThirdPartyIdChangesCapability::new(false);
    capabilities.account_moderation =
        AccountModerationCapability::new(call.caller.admin, call.caller.admin);
    capabilities.profile_fields = Some(ProfileFieldsCapability::new(true));
    #[derive(Serialize)]
    struct Whole {
        #[serde(rename = "m.change_password")]
        change_password: Value,
        #[serde(rename = "m.set_displayname")]
        set_displayname: Value,
        #[serde(rename = "m.set_avatar_url")]
        set_avatar_url: Value,
        #[serde(rename = "m.get_login_token")]
        get_login_token: Value,
        #[serde(rename = "m.delayed_events")]
        delayed_events: Value,
        #[serde(rename = "org.matrix.msc4140.delayed_events")]
        unstable_delayed_events: Value,
        #[serde(flatten)]
        others: Capabilities,
    }
    let settings = &server.config.delayed_events;
    // MSC4140.
    let delayed_events = json!({
        "max_delay_ms": u64::try_from(settings.max_delay.as_millis()).unwrap_or(u64::MAX),
        "max_scheduled": settings.max_scheduled,
    });
    // What is so by default Ruma does not write; the specification shows it, and clients look for it.
    let capabilities = Whole {
        change_password: json!({ "enabled": true }),
        set_displayname: json!({ "enabled": true }),
        set_avatar_url: json!({ "enabled": true }),
        get_login_token: json!({ "enabled": true }),
        delayed_events: delayed_events.clone(),
        unstable_delayed_events: delayed_events,
        others: capabilities,
    };
    let answer = json!({ "capabilities": capabilities });
    Ok(Written(Bytes::from(answer.to_string())))
}

/// [`GET /.well-known/matrix/client`](https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixclient).
pub(super) async fn discover_homeserver(
    server: Server,
    _: Call<discover_homeserver::Request>,
) -> Result<discover_homeserver::Response> {
    match server.config.server.public_url.as_str() {
        "" => Err(error::not_found(
            "The operator has not said at which address clients find this server",
        )),
        url => Ok(discover_homeserver::Response::new(HomeserverInfo::new(
            url.to_owned(),
        ))),
    }
}

/// [`GET /.well-known/matrix/policy_server`](https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixpolicy_server).
pub(super) async fn discover_policy_server(
    server: Server,
    _: Call<discover_policy_server::Request>,
) -> Result<discover_policy_server::Response> {
    if !server.config.policy_server.enabled {
        return Err(error::not_found("This server is no policy server"));
    }
    let key = server.federation.policy_key().await?;
    let key = Base64::new(key.verify_key().to_bytes().to_vec());
    Ok(discover_policy_server::Response::new(key))
}

/// [`GET /.well-known/matrix/support`](https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport).
pub(super) async fn discover_support(
    server: Server,
    _: Call<discover_support::Request>,
) -> Result<discover_support::Response> {
    let support = &server.config.support;
    let email = Some(support.email.clone()).filter(|email| !email.is_empty());
    let role = ContactRole::Admin;
    let contact = match (email, support.matrix_id.clone()) {
        (Some(email), matrix_id) => {
            let mut contact = Contact::with_email_address(role, email);
            contact.matrix_id = matrix_id;
            Some(contact)
        }
        (None, Some(matrix_id)) => Some(Contact::with_matrix_id(role, matrix_id)),
        (None, None) => None,
    };
    let page = Some(support.page.clone()).filter(|page| !page.is_empty());
    if contact.is_none() && page.is_none() {
        return Err(error::not_found(
            "The operator has not said whom people can turn to",
        ));
    }
    let mut response = discover_support::Response::with_contacts(Vec::from_iter(contact));
    response.support_page = page;
    Ok(response)
}
