//! What other servers ask for: the server-server API, as far as it is here.

mod discovery;

use crate::endpoint::Routes;

pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(discovery::discover_homeserver)
        .written(discovery::get_server_keys)
        .endpoint(discovery::get_server_version)
}
