//! Application services: whom they act as, what they make, and what is kept for them.

use std::path::Path;

use harness::{Answer, OPEN, Server, User, encode, free_port};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{CHAPAR, list};

/// The token of the bridge, and that of another service.
const BRIDGE: &str = "as-token-of-the-bridge";
const OTHER: &str = "as-token-of-another-service";

fn registration(id: &str, url: &str, token: &str, name: &str) -> String {
    format!(
        "id: {id}
url: {url}
as_token: {token}
hs_token: hs-{token}
sender_localpart: {name}bot
rate_limited: false
namespaces:
  users:
    - exclusive: true
      regex: '@_{name}_.*'
    - exclusive: false
      regex: '@shared_.*'
  aliases:
    - exclusive: true
      regex: '#_{name}_.*'
  rooms: []
"
    )
}

fn settings(folder: &Path, more: &str) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!(
        "{OPEN}{more}
[application_services]
registrations = [{:?}, {:?}]
",
        file("bridge.yaml"),
        file("other.yaml")
    )
}

/// A server with two services, of which the first is at this URL.
async fn server_with(url: &str, more: &str) -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("bridge.yaml", registration("bridge", url, BRIDGE, "irc")),
        ("other.yaml", registration("other", "null", OTHER, "other")),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let server = Server::start_with(CHAPAR, &settings(folder.path(), more)).await;
    (server, folder)
}

async fn server() -> (Server, TempDir) {
    // Nobody is there: nothing of the server's may wait for it.
    server_with(&format!("http://127.0.0.1:{}", free_port()), "").await
}

/// The service behind a token, as somebody who asks.
fn service(server: &Server, token: &str) -> User {
    server.user_of(&json!({ "user_id": "", "access_token": token, "device_id": "" }))
}

/// A path as which user (and with which device) a service asks for it.
fn as_user(path: &str, user: &str, device: Option<&str>) -> String {
    let and = if path.contains('?') { '&' } else { '?' };
    let device = device.map_or_else(String::new, |device| format!("&device_id={device}"));
    format!("{path}{and}user_id={}{device}", encode(user))
}

async fn register(service: &User, name: &str) -> Answer {
    let body = json!({
        "type": "m.login.application_service", "username": name, "inhibit_login": true,
    });
    service.post("/register", body).await
}

