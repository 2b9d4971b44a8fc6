//! Join, leave, invite, kick, ban, unban, forget, and the lists of members.

use harness::User;
use serde_json::{Value, json};

use crate::{list, server};

async fn three() -> (harness::Server, User, User, User) {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    (server, alice, bob, carol)
}

async fn membership(user: &User, room: &str, of: &User) -> Value {
    let path = format!("/rooms/{room}/state/m.room.member/{}?format=event", of.id);
    user.get(&path).await.ok()
}

fn who(user: &User) -> Value {
    json!({"user_id": user.id})
}

#[tokio::test]
async fn a_public_room_is_open_and_joining_twice_changes_nothing() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.room_with(&[]).await;
    let path = format!("/rooms/{room}/join");
    let joined = carol.post(&path, json!({"reason": "curious"})).await.ok();
    assert_eq!(joined["room_id"], room);
    let event = membership(&alice, &room, &carol).await;
    assert_eq!(event["content"]["membership"], "join");
    assert_eq!(event["content"]["reason"], "curious");
    bob.post(&path, json!({})).await.ok();
    let event = membership(&alice, &room, &bob).await;
    bob.join(&room).await;
    assert_eq!(
        membership(&alice, &room, &bob).await["event_id"],
        event["event_id"]
    );
    assert_eq!(
        bob.get("/joined_rooms").await.ok(),
        json!({"joined_rooms": [room]})
    );
}

#[tokio::test]
async fn a_private_room_asks_for_an_invitation() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.create_room(json!({"preset": "private_chat"})).await;
    let join = format!("/join/{room}");
    bob.post(&join, json!({})).await.refused(403, "M_FORBIDDEN");
    alice
        .to_room(
            &room,
            "invite",
            json!({"user_id": bob.id, "reason": "come in"}),
        )
        .await
        .ok();
    assert_eq!(
        membership(&alice, &room, &bob).await["content"]["reason"],
        "come in"
    );
    bob.join(&room).await;

    alice
        .to_room(&room, "invite", who(&bob))
        .await
        .refused(403, "M_FORBIDDEN");
    carol
        .to_room(&room, "invite", who(&carol))
        .await
        .refused(403, "M_FORBIDDEN");
    carol
        .post(&join, json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.to_room(&room, "invite", who(&carol)).await.ok();
    carol.join(&room).await;
}

#[tokio::test]
async fn who_may_invite_is_a_matter_of_power() {
    let (_server, alice, bob, carol) = three().await;
    let levels = json!({"power_level_content_override": {"invite": 60}, "preset": "public_chat"});
    let room = alice.create_room(levels).await;
    bob.join(&room).await;
    bob.to_room(&room, "invite", who(&carol))
        .await
        .refused(403, "M_FORBIDDEN");
    alice.to_room(&room, "invite", who(&carol)).await.ok();
}

#[tokio::test]
async fn an_invitation_can_be_declined_and_withdrawn() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice
        .create_room(json!({"invite": [bob.id, carol.id]}))
        .await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice.to_room(&room, "kick", who(&carol)).await.ok();
    for user in [&bob, &carol] {
        assert_eq!(
            membership(&alice, &room, user).await["content"]["membership"],
            "leave"
        );
        user.post(&format!("/join/{room}"), json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
    }
    alice.to_room(&room, "invite", who(&bob)).await.ok();
    bob.join(&room).await;
}

#[tokio::test]
async fn leaves_and_comes_back() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[&bob]).await;
    assert_eq!(
        bob.to_room(&room, "leave", json!({"reason": "late"}))
            .await
            .ok(),
        json!({})
    );
    let event = membership(&alice, &room, &bob).await;
    assert_eq!(event["content"]["membership"], "leave");
    assert_eq!(event["content"]["reason"], "late");
    assert_eq!(
        bob.get("/joined_rooms").await.ok(),
        json!({"joined_rooms": []})
    );
    let path = format!("/rooms/{room}/send/m.room.message/1");
    bob.put(&path, json!({"msgtype": "m.text", "body": "x"}))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.say(&room, "here again").await;
}

#[tokio::test]
async fn rooms_that_are_not_there_cannot_be_entered_or_left() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[]).await;
    let nowhere = "!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let refused = bob.post(&format!("/join/{nowhere}"), json!({})).await;
    assert!([403, 404].contains(&refused.status), "{refused}");
    for room in [nowhere, room.as_str()] {
        let refused = bob.to_room(room, "leave", json!({})).await;
        assert!([403, 404].contains(&refused.status), "{refused}");
        let refused = bob.to_room(room, "invite", who(&alice)).await;
        assert!([403, 404].contains(&refused.status), "{refused}");
    }
}

