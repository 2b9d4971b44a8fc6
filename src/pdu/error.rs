//! Why something is not an event, and the limits of events.

use crate::canonical::JsonError;

/// The most bytes an event may have as canonical JSON, signatures included
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#size-limits)).
pub const MAX_EVENT_BYTES: usize = 65_536;

/// The most bytes of a type, a state key, or a user, room or event ID
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#size-limits)).
pub const MAX_FIELD_BYTES: usize = 255;

/// The most `prev_events` of an event.
pub const MAX_PREV_EVENTS: usize = 20;

/// The most `auth_events` of an event.
pub const MAX_AUTH_EVENTS: usize = 10;

/// The most bytes of a text that is parsed as an event, before it is brought into canonical form.
///
/// An event that is allowed can be written at six times its canonical length (all characters escaped),
/// and may come with an `unsigned` that does not count.
pub const MAX_EVENT_TEXT_BYTES: usize = 1 << 20;

/// Why something is not an event of its room's version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PduError {
    /// The text is not the JSON that the room version allows.
    #[error("the event is not valid JSON: {0}")]
    Json(#[from] JsonError),
    /// The text is JSON, but no object.
    #[error("the event is not a JSON object")]
    NotAnObject,
    /// The event is larger than [`MAX_EVENT_BYTES`].
    #[error("the event has {0} bytes, more than the {MAX_EVENT_BYTES} allowed")]
    TooLarge(usize),
    /// A field that every event has is not there.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A field has the wrong type.
    #[error("the field `{field}` must be {expected}")]
    Type {
        /// Which field.
        field: &'static str,
        /// What it must be, with its article.
        expected: &'static str,
    },
    /// A field is longer than [`MAX_FIELD_BYTES`].
    #[error("the field `{0}` is longer than {MAX_FIELD_BYTES} bytes")]
    TooLong(&'static str),
    /// A list has too many entries.
    #[error("the field `{field}` has more than {max} entries")]
    TooMany {
        /// Which field.
        field: &'static str,
        /// How many entries it may have.
        max: usize,
    },
    /// A field does not hold what it must.
    #[error("the field `{field}` is invalid: {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl PduError {
    /// Whether it is the size of the event or of a field that is wrong, which clients are told by
    /// `M_TOO_LARGE` instead of `M_BAD_JSON`.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_) | Self::TooLong(_))
    }
}
