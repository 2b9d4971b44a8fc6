//! What the table and the router promise for every endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod bad_input;
pub(crate) mod federation;
mod rate_limits;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use config::{Api, Config};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;
use storage::{Clock, Faults, Random, SNAPSHOT_LIFE, ShortUserId, Storage, schema};

use error::Result;

use crate::{
    Body, Call, Content, Parts, Server,
    endpoint::{Routes, Written},
};

/// Endpoints that there are for tests alone.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes
        .endpoint(get_panic)
        .endpoint(get_end)
        .endpoint(get_late)
        .written(get_much)
        .endpoint(get_origin)
}

macro_rules! endpoint_for_tests {
    ($name:ident $path:literal $authentication:ident { $($field:ident: $type:ty)? }) => {
        #[allow(unreachable_pub)]
        mod $name {
            #[allow(unused_imports)]
            use ruma::{
                api::{
                    auth_scheme::NoAuthentication, federation::authentication::ServerSignatures,
                    request, response,
                },
                metadata,
            };

            metadata! {
                method: POST,
                rate_limited: false,
                authentication: $authentication,
                path: $path,
            }

            #[request]
            pub struct Request {}

            #[response]
            pub struct Response {
                $(pub $field: $type,)?
            }
        }
    };
}

endpoint_for_tests!(get_panic "/test/panic" NoAuthentication {});
endpoint_for_tests!(get_end "/test/end" NoAuthentication {});
endpoint_for_tests!(get_late "/test/late" NoAuthentication {});
endpoint_for_tests!(get_much "/test/much" NoAuthentication {});
endpoint_for_tests!(get_origin "/_matrix/federation/test/origin" ServerSignatures { origin: ruma::OwnedServerName });

async fn get_panic(_: Server, _: Call<get_panic::Request>) -> Result<get_panic::Response> {
    panic!("as it was told to")
}

/// A long poll: waits for what never comes.
async fn get_end(server: Server, _: Call<get_end::Request>) -> Result<get_end::Response> {
    server.shutdown.begun().await;
    Ok(get_end::Response {})
}

/// Reads from a view that is not kept any more.
async fn get_late(server: Server, _: Call<get_late::Request>) -> Result<get_late::Response> {
    let snapshot = server.rooms.snapshot().await?;
    server.clock.advance(2 * SNAPSHOT_LIFE);
    let user = [ShortUserId([1; 8])];
    snapshot.multi_get(&schema::ACCOUNT_BY_USER, &user).await?;
    Ok(get_late::Response {})
}

/// Says which server has proven that it asks.
async fn get_origin(_: Server, call: Call<get_origin::Request>) -> Result<get_origin::Response> {
    let origin = (*call.caller).to_owned();
    Ok(get_origin::Response { origin })
}

/// More than the buffers of a socket hold.
async fn get_much(_: Server, _: Call<get_much::Request>) -> Result<Written> {
    Ok(Written(vec![b' '; 64 << 20].into()))
}

/// Everything that a listener can offer.
pub(crate) const ALL: &[Api] = Api::ALL;

/// What a server is made of here: a clock that stands still, storage in memory.
pub(crate) fn parts(config: Config) -> Parts {
    let clock = Clock::standing_at(1_700_000_000_000);
    Parts {
        config,
        storage: Storage::model_on(clock.clone(), Faults::NONE),
        clock,
        random: Random::seeded(1),
        transport: Arc::new(::federation::Nowhere),
    }
}

/// A server with default settings.
pub(crate) async fn server() -> Server {
    Server::open(parts(Config::default())).await.unwrap()
}

/// A request with a body of JSON or of whatever else.
pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Body> {
    let body = Full::new(body.into())
        .map_err(|never| match never {})
        .boxed_unsync();
    Request::builder()
        .method(method)
        .uri(path)
        .body(body)
        .unwrap()
}

/// The answer's JSON.
pub(crate) fn json(response: &Response<Content>) -> Value {
    serde_json::from_slice(response.body().whole()).unwrap()
}

async fn ask(server: &Server, method: Method, path: &str) -> Response<Content> {
    server.answer(ALL, request(method, path, "")).await
}

#[track_caller]
fn refused(response: &Response<Content>, status: u16, errcode: &str) {
    let body = json(response);
    assert_eq!(
        (response.status().as_u16(), body["errcode"].as_str()),
        (status, Some(errcode))
    );
    assert!(
        body["error"].as_str().unwrap().len() > 10,
        "a sentence that helps: {body}"
    );
}

