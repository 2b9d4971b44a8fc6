//! Upgrading rooms (client-server API, *Room upgrades*).

use harness::{User, encode};
use serde_json::{Value, json};

use crate::{list, server};

async fn upgrade(user: &User, room: &str, body: Value) -> String {
    let answer = user.to_room(room, "upgrade", body).await.ok();
    answer["replacement_room"].as_str().unwrap().to_owned()
}

async fn content(user: &User, room: &str, event_type: &str) -> Value {
    user.state(room, event_type, "").await.ok()
}

fn alias_of(user: &User, name: &str) -> String {
    format!("#{name}:{}", user.id.split_once(':').unwrap().1)
}

#[tokio::test]
async fn another_room_takes_its_place() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let name = format!("old-{}", alice.name());
    let room = alice
        .create_room(json!({
            "room_version": "10", "preset": "public_chat", "visibility": "public",
            "name": "The relay", "topic": "Horses", "room_alias_name": name,
            "creation_content": {"m.federate": false, "org.example.other": 1},
            "initial_state": [
                {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
                {"type": "m.room.avatar", "content": {"url": "mxc://x/y"}},
                {"type": "m.room.server_acl", "content": {"allow": ["*"], "deny": ["bad.example.org"]}},
                {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
                {"type": "org.example.own", "content": {"sensitive": true}},
            ],
        }))
        .await;
    alice
        .to_room(
            &room,
            "ban",
            json!({"user_id": carol.id, "reason": "noise"}),
        )
        .await
        .ok();
    bob.join(&room).await;
    let said = bob.say(&room, "before").await;

    let new = upgrade(&alice, &room, json!({"new_version": "11"})).await;
    let tombstone = content(&alice, &room, "m.room.tombstone").await;
    assert_eq!(tombstone["replacement_room"], new);
    assert!(tombstone["body"].is_string());
    let create = content(&alice, &new, "m.room.create").await;
    assert_eq!(create["room_version"], "11");
    assert_eq!(create["predecessor"]["room_id"], room);
    assert_eq!(create["predecessor"]["event_id"], said);
    assert_eq!(create["m.federate"], false);
    assert_eq!(create.get("org.example.other"), None);
    for event_type in [
        "m.room.encryption",
        "m.room.avatar",
        "m.room.server_acl",
        "m.room.guest_access",
        "m.room.history_visibility",
        "m.room.join_rules",
        "m.room.name",
        "m.room.topic",
    ] {
        let (old, new) = (
            content(&alice, &room, event_type).await,
            content(&alice, &new, event_type).await,
        );
        assert_eq!(old, new, "{event_type}");
    }
    alice
        .state(&new, "org.example.own", "")
        .await
        .refused(404, "M_NOT_FOUND");
    let banned = alice.state(&new, "m.room.member", &carol.id).await.ok();
    assert_eq!(
        (&banned["membership"], &banned["reason"]),
        (&json!("ban"), &json!("noise"))
    );
    carol
        .post(&format!("/join/{new}"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");

    // The alias and the place in the directory went along.
    let alias = alias_of(&alice, &name);
    let found = bob
        .get(&format!("/directory/room/{}", encode(&alias)))
        .await
        .ok();
    assert_eq!(found["room_id"], new);
    assert_eq!(
        content(&alice, &new, "m.room.canonical_alias").await["alias"],
        alias
    );
    assert_eq!(
        content(&alice, &room, "m.room.canonical_alias").await,
        json!({})
    );
    let aliases = |room: &str| format!("/rooms/{room}/aliases");
    assert_eq!(
        list(&alice.get(&aliases(&room)).await.ok(), "aliases").len(),
        0
    );
    assert_eq!(
        list(&alice.get(&aliases(&new)).await.ok(), "aliases"),
        [json!(alias)]
    );
    for (room, visibility) in [(&room, "private"), (&new, "public")] {
        let shown = alice
            .get(&format!("/directory/list/room/{room}"))
            .await
            .ok();
        assert_eq!(shown["visibility"], visibility);
    }

    // Nobody talks in the old room any more; in the new one the levels are what they were.
    let levels = content(&alice, &room, "m.room.power_levels").await;
    assert_eq!(
        (&levels["events_default"], &levels["invite"]),
        (&json!(50), &json!(50))
    );
    bob.put(
        &format!("/rooms/{room}/send/m.room.message/1"),
        json!({"msgtype": "m.text", "body": "after"}),
    )
    .await
    .refused(403, "M_FORBIDDEN");
    let levels = content(&alice, &new, "m.room.power_levels").await;
    assert_eq!(
        (&levels["events_default"], &levels["users"]),
        (&json!(0), &json!({&alice.id: 100}))
    );
    bob.join(&new).await;
    bob.say(&new, "after").await;
}

#[tokio::test]
async fn who_upgrades_needs_the_power_and_keeps_no_more_than_they_had() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let levels = json!({"users": {&bob.id: 60}, "events": {"m.room.tombstone": 60}});
    let users = json!({&alice.id: 100, &bob.id: 60});
    let room = alice
        .create_room(json!({
            "room_version": "9", "preset": "public_chat",
            "power_level_content_override": {"users": users, "events": levels["events"]},
        }))
        .await;
    let body = json!({"new_version": "11"});
    bob.to_room(&room, "upgrade", body.clone())
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;
    alice
        .to_room(&room, "upgrade", json!({"new_version": "99"}))
        .await
        .refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    let new = upgrade(&bob, &room, body.clone()).await;
    let levels = content(&bob, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], users);
    assert_eq!(
        content(&bob, &new, "m.room.create").await["room_version"],
        "11"
    );
    assert_eq!(
        bob.state(&new, "m.room.join_rules", "").await.ok()["join_rule"],
        "public"
    );

    let carol = server.user("carol").await;
    carol.join(&room).await;
    carol
        .to_room(&room, "upgrade", body)
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .state(&new, "m.room.create", "")
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn creators_of_version_12_are_in_no_levels() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice
        .create_room(json!({
            "room_version": "11", "preset": "public_chat",
            "power_level_content_override":
                {"users": {&alice.id: 100, &bob.id: 100, &carol.id: 50}},
        }))
        .await;
    let body = json!({"new_version": "12", "additional_creators": [bob.id]});
    let new = upgrade(&alice, &room, body).await;
    let create = content(&alice, &new, "m.room.create").await;
    assert_eq!(create["additional_creators"], json!([bob.id]));
    let timeline = alice.timeline(&new).await;
    assert_eq!(timeline[0]["event_id"].as_str().unwrap()[1..], new[1..]);
    let levels = content(&alice, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({&carol.id: 50}));

    // From there to the same version, without the other creator.
    let newer = upgrade(&alice, &new, json!({"new_version": "12"})).await;
    let create = content(&alice, &newer, "m.room.create").await;
    assert_eq!(create.get("additional_creators"), None);
    assert_eq!(create["predecessor"], json!({"room_id": new}));
    // And back to one in which creators are as others.
    let body = json!({"new_version": "11", "additional_creators": [bob.id]});
    let older = upgrade(&alice, &newer, body).await;
    let create = content(&alice, &older, "m.room.create").await;
    assert_eq!(
        create.get("additional_creators"),
        None,
        "it means nothing there"
    );
    let levels = content(&alice, &older, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({&alice.id: 100, &carol.id: 50}));
    alice
        .to_room(
            &older,
            "upgrade",
            json!({"new_version": "12", "additional_creators": ["bob"]}),
        )
        .await
        .refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn a_space_keeps_its_children() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice
        .create_room(json!({
            "creation_content": {"type": "m.space"},
            "initial_state": [
                {"type": "m.space.child", "state_key": "!a:x", "content": {"via": ["x"], "order": "1"}},
                {"type": "m.space.child", "state_key": "!b:x", "content": {}},
            ],
        }))
        .await;
    let new = upgrade(&alice, &room, json!({"new_version": "12"})).await;
    assert_eq!(
        content(&alice, &new, "m.room.create").await["type"],
        "m.space"
    );
    let child = alice.state(&new, "m.space.child", "!a:x").await.ok();
    assert_eq!(child, json!({"via": ["x"], "order": "1"}));
    alice
        .state(&new, "m.space.child", "!b:x")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn people_keep_tags_direct_chats_and_push_rules() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let own = |path: &str| format!("/user/{}{path}", bob.id);
    bob.put(
        &own(&format!("/rooms/{room}/tags/u.work")),
        json!({"order": 0.5}),
    )
    .await
    .ok();
    bob.put(
        &own("/account_data/m.direct"),
        json!({&alice.id: [room], "@x:y": ["!z:y"]}),
    )
    .await
    .ok();
    bob.put(
        &format!("/pushrules/global/room/{room}"),
        json!({"actions": ["notify"]}),
    )
    .await
    .ok();
    let condition = json!({"kind": "event_match", "key": "room_id", "pattern": room});
    bob.put(
        &format!("/pushrules/global/override/{room}"),
        json!({"actions": [], "conditions": [condition]}),
    )
    .await
    .ok();
    let since = bob.sync(None).await.next_batch();
    let new = upgrade(&alice, &room, json!({"new_version": "11"})).await;
    bob.join(&new).await;
    let told = |sync: &harness::Sync, kind: &str| {
        let events = list(&sync.body["account_data"], "events").iter();
        events.clone().any(|event| event["type"] == kind)
    };
    bob.sync_until(&since, |sync| {
        sync.body["account_data"]["events"].is_array()
            && told(sync, "m.direct")
            && told(sync, "m.push_rules")
    })
    .await;

    let tags = bob.get(&own(&format!("/rooms/{new}/tags"))).await.ok();
    assert_eq!(tags["tags"], json!({"u.work": {"order": 0.5}}));
    let direct = bob.get(&own("/account_data/m.direct")).await.ok();
    assert_eq!(direct, json!({&alice.id: [room, new], "@x:y": ["!z:y"]}));
    let rule = bob.get(&format!("/pushrules/global/room/{new}")).await.ok();
    assert_eq!(rule["actions"], json!(["notify"]));
    let rule = bob
        .get(&format!("/pushrules/global/override/{new}"))
        .await
        .ok();
    assert_eq!(
        (&rule["actions"], &rule["conditions"][0]["pattern"]),
        (&json!([]), &json!(new))
    );
    bob.get(&format!("/pushrules/global/room/{room}"))
        .await
        .ok();
}
