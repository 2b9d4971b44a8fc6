//! The client-server API: one line an endpoint, in the order of Ruma's modules.

mod discovery;

use crate::endpoint::Routes;

pub(crate) fn routes(routes: Routes) -> Routes {
    routes.endpoint(discovery::get_supported_versions)
}
