//! Reporting people, and what reports of all kinds share.

use error::Result;
use rooms::{NewReport, ReportKind};
use ruma::api::client::reporting::report_user;

use crate::{Call, Server};

/// The longest reason, in characters.
const LONGEST_REASON: usize = 1_000;

/// [`POST /users/{userId}/report`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport).
///
/// Who reports somebody who is not here is not told so.
pub(super) async fn report_user(
    server: Server,
    call: Call<report_user::v3::Request>,
) -> Result<report_user::v3::Response> {
    let reason = checked_reason(&call.reason)?;
    let here = call.user_id.server_name() == server.users.server_name();
    let exists = !here || server.users.find_short_id(&call.user_id).await?.is_some();
    if exists {
        let report = NewReport {
            kind: ReportKind::User,
            reporter: call.caller.user_id.to_string(),
            reason,
            room_id: None,
            event_id: None,
            user_id: Some(call.user_id.to_string()),
        };
        server.rooms.report(report).await?;
    }
    Ok(report_user::v3::Response::new())
}

/// The reason of a report, if there is one.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM` if it is too long.
pub(super) fn checked_reason(reason: &str) -> Result<Option<String>> {
    if reason.chars().nth(LONGEST_REASON).is_some() {
        return Err(error::invalid_param(format!(
            "The reason of a report has at most {LONGEST_REASON} characters"
        )));
    }
    Ok(Some(reason.to_owned()).filter(|reason| !reason.is_empty()))
}
