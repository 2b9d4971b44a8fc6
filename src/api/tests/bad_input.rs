//! Every endpoint of the table is asked in every wrong way that there is: it answers with the specification's
//! kind of error and a sentence, never with a 500, and changes nothing.
//!
//! What a path's variables may be is listed here once; an endpoint with a variable that is not listed fails.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use config::{Config, RegistrationFile};
use federation::Federation;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};

use super::{ALL, federation::Network, parts, request};
use crate::{Body, Server, authenticate::Authentication, endpoint::Route};

const V3: &str = "/_matrix/client/v3";

/// The largest body that anybody may send, with something to spare.
const TOO_LARGE: usize = 32 << 20;

/// The token of an application service.
const AS_TOKEN: &str = "token-of-the-service";

/// What registers it.
const SERVICE: &str = "id: bridge\nurl: null\nas_token: token-of-the-service\nhs_token: other\n\
    sender_localpart: bridge\nnamespaces: {}\n";

/// A server with two people and a room of one of them, and another server that asks it.
struct World {
    server: Server,
    far: Federation,
    _folder: tempfile::TempDir,
    alice: String,
    bob: String,
    /// What stands for the variables of paths.
    variables: BTreeMap<&'static str, String>,
}

/// What is left of an answer.
struct Answer {
    status: u16,
    body: Value,
}

impl World {
    async fn new() -> Self {
        let mut config = Config::default();
        config.registration.enabled = true;
        config.registration.require_token = false;
        config.rate_limits.enabled = false;
        config.policy_server.enabled = true;
        let folder = tempfile::tempdir().unwrap();
        config.storage.data = folder.path().to_owned();
        let service = RegistrationFile::from_yaml("bridge.yaml".into(), SERVICE).unwrap();
        config.application_services.registrations = vec![service];
        let network = Network::default();
        let mut parts = parts(config);
        parts.transport = Arc::new(network.clone());
        let far = network.peer("far.example", &parts.clock).await;
        let server = Server::open(parts).await.unwrap();
        server.begin_work();
        let mut world = Self {
            server,
            far,
            _folder: folder,
            alice: String::new(),
            bob: String::new(),
            variables: BTreeMap::new(),
        };
        world.alice = world.register("alice").await;
        // Who administers the server gets as far as reading what is wrong.
        let alice = ruma::user_id!("@alice:localhost");
        world.server.users.set_admin(alice, true).await.unwrap();
        world.bob = world.register("bob").await;
        let room = json!({ "preset": "private_chat" }).to_string();
        let room = world.ok(Method::POST, "/createRoom", &room).await["room_id"].clone();
        let room = room.as_str().unwrap().to_owned();
        let text = json!({ "msgtype": "m.text", "body": "hi" }).to_string();
        let path = format!("/rooms/{room}/send/m.room.message/1");
        let event = world.ok(Method::PUT, &path, &text).await["event_id"].clone();
        let upload = world.ask(
            Some(&world.alice),
            &Method::POST,
            "/_matrix/media/v3/upload",
            "{}",
        );
        let uri = upload.await.body["content_uri"].clone();
        let uri = uri.as_str().unwrap().strip_prefix("mxc://localhost/");
        world.variables = BTreeMap::from([
            ("server_name", "localhost".to_owned()),
            ("media_id", uri.unwrap().to_owned()),
            ("filename", "name.txt".to_owned()),
            ("room_id", room.clone()),
            ("room_id_or_alias", room),
            ("room_alias", "%23alias:localhost".to_owned()),
            ("event_id", event.as_str().unwrap().to_owned()),
            ("user_id", "@alice:localhost".to_owned()),
            ("event_type", "org.example.type".to_owned()),
            ("state_key", "key".to_owned()),
            ("txn_id", "2".to_owned()),
            ("transaction_id", "3".to_owned()),
            ("device_id", "DEVICE".to_owned()),
            ("filter_id", "filter".to_owned()),
            ("field", "displayname".to_owned()),
            ("receipt_type", "m.read".to_owned()),
            ("scope", "global".to_owned()),
            ("kind", "override".to_owned()),
            ("rule_id", "rule".to_owned()),
            ("tag", "u.tag".to_owned()),
            ("rel_type", "m.annotation".to_owned()),
            ("version", "1".to_owned()),
            ("session_id", "session".to_owned()),
            ("report_id", "1".to_owned()),
            ("delay_id", "delay".to_owned()),
            ("action", "send".to_owned()),
            ("query_type", "other".to_owned()),
            ("appservice_id", "bridge".to_owned()),
        ]);
        world
    }

