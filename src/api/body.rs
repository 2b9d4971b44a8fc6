//! Reading the body of a request, within limits of size and time.

use std::{future::Future, time::Duration};

use bytes::{Bytes, BytesMut};
use error::{Error, Result};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

/// The body of a request as it comes in, not yet read.
pub type Body = UnsyncBoxBody<Bytes, error::Source>;

/// The most bytes read of a body of anybody.
pub(crate) const LIMIT_OF_STRANGERS: usize = 128 << 10;

/// The most bytes read of a body that another server is to have signed: 50 events of 64 KiB and 100 messages
/// beside them, all with some room, since strangers may write what they like in more letters than they need.
pub(crate) const LIMIT_OF_SERVERS: usize = 16 << 20;

/// The most bytes thrown away of a body that is too large. Without reading on, the connection would
/// be reset while the client still writes, and it would never see the answer.
const DRAINED: usize = 16 << 20;

/// How long a body may take to come in.
const PATIENCE: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes.
///
/// # Errors
///
/// 413 `M_TOO_LARGE`, 408 `M_UNKNOWN` when it takes too long, 400 when the connection breaks.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes> {
    match tokio::time::timeout(PATIENCE, read_whole(headers, body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> Error {
    error::unknown(
        StatusCode::REQUEST_TIMEOUT,
        "The body of the request took too long to come in",
    )
}

/// How long a request that is refused may take to come in whole.
const LITTLE_PATIENCE: Duration = Duration::from_secs(5);

/// Throws away the body of a request that was refused by its head, if it is no longer than any stranger
/// may send. Without that the connection would end with the answer, and the client, who was not told,
/// would send its next request into it.
pub(crate) async fn discard(body: Body) {
    let seen = DRAINED.saturating_sub(LIMIT_OF_STRANGERS);
    while_patient(drain(body, seen)).await;
}

/// The body again, for a request that was not refused by its head.
///
/// # Errors
///
/// The refusal.
pub(crate) async fn unless_refused<T>(found: Result<T>, body: Body) -> Result<(T, Body)> {
    match found {
        Ok(found) => Ok((found, body)),
        Err(refusal) => {
            discard(body).await;
            Err(refusal)
        }
    }
}

/// A body that is taken piece by piece, and not kept.
pub(crate) struct Pieces {
    body: Body,
    limit: u64,
    seen: u64,
    /// When it must have come in whole.
    end: tokio::time::Instant,
}

/// How long a file may take to come in whole.
const PATIENCE_FOR_FILES: Duration = Duration::from_secs(3600);

impl Pieces {
    /// A body of at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// 413 `M_TOO_LARGE` if it says itself that it is longer.
    pub(crate) async fn of(headers: &HeaderMap, body: Body, limit: u64) -> Result<Self> {
        if announced(headers).is_some_and(|length| length > limit) {
            while_patient(drain(body, 0)).await;
            return Err(too_large(limit));
        }
        Ok(Self {
            body,
            limit,
            seen: 0,
            end: tokio::time::Instant::now() + PATIENCE_FOR_FILES,
        })
    }

    /// The next piece; nothing at the end.
    ///
    /// # Errors
    ///
    /// As [`read`].
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        let end = self.end.min(tokio::time::Instant::now() + PATIENCE);
        let piece = match tokio::time::timeout_at(end, next_piece(&mut self.body)).await {
            Ok(piece) => piece?,
            Err(_) => return Err(too_slow()),
        };
        let length = piece.as_ref().map_or(0, Bytes::len) as u64;
        self.seen = self.seen.saturating_add(length);
        if self.seen > self.limit {
            while_patient(drain_of(&mut self.body, 0)).await;
            return Err(too_large(self.limit));
        }
        Ok(piece)
    }

    /// The body again, if what was found is no refusal; else what is left of it is thrown away, as far
    /// as a client may be expected to read on.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub(crate) async fn unless_refused<T>(mut self, found: Result<T>) -> Result<(T, Self)> {
        match found {
            Ok(found) => Ok((found, self)),
            Err(refusal) => {
                while_patient(drain_of(&mut self.body, 0)).await;
                Err(refusal)
            }
        }
    }
}

