//! Synchronising.

use std::time::Duration;

use bytes::Bytes;
use error::Result;
use rooms::Filter;
use sync::{Request, StateForm, Token, v3};

use super::{presence::known, reading::viewer};
use crate::{Call, Server, endpoint::Written};

/// Ruma's request lacks the unstable name of a parameter.
mod sync_events {
    pub(super) mod v3 {
        use std::time::Duration;

        use ruma::{
            api::{auth_scheme::AccessToken, request, response},
            metadata,
            presence::PresenceState,
        };

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/sync",
                1.1 => "/_matrix/client/v3/sync",
            }
        }

        /// Request of `GET /sync`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(query)]
            /// A filter, or the id of one.
            pub(crate) filter: Option<String>,
            #[ruma_api(query)]
            pub(crate) since: Option<String>,
            #[serde(default)]
            #[ruma_api(query)]
            pub(crate) full_state: bool,
            #[serde(with = "ruma::serde::duration::opt_ms", default)]
            #[ruma_api(query)]
            pub(crate) timeout: Option<Duration>,
            #[serde(default)]
            #[ruma_api(query)]
            pub(crate) set_presence: PresenceState,
            #[serde(default)]
            #[ruma_api(query)]
            pub(crate) use_state_after: bool,
            /// MSC4222: its name before it was in the specification.
            #[serde(default, rename = "org.matrix.msc4222.use_state_after")]
            #[ruma_api(query)]
            pub(crate) unstable_use_state_after: bool,
        }

        /// It is written without Ruma's types.
        #[response]
        pub(crate) struct Response {}
    }
}
pub(super) use self::sync_events::v3::Request as SyncRequest;

/// [`GET /sync`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync).
pub(super) async fn sync_events(server: Server, call: Call<SyncRequest>) -> Result<Written> {
    let request = call.request;
    let set_presence = request.set_presence;
    known(&set_presence)?;
    let since = request
        .since
        .map(|since| since.parse::<Token>())
        .transpose()
        .map_err(|_| error::invalid_param("`since` is no token that this server gave out"))?;
    let filter = match request.filter {
        Some(filter) => server.users.filter_of(call.caller.user, &filter).await?,
        None => Filter::default(),
    };
    let state = match (request.use_state_after, request.unstable_use_state_after) {
        (true, _) => StateForm::After,
        (false, true) => StateForm::UnstableAfter,
        (false, false) => StateForm::Before,
    };
    let request = Request {
        viewer: viewer(&server, &call.caller),
        device: call.caller.device,
        since,
        filter: filter.plain,
        relations: filter.relations,
        full_state: request.full_state,
        state,
        timeout: request.timeout.unwrap_or(Duration::ZERO),
    };
    let polling = server.rooms.polling(&request.viewer, set_presence).await?;
    let stop = server.shutdown.begun();
    let (update, token) = server.syncs.sync(&request, stop).await?;
    drop(polling);
    Ok(Written(Bytes::from(v3::encode(&request, &update, token)?)))
}
