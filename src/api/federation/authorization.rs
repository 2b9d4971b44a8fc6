//! What allows events, for other servers.

use error::Result;
use ruma::api::federation::authorization::get_event_authorization;

use super::event::raw_events;
use crate::{Call, Server};

/// [`GET /event_auth/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid).
pub(super) async fn get_event_authorization(
    server: Server,
    call: Call<get_event_authorization::v1::Request>,
) -> Result<get_event_authorization::v1::Response> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let chain = serving.event_auth(&call.event_id).await?;
    let chain = raw_events(&chain)?;
    Ok(get_event_authorization::v1::Response::new(chain))
}
