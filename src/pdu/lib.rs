//! An event by itself: format, hash, signature, redaction, auth rules, state resolution, the tree that
//! holds a room's state. Pure: no I/O, no async, no clock, no randomness. Same input, same output, for ever.

mod number;
mod step;
pub mod tree;

pub use self::{number::EventNumber, step::Step};