#[tokio::test]
async fn every_route_has_a_name_a_path_and_a_place_of_its_own() {
    let mut seen = BTreeSet::new();
    for route in crate::routes() {
        assert!(
            !route.name.is_empty() && !route.name.contains(':'),
            "{route:?}"
        );
        for path in &route.paths {
            assert!(path.starts_with('/'), "{route:?}");
            assert!(
                seen.insert((route.method.to_string(), path.clone())),
                "twice: {path}"
            );
        }
    }
    server().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognized() {
    let server = server().await;
    for path in [
        "/",
        "/_matrix",
        "/_matrix/client/v3/nothing",
        "/_matrix/client/versions/",
        "//",
    ] {
        refused(
            &ask(&server, Method::GET, path).await,
            404,
            "M_UNRECOGNIZED",
        );
        refused(
            &ask(&server, Method::PATCH, path).await,
            404,
            "M_UNRECOGNIZED",
        );
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::POST] {
        let answer = ask(&server, method, "/_matrix/client/versions").await;
        refused(&answer, 405, "M_UNRECOGNIZED");
    }
    assert_eq!(
        ask(&server, Method::HEAD, "/_matrix/client/versions")
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_listener_answers_only_what_it_offers() {
    let server = server().await;
    let versions = || request(Method::GET, "/_matrix/client/versions", "");
    let refusal = server.answer(&[Api::Federation], versions()).await;
    refused(&refusal, 404, "M_UNRECOGNIZED");
    let answer = server.answer(&[Api::Client], versions()).await;
    assert_eq!(answer.status(), 200);
    let health = || request(Method::GET, "/health", "");
    let statuses = [
        server.answer(&[Api::Client], health()).await.status(),
        server.answer(&[Api::Health], health()).await.status(),
    ];
    assert_eq!(statuses.map(|status| status.as_u16()), [404, 200]);
    server.shutdown.begin();
    let answer = server.answer(&[Api::Health], health()).await;
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn every_answer_lets_browsers_read_it() {
    let server = server().await;
    for (method, path, status) in [
        (Method::GET, "/_matrix/client/versions", 200),
        (Method::GET, "/nothing", 404),
        (Method::DELETE, "/_matrix/client/versions", 405),
        (Method::OPTIONS, "/_matrix/client/versions", 204),
        (Method::OPTIONS, "/_matrix/client/v3/login", 204),
        (Method::OPTIONS, "/nothing", 204),
    ] {
        let answer = ask(&server, method, path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(answer.headers()["access-control-allow-origin"], "*");
        let methods = answer.headers()["access-control-allow-methods"]
            .to_str()
            .unwrap();
        assert_eq!(methods, "GET, POST, PUT, DELETE, OPTIONS");
        let headers = answer.headers()["access-control-allow-headers"]
            .to_str()
            .unwrap();
        assert!(headers.starts_with("X-Requested-With, Content-Type, Authorization"));
    }
}

#[tokio::test]
async fn takes_over_plain_request_ids_and_replaces_others() {
    let server = server().await;
    let long = "x".repeat(65);
    for (sent, kept) in [
        ("abc-1.2_3", true),
        ("with space", false),
        (&long, false),
        ("", false),
    ] {
        let mut request = request(Method::GET, "/nothing", "");
        request
            .headers_mut()
            .insert("x-request-id", sent.parse().unwrap());
        let answer = server.answer(ALL, request).await;
        let id = answer.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(id == sent, kept, "{sent} {id}");
        assert!(!id.is_empty());
    }
}

#[tokio::test]
async fn a_panic_is_answered_and_harms_nobody_else() {
    let server = server().await;
    let answer = ask(&server, Method::POST, "/test/panic").await;
    assert_eq!(answer.status(), 500);
    let told = json(&answer);
    assert_eq!(told["errcode"], "M_UNKNOWN");
    assert!(!told.to_string().contains("as it was told to"));
    assert_eq!(ask(&server, Method::GET, "/health").await.status(), 200);
}

#[tokio::test]
async fn what_changes_something_is_carried_through_when_the_client_goes_away() {
    let server = server().await;
    let gone = tokio::spawn({
        let server = server.clone();
        async move { ask(&server, Method::POST, "/test/end").await }
    });
    while server.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(server.tasks.len(), 1);
    server.shutdown.begin();
    server.tasks.close();
    server.tasks.wait().await;
}

#[tokio::test]
async fn who_waited_too_long_for_the_storage_is_asked_to_come_again() {
    let server = server().await;
    let response = ask(&server, Method::POST, "/test/late").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(json(&response)["errcode"], "M_UNKNOWN");
}
