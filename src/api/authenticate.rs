//! Who asks: from Ruma's authentication schemes to a caller that is proven.

use std::{future::Future, net::IpAddr, ops::Deref, sync::Arc};

use bytes::Bytes;
use error::Result;
use http::{Uri, request};
use ruma::{
    OwnedServerName, ServerName,
    api::{
        auth_scheme::{
            AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme,
            ExtractTokenError, NoAccessToken, NoAuthentication, extract_bearer_or_query_token,
        },
        federation::authentication::ServerSignatures,
    },
};
use users::{ApplicationService, Requester, Seen};

use crate::{
    Server,
    body::{self, Body},
    json,
};

/// What an endpoint asks of its caller, for tests and documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Nothing.
    None,
    /// An access token is looked at if there is one, which must then be valid.
    OptionalAccessToken,
    /// An access token.
    AccessToken,
    /// The token of an application service.
    ApplicationService,
    /// The signature of another server.
    ServerSignatures,
}

/// The server that asks, proven by its signature, and such as may ask this by the operator's policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(OwnedServerName);

impl Deref for Origin {
    type Target = ServerName;

    fn deref(&self) -> &ServerName {
        &self.0
    }
}

/// Whom one of Ruma's authentication schemes proves, and how. The type of `call.caller` follows from
/// it, so that a handler cannot ask for a user whom nobody has proven:
///
/// ```compile_fail
/// use api::Call;
/// use ruma::{OwnedUserId, api::client::session::get_login_types::v3::Request};
///
/// fn user(call: Call<Request>) -> OwnedUserId {
///     call.caller.user_id.clone()
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
///     call.caller.user_id.clone()
/// }
/// ```
pub trait Scheme: AuthScheme {
    /// The caller, once proven.
    type Caller: Send;

    /// The scheme, as a value.
    const AUTHENTICATION: Authentication;

    /// The user who is the caller, if it is known to be one.
    fn requester(_: &Self::Caller) -> Option<&Requester> {
        None
    }

    /// Whether nobody counts how often the caller asks: the operator registered it.
    fn is_unlimited(_: &Self::Caller) -> bool {
        false
    }

    /// What the body has to be before anybody reads it.
    ///
    /// # Errors
    ///
    /// `M_NOT_JSON`, `M_BAD_JSON`.
    fn check(_: &request::Parts, body: &[u8]) -> Result<()> {
        json::check(body)
    }

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

/// The application service that asks, if one does. Whoever else sends a token along is nobody here.
#[derive(Clone, Debug)]
pub struct MaybeService {
    service: Option<Arc<ApplicationService>>,
    token_sent: bool,
}

impl MaybeService {
    /// The service, for what only services may ask ([spec]).
    ///
    /// # Errors
    ///
    /// 401 `M_MISSING_TOKEN` if no token came, `M_UNKNOWN_TOKEN` if it is none of a service.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
    pub(crate) fn required(self) -> Result<Arc<ApplicationService>> {
        match self.service {
            Some(service) => Ok(service),
            None if self.token_sent => Err(error::unknown_token(
                false,
                "This is not the token of an application service",
            )),
            None => Err(missing_token()),
        }
    }
}

impl Scheme for AppserviceTokenOptional {
    type Caller = MaybeService;
    const AUTHENTICATION: Authentication = Authentication::None;

    fn is_unlimited(caller: &MaybeService) -> bool {
        caller.service.is_some()
    }

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(MaybeService, Bytes)> {
        let token = token(head);
        let token_sent = !matches!(token, Ok(None));
        let token = token.ok().flatten();
        let service = token.and_then(|token| server.users.find_application_service(&token));
        let caller = MaybeService {
            service,
            token_sent,
        };
        let body = body::read(&head.headers, body, body::LIMIT_OF_STRANGERS).await?;
        Ok((caller, body))
    }
}

impl Scheme for AppserviceToken {
    type Caller = Arc<ApplicationService>;
    const AUTHENTICATION: Authentication = Authentication::ApplicationService;

    fn is_unlimited(_: &Arc<ApplicationService>) -> bool {
        true
    }

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(Arc<ApplicationService>, Bytes)> {
        let found = service(server, head).await;
        let (service, body) = body::unless_refused(found, body).await?;
        let body = body::read(&head.headers, body, limit(server)).await?;
        Ok((service, body))
    }
}

impl Scheme for AccessToken {
    type Caller = Arc<Requester>;
    const AUTHENTICATION: Authentication = Authentication::AccessToken;

    fn requester(caller: &Arc<Requester>) -> Option<&Requester> {
        Some(caller)
    }

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(Arc<Requester>, Bytes)> {
        let found = requester(server, head).await;
        let (requester, body) = body::unless_refused(found, body).await?;
        let body = body::read(&head.headers, body, limit(server)).await?;
        Ok((requester, body))
    }
}

impl Scheme for AccessTokenOptional {
    type Caller = Option<Arc<Requester>>;
    const AUTHENTICATION: Authentication = Authentication::OptionalAccessToken;

    fn requester(caller: &Option<Arc<Requester>>) -> Option<&Requester> {
        caller.as_deref()
    }