    async fn register(&self, name: &str) -> String {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse", "auth": auth });
        let body = body.to_string();
        let answer = self
            .ask(None, &Method::POST, &format!("{V3}/register"), body)
            .await;
        answer.body["access_token"].as_str().unwrap().to_owned()
    }

    async fn ok(&self, method: Method, path: &str, body: &str) -> Value {
        let path = format!("{V3}{path}");
        let answer = self
            .ask(Some(&self.alice), &method, &path, body.to_owned())
            .await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body
    }

    async fn ask(
        &self,
        token: Option<&str>,
        method: &Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = request(method.clone(), path, body);
        let by_server = ["/_matrix/federation/", "/_matrix/policy/"];
        if token.is_some() && by_server.iter().any(|begin| path.starts_with(begin)) {
            request = self.signed(request).await;
        } else if let Some(mut token) = token {
            if token == self.alice && path.contains("/appservice/") {
                token = AS_TOKEN;
            }
            let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        let answer = self.server.answer(ALL, request).await;
        Answer {
            status: answer.status().as_u16(),
            // A file need not be JSON.
            body: serde_json::from_slice(answer.body().whole()).unwrap_or_default(),
        }
    }

    /// The request as the other server signs it; if its body is no JSON, with the signature of another body.
    async fn signed(&self, request: Request<Body>) -> Request<Body> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut whole = Request::from_parts(head, body.clone());
        let us = self.server.federation.server_name().to_owned();
        if self.far.sign(&mut whole, &us).is_err() {
            whole = whole.map(|_| Bytes::new());
            self.far.sign(&mut whole, &us).unwrap();
        }
        whole.map(|_| {
            Full::new(body)
                .map_err(|never| match never {})
                .boxed_unsync()
        })
    }

    /// A path with its variables filled in, one of them by something else.
    fn path(&self, path: &str, other: Option<(&str, &str)>) -> String {
        let mut filled = String::new();
        for part in path.split('/').skip(1) {
            filled.push('/');
            let name = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'));
            let Some(name) = name else {
                filled.push_str(part);
                continue;
            };
            match other {
                Some((wanted, value)) if wanted == name => filled.push_str(value),
                _ => filled.push_str(self.variables.get(name).unwrap_or_else(|| {
                    panic!("say in this file what {{{name}}} of {path} may be")
                })),
            }
        }
        filled
    }

    /// What the room and its people look like: it must not change by what is refused.
    async fn picture(&self) -> Value {
        let room = &self.variables["room_id"];
        let state = format!("/rooms/{room}/state");
        let messages = format!("/rooms/{room}/messages?dir=b&limit=100");
        let mut events = Vec::new();
        for list in [
            self.ok(Method::GET, &state, "").await,
            self.ok(Method::GET, &messages, "").await["chunk"].clone(),
        ] {
            let ids = list.as_array().unwrap().iter();
            events.push(
                ids.map(|event| event["event_id"].clone())
                    .collect::<Vec<_>>(),
            );
        }
        json!(events)
    }
}

/// The answer is an error of a client's making, with a code and a sentence.
#[track_caller]
fn refused(asked: &str, answer: &Answer) {
    let Answer { status, body } = answer;
    assert!((400..500).contains(status), "{asked}: {status} {body}");
    sentence(asked, answer);
}

