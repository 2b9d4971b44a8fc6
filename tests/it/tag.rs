//! Tags of rooms.

use serde_json::json;

use crate::server;

#[tokio::test]
async fn rooms_are_tagged_for_oneself_and_other_devices_learn_it() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = alice.sync(None).await.next_batch();
    let tags = |user: &harness::User| format!("/user/{}/rooms/{room}/tags", user.id);
    let tag = |name: &str| format!("{}/{name}", tags(&alice));
    assert_eq!(alice.get(&tags(&alice)).await.ok(), json!({"tags": {}}));
    let answer = alice.put(&tag("m.favourite"), json!({"order": 0.5})).await;
    assert_eq!(answer.ok(), json!({}));
    alice.put(&tag("u.work"), json!({})).await.ok();
    let expected = json!({"tags": {"m.favourite": {"order": 0.5}, "u.work": {}}});
    assert_eq!(alice.get(&tags(&alice)).await.ok(), expected);
    assert_eq!(bob.get(&tags(&bob)).await.ok(), json!({"tags": {}}));

    let sync = alice.sync(Some(&since)).await;
    let data = &sync.joined(&room)["account_data"]["events"];
    assert_eq!(*data, json!([{"type": "m.tag", "content": expected}]));

    alice.delete(&tag("m.favourite"), json!({})).await.ok();
    alice.delete(&tag("m.never"), json!({})).await.ok();
    assert_eq!(
        alice.get(&tags(&alice)).await.ok(),
        json!({"tags": {"u.work": {}}})
    );
}

#[tokio::test]
async fn what_is_not_ones_own_cannot_be_tagged() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let path = |user: &harness::User, room: &str| format!("/user/{}/rooms/{room}/tags", user.id);
    bob.get(&path(&alice, &room))
        .await
        .refused(403, "M_FORBIDDEN");
    let tag = |user: &harness::User| format!("{}/u.x", path(user, &room));
    bob.put(&tag(&alice), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let long = format!("{}/{}", path(&alice, &room), "x".repeat(256));
    alice
        .put(&long, json!({}))
        .await
        .refused(400, "M_INVALID_PARAM");

    // A room that one has never been in looks like one that there is not.
    let hidden = bob
        .put(&tag(&bob), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    let unknown = format!("{}/u.x", path(&bob, "!unknown:localhost"));
    let unknown = bob
        .put(&unknown, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    assert_eq!(hidden, unknown);
    let data = |room: &str| format!("/user/{}/rooms/{room}/account_data/org.example", bob.id);
    for room in [room.as_str(), "!unknown:localhost"] {
        bob.put(&data(room), json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
}
