//! The `pdu` crate.
