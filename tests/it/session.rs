//! Login and logout, and the tokens they give and take.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{list, server};

fn password(user: &str, password: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": password})
}

#[tokio::test]
async fn offers_login_by_password() {
    let server = server().await;
    let flows = server.get("/login").await.ok();
    assert!(
        list(&flows, "flows")
            .iter()
            .any(|f| f["type"] == "m.login.password"),
        "{flows}"
    );
}

#[tokio::test]
async fn logs_in_by_name_and_by_id() {
    let server = server().await;
    let alice = server.user("alice").await;
    let secret = format!("{}-password", alice.name());
    for user in [alice.name(), alice.id.as_str()] {
        let mut body = password(user, &secret);
        body["initial_device_display_name"] = json!("Tablet");
        let made = server.post("/login", body).await.ok();
        assert_eq!(made["user_id"], alice.id);
        let tablet = server.user_of(&made);
        assert_ne!(tablet.device, alice.device);
        let device = tablet
            .get(&format!("/devices/{}", tablet.device))
            .await
            .ok();
        assert_eq!(device["display_name"], "Tablet");
    }
    let devices = alice.get("/devices").await.ok();
    assert_eq!(list(&devices, "devices").len(), 3);
}

#[tokio::test]
async fn the_older_form_with_user_beside_the_password_works_too() {
    let server = server().await;
    let alice = server.user("alice").await;
    let secret = format!("{}-password", alice.name());
    let body = json!({"type": "m.login.password", "user": alice.name(), "password": secret});
    assert_eq!(server.post("/login", body).await.ok()["user_id"], alice.id);
}

#[tokio::test]
async fn a_device_that_logs_in_again_loses_its_old_token() {
    let server = server().await;
    let alice = server.user("alice").await;
    let mut body = password(alice.name(), &format!("{}-password", alice.name()));
    body["device_id"] = json!(alice.device);
    let again = server.user_of(&server.post("/login", body).await.ok());
    assert_eq!(again.device, alice.device);
    assert_ne!(again.token, alice.token);
    again.get("/account/whoami").await.ok();
    alice
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(list(&again.get("/devices").await.ok(), "devices").len(), 1);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let server = server().await;
    let alice = server.user("alice").await;
    let wrong = server
        .post("/login", password(alice.name(), "wrong"))
        .await
        .refused(403, "M_FORBIDDEN");
    let unknown = server
        .post("/login", password("nobody-here", "wrong"))
        .await
        .refused(403, "M_FORBIDDEN");
    assert_eq!(wrong, unknown);
    let elsewhere = password("@alice:elsewhere.example", "wrong");
    server
        .post("/login", elsewhere)
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn an_unknown_kind_of_login_is_refused() {
    let server = server().await;
    let body = json!({"type": "m.login.unheard_of", "token": "x"});
    server.post("/login", body).await.refused(400, "M_UNKNOWN");
}

#[tokio::test]
async fn logout_ends_this_device_only_and_logout_all_ends_the_rest() {
    let server = server().await;
    let alice = server.user("alice").await;
    let body = password(alice.name(), &format!("{}-password", alice.name()));
    let second = server.user_of(&server.post("/login", body.clone()).await.ok());
    let third = server.user_of(&server.post("/login", body).await.ok());

    assert_eq!(second.post("/logout", json!({})).await.ok(), json!({}));
    let refused = second
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    assert_ne!(refused["soft_logout"], true);
    let devices = alice.get("/devices").await.ok();
    assert!(!devices.to_string().contains(&second.device), "{devices}");

    assert_eq!(third.post("/logout/all", json!({})).await.ok(), json!({}));
    for user in [&alice, &third] {
        user.get("/account/whoami")
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
}

#[tokio::test]
async fn tokens_are_asked_for_and_looked_at() {
    let server = server().await;
    let alice = server.user("alice").await;
    server
        .get("/account/whoami")
        .await
        .refused(401, "M_MISSING_TOKEN");
    for token in [
        "nonsense",
        "ñ",
        "",
        &format!("{}x", alice.token),
        &alice.token[1..],
    ] {
        let query = format!("/account/whoami?access_token={}", harness::encode(token));
        let refused = server.get(&query).await;
        assert_eq!(refused.status, 401, "{refused}");
    }
    let path = format!(
        "/_matrix/client/v3/account/whoami?access_token={}",
        harness::encode(&alice.token)
    );
    assert_eq!(
        server.ask(Method::GET, &path, None).await.ok()["user_id"],
        alice.id
    );
}
