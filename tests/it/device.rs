//! The list of devices.

use serde_json::{Value, json};

use crate::{another_device, list, server};

fn proof(alice: &harness::User, session: &Value) -> Value {
    let identifier = json!({"type": "m.id.user", "user": alice.name()});
    let password = format!("{}-password", alice.name());
    json!({"type": "m.login.password", "identifier": identifier, "password": password, "session": session})
}

#[tokio::test]
async fn lists_and_renames_devices() {
    let server = server().await;
    let alice = server.user("alice").await;
    let path = format!("/devices/{}", alice.device);
    let renamed = alice
        .put(&path, json!({"display_name": "Kitchen ☕"}))
        .await
        .ok();
    assert_eq!(renamed, json!({}));
    let device = alice.get(&path).await.ok();
    assert_eq!(device["device_id"], alice.device);
    assert_eq!(device["display_name"], "Kitchen ☕");
    let all = alice.get("/devices").await.ok();
    assert_eq!(list(&all, "devices").len(), 1);
    assert_eq!(all["devices"][0]["display_name"], "Kitchen ☕");
    alice
        .put(&path, json!({"display_name": "x".repeat(5000)}))
        .await;
    alice
        .put("/devices/NOSUCH", json!({"display_name": "x"}))
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .get("/devices/NOSUCH")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn others_devices_are_not_to_be_seen() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    bob.get(&format!("/devices/{}", alice.device))
        .await
        .refused(404, "M_NOT_FOUND");
    bob.put(
        &format!("/devices/{}", alice.device),
        json!({"display_name": "mine"}),
    )
    .await
    .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn deleting_a_device_needs_the_password_and_ends_its_token() {
    let server = server().await;
    let alice = server.user("alice").await;
    let phone = another_device(&server, &alice, None).await;
    let path = format!("/devices/{}", phone.device);

    let challenge = alice.delete(&path, json!({})).await;
    assert_eq!(challenge.status, 401, "{challenge}");
    let stages: Vec<_> = list(&challenge.body, "flows")
        .iter()
        .map(|f| f["stages"].clone())
        .collect();
    assert!(stages.contains(&json!(["m.login.password"])), "{stages:?}");
    let session = challenge.body["session"].clone();

    let mut wrong = proof(&alice, &session);
    wrong["password"] = json!("not the password");
    let refused = alice.delete(&path, json!({"auth": wrong})).await;
    refused.refused(401, "M_FORBIDDEN");
    phone.get("/account/whoami").await.ok();

    alice
        .delete(&path, json!({"auth": proof(&alice, &session)}))
        .await
        .ok();
    phone
        .get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn another_persons_password_proves_nothing() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = format!("/devices/{}", alice.device);
    let session = alice.delete(&path, json!({})).await.body["session"].clone();
    alice
        .delete(&path, json!({"auth": proof(&bob, &session)}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn deletes_several_at_once() {
    let server = server().await;
    let alice = server.user("alice").await;
    let (one, two) = (
        another_device(&server, &alice, None).await,
        another_device(&server, &alice, None).await,
    );
    let devices = json!([one.device, two.device]);
    let challenge = alice
        .post("/delete_devices", json!({"devices": devices}))
        .await;
    assert_eq!(challenge.status, 401);
    let auth = proof(&alice, &challenge.body["session"]);
    alice
        .post("/delete_devices", json!({"devices": devices, "auth": auth}))
        .await
        .ok();
    for gone in [&one, &two] {
        gone.get("/account/whoami")
            .await
            .refused(401, "M_UNKNOWN_TOKEN");
    }
    assert_eq!(list(&alice.get("/devices").await.ok(), "devices").len(), 1);
}