#[tokio::test]
async fn a_service_is_its_own_user_or_one_of_its_namespaces() {
    let (server, _folder) = server().await;
    let bridge = service(&server, BRIDGE);
    let who = bridge.get("/account/whoami").await.ok();
    assert_eq!(who["user_id"], "@ircbot:localhost");
    assert_eq!(who["device_id"], Value::Null);
    let other = service(&server, OTHER).get("/account/whoami").await.ok();
    assert_eq!(other["user_id"], "@otherbot:localhost");

    let anna = "@_irc_anna:localhost";
    let whoami = as_user("/account/whoami", anna, None);
    bridge.get(&whoami).await.refused(403, "M_FORBIDDEN");
    let made = register(&bridge, "_irc_anna").await.ok();
    assert_eq!(made["user_id"], anna);
    assert_eq!(made["access_token"], Value::Null);
    register(&bridge, "_irc_anna")
        .await
        .refused(400, "M_USER_IN_USE");
    assert_eq!(bridge.get(&whoami).await.ok()["user_id"], anna);
    // Where older ones put the token.
    let path = format!(
        "/_matrix/client/v3{}&access_token={BRIDGE}",
        as_user("/account/whoami", anna, None)
    );
    let who = server.ask(Method::GET, &path, None).await.ok();
    assert_eq!(who["user_id"], anna);

    let alice = server.user("alice").await;
    for (user, status, code) in [
        (alice.id.as_str(), 403, "M_FORBIDDEN"),
        ("@otherbot:localhost", 403, "M_FORBIDDEN"),
        ("@_irc_anna:elsewhere.example", 403, "M_FORBIDDEN"),
        ("anna", 400, "M_INVALID_PARAM"),
    ] {
        let whoami = as_user("/account/whoami", user, None);
        bridge.get(&whoami).await.refused(status, code);
        // An ordinary token is its owner's, whatever else is said.
        assert_eq!(alice.get(&whoami).await.ok()["user_id"], alice.id);
    }
    service(&server, "as-token-of-nobody")
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn names_are_kept_for_their_services() {
    let (server, _folder) = server().await;
    let (bridge, other) = (service(&server, BRIDGE), service(&server, OTHER));
    for name in ["_irc_bob", "ircbot", "otherbot"] {
        server
            .get(&format!("/register/available?username={name}"))
            .await
            .refused(400, "M_EXCLUSIVE");
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": name, "password": "correct horse", "auth": auth});
        server
            .post("/register", body)
            .await
            .refused(400, "M_EXCLUSIVE");
    }
    for (service, name) in [
        (&other, "_irc_bob"),
        (&bridge, "bob"),
        (&bridge, "otherbot"),
    ] {
        register(service, name).await.refused(400, "M_EXCLUSIVE");
    }
    // What is not exclusive is anybody's, and the first one's.
    server
        .get("/register/available?username=shared_a")
        .await
        .ok();
    register(&other, "shared_a").await.ok();
    register(&bridge, "shared_a")
        .await
        .refused(400, "M_USER_IN_USE");

    let kind = json!({"type": "m.login.application_service", "username": "_irc_bob"});
    server
        .post("/register", kind.clone())
        .await
        .refused(401, "M_MISSING_TOKEN");
    let alice = server.user("alice").await;
    alice
        .post("/register", kind)
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    let unnamed = json!({"type": "m.login.application_service"});
    bridge
        .post("/register", unnamed)
        .await
        .refused(400, "M_MISSING_PARAM");
    register(&bridge, "_irc_ä")
        .await
        .refused(400, "M_INVALID_USERNAME");
}

#[tokio::test]
async fn a_service_logs_its_users_in() {
    let (server, _folder) = server().await;
    let bridge = service(&server, BRIDGE);
    let flows = server.get("/login").await.ok();
    let kind = "m.login.application_service";
    assert!(
        list(&flows, "flows")
            .iter()
            .any(|flow| flow["type"] == kind)
    );
    let body = json!({"type": kind, "username": "_irc_anna", "device_id": "FIRST"});
    let made = server.user_of(&bridge.post("/register", body).await.ok());
    assert_eq!(
        (made.id.as_str(), made.device.as_str()),
        ("@_irc_anna:localhost", "FIRST")
    );

    let login =
        |user: &str| json!({"type": kind, "identifier": {"type": "m.id.user", "user": user}});
    for user in ["_irc_anna", "@_irc_anna:localhost"] {
        let anna = server.user_of(&bridge.post("/login", login(user)).await.ok());
        let who = anna.get("/account/whoami").await.ok();
        assert_eq!(who["user_id"], "@_irc_anna:localhost");
    }
    let old = json!({"type": kind, "user": "_irc_anna"});
    bridge.post("/login", old).await.ok();
    bridge
        .post("/login", login("_irc_nobody"))
        .await
        .refused(403, "M_FORBIDDEN");
    let alice = server.user("alice").await;
    bridge
        .post("/login", login(&alice.id))
        .await
        .refused(400, "M_EXCLUSIVE");
    server
        .post("/login", login("_irc_anna"))
        .await
        .refused(401, "M_MISSING_TOKEN");
    alice
        .post("/login", login("_irc_anna"))
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    bridge
        .post("/login", json!({"type": kind}))
        .await
        .refused(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn aliases_are_kept_for_their_services() {
    let (server, _folder) = server().await;
    let (bridge, other) = (service(&server, BRIDGE), service(&server, OTHER));
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    bridge.join(&room).await;
    other.join(&room).await;
    let alias = |name: &str| format!("/directory/room/{}", encode(&format!("#{name}:localhost")));
    let body = json!({ "room_id": room });
    for who in [&alice, &other] {
        who.put(&alias("_irc_chat"), body.clone())
            .await
            .refused(400, "M_EXCLUSIVE");
        who.post("/createRoom", json!({"room_alias_name": "_irc_chat"}))
            .await
            .refused(400, "M_EXCLUSIVE");
    }
    bridge
        .put(&alias("chat"), body.clone())
        .await
        .refused(400, "M_EXCLUSIVE");
    bridge.put(&alias("_irc_chat"), body.clone()).await.ok();
    alice.get(&alias("_irc_chat")).await.ok();
    alice
        .delete(&alias("_irc_chat"), json!({}))
        .await
        .refused(400, "M_EXCLUSIVE");
    // All of them are its own, whoever of its people made them.
    register(&bridge, "_irc_anna").await.ok();
    let as_anna = as_user(&alias("_irc_chat"), "@_irc_anna:localhost", None);
    bridge.delete(&as_anna, json!({})).await.ok();
    alice
        .get(&alias("_irc_chat"))
        .await
        .refused(404, "M_NOT_FOUND");
    let made = json!({"room_alias_name": "_irc_made"});
    bridge.post("/createRoom", made).await.ok();
}

#[tokio::test]
async fn only_services_choose_the_time_of_what_they_send() {
    let (server, _folder) = server().await;
    let bridge = service(&server, BRIDGE);
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    bridge.join(&room).await;
    let levels = json!({"users": {"@ircbot:localhost": 50}});
    alice
        .set_state(&room, "m.room.power_levels", "", levels)
        .await;
    let text = json!({"msgtype": "m.text", "body": "then"});
    let send = format!("/rooms/{room}/send/m.room.message/1?ts=1000");
    let state = format!("/rooms/{room}/state/org.example.then/x?ts=2000");
    for (path, time) in [(&send, 1000), (&state, 2000)] {
        let sent = bridge.put(path, text.clone()).await.ok();
        let event = alice
            .event(&room, sent["event_id"].as_str().unwrap())
            .await
            .ok();
        assert_eq!(event["origin_server_ts"], time, "{path}");
        assert_eq!(event["sender"], "@ircbot:localhost");
        let sent = alice.put(path, json!({"body": "now"})).await.ok();
        let event = alice
            .event(&room, sent["event_id"].as_str().unwrap())
            .await
            .ok();
        assert!(
            event["origin_server_ts"].as_u64().unwrap() > 1_000_000,
            "{path}"
        );
    }
    for wrong in ["-1", "x", "1e400", "99999999999999999999"] {
        let path = format!("/rooms/{room}/send/m.room.message/2?ts={wrong}");
        let answer = bridge.put(&path, text.clone()).await;
        assert_eq!(answer.status, 400, "{answer}");
    }
    // The same transaction id is the same event.
    let again = bridge.put(&send, text.clone()).await.ok();
    let timeline = alice.timeline(&room).await;
    let then: Vec<_> = timeline
        .iter()
        .filter(|event| event["origin_server_ts"] == 1000)
        .collect();
    assert_eq!(then.len(), 1);
    assert_eq!(then[0]["event_id"], again["event_id"]);
}

#[tokio::test]
async fn a_service_makes_and_ends_the_devices_of_its_users() {
    let (server, _folder) = server().await;
    let bridge = service(&server, BRIDGE);
    let anna = "@_irc_anna:localhost";
    register(&bridge, "_irc_anna").await.ok();
    let device = as_user("/devices/PHONE", anna, None);
    let whoami = as_user("/account/whoami", anna, Some("PHONE"));
    bridge.get(&whoami).await.refused(400, "M_UNKNOWN_DEVICE");
    let made = bridge.put(&device, json!({"display_name": "Phone"})).await;
    assert_eq!((made.status, made.body), (201, json!({})));
    let named = bridge
        .put(&device, json!({"display_name": "Old phone"}))
        .await;
    assert_eq!((named.status, named.body), (200, json!({})));
    assert_eq!(bridge.get(&whoami).await.ok()["device_id"], "PHONE");
    assert_eq!(bridge.get(&device).await.ok()["display_name"], "Old phone");

    let keys = |device: &str| {
        json!({"device_keys": {
            "user_id": anna, "device_id": device, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {format!("ed25519:{device}"): "x"}, "signatures": {},
        }})
    };
    bridge
        .post(&as_user("/keys/upload", anna, None), keys("PHONE"))
        .await
        .refused(400, "M_MISSING_PARAM");
    bridge
        .post(&as_user("/keys/upload", anna, Some("PHONE")), keys("PHONE"))
        .await
        .ok();
    // Nothing is to be proven again.
    bridge.delete(&device, json!({})).await.ok();
    bridge.get(&whoami).await.refused(400, "M_UNKNOWN_DEVICE");
    bridge.put(&device, json!({})).await;
    let all = as_user("/delete_devices", anna, None);
    bridge.post(&all, json!({"devices": ["PHONE"]})).await.ok();
    let devices = bridge.get(&as_user("/devices", anna, None)).await.ok();
    assert_eq!(list(&devices, "devices").len(), 0);
    // Others name what is there.
    let alice = server.user("alice").await;
    alice
        .put("/devices/PHONE", json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn services_are_not_limited_unless_their_registration_says_so() {
    let open = OPEN.replace("[rate_limits]\nenabled = false\n", "");
    assert_ne!(open, OPEN);
    let folder = tempfile::tempdir().unwrap();
    let limited = registration("other", "null", OTHER, "other").replace("rate_limited: false", "");
    for (file, text) in [
        ("bridge.yaml", registration("bridge", "null", BRIDGE, "irc")),
        ("other.yaml", limited),
    ] {
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let limits = "[rate_limits]\nmessage = \"2, then 1/h\"\nregistration = \"2, then 1/h\"\n\
                  join = \"100, then 1/h\"\n";
    let settings = settings(folder.path(), "").replace(OPEN, &format!("{open}{limits}"));
    let server = Server::start_with(CHAPAR, &settings).await;
    let (bridge, other) = (service(&server, BRIDGE), service(&server, OTHER));
    for name in ["a", "b", "c", "d"] {
        register(&bridge, &format!("_irc_{name}")).await.ok();
        register(&other, &format!("_other_{name}")).await.ok();
    }
    let alice = server.user("alice").await;
    let room = alice.room_with(&[&bridge, &other]).await;
    let send = |who: &User, user: Option<&str>, n: u32| {
        let path = format!("/rooms/{room}/send/m.room.message/{n}");
        let path = user.map_or(path.clone(), |user| as_user(&path, user, None));
        let who = who.clone();
        async move {
            who.put(&path, json!({"msgtype": "m.text", "body": "hi"}))
                .await
        }
    };
    for who in ["@_irc_a:localhost", "@_other_a:localhost"] {
        let service = if who.contains("irc") { &bridge } else { &other };
        let path = as_user(&format!("/join/{room}"), who, None);
        service.post(&path, json!({})).await.ok();
    }
    for n in 0..4 {
        send(&bridge, None, n).await.ok();
        send(&bridge, Some("@_irc_a:localhost"), n).await.ok();
        // The service's own user is not limited in any case.
        send(&other, None, n).await.ok();
    }
    let masked = "@_other_a:localhost";
    send(&other, Some(masked), 0).await.ok();
    send(&other, Some(masked), 1).await.ok();
    send(&other, Some(masked), 2)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
}

/// Answers one request with this; gives the head and body of what was asked.
async fn answer_once(listener: &TcpListener, status: &str, body: &str) -> String {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = Vec::new();
    let mut piece = [0; 4096];
    while !asked.ends_with(b"}") {
        let count = stream.read(&mut piece).await.unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&asked));
        asked.extend_from_slice(&piece[..count]);
    }
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(asked).unwrap()
}

#[tokio::test]
async fn a_service_asks_to_be_pinged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/below/", listener.local_addr().unwrap());
    let (server, _folder) = server_with(&url, "").await;
    let (bridge, other) = (service(&server, BRIDGE), service(&server, OTHER));
    let path = "/_matrix/client/v1/appservice/bridge/ping";
    let ping = json!({"transaction_id": "meow"});
    let (asked, pinged) = tokio::join!(
        answer_once(&listener, "200 OK", "{}"),
        bridge.ask(Method::POST, path, Some(&ping))
    );
    assert!(pinged.ok()["duration_ms"].is_u64());
    let asked = asked.to_ascii_lowercase();
    assert!(
        asked.starts_with("post /below/_matrix/app/v1/ping http/1.1\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains(&format!("authorization: bearer hs-{BRIDGE}\r\n")),
        "{asked}"
    );
    assert!(asked.ends_with(r#"{"transaction_id":"meow"}"#), "{asked}");

    let nothing = json!({});
    let (_, refused) = tokio::join!(
        answer_once(&listener, "403 Forbidden", r#"{"errcode": "M_FORBIDDEN"}"#),
        bridge.ask(Method::POST, path, Some(&nothing))
    );
    let refused = refused.refused(502, "M_BAD_STATUS");
    assert_eq!(refused["status"], 403);
    assert_eq!(refused["body"], r#"{"errcode": "M_FORBIDDEN"}"#);

    drop(listener);
    bridge
        .ask(Method::POST, path, Some(&ping))
        .await
        .refused(502, "M_CONNECTION_FAILED");
    other
        .ask(Method::POST, path, Some(&ping))
        .await
        .refused(403, "M_FORBIDDEN");
    let own = "/_matrix/client/v1/appservice/other/ping";
    other
        .ask(Method::POST, own, Some(&ping))
        .await
        .refused(400, "M_URL_NOT_SET");
    let alice = server.user("alice").await;
    alice
        .ask(Method::POST, path, Some(&ping))
        .await
        .refused(403, "M_FORBIDDEN");
    assert!(!server.log().contains(BRIDGE), "{}", server.log());
}

#[tokio::test]
async fn the_first_account_is_still_to_be_made_when_only_services_have_some() {
    let closed = "[registration]\nenabled = false\n";
    let folder = tempfile::tempdir().unwrap();
    let text = registration("bridge", "null", BRIDGE, "irc");
    for file in ["bridge.yaml", "other.yaml"] {
        let text = match file {
            "bridge.yaml" => text.clone(),
            _ => registration("other", "null", OTHER, "other"),
        };
        std::fs::write(folder.path().join(file), text).unwrap();
    }
    let settings = settings(folder.path(), "").replace(OPEN, closed);
    let mut server = Server::start_with(CHAPAR, &settings).await;
    let bridge = service(&server, BRIDGE);
    bridge.get("/account/whoami").await.ok();
    // Services make accounts though people may not.
    register(&bridge, "_irc_anna").await.ok();
    server.terminate().await;
    server.restart().await;
    let said = server.stdout();
    assert_eq!(
        said.matches("Registration token for the first account")
            .count(),
        2,
        "{said}"
    );
    bridge.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn a_registration_that_is_wrong_is_told_before_the_start() {
    let (server, folder) = server().await;
    let check = |text: &str| {
        std::fs::write(folder.path().join("bridge.yaml"), text).unwrap();
        let file = server.folder().join("chapar.toml");
        let mut command = std::process::Command::new(CHAPAR);
        let output = command
            .args(["config", "check"])
            .arg(file)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let right = registration("bridge", "null", BRIDGE, "irc");
    assert!(check(&right).0);
    for (from, to, told) in [
        ("@_irc_.*", "@_irc_(", "is no regular expression"),
        ("id: bridge", "id: other", "have the same `id`"),
        (BRIDGE, OTHER, "have the same `as_token`"),
        ("sender_localpart", "other", "`sender_localpart` is missing"),
        ("namespaces:", "]", "is no registration"),
    ] {
        let (good, said) = check(&right.replace(from, to));
        assert!(!good && said.contains(told), "{to}: {said}");
        assert!(said.contains("bridge.yaml"), "{said}");
        assert!(!said.contains(BRIDGE) && !said.contains(OTHER), "{said}");
    }
    std::fs::remove_file(folder.path().join("bridge.yaml")).unwrap();
    let output = server.command(&["user", "list"]);
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("bridge.yaml cannot be read"), "{said}");
}
