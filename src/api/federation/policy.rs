//! What this server says as a policy server.

use error::Result;
use ruma::api::federation::policy::sign_event;

use crate::{Call, Server};

/// [`POST /_matrix/policy/v1/sign`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign).
pub(super) async fn sign_event(
    server: Server,
    call: Call<sign_event::v1::Request>,
) -> Result<sign_event::v1::Response> {
    let rooms = &server.rooms;
    let signature = rooms.policy_signature(&call.caller, &call.pdu).await?;
    let us = rooms.server_name().to_owned();
    Ok(sign_event::v1::Response::new(us, signature))
}
