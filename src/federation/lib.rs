//! The `federation` crate.
