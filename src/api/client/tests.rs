//! The people's endpoints, in process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod cost;

use bytes::Bytes;
use config::Config;
use http::{HeaderValue, Method, Request, header};
use serde_json::{Value, json};

use crate::{
    Body, Server,
    tests::{ALL, json as json_of, parts, request},
};

/// A server where anybody may register.
async fn open() -> Server {
    let mut config = Config::default();
    config.registration.enabled = true;
    config.registration.require_token = false;
    Server::open(parts(config)).await.unwrap()
}

const V3: &str = "/_matrix/client/v3";

/// Asks below `/_matrix/client/v3`; status and body.
async fn ask(
    server: &Server,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> (u16, Value) {
    let mut request = request(method, &format!("{V3}{path}"), body);
    if let Some(token) = token {
        sign(&mut request, &format!("Bearer {token}"));
    }
    answer(server, request).await
}

fn sign(request: &mut Request<Body>, value: &str) {
    let value = HeaderValue::from_str(value).unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, value);
}

async fn answer(server: &Server, request: Request<Body>) -> (u16, Value) {
    let answer = server.answer(ALL, request).await;
    assert_eq!(answer.headers()["content-type"], "application/json");
    (answer.status().as_u16(), json_of(&answer))
}

async fn post(server: &Server, token: Option<&str>, path: &str, body: Value) -> (u16, Value) {
    ask(server, token, Method::POST, path, body.to_string()).await
}

async fn put(server: &Server, token: &str, path: &str, body: Value) -> (u16, Value) {
    ask(server, Some(token), Method::PUT, path, body.to_string()).await
}

async fn get(server: &Server, token: &str, path: &str) -> (u16, Value) {
    ask(server, Some(token), Method::GET, path, "").await
}

#[track_caller]
fn refused((status, body): (u16, Value), wanted: u16, errcode: &str) -> String {
    assert_eq!(
        (status, body["errcode"].as_str()),
        (wanted, Some(errcode)),
        "{body}"
    );
    body["error"].as_str().unwrap().to_owned()
}

#[track_caller]
fn ok((status, body): (u16, Value)) -> Value {
    assert_eq!(status, 200, "{body}");
    body
}

/// Registers; gives the access token.
async fn register(server: &Server, name: &str) -> String {
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({"username": name, "password": format!("{name}-password"), "auth": auth});
    let made = ok(post(server, None, "/register", body).await);
    assert_eq!(made["user_id"], format!("@{name}:localhost"));
    made["access_token"].as_str().unwrap().to_owned()
}

fn password_login(name: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": name});
    let password = format!("{name}-password");
    json!({"type": "m.login.password", "identifier": identifier, "password": password})
}

#[tokio::test]
async fn registers_logs_in_and_out() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let me = ok(get(&server, &token, "/account/whoami").await);
    assert_eq!(me["user_id"], "@alice:localhost");
    let flows = ok(ask(&server, None, Method::GET, "/login", "").await);
    let token_flow = json!({"type": "m.login.token", "get_login_token": true});
    assert_eq!(
        flows,
        json!({"flows": [{"type": "m.login.password"}, token_flow]})
    );
    let login = ok(post(&server, None, "/login", password_login("alice")).await);
    let second = login["access_token"].as_str().unwrap();
    assert_eq!(
        ok(get(&server, second, "/devices").await)["devices"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    assert_eq!(
        ok(post(&server, Some(second), "/logout", json!({})).await),
        json!({})
    );
    refused(
        get(&server, second, "/account/whoami").await,
        401,
        "M_UNKNOWN_TOKEN",
    );
    ok(post(&server, Some(&token), "/logout/all", json!({})).await);
    refused(
        get(&server, &token, "/account/whoami").await,
        401,
        "M_UNKNOWN_TOKEN",
    );
}

#[tokio::test]
async fn takes_tokens_where_they_belong() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let whoami = format!("{V3}/account/whoami");
    let query = format!("{whoami}?access_token={token}");
    ok(answer(&server, request(Method::GET, &query, "")).await);
    for (value, status, errcode) in [
        (format!("Bearer {token}"), 200, ""),
        (format!("bearer {token}"), 200, ""),
        (format!("Basic {token}"), 401, "M_MISSING_TOKEN"),
        ("Bearer".to_owned(), 401, "M_MISSING_TOKEN"),
        ("Bearer ".to_owned(), 401, "M_UNKNOWN_TOKEN"),
        (format!("Bearer {token}x"), 401, "M_UNKNOWN_TOKEN"),
        ("Bearer \u{f1}".to_owned(), 401, "M_UNKNOWN_TOKEN"),
    ] {
        let mut request = request(Method::GET, &whoami, "");
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
        let (answered, body) = answer(&server, request).await;
        assert_eq!(
            (answered, body["errcode"].as_str().unwrap_or_default()),
            (status, errcode)
        );
    }
    refused(
        answer(&server, request(Method::GET, &whoami, "")).await,
        401,
        "M_MISSING_TOKEN",
    );
    for optional in ["/account/password", "/account/deactivate"] {
        let body = json!({"new_password": "x"});
        refused(
            post(&server, None, optional, body).await,
            401,
            "M_MISSING_TOKEN",
        );
    }
}

