//! The error that every request may end in, and its form on the wire.
//!
//! An [`Error`] is one of three things:
//!
//! * a **Matrix error**: a status, an `errcode` and a sentence that helps ([standard error
//!   response]). Made by the functions of this crate, one for each `errcode`, named as Ruma names
//!   it: `error::forbidden("You are not in this room")`.
//! * a **user-interactive challenge**: status 401 with what the client still has to prove
//!   ([`Error::challenge`]).
//! * **internal**: something of ours failed ([`internal`]), or took too long ([`too_busy`]). The source
//!   is kept, logged once, at the boundary, by [`Error::into_response`]; the client only hears
//!   `M_UNKNOWN`, and in the second case that it may come again.
//!
//! There is no blanket conversion from other errors: `?` on, say, a parse error of what a client
//! sent must not turn into a 500 unnoticed. `storage` converts its own; everybody else writes
//! `.map_err(error::internal)?`.
//!
//! [standard error response]: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response

mod kinds;
mod response;
#[cfg(test)]
mod tests;

use std::fmt;

use http::StatusCode;
use ruma::api::{
    client::uiaa::UiaaInfo,
    error::{ErrorKind, StandardErrorBody},
};
use serde_json::{Map, Value};

pub use self::kinds::*;

/// What a function that serves a request returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that went wrong inside, with its own chain of sources.
pub type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// Why a request was not served. See the head of this crate.
///
/// One pointer wide, so that a `Result` of it costs nothing on the way that succeeds.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
enum Inner {
    Matrix {
        status: StatusCode,
        kind: ErrorKind,
        message: String,
        more: Map<String, Value>,
    },
    Challenge(UiaaInfo),
    Internal {
        context: Option<String>,
        source: Source,
        /// The same may go well in a moment.
        passes: bool,
    },
}

impl Error {
    /// A Matrix error with an explicit status. The functions of this crate know the usual status
    /// of each `errcode`; this one is for kinds that have no function yet.
    pub fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner::Matrix {
            status,
            kind,
            message: message.into(),
            more: Map::new(),
        }))
    }

    /// A user-interactive challenge: the client has to prove more and send the request again
    /// ([user-interactive API]).
    ///
    /// [user-interactive API]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
    pub fn challenge(info: UiaaInfo) -> Self {
        Self(Box::new(Inner::Challenge(info)))
    }

    /// A user-interactive challenge that tells why the last stage failed: `reason`'s `errcode` and
    /// message stand beside the flows. An internal `reason` stays internal.
    pub fn challenge_again(mut info: UiaaInfo, reason: Error) -> Self {
        match *reason.0 {
            Inner::Matrix { kind, message, .. } => {
                info.auth_error = Some(Box::new(StandardErrorBody::new(kind, message)));
                Self::challenge(info)
            }
            Inner::Challenge(_) => Self::challenge(info),
            internal @ Inner::Internal { .. } => Self(Box::new(internal)),
        }
    }

    /// The same error under another status, where an endpoint of the specification asks for one.
    /// Only Matrix errors have a status to choose; others stay as they are.
    pub fn with_status(mut self, new: StatusCode) -> Self {
        if let Inner::Matrix { status, .. } = &mut *self.0 {
            *status = new;
        }
        self
    }

    /// The same error with one more member beside `errcode` and `error`, for `errcode`s to which Ruma gives
    /// none. Only Matrix errors have any.
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let Inner::Matrix { more, .. } = &mut *self.0 {
            more.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Says what we were doing when something inside failed: `…context("reading the head")`. Goes
    /// to the log, never to the client; Matrix errors and challenges stay as they are.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        if let Inner::Internal { context, .. } = &mut *self.0 {
            *context = Some(match context.take() {
                Some(inner) => format!("{doing}: {inner}"),
                None => doing.to_string(),
            });
        }
        self
    }

    /// The HTTP status it is sent with.
    pub fn status(&self) -> StatusCode {
        match &*self.0 {
            Inner::Matrix { status, .. } => *status,
            Inner::Challenge(_) => StatusCode::UNAUTHORIZED,
            Inner::Internal { passes: true, .. } => StatusCode::SERVICE_UNAVAILABLE,
            Inner::Internal { passes: false, .. } => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The `errcode` with its data. `None` for a challenge, and for an internal error, which the
    /// client sees as `M_UNKNOWN`.
    pub fn kind(&self) -> Option<&ErrorKind> {
        match &*self.0 {
            Inner::Matrix { kind, .. } => Some(kind),
            Inner::Challenge(_) | Inner::Internal { .. } => None,
        }
    }

    /// The sentence that is sent, without status and `errcode`. `None` where [`Error::kind`] is.
    pub fn message(&self) -> Option<&str> {
        match &*self.0 {
            Inner::Matrix { message, .. } => Some(message),
            Inner::Challenge(_) | Inner::Internal { .. } => None,
        }
    }

    /// The challenge, if it is one.
    pub fn uiaa_info(&self) -> Option<&UiaaInfo> {
        match &*self.0 {
            Inner::Challenge(info) => Some(info),
            Inner::Matrix { .. } | Inner::Internal { .. } => None,
        }
    }

    /// Whether something of ours failed, rather than the request being at fault.
    pub fn is_internal(&self) -> bool {
        matches!(&*self.0, Inner::Internal { .. })
    }

    /// Whether the same may go well in a moment: see [`too_busy`].
    pub fn is_too_busy(&self) -> bool {
        matches!(&*self.0, Inner::Internal { passes: true, .. })
    }
}

/// Something of ours failed: a disk, a lock, a broken record. `source` is kept for the log.
pub fn internal(source: impl Into<Source>) -> Error {
    Error(Box::new(Inner::Internal {
        context: None,
        source: source.into(),
        passes: false,
    }))
}

/// 503 `M_UNKNOWN`: something of ours took too long, and may go well in a moment. `source` is kept for the log.
pub fn too_busy(source: impl Into<Source>) -> Error {
    Error(Box::new(Inner::Internal {
        context: None,
        source: source.into(),
        passes: true,
    }))
}

/// For people and logs: an internal error with its whole chain of sources, so never to be sent.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Inner::Matrix {
                status,
                kind,
                message,
                ..
            } => {
                write!(f, "{} {}: {message}", status.as_u16(), kind.errcode())
            }
            Inner::Challenge(info) => match &info.auth_error {
                Some(body) => {
                    write!(
                        f,
                        "401 {}: {} (challenge)",
                        body.kind.errcode(),
                        body.message
                    )
                }
                None => f.write_str("401: further authentication is required"),
            },
            Inner::Internal {
                context, source, ..
            } => {
                if let Some(context) = context {
                    write!(f, "{context}: ")?;
                }
                write!(f, "{source}")?;
                let mut next = source.source();
                while let Some(deeper) = next {
                    write!(f, ": {deeper}")?;
                    next = deeper.source();
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // `Display` has already written the sources; offering them again would print them twice.
        None
    }
}
