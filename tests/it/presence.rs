//! Who is online.

use harness::{Sync, User};
use serde_json::{Value, json};

use crate::server;

/// What a sync tells of somebody.
fn of<'a>(sync: &'a Sync, user: &User) -> &'a Value {
    let events = sync.body["presence"]["events"].as_array();
    let told = events.and_then(|events| events.iter().find(|event| event["sender"] == user.id));
    told.map_or(&Value::Null, |event| &event["content"])
}

fn status(user: &User) -> String {
    format!("/presence/{}/status", user.id)
}

#[tokio::test]
async fn what_one_says_is_told_to_those_in_the_same_room() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let eve = server.user("eve").await;
    alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();
    let stranger = eve.sync(None).await.next_batch();
    let body = json!({"presence": "online", "status_msg": "at work"});
    assert_eq!(alice.put(&status(&alice), body).await.ok(), json!({}));
    let sync = bob
        .sync_until(&since, |sync| !of(sync, &alice).is_null())
        .await;
    let told = of(&sync, &alice);
    assert_eq!(told["presence"], "online");
    assert_eq!(told["status_msg"], "at work");
    assert_eq!(told["currently_active"], true);
    assert!(told["last_active_ago"].is_u64(), "{told}");
    assert_eq!(bob.get(&status(&alice)).await.ok()["status_msg"], "at work");
    assert!(of(&eve.sync(Some(&stranger)).await, &alice).is_null());
    eve.get(&status(&alice)).await.refused(403, "M_FORBIDDEN");

    let since = sync.next_batch();
    let body = json!({"presence": "unavailable"});
    alice.put(&status(&alice), body).await.ok();
    let sync = bob
        .sync_until(&since, |sync| !of(sync, &alice).is_null())
        .await;
    assert_eq!(of(&sync, &alice)["presence"], "unavailable");
    assert!(of(&sync, &alice)["status_msg"].is_null());
}

#[tokio::test]
async fn a_sync_says_how_its_user_is() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.room_with(&[&bob]).await;
    let offline = bob.get(&status(&alice)).await.ok();
    assert_eq!(offline["presence"], "offline");
    let since = bob.sync(None).await.next_batch();
    alice.sync_with(None, "set_presence=offline").await;
    assert_eq!(bob.get(&status(&alice)).await.ok()["presence"], "offline");
    alice.sync_with(None, "set_presence=unavailable").await;
    let sync = bob
        .sync_until(&since, |sync| !of(sync, &alice).is_null())
        .await;
    assert_eq!(of(&sync, &alice)["presence"], "unavailable");
    alice.sync(None).await;
    let since = sync.next_batch();
    let sync = bob
        .sync_until(&since, |sync| !of(sync, &alice).is_null())
        .await;
    assert_eq!(of(&sync, &alice)["presence"], "online");
    let wrong = alice.get("/sync?set_presence=asleep").await;
    wrong.refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn who_meets_in_a_room_learns_how_the_other_is() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let (alices, bobs) = (
        alice.sync(None).await.next_batch(),
        bob.sync(None).await.next_batch(),
    );
    bob.join(&room).await;
    let sync = alice.sync(Some(&alices)).await;
    assert_eq!(of(&sync, &bob)["presence"], "online");
    assert!(of(&alice.sync(Some(&sync.next_batch())).await, &bob).is_null());
    let sync = bob.sync(Some(&bobs)).await;
    assert_eq!(of(&sync, &alice)["presence"], "online");
    assert_eq!(of(&bob.sync(None).await, &alice)["presence"], "online");
}

#[tokio::test]
async fn who_said_how_they_are_before_they_came_is_seen_by_who_looks_anew() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    bob.put(&status(&bob), json!({"presence": "online"}))
        .await
        .ok();
    bob.join(&room).await;
    assert_eq!(of(&alice.sync(None).await, &bob)["presence"], "online");
    bob.to_room(&room, "leave", json!({})).await.ok();
    assert!(of(&alice.sync(None).await, &bob).is_null());
}

#[tokio::test]
async fn only_what_there_is_can_be_said_and_only_of_oneself() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let online = json!({"presence": "online"});
    alice
        .put(&status(&bob), online)
        .await
        .refused(403, "M_FORBIDDEN");
    let asleep = json!({"presence": "asleep"});
    alice
        .put(&status(&alice), asleep)
        .await
        .refused(400, "M_INVALID_PARAM");
    alice
        .put(&status(&alice), json!({}))
        .await
        .refused(400, "M_MISSING_PARAM");
    let long = json!({"presence": "online", "status_msg": "x".repeat(5_000)});
    alice
        .put(&status(&alice), long)
        .await
        .refused(400, "M_INVALID_PARAM");
}
