//! Real servers that talk to each other over TLS, as on the internet but for the names.

mod discovered;
mod queries;
mod ways;

use harness::{Authority, Server};

use crate::CHAPAR;

/// Two servers, and what stands behind the colon of the second one's users.
async fn two() -> (Server, Server, String) {
    let authority = Authority::new();
    let (a, b) = tokio::join!(
        Server::start_federating(CHAPAR, &authority, "max_back_off = \"1 s\""),
        Server::start_federating(CHAPAR, &authority, "max_back_off = \"1 s\"")
    );
    let someone = b.user("someone").await;
    let (_, name) = someone.id.split_once(':').unwrap();
    let name = name.to_owned();
    (a, b, name)
}
