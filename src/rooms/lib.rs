//! The `rooms` crate.
