//! Which server asks is proven by its signature, and nobody else's.

use std::time::Duration;

use config::Config;
use federation::{Failure, Federation, Patience};
use http::{Method, Request};
use ruma::{
    ServerName,
    api::{
        EmptyBody, IncomingResponse, Metadata, OutgoingRequest,
        error::{DeserializationError, IntoHttpError},
        federation::{
            authentication::ServerSignatures,
            discovery::{get_server_keys, get_server_version},
        },
        path_builder::SinglePath,
    },
    server_name,
};
use storage::Clock;

use super::Network;
use crate::{
    Server,
    tests::{ALL, json, request},
};

fn name_a() -> &'static ServerName {
    server_name!("a.example")
}

fn name_b() -> &'static ServerName {
    server_name!("b.example")
}

fn far_name() -> &'static ServerName {
    server_name!("far.example")
}

const PATH: &str = "/_matrix/federation/test/origin";

/// Two servers and their clock.
async fn two(config: Config) -> (Network, Clock, Server, Server) {
    let network = Network::default();
    let clock = Clock::standing_at(1_700_000_000_000);
    let a = network
        .server(name_a().as_str(), &clock, Config::default())
        .await;
    let b = network.server(name_b().as_str(), &clock, config).await;
    (network, clock, a, b)
}

/// The question of the endpoint for tests. (Ruma makes but the other side of it here.)
#[derive(Clone)]
struct WhoAsks;

impl Metadata for WhoAsks {
    const METHOD: Method = Method::POST;
    const RATE_LIMITED: bool = false;
    type Authentication = ServerSignatures;
    type PathBuilder = SinglePath;
    const PATH_BUILDER: SinglePath = SinglePath::new(PATH);
}

impl OutgoingRequest for WhoAsks {
    type Body = EmptyBody<false>;
    type EndpointError = ruma::api::error::Error;
    type IncomingResponse = Told;

    fn try_into_http_request_inner(
        self,
        base_url: &str,
        (): (),
    ) -> Result<Request<Self::Body>, IntoHttpError> {
        Ok(Request::post(format!("{base_url}{PATH}")).body(EmptyBody)?)
    }
}

/// What it answers.
#[derive(Debug)]
struct Told(String);

impl IncomingResponse for Told {
    type EndpointError = ruma::api::error::Error;

    fn try_from_http_response_inner(
        response: http::Response<&[u8]>,
    ) -> Result<Self, DeserializationError> {
        let body: serde_json::Value = serde_json::from_slice(response.body())?;
        Ok(Self(body["origin"].as_str().unwrap().to_owned()))
    }
}

async fn ask(from: &Federation, to: &ServerName) -> Result<String, Failure> {
    Ok(from.ask(to, WhoAsks, Patience::QUERY).await?.0)
}

