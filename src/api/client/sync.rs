//! Synchronising.

use std::time::Duration;

use error::Result;
use ruma::api::client::sync::sync_events::{self, v3::Filter};
use sync::{Request, Token};

use super::reading::viewer;
use crate::{Call, Server};

/// [`GET /sync`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync).
pub(super) async fn sync_events(
    server: Server,
    call: Call<sync_events::v3::Request>,
) -> Result<sync_events::v3::Response> {
    let request = call.request;
    let since =
        match &request.since {
            Some(since) => Some(since.parse::<Token>().map_err(|_| {
                error::invalid_param("since is no token that this server gave out")
            })?),
            None => None,
        };
    let filter = match request.filter {
        Some(Filter::FilterDefinition(filter)) => filter,
        Some(Filter::FilterId(id)) => server.users.filter_of(call.caller.user, &id).await?,
        None => Default::default(),
        Some(_) => return Err(error::invalid_param("filter is a filter's ID or a filter")),
    };
    let request = Request {
        viewer: viewer(&server, &call.caller),
        since,
        filter,
        full_state: request.full_state,
        state_after: request.use_state_after,
        timeout: request.timeout.unwrap_or(Duration::ZERO),
    };
    server.syncs.sync(&request, server.shutdown.begun()).await
}
