//! The internet: HTTP over TLS to where a server says it is.

mod connect;
mod proxy;
mod tls;

use std::{error::Error as _, fmt, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    future::{self, BoxFuture},
    stream,
};
use http::{HeaderValue, Request, Response, Uri, header, uri};
use http_body_util::{BodyStream, Full};
use hyper::body::{Body as _, Frame, Incoming};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioTimer},
};
use ruma::ServerName;
use storage::Clock;

use self::connect::{Connector, Unconnected};
pub use self::tls::BadAuthorities;
use crate::{
    Broken, Limits, Transport,
    names::Names,
    places::{Kind, Places},
    transport::{Pieces, whole},
    well_known::{self, WellKnown},
};

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(90);

/// How many connections that nobody uses are kept to one host.
const IDLE_A_HOST: usize = 4;

/// How often it is looked whether the other end of a connection is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The most bytes of an answer's head over HTTP/2.
const MAX_HEAD: u32 = 64 << 10;

/// The most headers of an answer over HTTP/1.
const MAX_HEADERS: usize = 100;

/// How often one is sent elsewhere when looking for who answers for a server.
const MAX_REDIRECTS: u32 = 5;

/// The way to other servers over the internet.
pub struct Http {
    /// To Matrix servers.
    matrix: Client<Connector, Full<Bytes>>,
    /// To web servers, which say who answers for a name.
    web: Client<Connector, Full<Bytes>>,
    /// To places that the operator named.
    named: Client<Connector, Full<Bytes>>,
    well_known: WellKnown,
    /// Names that are not to be looked for.
    known: Vec<String>,
}

impl Http {
    /// The way that an operator's settings allow.
    ///
    /// # Errors
    ///
    /// The file of certificate authorities cannot be used.
    pub fn open(settings: &config::Federation, clock: &Clock) -> Result<Self, BadAuthorities> {
        let addresses = settings.addresses.iter();
        let known = addresses.map(|known| {
            let name = known.server.as_str().to_ascii_lowercase();
            (name, known.address)
        });
        let places = Places {
            names: Names::system(),
            known: known.collect(),
            allow_private: settings.allow_private_addresses,
        };
        let known = places.known.keys().cloned().collect();
        let connector = Connector::new(places, tls::client(settings)?, settings);
        let client = |kind| {
            Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_A_HOST)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .http1_max_headers(MAX_HEADERS)
                .http2_max_header_list_size(MAX_HEAD)
                .http2_keep_alive_interval(KEEP_ALIVE)
                .http2_keep_alive_timeout(KEEP_ALIVE)
                .build(connector.clone().to(kind))
        };
        Ok(Self {
            matrix: client(Kind::Matrix),
            web: client(Kind::Web),
            named: client(Kind::Named),
            well_known: WellKnown::new(clock),
            known,
        })
    }

    /// The name of the host that answers for a server: for the `Host` header, and the certificate.
    async fn host_of(&self, server: &ServerName) -> String {
        if self.known.contains(&server.as_str().to_ascii_lowercase()) {
            return server.to_string();
        }
        let host = self
            .well_known
            .host_of(server, || self.fetch_well_known(server));
        host.await.to_string()
    }

    /// What a web server says about who answers for a server. Redirects are followed.
    async fn fetch_well_known(&self, server: &ServerName) -> Option<Response<Bytes>> {
        let uri = format!("https://{}{}", server.host(), well_known::PATH);
        let fetch = self.fetch_from_web(uri.parse().ok()?, well_known::MAX_BYTES);
        let answer = tokio::time::timeout(well_known::TIME, fetch).await.ok()?;
        answer.ok()
    }

    /// What is on the web at a URL. Redirects are followed.
    async fn fetch_from_web(&self, mut uri: Uri, limit: usize) -> Result<Response<Bytes>, Broken> {
        let unreachable = |why: String| Broken::Unreachable(why);
        if uri.scheme() != Some(&uri::Scheme::HTTPS) {
            return Err(unreachable(format!("{uri} is not on the web over TLS")));
        }
        for _ in 0..=MAX_REDIRECTS {
            let request = Request::get(uri.clone()).body(Full::default());
            let request = request.map_err(|fault| unreachable(fault.to_string()))?;
            let answer = self.web.request(request).await;
            let answer = answer.map_err(|fault| broken(&fault))?;
            if !answer.status().is_redirection() {
                let (head, body) = answer.into_parts();
                return Ok(Response::from_parts(head, read(body, limit).await?));
            }
            let location = answer.headers().get(header::LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            uri = location
                .and_then(|location| redirected(&uri, location))
                .ok_or_else(|| {
                    unreachable("a redirect leads to what is not on the web".to_owned())
                })?;
        }
        Err(unreachable("too many redirects".to_owned()))
    }

    async fn bring(
        &self,
        to: &ServerName,
        mut request: Request<Bytes>,
    ) -> Result<Response<Incoming>, Broken> {
        let host = self.host_of(to).await;
        let unreachable = |why: String| Broken::Unreachable(why);
        let path = request.uri().path_and_query().cloned();
        let mut whole = uri::Builder::new()
            .scheme(uri::Scheme::HTTPS)
            .authority(host.as_str());
        if let Some(path) = path {
            whole = whole.path_and_query(path);
        }
        *request.uri_mut() = whole
            .build()
            .map_err(|fault| unreachable(format!("{host} is no host: {fault}")))?;
        // With the port too where it is that of the web.
        let host = HeaderValue::from_str(&host).map_err(|fault| unreachable(fault.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let answer = self.matrix.request(request.map(Full::new)).await;
        answer.map_err(|fault| broken(&fault))
    }
}

impl Transport for Http {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        Box::pin(async move {
            let (head, body) = self.bring(to, request).await?.into_parts();
            Ok(Response::from_parts(head, read(body, limits.bytes).await?))
        })
    }

    fn send_for_pieces<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Pieces>, Broken>> {
        Box::pin(async move {
            let answer = self.bring(to, request).await?;
            Ok(answer.map(|body| pieces(body, limits.bytes)))
        })
    }

    fn fetch(&self, url: Uri, limits: Limits) -> BoxFuture<'_, Result<Response<Bytes>, Broken>> {
        Box::pin(self.fetch_from_web(url, limits.bytes))
    }

    fn call(
        &self,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Broken>> {
        let asked = self.named.request(request.map(Full::new));
        Box::pin(async move {
            let answer = asked.await.map_err(|fault| broken(&fault))?;
            let (head, body) = answer.into_parts();
            Ok(Response::from_parts(head, read(body, limits.bytes).await?))
        })
    }
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http({:?})", self.well_known)
    }
}

