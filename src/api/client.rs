//! The client-server API: one line an endpoint, people's before rooms', each in the order of Ruma's modules.

mod account;
mod admin;
pub(crate) mod alias;
mod appservice;
mod authenticated_media;
mod backup;
mod config;
mod context;
mod delayed_events;
mod device;
pub(crate) mod directory;
mod discovery;
pub(crate) mod file;
mod filter;
mod keys;
mod knock;
mod media;
mod membership;
mod message;
mod mutual_rooms;
mod old_sync;
mod peeking;
mod presence;
mod profile;
mod push;
mod read_marker;
mod reading;
mod receipt;
mod redact;
mod relations;
mod reporting;
mod room;
mod search;
mod session;
pub(crate) mod space;
mod state;
mod sync;
mod tag;
#[cfg(test)]
mod tests;
mod threads;
mod to_device;
mod transaction;
mod typing;
mod user_directory;

pub(crate) use self::{tag::add_tag, transaction::transaction};

use std::sync::Arc;

use error::Result;
use rooms::Room;
use ruma::{OwnedEventId, RoomId, UserId};
use storage::schema::Membership;
use users::Requester;

use crate::{Server, endpoint::Routes, rate_limit::Action};

pub(crate) fn routes(routes: Routes) -> Routes {
    of_files(of_rooms(of_people(routes)))
        .endpoint(discovery::discover_homeserver)
        .endpoint(discovery::discover_policy_server)
        .endpoint(discovery::discover_support)
        .written(discovery::get_capabilities)
        .endpoint(discovery::get_supported_versions)
        .endpoint(old_sync::get_one_event)
        .written(old_sync::initial_sync)
        .endpoint(old_sync::listen_to_new_events)
        .written(sync::sync_events)
}

/// What concerns people and their devices, not rooms.
fn of_people(routes: Routes) -> Routes {
    routes
        .endpoint(account::change_password)
        .endpoint(account::check_registration_token_validity)
        .limited(Action::RegistrationTokenValidity)
        .endpoint(account::deactivate)
        .endpoint(account::get_username_availability)
        .endpoint(account::register)
        .limited(Action::Registration)
        .endpoint(account::request_openid_token)
        .endpoint(account::whoami)
        .endpoint(admin::get_user_info)
        .endpoint(admin::is_user_locked)
        .endpoint(admin::is_user_suspended)
        .endpoint(admin::lock_user)
        .endpoint(admin::suspend_user)
        .endpoint(appservice::request_ping)
        .endpoint(backup::add_backup_keys)
        .endpoint(backup::add_backup_keys_for_room)
        .endpoint(backup::add_backup_keys_for_session)
        .endpoint(backup::create_backup_version)
        .endpoint(backup::delete_backup_keys)
        .endpoint(backup::delete_backup_keys_for_room)
        .endpoint(backup::delete_backup_keys_for_session)
        .endpoint(backup::delete_backup_version)
        .endpoint(backup::get_backup_info)
        .endpoint(backup::get_backup_keys)
        .endpoint(backup::get_backup_keys_for_room)
        .endpoint(backup::get_backup_keys_for_session)
        .endpoint(backup::get_latest_backup_info)
        .endpoint(backup::update_backup_version)
        .endpoint(config::delete_global_account_data)
        .endpoint(config::delete_room_account_data)
        .endpoint(config::get_global_account_data)
        .endpoint(config::get_room_account_data)
        .endpoint(config::set_global_account_data)
        .endpoint(config::set_room_account_data)
        .endpoint(device::delete_device)
        .endpoint(device::delete_devices)
        .endpoint(device::get_device)
        .endpoint(device::get_devices)
        .download(device::update_device)
        .endpoint(filter::create_filter)
        .written(filter::get_filter)
        .endpoint(keys::claim_keys)
        .endpoint(keys::get_key_changes)
        .endpoint(keys::get_keys)
        .endpoint(keys::upload_keys)
        .endpoint(keys::upload_signatures)
        .endpoint(keys::upload_signing_keys)
        .endpoint(presence::get_presence)
        .endpoint(presence::set_presence)
        .endpoint(profile::delete_profile_field)
        .limited(Action::Message)
        .endpoint(profile::get_profile)
        .written(profile::get_profile_field)
        .endpoint(profile::set_profile_field)
        .limited(Action::Message)
        .endpoint(push::delete_pushrule)
        .endpoint(push::get_notifications)
        .endpoint(push::get_pushers)
        .endpoint(push::get_pushrule)
        .endpoint(push::get_pushrule_actions)
        .endpoint(push::get_pushrule_enabled)
        .endpoint(push::get_pushrules_all)
        .endpoint(push::get_pushrules_global_scope)
        .endpoint(push::set_pusher)
        .endpoint(push::set_pushrule)
        .endpoint(push::set_pushrule_actions)
        .endpoint(push::set_pushrule_enabled)
        .endpoint(reporting::report_user)
        .limited(Action::Report)
        .endpoint(session::get_login_token)
        .limited(Action::Login)
        .endpoint(session::get_login_types)
        .checked_endpoint(session::has_type, session::login)
        .limited(Action::Login)
        .endpoint(session::logout)
        .endpoint(session::logout_all)
        .endpoint(session::refresh_token)
        .endpoint(tag::create_tag)
        .endpoint(tag::delete_tag)
        .endpoint(tag::get_tags)
        .endpoint(to_device::send_event_to_device)
        .endpoint(user_directory::search_users)
}

