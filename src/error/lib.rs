//! The `error` crate.
