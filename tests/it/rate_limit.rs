//! Rate limiting (<https://spec.matrix.org/v1.19/client-server-api/#rate-limiting>), and the limits of single
//! people (<https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#override-ratelimiting-for-users>).

use harness::{OPEN, Server, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::CHAPAR;

/// A server on which two messages at once are possible, and then one in an hour.
async fn strict() -> Server {
    let limits = "[rate_limits]\nmessage = \"2, then 1/h\"";
    let settings = OPEN.replace("[rate_limits]\nenabled = false", limits);
    assert!(settings.contains(limits));
    Server::start_with(CHAPAR, &settings).await
}

fn run(server: &Server, arguments: &[&str]) -> String {
    let done = server.command(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}", text(&done.stderr));
    text(&done.stdout)
}

/// How many of 20 messages are taken; a refusal says when to come back.
async fn taken(user: &User, room: &str) -> usize {
    for sent in 0..20 {
        let path = format!("/rooms/{room}/send/m.room.message/{sent}-{}", user.token);
        let answer = user
            .put(&path, json!({"msgtype": "m.text", "body": "hi"}))
            .await;
        if answer.status != 200 {
            let header = answer.headers["retry-after"].to_str().unwrap().to_owned();
            let body = answer.refused(429, "M_LIMIT_EXCEEDED");
            let milliseconds = body["retry_after_ms"].as_u64().unwrap();
            assert!((3_500_000..=3_600_000).contains(&milliseconds), "{body}");
            assert_eq!(header, milliseconds.div_ceil(1_000).to_string());
            return sent;
        }
    }
    20
}

#[tokio::test]
async fn who_sends_too_much_is_told_when_to_come_back() {
    let server = strict().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    assert_eq!(taken(&alice, &room).await, 2);
    assert_eq!(taken(&bob, &room).await, 2);
}

#[tokio::test]
async fn an_operator_sets_limits_of_one_person() {
    let server = strict().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    run(&server, &["user", "rate-limit", alice.name(), "none"]);
    assert_eq!(taken(&alice, &room).await, 20);
    assert_eq!(taken(&bob, &room).await, 2);
    run(&server, &["user", "rate-limit", &bob.id, "7, then 1/h"]);
    // Two of seven were used up.
    assert_eq!(taken(&bob, &room).await, 5);
    for (user, limits) in [(alice.name(), "often"), ("nobody", "none")] {
        let refused = server.command(&["user", "rate-limit", user, limits]);
        assert!(!refused.status.success() && !refused.stderr.is_empty());
    }
}

#[tokio::test]
async fn administrators_set_limits_as_in_synapse() {
    let server = strict().await;
    let (alice, root) = (server.user("alice").await, server.user("root").await);
    let path = |id: &str| format!("/_synapse/admin/v1/users/{id}/override_ratelimit");
    let alices = path(&alice.id);
    for method in [Method::GET, Method::POST, Method::DELETE] {
        let body = (method != Method::GET).then(|| json!({}));
        let refused = alice.ask(method.clone(), &alices, body.as_ref()).await;
        refused.refused(403, "M_FORBIDDEN");
    }
    run(&server, &["user", "make-admin", root.name()]);
    let get = async || root.ask(Method::GET, &alices, None).await.ok();
    let set = async |body: Value| root.ask(Method::POST, &alices, Some(&body)).await;
    assert_eq!(get().await, json!({}));
    let limits = json!({"messages_per_second": 5, "burst_count": 9});
    assert_eq!(set(limits.clone()).await.ok(), limits);
    assert_eq!(get().await, limits);
    let none = json!({"messages_per_second": 0, "burst_count": 0});
    assert_eq!(set(json!({})).await.ok(), none);
    let room = alice.create_room(json!({})).await;
    assert_eq!(taken(&alice, &room).await, 20);
    for wrong in [
        json!({"messages_per_second": -1}),
        json!({"messages_per_second": "1"}),
        json!({"messages_per_second": 1.5}),
        json!({"burst_count": true}),
    ] {
        set(wrong).await.refused(400, "M_BAD_JSON");
    }
    set(json!({"messages_per_second": 5}))
        .await
        .refused(400, "M_INVALID_PARAM");
    assert_eq!(get().await, none);
    assert_eq!(
        root.ask(Method::DELETE, &alices, None).await.ok(),
        json!({})
    );
    assert_eq!(get().await, json!({}));
    let other = root
        .ask(Method::GET, &path("@a:elsewhere.example"), None)
        .await;
    other.refused(400, "M_INVALID_PARAM");
    let nobody = alice.id.replace(alice.name(), "nobody");
    root.ask(Method::GET, &path(&nobody), None)
        .await
        .refused(404, "M_NOT_FOUND");
}
