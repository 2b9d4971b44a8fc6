//! What application services ask of this server beside what clients do ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#client-server-api-extensions

use std::time::Duration;

use error::Result;
use federation::{Broken, Limits};
use http::Method;
use ruma::{MilliSecondsSinceUnixEpoch, api::client::appservice::request_ping};
use serde_json::json;
use users::Requester;

use crate::{Call, Server};

/// How much the answer to a ping may take.
const PING: Limits = Limits {
    bytes: 64 << 10,
    time: Duration::from_secs(20),
};

/// The most characters of a wrong answer that are passed on.
const ANSWER: usize = 1_000;

/// The longest transaction id, in bytes ([opaque identifiers]).
///
/// [opaque identifiers]: https://spec.matrix.org/v1.19/appendices/#opaque-identifiers
const LONGEST: usize = 255;

/// [`POST /appservice/{appserviceId}/ping`](https://spec.matrix.org/v1.19/application-service-api/#post_matrixclientv1appserviceappserviceidping).
pub(super) async fn request_ping(
    server: Server,
    call: Call<request_ping::v1::Request>,
) -> Result<request_ping::v1::Response> {
    let service = &call.caller;
    if call.appservice_id != service.id() {
        return Err(error::forbidden(
            "This token is another application service's",
        ));
    }
    let Some(url) = &service.settings().url else {
        return Err(error::url_not_set(
            "The registration of this application service has no URL",
        ));
    };
    let transaction_id = call.transaction_id.as_ref();
    if transaction_id.is_some_and(|id| id.as_str().len() > LONGEST) {
        return Err(error::invalid_param(format!(
            "A transaction id has at most {LONGEST} bytes"
        )));
    }
    let body = match transaction_id {
        Some(id) => json!({ "transaction_id": id }),
        None => json!({}),
    };
    let begun = server.clock.now().get();
    let token = service.settings().hs_token.reveal();
    let asked = server.federation.ask_service(
        url,
        token,
        (Method::POST, "/_matrix/app/v1/ping"),
        body.to_string(),
        PING,
    );
    let answer = asked.await.map_err(|fault| {
        let why = match fault {
            Broken::TooLarge(_) => "The application service answers too much".to_owned(),
            Broken::Unreachable(why) | Broken::Forbidden(why) => {
                format!("The application service cannot be reached: {why}")
            }
        };
        error::connection_failed(why)
    })?;
    let status = answer.status();
    if !status.is_success() {
        let body = String::from_utf8_lossy(answer.body());
        let body: String = body.chars().take(ANSWER).collect();
        let message = format!("The application service answered with {}", status.as_u16());
        return Err(error::bad_status(status, body, message));
    }
    let now = server.clock.now().get();
    let taken = u64::from(now).saturating_sub(begun.into());
    Ok(request_ping::v1::Response::new(Duration::from_millis(
        taken,
    )))
}

/// The time that an event is to say it was sent, in milliseconds since 1970: only application services choose it
/// ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
pub(super) fn chosen_time(
    requester: &Requester,
    timestamp: Option<MilliSecondsSinceUnixEpoch>,
) -> Option<u64> {
    let timestamp = timestamp.filter(|_| requester.service.is_some())?;
    Some(timestamp.get().into())
}
