//! Whether the server lives, for load balancers and supervisors.

use error::Result;

use crate::{Call, Server, endpoint::Routes};

pub(crate) fn routes(routes: Routes) -> Routes {
    routes.endpoint(get_health)
}

/// `GET /health`.
pub mod get_health {
    use ruma::{
        api::{auth_scheme::NoAuthentication, request, response},
        metadata,
    };

    metadata! {
        method: GET,
        rate_limited: false,
        authentication: NoAuthentication,
        path: "/health",
    }

    /// Nothing to say.
    #[request]
    pub struct Request {}

    /// 200, and nothing more: whoever must know more has metrics.
    #[response]
    pub struct Response {}
}

/// The server takes requests, for as long as it has not been told to stop.
async fn get_health(server: Server, _: Call<get_health::Request>) -> Result<get_health::Response> {
    if server.shutdown.has_begun() {
        return Err(error::unknown(
            http::StatusCode::SERVICE_UNAVAILABLE,
            "This server is about to stop",
        ));
    }
    Ok(get_health::Response {})
}
