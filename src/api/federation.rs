//! What other servers ask for: the server-server API, as far as it is here.

mod authorization;
mod backfill;
mod discovery;
mod event;
mod membership;
mod thirdparty;
mod transactions;
mod turns;

pub(crate) use self::turns::Turns;
use crate::{endpoint::Routes, rate_limit::Action};

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
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
}
