//! HTTP: who asks for what, and the answer.
//!
//! A request comes in through a listener ([`serve`]), is matched against the table of routes
//! ([`router`]), its caller is proven ([`authenticate`]), its path, query and body are read into
//! Ruma's request type ([`endpoint`], [`parse`]), and one function with Ruma's name, in the file of
//! its Ruma module below [`client`], answers it. Everything such a function may use hangs off
//! [`Server`].
//!
//! To add an endpoint: write the function, add its line to the table in `client.rs`.

pub mod admin;
pub mod authenticate;
mod body;
mod client;
mod content;
pub mod control;
mod elsewhere;
pub mod endpoint;
mod federation;
mod guests;
pub mod health;
mod json;
mod parse;
pub mod rate_limit;
mod remote_devices;
pub mod router;
pub mod serve;
mod server;
mod shutdown;
mod suspended;
#[cfg(test)]
mod tests;

pub use self::{
    authenticate::{MaybeService, Origin},
    body::Body,
    content::Content,
    endpoint::{Call, Route},
    server::{Parts, Server},
    shutdown::Shutdown,
};

pub use users::Requester;

/// Every route this server answers, in the order of the tables. For the router, and for tests that
/// must not forget an endpoint.
pub fn routes() -> Vec<Route> {
    let routes = endpoint::Routes::new();
    let routes = health::routes(routes);
    #[cfg(test)]
    let routes = tests::routes(routes);
    let routes = admin::routes(routes);
    let routes = federation::routes(routes);
    client::routes(routes).into_list()
}
