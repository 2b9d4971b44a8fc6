//! What operators' tools ask for: Synapse's admin API, as far as it is here.

pub mod register;

use crate::endpoint::Routes;

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(register::get_registration_nonce)
        .endpoint(register::register_with_shared_secret)
}
