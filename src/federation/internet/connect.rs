//! Opening connections.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use super::proxy;
use crate::places::{Kind, NoPlace, Places, Target};

/// How long one address is tried before the next one is, too.
const HEAD_START: Duration = Duration::from_millis(300);

/// The port of what is asked without TLS, and names none.
const PLAIN_PORT: u16 = 80;

/// Opens connections for a client. Clones share what they know.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    shared: Arc<Shared>,
    kind: Kind,
}

struct Shared {
    places: Places,
    tls: TlsConnector,
    timeout: Duration,
    proxy: Option<config::HostPort>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.places.fmt(f)
    }
}

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Unconnected {
    /// It cannot be made.
    #[error("{0}")]
    Failed(String),
    /// It is not to be made.
    #[error("{0}")]
    Forbidden(String),
}

impl From<NoPlace> for Unconnected {
    fn from(fault: NoPlace) -> Self {
        match fault {
            NoPlace::Unknown(..) => Self::Failed(fault.to_string()),
            NoPlace::Private(_) => Self::Forbidden(fault.to_string()),
        }
    }
}

impl Connector {
    /// One for Matrix servers.
    pub(super) fn new(places: Places, tls: TlsConnector, settings: &config::Federation) -> Self {
        Self {
            shared: Arc::new(Shared {
                places,
                tls,
                timeout: settings.connect_timeout,
                proxy: settings.proxy.clone(),
            }),
            kind: Kind::Matrix,
        }
    }

    /// The same for servers of this kind.
    pub(super) fn to(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    async fn connect(self, uri: Uri) -> Result<Opened, Unconnected> {
        let open = self.open(&uri);
        match tokio::time::timeout(self.shared.timeout, open).await {
            Ok(opened) => opened,
            Err(_) => Err(Unconnected::Failed(format!(
                "no connection within {} s",
                self.shared.timeout.as_secs()
            ))),
        }
    }

    async fn open(&self, uri: &Uri) -> Result<Opened, Unconnected> {
        let failed = |why: String| Unconnected::Failed(why);
        let host = uri.host().unwrap_or_default();
        let plain = self.kind == Kind::Named && uri.scheme() == Some(&Scheme::HTTP);
        let port = uri.port_u16().or(plain.then_some(PLAIN_PORT));
        let places = &self.shared.places;
        let stream = match &self.shared.proxy {
            // Where the operator says that something is, it is reached.
            Some(proxy) if self.kind != Kind::Named && places.find_known(host, port).is_none() => {
                self.through(proxy, host, port).await?
            }
            _ => {
                let addresses = places.fetch(host, port, self.kind).await?;
                first_of(addresses).await.map_err(failed)?
            }
        };
        // What is small waits for nothing.
        stream
            .set_nodelay(true)
            .map_err(|fault| failed(fault.to_string()))?;
        if plain {
            return Ok(Opened {
                stream: Stream::Plain(TokioIo::new(stream)),
                http2: false,
            });
        }
        let name = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| failed(format!("{host} can have no certificate")))?;
        let stream = self.shared.tls.connect(name, stream).await;
        let stream = stream.map_err(|fault| failed(format!("no TLS with {host}: {fault}")))?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Opened {
            stream: Stream::Secure(Box::new(TokioIo::new(stream))),
            http2,
        })
    }

    /// A connection through a proxy, which looks up names itself.
    async fn through(
        &self,
        proxy: &config::HostPort,
        host: &str,
        port: Option<u16>,
    ) -> Result<TcpStream, Unconnected> {
        let places = &self.shared.places;
        let mut why = String::from("there is nowhere to connect to");
        for target in places.fetch_targets(host, port, self.kind).await {
            if !places.may_be_asked_of_a_proxy(&target.host) {
                return Err(NoPlace::Private(target.host).into());
            }
            match self.try_through(proxy, &target).await {
                Ok(stream) => return Ok(stream),
                Err(fault) => why = fault,
            }
        }
        Err(Unconnected::Failed(why))
    }

    async fn try_through(
        &self,
        proxy: &config::HostPort,
        target: &Target,
    ) -> Result<TcpStream, String> {
        let connected = TcpStream::connect((proxy.host.as_str(), proxy.port)).await;
        let mut stream =
            connected.map_err(|fault| format!("no connection to the proxy: {fault}"))?;
        proxy::tunnel(&mut stream, target).await?;
        Ok(stream)
    }
}

/// The first connection that is there, to one of these addresses: each gets a head start, and then the next
/// one is tried beside it.
async fn first_of(addresses: Vec<SocketAddr>) -> Result<TcpStream, String> {
    let mut left = addresses.into_iter();
    let mut trying = FuturesUnordered::new();
    let mut why = String::from("there is no address");
    loop {
        if let Some(address) = left.next() {
            trying.push(async move { (address, TcpStream::connect(address).await) });
        }
        let next = trying.next();
        let tried = if left.len() > 0 {
            // Nothing yet: try the next one beside it.
            let Ok(tried) = tokio::time::timeout(HEAD_START, next).await else {
                continue;
            };
            tried
        } else {
            next.await
        };
        match tried {
            Some((_, Ok(stream))) => return Ok(stream),
            Some((address, Err(fault))) => why = format!("no connection to {address}: {fault}"),
            None if left.len() == 0 => return Err(why),
            None => {}
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Opened;
    type Error = Unconnected;
    type Future = BoxFuture<'static, Result<Opened, Unconnected>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unconnected>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// An open connection.
pub(super) struct Opened {
    stream: Stream,
    http2: bool,
}

/// What is read from and written to.
enum Stream {
    Secure(Box<TokioIo<TlsStream<TcpStream>>>),
    /// To what the operator named so: most often on the same machine.
    Plain(TokioIo<TcpStream>),
}

impl Connection for Opened {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        if self.http2 {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Opened {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Secure(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Opened {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Secure(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Secure(stream) => Pin::new(stream).poll_flush(context),
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Secure(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
