//! How bytes get to another server and back.

use std::{fmt, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::{
    StreamExt as _,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use http::{Request, Response, Uri};
use ruma::ServerName;

/// The body of an answer as it comes in.
pub type Pieces = BoxStream<'static, Result<Bytes, Broken>>;

/// The way to other servers: the internet, or in tests a network in memory.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Brings a request to a server and its answer back. The request's URI is a path with its query.
    ///
    /// # Errors
    ///
    /// See [`Broken`].
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>>;

    /// The same for an answer that may be long: its body comes in piece by piece. In networks in memory it is one
    /// piece.
    ///
    /// # Errors
    ///
    /// See [`Broken`]; the pieces too may break off.
    fn send_for_pieces<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Pieces>, Broken>> {
        let sent = self.send(to, request, limits);
        let in_one = |body| stream::once(future::ready(Ok(body))).boxed();
        Box::pin(async move { Ok(sent.await?.map(in_one)) })
    }

    /// What is on the web at a URL; redirects are followed. Of most networks in memory there is no web.
    ///
    /// # Errors
    ///
    /// See [`Broken`].
    fn fetch(&self, url: Uri, _: Limits) -> BoxFuture<'_, Result<Response<Bytes>, Broken>> {
        let nowhere = Broken::Unreachable(format!("{url} cannot be reached from here"));
        Box::pin(async { Err(nowhere) })
    }

    /// Brings a request to a place that the operator named, by its whole URL, and its answer back. From most
    /// networks in memory there is no way out.
    ///
    /// # Errors
    ///
    /// See [`Broken`].
    fn call(
        &self,
        request: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'_, Result<Response<Bytes>, Broken>> {
        let nowhere = Broken::Unreachable(format!("{} cannot be reached from here", request.uri()));
        Box::pin(async { Err(nowhere) })
    }
}

/// How much an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body, in bytes.
    pub bytes: usize,
    /// The time until it must have come in whole.
    pub time: Duration,
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The server cannot be found, or no connection to it be made, or the connection broke, or the time is up.
    #[error("{0}")]
    Unreachable(String),
    /// An answer came, but it has more bytes than it may have.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// There is no asking this server: its name leads to an address that is not to be reached.
    #[error("{0}")]
    Forbidden(String),
}

impl Broken {
    /// The time is up.
    pub(crate) fn late(limits: Limits) -> Self {
        Self::Unreachable(format!("no answer within {} s", limits.time.as_secs()))
    }
}

/// A body in one piece, if it has no more bytes than these.
pub(crate) async fn whole(mut pieces: Pieces, limit: usize) -> Result<Bytes, Broken> {
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if whole.len().saturating_add(piece.len()) > limit {
            return Err(Broken::TooLarge(limit));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// A network that leads nowhere: of a server that is alone.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Transport for Nowhere {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        _: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        let alone = Broken::Unreachable("this server is alone".to_owned());
        Box::pin(async { Err(alone) })
    }
}