/// The answer may be a success; if not, it says why. That another server cannot be asked is no fault of ours.
#[track_caller]
fn no_fault(asked: &str, answer: &Answer) {
    let why = answer.body["error"].as_str().unwrap_or_default();
    let elsewhere =
        why.ends_with("could not be asked") || why.contains("could not be fetched from");
    assert!(
        answer.status < 500 || (answer.status == 502 && elsewhere),
        "{asked}: {} {}",
        answer.status,
        answer.body
    );
    if answer.status >= 400 {
        sentence(asked, answer);
    }
}

#[track_caller]
fn sentence(asked: &str, answer: &Answer) {
    let body = &answer.body;
    // A challenge of the user-interactive authentication names its flows instead.
    if answer.status == 401 && body["flows"].is_array() {
        return;
    }
    let code = body["errcode"].as_str().unwrap_or_default();
    assert!(code.starts_with("M_"), "{asked}: {body}");
    let error = body["error"].as_str().unwrap_or_default();
    assert!(error.len() > 10, "{asked}: a sentence that helps: {body}");
}

fn has_body(route: &Route) -> bool {
    route.method == Method::POST || route.method == Method::PUT
}

/// Whose body is a file, whatever is in it.
fn takes_a_file(route: &Route) -> bool {
    route.name.starts_with("create_content")
}

fn asks_for_a_token(route: &Route) -> bool {
    matches!(
        route.authentication,
        Authentication::AccessToken | Authentication::ApplicationService
    )
}

fn routes() -> Vec<Route> {
    crate::routes()
        .into_iter()
        .filter(|route| !route.paths.iter().any(|path| path.contains("/test/")))
        .collect()
}

/// Ends what the others are asked with.
fn ends_sessions(route: &Route) -> bool {
    matches!(
        route.name,
        "logout" | "logout_all" | "deactivate" | "change_password"
    )
}

#[tokio::test]
async fn who_has_no_token_or_a_wrong_one_is_told_so() {
    let world = World::new().await;
    for route in routes().iter().filter(|route| asks_for_a_token(route)) {
        for path in &route.paths {
            let path = world.path(path, None);
            let asked = format!("{} {path}", route.method);
            let none = world.ask(None, &route.method, &path, "{}").await;
            assert_eq!(none.body["errcode"], "M_MISSING_TOKEN", "{asked}");
            assert_eq!(none.status, 401, "{asked}");
            for wrong in [
                "x",
                "syt_wrong_token",
                &world.alice[1..],
                &"x".repeat(4_000),
            ] {
                let answer = world.ask(Some(wrong), &route.method, &path, "{}").await;
                assert_eq!(answer.body["errcode"], "M_UNKNOWN_TOKEN", "{asked} {wrong}");
                assert_eq!(answer.status, 401, "{asked}");
            }
        }
    }
}

#[tokio::test]
async fn who_is_no_server_is_told_so() {
    let world = World::new().await;
    let routes = routes();
    let of_servers = |route: &&Route| route.authentication == Authentication::ServerSignatures;
    for route in routes.iter().filter(of_servers) {
        for path in &route.paths {
            let path = world.path(path, None);
            let asked = format!("{} {path}", route.method);
            let answer = world.ask(None, &route.method, &path, "{}").await;
            assert_eq!(answer.body["errcode"], "M_UNAUTHORIZED", "{asked}");
            assert_eq!(answer.status, 401, "{asked}");
        }
    }
}

