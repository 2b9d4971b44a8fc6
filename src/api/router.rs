//! From method and path to an endpoint, and what every answer has, whoever gives it.

use std::{any::Any, fmt, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use bytes::Bytes;
use config::Api;
use error::{Error, Result};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use storage::Random;
use tracing::Instrument as _;

use crate::{
    Body, Content, Route, Server, authenticate::EvenLocked, body, endpoint::Found, parse::Arguments,
};

/// The header that names a request in the log, here and at a proxy in front of us.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id taken over from whoever is in front of us.
const LONGEST_REQUEST_ID: usize = 64;

/// The methods that endpoints of the specification have ([CORS]).
///
/// [CORS]: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");

/// The headers that a browser may send ([CORS]); the last for those who name their requests.
///
/// [CORS]: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
const HEADERS: HeaderValue =
    HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, X-Request-Id");

/// How many seconds a browser may remember the answer to `OPTIONS`.
const REMEMBERED: HeaderValue = HeaderValue::from_static("86400");

/// Two routes that ask for the same method and path, or a path that is not well-formed.
#[derive(Debug, thiserror::Error)]
#[error("the route {route} cannot be added: {reason}")]
pub struct Conflict {
    route: String,
    reason: String,
}

/// Finds the endpoint for a request.
pub struct Router {
    places: matchit::Router<Place>,
}

/// All endpoints of one path.
type Place = Vec<Entry>;

struct Entry {
    route: Arc<Route>,
    /// The names of the path's variables, which differ between the endpoints of one path.
    variables: Vec<String>,
}

impl Router {
    /// Builds the table.
    ///
    /// # Errors
    ///
    /// See [`Conflict`].
    pub(crate) fn new(routes: Vec<Route>) -> Result<Self, Conflict> {
        // Routes meet in the same place when only the names of their variables differ.
        let mut places: Vec<(String, Place)> = Vec::new();
        for route in routes {
            let route = Arc::new(route);
            for path in &route.paths {
                let (pattern, variables) = numbered(path);
                let entry = Entry {
                    route: Arc::clone(&route),
                    variables,
                };
                let Some((_, place)) = places.iter_mut().find(|(known, _)| *known == pattern)
                else {
                    places.push((pattern, vec![entry]));
                    continue;
                };
                if let Some(other) = place.iter().find(|e| e.route.method == route.method) {
                    return Err(Conflict {
                        route: format!("{} {path}", route.method),
                        reason: format!("`{}` is there already", other.route.name),
                    });
                }
                place.push(entry);
            }
        }
        let mut router = matchit::Router::new();
        for (pattern, place) in places {
            router
                .insert(pattern.clone(), place)
                .map_err(|fault| Conflict {
                    route: pattern,
                    reason: fault.to_string(),
                })?;
        }
        Ok(Self { places: router })
    }

    /// The route, and the variables of the path.
    ///
    /// # Errors
    ///
    /// 404 `M_UNRECOGNIZED` for an unknown path, 405 `M_UNRECOGNIZED` for an unknown method on a known
    /// one, `M_INVALID_PARAM` for a variable that cannot be one.
    fn find(&self, method: &Method, path: &str, apis: &[Api]) -> Result<Found> {
        let unknown = || error::unrecognized("There is no such endpoint here");
        let found = self.places.at(path).map_err(|_| unknown())?;
        let place: Vec<&Entry> = found
            .value
            .iter()
            .filter(|entry| apis.contains(&entry.route.api))
            .collect();
        if place.is_empty() {
            return Err(unknown());
        }
        let wanted = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        let Some(entry) = place.iter().find(|entry| entry.route.method == *wanted) else {
            let known: Vec<_> = place.iter().map(|e| e.route.method.as_str()).collect();
            let known = known.join(" and ");
            return Err(error::method_not_allowed(format!(
                "This endpoint knows {known} only"
            )));
        };
        let values = found.params.iter().map(|(_, value)| value);
        let arguments = Arguments::decoded(entry.variables.iter().map(String::as_str).zip(values))?;
        Ok(Found {
            route: Arc::clone(&entry.route),
            arguments,
        })
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Router")
    }
}

/// The path with its variables numbered, and their names.
fn numbered(path: &str) -> (String, Vec<String>) {
    let mut variables = Vec::new();
    let mut pattern = String::new();
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            pattern.push('/');
        }
        match segment.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            Some(name) => {
                pattern.push_str(&format!("{{{}}}", variables.len()));
                variables.push(name.to_owned());
            }
            None => pattern.push_str(segment),
        }
    }
    (pattern, variables)
}

impl Server {
    /// Answers one request that came in where `apis` are offered. Whatever happens, there is an
    /// answer.
    pub async fn answer(&self, apis: &[Api], request: Request<Body>) -> Response<Content> {
        let begun = Instant::now();
        let id = request_id(request.headers(), &self.random);
        let span = tracing::info_span!(
            "request",
            id = id.to_str().unwrap_or_default(),
            method = %request.method(),
            endpoint = tracing::field::Empty,
        );
        let mut response = async {
            let path = request.uri().path().to_owned();
            let response = self.answer_in_span(apis, request).await;
            // Not the query: it may hold an access token.
            tracing::debug!(
                path,
                status = response.status().as_u16(),
                bytes = response.body().length(),
                milliseconds = begun.elapsed().as_millis(),
                "answered"
            );
            response
        }
        .instrument(span)
        .await;
        let headers = response.headers_mut();
        allow_browsers(headers);
        headers.insert(REQUEST_ID, id);
        response
    }

    async fn answer_in_span(&self, apis: &[Api], mut request: Request<Body>) -> Response<Content> {
        if request.method() == Method::OPTIONS {
            return preflight();
        }
        let found = self
            .router
            .find(request.method(), request.uri().path(), apis);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                body::discard(request.into_body()).await;
                return error.into_response().map(Content::Whole);
            }
        };
        let route = Arc::clone(&found.route);
        tracing::Span::current().record("endpoint", route.name);
        if EvenLocked::ENDPOINTS.contains(&route.name) {
            request.extensions_mut().insert(EvenLocked);
        }
        let reads = route.method == Method::GET;
        let work = (route.handler)(self.clone(), request, found);
        let work = AssertUnwindSafe(work).catch_unwind();
        // What only reads ends when the client goes away. What changes something is carried through
        // all the same: half a change is nobody's wish.
        let outcome = if reads {
            work.await
        } else {
            match self.tasks.spawn(work.in_current_span()).await {
                Ok(outcome) => outcome,
                Err(ended) => Err(Box::new(ended) as Box<dyn Any + Send>),
            }
        };
        outcome
            .unwrap_or_else(|panic| Err(panicked(&*panic)))
            .unwrap_or_else(|error| error.into_response().map(Content::Whole))
    }
}

/// A panic is our fault, and kept from the client.
fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    error::internal(format!("a panic: {text}"))
}

/// The id that came along, if it is short and plain, or else a new one.
fn request_id(headers: &HeaderMap, random: &Random) -> HeaderValue {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    match headers.get(REQUEST_ID) {
        Some(id)
            if (1..=LONGEST_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(plain) =>
        {
            id.clone()
        }
        _ => HeaderValue::try_from(random.letters(10))
            .unwrap_or_else(|_| HeaderValue::from_static("none")),
    }
}

fn preflight() -> Response<Content> {
    let mut response = Response::new(Content::Whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
        .headers_mut()
        .insert(header::ACCESS_CONTROL_MAX_AGE, REMEMBERED);
    response
}

fn allow_browsers(headers: &mut HeaderMap) {
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
}