#[tokio::test]
async fn kicks_need_power_over_the_kicked() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.room_with(&[&bob, &carol]).await;
    bob.to_room(&room, "kick", who(&carol))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.to_room(&room, "kick", who(&alice))
        .await
        .refused(403, "M_FORBIDDEN");
    assert_eq!(
        membership(&alice, &room, &carol).await["content"]["membership"],
        "join"
    );

    alice
        .to_room(&room, "kick", json!({"user_id": bob.id, "reason": "rude"}))
        .await
        .ok();
    let event = membership(&alice, &room, &bob).await;
    assert_eq!(event["content"]["membership"], "leave");
    assert_eq!(event["content"]["reason"], "rude");
    assert_eq!(event["sender"], alice.id);
    bob.join(&room).await;
}

#[tokio::test]
async fn a_ban_holds_until_it_is_lifted() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.room_with(&[&bob, &carol]).await;
    bob.to_room(&room, "ban", who(&carol))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .to_room(&room, "ban", json!({"user_id": bob.id, "reason": "spam"}))
        .await
        .ok();
    let event = membership(&alice, &room, &bob).await;
    assert_eq!(event["content"]["membership"], "ban");
    assert_eq!(event["content"]["reason"], "spam");
    bob.post(&format!("/join/{room}"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    alice
        .to_room(&room, "invite", who(&bob))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.to_room(&room, "leave", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    carol
        .to_room(&room, "unban", who(&bob))
        .await
        .refused(403, "M_FORBIDDEN");

    alice.to_room(&room, "unban", who(&bob)).await.ok();
    assert_eq!(
        membership(&alice, &room, &bob).await["content"]["membership"],
        "leave"
    );
    bob.join(&room).await;
}

#[tokio::test]
async fn one_can_be_banned_before_ever_coming() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[]).await;
    alice.to_room(&room, "ban", who(&bob)).await.ok();
    bob.post(&format!("/join/{room}"), json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_creator_of_version_12_stands_above_all_levels() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[&bob]).await;
    let mut levels = alice.state(&room, "m.room.power_levels", "").await.ok();
    levels["users"] = json!({&bob.id: 100});
    alice
        .set_state(&room, "m.room.power_levels", "", levels.clone())
        .await;
    bob.to_room(&room, "kick", who(&alice))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.to_room(&room, "ban", who(&alice))
        .await
        .refused(403, "M_FORBIDDEN");
    levels["users"] = json!({&alice.id: 100, &bob.id: 100});
    let refused = alice
        .try_set_state(&room, "m.room.power_levels", "", levels)
        .await;
    refused.refused(400, "M_BAD_JSON");
    alice.to_room(&room, "kick", who(&bob)).await.ok();
}

#[tokio::test]
async fn a_restricted_room_lets_in_who_is_in_the_other_room() {
    let (_server, alice, bob, carol) = three().await;
    for version in ["8", "9", "10", "11", "12"] {
        let club = alice
            .create_room(json!({"preset": "public_chat", "room_version": version}))
            .await;
        let allow = json!([{"type": "m.room_membership", "room_id": club}]);
        let rules = json!({"type": "m.room.join_rules", "content": {"join_rule": "restricted", "allow": allow}});
        let room = alice
            .create_room(json!({"room_version": version, "initial_state": [rules]}))
            .await;
        bob.join(&club).await;
        bob.join(&room).await;
        carol
            .post(&format!("/join/{room}"), json!({}))
            .await
            .refused(403, "M_FORBIDDEN");
        let content = membership(&alice, &room, &bob).await["content"].clone();
        assert_eq!(
            content["join_authorised_via_users_server"], alice.id,
            "version {version}"
        );
    }
}

#[tokio::test]
async fn forgets_only_what_one_has_left() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[&bob]).await;
    bob.to_room(&room, "forget", json!({}))
        .await
        .refused(400, "M_UNKNOWN");
    bob.to_room(&room, "leave", json!({})).await.ok();
    bob.get(&format!("/rooms/{room}/messages?dir=b")).await.ok();
    assert_eq!(
        bob.to_room(&room, "forget", json!({})).await.ok(),
        json!({})
    );
    bob.get(&format!("/rooms/{room}/messages?dir=b"))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.get(&format!("/rooms/{room}/messages?dir=b")).await.ok();
}

#[tokio::test]
async fn what_a_client_says_of_its_join_reaches_the_event() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.room_with(&[]).await;
    let body = json!({
        "org.example.key": {"a": [1]}, "reason": "curious", "membership": "ban",
        "join_authorised_via_users_server": alice.id,
    });
    bob.post(&format!("/rooms/{room}/join"), body.clone())
        .await
        .ok();
    carol.post(&format!("/join/{room}"), body).await.ok();
    for user in [&bob, &carol] {
        let content = &membership(&alice, &room, user).await["content"];
        assert_eq!(
            *content,
            json!({"org.example.key": {"a": [1]}, "reason": "curious", "membership": "join"})
        );
    }
    bob.to_room(&room, "leave", json!({})).await.ok();
    bob.post(&format!("/join/{room}"), json!({"org.example.x": 1.5}))
        .await
        .refused(400, "M_BAD_JSON");
    assert_eq!(
        membership(&alice, &room, &bob).await["content"]["membership"],
        "leave"
    );
}

