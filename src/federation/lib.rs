//! Talking to other servers, and who we are to them.
//!
//! The only crate that opens connections to other machines. So far it keeps the keys with which this
//! server signs ([`SigningKeys`]).

mod signing_keys;

pub use self::signing_keys::SigningKeys;