    async fn prove(
        server: &Server,
        head: &request::Parts,
        body: Body,
    ) -> Result<(Option<Arc<Requester>>, Bytes)> {
        let found = find_requester(server, head).await;
        let (requester, body) = body::unless_refused(found, body).await?;
        let limit = match requester {
            Some(_) => limit(server),
            None => body::LIMIT_OF_STRANGERS,
        };
        let body = body::read(&head.headers, body, limit).await?;
        Ok((requester, body))
    }
}

/// How the paths begin of what servers send whose bodies are events, each of which is looked at by itself.
const OF_EVENTS: [&str; 2] = ["/_matrix/federation/v1/send/", "/_matrix/policy/v1/sign"];

impl Scheme for ServerSignatures {
    type Caller = Origin;
    const AUTHENTICATION: Authentication = Authentication::ServerSignatures;

    fn check(head: &request::Parts, body: &[u8]) -> Result<()> {
        let path = head.uri.path();
        if OF_EVENTS.iter().any(|begin| path.starts_with(begin)) {
            json::check_of_events(body)
        } else {
            json::check(body)
        }
    }

    async fn prove(server: &Server, head: &request::Parts, body: Body) -> Result<(Origin, Bytes)> {
        let claim = server.federation.claim(head).await;
        let (claim, body) = body::unless_refused(claim, body).await?;
        let body = body::read(&head.headers, body, body::LIMIT_OF_SERVERS).await?;
        // What is signed is the meaning of the body, not its bytes.
        if !body.is_empty() {
            Self::check(head, &body)?;
        }
        let origin = server.federation.prove(claim, head, &body).await?;
        server.outbox.heard_from(&origin);
        Ok((Origin(origin), body))
    }
}

/// The most bytes read of a body whose sender is known.
fn limit(server: &Server) -> usize {
    server.config.limits.max_request_body.as_usize()
}

/// The user whose access token came along.
///
/// # Errors
///
/// As [`find_requester`], and 401 `M_MISSING_TOKEN` when none came.
pub(crate) async fn requester(server: &Server, head: &request::Parts) -> Result<Arc<Requester>> {
    find_requester(server, head)
        .await?
        .ok_or_else(missing_token)
}

/// The application service whose token came along.
///
/// # Errors
///
/// As [`requester`], and 403 `M_FORBIDDEN` when it is somebody's, but no service's.
async fn service(server: &Server, head: &request::Parts) -> Result<Arc<ApplicationService>> {
    let token = token(head)?.ok_or_else(missing_token)?;
    if let Some(service) = server.users.find_application_service(&token) {
        return Ok(service);
    }
    match server.users.authenticate(&token).await? {
        Some(_) => Err(error::forbidden("This is for application services only")),
        None => Err(unknown_token()),
    }
}

/// The user whose access token came along. `None` when none came.
///
/// # Errors
///
/// 401 `M_UNKNOWN_TOKEN` when it is nobody's, 401 `M_MISSING_TOKEN` when the `Authorization` header
/// holds something else than a token, 401 `M_USER_LOCKED`; of an application service as
/// [`users::Users::act_as`].
async fn find_requester(server: &Server, head: &request::Parts) -> Result<Option<Arc<Requester>>> {
    let Some(token) = token(head)? else {
        return Ok(None);
    };
    let found = match server.users.find_application_service(&token) {
        Some(service) => {
            let user_id = parameter(&head.uri, "user_id")?;
            let device_id = parameter(&head.uri, "device_id")?;
            let requester = server
                .users
                .act_as(&service, user_id.as_deref(), device_id.as_deref());
            Some(requester.await?)
        }
        None if head.extensions.get::<EvenLocked>().is_some() => {
            server.users.authenticate_even_locked(&token).await?
        }
        None => server.users.authenticate(&token).await?,
    };
    let requester = found.ok_or_else(unknown_token)?;
    let peer = head.extensions.get::<Peer>().map(|Peer(ip)| ip.to_string());
    let seen = Seen {
        ip: peer.as_deref(),
        user_agent: head
            .headers
            .get(http::header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok()),
    };
    if let Err(error) = server.users.saw(&requester, seen).await {
        // No reason to refuse what was asked.
        tracing::warn!(%error, "when a device was last seen could not be written down");
    }
    Ok(Some(requester))
}

/// Whose account is locked may ask for this too, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EvenLocked;

impl EvenLocked {
    /// The only things that such people may do ([spec]), by Ruma's names.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#account-locking
    pub(crate) const ENDPOINTS: [&str; 2] = ["logout", "logout_all"];
}

/// The address that a request came from, as an extension of it: that of the machine at the other end,
/// or of the one that a trusted proxy speaks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer(pub(crate) IpAddr);

fn missing_token() -> error::Error {
    error::missing_token("This needs an access token, in the header `Authorization: Bearer TOKEN`")
}

fn unknown_token() -> error::Error {
    error::unknown_token(false, "This access token is not valid (any more)")
}

/// A parameter of the query, decoded.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM` if it is not UTF-8.
fn parameter(uri: &Uri, name: &str) -> Result<Option<String>> {
    let pairs = uri.query().unwrap_or_default().split('&');
    let mut found = pairs.filter_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name));
    let Some((_, value)) = found.next() else {
        return Ok(None);
    };
    let value = value.replace('+', " ");
    let decoded = percent_encoding::percent_decode_str(&value).decode_utf8();
    let decoded =
        decoded.map_err(|_| error::invalid_param(format!("`{name}` in the query is not UTF-8")))?;
    Ok(Some(decoded.into_owned()))
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
