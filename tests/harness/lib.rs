//! What every test from outside needs: the real server on a port and a folder of its own, and people who
//! speak raw JSON to it. Nothing here knows a type of ours or of Ruma's, so a test cannot share a
//! misunderstanding with the server.
//!
//! With `CHAPAR_TEST_PEER=http://127.0.0.1:8008` the same tests run against another homeserver that is up
//! already (open registration, no rate limits): so the tests themselves are checked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod answer;
mod authority;
pub mod clients;
mod dendrite;
mod gate;
mod peer;
mod server;
mod synapse;
mod user;

pub use answer::{Answer, encode};
pub use authority::{Authority, Certificate};
pub use gate::Gate;
pub use peer::{Peer, PeerKind};
pub use server::{OPEN, Server, free_port};
pub use user::{Sync, User};

#[cfg(test)]
mod tests {
    #[test]
    fn encodes_what_a_path_cannot_hold() {
        assert_eq!(crate::encode("#a b:é/~"), "%23a%20b%3A%C3%A9%2F~");
    }

    #[test]
    fn names_are_never_given_twice() {
        let names: std::collections::BTreeSet<_> =
            (0..100).map(|_| crate::server::unique("x")).collect();
        assert_eq!(names.len(), 100);
    }
}
