//! What is answered to a client when another server had to be asked and did not do it.

use error::Error;
use federation::Failure;
use http::StatusCode;
use ruma::ServerName;

/// The error for a client: what the other server says of the question, or that it could not be asked.
pub(crate) fn error_of(server: &ServerName, failure: Failure) -> Error {
    match failure {
        Failure::Forbidden(_) => {
            error::forbidden(format!("This server does not talk to {server} about this"))
        }
        Failure::Refused(refusal)
            if refusal.status.is_client_error() && refusal.errcode().starts_with("M_") =>
        {
            // It has nothing against the user, but perhaps against us.
            let status = match refusal.status {
                StatusCode::UNAUTHORIZED => StatusCode::BAD_GATEWAY,
                status => status,
            };
            error::other(status, refusal.errcode(), refusal.error())
        }
        failure => {
            tracing::info!(%server, %failure, "another server could not be asked");
            error::unknown(
                StatusCode::BAD_GATEWAY,
                format!("The server {server} could not be asked"),
            )
        }
    }
}
