//! Account data: what a client keeps with the server for its user.

use error::Result;
use ruma::{
    api::client::config::{get_global_account_data, set_global_account_data},
    serde::Raw,
};

use super::check_own;
use crate::{Call, Server};

/// [`GET /user/{userId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype).
pub(super) async fn get_global_account_data(
    server: Server,
    call: Call<get_global_account_data::v3::Request>,
) -> Result<get_global_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let event_type = call.event_type.to_string();
    let found = server
        .users
        .find_account_data(call.caller.user, None, &event_type)
        .await?;
    let data = found.ok_or_else(nothing)?;
    Ok(get_global_account_data::v3::Response::new(Raw::from_json(
        data.content,
    )))
}

/// [`PUT /user/{userId}/account_data/{type}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype).
pub(super) async fn set_global_account_data(
    server: Server,
    call: Call<set_global_account_data::v3::Request>,
) -> Result<set_global_account_data::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let event_type = call.event_type.to_string();
    let content = call.data.json();
    server
        .users
        .set_account_data(call.caller.user, None, &event_type, content)
        .await?;
    Ok(set_global_account_data::v3::Response::new())
}

fn nothing() -> error::Error {
    error::not_found("There is no account data of this type")
}
