//! What is told of several servers none of which did what it was asked.

use federation::Failure;
use http::StatusCode;
use ruma::{RoomVersionId, ServerName};

/// Codes by which a client learns something about its session, its account or this server, whatever the status:
/// it may log out by them. They are not for another server to say.
const OURS: [&str; 9] = [
    "M_UNRECOGNIZED",
    "M_UNKNOWN_TOKEN",
    "M_MISSING_TOKEN",
    "M_UNAUTHORIZED",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
    "M_USER_DEACTIVATED",
    "M_CONSENT_NOT_GIVEN",
    "M_RESOURCE_LIMIT_EXCEEDED",
];

/// What servers said that were asked in turn: the most telling of it.
#[derive(Debug, Default)]
pub(super) struct Refusals(Option<(Telling, error::Error)>);

/// How much a failure tells whoever waits for it, the most telling last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Telling {
    /// No server answered as it should.
    Nothing,
    /// A server is not in the room.
    NotThere,
    /// A server cannot, another one might.
    NotThisOne,
    /// The server would, we cannot.
    Version,
    /// The room's rules do not allow it.
    Forbidden,
}

impl Refusals {
    /// Remembers what a server said, or that it did not.
    pub(super) fn add(&mut self, server: &ServerName, failure: &Failure) {
        tracing::info!(%server, %failure, "a server did not help with a room");
        let (telling, error) = told(failure);
        self.tell(telling, error);
    }

    /// Remembers that what a server said cannot be used.
    pub(super) fn add_bad(&mut self, server: &ServerName, why: &str) {
        tracing::warn!(%server, why, "a server says of a room what cannot be");
        self.tell(Telling::Nothing, not_helped());
    }

    /// Remembers that a server lets somebody in whom the rules of the room do not, as far as it says itself.
    pub(super) fn add_forbidden(&mut self, server: &ServerName, why: &str) {
        tracing::info!(%server, why, "a room's rules do not let somebody in");
        let message = format!("The rules of this room do not let you in: {why}");
        self.tell(Telling::Forbidden, error::forbidden(message));
    }

    /// Remembers that a server is in a room of a version that we do not know.
    pub(super) fn add_version(&mut self, version: &RoomVersionId) {
        let message = format!("This server does not know room version {version}");
        let error = error::incompatible_room_version(version.clone(), message);
        self.tell(Telling::Version, error);
    }

    fn tell(&mut self, telling: Telling, error: error::Error) {
        if self.0.as_ref().is_none_or(|(known, _)| *known < telling) {
            self.0 = Some((telling, error));
        }
    }

    /// The error for the client.
    pub(super) fn into_error(self) -> error::Error {
        let nobody =
            || error::not_found("This server knows no other server that could help with this room");
        self.0.map_or_else(nobody, |(_, error)| error)
    }
}

fn not_helped() -> error::Error {
    error::unknown(
        StatusCode::BAD_GATEWAY,
        "None of the servers that are in this room could be asked",
    )
}

fn told(failure: &Failure) -> (Telling, error::Error) {
    let Failure::Refused(refusal) = failure else {
        return (Telling::Nothing, not_helped());
    };
    let (status, code) = (refusal.status, refusal.errcode());
    let text = refusal.error();
    let text = if text.is_empty() {
        "The other server refuses"
    } else {
        text
    };
    match (status.as_u16(), code) {
        (400, "M_INCOMPATIBLE_ROOM_VERSION") => {
            let version = refusal.body.get("room_version").and_then(|it| it.as_str());
            let version = version.and_then(|it| RoomVersionId::try_from(it).ok());
            let version = version.unwrap_or(RoomVersionId::V1);
            (
                Telling::Version,
                error::incompatible_room_version(version, text),
            )
        }
        (400, "M_UNABLE_TO_GRANT_JOIN" | "M_UNABLE_TO_AUTHORISE_JOIN") => {
            (Telling::NotThisOne, error::other(status, code, text))
        }
        // The room's policy server does not let them through.
        (400, "M_FORBIDDEN") => (Telling::Forbidden, error::other(status, code, text)),
        // Whatever is wrong with our question is nothing that the client could mend.
        (400, _) => (Telling::Nothing, not_helped()),
        (403, _) => (
            Telling::Forbidden,
            error::other(status, errcode_or(code, "M_FORBIDDEN"), text),
        ),
        (404, "M_NOT_FOUND") => (Telling::NotThere, error::not_found(text)),
        _ => (Telling::Nothing, not_helped()),
    }
}

/// The code that another server said, if it can be one and is for it to say.
pub(crate) fn errcode_or<'a>(code: &'a str, other: &'a str) -> &'a str {
    let plain = |byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-')
    };
    match code.len() {
        1..=64 if code.bytes().all(plain) && !OURS.contains(&code) => code,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::errcode_or;

    #[test]
    fn nobody_is_logged_out_by_another_server() {
        for (said, passed) in [
            ("M_FORBIDDEN", "M_FORBIDDEN"),
            ("M_UNABLE_TO_GRANT_JOIN", "M_UNABLE_TO_GRANT_JOIN"),
            ("ORG.EXAMPLE-1", "ORG.EXAMPLE-1"),
            ("M_UNKNOWN_TOKEN", "M_OTHER"),
            ("M_USER_LOCKED", "M_OTHER"),
            ("M_CONSENT_NOT_GIVEN", "M_OTHER"),
            ("", "M_OTHER"),
            ("m_forbidden", "M_OTHER"),
            ("M FORBIDDEN", "M_OTHER"),
        ] {
            assert_eq!(errcode_or(said, "M_OTHER"), passed, "{said}");
        }
        assert_eq!(errcode_or(&"M".repeat(65), "M_OTHER"), "M_OTHER");
    }
}
