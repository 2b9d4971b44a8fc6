//! Push rules.

use error::Result;
use ruma::api::client::push::{get_pushrules_all, get_pushrules_global_scope};

use crate::{Call, Server};

/// [`GET /pushrules/`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules).
pub(super) async fn get_pushrules_all(
    server: Server,
    call: Call<get_pushrules_all::v3::Request>,
) -> Result<get_pushrules_all::v3::Response> {
    let rules = server.users.push_rules(call.caller.user).await?;
    Ok(get_pushrules_all::v3::Response::new(rules))
}

/// [`GET /pushrules/global/`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal).
pub(super) async fn get_pushrules_global_scope(
    server: Server,
    call: Call<get_pushrules_global_scope::v3::Request>,
) -> Result<get_pushrules_global_scope::v3::Response> {
    let rules = server.users.push_rules(call.caller.user).await?;
    Ok(get_pushrules_global_scope::v3::Response::new(rules))
}
