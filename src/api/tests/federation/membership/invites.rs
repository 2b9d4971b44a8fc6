//! Inviting, by servers that have to do with the room and for people who may not want it.

use bytes::Bytes;
use http::{Request, Response};
use pdu::{Pdu, RoomRules};
use serde_json::{Value, json};
use storage::schema;

use super::{A, B, C, Person, World, ended_by, name, types};
use crate::Server;

#[tokio::test]
async fn an_invite_shows_the_room_and_opens_it() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    for version in ["2", "6", "11", "12"] {
        let room = json!({ "preset": "private_chat", "name": "In", "room_version": version });
        let room = alice.create(room).await;
        alice.invite(&room, &bob).await.ok();
        alice.invite(&room, &bob).await.ok();
        assert_eq!(alice.membership(&room, &bob).await, "invite");
        let invited = bob.rooms("invite").await;
        let state = &invited[&room]["invite_state"];
        let seen = types(state);
        for wanted in ["m.room.create", "m.room.name", "m.room.join_rules"] {
            assert!(seen.contains(&wanted), "{version}: {seen:?}");
        }
        let own = state["events"].as_array().unwrap().last().unwrap();
        assert_eq!(own["state_key"], bob.user_id.as_str());
        assert_eq!(own["content"]["membership"], "invite");
        // The one who invites is as good as a named server.
        bob.join(&room, &[]).await.ok();
        assert_eq!(alice.membership(&room, &bob).await, "join");
        assert!(bob.rooms("invite").await[&room].is_null());
    }
}

#[tokio::test]
async fn an_old_server_is_asked_as_it_knows_it() {
    let world = World::new();
    let a = world.server(A).await;
    let alice = Person::new(&a, "alice").await;
    let old = world.network.peer("old.example", &world.clock).await;
    let (signing, keys) = (old.signing_keys().current(), old.own_keys_answer());
    let rules = RoomRules::named("2").unwrap();
    let server = name("old.example");
    let me = server.clone();
    world.network.play(&server, move |request: Request<Bytes>| {
        let path = request.uri().path();
        let (status, body) = if path.starts_with("/_matrix/federation/v1/invite/") {
            let told: Value = serde_json::from_slice(request.body()).unwrap();
            let described = told["unsigned"]["invite_room_state"].as_array().unwrap();
            assert!(described.iter().any(|one| one["type"] == "m.room.create"));
            let pdu = Pdu::parse(request.body(), rules).unwrap();
            let signed = pdu.signed_also(rules, &signing, &me).unwrap();
            let event: Value = serde_json::from_slice(signed.json()).unwrap();
            (200, json!([200, { "event": event }]).to_string())
        } else if path == "/_matrix/key/v2/server" {
            (200, String::from_utf8(keys.clone()).unwrap())
        } else {
            (
                404,
                json!({ "errcode": "M_UNRECOGNIZED", "error": "What?" }).to_string(),
            )
        };
        Response::builder()
            .status(status)
            .body(body.into())
            .unwrap()
    });
    let otto = json!({ "user_id": "@otto:old.example" });
    for version in ["1", "2"] {
        let room = json!({ "preset": "private_chat", "room_version": version });
        let room = alice.create(room).await;
        let path = format!("/rooms/{room}/invite");
        alice.post(&path, otto.clone()).await.ok();
        let path = format!("/rooms/{room}/state/m.room.member/@otto:old.example");
        assert_eq!(alice.get(&path).await.ok()["membership"], "invite");
    }
    let asked = world.network.asked_of(&server);
    let invites = |version: &str| {
        let begin = format!("PUT /_matrix/federation/{version}/invite/");
        asked.iter().filter(|what| what.starts_with(&begin)).count()
    };
    assert_eq!((invites("v2"), invites("v1")), (2, 2));
    // Rooms of later versions it cannot know.
    let room = alice.create(json!({ "room_version": "11" })).await;
    let path = format!("/rooms/{room}/invite");
    alice.post(&path, otto).await.refused(502, "M_UNKNOWN");
    assert_eq!(world.network.asked_of(&server).len(), asked.len() + 1);
}

