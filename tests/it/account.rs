//! Registration and whoami.

use harness::{Server, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CHAPAR, list, server};

fn new_name() -> String {
    use std::time::{SystemTime, UNIX_EPOCH};
    format!(
        "new-{}",
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos()
    )
}

#[tokio::test]
async fn registers_in_two_steps() {
    let server = server().await;
    let name = new_name();
    let mut body = json!({
        "username": name, "password": "a long enough password", "device_id": "PHONE",
        "initial_device_display_name": "My phone",
    });
    let challenge = server.post("/register", body.clone()).await;
    assert_eq!(challenge.status, 401);
    assert!(
        challenge.body["errcode"].is_null(),
        "a challenge without an attempt is no error"
    );
    let stages: Vec<_> = list(&challenge.body, "flows")
        .iter()
        .map(|f| f["stages"].clone())
        .collect();
    assert!(stages.contains(&json!(["m.login.dummy"])), "{stages:?}");
    body["auth"] = json!({"type": "m.login.dummy", "session": challenge.body["session"]});
    let made = server.post("/register", body).await.ok();
    assert_eq!(made["device_id"], "PHONE");
    let user = server.user_of(&made);
    assert_eq!(user.name(), name);

    let me = user.get("/account/whoami").await.ok();
    assert_eq!(me["user_id"], user.id);
    assert_eq!(me["device_id"], "PHONE");
    assert_ne!(me["is_guest"], true);
    let device = user.get("/devices/PHONE").await.ok();
    assert_eq!(device["display_name"], "My phone");
}

#[tokio::test]
async fn registers_without_logging_in_when_asked_to() {
    let server = server().await;
    let name = new_name();
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({"username": name, "password": "pass word 1234", "inhibit_login": true, "auth": auth});
    let made = server.post("/register", body).await.ok();
    assert!(
        made["user_id"]
            .as_str()
            .unwrap()
            .starts_with(&format!("@{name}:"))
    );
    assert_eq!(made.get("access_token"), None);
    assert!(made["device_id"].is_null(), "{made}");
    let identifier = json!({"type": "m.id.user", "user": name});
    let login =
        json!({"type": "m.login.password", "identifier": identifier, "password": "pass word 1234"});
    server.post("/login", login).await.ok();
}

#[tokio::test]
async fn invents_a_name_where_none_is_given() {
    let server = server().await;
    let body = json!({"password": "pass word 1234", "auth": {"type": "m.login.dummy"}});
    let (one, two) = (
        server.post("/register", body.clone()).await.ok(),
        server.post("/register", body).await.ok(),
    );
    assert_ne!(one["user_id"], two["user_id"]);
    assert_ne!(one["device_id"], two["device_id"]);
}