#[tokio::test]
async fn bodies_that_are_none_are_refused() {
    let world = World::new().await;
    let before = world.picture().await;
    let deep = format!("{}1{}", "{\"a\":".repeat(2_000), "}".repeat(2_000));
    let wide = format!("{{\"a\":{}1{}}}", "[".repeat(2_000), "]".repeat(2_000));
    let bodies: [(&[u8], &str); 9] = [
        (b"not json", "M_NOT_JSON"),
        (b"{\"a\":1", "M_NOT_JSON"),
        (b"{\"a\":\"\xff\xfe\"}", "M_NOT_JSON"),
        (b"{\"a\":nul}", "M_NOT_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"\"text\"", "M_BAD_JSON"),
        (b"null", "M_BAD_JSON"),
        (deep.as_bytes(), "M_BAD_JSON"),
        (wide.as_bytes(), "M_BAD_JSON"),
    ];
    for route in routes()
        .iter()
        .filter(|route| has_body(route) && !takes_a_file(route))
    {
        let path = world.path(&route.paths[0], None);
        for (body, errcode) in bodies {
            let asked = format!(
                "{} {path} {:?}",
                route.method,
                String::from_utf8_lossy(&body[..body.len().min(40)])
            );
            let body = Bytes::copy_from_slice(body);
            let answer = world
                .ask(Some(&world.alice), &route.method, &path, body)
                .await;
            refused(&asked, &answer);
            assert_eq!(answer.body["errcode"], errcode, "{asked}: {}", answer.body);
        }
        let asked = format!("{} {path} with a body that is too large", route.method);
        let body = format!("{{\"a\":\"{}\"}}", "x".repeat(TOO_LARGE));
        let answer = world
            .ask(Some(&world.alice), &route.method, &path, body)
            .await;
        refused(&asked, &answer);
        assert_eq!(answer.status, 413, "{asked}: {}", answer.body);
    }
    assert_eq!(world.picture().await, before);
}

/// Names of fields that bodies of the specification have.
const FIELDS: [&str; 52] = [
    "access_token",
    "action",
    "auth",
    "avatar_url",
    "body",
    "content",
    "creation_content",
    "delay_ms",
    "device_id",
    "devices",
    "displayname",
    "event_id",
    "filter",
    "identifier",
    "initial_device_display_name",
    "initial_state",
    "invite",
    "invite_3pid",
    "is_direct",
    "kind",
    "lang",
    "limit",
    "m.fully_read",
    "m.read",
    "m.read.private",
    "name",
    "new_password",
    "order",
    "password",
    "power_level_content_override",
    "preset",
    "presence",
    "pushkey",
    "reason",
    "refresh_token",
    "room",
    "room_alias_name",
    "room_id",
    "room_version",
    "search_categories",
    "search_term",
    "state_key",
    "status_msg",
    "thread_id",
    "timeout",
    "token",
    "topic",
    "type",
    "typing",
    "user_id",
    "username",
    "visibility",
];

#[tokio::test]
async fn fields_of_the_wrong_type_are_no_fault_of_ours() {
    let world = World::new().await;
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(9_007_199_254_740_993_u64),
        json!(1.5),
        json!(""),
        json!("\u{0}\u{202e}☃"),
        json!("x".repeat(70_000)),
        json!([]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({ "": { "": [] } }),
        json!({ "type": 7 }),
    ];
    for route in routes()
        .iter()
        .filter(|route| has_body(route) && !ends_sessions(route))
    {
        let path = world.path(&route.paths[0], None);
        for value in &values {
            let all: serde_json::Map<_, _> = FIELDS
                .iter()
                .map(|field| ((*field).to_owned(), value.clone()))
                .collect();
            let asked = format!(
                "{} {path} {}",
                route.method,
                &value.to_string()[..value.to_string().len().min(30)]
            );
            let body = Value::Object(all).to_string();
            let answer = world
                .ask(Some(&world.alice), &route.method, &path, body)
                .await;
            no_fault(&asked, &answer);
            for field in FIELDS {
                let body = json!({ field: value }).to_string();
                let answer = world
                    .ask(Some(&world.alice), &route.method, &path, body)
                    .await;
                no_fault(&format!("{asked} {field}"), &answer);
            }
        }
        let numbers = format!("{} {path} with numbers beyond all bounds", route.method);
        for number in ["1e400", "-1e400", "123456789012345678901234567890", "-0"] {
            let body = format!("{{\"timeout\":{number},\"order\":{number},\"body\":{number}}}");
            let answer = world
                .ask(Some(&world.alice), &route.method, &path, body)
                .await;
            no_fault(&numbers, &answer);
        }
    }
}