/// Where a redirect leads, if that may be followed: to web servers over TLS only.
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let to: Uri = if location.starts_with('/') && !location.starts_with("//") {
        format!("https://{}{location}", from.authority()?)
            .parse()
            .ok()?
    } else {
        location.parse().ok()?
    };
    (to.scheme() == Some(&uri::Scheme::HTTPS) && to.host().is_some()).then_some(to)
}

/// Reads a body that may have so many bytes.
async fn read(body: Incoming, limit: usize) -> Result<Bytes, Broken> {
    whole(pieces(body, limit), limit).await
}

/// A body that may have so many bytes, as it comes in.
fn pieces(body: Incoming, limit: usize) -> Pieces {
    // Some say before how long it is.
    if body.size_hint().lower() > limit as u64 {
        return stream::once(future::ready(Err(Broken::TooLarge(limit)))).boxed();
    }
    let mut left = limit;
    let mut within = move |frame: Result<Frame<Bytes>, hyper::Error>| {
        let frame = match frame {
            Ok(frame) => frame.into_data().ok()?,
            Err(fault) => return Some(Err(Broken::Unreachable(chain(&fault)))),
        };
        let fits = left.checked_sub(frame.len());
        left = fits.unwrap_or_default();
        Some(fits.map(|_| frame).ok_or(Broken::TooLarge(limit)))
    };
    let frames = BodyStream::new(body);
    frames
        .filter_map(move |frame| future::ready(within(frame)))
        .boxed()
}

fn broken(fault: &legacy::Error) -> Broken {
    let mut source = fault.source();
    while let Some(error) = source {
        if let Some(Unconnected::Forbidden(why)) = error.downcast_ref() {
            return Broken::Forbidden(why.clone());
        }
        source = error.source();
    }
    Broken::Unreachable(chain(fault))
}

/// An error with all that it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_to_web_servers_over_tls_only() {
        let from = Uri::from_static("https://a.example/.well-known/matrix/server");
        for (location, to) in [
            ("/x?y", Some("https://a.example/x?y")),
            ("https://b.example:1/x", Some("https://b.example:1/x")),
            ("http://b.example/x", None),
            ("//b.example/x", None),
            ("x", None),
            ("file:///etc/passwd", None),
            ("", None),
        ] {
            let found = redirected(&from, location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), to, "{location}");
        }
    }
}
