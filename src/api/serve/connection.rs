//! One connection: TLS, HTTP/1.1 or HTTP/2, and how long each step may take.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use config::{Api, Proxy};
use http::{HeaderMap, HeaderName, Request};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, timeout},
};

use super::{socket::Stream, tls::Certificate};
use crate::{Server, authenticate::Peer};

/// Where a proxy says whom it speaks for.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// How long the first bytes may take, of which HTTP/1.1 and HTTP/2 are told apart.
const FIRST_BYTES: Duration = Duration::from_secs(30);

/// How long a client may take none of what is written to it.
const STALLED: Duration = Duration::from_secs(60);

/// How many bytes these are: the preface of HTTP/2.
const PREFACE: usize = 24;

/// How long the headers of a request may take, and how long an HTTP/1.1 connection may lie idle. A
/// little longer than common proxies keep theirs, so that it is them who close it and they do not
/// send into a connection that we are closing.
const HEADERS: Duration = Duration::from_secs(75);

/// How often a quiet HTTP/2 connection is asked whether it lives, and how long it may take to say so.
const PING: (Duration, Duration) = (Duration::from_secs(45), Duration::from_secs(20));

/// How many requests one HTTP/2 connection may have open.
const STREAMS: u32 = 200;

/// The most bytes of the headers of a request.
const HEADER_BYTES: usize = 64 << 10;

/// Answers the requests of a connection until it ends. When the shutdown begins it ends after the
/// requests that are open.
pub(super) async fn serve(
    stream: Stream,
    certificate: Option<&Certificate>,
    apis: &[Api],
    server: &Server,
) {
    let peer = stream.peer();
    match certificate {
        None => speak(stream, peer, apis, server).await,
        Some(certificate) => {
            match timeout(HANDSHAKE, certificate.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => speak(stream, peer, apis, server).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    }
}

async fn speak<S>(stream: S, peer: Option<IpAddr>, apis: &[Api], server: &Server)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_buf_size(HEADER_BYTES)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    let apis: std::sync::Arc<[Api]> = apis.into();
    let service = service_fn(|request: Request<Incoming>| {
        let (server, apis) = (server.clone(), apis.clone());
        async move {
            let mut request = request.map(|body| body.map_err(Into::into).boxed_unsync());
            let trusted = &server.config.server.trusted_proxies;
            if let Some(ip) = asking(peer, request.headers(), trusted) {
                request.extensions_mut().insert(Peer(ip));
            }
            Ok::<_, Infallible>(server.answer(&apis, request).await)
        }
    });
    let io = TokioIo::new(Patient::with(stream));
    let mut connection = pin!(builder.serve_connection(io, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = server.shutdown.begun() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}

/// Who asks: the other end or, where that is a proxy whose word counts, whom it speaks for. Each proxy adds
/// at the end of the list whom it heard from: the last who is no such proxy is who asks, and what stands
/// before that is hearsay.
fn asking(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[Proxy]) -> Option<IpAddr> {
    let is_trusted = |ip| trusted.iter().any(|proxy| proxy.is(ip));
    let mut asking = peer;
    let forwarded = headers.get_all(FORWARDED_FOR).into_iter().rev();
    let mut forwarded = forwarded.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
    while is_trusted(asking)
        && let Some(ip) = forwarded.next().and_then(address)
    {
        asking = Some(ip);
    }
    asking
}

/// An address, which some proxies write with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let with_port = || text.parse().ok().map(|socket: SocketAddr| socket.ip());
    text.parse().ok().or_else(with_port)
}

/// A stream that fails when its first bytes do not come in time, or when what is written is not taken.
/// hyper has time-outs for reading from the moment on when it knows the version of HTTP, and none for
/// writing; who sends too little to tell, or never reads, would hold the connection for ever.
struct Patient<S> {
    stream: S,
    seen: usize,
    first_bytes: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn with(stream: S) -> Self {
        Self {
            stream,
            seen: 0,
            first_bytes: Some(Box::pin(tokio::time::sleep(FIRST_BYTES))),
            stalled: None,
        }
    }

    /// The same, unless nothing could be written for too long.
    fn unless_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        match deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(deadline) = &mut self.first_bytes else {
            return read;
        };
        match read {
            Poll::Pending if deadline.as_mut().poll(context).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
            ready => {
                self.seen += buffer.filled().len() - before;
                if self.seen >= PREFACE {
                    self.first_bytes = None;
                }
                ready
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.unless_stalled(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.unless_stalled(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.unless_stalled(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.unless_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn asked(peer: Option<&str>, forwarded: &[&str], trusted: &[Proxy]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        let peer = peer.map(|peer| peer.parse().unwrap());
        asking(peer, &headers, trusted).map(|ip| ip.to_string())
    }

    #[test]
    fn only_who_is_trusted_says_whom_it_speaks_for() {
        let usual = config::Server::default().trusted_proxies;
        let mine = [usual.as_slice(), &[Proxy::Network([10, 0, 0, 0].into(), 8)]].concat();
        let (stranger, proxy) = ("203.0.113.9", "10.0.0.1");
        for (peer, forwarded, trusted, asking) in [
            (
                Some(stranger),
                &["192.0.2.1"] as &[_],
                &mine,
                Some(stranger),
            ),
            (Some(proxy), &["192.0.2.1"], &usual, Some(proxy)),
            (Some(proxy), &["192.0.2.1"], &mine, Some("192.0.2.1")),
            (Some("127.0.0.1"), &["192.0.2.1"], &usual, Some("192.0.2.1")),
            (Some("127.0.0.1"), &[], &usual, Some("127.0.0.1")),
            (None, &["192.0.2.1"], &usual, Some("192.0.2.1")),
            (None, &["192.0.2.1"], &Vec::new(), None),
            (None, &[], &usual, None),
            // What stands before the last who is no proxy of ours was said by a stranger.
            (
                Some(proxy),
                &["1.1.1.1, 192.0.2.1, 10.9.9.9"],
                &mine,
                Some("192.0.2.1"),
            ),
            (
                Some(proxy),
                &["1.1.1.1", "192.0.2.1", "10.9.9.9"],
                &mine,
                Some("192.0.2.1"),
            ),
            (
                Some(proxy),
                &["10.1.1.1, 10.2.2.2"],
                &mine,
                Some("10.1.1.1"),
            ),
            (Some(proxy), &["1.1.1.1, unknown"], &mine, Some(proxy)),
            (Some(proxy), &[""], &mine, Some(proxy)),
            (Some(proxy), &["192.0.2.1:443"], &mine, Some("192.0.2.1")),
            (
                Some(proxy),
                &["[2001:db8::1]:443"],
                &mine,
                Some("2001:db8::1"),
            ),
        ] {
            let found = asked(peer, forwarded, trusted);
            assert_eq!(found.as_deref(), asking, "{peer:?} {forwarded:?}");
        }
    }
}