/// Ends what throws away a body when it takes too long.
async fn while_patient(draining: impl Future<Output = ()>) {
    let _ = tokio::time::timeout(LITTLE_PATIENCE, draining).await;
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

async fn read_whole(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes> {
    let announced = announced(headers).map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if announced.is_some_and(|length| length > limit) {
        drain(body, 0).await;
        return Err(too_large(limit as u64));
    }
    // Most bodies come in one piece, which is then handed on without a copy.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if first.len() + whole.len() + piece.len() > limit {
            drain(body, whole.len()).await;
            return Err(too_large(limit as u64));
        }
        if first.is_empty() && whole.is_empty() {
            first = piece;
        } else {
            if whole.is_empty() {
                whole.reserve(announced.unwrap_or(first.len() + piece.len()));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&piece);
        }
    }
    Ok(if whole.is_empty() {
        first
    } else {
        whole.freeze()
    })
}

/// The next piece of the body; trailers are not looked at.
async fn next_piece(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(broken)) => {
                tracing::debug!(error = %broken, "a body ended early");
                return Err(error::unknown(
                    StatusCode::BAD_REQUEST,
                    "The body of the request ended early",
                ));
            }
        }
    }
}

async fn drain(mut body: Body, seen: usize) {
    drain_of(&mut body, seen).await;
}

async fn drain_of(body: &mut Body, mut seen: usize) {
    while seen <= DRAINED
        && let Ok(Some(piece)) = next_piece(body).await
    {
        seen = seen.saturating_add(piece.len());
    }
}

fn too_large(limit: u64) -> Error {
    error::too_large(format!(
        "The body of the request is larger than the {limit} bytes allowed here"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn pieces(pieces: &[&'static [u8]]) -> Body {
        let frames: Vec<_> = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece))))
            .collect();
        StreamBody::new(stream::iter(frames))
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    async fn read_pieces(list: &[&'static [u8]], limit: usize) -> Result<Bytes> {
        read(&HeaderMap::new(), pieces(list), limit).await
    }

    #[tokio::test]
    async fn puts_pieces_together_up_to_the_limit() {
        assert_eq!(read_pieces(&[], 9).await.unwrap(), "");
        assert_eq!(read_pieces(&[b"abc"], 3).await.unwrap(), "abc");
        assert_eq!(
            read_pieces(&[b"abc", b"", b"def", b"ghi"], 9)
                .await
                .unwrap(),
            "abcdefghi"
        );
        let lists: [&[&'static [u8]]; 3] = [&[b"abcd"], &[b"ab", b"cd"], &[b"a", b"b", b"c", b"d"]];
        for list in lists {
            let error = read_pieces(list, 3).await.unwrap_err();
            assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
    }

    #[tokio::test]
    async fn an_announced_length_is_believed_when_it_is_too_large() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, 4.into());
        let error = read(&headers, pieces(&[b"a"]), 3).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, error::Source>>());
        let error = read(&HeaderMap::new(), silent.boxed_unsync(), 3)
            .await
            .unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }

    async fn of(list: &[&'static [u8]], limit: u64) -> Result<Vec<u8>> {
        let mut taken = Vec::new();
        let mut body = Pieces::of(&HeaderMap::new(), pieces(list), limit).await?;
        while let Some(piece) = body.next().await? {
            taken.extend_from_slice(&piece);
        }
        Ok(taken)
    }

    #[tokio::test]
    async fn pieces_are_handed_on_up_to_the_limit() {
        assert_eq!(of(&[], 0).await.unwrap(), b"");
        assert_eq!(of(&[b"ab", b"", b"c"], 3).await.unwrap(), b"abc");
        let error = of(&[b"ab", b"", b"cd"], 3).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, 4.into());
        let refused = Pieces::of(&headers, pieces(&[b"a"]), 3).await;
        let status = refused.err().map(|error| error.status());
        assert_eq!(status, Some(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn who_announces_too_much_and_sends_nothing_is_not_waited_for() {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, 4.into());
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, error::Source>>());
        let refused = Pieces::of(&headers, silent.boxed_unsync(), 3);
        let refused = tokio::time::timeout(LITTLE_PATIENCE * 2, refused).await;
        let status = refused.unwrap().err().map(|error| error.status());
        assert_eq!(status, Some(StatusCode::PAYLOAD_TOO_LARGE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_never_comes_is_given_up() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, error::Source>>());
        let body = silent.boxed_unsync();
        let mut body = Pieces::of(&HeaderMap::new(), body, 3).await.unwrap();
        let error = body.next().await.unwrap_err();
        assert_eq!(error.status(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn a_broken_connection_is_the_senders_fault() {
        let broken = stream::iter([Err::<Frame<Bytes>, error::Source>("reset".into())]);
        let body = StreamBody::new(broken).boxed_unsync();
        let error = read(&HeaderMap::new(), body, 3).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}
