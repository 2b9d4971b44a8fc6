//! The body of an answer: in memory as a whole, or a file that is read as fast as the client takes it.

use std::{
    fs::File,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::Stream as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::io::{AsyncReadExt as _, Take};
use tokio_util::io::ReaderStream;

/// How much of a file is read at once.
const PIECE: usize = 64 << 10;

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// A file.
    File(Reading),
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reading {
    /// What comes before the file.
    before: Bytes,
    left: u64,
    pieces: ReaderStream<Take<tokio::fs::File>>,
    /// What comes after it.
    after: Bytes,
}

impl Content {
    /// The first `length` bytes of a file.
    pub fn file(file: File, length: u64) -> Self {
        let file = tokio::fs::File::from_std(file).take(length);
        Self::File(Reading {
            before: Bytes::new(),
            left: length,
            pieces: ReaderStream::with_capacity(file, PIECE),
            after: Bytes::new(),
        })
    }

    /// The same content with something before it and after it.
    #[must_use]
    pub fn between(self, before: &[u8], after: &[u8]) -> Self {
        match self {
            Self::Whole(bytes) => Self::Whole([before, &bytes, after].concat().into()),
            Self::File(reading) => Self::File(Reading {
                before: [before, &reading.before].concat().into(),
                after: [&reading.after, after].concat().into(),
                ..reading
            }),
        }
    }

    /// How many bytes are still to come.
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::File(reading) => {
                reading.before.len() as u64 + reading.left + reading.after.len() as u64
            }
        }
    }

    /// What is in memory of it.
    pub fn whole(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::File(_) => &[],
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => {
                let whole = std::mem::take(bytes);
                Poll::Ready(Some(Ok(Frame::data(whole))))
            }
            Self::File(reading) if !reading.before.is_empty() => {
                let before = std::mem::take(&mut reading.before);
                Poll::Ready(Some(Ok(Frame::data(before))))
            }
            Self::File(reading) => {
                let read = ready!(Pin::new(&mut reading.pieces).poll_next(context));
                Poll::Ready(match read {
                    Some(Ok(piece)) => {
                        reading.left = reading.left.saturating_sub(piece.len() as u64);
                        Some(Ok(Frame::data(piece)))
                    }
                    Some(Err(failure)) => {
                        tracing::error!(%failure, "a file cannot be read");
                        Some(Err(failure))
                    }
                    // It is shorter than what was announced: the client must not take it for whole.
                    None if reading.left > 0 => {
                        reading.left = 0;
                        tracing::error!("a file is shorter than it should be");
                        Some(Err(io::ErrorKind::UnexpectedEof.into()))
                    }
                    None if !reading.after.is_empty() => {
                        let after = std::mem::take(&mut reading.after);
                        Some(Ok(Frame::data(after)))
                    }
                    None => None,
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use http_body_util::BodyExt as _;

    use super::*;

    fn open(text: &[u8], length: u64) -> Content {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, text).unwrap();
        Content::file(File::open(path).unwrap(), length)
    }

    #[tokio::test]
    async fn a_file_is_read_to_its_end_and_no_further() {
        let long = vec![7; 3 * PIECE + 1];
        for (text, length) in [
            (&b""[..], 0),
            (b"abc", 3),
            (b"abcdef", 3),
            (&long, long.len()),
        ] {
            let content = open(text, length as u64);
            assert_eq!(content.size_hint().exact(), Some(length as u64));
            let read = content.collect().await.unwrap().to_bytes();
            assert_eq!(read, text[..length]);
        }
    }

    #[tokio::test]
    async fn something_may_stand_around_it() {
        let whole = Content::Whole(Bytes::from_static(b"abc"));
        for content in [whole, open(b"abcdef", 3), open(b"", 0)] {
            let length = content.length();
            let around = content.between(b"<", b">").between(b"(", b")!");
            assert_eq!(around.length(), length + 5);
            let read = around.collect().await.unwrap().to_bytes();
            let expected: &[u8] = if length == 3 { b"(<abc>)!" } else { b"(<>)!" };
            assert_eq!(read, expected);
        }
    }

    #[tokio::test]
    async fn a_file_that_lacks_something_is_an_error() {
        assert!(open(b"ab", 3).collect().await.is_err());
        assert!(open(b"ab", 3).between(b"<", b">").collect().await.is_err());
    }
}
