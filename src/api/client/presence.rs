//! Who is online.

use std::time::Duration;

use error::Result;
use ruma::{
    api::client::presence::{get_presence, set_presence},
    presence::PresenceState,
};

use super::{check_own, reading::viewer};
use crate::{Call, Server};

/// [`GET /presence/{userId}/status`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus).
pub(super) async fn get_presence(
    server: Server,
    call: Call<get_presence::v3::Request>,
) -> Result<get_presence::v3::Response> {
    let viewer = viewer(&server, &call.caller);
    let found = server.rooms.presence_of(&viewer, &call.user_id).await?;
    let online = found.presence == PresenceState::Online;
    let mut response = get_presence::v3::Response::new(found.presence);
    response.currently_active = online.then_some(found.currently_active);
    response.last_active_ago = found.last_active_ago.map(Duration::from_millis);
    response.status_msg = found.status_msg;
    Ok(response)
}

/// [`PUT /presence/{userId}/status`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus).
pub(super) async fn set_presence(
    server: Server,
    call: Call<set_presence::v3::Request>,
) -> Result<set_presence::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let viewer = viewer(&server, &call.caller);
    let request = call.request;
    known(&request.presence)?;
    server
        .rooms
        .set_presence(&viewer, request.presence, request.status_msg)
        .await?;
    Ok(set_presence::v3::Response::new())
}

/// There are three.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM` for any other.
pub(super) fn known(presence: &PresenceState) -> Result<()> {
    match presence {
        PresenceState::Online | PresenceState::Unavailable | PresenceState::Offline => Ok(()),
        _ => Err(error::invalid_param(
            "Presence is `online`, `unavailable` or `offline`",
        )),
    }
}
