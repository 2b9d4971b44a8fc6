//! Making rooms, and reading single events.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{ids, list, only, server};

async fn state_of(user: &harness::User, room: &str) -> Vec<Value> {
    let answer = user.get(&format!("/rooms/{room}/state")).await;
    assert_eq!(answer.status, 200, "{answer}");
    answer.body.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_plain_room_is_private_and_of_version_12() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let state = state_of(&alice, &room).await;

    let create = only(&state, "m.room.create", "");
    assert_eq!(create["content"]["room_version"], "12");
    assert_eq!(create["sender"], alice.id);
    assert_eq!(
        create["event_id"].as_str().unwrap()[1..],
        room[1..],
        "a room of version 12 is named by its create event"
    );
    assert_eq!(
        only(&state, "m.room.member", &alice.id)["content"]["membership"],
        "join"
    );
    assert_eq!(
        only(&state, "m.room.join_rules", "")["content"]["join_rule"],
        "invite"
    );
    assert_eq!(
        only(&state, "m.room.history_visibility", "")["content"]["history_visibility"],
        "shared"
    );
    assert_eq!(
        only(&state, "m.room.guest_access", "")["content"]["guest_access"],
        "can_join"
    );
    let levels = &only(&state, "m.room.power_levels", "")["content"];
    assert_eq!(
        levels["users"].get(&alice.id),
        None,
        "a creator has no level"
    );
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
    for event in &state {
        assert_eq!(event["room_id"], room);
        assert!(
            event["origin_server_ts"].is_i64() && event["event_id"].is_string(),
            "{event}"
        );
        assert!(
            event.get("auth_events").is_none() && event.get("hashes").is_none(),
            "{event}"
        );
    }
}

#[tokio::test]
async fn presets_decide_who_may_join_and_who_rules() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for (preset, join_rule, guests) in [
        ("private_chat", "invite", Some("can_join")),
        ("trusted_private_chat", "invite", Some("can_join")),
        ("public_chat", "public", None),
    ] {
        for version in ["11", "12"] {
            let invite = [&bob.id];
            let body = json!({"preset": preset, "invite": invite, "room_version": version});
            let room = alice.create_room(body).await;
            let state = state_of(&alice, &room).await;
            assert_eq!(
                only(&state, "m.room.join_rules", "")["content"]["join_rule"],
                join_rule
            );
            assert_eq!(
                only(&state, "m.room.history_visibility", "")["content"]["history_visibility"],
                "shared"
            );
            let access = state.iter().find(|e| e["type"] == "m.room.guest_access");
            let access = access.and_then(|e| e["content"]["guest_access"].as_str());
            assert_eq!(access, guests, "{preset}");
            assert_eq!(
                only(&state, "m.room.member", &bob.id)["content"]["membership"],
                "invite"
            );

            let trusted = preset == "trusted_private_chat";
            let levels = &only(&state, "m.room.power_levels", "")["content"]["users"];
            let creators = &only(&state, "m.room.create", "")["content"]["additional_creators"];
            if version == "12" {
                assert_eq!(
                    *creators,
                    if trusted {
                        json!([bob.id])
                    } else {
                        Value::Null
                    },
                    "{preset}"
                );
            } else {
                assert_eq!(levels[&alice.id], 100);
                assert_eq!(
                    levels[&bob.id],
                    if trusted { json!(100) } else { Value::Null },
                    "{preset}"
                );
            }
        }
    }
}

#[tokio::test]
async fn visibility_chooses_the_preset_where_none_is_named() {
    let server = server().await;
    let alice = server.user("alice").await;
    for (visibility, join_rule) in [("public", "public"), ("private", "invite")] {
        let room = alice.create_room(json!({"visibility": visibility})).await;
        let rules = alice.state(&room, "m.room.join_rules", "").await.ok();
        assert_eq!(rules["join_rule"], join_rule);
    }
}

