//! Servers that lie to who joins by them.

use bytes::Bytes;
use http::{Request, Response};
use ruma::{OwnedRoomId, OwnedUserId, RoomId};
use serde_json::{Value, json};

use super::{
    A, Answer, B, Person, World, name,
    played::{EVIL, EvilRoom, eve},
};

/// Lets Bob join a room of the evil server, which answers as it is told.
async fn join(
    version: &str,
    mut template: impl FnMut(&mut Value),
    mut state: impl FnMut(&EvilRoom, &mut Value),
) -> (Person, OwnedRoomId, Answer) {
    let world = World::new();
    let b = world.server(B).await;
    let bob = Person::new(&b, "bob").await;
    let peer = world.network.peer(EVIL, &world.clock).await;
    let room = EvilRoom::new(&peer, version);
    let (mut told, mut whole) = (room.template(bob.user_id.as_str()), room.state());
    template(&mut told);
    state(&room, &mut whole);
    let (told, whole) = (told.to_string(), whole.to_string());
    let keys = String::from_utf8(peer.own_keys_answer().to_vec()).unwrap();
    world
        .network
        .play(&name(EVIL), move |request: Request<Bytes>| {
            let path = request.uri().path();
            let body = if path.contains("/make_join/") {
                told.clone()
            } else if path.contains("/send_join/") {
                whole.clone()
            } else {
                keys.clone()
            };
            Response::new(body.into())
        });
    let answer = bob.join(room.room_id.as_str(), &[EVIL]).await;
    (bob, room.room_id, answer)
}

/// A room where what once allowed its name is told only to who asks for it, if at all: whether Bob sees the name
/// who joins it, and how often that was asked for.
async fn name_seen(version: &str, tells: bool) -> (bool, usize) {
    let world = World::new();
    let b = world.server(B).await;
    let bob = Person::new(&b, "bob").await;
    let peer = world.network.peer(EVIL, &world.clock).await;
    let mut room = EvilRoom::new(&peer, version);
    let mut levels = match room.rules.room_id_is_create_event_id() {
        true => json!({}),
        false => json!({ "users": { eve().as_str(): 100 } }),
    };
    levels["state_default"] = json!(0);
    room.put("m.room.power_levels", "", &levels);
    let dana: OwnedUserId = "@dana:evil.example".try_into().unwrap();
    let member = |room: &mut EvilRoom, name: &str| {
        let join = json!({ "membership": "join", "displayname": name });
        room.put_by(&dana, "m.room.member", dana.as_str(), &join);
    };
    member(&mut room, "Dana");
    let event = room.events.last().unwrap();
    let event: Value = serde_json::from_slice(event.json()).unwrap();
    room.put_by(&dana, "m.room.name", "", &json!({ "name": "Named" }));
    member(&mut room, "D");
    let mut whole = room.state();
    for list in ["state", "auth_chain"] {
        let events = whole[list].as_array_mut().unwrap();
        events.retain(|one| *one != event);
    }
    let (told, whole) = (room.template(bob.user_id.as_str()), whole.to_string());
    let keys = String::from_utf8(peer.own_keys_answer()).unwrap();
    let single = json!({ "origin": EVIL, "origin_server_ts": 1, "pdus": [event] }).to_string();
    world
        .network
        .play(&name(EVIL), move |request: Request<Bytes>| {
            let path = request.uri().path();
            let body = if path.contains("/make_join/") {
                told.to_string()
            } else if path.contains("/send_join/") {
                whole.clone()
            } else if path.contains("/event/") && tells {
                single.clone()
            } else {
                keys.clone()
            };
            Response::new(body.into())
        });
    bob.join(room.room_id.as_str(), &[EVIL]).await.ok();
    let path = format!("/rooms/{}/state/m.room.name/", room.room_id);
    let seen = bob.get(&path).await.body["name"] == "Named";
    let asked = world.network.asked_of(&name(EVIL));
    let asked = asked.iter().filter(|what| what.contains("/event/"));
    (seen, asked.count())
}

#[tokio::test]
async fn what_allows_some_of_the_state_is_fetched_where_it_was_not_told() {
    for version in ["6", "11", "12"] {
        assert_eq!(name_seen(version, true).await, (true, 1), "{version}");
        assert_eq!(name_seen(version, false).await, (false, 1), "{version}");
    }
}

/// Whether Bob came into the room.
async fn came_in(bob: &Person, room: &RoomId) -> bool {
    bob.rooms("join").await[room.as_str()].is_object()
}

fn as_it_is(_: &mut Value) {}

