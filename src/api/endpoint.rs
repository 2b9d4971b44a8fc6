//! From a line in a table to a function with Ruma's types, and back.

use std::{fmt, future::Future, net::IpAddr, ops::Deref, sync::Arc};

use bytes::Bytes;
use config::{Api, Config};
use error::Result;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use ruma::api::{
    IncomingRequest, Metadata, OutgoingResponse, OutgoingResponseExt as _,
    auth_scheme::AccessToken, path_builder::PathBuilder as _,
};

use crate::{
    Body, Content, Requester, Server, admin,
    authenticate::{self, Authentication, Peer, Scheme},
    body::{self, Pieces},
    guests,
    parse::{self, Arguments},
    rate_limit::Action,
    suspended,
};

/// One call of an endpoint: what is asked, and who has been proven to ask.
///
/// It dereferences to the request, so that `call.room_id` is `call.request.room_id`.
pub struct Call<R: Metadata<Authentication: Scheme>> {
    /// The caller, of the type that the endpoint's authentication proves.
    pub caller: <R::Authentication as Scheme>::Caller,
    /// The address that it is asked from, if that is known.
    pub address: Option<IpAddr>,
    /// What is asked.
    pub request: R,
    /// The body as it came, which is JSON where the method has one: for what Ruma's type leaves out.
    pub body: Bytes,
}

impl<R: Metadata<Authentication: Scheme>> Deref for Call<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.request
    }
}

/// A response body that the handler has already written as JSON, for answers too large to be built
/// as Ruma's types first (`/sync`, `/messages`).
#[derive(Clone, Debug)]
pub struct Written(pub Bytes);

/// A handler without its types: the router, and what is around it, is compiled once for all.
pub(crate) type Handler = Box<
    dyn Fn(Server, Request<Body>, Found) -> BoxFuture<'static, Result<Response<Content>>>
        + Send
        + Sync,
>;

/// What the router found for a request.
pub(crate) struct Found {
    /// The endpoint.
    pub(crate) route: Arc<Route>,
    /// The variables of the path.
    pub(crate) arguments: Arguments,
}

impl Found {
    /// Whether somebody, known or not, may ask for this, and now. The one place where that is asked, before
    /// anything is done.
    ///
    /// # Errors
    ///
    /// 403 `M_GUEST_ACCESS_FORBIDDEN` or `M_USER_SUSPENDED` for what guests or the suspended may not do, 403
    /// `M_FORBIDDEN` for what only administrators may, 429 `M_LIMIT_EXCEEDED`.
    fn admit(
        &self,
        server: &Server,
        requester: Option<&Requester>,
        address: Option<IpAddr>,
    ) -> Result<()> {
        if requester.is_some_and(|requester| requester.guest) {
            guests::check(self.route.name)?;
        }
        if requester.is_some_and(|requester| requester.suspended) {
            suspended::check(&self.route)?;
        }
        if self.route.api == Api::Admin
            && let Some(requester) = requester
        {
            admin::check_admin(requester)?;
        }
        match self.route.action {
            Some(action) => server.count(action, requester, address, 1),
            None => Ok(()),
        }
    }
}

/// Refuses a body that is JSON, but that Ruma's type must not see.
pub(crate) type Check = fn(&[u8]) -> Result<()>;

fn no_check(_: &[u8]) -> Result<()> {
    Ok(())
}

/// The part of what the server offers that a path belongs to.
fn api_of(path: &str) -> Api {
    let below = |prefix: &str| path.starts_with(prefix);
    if below("/_matrix/federation/")
        || below("/_matrix/key/")
        || below("/_matrix/policy/")
        || below("/.well-known/matrix/server")
    {
        Api::Federation
    } else if below("/_matrix/") || below("/.well-known/") {
        Api::Client
    } else if below("/_synapse/admin/") {
        Api::Admin
    } else {
        Api::Health
    }
}

/// An endpoint: where it is, what it asks of its caller, and the function that answers.
pub struct Route {
    /// Ruma's name, and that of our function: `send_message_event`.
    pub name: &'static str,
    /// The Ruma module it is in, and our file: `message`.
    pub module: &'static str,
    /// The method. `GET` answers `HEAD` too.
    pub method: Method,
    /// All paths it ever had, with variables as `{room_id}`.
    pub paths: Vec<String>,
    /// The interface it is a part of.
    pub api: Api,
    /// What it asks of its caller.
    pub authentication: Authentication,
    /// Whether the specification wants it rate-limited.
    pub rate_limited: bool,
    /// What doing it counts as, if it is limited.
    pub action: Option<Action>,
    pub(crate) handler: Handler,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{} {}", self.module, self.name, self.method)?;
        f.debug_list().entries(&self.paths).finish()
    }
}

/// A table of routes, to which one line adds an endpoint.
#[derive(Debug, Default)]
pub struct Routes(Vec<Route>);

impl Routes {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn into_list(self) -> Vec<Route> {
        self.0
    }

