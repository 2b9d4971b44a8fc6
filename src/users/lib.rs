//! The `users` crate.
