//! History of rooms, for other servers.

use error::Result;
use ruma::{MilliSecondsSinceUnixEpoch, api::federation::backfill::get_backfill};

use super::event::raw_events;
use crate::{Call, Server};

/// [`GET /backfill/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid).
pub(super) async fn get_backfill(
    server: Server,
    call: Call<get_backfill::v1::Request>,
) -> Result<get_backfill::v1::Response> {
    let serving = server.rooms.serving(&call.caller, &call.room_id).await?;
    let limit = usize::try_from(u64::from(call.limit)).unwrap_or(usize::MAX);
    let events = serving.backfill(&call.v, limit).await?;
    let now: MilliSecondsSinceUnixEpoch = server.clock.now();
    let name = server.rooms.server_name().to_owned();
    Ok(get_backfill::v1::Response::new(
        name,
        now,
        raw_events(&events)?,
    ))
}
