//! Who somebody is, for those to whom they gave a token.

use error::Result;
use http::StatusCode;
use ruma::api::federation::openid::get_openid_userinfo;

use crate::{Call, Server};

/// [`GET /_matrix/federation/v1/openid/userinfo`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo).
pub(super) async fn get_openid_userinfo(
    server: Server,
    call: Call<get_openid_userinfo::v1::Request>,
) -> Result<get_openid_userinfo::v1::Response> {
    match server.users.find_openid_user(&call.access_token) {
        Some(user_id) => Ok(get_openid_userinfo::v1::Response::new(user_id)),
        None => Err(
            error::unknown_token(false, "This OpenID token is not valid (any more)")
                .with_status(StatusCode::UNAUTHORIZED),
        ),
    }
}
