//! What operators' tools ask for: Synapse's admin API, as far as it is here.

pub mod notices;
pub mod rate_limit;
pub mod register;
pub mod reports;
pub mod rooms;

use error::Result;
use ruma::UserId;
use users::Requester;

use crate::{Server, endpoint::Routes};

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(notices::send_server_notice)
        .endpoint(notices::send_server_notice_once)
        .endpoint(rate_limit::delete_override)
        .written(rate_limit::get_override)
        .written(rate_limit::set_override)
        .endpoint(register::get_registration_nonce)
        .endpoint(register::register_with_shared_secret)
        .endpoint(reports::delete_event_report)
        .endpoint(reports::delete_room_report)
        .endpoint(reports::delete_user_report)
        .written(reports::get_event_report)
        .written(reports::get_event_reports)
        .written(reports::get_room_report)
        .written(reports::get_room_reports)
        .written(reports::get_user_report)
        .written(reports::get_user_reports)
        .endpoint(rooms::delete_room)
        .endpoint(rooms::get_block)
        .endpoint(rooms::set_block)
}

/// Only who administers the server may go on.
///
/// # Errors
///
/// 403 `M_FORBIDDEN`.
pub(crate) fn check_admin(requester: &Requester) -> Result<()> {
    match requester.admin {
        true => Ok(()),
        false => Err(error::forbidden(
            "Only who administers this server may do this",
        )),
    }
}

/// What is asked of a user must be of one of this server.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM`.
pub(crate) fn check_local(server: &Server, user_id: &UserId) -> Result<()> {
    match user_id.server_name() == server.users.server_name() {
        true => Ok(()),
        false => Err(error::invalid_param(format!(
            "{user_id} is a user of another server"
        ))),
    }
}
