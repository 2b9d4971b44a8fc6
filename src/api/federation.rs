//! What other servers ask for: the server-server API, as far as it is here.

mod authorization;
mod backfill;
mod discovery;
mod event;
mod transactions;
mod turns;

pub(crate) use self::turns::Turns;
use crate::endpoint::Routes;

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(discovery::discover_homeserver)
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
