//! Display names, avatars, and further fields.

use harness::User;
use serde_json::{Value, json};

use crate::{only, server};

const AVATAR: &str = "mxc://localhost/SomeMedia";

#[tokio::test]
async fn anyone_may_read_what_only_its_owner_may_write() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let path = format!("/profile/{}", alice.id);
    alice
        .put(
            &format!("{path}/displayname"),
            json!({"displayname": "آلیس"}),
        )
        .await
        .ok();
    alice
        .put(&format!("{path}/avatar_url"), json!({"avatar_url": AVATAR}))
        .await
        .ok();

    let whole = bob.get(&path).await.ok();
    assert_eq!(whole["displayname"], "آلیس");
    assert_eq!(whole["avatar_url"], AVATAR);
    assert_eq!(
        bob.get(&format!("{path}/displayname")).await.ok(),
        json!({"displayname": "آلیس"})
    );
    assert_eq!(
        bob.get(&format!("{path}/avatar_url")).await.ok(),
        json!({"avatar_url": AVATAR})
    );

    let theirs = bob
        .put(
            &format!("{path}/displayname"),
            json!({"displayname": "Eve"}),
        )
        .await;
    assert!([400, 403].contains(&theirs.status), "{theirs}");
    assert_eq!(bob.get(&path).await.ok()["displayname"], "آلیس");
}

#[tokio::test]
async fn nobody_has_no_profile() {
    let server = server().await;
    let alice = server.user("alice").await;
    let nobody = alice.id.replace(alice.name(), "nobody-of-this-name");
    alice
        .get(&format!("/profile/{nobody}"))
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .get(&format!("/profile/{nobody}/displayname"))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn wrong_names_change_nothing() {
    let server = server().await;
    let alice = server.user("alice").await;
    let path = format!("/profile/{}/displayname", alice.id);
    alice.put(&path, json!({"displayname": "Alice"})).await.ok();
    for body in [
        json!({"displayname": 7}),
        json!([]),
        json!({"displayname": {"a": 1}}),
    ] {
        let refused = alice.put(&path, body).await;
        assert_eq!(refused.status, 400, "{refused}");
    }
    assert_eq!(alice.get(&path).await.ok()["displayname"], "Alice");
}

fn member<'a>(events: &'a [Value], user: &User) -> &'a Value {
    &only(events, "m.room.member", &user.id)["content"]
}

#[tokio::test]
async fn a_new_name_reaches_every_room() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let rooms = [
        alice.room_with(&[&bob]).await,
        alice.room_with(&[&bob]).await,
    ];
    let mut since = bob.sync(None).await.next_batch();
    alice
        .put(
            &format!("/profile/{}/displayname", alice.id),
            json!({"displayname": "Ali"}),
        )
        .await
        .ok();

    let mut told = std::collections::BTreeSet::new();
    while told.len() < rooms.len() {
        let sync = bob.sync_with(Some(&since), "timeout=20000").await;
        for room in rooms.iter().filter(|r| !sync.timeline(r).is_empty()) {
            let content = member(sync.timeline(room), &alice);
            assert_eq!(content["displayname"], "Ali");
            assert_eq!(content["membership"], "join");
            told.insert(room);
        }
        since = sync.next_batch();
    }
}

#[tokio::test]
async fn who_joins_brings_the_profile_along() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice
        .put(
            &format!("/profile/{}/displayname", alice.id),
            json!({"displayname": "Ali"}),
        )
        .await
        .ok();
    alice
        .put(
            &format!("/profile/{}/avatar_url", alice.id),
            json!({"avatar_url": AVATAR}),
        )
        .await
        .ok();
    let room = alice.room_with(&[]).await;
    let own = alice.state(&room, "m.room.member", &alice.id).await.ok();
    assert_eq!(
        own,
        json!({"membership": "join", "displayname": "Ali", "avatar_url": AVATAR})
    );

    bob.put(
        &format!("/profile/{}/displayname", bob.id),
        json!({"displayname": "Bobby"}),
    )
    .await
    .ok();
    bob.join(&room).await;
    let joined = alice
        .get(&format!("/rooms/{room}/joined_members"))
        .await
        .ok();
    assert_eq!(
        joined["joined"][&alice.id],
        json!({"display_name": "Ali", "avatar_url": AVATAR})
    );
    assert_eq!(joined["joined"][&bob.id]["display_name"], "Bobby");
}

#[tokio::test]
async fn fields_of_any_name_within_limits() {
    let server = server().await;
    let alice = server.user("alice").await;
    let all = alice.get("/capabilities").await.ok();
    assert_eq!(
        all["capabilities"]["m.profile_fields"],
        json!({"enabled": true})
    );
    let path = |field: &str| format!("/profile/{}/{field}", alice.id);
    let pronouns = json!({"org.example.pronouns": [{"summary": "they"}]});
    alice
        .put(&path("org.example.pronouns"), pronouns.clone())
        .await
        .ok();
    assert_eq!(
        server.get(&path("org.example.pronouns")).await.ok(),
        pronouns
    );
    alice
        .put(&path("m.tz"), json!({"m.tz": "Asia/Tehran"}))
        .await
        .ok();
    let long = "x".repeat(256);
    alice
        .put(&path(&long), json!({&long: 1}))
        .await
        .refused(400, "M_KEY_TOO_LARGE");
    let half = "x".repeat(40_000);
    let field = |name: &str| json!({name: half});
    alice
        .put(&path("org.example.a"), field("org.example.a"))
        .await
        .ok();
    alice
        .put(&path("org.example.b"), field("org.example.b"))
        .await
        .refused(400, "M_PROFILE_TOO_LARGE");
    alice.delete(&path("org.example.a"), json!({})).await.ok();
    alice
        .put(&path("org.example.b"), field("org.example.b"))
        .await
        .ok();
}
