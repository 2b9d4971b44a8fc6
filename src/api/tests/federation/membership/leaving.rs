//! Declining invites, knocking, and taking knocks back.

use serde_json::json;

use super::{A, B, Person, World, ended_by, types};

#[tokio::test]
async fn an_invite_is_declined_and_the_room_hears_of_it() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice
        .create(json!({ "preset": "private_chat", "room_version": "12" }))
        .await;
    for _ in 0..3 {
        alice.invite(&room, &bob).await.ok();
        assert!(bob.rooms("invite").await[&room].is_object());
        bob.leave(&room).await.ok();
        assert_eq!(alice.membership(&room, &bob).await, "leave");
        assert!(bob.rooms("invite").await[&room].is_null());
        ended_by(&bob, &room, "leave", &bob).await;
    }
    bob.leave(&room).await.ok();
    bob.post(&format!("/rooms/{room}/forget"), json!({}))
        .await
        .ok();
    assert!(bob.rooms("leave").await[&room].is_null());
    bob.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn the_invite_of_a_dead_server_is_declined_here() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    alice.invite(&room, &bob).await.ok();
    world.take_away(A);
    bob.leave(&room).await.ok();
    assert!(bob.rooms("invite").await[&room].is_null());
    ended_by(&bob, &room, "leave", &bob).await;
    bob.post(&format!("/rooms/{room}/forget"), json!({}))
        .await
        .ok();
    assert!(bob.rooms("leave").await[&room].is_null());
    // It may come to life again, and invite again.
    world.bring_back(A);
    let kick = json!({ "user_id": bob.user_id });
    alice.post(&format!("/rooms/{room}/kick"), kick).await.ok();
    alice.invite(&room, &bob).await.ok();
    assert!(bob.rooms("invite").await[&room].is_object());
}

#[tokio::test]
async fn who_knocks_sees_the_room_and_may_go_again() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice
        .create(json!({ "preset": "private_chat", "name": "Door" }))
        .await;
    let path = format!("/knock/{room}?via=a.example");
    let knock = || bob.post(&path, json!({ "reason": "Let me in" }));
    knock().await.refused(403, "M_FORBIDDEN");
    alice
        .set(&room, "m.room.join_rules", json!({ "join_rule": "knock" }))
        .await;
    bob.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
    knock().await.ok();
    knock().await.ok();
    assert_eq!(alice.membership(&room, &bob).await, "knock");
    let knocked = bob.rooms("knock").await;
    let seen = types(&knocked[&room]["knock_state"]);
    for wanted in [
        "m.room.create",
        "m.room.name",
        "m.room.join_rules",
        "m.room.member",
    ] {
        assert!(seen.contains(&wanted), "{seen:?}");
    }
    bob.leave(&room).await.ok();
    assert_eq!(alice.membership(&room, &bob).await, "leave");
    assert!(bob.rooms("knock").await[&room].is_null());
    knock().await.ok();
    alice.invite(&room, &bob).await.ok();
    assert!(bob.rooms("knock").await[&room].is_null());
    assert!(bob.rooms("invite").await[&room].is_object());
    knock().await.refused(403, "M_FORBIDDEN");
    bob.join(&room, &[]).await.ok();
    knock().await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_server_speaks_only_for_its_own() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let alice = Person::new(&a, "alice").await;
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let room_id = ruma::RoomId::parse(&room).unwrap();
    let user = ruma::user_id!("@mallory:c.example");
    let ask = ruma::api::federation::membership::prepare_join_event::v1::Request::new;
    let question = ask(room_id, user.to_owned());
    let refused = b
        .federation
        .ask(
            ruma::server_name!("a.example"),
            question,
            federation::Patience::QUERY,
        )
        .await;
    let Err(federation::Failure::Refused(refusal)) = refused else {
        panic!("answered");
    };
    assert_eq!(refusal.errcode(), "M_FORBIDDEN");
}

#[tokio::test]
async fn an_invite_into_a_room_that_everybody_has_left_is_declined() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let anne = Person::new(&a, "anne").await;
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    alice.invite(&room, &bob).await.ok();
    alice.invite(&room, &anne).await.ok();
    alice.leave(&room).await.ok();
    for invited in [&bob, &anne] {
        invited.leave(&room).await.ok();
        assert!(invited.rooms("invite").await[&room].is_null());
        ended_by(invited, &room, "leave", invited).await;
    }
    // The room's last server keeps what happened there.
    let room = ruma::RoomId::parse(&room).unwrap();
    let kept = a.rooms.find_room(&room).await.unwrap().unwrap();
    let snapshot = a.rooms.snapshot().await.unwrap();
    for invited in [&bob, &anne] {
        let user = ruma::UserId::parse(&invited.user_id).unwrap();
        let now = kept.membership(&a.rooms, &snapshot, &user).await.unwrap();
        assert_eq!(now, Some(storage::schema::Membership::Leave));
    }
}
