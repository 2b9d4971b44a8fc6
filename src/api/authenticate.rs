//! Who asks: from Ruma's authentication schemes to a caller that is proven.

use std::future::Future;

use bytes::Bytes;
use error::Result;
use http::request;
use ruma::{
    OwnedDeviceId, OwnedUserId,
    api::auth_scheme::{
        AccessToken, AccessTokenOptional, AppserviceTokenOptional, AuthScheme, ExtractTokenError,
        NoAccessToken, NoAuthentication, extract_bearer_or_query_token,
    },
};

use crate::{
    Server,
    body::{self, Body},
};

/// A user of this server, proven by an access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// Who asks.
    pub user: OwnedUserId,
    /// The device that the token was given to.
    pub device: OwnedDeviceId,
}

/// What an endpoint asks of its caller, for tests and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    None,
    /// An access token is looked at if there is one, which must then be valid.
    OptionalAccessToken,
    /// An access token.
    AccessToken,
}

/// Whom one of Ruma's authentication schemes proves, and how. The type of `call.caller` follows from
/// it, so that a handler cannot ask for a user whom nobody has proven:
///
/// ```compile_fail
/// use api::Call;
/// use ruma::{OwnedUserId, api::client::session::get_login_types::v3::Request};
///
/// fn user(call: Call<Request>) -> OwnedUserId {
///     call.caller.user
/// }
/// ```
///
/// while where an access token is required, there is one:
///
/// ```
/// use api::Call;
/// use ruma::{OwnedUserId, api::client::account::whoami::v3::Request};
///
/// fn user(call: Call<Request>) -> OwnedUserId {
///     call.caller.user
/// }
/// ```
pub trait Scheme: AuthScheme {
    /// The caller, once proven.
    type Caller: Send;

    /// The scheme, as a value.
    const AUTHENTICATION: Authentication;

    /// Proves the caller and reads the body. Whoever can be refused without reading the body is.
    fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> impl Future<Output = Result<(Self::Caller, Bytes)>> + Send;
}

impl Scheme for NoAuthentication {
    type Caller = ();
    const AUTHENTICATION: Authentication = Authentication::None;

    async fn prove(_: &Server, head: &request::Parts, body: Body) -> Result<((), Bytes)> {
        let body = body::read(&head.headers, body, body::LIMIT_OF_STRANGERS).await?;
        Ok(((), body))
    }
}

impl Scheme for NoAccessToken {
    type Caller = ();
    const AUTHENTICATION: Authentication = Authentication::None;

    async fn prove(server: &Server, head: &request::Parts, body: Body) -> Result<((), Bytes)> {
        NoAuthentication::prove(server, head, body).await
    }
}

/// Application services are not proven yet; a token sent along proves nothing and is not looked at.
impl Scheme for AppserviceTokenOptional {
    type Caller = ();
    const AUTHENTICATION: Authentication = Authentication::None;

    async fn prove(server: &Server, head: &request::Parts, body: Body) -> Result<((), Bytes)> {
        NoAuthentication::prove(server, head, body).await
    }
}

impl Scheme for AccessToken {
    type Caller = Requester;
    const AUTHENTICATION: Authentication = Authentication::AccessToken;

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(Requester, Bytes)> {
        let Some(requester) = find_requester(server, head).await? else {
            return Err(error::missing_token(
                "This needs an access token, in the header `Authorization: Bearer TOKEN`",
            ));
        };
        let body = body::read(&head.headers, body, limit(server)).await?;
        Ok((requester, body))
    }
}

impl Scheme for AccessTokenOptional {
    type Caller = Option<Requester>;
    const AUTHENTICATION: Authentication = Authentication::OptionalAccessToken;

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(Option<Requester>, Bytes)> {
        let requester = find_requester(server, head).await?;
        let limit = match requester {
            Some(_) => limit(server),
            None => body::LIMIT_OF_STRANGERS,
        };
        let body = body::read(&head.headers, body, limit).await?;
        Ok((requester, body))
    }
}

/// The most bytes read of a body whose sender is known.
fn limit(server: &Server) -> usize {
    server.config.limits.max_request_body.as_usize()
}

/// The user whose access token came along. `None` when none came.
///
/// # Errors
///
/// 401 `M_UNKNOWN_TOKEN` when it is nobody's, 401 `M_MISSING_TOKEN` when the `Authorization` header
/// holds something else than a token.
async fn find_requester(server: &Server, head: &request::Parts) -> Result<Option<Requester>> {
    match token(head)? {
        None => Ok(None),
        Some(token) => match find_user(server, &token).await? {
            Some(requester) => Ok(Some(requester)),
            None => Err(unknown_token()),
        },
    }
}

/// The one place that asks whose an access token is. Nobody has an account yet, so it is nobody's.
async fn find_user(_: &Server, _: &str) -> Result<Option<Requester>> {
    Ok(None)
}

fn unknown_token() -> error::Error {
    error::unknown_token(false, "This access token is not valid (any more)")
}

/// The access token in the header, or in the query, where older clients put it.
fn token(head: &request::Parts) -> Result<Option<String>> {
    let mut request = http::Request::new(());
    *request.uri_mut() = head.uri.clone();
    if let Some(value) = head.headers.get(http::header::AUTHORIZATION) {
        request
            .headers_mut()
            .insert(http::header::AUTHORIZATION, value.clone());
    }
    match extract_bearer_or_query_token(&request) {
        Ok(token) => Ok(token),
        // A token of ours has none of these letters.
        Err(ExtractTokenError::FromHeader(_)) => Err(unknown_token()),
        Err(_) => Err(error::missing_token(
            "The header `Authorization` is not `Bearer` and an access token",
        )),
    }
}
