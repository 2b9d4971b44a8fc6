//! Reading the body of a request, within limits of size and time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use error::{Error, Result};
use http::{HeaderMap, StatusCode, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};

/// The body of a request as it comes in, not yet read.
pub type Body = UnsyncBoxBody<Bytes, error::Source>;

/// The most bytes read of a body of anybody.
pub(crate) const LIMIT_OF_STRANGERS: usize = 128 << 10;

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
        Err(_) => Err(error::unknown(
            StatusCode::REQUEST_TIMEOUT,
            "The body of the request took too long to come in",
        )),
    }
}

/// How long a request that is refused may take to come in whole.
const LITTLE_PATIENCE: Duration = Duration::from_secs(5);

/// Throws away the body of a request that was refused by its head, if it is no longer than any stranger
/// may send. Without that the connection would end with the answer, and the client, who was not told,
/// would send its next request into it.
pub(crate) async fn discard(body: Body) {
    let seen = DRAINED.saturating_sub(LIMIT_OF_STRANGERS);
    let _ = tokio::time::timeout(LITTLE_PATIENCE, drain(body, seen)).await;
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

async fn read_whole(headers: &HeaderMap, mut body: Body, limit: usize) -> Result<Bytes> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        drain(body, 0).await;
        return Err(too_large(limit));
    }
    // Most bodies come in one piece, which is then handed on without a copy.
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if first.len() + whole.len() + piece.len() > limit {
            drain(body, whole.len()).await;
            return Err(too_large(limit));
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

async fn drain(mut body: Body, mut seen: usize) {
    while seen <= DRAINED
        && let Ok(Some(piece)) = next_piece(&mut body).await
    {
        seen = seen.saturating_add(piece.len());
    }
}

fn too_large(limit: usize) -> Error {
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

    #[tokio::test]
    async fn a_broken_connection_is_the_senders_fault() {
        let broken = stream::iter([Err::<Frame<Bytes>, error::Source>("reset".into())]);
        let body = StreamBody::new(broken).boxed_unsync();
        let error = read(&HeaderMap::new(), body, 3).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}
