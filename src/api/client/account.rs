//! Making, changing and closing accounts.

use std::sync::Arc;

use error::Result;
use ruma::{
    api::client::account::{
        ThirdPartyIdRemovalStatus, change_password, check_registration_token_validity, deactivate,
        get_username_availability,
        register::{self, LoginType, RegistrationKind},
        request_openid_token, whoami,
    },
    authentication::TokenType,
};
use users::{NewDevice, Registration, Requester};

use super::check_own;
use crate::{Call, Server};

/// [`POST /user/{userId}/openid/request_token`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridopenidrequest_token).
pub(super) async fn request_openid_token(
    server: Server,
    call: Call<request_openid_token::v3::Request>,
) -> Result<request_openid_token::v3::Response> {
    check_own(&call.caller, &call.user_id)?;
    let (token, lifetime) = server.users.create_openid_token(&call.caller);
    Ok(request_openid_token::v3::Response::new(
        token,
        TokenType::Bearer,
        server.users.server_name().to_owned(),
        lifetime,
    ))
}

/// [`POST /register`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register).
pub(super) async fn register(
    server: Server,
    call: Call<register::v3::Request>,
) -> Result<register::v3::Response> {
    let request = call.request;
    let device = NewDevice {
        device_id: request.device_id,
        display_name: request.initial_device_display_name.clone(),
        refresh_token: request.refresh_token,
    };
    let registered = match request.kind {
        RegistrationKind::User
            if matches!(request.login_type, Some(LoginType::ApplicationService)) =>
        {
            let service = call.caller.required()?;
            let device = (!request.inhibit_login).then_some(device);
            let username = request.username.as_deref();
            server
                .users
                .register_for(&service, username, device)
                .await?
        }
        RegistrationKind::User => {
            let registration = Registration {
                username: request.username.as_deref(),
                password: request.password.as_deref(),
                device,
                inhibit_login: request.inhibit_login,
                auth: request.auth.as_ref(),
                guest_access_token: request.guest_access_token.as_deref(),
            };
            server.users.register(registration).await?
        }
        RegistrationKind::Guest => {
            let display_name = request.initial_device_display_name;
            server.users.register_guest(display_name).await?
        }
        _ => {
            return Err(error::invalid_param("`kind` is `user` or `guest`"));
        }
    };
    let mut response = register::v3::Response::new(registered.user_id);
    if let Some(login) = registered.login {
        response.access_token = Some(login.access_token.into_string());
        response.device_id = Some(login.device_id);
        response.refresh_token = login.refresh_token.map(users::AccessToken::into_string);
        response.expires_in = login.expires_in;
    }
    Ok(response)
}

/// [`GET /register/available`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable).
pub(super) async fn get_username_availability(
    server: Server,
    call: Call<get_username_availability::v3::Request>,
) -> Result<get_username_availability::v3::Response> {
    server.users.check_available(&call.username).await?;
    Ok(get_username_availability::v3::Response::new(true))
}

/// [`GET /register/m.login.registration_token/validity`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity).
pub(super) async fn check_registration_token_validity(
    server: Server,
    call: Call<check_registration_token_validity::v1::Request>,
) -> Result<check_registration_token_validity::v1::Response> {
    let valid = server
        .users
        .is_registration_token_valid(&call.token)
        .await?;
    Ok(check_registration_token_validity::v1::Response::new(valid))
}

/// [`GET /account/whoami`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3accountwhoami).
pub(super) async fn whoami(
    _: Server,
    call: Call<whoami::v3::Request>,
) -> Result<whoami::v3::Response> {
    let requester = call.caller;
    let mut response = whoami::v3::Response::new(requester.user_id.clone(), requester.guest);
    response.device_id.clone_from(&requester.device_id);
    Ok(response)
}

/// [`POST /account/password`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword).
pub(super) async fn change_password(
    server: Server,
    call: Call<change_password::v3::Request>,
) -> Result<change_password::v3::Response> {
    let requester = logged_in(call.caller)?;
    let request = call.request;
    let users = &server.users;
    users
        .prove_again(&requester, "change_password", request.auth.as_ref())
        .await?;
    users
        .change_password(&requester, &request.new_password, request.logout_devices)
        .await?;
    Ok(change_password::v3::Response::new())
}

/// [`POST /account/deactivate`](https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate).
pub(super) async fn deactivate(
    server: Server,
    call: Call<deactivate::v3::Request>,
) -> Result<deactivate::v3::Response> {
    let requester = logged_in(call.caller)?;
    let request = call.request;
    let users = &server.users;
    users
        .prove_again_or_serve(&requester, "deactivate", request.auth.as_ref())
        .await?;
    users.deactivate(&requester.user_id, request.erase).await?;
    // There are no identity servers here, so nothing had to be unbound.
    let unbound = ThirdPartyIdRemovalStatus::Success;
    Ok(deactivate::v3::Response::new(unbound))
}

/// The specification lets these two be asked without a token by those who prove themselves by mail,
/// which this server does not offer.
fn logged_in(caller: Option<Arc<Requester>>) -> Result<Arc<Requester>> {
    caller.ok_or_else(|| {
        error::missing_token(
            "This needs an access token, in the header `Authorization: Bearer TOKEN`",
        )
    })
}
