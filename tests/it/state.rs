//! Reading and setting state.

use harness::encode;
use serde_json::json;

use crate::{only, server};

#[tokio::test]
async fn sets_and_reads_state_under_any_key() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    for key in ["", "key", "a/b c?#%", "کلید"] {
        let content = json!({"of": key});
        let event = alice
            .set_state(&room, "org.example.thing", key, content.clone())
            .await;
        assert_eq!(
            alice.state(&room, "org.example.thing", key).await.ok(),
            content
        );
        let seen = alice.event(&room, &event).await.ok();
        assert_eq!(seen["state_key"], key);
    }
    let bare = format!("/rooms/{room}/state/org.example.thing");
    assert_eq!(alice.get(&bare).await.ok(), json!({"of": ""}));
    alice.put(&bare, json!({"of": "bare"})).await.ok();
    assert_eq!(
        alice.state(&room, "org.example.thing", "").await.ok(),
        json!({"of": "bare"})
    );
    let event = alice.get(&format!("{bare}?format=event")).await.ok();
    assert_eq!(event["content"], json!({"of": "bare"}));
    assert_eq!(event["sender"], alice.id);
    alice
        .state(&room, "org.example.thing", "other")
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .state(&room, "org.example.other", "")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_change_tells_what_was_before() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let since = alice.sync(None).await.next_batch();
    let old = alice
        .set_state(&room, "m.room.name", "", json!({"name": "old"}))
        .await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "new"}))
        .await;
    let sync = alice.sync(Some(&since)).await;
    let newest = sync.timeline(&room).last().unwrap();
    assert_eq!(newest["content"]["name"], "new");
    assert_eq!(newest["unsigned"]["prev_content"], json!({"name": "old"}));
    assert_eq!(newest["unsigned"]["replaces_state"], old);
}

#[tokio::test]
async fn state_needs_power() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let name = json!({"name": "Bob's"});
    bob.try_set_state(&room, "m.room.name", "", name.clone())
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.try_set_state(&room, "m.room.name", "", name)
        .await
        .refused(403, "M_FORBIDDEN");
    let other = json!({"membership": "join"});
    let refused = bob
        .try_set_state(&room, "m.room.member", &alice.id, other)
        .await;
    assert_eq!(refused.status, 403, "{refused}");
    alice
        .try_set_state(&room, "org.example.mine", &bob.id, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    let again = alice
        .try_set_state(&room, "m.room.create", "", json!({}))
        .await;
    again.refused(400, "M_INVALID_PARAM");
    let body = json!({"preset": "public_chat", "room_version": "org.matrix.msc3757.11"});
    let owned = alice.create_room(body).await;
    alice
        .try_set_state(&owned, "org.example.mine", "@nobody", json!({}))
        .await
        .refused(400, "M_BAD_JSON");
    alice
        .state(&room, "m.room.name", "")
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn power_levels_cannot_be_raised_above_ones_own() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut levels = alice.state(&room, "m.room.power_levels", "").await.ok();
    levels["users"] = json!({&bob.id: 50});
    levels["events"]["m.room.power_levels"] = json!(50);
    alice
        .set_state(&room, "m.room.power_levels", "", levels.clone())
        .await;
    let mut raised = levels.clone();
    raised["users"][&bob.id] = json!(60);
    bob.try_set_state(&room, "m.room.power_levels", "", raised)
        .await
        .refused(403, "M_FORBIDDEN");
    for wrong in [json!("100"), json!({}), json!([])] {
        let mut bad = levels.clone();
        bad["users"][&bob.id] = wrong;
        alice
            .try_set_state(&room, "m.room.power_levels", "", bad)
            .await
            .refused(400, "M_BAD_JSON");
    }
    levels["users"][&bob.id] = json!(49);
    bob.set_state(&room, "m.room.power_levels", "", levels.clone())
        .await;
    assert_eq!(
        alice.state(&room, "m.room.power_levels", "").await.ok(),
        levels
    );
}

#[tokio::test]
async fn power_levels_are_integers_in_every_version() {
    let server = server().await;
    let alice = server.user("alice").await;
    let level = json!("50");
    for version in ["1", "9", "11"] {
        let room = json!({"room_version": version});
        let room = alice.create_room(room).await;
        let levels = alice.state(&room, "m.room.power_levels", "").await.ok();
        for path in [
            "/ban",
            "/events/m.room.name",
            "/notifications/room",
            "/users/@x:y",
        ] {
            let mut bad = levels.clone();
            let (map, key) = path.rsplit_once('/').unwrap();
            if bad.pointer(map).is_none() {
                bad["notifications"] = json!({});
            }
            bad.pointer_mut(map).unwrap()[key] = level.clone();
            alice
                .try_set_state(&room, "m.room.power_levels", "", bad)
                .await
                .refused(400, "M_BAD_JSON");
        }
    }
    let body = json!({"room_version": "9", "power_level_content_override": {"ban": level}});
    alice
        .post("/createRoom", body)
        .await
        .refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn membership_can_be_set_as_state() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({})).await;
    let invite = json!({"membership": "invite"});
    alice
        .set_state(&room, "m.room.member", &bob.id, invite)
        .await;
    assert!(bob.sync(None).await.invited(&room).is_object());
    bob.set_state(
        &room,
        "m.room.member",
        &bob.id,
        json!({"membership": "join"}),
    )
    .await;
    bob.say(&room, "in").await;
    bob.set_state(
        &room,
        "m.room.member",
        &bob.id,
        json!({"membership": "leave"}),
    )
    .await;
    assert_eq!(
        bob.get("/joined_rooms").await.ok()["joined_rooms"],
        json!([])
    );
    let nonsense = json!({"membership": "nonsense"});
    let refused = alice
        .try_set_state(&room, "m.room.member", &alice.id, nonsense)
        .await;
    assert!([400, 403].contains(&refused.status), "{refused}");
}