#[tokio::test]
async fn says_what_is_wrong_with_a_body() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let name = "/profile/@alice:localhost/displayname";
    let deep = format!(
        r#"{{"displayname": {}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    for (path, body, errcode, part) in [
        (name, b"{not json" as &[u8], "M_NOT_JSON", "line 1"),
        (name, b"\"\xff\xfe\"", "M_NOT_JSON", "UTF-8"),
        (name, b"[]", "M_BAD_JSON", "object"),
        (name, br#"{"displayname": 7}"#, "M_BAD_JSON", "displayname"),
        (name, b"{}", "M_MISSING_PARAM", "displayname"),
        (name, deep.as_bytes(), "M_BAD_JSON", "deeper"),
        (
            "/devices/X",
            br#"{"display_name": {"a": "b"}}"#,
            "M_BAD_JSON",
            "`display_name`",
        ),
        (
            "/profile/alice/displayname",
            br#"{"displayname": "x"}"#,
            "M_INVALID_PARAM",
            "path",
        ),
        (
            "/profile/@a%ff:b/displayname",
            br#"{"displayname": "x"}"#,
            "M_INVALID_PARAM",
            "UTF-8",
        ),
    ] {
        let answer = ask(&server, Some(&token), Method::PUT, path, body.to_vec()).await;
        let message = refused(answer, 400, errcode);
        assert!(message.contains(part), "{message}");
    }
    let long = format!("/profile/@{}:localhost/displayname", "x".repeat(300));
    let answer = put(&server, &token, &long, json!({"displayname": "x"})).await;
    assert!(refused(answer, 400, "M_INVALID_PARAM").contains("user_id"));
    assert_eq!(ok(get(&server, &token, name).await), json!({}));

    let missing = ask(&server, None, Method::GET, "/register/available", "").await;
    assert!(refused(missing, 400, "M_MISSING_PARAM").contains("username"));
    let wrong = json!({"room": {"timeline": {"limit": "three"}}});
    let answer = post(
        &server,
        Some(&token),
        "/user/@alice:localhost/filter",
        wrong,
    )
    .await;
    let message = refused(answer, 400, "M_BAD_JSON");
    assert!(message.contains("`room.timeline.limit`"), "{message}");
    let echo = json!({"device_id": [1], "password": "x".repeat(2_000)});
    let answer = post(&server, None, "/register", echo).await;
    assert!(refused(answer, 400, "M_BAD_JSON").len() < 400);
}

