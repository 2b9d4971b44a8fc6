//! What people whose accounts are suspended may still ask for ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#account-suspension

use error::{Error, Result};
use http::Method;

use crate::Route;

/// Endpoints that change something, by Ruma's names. Who is suspended may read whatever they could read.
const ALLOWED: [&str; 47] = [
    // To read, in words that a path cannot hold.
    "create_filter",
    "claim_keys",
    "get_keys",
    "get_public_rooms_filtered",
    "search_events",
    "search_users",
    "create_receipt",
    "set_read_marker",
    // To leave rooms, and not to be invited any more.
    "leave_room",
    "forget_room",
    // To redact their own events: what else they ask of these two is refused by their functions.
    "redact_event",
    "send_message_event",
    // For end-to-end encryption: to verify devices, to keep keys.
    "add_backup_keys",
    "add_backup_keys_for_room",
    "add_backup_keys_for_session",
    "create_backup_version",
    "delete_backup_keys",
    "delete_backup_keys_for_room",
    "delete_backup_keys_for_session",
    "delete_backup_version",
    "send_event_to_device",
    "update_backup_version",
    "upload_keys",
    "upload_signatures",
    "upload_signing_keys",
    // To log in elsewhere, to log out, to close the account.
    "change_password",
    "deactivate",
    "delete_device",
    "delete_devices",
    "get_login_token",
    "login",
    "logout",
    "logout_all",
    "refresh_token",
    "register",
    "update_device",
    // What is theirs alone.
    "create_tag",
    "delete_global_account_data",
    "delete_pushrule",
    "delete_room_account_data",
    "delete_tag",
    "set_global_account_data",
    "set_pusher",
    "set_pushrule",
    "set_pushrule_actions",
    "set_pushrule_enabled",
    "set_room_account_data",
];

/// Lets people whose accounts are suspended ask for what they may.
///
/// # Errors
///
/// 403 `M_USER_SUSPENDED` for all else.
pub(crate) fn check(route: &Route) -> Result<()> {
    if route.method == Method::GET || ALLOWED.contains(&route.name) {
        Ok(())
    } else {
        Err(refusal())
    }
}

/// 403 `M_USER_SUSPENDED`.
pub(crate) fn refusal() -> Error {
    error::user_suspended("Your account is suspended: you may read and leave, and not do this")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_allowed_is_there() {
        let routes = crate::routes();
        for name in super::ALLOWED {
            assert!(routes.iter().any(|route| route.name == name), "{name}");
        }
    }
}