#[tokio::test]
async fn every_option_is_followed_in_the_order_of_the_spec() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice
        .create_room(json!({
            "name": "The relay", "topic": "Horses",
            "preset": "public_chat",
            "creation_content": {"type": "m.space", "m.federate": false, "org.example.x": 1},
            "initial_state": [
                {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}},
                {"type": "org.example.rules", "state_key": "a", "content": {"rule": "be kind"}},
            ],
            "power_level_content_override": {"events_default": 20, "users": {&carol.id: 40}},
            "invite": [bob.id, carol.id], "is_direct": true,
        }))
        .await;
    let state = state_of(&alice, &room).await;
    let create = &only(&state, "m.room.create", "")["content"];
    assert_eq!(create["type"], "m.space");
    assert_eq!(create["m.federate"], false);
    assert_eq!(create["org.example.x"], 1);
    assert_eq!(
        only(&state, "m.room.name", "")["content"]["name"],
        "The relay"
    );
    let topic = &only(&state, "m.room.topic", "")["content"];
    assert_eq!(topic["topic"], "Horses");
    assert_eq!(
        only(&state, "m.room.history_visibility", "")["content"]["history_visibility"],
        "joined"
    );
    assert_eq!(
        only(&state, "org.example.rules", "a")["content"]["rule"],
        "be kind"
    );
    let levels = &only(&state, "m.room.power_levels", "")["content"];
    assert_eq!(levels["events_default"], 20);
    assert_eq!(levels["users"][&carol.id], 40);
    for invited in [&bob, &carol] {
        let content = &only(&state, "m.room.member", &invited.id)["content"];
        assert_eq!(content["membership"], "invite");
        assert_eq!(content["is_direct"], true);
    }

    let timeline = alice.timeline(&room).await;
    let types: Vec<_> = timeline
        .iter()
        .map(|e| e["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types[..3],
        ["m.room.create", "m.room.member", "m.room.power_levels"]
    );
    let place = |t: &str| types.iter().position(|x| *x == t).unwrap();
    assert!(place("m.room.join_rules") < place("org.example.rules"));
    assert!(place("org.example.rules") < place("m.room.name"));
    assert!(place("m.room.name") < place("m.room.topic"));
    assert_eq!(
        types[types.len() - 2..],
        ["m.room.member", "m.room.member"],
        "invites come last"
    );
}

#[tokio::test]
async fn an_alias_is_made_with_the_room() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let name = format!("hall-{}", alice.name());
    let body = json!({"preset": "public_chat", "room_alias_name": name});
    let room = alice.create_room(body.clone()).await;
    let alias = alice
        .id
        .replace(&format!("@{}", alice.name()), &format!("#{name}"));
    let canonical = alice.state(&room, "m.room.canonical_alias", "").await.ok();
    assert_eq!(canonical["alias"], alias);
    let found = bob
        .get(&format!("/directory/room/{}", harness::encode(&alias)))
        .await
        .ok();
    assert_eq!(found["room_id"], room);
    let joined = bob
        .post(&format!("/join/{}", harness::encode(&alias)), json!({}))
        .await
        .ok();
    assert_eq!(joined["room_id"], room);
    let before = list(&alice.get("/joined_rooms").await.ok(), "joined_rooms").len();
    alice
        .post("/createRoom", body)
        .await
        .refused(400, "M_ROOM_IN_USE");
    assert_eq!(
        list(&alice.get("/joined_rooms").await.ok(), "joined_rooms").len(),
        before
    );
}

#[tokio::test]
async fn an_alias_that_is_removed_is_no_longer_the_rooms_name() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let host = alice.id.split_once(':').unwrap().1;
    let alias = |name: &str| format!("#{name}-{}:{host}", alice.name());
    let path = |name: &str| format!("/directory/room/{}", harness::encode(&alias(name)));
    for (user, name) in [(&alice, "a"), (&alice, "b"), (&bob, "c")] {
        user.put(&path(name), json!({"room_id": room})).await.ok();
    }
    let content =
        json!({"alias": alias("a"), "alt_aliases": [alias("b"), alias("c")], "org.example": 1});
    alice
        .set_state(&room, "m.room.canonical_alias", "", content)
        .await;
    let named = async || alice.state(&room, "m.room.canonical_alias", "").await.ok();
    alice.delete(&path("a"), json!({})).await.ok();
    assert_eq!(
        named().await,
        json!({"alt_aliases": [alias("b"), alias("c")], "org.example": 1})
    );
    // Without the power over the name the alias goes, and the name stays.
    bob.delete(&path("c"), json!({})).await.ok();
    bob.get(&path("c")).await.refused(404, "M_NOT_FOUND");
    assert_eq!(
        named().await["alt_aliases"],
        json!([alias("b"), alias("c")])
    );
}

