//! What guests may ask for ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#guest-access

use error::Result;

/// Endpoints, by Ruma's names.
const ALLOWED: [&str; 38] = [
    // To look at rooms.
    "get_state_events",
    "get_state_event_for_key",
    "get_context",
    "get_room_event",
    "get_message_events",
    "get_member_events",
    "get_current_state",
    "sync_events",
    "listen_to_new_events",
    "get_content",
    "get_content_as_filename",
    "get_content_thumbnail",
    // To take part in them.
    "join_room_by_id",
    "leave_room",
    "send_message_event",
    "send_state_event",
    "send_event_to_device",
    // To keep their account.
    "set_profile_field",
    "delete_profile_field",
    "get_devices",
    "get_device",
    "update_device",
    "whoami",
    // For end-to-end encryption.
    "upload_keys",
    "get_keys",
    "claim_keys",
    // MSC4140: to take part in calls.
    "get_all_delayed_events",
    "get_delayed_event",
    "send_delayed_event",
    "update_delayed_event",
    // NOTSPEC: these are not in the list; without them there is no way to use what is.
    "join_room_by_id_or_alias",
    "create_filter",
    "get_filter",
    "get_capabilities",
    "get_public_rooms_filtered",
    "logout",
    "register",
    // Nor is this, for which nobody needs a token.
    "get_summary",
];

/// Lets guests ask for what they may.
///
/// # Errors
///
/// 403 `M_GUEST_ACCESS_FORBIDDEN` for all else.
pub(crate) fn check(endpoint: &str) -> Result<()> {
    if ALLOWED.contains(&endpoint) {
        Ok(())
    } else {
        Err(error::guest_access_forbidden("Guests may not do this"))
    }
}
