//! Logging in and out.

use error::Result;
use ruma::api::client::session::{
    get_login_types::{
        self,
        v3::{LoginType, PasswordLoginType},
    },
    login, logout, logout_all,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use users::NewDevice;

use crate::{Call, Server};

/// [`GET /login`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login).
pub(super) async fn get_login_types(
    _: Server,
    _: Call<get_login_types::v3::Request>,
) -> Result<get_login_types::v3::Response> {
    let flows = vec![LoginType::Password(PasswordLoginType::new())];
    Ok(get_login_types::v3::Response::new(flows))
}

/// Refuses a login without a `type`, on which Ruma's type panics.
pub(super) fn has_type(body: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(rename = "type")]
        login_type: Option<IgnoredAny>,
    }
    match serde_json::from_slice(body) {
        Ok(Body {
            login_type: Some(_),
        }) => Ok(()),
        _ => Err(error::missing_param(
            "The body of the request is wrong: missing field `type`",
        )),
    }
}

/// [`POST /login`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login).
pub(super) async fn login(
    server: Server,
    call: Call<login::v3::Request>,
) -> Result<login::v3::Response> {
    let request = call.request;
    let device = NewDevice {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
    };
    let login = server.users.login(&request.login_info, device).await?;
    let token = login.access_token.into_string();
    let mut response = login::v3::Response::new(login.user_id, token, login.device_id);
    response.refresh_token = login.refresh_token.map(users::AccessToken::into_string);
    response.expires_in = login.expires_in;
    Ok(response)
}

/// [`POST /logout`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logout).
pub(super) async fn logout(
    server: Server,
    call: Call<logout::v3::Request>,
) -> Result<logout::v3::Response> {
    server.users.logout(&call.caller).await?;
    Ok(logout::v3::Response::new())
}

/// [`POST /logout/all`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3logoutall).
pub(super) async fn logout_all(
    server: Server,
    call: Call<logout_all::v3::Request>,
) -> Result<logout_all::v3::Response> {
    server.users.logout_all(&call.caller).await?;
    Ok(logout_all::v3::Response::new())
}
