//! The client-server API: one line an endpoint, in the order of Ruma's modules.

mod account;
mod config;
mod device;
mod discovery;
mod filter;
mod profile;
mod push;
mod session;
#[cfg(test)]
mod tests;

use error::Result;
use ruma::UserId;
use users::Requester;

use crate::endpoint::Routes;

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(account::change_password)
        .endpoint(account::check_registration_token_validity)
        .endpoint(account::deactivate)
        .endpoint(account::get_username_availability)
        .endpoint(account::register)
        .endpoint(account::whoami)
        .endpoint(config::get_global_account_data)
        .endpoint(config::set_global_account_data)
        .endpoint(device::delete_device)
        .endpoint(device::delete_devices)
        .endpoint(device::get_device)
        .endpoint(device::get_devices)
        .endpoint(device::update_device)
        .endpoint(discovery::get_capabilities)
        .endpoint(discovery::get_supported_versions)
        .endpoint(filter::create_filter)
        .written(filter::get_filter)
        .endpoint(profile::delete_profile_field)
        .endpoint(profile::get_profile)
        .written(profile::get_profile_field)
        .endpoint(profile::set_profile_field)
        .endpoint(push::get_pushrules_all)
        .endpoint(push::get_pushrules_global_scope)
        .endpoint(session::get_login_types)
        .checked_endpoint(session::has_type, session::login)
        .endpoint(session::logout)
        .endpoint(session::logout_all)
}

/// What a path says is somebody's must be the requester's own.
///
/// # Errors
///
/// 403 `M_FORBIDDEN`.
fn check_own(requester: &Requester, user_id: &UserId) -> Result<()> {
    if requester.user_id == user_id {
        Ok(())
    } else {
        Err(error::forbidden("This is another user's, not yours"))
    }
}