/// Status and code of what B answers to a request.
async fn told(b: &Server, request: Request<crate::Body>) -> (u16, String) {
    let answer = b.answer(ALL, request).await;
    let code = json(&answer)["errcode"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    (answer.status().as_u16(), code)
}

#[tokio::test]
async fn servers_prove_who_they_are_and_tell_what_they_are() {
    let (network, _, a, b) = two(Config::default()).await;
    assert_eq!(ask(&a.federation, name_b()).await.unwrap(), "a.example");
    assert_eq!(ask(&b.federation, name_a()).await.unwrap(), "b.example");
    assert_eq!(ask(&a.federation, name_b()).await.unwrap(), "a.example");
    let of_keys = network.asked_of(name_a());
    let of_keys = of_keys.iter().filter(|what| what.contains("/key/")).count();
    assert_eq!(of_keys, 1, "keys are kept");
    let version = get_server_version::v1::Request::new();
    let version = a
        .federation
        .ask(name_b(), version, Patience::QUERY)
        .await
        .unwrap();
    assert_eq!(version.server.unwrap().name.unwrap(), "Chapar");
    let keys = get_server_keys::v2::Request::new();
    let keys = a
        .federation
        .ask(name_b(), keys, Patience::QUERY)
        .await
        .unwrap();
    let keys = keys.server_key.deserialize().unwrap();
    assert_eq!(keys.server_name, name_b());
    assert_eq!(keys.verify_keys.len(), 1);
}

#[tokio::test]
async fn who_does_not_prove_it_is_refused() {
    let (network, clock, _, b) = two(Config::default()).await;
    let far = network.peer(far_name().as_str(), &clock).await;
    let plain = || request(Method::POST, PATH, "{}");
    let unauthorized = (401, "M_UNAUTHORIZED".to_owned());
    assert_eq!(told(&b, plain()).await, unauthorized);
    let signed = |body: &str, to: &ServerName| {
        let mut signed = Request::post(PATH).body(body.to_owned()).unwrap();
        far.sign(&mut signed, to).unwrap();
        signed.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned()
    };
    let with = |header: &str| {
        let mut request = plain();
        let header = header.parse().unwrap();
        request.headers_mut().insert("authorization", header);
        request
    };
    let right = signed("{}", name_b());
    assert_eq!(told(&b, with(&right)).await.0, 200);
    // For another server, for another body, in another's name, with another key, by nobody.
    for wrong in [
        signed("{}", name_a()),
        signed("{\"a\":1}", name_b()),
        right.replace("far.example", "a.example"),
        right.replace("far.example", "b.example"),
        right.replace("far.example", "gone.example"),
        right.replace("ed25519:", "ed25519:x"),
        right.replace("sig=\"", "sig=\"A"),
        right.replace("X-Matrix", "Bearer"),
        right.replace("origin=", "origin=\"a.example\",origin="),
    ] {
        assert_eq!(told(&b, with(&wrong)).await, unauthorized, "{wrong}");
    }
    // Older servers do not say whom they ask; then it is signed for whom gets it.
    let silent = right.replace("destination=\"b.example\",", "");
    assert_eq!(told(&b, with(&silent)).await.0, 200);
    let silent = signed("{}", name_a()).replace("destination=\"a.example\",", "");
    assert_eq!(told(&b, with(&silent)).await, unauthorized);
    // A request of two servers is nobody's.
    let mut two = with(&right);
    let other = right.replace("far.example", "a.example");
    two.headers_mut()
        .append("authorization", other.parse().unwrap());
    assert_eq!(told(&b, two).await, unauthorized);
}

#[tokio::test]
async fn a_new_key_counts_soon_and_the_old_one_no_more() {
    let (network, clock, _, b) = two(Config::default()).await;
    let far = network.peer(far_name().as_str(), &clock).await;
    let request = || {
        let mut signed = Request::post(PATH).body("{}").unwrap();
        far.sign(&mut signed, name_b()).unwrap();
        let (head, body) = signed.into_parts();
        Request::from_parts(head, request(Method::POST, PATH, body).into_body())
    };
    let with_old_key = request();
    assert_eq!(told(&b, request()).await.0, 200);
    far.signing_keys().rotate(clock.now()).await.unwrap();
    // Who asks again and again with keys that nobody knows does not make us ask each time.
    let asked = network.asked_of(far_name()).len();
    assert_eq!(told(&b, request()).await.0, 401);
    assert_eq!(told(&b, request()).await.0, 401);
    assert_eq!(network.asked_of(far_name()).len(), asked);
    clock.advance(Duration::from_secs(11));
    assert_eq!(told(&b, request()).await.0, 200);
    assert_eq!(told(&b, with_old_key).await.0, 401);
    // What was said once is believed until it is to be asked anew, and not for ever.
    network.take_away(far_name());
    assert_eq!(told(&b, request()).await.0, 200);
    clock.advance(Duration::from_secs(25 * 60 * 60));
    assert_eq!(told(&b, request()).await.0, 401);
    network.bring_back(far_name());
    clock.advance(Duration::from_secs(11));
    assert_eq!(told(&b, request()).await.0, 200);
}

#[tokio::test]
async fn who_is_not_wanted_is_neither_asked_nor_answered() {
    let config = Config::from_toml("[federation]\ndeny = [\"a.*\"]").unwrap();
    let (network, clock, a, b) = two(config).await;
    let Err(Failure::Refused(refusal)) = ask(&a.federation, name_b()).await else {
        panic!("answered");
    };
    assert_eq!(refusal.errcode(), "M_FORBIDDEN");
    assert!(matches!(
        ask(&b.federation, name_a()).await,
        Err(Failure::Forbidden(_))
    ));
    assert!(network.asked_of(name_a()).is_empty());
    let far = network.peer(far_name().as_str(), &clock).await;
    assert_eq!(ask(&far, name_b()).await.unwrap(), "far.example");
    b.federation.set_policy(&Config::default().federation);
    assert_eq!(ask(&a.federation, name_b()).await.unwrap(), "a.example");
}

#[tokio::test]
async fn who_does_not_answer_is_left_alone_until_they_speak() {
    let (network, clock, a, b) = two(Config::default()).await;
    network.take_away(name_b());
    assert!(matches!(
        ask(&a.federation, name_b()).await,
        Err(Failure::Unreachable(_))
    ));
    assert!(matches!(
        ask(&a.federation, name_b()).await,
        Err(Failure::BackingOff(_))
    ));
    assert_eq!(network.asked_of(name_b()).len(), 1);
    clock.advance(Duration::from_secs(3));
    assert!(matches!(
        ask(&a.federation, name_b()).await,
        Err(Failure::Unreachable(_))
    ));
    network.bring_back(name_b());
    assert!(matches!(
        ask(&a.federation, name_b()).await,
        Err(Failure::BackingOff(_))
    ));
    assert_eq!(ask(&b.federation, name_a()).await.unwrap(), "b.example");
    assert_eq!(ask(&a.federation, name_b()).await.unwrap(), "a.example");
}

#[tokio::test]
async fn answers_that_are_too_long_or_none_are_failures() {
    let (network, _, a, _) = two(Config::default()).await;
    network.play(far_name(), |_| http::Response::new("[1,2".into()));
    let version = get_server_version::v1::Request::new();
    let answer = a
        .federation
        .ask(far_name(), version.clone(), Patience::QUERY)
        .await;
    assert!(matches!(answer, Err(Failure::BadAnswer(_))), "{answer:?}");
    network.play(far_name(), |_| {
        http::Response::new(vec![b' '; 5 << 20].into())
    });
    let answer = a.federation.ask(far_name(), version, Patience::QUERY).await;
    assert!(matches!(answer, Err(Failure::TooLarge(_))), "{answer:?}");
}