#[tokio::test]
async fn a_taken_name_is_refused_before_and_after_the_challenge() {
    let server = server().await;
    let alice = server.user("alice").await;
    let name = alice.name();
    server
        .post("/register", json!({"username": name, "password": "x"}))
        .await
        .refused(400, "M_USER_IN_USE");
    let auth = json!({"type": "m.login.dummy"});
    let again = json!({"username": name, "password": "x", "auth": auth});
    server
        .post("/register", again)
        .await
        .refused(400, "M_USER_IN_USE");
    server
        .get(&format!("/register/available?username={name}"))
        .await
        .refused(400, "M_USER_IN_USE");
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn names_that_cannot_be_are_refused() {
    let server = server().await;
    let long = "x".repeat(256);
    for name in ["with space", "semi;colon", "a:b", "käse", long.as_str()] {
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": name, "password": "pass word 1234", "auth": auth});
        server
            .post("/register", body)
            .await
            .refused(400, "M_INVALID_USERNAME");
        let query = format!("/register/available?username={}", harness::encode(name));
        server.get(&query).await.refused(400, "M_INVALID_USERNAME");
    }
    let free = server
        .get(&format!("/register/available?username={}", new_name()))
        .await
        .ok();
    assert_eq!(free, json!({"available": true}));
}

#[tokio::test]
async fn a_wrong_stage_makes_no_account() {
    let server = server().await;
    let name = new_name();
    let auth = json!({"type": "m.login.unheard_of"});
    let body = json!({"username": name, "password": "pass word 1234", "auth": auth});
    let refused = server.post("/register", body).await;
    assert!([400, 401].contains(&refused.status), "{refused}");
    assert!(refused.body["error"].is_string(), "{refused}");
    let free = server
        .get(&format!("/register/available?username={name}"))
        .await
        .ok();
    assert_eq!(free, json!({"available": true}));
}

#[tokio::test]
async fn guests_are_refused() {
    let server = server().await;
    let guest = server.post("/register?kind=guest", json!({})).await;
    assert_eq!(guest.status, 403, "{guest}");
    assert!(guest.body["error"].is_string());
}

/// The token that a start, counted from 0, printed: the one word on its line that is long enough.
async fn first_account_token(server: &Server, start: usize) -> String {
    loop {
        // It is printed a moment after the server begins to answer.
        let stdout = server.stdout();
        let mut lines = stdout
            .lines()
            .filter(|line| line.to_lowercase().contains("token"));
        let Some(line) = lines.nth(start) else {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        // It may begin or end with `-` or `_`.
        return line.split_whitespace().next_back().unwrap().to_owned();
    }
}

fn registration(name: &str, auth: impl Into<Value>) -> Value {
    let auth = auth.into();
    json!({"username": name, "password": "pass word 1234", "auth": auth})
}

#[tokio::test]
async fn closed_by_default_but_for_the_printed_token_which_works_once() {
    let mut server = Server::start_with(CHAPAR, "").await;
    let token = first_account_token(&server, 0).await;
    let stdout = server.stdout();
    assert!(
        stdout.contains(server.base()),
        "the address to put into a client: {stdout}"
    );

    let dummy = registration("mallory", json!({"type": "m.login.dummy"}));
    assert_ne!(server.post("/register", dummy).await.status, 200);
    let wrong = registration(
        "mallory",
        json!({"type": "m.login.registration_token", "token": "wrong"}),
    );
    assert_eq!(server.post("/register", wrong).await.status, 401);

    // Only its hash is kept, so that a later start has to make a new one, and ends the old one.
    server.kill9();
    server.restart().await;
    let validity = |token: &str| {
        format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}")
    };
    assert_eq!(
        server.ask(Method::GET, &validity(&token), None).await.ok(),
        json!({"valid": false})
    );
    let token = first_account_token(&server, 1).await;
    let valid = validity(&token);
    assert_eq!(
        server.ask(Method::GET, &valid, None).await.ok(),
        json!({"valid": true})
    );
    let challenge = server
        .post(
            "/register",
            json!({"username": "alice", "password": "pass word 1234"}),
        )
        .await;
    assert_eq!(challenge.status, 401);
    assert_eq!(
        challenge.body["flows"],
        json!([{"stages": ["m.login.registration_token"]}])
    );
    let session = &challenge.body["session"];
    let auth = json!({"type": "m.login.registration_token", "token": token, "session": session});
    let made = server
        .post("/register", registration("alice", auth))
        .await
        .ok();
    server.user_of(&made).get("/account/whoami").await.ok();

    assert_eq!(
        server.ask(Method::GET, &valid, None).await.ok(),
        json!({"valid": false})
    );
    let second = registration(
        "bob",
        json!({"type": "m.login.registration_token", "token": token}),
    );
    let refused = server.post("/register", second).await;
    assert!([401, 403].contains(&refused.status), "{refused}");
    let closed = server
        .post("/register", json!({"username": "bob", "password": "p"}))
        .await;
    let body = closed.refused(403, "M_FORBIDDEN");
    let says_how = body["error"].as_str().unwrap();
    assert!(
        says_how.contains("token") || says_how.contains("open"),
        "it should say how to open: {says_how}"
    );
    server.kill9();
    server.restart().await;
    assert_eq!(
        server.ask(Method::GET, &valid, None).await.ok(),
        json!({"valid": false})
    );
}

#[tokio::test]
async fn what_was_erased_is_seen_by_those_only_who_were_there() {
    let server = server().await;
    let (alice, erin) = (server.user("alice").await, server.user("erin").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&erin]).await;
    alice
        .to_room(&room, "invite", json!({"user_id": carol.id}))
        .await
        .ok();
    let said = erin.say(&room, "a secret").await;
    let answered = alice.say(&room, "I see").await;
    let profile = format!("/profile/{}", erin.id);
    let name = format!("{profile}/displayname");
    erin.put(&name, json!({"displayname": "Erin"})).await.ok();
    let body = json!({"erase": true, "auth": {
        "type": "m.login.password", "password": format!("{}-password", erin.name()),
        "identifier": {"type": "m.id.user", "user": erin.name()},
    }});
    erin.post("/account/deactivate", body).await.ok();
    carol.join(&room).await;

    let body_of = async |user: &User, event: &str| {
        let event = user.event(&room, event).await.ok();
        event["content"]["body"].as_str().map(str::to_owned)
    };
    assert_eq!(body_of(&alice, &said).await.as_deref(), Some("a secret"));
    assert_eq!(body_of(&carol, &said).await, None);
    assert_eq!(body_of(&carol, &answered).await.as_deref(), Some("I see"));
    let synced = carol.sync(None).await;
    let told = [synced.timeline(&room).to_vec(), carol.timeline(&room).await];
    for timeline in told {
        let event = timeline.iter().find(|event| event["event_id"] == *said);
        let event = event.expect("the message has its place");
        assert_eq!(
            (&event["content"], &event["sender"]),
            (&json!({}), &json!(erin.id))
        );
    }
    assert_eq!(alice.get(&profile).await.ok(), json!({}));
}
