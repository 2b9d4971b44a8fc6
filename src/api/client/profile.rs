//! What people say about themselves.

use bytes::Bytes;
use error::Result;
use federation::Patience;
use ruma::{
    UserId,
    api::{
        client::profile::{
            delete_profile_field, get_profile, get_profile_field, set_profile_field,
        },
        federation::query::get_profile_information,
    },
};
use serde_json::json;
use users::Requester;

use super::check_own;
use crate::{Call, Server, elsewhere::error_of, endpoint::Written};

/// [`GET /profile/{userId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuserid).
pub(super) async fn get_profile(
    server: Server,
    call: Call<get_profile::v3::Request>,
) -> Result<get_profile::v3::Response> {
    let profile = find(&server, &call.user_id).await?;
    Ok(profile.into_iter().collect())
}

/// [`GET /profile/{userId}/{keyName}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname).
pub(super) async fn get_profile_field(
    server: Server,
    call: Call<get_profile_field::v3::Request>,
) -> Result<Written> {
    let mut profile = find(&server, &call.user_id).await?;
    let field = call.field.as_str();
    let answer = match profile.remove(field) {
        Some(value) => json!({ field: value }),
        // Clients of before there were other fields expect an empty object of somebody without a name.
        None if matches!(field, "displayname" | "avatar_url") => json!({}),
        None => return Err(error::not_found("There is no such field in this profile")),
    };
    Ok(Written(Bytes::from(answer.to_string())))
}

/// [`PUT /profile/{userId}/{keyName}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname).
pub(super) async fn set_profile_field(
    server: Server,
    call: Call<set_profile_field::v3::Request>,
) -> Result<set_profile_field::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let field = call.value.field_name();
    check_guest(&call.caller, field.as_str())?;
    let value = call.value.value().into_owned();
    server
        .users
        .set_profile_field(call.caller.user, field.as_str(), value)
        .await?;
    Ok(set_profile_field::v3::Response::new())
}

/// [`DELETE /profile/{userId}/{keyName}`](https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3profileuseridkeyname).
pub(super) async fn delete_profile_field(
    server: Server,
    call: Call<delete_profile_field::v3::Request>,
) -> Result<delete_profile_field::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    check_guest(&call.caller, call.field.as_str())?;
    server
        .users
        .delete_profile_field(call.caller.user, call.field.as_str())
        .await?;
    Ok(delete_profile_field::v3::Response::new())
}

/// Guests may change their display name only.
fn check_guest(requester: &Requester, field: &str) -> Result<()> {
    if requester.guest && field != "displayname" {
        return Err(error::guest_access_forbidden(
            "Guests may change nothing of their profile but `displayname`",
        ));
    }
    Ok(())
}

async fn find(
    server: &Server,
    user_id: &UserId,
) -> Result<std::collections::BTreeMap<String, serde_json::Value>> {
    let elsewhere = user_id.server_name();
    if elsewhere != server.users.server_name() {
        let question = get_profile_information::v1::Request::new(user_id.to_owned());
        let asked = server.federation.ask(elsewhere, question, Patience::SHORT);
        let answer = asked
            .await
            .map_err(|failure| error_of(elsewhere, failure))?;
        return Ok(answer.into_iter().collect());
    }
    let found = server.users.find_profile(user_id).await?;
    found.ok_or_else(|| error::not_found("This server knows no profile of this user"))
}
