//! Bodies and statuses, as a client sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::time::Duration;

use ruma::{
    api::client::uiaa::{AuthFlow, AuthType, UiaaInfo},
    room_version_id,
};
use serde_json::{Value, json};

use super::*;

/// Status and body of what is sent.
fn sent(error: Error) -> (u16, Value) {
    let response = error.into_response();
    assert_eq!(response.headers()["content-type"], "application/json");
    (
        response.status().as_u16(),
        serde_json::from_slice(response.body()).unwrap(),
    )
}

#[test]
fn a_matrix_error_has_status_errcode_and_message() {
    assert_eq!(
        sent(forbidden("You are not in this room")),
        (
            403,
            json!({ "errcode": "M_FORBIDDEN", "error": "You are not in this room" })
        )
    );
    assert_eq!(sent(method_not_allowed("Use PUT")).0, 405);
    assert_eq!(
        sent(not_found("No such room").with_status(StatusCode::BAD_GATEWAY)),
        (
            502,
            json!({ "errcode": "M_NOT_FOUND", "error": "No such room" })
        )
    );
}

#[test]
fn extra_fields_stand_beside_the_errcode() {
    assert_eq!(
        sent(unknown_token(true, "Logged out")),
        (
            401,
            json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Logged out", "soft_logout": true })
        )
    );
    assert_eq!(
        sent(unknown_token(false, "Logged out")).1,
        json!({ "errcode": "M_UNKNOWN_TOKEN", "error": "Logged out" })
    );
    assert_eq!(sent(user_locked("Locked")).1["soft_logout"], true);
    assert_eq!(
        sent(incompatible_room_version(room_version_id!("12"), "Too new")),
        (
            400,
            json!({
                "errcode": "M_INCOMPATIBLE_ROOM_VERSION",
                "error": "Too new",
                "room_version": "12",
            })
        )
    );
    assert_eq!(
        sent(wrong_room_keys_version("3", "Old")),
        (
            403,
            json!({ "errcode": "M_WRONG_ROOM_KEYS_VERSION", "error": "Old", "current_version": "3" })
        )
    );
    assert_eq!(
        sent(resource_limit_exceeded("mailto:a@b", "Full")).1["admin_contact"],
        "mailto:a@b"
    );
    // Ruma writes "authorize", the specification "AUTHORISE".
    assert_eq!(
        sent(unable_to_authorize_join("No")).1["errcode"],
        "M_UNABLE_TO_AUTHORISE_JOIN"
    );
}

#[test]
fn retry_after_is_in_the_body_and_rounded_up_in_the_header() {
    let response = limit_exceeded(Some(Duration::from_millis(1_001)), "Slow down").into_response();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "2");
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        body,
        json!({ "errcode": "M_LIMIT_EXCEEDED", "error": "Slow down", "retry_after_ms": 1_001 })
    );
    let whole = limit_exceeded(Some(Duration::from_secs(3)), "Slow down").into_response();
    assert_eq!(whole.headers()["retry-after"], "3");
    let unsaid = limit_exceeded(None, "Slow down").into_response();
    assert!(!unsaid.headers().contains_key("retry-after"));
}

fn info() -> UiaaInfo {
    let mut info = UiaaInfo::new(vec![AuthFlow::new(vec![AuthType::Password])]);
    info.session = Some("abc".to_owned());
    info
}

#[test]
fn a_challenge_lists_flows_and_why_the_last_stage_failed() {
    assert_eq!(
        sent(Error::challenge(info())),
        (
            401,
            json!({ "flows": [{ "stages": ["m.login.password"] }], "session": "abc" })
        )
    );
    assert_eq!(
        sent(Error::challenge_again(info(), forbidden("Wrong password"))),
        (
            401,
            json!({
                "flows": [{ "stages": ["m.login.password"] }],
                "session": "abc",
                "errcode": "M_FORBIDDEN",
                "error": "Wrong password",
            })
        )
    );
}

#[test]
fn an_internal_reason_does_not_become_a_challenge() {
    let error = Error::challenge_again(info(), internal("the disk is full"));
    assert!(error.is_internal());
}

#[test]
fn an_internal_error_keeps_its_chain_and_tells_the_client_nothing() {
    #[derive(Debug)]
    struct Outer(std::io::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("commit failed")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    let error = internal(Outer(std::io::Error::other("disk full")))
        .context("writing the head")
        .context("sending a message");
    assert_eq!(
        error.to_string(),
        "sending a message: writing the head: commit failed: disk full"
    );
    assert!(error.kind().is_none());
    assert_eq!(
        sent(error),
        (
            500,
            json!({ "errcode": "M_UNKNOWN", "error": "Internal server error" })
        )
    );
}

#[test]
fn what_took_too_long_may_be_asked_again() {
    let error = too_busy("the snapshot is too old").context("reading a room");
    assert!(error.is_internal() && error.is_too_busy());
    assert_eq!(error.to_string(), "reading a room: the snapshot is too old");
    let response = error.into_response();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    let expected = json!({ "errcode": "M_UNKNOWN", "error": "The server is too busy; try again" });
    assert_eq!(body, expected);
}

#[test]
fn it_is_small_and_travels_between_tasks() {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Error>();
    assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
}

#[test]
fn a_code_that_ruma_does_not_know_goes_out_as_it_is() {
    assert_eq!(
        sent(invalid_signature("No")),
        (
            400,
            json!({ "errcode": "M_INVALID_SIGNATURE", "error": "No" })
        )
    );
}
