//! Logging in and out.

use error::Result;
use ruma::api::client::session::{
    get_login_token, get_login_types,
    login::{self, v3::LoginInfo},
    logout, logout_all, refresh_token,
};
use serde::Deserialize;
use serde::de::IgnoredAny;
use users::NewDevice;

use crate::{Call, Server};

/// [`GET /login`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login).
pub(super) async fn get_login_types(
    server: Server,
    _: Call<get_login_types::v3::Request>,
) -> Result<get_login_types::v3::Response> {
    let flows = server.users.login_types();
    Ok(get_login_types::v3::Response::new(flows))
}

/// [`POST /login/get_token`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token).
pub(super) async fn get_login_token(
    server: Server,
    call: Call<get_login_token::v1::Request>,
) -> Result<get_login_token::v1::Response> {
    let auth = call.auth.as_ref();
    server
        .users
        .prove_again(&call.caller, "get_login_token", auth)
        .await?;
    let (token, lifetime) = server.users.create_login_token(&call.caller)?;
    Ok(get_login_token::v1::Response::new(lifetime, token))
}

/// [`POST /refresh`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3refresh).
pub(super) async fn refresh_token(
    server: Server,
    call: Call<refresh_token::v3::Request>,
) -> Result<refresh_token::v3::Response> {
    let new = server.users.refresh(&call.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(new.access_token.into_string());
    response.refresh_token = Some(new.refresh_token.into_string());
    response.expires_in_ms = Some(new.expires_in);
    Ok(response)
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
    let (request, address) = (call.request, call.address);
    let device = NewDevice {
        device_id: request.device_id,
        display_name: request.initial_device_display_name,
        refresh_token: request.refresh_token,
    };
    let users = &server.users;
    let login = match &request.login_info {
        LoginInfo::ApplicationService(login) => {
            let service = call.caller.required()?;
            users.login_for(&service, login, device).await?
        }
        info => users.login(info, device, address).await?,
    };
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
