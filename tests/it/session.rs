//! Login and logout, and the tokens they give and take.

use harness::{OPEN, Server};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CHAPAR, list, server};

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

fn pusher(key: &str) -> Value {
    json!({
        "kind": "http", "app_id": "org.example.app", "pushkey": key, "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en",
        "data": {"url": "https://push.example.org/_matrix/push/v1/notify"},
    })
}

async fn push_keys(user: &harness::User) -> Vec<String> {
    let pushers = user.get("/pushers").await.ok();
    let keys = list(&pushers, "pushers").iter();
    keys.map(|pusher| pusher["pushkey"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_belongs_to_a_device_goes_with_it() {
    let server = server().await;
    let alice = server.user("alice").await;
    let body = password(alice.name(), &format!("{}-password", alice.name()));
    let again = async || server.user_of(&server.post("/login", body.clone()).await.ok());
    let settings = |user: &harness::User| {
        let own = format!("/user/{}/account_data", alice.id);
        format!("{own}/m.local_notification_settings.{}", user.device)
    };
    alice.post("/pushers/set", pusher("alice's")).await.ok();
    let (first, second, third) = (again().await, again().await, again().await);
    for (user, key) in [(&first, "one"), (&second, "two"), (&third, "three")] {
        user.post("/pushers/set", pusher(key)).await.ok();
        user.put(&settings(user), json!({"is_silenced": true}))
            .await
            .ok();
    }
    assert_eq!(push_keys(&alice).await.len(), 4);

    first.post("/logout", json!({})).await.ok();
    let auth = json!({
        "type": "m.login.password", "password": format!("{}-password", alice.name()),
        "identifier": {"type": "m.id.user", "user": alice.name()},
    });
    alice
        .delete(
            &format!("/devices/{}", second.device),
            json!({"auth": auth}),
        )
        .await
        .ok();
    let mut left = push_keys(&alice).await;
    left.sort();
    assert_eq!(left, ["alice's", "three"]);
    for gone in [&first, &second] {
        alice.get(&settings(gone)).await.refused(404, "M_NOT_FOUND");
    }
    alice.get(&settings(&third)).await.ok();

    // A new password ends other sessions, with what they had set.
    let new = json!({"new_password": "an entirely new one", "auth": auth});
    alice.post("/account/password", new).await.ok();
    assert_eq!(push_keys(&alice).await, ["alice's"]);
    third
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    alice
        .get(&settings(&third))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_refresh_token_is_good_until_what_it_gave_is_used() {
    let server = server().await;
    let alice = server.user("alice").await;
    let mut body = password(alice.name(), &format!("{}-password", alice.name()));
    body["refresh_token"] = json!(true);
    let login = server.post("/login", body).await.ok();
    assert!(login["expires_in_ms"].is_i64(), "{login}");
    let refresh = async |token: &Value| {
        server
            .post("/refresh", json!({"refresh_token": token}))
            .await
    };
    let first = refresh(&login["refresh_token"]).await.ok();
    // The answer may have been lost: the old ones go on.
    server.user_of(&login).get("/account/whoami").await.ok();
    let second = refresh(&login["refresh_token"]).await.ok();
    assert_ne!(first["access_token"], second["access_token"]);
    let mut user = login.clone();
    user["access_token"] = second["access_token"].clone();
    server.user_of(&user).get("/account/whoami").await.ok();
    refresh(&login["refresh_token"])
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    server
        .user_of(&login)
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn names_are_strict_when_made_and_folded_at_login() {
    let server = server().await;
    let alice = server.user("alice").await;
    let loud = alice.name().to_uppercase();
    let body = password(&loud, &format!("{}-password", alice.name()));
    let login = server.post("/login", body).await.ok();
    assert_eq!(login["user_id"], alice.id);
    for name in ["with space", "ünï", "a:b", ""] {
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": name, "password": "a long password", "auth": auth});
        server
            .post("/register", body)
            .await
            .refused(400, "M_INVALID_USERNAME");
    }
    // Others' names may be older than that rule.
    let room = alice.create_room(json!({})).await;
    for old in ["@Big Name:a.invalid", "@ünï:a.invalid", "@:a.invalid"] {
        // Their server is asked, and is not there.
        alice
            .to_room(&room, "invite", json!({"user_id": old}))
            .await
            .refused(502, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn who_guesses_has_to_wait_at_one_account_and_at_many() {
    let limits =
        "failed_logins_of_account = \"3, then 1/h\"\nfailed_logins_from_address = \"5, then 1/h\"";
    let settings = OPEN.replace(
        "[rate_limits]\nenabled = false",
        &format!("[rate_limits]\n{limits}"),
    );
    let server = Server::start_with(CHAPAR, &settings).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let guess = async |name: &str| server.post("/login", password(name, "wrong")).await;
    for _ in 0..3 {
        guess(alice.name()).await.refused(403, "M_FORBIDDEN");
    }
    let limited = guess(alice.name()).await;
    let after: u64 = limited.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3_000..=3_600).contains(&after), "{limited}");
    limited.refused(429, "M_LIMIT_EXCEEDED");
    let right = password(alice.name(), &format!("{}-password", alice.name()));
    server
        .post("/login", right)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
    // Another account is another matter, until there were too many from here.
    let right = password(bob.name(), &format!("{}-password", bob.name()));
    server.post("/login", right.clone()).await.ok();
    guess("nobody1").await.refused(403, "M_FORBIDDEN");
    guess("nobody2").await.refused(403, "M_FORBIDDEN");
    guess("nobody3").await.refused(429, "M_LIMIT_EXCEEDED");
    server
        .post("/login", right)
        .await
        .refused(429, "M_LIMIT_EXCEEDED");
}