#[tokio::test]
async fn people_are_invited_into_a_new_room() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let gone = "@gone:nowhere.example";
    let room = json!({
        "preset": "trusted_private_chat", "is_direct": true, "invite": [bob.user_id, gone],
    });
    let room = alice.create(room).await;
    let state = bob.rooms("invite").await[&room]["invite_state"].clone();
    let own = state["events"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(own["content"]["is_direct"], true);
    let path = format!("/rooms/{room}/state/m.room.member/{gone}");
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn nobody_is_invited_too_often_whoever_invites_them() {
    let world = World::new();
    let a = world.server(A).await;
    let limits = |config: &mut config::Config| {
        config.rate_limits.enabled = true;
        config.rate_limits.invites_of_user = "2, then 1/h".parse().ok();
        config.rate_limits.invites_to_room = None;
    };
    let b = world.server_with(B, limits).await;
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let (beth, mut rooms) = (Person::new(&b, "beth").await, Vec::new());
    for _ in 0..3 {
        let room = json!({ "preset": "private_chat" });
        rooms.push(alice.create(room).await);
    }
    for room in &rooms[..2] {
        alice.invite(room, &bob).await.ok();
    }
    let refused = alice.invite(&rooms[2], &bob).await;
    assert!(refused.body["retry_after_ms"].as_u64().unwrap() > 1_000_000);
    refused.refused(429, "M_LIMIT_EXCEEDED");
    alice.invite(&rooms[2], &beth).await.ok();
}

#[tokio::test]
async fn nobody_is_invited_against_their_will() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    let block = json!({ "default_action": "block" });
    let path = format!(
        "/user/{}/account_data/m.invite_permission_config",
        bob.user_id
    );
    bob.put(&path, block).await.ok();
    alice
        .invite(&room, &bob)
        .await
        .refused(403, "M_INVITE_BLOCKED");
    assert!(bob.rooms("invite").await[&room].is_null());
    assert_eq!(alice.membership(&room, &bob).await, json!(null));
    let nobody = json!({ "user_id": "@nobody:b.example" });
    let path = format!("/rooms/{room}/invite");
    alice.post(&path, nobody).await.refused(404, "M_NOT_FOUND");
    world.take_away(B);
    alice.invite(&room, &bob).await.refused(502, "M_UNKNOWN");
}

#[tokio::test]
async fn somebody_of_a_server_in_the_room_is_invited_into_it() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let alice = Person::new(&a, "alice").await;
    let (bob, beth) = (Person::new(&b, "bob").await, Person::new(&b, "beth").await);
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    alice.invite(&room, &bob).await.ok();
    bob.join(&room, &[]).await.ok();
    alice.invite(&room, &beth).await.ok();
    assert_eq!(bob.membership(&room, &beth).await, "invite");
    assert!(beth.rooms("invite").await[&room].is_object());
    beth.join(&room, &[]).await.ok();
    assert_eq!(bob.membership(&room, &beth).await, "join");
}

/// The event that says what somebody is in a room.
async fn member_event(server: &Server, room: &str, of: &Person) -> Pdu {
    let room = server.rooms.find_room(room.try_into().unwrap()).await;
    let room = room.unwrap().unwrap();
    let snapshot = server.rooms.snapshot().await.unwrap();
    let member = room.member(&server.rooms, &snapshot, &of.user_id).await;
    let (_, event_id) = member.unwrap().unwrap();
    let name = server.storage.event_hash(&event_id);
    let found = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &[name]).await;
    let number = found.unwrap()[0].as_ref().unwrap().value.number.unwrap();
    let key = [(room.short, number)];
    let rows = snapshot
        .multi_get(&schema::EVENT_BY_NUMBER, &key)
        .await
        .unwrap();
    let json = rows[0].as_ref().unwrap().value.json.clone();
    Pdu::from_stored(event_id, json, room.rules, false).unwrap()
}

#[tokio::test]
async fn only_who_invited_takes_it_back() {
    let world = World::new();
    let (a, b, _c) = (
        world.server(A).await,
        world.server(B).await,
        world.server(C).await,
    );
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let anne = Person::new(&a, "anne").await;
    let levels = json!({ "invite": 0 });
    let room = json!({ "preset": "public_chat", "power_level_content_override": levels });
    let room = alice.create(room).await;
    anne.join(&room, &[]).await.ok();
    alice.invite(&room, &bob).await.ok();
    // What is said by whom is read from the room that A keeps; it is brought to B by hand here.
    let kick = json!({ "user_id": bob.user_id });
    alice.post(&format!("/rooms/{room}/kick"), kick).await.ok();
    let kicked = member_event(&a, &room, &bob).await;
    assert!(b.rooms.hear_from_outside(&kicked).await.unwrap());
    assert!(bob.rooms("invite").await[&room].is_null());
    ended_by(&bob, &room, "leave", &alice).await;
    assert!(
        !b.rooms.hear_from_outside(&kicked).await.unwrap(),
        "there is nothing left to end"
    );
    // Invited again by Anne, it is not for Alice to take that back.
    anne.invite(&room, &bob).await.ok();
    assert!(!b.rooms.hear_from_outside(&kicked).await.unwrap());
    assert!(bob.rooms("invite").await[&room].is_object());
}