#[tokio::test]
async fn a_device_is_told_of_a_room_that_was_left_and_forgotten_before_it_asked() {
    let (_server, alice, bob, carol) = three().await;
    let room = alice.room_with(&[&bob]).await;
    alice.to_room(&room, "invite", who(&carol)).await.ok();
    for user in [&bob, &carol] {
        let before = user.sync(None).await.next_batch();
        user.to_room(&room, "leave", json!({})).await.ok();
        let between = user.sync(Some(&before)).await.next_batch();
        user.to_room(&room, "forget", json!({})).await.ok();
        let sync = user.sync(Some(&before)).await;
        assert!(sync.left(&room).is_object(), "{}", sync.body);
        for since in [Some(between), Some(sync.next_batch()), None] {
            let archived = r#"timeout=0&filter={"room":{"include_leave":true}}"#;
            let sync = user.sync_with(since.as_deref(), archived).await;
            assert!(sync.left(&room).is_null(), "{}", sync.body);
        }
    }
}

fn members(answer: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let mut all: Vec<_> = list(answer, "chunk")
        .iter()
        .map(|e| (text(&e["state_key"]), text(&e["content"]["membership"])))
        .collect();
    all.sort();
    all
}

#[tokio::test]
async fn lists_members_now_and_then() {
    let (server, alice, bob, carol) = three().await;
    let dave = server.user("dave").await;
    let room = alice.room_with(&[&bob]).await;
    let then = alice.sync(None).await.next_batch();
    carol.join(&room).await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice.to_room(&room, "ban", who(&dave)).await.ok();

    let path = format!("/rooms/{room}/members");
    let pairs = |list: &[(&User, &str)]| {
        let mut all: Vec<_> = list
            .iter()
            .map(|(u, m)| (u.id.clone(), (*m).to_owned()))
            .collect();
        all.sort();
        all
    };
    let all = members(&alice.get(&path).await.ok());
    assert_eq!(
        all,
        pairs(&[
            (&alice, "join"),
            (&bob, "leave"),
            (&carol, "join"),
            (&dave, "ban")
        ])
    );
    let joined = members(&alice.get(&format!("{path}?membership=join")).await.ok());
    assert_eq!(joined, pairs(&[(&alice, "join"), (&carol, "join")]));
    let others = members(&alice.get(&format!("{path}?not_membership=join")).await.ok());
    assert_eq!(others, pairs(&[(&bob, "leave"), (&dave, "ban")]));
    let past = members(
        &alice
            .get(&format!("{path}?at={}", harness::encode(&then)))
            .await
            .ok(),
    );
    assert_eq!(past, pairs(&[(&alice, "join"), (&bob, "join")]));
    // A token in front of the whole timeline.
    let first = alice.get(&format!("/rooms/{room}/messages")).await.ok();
    let start = harness::encode(first["start"].as_str().unwrap());
    let first = members(&alice.get(&format!("{path}?at={start}")).await.ok());
    assert_eq!(first, pairs(&[(&alice, "join")]));

    let joined = alice
        .get(&format!("/rooms/{room}/joined_members"))
        .await
        .ok();
    let mut names: Vec<_> = joined["joined"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    names.sort();
    assert_eq!(names, [alice.id.clone(), carol.id.clone()]);
    assert_eq!(
        joined["joined"][&carol.id],
        json!({"display_name": "", "avatar_url": ""})
    );

    dave.get(&path).await.refused(403, "M_FORBIDDEN");
    dave.get(&format!("/rooms/{room}/joined_members"))
        .await
        .refused(403, "M_FORBIDDEN");
    bob.get(&format!("/rooms/{room}/joined_members"))
        .await
        .refused(403, "M_FORBIDDEN");
    let as_left = members(&bob.get(&path).await.ok());
    assert_eq!(
        as_left,
        pairs(&[(&alice, "join"), (&bob, "leave"), (&carol, "join")])
    );
}

#[tokio::test]
async fn wrong_bodies_are_no_members() {
    let (_server, alice, bob, _) = three().await;
    let room = alice.room_with(&[&bob]).await;
    for verb in ["invite", "kick", "ban", "unban"] {
        for body in [
            json!({}),
            json!({"user_id": 7}),
            json!({"user_id": "bob"}),
            json!([]),
        ] {
            let refused = alice.to_room(&room, verb, body.clone()).await;
            assert_eq!(refused.status, 400, "{verb} {body}: {refused}");
            assert!(refused.body["errcode"].is_string());
        }
    }
    assert_eq!(
        membership(&alice, &room, &bob).await["content"]["membership"],
        "join"
    );
}