#[tokio::test]
async fn rooms_of_every_version_can_be_talked_in() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for version in 1..=12 {
        let version = version.to_string();
        let room = alice
            .create_room(json!({"preset": "public_chat", "room_version": version}))
            .await;
        bob.join(&room).await;
        let event = bob.say(&room, "salaam").await;
        let seen = alice.event(&room, &event).await.ok();
        assert_eq!(seen["content"]["body"], "salaam");
        assert_eq!(seen["sender"], bob.id);
        let create = alice.state(&room, "m.room.create", "").await.ok();
        assert_eq!(
            create
                .get("room_version")
                .map_or("1", |v| v.as_str().unwrap()),
            version
        );
        let creator = (version.parse::<u8>().unwrap() <= 10).then(|| json!(alice.id));
        assert_eq!(create.get("creator").cloned(), creator, "version {version}");
    }
}

#[tokio::test]
async fn a_room_that_cannot_be_is_not_made() {
    let server = server().await;
    let alice = server.user("alice").await;
    let version = |v: Value| json!({"room_version": v});
    alice
        .post("/createRoom", version(json!("99")))
        .await
        .refused(400, "M_UNSUPPORTED_ROOM_VERSION");
    let wrong = [
        version(json!(11)),
        json!({"invite": ["not a user"]}),
        json!({"invite": "@bob:localhost"}),
        json!({"name": 7}),
        json!({"initial_state": [{"content": {}}]}),
        json!({"initial_state": [{"type": "m.room.name", "content": "text"}]}),
        json!({"power_level_content_override": {"users": {"nobody": 50}}}),
        json!({"power_level_content_override": {"ban": "high"}}),
        json!({"preset": "no_such_preset"}),
        json!({"creation_content": "text"}),
        json!({"room_alias_name": "with:colon"}),
    ];
    for body in wrong {
        let refused = alice.post("/createRoom", body.clone()).await;
        assert_eq!(refused.status, 400, "{body}: {refused}");
        assert!(
            refused.body["errcode"].is_string() && refused.body["error"].is_string(),
            "{refused}"
        );
    }
    assert_eq!(
        list(&alice.get("/joined_rooms").await.ok(), "joined_rooms").len(),
        0
    );
}

#[tokio::test]
async fn reads_one_event() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (alice.room_with(&[]).await, alice.room_with(&[]).await);
    let said = alice.say(&room, "one").await;
    let event = alice.event(&room, &said).await.ok();
    assert_eq!(event["event_id"], said);
    assert_eq!(event["room_id"], room);
    assert_eq!(event["type"], "m.room.message");
    assert_eq!(event["sender"], alice.id);
    assert_eq!(
        event["content"],
        json!({"msgtype": "m.text", "body": "one"})
    );
    assert_eq!(event.get("state_key"), None);

    alice.event(&other, &said).await.refused(404, "M_NOT_FOUND");
    alice
        .event(&room, "$nosuchevent")
        .await
        .refused(404, "M_NOT_FOUND");
    let outside = bob.event(&room, &said).await;
    assert!([403, 404].contains(&outside.status), "{outside}");
    assert_eq!(
        ids(&alice.timeline(&room).await).last(),
        Some(&said.as_str())
    );
}

/// [Jump to date](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event).
#[tokio::test]
async fn finds_the_event_nearest_to_a_time() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let mut said = Vec::new();
    for body in ["one", "two"] {
        let id = alice.say(&room, body).await;
        let event = alice.event(&room, &id).await.ok();
        said.push((id, event["origin_server_ts"].as_u64().unwrap()));
    }
    let (last, time) = &said[1];
    let path = format!("/_matrix/client/v1/rooms/{room}/timestamp_to_event");
    let ask = async |user: &harness::User, ts: &str, dir: &str| {
        let path = format!("{path}?ts={ts}&dir={dir}");
        user.ask(Method::GET, &path, None).await
    };
    let found = ask(&alice, &(time + 1).to_string(), "b").await.ok();
    assert_eq!(found["event_id"], **last);
    assert_eq!(found["origin_server_ts"], *time);
    let found = ask(&alice, "0", "f").await.ok();
    let first = alice
        .event(&room, found["event_id"].as_str().unwrap())
        .await
        .ok();
    assert_eq!(first["type"], "m.room.create");
    for (ts, dir) in [((time + 1).to_string(), "f"), ("0".to_owned(), "b")] {
        ask(&alice, &ts, dir).await.refused(404, "M_NOT_FOUND");
    }
    // Who is not in the room is not told what happened when.
    ask(&bob, "0", "f").await.refused(403, "M_FORBIDDEN");
    ask(&alice, "-1", "f").await.refused(400, "M_INVALID_PARAM");
    ask(&alice, "0", "x").await.refused(400, "M_INVALID_PARAM");
    alice
        .ask(Method::GET, &path, None)
        .await
        .refused(400, "M_MISSING_PARAM");
}