#[tokio::test]
async fn an_honest_answer_is_taken() {
    for version in ["1", "6", "11", "12"] {
        let (bob, room, answer) = join(version, as_it_is, |_, _| {}).await;
        answer.ok();
        assert!(came_in(&bob, &room).await, "{version}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_said_is_1_or_2() {
    let unsaid = |told: &mut Value| drop(told.as_object_mut().unwrap().remove("room_version"));
    for version in ["1", "2"] {
        let (bob, room, answer) = join(version, unsaid, |_, _| {}).await;
        answer.ok();
        assert!(came_in(&bob, &room).await, "{version}");
        let path = format!("/rooms/{room}/state/m.room.create/");
        let create = bob.get(&path).await.ok();
        assert_eq!(create["room_version"], version);
    }
    let (bob, room, answer) = join("6", unsaid, |_, _| {}).await;
    answer.refused(502, "M_UNKNOWN");
    assert!(!came_in(&bob, &room).await);
}

#[tokio::test]
async fn a_template_of_something_else_is_not_signed() {
    for (field, lie) in [
        ("room_id", json!("!other:evil.example")),
        ("sender", json!("@eve:evil.example")),
        ("state_key", json!("@eve:evil.example")),
        ("type", json!("m.room.power_levels")),
        ("content", json!({ "membership": "ban" })),
        ("content", json!({})),
        ("prev_events", json!("none")),
    ] {
        let (bob, room, answer) =
            join("11", |told| told["event"][field] = lie.clone(), |_, _| {}).await;
        answer.refused(502, "M_UNKNOWN");
        assert!(!came_in(&bob, &room).await, "{field}");
    }
    let unknown = |told: &mut Value| told["room_version"] = json!("99");
    let (_, _, answer) = join("11", unknown, |_, _| {}).await;
    answer.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
}

#[tokio::test]
async fn a_state_that_is_none_of_the_room_is_refused() {
    type Lie = fn(&EvilRoom, &mut Value);
    let lies: [(&str, Lie); 7] = [
        ("no create event", |_, whole| {
            whole["state"].as_array_mut().unwrap().remove(0);
        }),
        ("nothing", |_, whole| {
            *whole = json!({ "state": [], "auth_chain": [] })
        }),
        ("no answer", |_, whole| *whole = json!({ "state": 7 })),
        ("two create events", |room, whole| {
            let create = json!({ "room_version": "11", "second": true });
            let second = room.make("m.room.create", "", &create);
            let second = serde_json::from_slice(second.json()).unwrap();
            whole["state"].as_array_mut().unwrap().push(second);
        }),
        ("another room", |_, whole| {
            for list in ["state", "auth_chain"] {
                for event in whole[list].as_array_mut().unwrap() {
                    event["room_id"] = json!("!other:evil.example");
                }
            }
        }),
        ("forged signatures", |_, whole| {
            for list in ["state", "auth_chain"] {
                for event in whole[list].as_array_mut().unwrap() {
                    event["sender"] = json!("@alice:a.example");
                }
            }
        }),
        ("join rules left out", |_, whole| {
            for list in ["state", "auth_chain"] {
                whole[list].as_array_mut().unwrap().remove(3);
            }
        }),
    ];
    for (what, lie) in lies {
        let (bob, room, answer) = join("11", as_it_is, lie).await;
        answer.refused(502, "M_UNKNOWN");
        assert!(!came_in(&bob, &room).await, "{what}");
    }
}

#[tokio::test]
async fn a_room_of_another_version_than_was_said_is_refused() {
    let other = |told: &mut Value| told["room_version"] = json!("10");
    let (bob, room, answer) = join("11", other, |_, _| {}).await;
    answer.refused(502, "M_UNKNOWN");
    assert!(!came_in(&bob, &room).await);
}

#[tokio::test]
async fn what_is_not_proven_is_left_out_and_the_rest_counts() {
    let (bob, room, answer) = join("11", as_it_is, |room, whole| {
        let state = whole["state"].as_array_mut().unwrap();
        // Without a signature, with one of nobody's key, with a wrong one, and what rests on these.
        state[4]["signatures"] = json!({});
        let mut topic = room
            .make("m.room.topic", "", &json!({ "topic": "x" }))
            .json()
            .to_vec();
        let mut topic: Value = serde_json::from_slice(&std::mem::take(&mut topic)).unwrap();
        topic["signatures"] = json!({ "evil.example": { "ed25519:other": "AAAA" } });
        state.push(topic);
        let avatar = room.make("m.room.avatar", "", &json!({ "url": "x" }));
        let mut avatar: Value = serde_json::from_slice(avatar.json()).unwrap();
        avatar["auth_events"] = json!(["$unknown"]);
        state.push(avatar);
        whole["auth_chain"]
            .as_array_mut()
            .unwrap()
            .push(json!("no event"));
    })
    .await;
    answer.ok();
    assert!(came_in(&bob, &room).await);
    let state = bob.get(&format!("/rooms/{room}/state")).await.ok();
    let types: Vec<_> = state
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["type"].clone())
        .collect();
    assert!(types.contains(&json!("m.room.create")), "{types:?}");
    for left_out in ["m.room.name", "m.room.topic", "m.room.avatar"] {
        assert!(!types.contains(&json!(left_out)), "{types:?}");
    }
}

#[tokio::test]
async fn a_state_that_the_rules_do_not_allow_gives_no_power() {
    let (bob, room, answer) = join("11", as_it_is, |room, whole| {
        // A power level event of somebody who is not in the room.
        let levels = json!({ "users": { "@mallory:evil.example": 100 } });
        let levels = room.make("m.room.power_levels", "", &levels);
        let mut levels: Value = serde_json::from_slice(levels.json()).unwrap();
        levels["sender"] = json!("@mallory:evil.example");
        let state = whole["state"].as_array_mut().unwrap();
        state.push(levels);
    })
    .await;
    answer.ok();
    let levels = bob
        .get(&format!("/rooms/{room}/state/m.room.power_levels/"))
        .await
        .ok();
    assert!(
        levels["users"]["@mallory:evil.example"].is_null(),
        "{levels}"
    );
}

#[tokio::test]
async fn a_good_server_is_asked_after_a_bad_one() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let peer = world.network.peer(EVIL, &world.clock).await;
    let told = json!({ "state": [], "auth_chain": [] }).to_string();
    let keys = String::from_utf8(peer.own_keys_answer().to_vec()).unwrap();
    world
        .network
        .play(&name(EVIL), move |request: Request<Bytes>| {
            let path = request.uri().path();
            let body = match path.contains("/send_join/") {
                true => told.clone(),
                false => keys.clone(),
            };
            Response::new(body.into())
        });
    bob.join(&room, &[EVIL, A]).await.ok();
    assert_eq!(alice.membership(&room, &bob).await, "join");
}