#[tokio::test]
async fn who_has_left_sees_the_state_as_it_was_then() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&bob]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "then"}))
        .await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "now"}))
        .await;

    assert_eq!(
        bob.state(&room, "m.room.name", "").await.ok(),
        json!({"name": "then"})
    );
    let all = bob.get(&format!("/rooms/{room}/state")).await.body;
    let all = all.as_array().unwrap();
    assert_eq!(only(all, "m.room.name", "")["content"]["name"], "then");
    assert_eq!(
        only(all, "m.room.member", &bob.id)["content"]["membership"],
        "leave"
    );
    carol
        .get(&format!("/rooms/{room}/state"))
        .await
        .refused(403, "M_FORBIDDEN");
    carol
        .state(&room, "m.room.name", "")
        .await
        .refused(403, "M_FORBIDDEN");
    let nowhere = carol.get("/rooms/!nowhere:localhost/state").await;
    assert!([403, 404].contains(&nowhere.status), "{nowhere}");
}

#[tokio::test]
async fn aliases_in_state_must_lead_to_the_room() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let alias = alice.id.replace('@', "#nothing-");
    let canonical = json!({"alias": alias});
    let refused = alice
        .try_set_state(&room, "m.room.canonical_alias", "", canonical.clone())
        .await;
    assert_eq!(refused.status, 400, "{refused}");
    assert_eq!(refused.body["errcode"], "M_BAD_ALIAS");
    alice
        .put(
            &format!("/directory/room/{}", encode(&alias)),
            json!({"room_id": room}),
        )
        .await
        .ok();
    alice
        .set_state(&room, "m.room.canonical_alias", "", canonical)
        .await;
}

/// MSC3757: state that belongs to whom its key begins with.
#[tokio::test]
async fn owned_state_is_its_owners_and_of_those_with_more_power() {
    const TYPE: &str = "org.example.owned";
    const SUFFIX: &str = "_state_key_suffix:!@#$123";
    let server = server().await;
    let (creator, user, other) = (
        server.user("creator").await,
        server.user("user").await,
        server.user("other").await,
    );
    for version in ["10", "org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
        let owned = version != "10";
        let levels = json!({"events": {TYPE: 0}});
        let body = json!({"preset": "public_chat", "room_version": version,
            "power_level_content_override": levels});
        let room = creator.create_room(body).await;
        user.join(&room).await;
        other.join(&room).await;
        let with = |id: &str, suffix: &str| format!("{id}{suffix}");
        let cases = [
            (&user, user.id.clone(), 200, 200),
            (&user, with(&user.id, SUFFIX), 403, 200),
            (&creator, user.id.clone(), 403, 200),
            (&creator, with(&user.id, SUFFIX), 403, 200),
            (&user, other.id.clone(), 403, 403),
            (&user, with(&other.id, SUFFIX), 403, 403),
            (&user, with(&user.id, &SUFFIX[1..]), 403, 403),
            (&user, format!("@prefix_{}{SUFFIX}", user.id), 403, 403),
            (&creator, "@notinroom:hs2".to_owned(), 403, 200),
            (&creator, "@oops".to_owned(), 403, 400),
            (
                &creator,
                format!("{}@{}", creator.id, &SUFFIX[1..]),
                403,
                400,
            ),
        ];
        for (sender, key, plain, own) in cases {
            let answer = sender.try_set_state(&room, TYPE, &key, json!({})).await;
            let wanted = if owned { own } else { plain };
            assert_eq!(answer.status, wanted, "{version} {key}: {answer}");
            let errcode = match wanted {
                200 => continue,
                400 => "M_BAD_JSON",
                _ => "M_FORBIDDEN",
            };
            assert_eq!(answer.body["errcode"], errcode);
        }
    }
}

#[tokio::test]
async fn an_operator_sees_what_the_state_at_an_event_was() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let set = async |topic: &str| {
        let content = json!({ "topic": topic });
        alice.set_state(&room, "m.room.topic", "", content).await
    };
    let first = set("first").await;
    let second = set("second").await;
    let explain = |arguments: &[&str]| {
        let output = server.command(&[&["room", "state", "--at"], arguments].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        (String::from_utf8(output.stdout).unwrap(), error)
    };
    let (told, _) = explain(&[&second]);
    for line in [
        format!("event   {second} m.room.topic [] by {}: accepted", alice.id),
        format!("        m.room.topic [] {first} by {}", alice.id),
        format!("the room ends with {second}"),
    ] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
    let (told, _) = explain(&[&second, "--type", "m.room.member", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["room_id"], room.as_str());
    assert_eq!(told["state"].as_array().unwrap().len(), 1);
    assert_eq!(told["state"][0]["state_key"], alice.id.as_str());
    let (none, why) = explain(&["$unknown"]);
    assert!(none.is_empty() && why.contains("$unknown"), "{why}");
}