/// What concerns files.
fn of_files(routes: Routes) -> Routes {
    routes
        .download(authenticated_media::get_content)
        .download(authenticated_media::get_content_as_filename)
        .download(authenticated_media::get_content_thumbnail)
        .endpoint(authenticated_media::get_media_config)
        .upload(media::create_content)
        .limited(Action::Media)
        .upload(media::create_content_async)
        .limited(Action::Media)
        .endpoint(media::create_mxc_uri)
        .limited(Action::Media)
        .download(media::get_content)
        .download(media::get_content_as_filename)
        .download(media::get_content_thumbnail)
        .endpoint(media::get_media_config)
}

/// What concerns rooms.
fn of_rooms(routes: Routes) -> Routes {
    routes
        .endpoint(alias::create_alias)
        .endpoint(alias::delete_alias)
        .endpoint(alias::get_alias)
        .endpoint(context::get_context)
        .written(delayed_events::get_all_delayed_events)
        .written(delayed_events::get_delayed_event)
        .also_at("/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}")
        .endpoint(delayed_events::send_delayed_event)
        .limited(Action::Message)
        .endpoint(delayed_events::send_delayed_event_unstable)
        .limited(Action::Message)
        .endpoint(delayed_events::update_delayed_event)
        .endpoint(delayed_events::update_delayed_event_unstable)
        .endpoint(delayed_events::update_delayed_event_by_body)
        .written(directory::get_public_rooms)
        .with_token_unless(|config| config.directory.open)
        .written(directory::get_public_rooms_filtered)
        .endpoint(directory::get_room_visibility)
        .endpoint(directory::set_room_visibility)
        .endpoint(knock::knock_room)
        .limited(Action::Join)
        .endpoint(membership::ban_user)
        .endpoint(membership::forget_room)
        .endpoint(membership::get_member_events)
        .endpoint(membership::invite_user)
        .limited(Action::Invite)
        .endpoint(membership::join_room_by_id)
        .limited(Action::Join)
        .endpoint(membership::join_room_by_id_or_alias)
        .limited(Action::Join)
        .written(membership::joined_members)
        .endpoint(membership::joined_rooms)
        .endpoint(membership::kick_user)
        .endpoint(membership::leave_room)
        .endpoint(membership::unban_user)
        .endpoint_assuming("dir", "f", message::get_message_events)
        .endpoint(message::send_message_event)
        .limited(Action::Message)
        .asked_with(delayed_events::DELAY, delayed_events::delayed_message_event)
        .endpoint(mutual_rooms::get_mutual_rooms)
        .endpoint(peeking::get_current_state)
        .endpoint(read_marker::set_read_marker)
        .checked_endpoint(receipt::has_thread_id, receipt::create_receipt)
        .endpoint(redact::redact_event)
        .limited(Action::Message)
        .endpoint(relations::get_relating_events)
        .endpoint(relations::get_relating_events_with_rel_type)
        .endpoint(relations::get_relating_events_with_rel_type_and_event_type)
        .endpoint(room::aliases)
        .endpoint(room::create_room)
        .limited(Action::RoomCreation)
        .endpoint(room::get_event_by_timestamp)
        .endpoint(room::get_room_event)
        .written(room::get_summary)
        // MSC3266, as Element Web asks it.
        .also_at("/_matrix/client/unstable/im.nheko.summary/summary/{room_id_or_alias}")
        .endpoint(room::report_content)
        .limited(Action::Report)
        .endpoint(room::report_room)
        .limited(Action::Report)
        .endpoint(room::upgrade_room)
        .limited(Action::RoomCreation)
        .written(space::get_hierarchy)
        .written(search::search_events)
        .endpoint(state::get_state_event_for_key)
        .endpoint(state::get_state_events)
        .endpoint(state::send_state_event)
        .limited(Action::Message)
        .asked_with(delayed_events::DELAY, delayed_events::delayed_state_event)
        .written(threads::get_thread_subscription)
        .written(threads::get_thread_subscriptions_changes)
        .endpoint(threads::get_threads)
        .endpoint(threads::subscribe_thread)
        .endpoint(threads::unsubscribe_thread)
        .endpoint(typing::create_typing_event)
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

/// A room that the user is in.
///
/// # Errors
///
/// 403 `M_FORBIDDEN`, whether there is such a room or not.
async fn joined_room(server: &Server, room_id: &RoomId, user: &UserId) -> Result<Arc<Room>> {
    let room = server.rooms.room(room_id).await?;
    let snapshot = server.rooms.snapshot().await?;
    match room.membership(&server.rooms, &snapshot, user).await? {
        Some(Membership::Join) => Ok(room),
        _ => Err(error::forbidden(
            "You are not in this room, or it does not exist",
        )),
    }
}

/// The event that a group of one became.
fn the_event(events: Vec<OwnedEventId>) -> Result<OwnedEventId> {
    let mut events = events.into_iter();
    events
        .next()
        .ok_or_else(|| error::internal("a draft became no event"))
}
