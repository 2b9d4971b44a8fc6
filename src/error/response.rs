//! From an [`Error`] to what goes over the wire.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use ruma::api::error::{ErrorKind, LimitExceededErrorData, RetryAfter, StandardErrorBody};
use serde_json::Value;

use crate::{Error, Inner};

/// What is sent when something inside failed: nothing that a stranger could use.
const INTERNAL: &[u8] = br#"{"errcode":"M_UNKNOWN","error":"Internal server error"}"#;

/// What is sent when something inside took too long.
const TOO_BUSY: &[u8] = br#"{"errcode":"M_UNKNOWN","error":"The server is too busy; try again"}"#;

/// After how many seconds who met a busy server may come again.
const TRY_AGAIN_AFTER: u64 = 1;

impl Error {
    /// The response that a client or another server gets. This is the boundary: an internal error
    /// is logged here, in the span of the request, and nowhere else.
    pub fn into_response(self) -> Response<Bytes> {
        if self.is_internal() {
            tracing::error!(error = %self, "a request failed");
        }
        let retry_after = self.retry_after_seconds();
        let status = self.status();
        let body = match *self.0 {
            Inner::Matrix {
                kind,
                message,
                more,
                ..
            } => {
                let mut body = serde_json::to_value(StandardErrorBody::new(kind, message));
                if let Ok(Value::Object(body)) = &mut body {
                    body.extend(more);
                }
                body.and_then(|body| serde_json::to_vec(&body))
                    .map(Bytes::from)
            }
            Inner::Challenge(info) => serde_json::to_vec(&info).map(Bytes::from),
            Inner::Internal { passes: true, .. } => Ok(Bytes::from_static(TOO_BUSY)),
            Inner::Internal { passes: false, .. } => Ok(Bytes::from_static(INTERNAL)),
        };
        let (status, body) = match body {
            Ok(body) => (status, body),
            Err(error) => {
                tracing::error!(%error, "an error could not be written as JSON");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    Bytes::from_static(INTERNAL),
                )
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// Rounded up: a client that obeys the header must not come a moment too early.
    fn retry_after_seconds(&self) -> Option<u64> {
        if self.is_too_busy() {
            return Some(TRY_AGAIN_AFTER);
        }
        match self.kind()? {
            ErrorKind::LimitExceeded(LimitExceededErrorData {
                retry_after: Some(RetryAfter::Delay(delay)),
                ..
            }) => Some(
                delay
                    .as_secs()
                    .saturating_add(u64::from(delay.subsec_nanos() > 0)),
            ),
            _ => None,
        }
    }
}
