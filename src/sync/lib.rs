//! What changed for a device since it last asked, for `/sync` and sliding sync to encode.

mod token;

pub use self::token::{EphemeralCursor, NoToken, Token};
