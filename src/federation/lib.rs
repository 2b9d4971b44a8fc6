//! Talking to other servers. So far: the keys with which this server signs.

mod keys;

pub use self::keys::{OldKey, SigningKeys};
