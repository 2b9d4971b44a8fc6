//! Versions, capabilities, and what is said to those who ask for what is not there.

use reqwest::Method;
use serde_json::json;

use crate::{list, server};

#[tokio::test]
async fn tells_its_versions_to_anyone() {
    let server = server().await;
    let versions = server
        .ask(Method::GET, "/_matrix/client/versions", None)
        .await
        .ok();
    let names = list(&versions, "versions");
    assert_eq!(names[0], "r0.6.1");
    let numbered: Vec<_> = (1..=19).map(|minor| json!(format!("v1.{minor}"))).collect();
    assert_eq!(names[1..], numbered);
    assert_eq!(versions["unstable_features"]["org.matrix.msc3391"], true);
}

/// What each of the later versions brought for clients.
#[tokio::test]
async fn has_what_its_versions_name() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let reason = json!({"reason": "spam"});
    let said = alice.say(&room, "never mind").await;
    let redaction = json!({ "redacts": said });
    let v3 = "/_matrix/client/v3";
    for (version, method, path, body) in [
        (
            "v1.13",
            Method::POST,
            format!("{v3}/rooms/{room}/report"),
            Some(&reason),
        ),
        (
            "v1.14",
            Method::POST,
            format!("{v3}/users/{}/report", bob.id),
            Some(&reason),
        ),
        (
            "v1.15",
            Method::GET,
            format!("/_matrix/client/v1/room_summary/{room}"),
            None,
        ),
        (
            "v1.16",
            Method::PUT,
            format!("{v3}/profile/{}/m.tz", alice.id),
            Some(&json!({"m.tz": "Asia/Tehran"})),
        ),
        (
            "v1.16",
            Method::GET,
            format!("{v3}/sync?use_state_after=true"),
            None,
        ),
        (
            "v1.16",
            Method::GET,
            format!("{v3}/rooms/{room}/state/m.room.create/?format=event"),
            None,
        ),
        (
            "v1.18",
            Method::PUT,
            format!("{v3}/rooms/{room}/send/m.room.redaction/r1"),
            Some(&redaction),
        ),
        (
            "v1.18",
            Method::PUT,
            format!(
                "{v3}/user/{}/account_data/m.invite_permission_config",
                alice.id
            ),
            Some(&json!({"default_action": "block"})),
        ),
        (
            "v1.19",
            Method::GET,
            format!("/_matrix/client/v1/mutual_rooms?user_id={}", bob.id),
            None,
        ),
    ] {
        let answer = alice.ask(method, &path, body).await;
        assert_eq!(answer.status, 200, "{version}: {path}: {:?}", answer.body);
    }
}

#[tokio::test]
async fn tells_which_room_versions_there_are() {
    let server = server().await;
    let alice = server.user("alice").await;
    let all = alice.get("/capabilities").await.ok();
    let rooms = &all["capabilities"]["m.room_versions"];
    assert_eq!(rooms["default"], "12");
    for version in 1..=12 {
        assert_eq!(rooms["available"][version.to_string()], "stable");
    }
    let password = &all["capabilities"]["m.change_password"];
    assert_eq!(*password, json!({"enabled": true}));
}

#[tokio::test]
async fn what_is_not_there_is_unrecognized() {
    let server = server().await;
    for path in [
        "/_matrix/client/v3/nothing",
        "/_matrix/nothing",
        "/_matrix/client/v99/sync",
        "/_matrix/client/v3",
    ] {
        server
            .ask(Method::GET, path, None)
            .await
            .refused(404, "M_UNRECOGNIZED");
    }
    let put = server
        .ask(Method::PUT, "/_matrix/client/v3/sync", Some(&json!({})))
        .await;
    put.refused(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let server = server().await;
    let allowed =
        |answer: &harness::Answer| answer.headers.get("access-control-allow-origin").cloned();
    let asked = server
        .ask(Method::OPTIONS, "/_matrix/client/v3/sync", None)
        .await;
    assert!([200, 204].contains(&asked.status), "{asked}");
    assert_eq!(allowed(&asked).unwrap(), "*");
    let methods = asked.headers["access-control-allow-methods"]
        .to_str()
        .unwrap();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    let headers = asked.headers["access-control-allow-headers"]
        .to_str()
        .unwrap()
        .to_lowercase();
    for header in ["x-requested-with", "content-type", "authorization"] {
        assert!(headers.contains(header), "{headers}");
    }
    let refused = server.get("/account/whoami").await;
    assert_eq!(refused.status, 401);
    assert_eq!(allowed(&refused).unwrap(), "*");
    assert_eq!(allowed(&server.get("/login").await).unwrap(), "*");
}

#[tokio::test]
async fn tells_what_it_can_do() {
    let server = server().await;
    let alice = server.user("alice").await;
    let all = alice.get("/capabilities").await.ok();
    for (name, enabled) in [
        ("m.change_password", true),
        ("m.set_displayname", true),
        ("m.set_avatar_url", true),
        ("m.get_login_token", true),
        ("m.profile_fields", true),
        ("m.3pid_changes", false),
    ] {
        assert_eq!(all["capabilities"][name]["enabled"], enabled, "{name}");
    }
}

#[tokio::test]
async fn operators_say_where_it_is_and_whom_to_ask() {
    let server = server().await;
    let path = |what: &str| format!("/.well-known/matrix/{what}");
    for what in ["client", "server", "support"] {
        server
            .ask(Method::GET, &path(what), None)
            .await
            .refused(404, "M_NOT_FOUND");
    }
    let settings = "
        [server]
        public_url = \"https://matrix.example.org\"
        federation_address = \"matrix.example.org:443\"
        [support]
        email = \"admin@example.org\"
        matrix_id = \"@admin:example.org\"
        page = \"https://example.org/help\"";
    let server = harness::Server::start_with(crate::CHAPAR, settings).await;
    let told = async |what: &str| server.ask(Method::GET, &path(what), None).await;
    let client = told("client").await;
    assert_eq!(client.headers["access-control-allow-origin"], "*");
    let base = json!({"base_url": "https://matrix.example.org"});
    assert_eq!(client.ok(), json!({"m.homeserver": base}));
    assert_eq!(
        told("server").await.ok(),
        json!({"m.server": "matrix.example.org:443"})
    );
    let contact = json!({
        "role": "m.role.admin", "email_address": "admin@example.org",
        "matrix_id": "@admin:example.org",
    });
    assert_eq!(
        told("support").await.ok(),
        json!({"contacts": [contact], "support_page": "https://example.org/help"})
    );
}

#[tokio::test]
async fn old_paths_lead_to_the_same() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    for path in [
        "account/whoami",
        "sync",
        "publicRooms",
        "joined_rooms",
        "capabilities",
        "devices",
        "pushrules/",
        "login",
        &format!("rooms/{room}/state"),
        &format!("rooms/{room}/messages?dir=b"),
        &format!("profile/{}", alice.id),
    ] {
        let path = format!("/_matrix/client/r0/{path}");
        let answer = alice.ask(Method::GET, &path, None).await;
        assert_eq!(answer.status, 200, "{answer}");
    }
}
