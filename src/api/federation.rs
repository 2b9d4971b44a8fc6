//! What other servers ask for: the server-server API, as far as it is here.

mod authenticated_media;
mod authorization;
mod backfill;
mod device;
mod directory;
mod discovery;
mod edus;
mod event;
mod keys;
mod membership;
mod openid;
mod policy;
mod query;
mod space;
mod thirdparty;
mod transactions;
mod turns;

pub(crate) use self::turns::Turns;
use crate::{endpoint::Routes, rate_limit::Action};

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .download(authenticated_media::get_content)
        .download(authenticated_media::get_content_thumbnail)
        .written(directory::get_public_rooms)
        .written(directory::get_public_rooms_filtered)
        .endpoint(discovery::discover_homeserver)
        .endpoint(membership::prepare_join_event)
        .written(membership::create_join_event)
        .written(membership::create_join_event_v1)
        .endpoint(membership::prepare_leave_event)
        .endpoint(membership::create_leave_event)
        .written(membership::create_leave_event_v1)
        .endpoint(membership::prepare_knock_event)
        .written(membership::create_knock_event)
        .written(membership::create_invite_v1)
        .written(membership::create_invite_v2)
        .endpoint(thirdparty::exchange_invite)
        .endpoint(thirdparty::bind_callback)
        .limited(Action::Other)
        .written(discovery::get_server_keys)
        .endpoint(discovery::get_server_version)
        .endpoint(authorization::get_event_authorization)
        .endpoint(backfill::get_backfill)
        .endpoint(event::get_event)
        .endpoint(event::get_event_by_timestamp)
        .endpoint(event::get_missing_events)
        .written(event::get_room_state)
        .endpoint(event::get_room_state_ids)
        .endpoint(transactions::send_transaction_message)
        .written(discovery::get_remote_server_keys)
        .limited(Action::Other)
        .written(discovery::get_remote_server_keys_batch)
        .limited(Action::Other)
        .endpoint(openid::get_openid_userinfo)
        .endpoint(policy::sign_event)
        .limited(Action::PolicySignature)
        .endpoint(query::get_custom_information)
        .written(query::get_profile_information)
        .endpoint(query::get_room_information)
        .endpoint(device::get_devices)
        .endpoint(keys::get_keys)
        .endpoint(keys::claim_keys)
        .written(space::get_hierarchy)
}