    /// Adds the endpoint that answers with Ruma's response type.
    #[must_use]
    pub(crate) fn endpoint<R, F, Answer>(self, function: F) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.checked_endpoint(no_check, function)
    }

    /// The same, with a look at the body before Ruma reads it.
    #[must_use]
    pub(crate) fn checked_endpoint<R, F, Answer>(self, check: Check, function: F) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.add::<R>(Box::new(move |server, request, found| {
            Box::pin(async move {
                let call = receive::<R>(&server, request, found, check).await?;
                encode(function(server, call).await?)
            })
        }))
    }

    /// The same, with a parameter that the query gets where the client leaves it out.
    #[must_use]
    pub(crate) fn endpoint_assuming<R, F, Answer>(
        self,
        parameter: &'static str,
        value: &'static str,
        function: F,
    ) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        self.add::<R>(Box::new(move |server, mut request, found| {
            assume(request.uri_mut(), parameter, value);
            Box::pin(async move {
                let call = receive::<R>(&server, request, found, no_check).await?;
                encode(function(server, call).await?)
            })
        }))
    }

    /// Adds the endpoint that writes its response itself.
    #[must_use]
    pub(crate) fn written<R, F, Answer>(self, function: F) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<Written>> + Send + 'static,
    {
        self.add::<R>(Box::new(move |server, request, found| {
            Box::pin(async move {
                let call = receive::<R>(&server, request, found, no_check).await?;
                Ok(json(function(server, call).await?.0))
            })
        }))
    }

    /// Adds the endpoint that answers with a file, or with whatever else Ruma's response cannot say.
    #[must_use]
    pub(crate) fn download<R, F, Answer>(self, function: F) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<Response<Content>>> + Send + 'static,
    {
        self.add::<R>(Box::new(move |server, request, found| {
            Box::pin(async move {
                let call = receive::<R>(&server, request, found, no_check).await?;
                function(server, call).await
            })
        }))
    }

    /// Adds the endpoint whose body is a file, taken in piece by piece. It writes its response itself: not
    /// all of Ruma's can be made by others.
    #[must_use]
    pub(crate) fn upload<R, F, Answer>(self, function: F) -> Self
    where
        R: IncomingRequest<Authentication = AccessToken> + Send + 'static,
        F: Fn(Server, Call<R>, Pieces) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<Written>> + Send + 'static,
    {
        self.add::<R>(Box::new(move |server, request, found| {
            Box::pin(async move {
                let (call, pieces) = receive_file::<R>(&server, request, found).await?;
                Ok(json(function(server, call, pieces).await?.0))
            })
        }))
    }

    /// Lets another function answer where the query of the endpoint before this has a parameter. It is asked
    /// without a body too.
    #[must_use]
    pub(crate) fn asked_with<R, F, Answer>(mut self, parameter: &'static str, function: F) -> Self
    where
        R: IncomingRequest<Authentication: Scheme> + Send + 'static,
        F: Fn(Server, Call<R>) -> Answer + Copy + Send + Sync + 'static,
        Answer: Future<Output = Result<R::OutgoingResponse>> + Send + 'static,
    {
        if let Some(mut route) = self.0.pop() {
            let handler = route.handler;
            route.handler = Box::new(move |server, request, found| {
                if !has_parameter(request.uri(), parameter) {
                    return handler(server, request, found);
                }
                Box::pin(async move {
                    let proven = prove::<R>(&server, request, &found).await?;
                    encode(function(server, proven.call_or_empty(found)?).await?)
                })
            });
            self.0.push(route);
        }
        self
    }

    /// Lets the endpoint before this be found at another path too, which has the same variables.
    #[must_use]
    pub(crate) fn also_at(mut self, path: &str) -> Self {
        if let Some(route) = self.0.last_mut() {
            route.paths.push(path.to_owned());
        }
        self
    }

    /// Lets the endpoint before this ask for an access token where it has not to, unless a setting opens it.
    #[must_use]
    pub(crate) fn with_token_unless(mut self, open: fn(&Config) -> bool) -> Self {
        if let Some(mut route) = self.0.pop() {
            let handler = Arc::new(route.handler);
            route.handler = Box::new(move |server, request, found| {
                let handler = Arc::clone(&handler);
                Box::pin(async move {
                    let (head, mut body) = request.into_parts();
                    if !open(&server.config) {
                        let requester = authenticate::requester(&server, &head).await;
                        (_, body) = body::unless_refused(requester, body).await?;
                    }
                    handler(server, Request::from_parts(head, body), found).await
                })
            });
            self.0.push(route);
        }
        self
    }

    /// Says what asking for the endpoint before this counts as.
    #[must_use]
    pub(crate) fn limited(mut self, action: Action) -> Self {
        if let Some(route) = self.0.last_mut() {
            route.action = Some(action);
        }
        self
    }

    fn add<R: IncomingRequest<Authentication: Scheme>>(mut self, handler: Handler) -> Self {
        let (module, name) = named(std::any::type_name::<R>());
        let paths: Vec<String> = R::PATH_BUILDER
            .all_paths()
            .flat_map(with_short_forms)
            .collect();
        self.0.push(Route {
            name,
            module,
            method: R::METHOD,
            api: paths.first().map_or(Api::Client, |path| api_of(path)),
            paths,
            authentication: <R::Authentication as Scheme>::AUTHENTICATION,
            rate_limited: R::RATE_LIMITED,
            action: R::RATE_LIMITED.then_some(Action::Other),
            handler,
        });
        self
    }
}

