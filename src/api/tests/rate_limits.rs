//! How often something may be done, on a clock that stands still until it is moved.

use std::{net::IpAddr, time::Duration};

use config::Config;
use http::{HeaderValue, Method, header};
use serde_json::{Value, json};

use super::{ALL, json as json_of, parts, request};
use crate::{Server, authenticate::Peer};

const V3: &str = "/_matrix/client/v3";

/// Who asks: an access token, an address.
#[derive(Clone, Copy, Default)]
struct Asking<'a> {
    token: Option<&'a str>,
    address: Option<&'a str>,
}

/// Status, body, and the header that says when to come back.
type Answer = (u16, Value, Option<String>);

async fn ask(server: &Server, who: Asking<'_>, method: Method, path: &str, body: Value) -> Answer {
    let mut request = request(method, path, body.to_string());
    if let Some(token) = who.token {
        let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    if let Some(address) = who.address {
        let address: IpAddr = address.parse().unwrap();
        request.extensions_mut().insert(Peer(address));
    }
    let answer = server.answer(ALL, request).await;
    let after = answer.headers().get(header::RETRY_AFTER);
    let after = after.map(|after| after.to_str().unwrap().to_owned());
    (answer.status().as_u16(), json_of(&answer), after)
}

#[track_caller]
fn limited((status, body, after): Answer, milliseconds: u64) {
    assert_eq!(
        (status, &body["errcode"]),
        (429, &json!("M_LIMIT_EXCEEDED")),
        "{body}"
    );
    assert_eq!(body["retry_after_ms"], milliseconds);
    assert_eq!(after, Some(milliseconds.div_ceil(1_000).to_string()));
}

#[track_caller]
fn ok((status, body, _): Answer) -> Value {
    assert_eq!(status, 200, "{body}");
    body
}

/// A server where anybody may register, with these limits.
async fn server(limits: &str) -> Server {
    let text = format!(
        "[registration]\nenabled = true\nrequire_token = false\n[rate_limits]\n{limits}\n\
         [passwords]\nmemory = \"64 KiB\"\npasses = 1\n"
    );
    Server::open(parts(Config::from_toml(&text).unwrap()))
        .await
        .unwrap()
}

async fn register(server: &Server, name: &str) -> String {
    let body = json!({
        "username": name, "password": "correct horse", "auth": {"type": "m.login.dummy"},
    });
    let path = format!("{V3}/register");
    let made = ok(ask(server, Asking::default(), Method::POST, &path, body).await);
    made["access_token"].as_str().unwrap().to_owned()
}

async fn room(server: &Server, token: &str, body: Value) -> Answer {
    let who = Asking {
        token: Some(token),
        address: None,
    };
    ask(server, who, Method::POST, &format!("{V3}/createRoom"), body).await
}

async fn say(server: &Server, token: &str, room: &str, txn: u32) -> Answer {
    let who = Asking {
        token: Some(token),
        address: None,
    };
    let path = format!("{V3}/rooms/{room}/send/m.room.message/{txn}");
    let body = json!({"msgtype": "m.text", "body": "hi"});
    ask(server, who, Method::PUT, &path, body).await
}

#[test]
fn whatever_the_specification_wants_limited_counts_as_something() {
    for route in crate::routes() {
        assert!(!route.rate_limited || route.action.is_some(), "{route:?}");
    }
}

#[tokio::test]
async fn who_sends_too_much_waits_and_others_do_not() {
    let server = server("message = \"2, then 1/s\"").await;
    let [alice, bob] = [
        register(&server, "alice").await,
        register(&server, "bob").await,
    ];
    let room_id = ok(room(&server, &alice, json!({"preset": "public_chat"})).await);
    let room_id = room_id["room_id"].as_str().unwrap();
    for txn in 0..2 {
        ok(say(&server, &alice, room_id, txn).await);
    }
    server.clock.advance(Duration::from_millis(300));
    limited(say(&server, &alice, room_id, 2).await, 700);
    let who = Asking {
        token: Some(&alice),
        address: Some("192.0.2.1"),
    };
    let name = format!("{V3}/profile/@alice:localhost/displayname");
    let body = json!({"displayname": "Alice"});
    limited(ask(&server, who, Method::PUT, &name, body).await, 700);
    let other = format!("{V3}/rooms/{room_id}/send/m.room.message/1");
    let refused = ask(
        &server,
        Asking {
            token: Some(&bob),
            ..who
        },
        Method::PUT,
        &other,
        json!({"msgtype": "m.text", "body": "hi"}),
    );
    assert_eq!(refused.await.0, 403, "not limited, but not in the room");
    // Reading is another matter.
    let path = format!("{V3}/rooms/{room_id}/messages?dir=b");
    let get = |path: String| async move { request(Method::GET, &path, "") };
    let mut messages = get(path).await;
    let value = HeaderValue::from_str(&format!("Bearer {alice}")).unwrap();
    messages.headers_mut().insert(header::AUTHORIZATION, value);
    assert_eq!(server.answer(ALL, messages).await.status(), 200);
    server.clock.advance(Duration::from_millis(700));
    ok(say(&server, &alice, room_id, 2).await);
    limited(say(&server, &alice, room_id, 3).await, 1_000);
}

#[tokio::test]
async fn strangers_are_counted_by_their_addresses() {
    let server = server("login = \"1, then 1/min\"").await;
    register(&server, "alice").await;
    let login = |address| {
        let identifier = json!({"type": "m.id.user", "user": "alice"});
        let body = json!({
            "type": "m.login.password", "identifier": identifier, "password": "correct horse",
        });
        let who = Asking {
            token: None,
            address,
        };
        let server = server.clone();
        async move { ask(&server, who, Method::POST, &format!("{V3}/login"), body).await }
    };
    ok(login(Some("2001:db8::1")).await);
    limited(login(Some("2001:db8::2")).await, 60_000);
    ok(login(Some("2001:db8:1::1")).await);
    ok(login(Some("192.0.2.1")).await);
    limited(login(Some("::ffff:192.0.2.1")).await, 60_000);
    // Through a Unix socket, without a proxy's word.
    ok(login(None).await);
    ok(login(None).await);
}

#[tokio::test]
async fn joins_and_invites_are_counted_by_room_and_invitee_too() {
    let limits = "joins_of_room = \"1, then 1/s\"\ninvites_of_user = \"2, then 1/h\"\n\
        invites_to_room = \"1, then 1/s\"\ninvite = \"5, then 1/s\"";
    let server = server(limits).await;
    let [alice, bob, carol] = [
        register(&server, "alice").await,
        register(&server, "bob").await,
        register(&server, "carol").await,
    ];
    let public = json!({"preset": "public_chat"});
    let room_id = ok(room(&server, &alice, public.clone()).await)["room_id"].clone();
    let room_id = room_id.as_str().unwrap();
    let post = |token, verb: &str, body| {
        let path = format!("{V3}/rooms/{room_id}/{verb}");
        let (server, who) = (
            server.clone(),
            Asking {
                token: Some(token),
                address: None,
            },
        );
        async move { ask(&server, who, Method::POST, &path, body).await }
    };
    ok(post(&bob, "join", json!({})).await);
    limited(post(&carol, "join", json!({})).await, 1_000);
    server.clock.advance(Duration::from_secs(1));
    ok(post(&carol, "join", json!({})).await);

    let dave = json!({"user_id": "@dave:localhost"});
    ok(post(&alice, "invite", dave.clone()).await);
    limited(
        post(&bob, "invite", json!({"user_id": "@erin:localhost"})).await,
        1_000,
    );
    let many = |count: u32| {
        let invite: Vec<_> = (0..count).map(|n| format!("@n{n}:localhost")).collect();
        json!({"invite": invite})
    };
    server.clock.advance(Duration::from_secs(10));
    // As many as the bucket holds are enough for more.
    ok(room(&server, &alice, many(9)).await);
    limited(room(&server, &alice, many(1)).await, 1_000);
    ok(room(&server, &bob, json!({"invite": ["@dave:localhost"]})).await);
    server.clock.advance(Duration::from_secs(10));
    let (status, ..) = room(&server, &carol, json!({"invite": ["@dave:localhost"]})).await;
    assert_eq!(status, 429, "dave was invited twice within the hour");
}

#[tokio::test]
async fn with_limits_off_nothing_is_limited() {
    let server = server("enabled = false\nmessage = \"1, then 1/d\"").await;
    let alice = register(&server, "alice").await;
    let room_id = ok(room(&server, &alice, json!({})).await)["room_id"].clone();
    for txn in 0..100 {
        ok(say(&server, &alice, room_id.as_str().unwrap(), txn).await);
    }
}
