//! Filters that are kept for later.

use serde_json::json;

use crate::server;

#[tokio::test]
async fn keeps_a_filter_and_gives_it_back() {
    let server = server().await;
    let alice = server.user("alice").await;
    let filter = json!({"room": {"timeline": {"limit": 3, "types": ["m.room.message"]}}, "event_format": "client"});
    let path = format!("/user/{}/filter", alice.id);
    let made = alice.post(&path, filter.clone()).await.ok();
    let id = made["filter_id"].as_str().unwrap();
    assert!(!id.starts_with('{'));
    let kept = alice.get(&format!("{path}/{id}")).await.ok();
    assert_eq!(kept["room"]["timeline"]["limit"], 3);
    assert_eq!(kept["room"]["timeline"]["types"], json!(["m.room.message"]));
    let other = alice.post(&path, json!({})).await.ok();
    assert_ne!(other["filter_id"], id);
}

#[tokio::test]
async fn filters_of_others_and_of_nobody_are_not_found() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = format!("/user/{}/filter", alice.id);
    let id = alice.post(&path, json!({})).await.ok()["filter_id"]
        .as_str()
        .unwrap()
        .to_owned();
    bob.get(&format!("{path}/{id}"))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.post(&path, json!({})).await.refused(403, "M_FORBIDDEN");
    alice
        .get(&format!("{path}/987654321"))
        .await
        .refused(404, "M_NOT_FOUND");
    bob.get(&format!("/user/{}/filter/987654321", bob.id))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn what_is_no_filter_is_refused() {
    let server = server().await;
    let alice = server.user("alice").await;
    let path = format!("/user/{}/filter", alice.id);
    let wrong = [
        json!({"room": {"timeline": {"limit": "three"}}}),
        json!({"room": 3}),
        json!({"presence": {"senders": "@a:b"}}),
        json!([]),
    ];
    for filter in wrong {
        alice.post(&path, filter).await.refused(400, "M_BAD_JSON");
    }
}