#[tokio::test]
async fn a_login_that_ruma_panics_on_is_refused() {
    let server = open().await;
    for body in [json!({}), json!({"device_id": "X"}), json!({"type": null})] {
        refused(
            post(&server, None, "/login", body).await,
            400,
            "M_MISSING_PARAM",
        );
    }
    refused(
        post(&server, None, "/login", json!({"type": 7})).await,
        400,
        "M_MISSING_PARAM",
    );
    refused(
        post(&server, None, "/login", json!({"type": "m.x"})).await,
        400,
        "M_UNKNOWN",
    );
    let empty = ask(&server, None, Method::POST, "/login", "").await;
    refused(empty, 400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn bodies_have_limits_and_strangers_a_lower_one() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let body = |bytes: usize| json!({"x": "x".repeat(bytes)}).to_string();
    let data = "/user/@alice:localhost/account_data/org.example.big";
    let put = |bytes: usize| ask(&server, Some(&token), Method::PUT, data, body(bytes));
    ok(put(200 << 10).await);
    refused(put(2 << 20).await, 413, "M_TOO_LARGE");
    let stranger = ask(&server, None, Method::POST, "/login", body(200 << 10)).await;
    refused(stranger, 413, "M_TOO_LARGE");
}

#[tokio::test]
async fn keeps_profiles_account_data_and_filters_of_their_owner() {
    let server = open().await;
    let (alice, bob) = (
        register(&server, "alice").await,
        register(&server, "bob").await,
    );
    let profile = "/profile/@alice:localhost";
    let name = format!("{profile}/displayname");
    ok(put(&server, &alice, &name, json!({"displayname": "Alice"})).await);
    refused(
        put(&server, &bob, &name, json!({"displayname": "Eve"})).await,
        403,
        "M_FORBIDDEN",
    );
    ok(put(
        &server,
        &alice,
        &format!("{profile}/m.tz"),
        json!({"m.tz": "Asia/Tehran"}),
    )
    .await);
    let whole = json!({"displayname": "Alice", "m.tz": "Asia/Tehran"});
    assert_eq!(ok(get(&server, &bob, profile).await), whole);
    let deleted = ask(
        &server,
        Some(&alice),
        Method::DELETE,
        &format!("{profile}/m.tz"),
        "",
    )
    .await;
    ok(deleted);
    refused(
        get(&server, &bob, &format!("{profile}/m.tz")).await,
        404,
        "M_NOT_FOUND",
    );
    refused(
        get(&server, &bob, "/profile/@nobody:localhost").await,
        404,
        "M_NOT_FOUND",
    );
    refused(
        get(&server, &bob, "/profile/@a:elsewhere.example").await,
        502,
        "M_UNKNOWN",
    );

    let data = "/user/@alice:localhost/account_data/org.example.colour";
    refused(get(&server, &alice, data).await, 404, "M_NOT_FOUND");
    ok(put(&server, &alice, data, json!({"colour": "green"})).await);
    assert_eq!(
        ok(get(&server, &alice, data).await),
        json!({"colour": "green"})
    );
    refused(get(&server, &bob, data).await, 403, "M_FORBIDDEN");
    let rules = "/user/@alice:localhost/account_data/m.push_rules";
    refused(
        put(&server, &alice, rules, json!({})).await,
        405,
        "M_BAD_JSON",
    );
    assert!(ok(get(&server, &alice, "/pushrules/").await)["global"]["override"].is_array());

    let filters = "/user/@alice:localhost/filter";
    let filter = json!({"room": {"timeline": {"limit": 3}}});
    let made = ok(post(&server, Some(&alice), filters, filter.clone()).await);
    let kept = format!("{filters}/{}", made["filter_id"].as_str().unwrap());
    assert_eq!(ok(get(&server, &alice, &kept).await), filter);
    refused(get(&server, &bob, &kept).await, 403, "M_FORBIDDEN");
    refused(
        get(&server, &alice, &format!("{filters}/987654321")).await,
        404,
        "M_NOT_FOUND",
    );
}

#[tokio::test]
async fn deleting_devices_and_changing_passwords_need_the_password() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let login = ok(post(&server, None, "/login", password_login("alice")).await);
    let other = login["access_token"].as_str().unwrap();
    let path = format!("/devices/{}", login["device_id"].as_str().unwrap());
    let (status, challenge) = ask(&server, Some(&token), Method::DELETE, &path, "{}").await;
    assert_eq!(
        (status, &challenge["flows"]),
        (401, &json!([{"stages": ["m.login.password"]}]))
    );
    let mut auth = password_login("alice");
    auth["session"] = challenge["session"].clone();
    let body = json!({ "auth": auth }).to_string();
    ok(ask(&server, Some(&token), Method::DELETE, &path, body).await);
    refused(
        get(&server, other, "/account/whoami").await,
        401,
        "M_UNKNOWN_TOKEN",
    );

    let change = json!({"new_password": "another password", "auth": password_login("alice")});
    ok(post(&server, Some(&token), "/account/password", change).await);
    ok(get(&server, &token, "/account/whoami").await);
    refused(
        post(&server, None, "/login", password_login("alice")).await,
        403,
        "M_FORBIDDEN",
    );

    let mut auth = password_login("alice");
    auth["password"] = json!("another password");
    let close = json!({ "auth": auth });
    let closed = ok(post(&server, Some(&token), "/account/deactivate", close).await);
    assert_eq!(closed, json!({"id_server_unbind_result": "success"}));
    refused(
        get(&server, &token, "/account/whoami").await,
        401,
        "M_UNKNOWN_TOKEN",
    );
}

#[tokio::test]
async fn a_locked_account_may_log_out_and_nothing_else() {
    let server = open().await;
    let token = register(&server, "alice").await;
    server
        .users
        .set_locked("@alice:localhost".try_into().unwrap(), true)
        .await
        .unwrap();
    refused(
        get(&server, &token, "/account/whoami").await,
        401,
        "M_USER_LOCKED",
    );
    ok(post(&server, Some(&token), "/logout", json!({})).await);
}