#[tokio::test]
async fn names_in_paths_that_are_none_are_no_fault_of_ours() {
    let world = World::new().await;
    let long = "x".repeat(300);
    let names = [
        "%FF%FE",
        "%00",
        "%0A",
        "..%2F..",
        "%E2%98%83",
        "%23",
        "!",
        "$",
        "@",
        "%40:",
        "!:localhost",
        "@x",
        "%40x:",
        "@x:y:z:%20",
        "$x",
        "%2B",
        "%25",
        "null",
        "0",
        "-1",
        "{}",
        &long,
    ];
    for route in routes() {
        if ends_sessions(&route) {
            continue;
        }
        for path in &route.paths {
            let variables: Vec<_> = path
                .split('/')
                .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            for variable in variables {
                for name in names {
                    let path = world.path(path, Some((variable, name)));
                    let asked = format!("{} {path}", route.method);
                    let answer = world
                        .ask(Some(&world.alice), &route.method, &path, "{}")
                        .await;
                    no_fault(&asked, &answer);
                }
            }
        }
    }
}

#[tokio::test]
async fn queries_that_make_no_sense_are_no_fault_of_ours() {
    let world = World::new().await;
    let values = [
        "",
        "%FF",
        "-1",
        "99999999999999999999",
        "1.5",
        "null",
        "{}",
        "%7B",
        "s",
        "t-1",
        "t9_9_9",
        "%00",
    ];
    let keys = [
        "from",
        "to",
        "dir",
        "limit",
        "filter",
        "since",
        "timeout",
        "full_state",
        "set_presence",
        "at",
        "membership",
        "not_membership",
        "format",
        "server",
        "via",
        "server_name",
        "username",
        "token",
        "use_state_after",
        "only",
        "width",
        "height",
        "method",
        "animated",
        "timeout_ms",
        "allow_remote",
        "user_id",
        "ts",
        "max_depth",
        "suggested_only",
    ];
    for route in routes().iter().filter(|route| route.method == Method::GET) {
        let path = world.path(&route.paths[0], None);
        for key in keys {
            for value in values {
                // A poll that has nothing to tell waits for so long.
                let query = format!("{path}?{key}={value}");
                let asked = format!("{} {query}", route.method);
                let answer = world
                    .ask(Some(&world.alice), &route.method, &query, "")
                    .await;
                no_fault(&asked, &answer);
            }
        }
    }
}

#[tokio::test]
async fn rooms_that_are_not_there_and_rooms_of_others_look_the_same() {
    let world = World::new().await;
    let before = world.picture().await;
    for route in routes() {
        for path in route.paths.iter().filter(|path| path.contains("{room_id}")) {
            let own = path
                .contains("{user_id}")
                .then_some(("user_id", "@bob:localhost"));
            let there = world.path(path, own);
            let gone = there.replace(&world.variables["room_id"], "!nowhereatall:localhost");
            let room = world
                .ask(Some(&world.bob), &route.method, &there, "{}")
                .await;
            let none = world
                .ask(Some(&world.bob), &route.method, &gone, "{}")
                .await;
            no_fault(&there, &room);
            no_fault(&gone, &none);
            // Whether a room is published, and joining it, tell of themselves that it exists.
            let tells = ["get_room_visibility", "join_room_by_id"].contains(&route.name);
            // So tells a server whether it can help another one into a room, or out of it.
            let helps = ["membership", "thirdparty"].contains(&route.module)
                || ["/send_join/", "/send_leave/"]
                    .iter()
                    .any(|first| path.contains(first));
            let helps = helps && route.api == config::Api::Federation;
            if !tells && !helps {
                assert_eq!(
                    room.status, none.status,
                    "{} {path}: {} {}",
                    route.method, room.body, none.body
                );
                assert_eq!(
                    room.body["errcode"], none.body["errcode"],
                    "{} {path}",
                    route.method
                );
            }
        }
    }
    assert_eq!(world.picture().await, before);
}