/// The module and the name in `ruma_client_api::message::send_message_event::v3::Request`.
fn named(type_name: &'static str) -> (&'static str, &'static str) {
    let mut parts: Vec<_> = type_name.split("::").collect();
    parts.pop();
    if parts.last().is_some_and(|part| {
        let digits = part.trim_start_matches("v");
        part.starts_with('v') && digits.bytes().all(|byte| byte.is_ascii_digit())
            || *part == "unstable"
    }) {
        parts.pop();
    }
    let name = parts.pop().unwrap_or(type_name);
    (parts.pop().unwrap_or(name), name)
}

/// A state key may be empty, and then its slash may be left out too, as any slash at the end.
fn with_short_forms(path: &'static str) -> Vec<String> {
    let mut forms = vec![path.to_owned()];
    let short = path.strip_suffix("{state_key}").unwrap_or(path);
    if short != path {
        forms.push(short.to_owned());
    }
    forms.extend(short.strip_suffix('/').map(str::to_owned));
    forms
}

fn has_parameter(uri: &Uri, parameter: &str) -> bool {
    let pairs = uri.query().unwrap_or_default().split('&');
    pairs
        .map(|pair| pair.split('=').next())
        .any(|key| key == Some(parameter))
}

/// Adds a parameter to the query, if it is not there.
fn assume(uri: &mut Uri, parameter: &str, value: &str) {
    if has_parameter(uri, parameter) {
        return;
    }
    let (path, query) = (uri.path(), uri.query().unwrap_or_default());
    let separator = if query.is_empty() { "" } else { "&" };
    if let Ok(whole) = format!("{path}?{query}{separator}{parameter}={value}").parse() {
        *uri = whole;
    }
}

async fn receive<R>(
    server: &Server,
    request: Request<Body>,
    found: Found,
    check: Check,
) -> Result<Call<R>>
where
    R: IncomingRequest<Authentication: Scheme>,
{
    let proven = prove::<R>(server, request, &found).await?;
    let request = parse::parse::<R>(proven.head, &proven.body, &found.arguments, check)?;
    Ok(Call {
        caller: proven.caller,
        address: proven.address,
        request,
        body: proven.body,
    })
}

/// A request whose caller is proven and may ask for it.
struct Proven<R: Metadata<Authentication: Scheme>> {
    head: http::request::Parts,
    body: Bytes,
    address: Option<IpAddr>,
    caller: <R::Authentication as Scheme>::Caller,
}

async fn prove<R>(server: &Server, request: Request<Body>, found: &Found) -> Result<Proven<R>>
where
    R: IncomingRequest<Authentication: Scheme>,
{
    let (head, body) = request.into_parts();
    let address = head.extensions.get::<Peer>().map(|Peer(address)| *address);
    let (caller, body) = R::Authentication::prove(server, &head, body).await?;
    if !R::Authentication::is_unlimited(&caller) {
        found.admit(server, R::Authentication::requester(&caller), address)?;
    }
    Ok(Proven {
        head,
        body,
        address,
        caller,
    })
}

impl<R: IncomingRequest<Authentication: Scheme>> Proven<R> {
    /// The call; without a body as with an empty object, and with an empty state key where the path has none.
    fn call_or_empty(self, mut found: Found) -> Result<Call<R>> {
        let path = R::PATH_BUILDER.all_paths().next().unwrap_or_default();
        let variables = path.matches('{').count();
        found.arguments.fill(variables);
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        let request = parse::parse::<R>(self.head, body, &found.arguments, no_check)?;
        Ok(Call {
            caller: self.caller,
            address: self.address,
            request,
            body: self.body,
        })
    }
}

/// The request, and its body as it comes in.
async fn receive_file<R>(
    server: &Server,
    request: Request<Body>,
    found: Found,
) -> Result<(Call<R>, Pieces)>
where
    R: IncomingRequest<Authentication = AccessToken>,
{
    let (head, body) = request.into_parts();
    let address = head.extensions.get::<Peer>().map(|Peer(address)| *address);
    let requester = authenticate::requester(server, &head).await;
    let (caller, body) = body::unless_refused(requester, body).await?;
    let pieces = Pieces::of(&head.headers, body, server.media.max_upload_size()).await?;
    let read = found
        .admit(server, Some(&caller), address)
        .and_then(|()| parse::parse::<R>(head, &[], &found.arguments, no_check));
    let (request, pieces) = pieces.unless_refused(read).await?;
    let call = Call {
        caller,
        request,
        body: Bytes::new(),
        address,
    };
    Ok((call, pieces))
}

fn encode<R: OutgoingResponse>(response: R) -> Result<Response<Content>> {
    let response = response
        .try_into_http_response::<Vec<u8>>()
        .map_err(error::internal)?;
    Ok(response.map(|body| Content::Whole(body.into())))
}

fn json(body: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