#[tokio::test]
async fn devices_show_where_they_were_seen() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let mut request = request(Method::GET, &format!("{V3}/devices"), "");
    sign(&mut request, &format!("Bearer {token}"));
    let ip = "192.0.2.7".parse().unwrap();
    request
        .extensions_mut()
        .insert(crate::authenticate::Peer(ip));
    let devices = ok(answer(&server, request).await);
    assert_eq!(devices["devices"][0]["last_seen_ip"], "192.0.2.7");
    assert_eq!(devices["devices"][0]["last_seen_ts"], 1_700_000_000_000_u64);
}

#[tokio::test]
async fn clients_find_the_server_where_the_operator_says_it_is() {
    let well_known = || request(Method::GET, "/.well-known/matrix/client", "");
    let server = open().await;
    refused(answer(&server, well_known()).await, 404, "M_NOT_FOUND");
    let mut config = Config::default();
    config.server.public_url = "https://matrix.example.org".to_owned();
    let server = Server::open(parts(config)).await.unwrap();
    let told = json!({"m.homeserver": {"base_url": "https://matrix.example.org"}});
    assert_eq!(ok(answer(&server, well_known()).await), told);
}

#[tokio::test]
async fn who_is_suspended_reads_and_does_not_send() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let send = "/rooms/!x:localhost/send/m.room.message/1";
    let message = json!({"msgtype": "m.text", "body": "x"});
    refused(
        put(&server, &token, send, message.clone()).await,
        403,
        "M_FORBIDDEN",
    );
    server
        .users
        .set_suspended("@alice:localhost".try_into().unwrap(), true)
        .await
        .unwrap();
    refused(
        put(&server, &token, send, message).await,
        403,
        "M_USER_SUSPENDED",
    );
    ok(get(&server, &token, "/account/whoami").await);
}

#[tokio::test]
async fn a_client_that_can_refresh_gets_a_token_that_ends() {
    let server = open().await;
    register(&server, "alice").await;
    let mut login = password_login("alice");
    login["refresh_token"] = json!(true);
    let login = ok(post(&server, None, "/login", login).await);
    assert!(login["expires_in_ms"].is_u64());
    let refresh = json!({"refresh_token": login["refresh_token"]});
    let new = ok(post(&server, None, "/refresh", refresh).await);
    assert!(new["expires_in_ms"].is_u64() && new["refresh_token"].is_string());
    let token = new["access_token"].as_str().unwrap();
    ok(get(&server, token, "/account/whoami").await);
    let old = get(
        &server,
        login["access_token"].as_str().unwrap(),
        "/account/whoami",
    )
    .await;
    refused(old, 401, "M_UNKNOWN_TOKEN");
    let unknown = post(
        &server,
        None,
        "/refresh",
        json!({"refresh_token": "unknown"}),
    )
    .await;
    refused(unknown, 401, "M_UNKNOWN_TOKEN");
    refused(
        post(&server, None, "/refresh", json!({})).await,
        400,
        "M_MISSING_PARAM",
    );
    let wrong = post(&server, None, "/refresh", json!({"refresh_token": 5})).await;
    assert_eq!(wrong.0, 400);
}

#[tokio::test]
async fn a_device_lets_another_one_in() {
    let server = open().await;
    let token = register(&server, "alice").await;
    let path = "/_matrix/client/v1/login/get_token";
    let ask = async |token: Option<&str>, body: Value| {
        let mut request = request(Method::POST, path, body.to_string());
        if let Some(token) = token {
            sign(&mut request, &format!("Bearer {token}"));
        }
        answer(&server, request).await
    };
    refused(ask(None, json!({})).await, 401, "M_MISSING_TOKEN");
    let (status, challenge) = ask(Some(&token), json!({})).await;
    assert_eq!((status, challenge["flows"].is_array()), (401, true));
    let mut auth = password_login("alice");
    auth["session"] = challenge["session"].clone();
    let given = ok(ask(Some(&token), json!({"auth": auth})).await);
    assert_eq!(given["expires_in_ms"], 120_000);
    let login = json!({"type": "m.login.token", "token": given["login_token"]});
    let second = ok(post(&server, None, "/login", login.clone()).await);
    assert_eq!(second["user_id"], "@alice:localhost");
    refused(
        post(&server, None, "/login", login).await,
        403,
        "M_FORBIDDEN",
    );
}
