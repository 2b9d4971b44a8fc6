//! Joining.

use serde_json::json;

use super::{A, B, C, NOWHERE, Person, World, name};

const VERSIONS: [&str; 12] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12",
];

#[tokio::test]
async fn a_room_of_every_version_is_joined_and_known() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    for version in VERSIONS {
        let room = json!({ "preset": "public_chat", "name": "Far", "room_version": version });
        let room = alice.create(room).await;
        bob.join(&room, &[A]).await.ok();
        assert_eq!(alice.membership(&room, &bob).await, "join", "{version}");
        assert_eq!(bob.membership(&room, &alice).await, "join", "{version}");
        let ours = alice.get(&format!("/rooms/{room}/state")).await.ok();
        let theirs = bob.get(&format!("/rooms/{room}/state")).await.ok();
        let ids = |state: &serde_json::Value| {
            let events = state.as_array().unwrap().iter();
            let mut ids: Vec<_> = events.map(|event| event["event_id"].to_string()).collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(&ours), ids(&theirs), "{version}");
        let said = json!({ "msgtype": "m.text", "body": "hello" });
        let path = format!("/rooms/{room}/send/m.room.message/1{version}");
        bob.put(&path, said).await.ok();
        let joined = bob.rooms("join").await;
        let state = joined[&room]["state"]["events"].as_array().unwrap();
        assert!(state.iter().any(|event| event["type"] == "m.room.name"));
    }
}

#[tokio::test]
async fn servers_are_asked_in_turn_and_an_alias_says_which() {
    let world = World::new();
    let (a, b, c) = (
        world.server(A).await,
        world.server(B).await,
        world.server(C).await,
    );
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let carol = Person::new(&c, "carol").await;
    let room = alice
        .create(json!({ "preset": "public_chat", "room_version": "12" }))
        .await;
    bob.join(&room, &[]).await.refused(404, "M_NOT_FOUND");
    // C is not in the room, and another one is not there at all.
    bob.join(&room, &[NOWHERE, C, A]).await.ok();
    carol.join(&room, &[B]).await.ok();
    assert_eq!(bob.membership(&room, &carol).await, "join");
    bob.join("!nothing", &[A]).await.refused(404, "M_NOT_FOUND");
    bob.join("!nothing", &[NOWHERE])
        .await
        .refused(502, "M_UNKNOWN");
}

#[tokio::test]
async fn an_alias_leads_to_those_who_are_left_when_its_server_has_gone() {
    let world = World::new();
    let (a, b, c) = (
        world.server(A).await,
        world.server(B).await,
        world.server(C).await,
    );
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let carol = Person::new(&c, "carol").await;
    let room = json!({ "preset": "public_chat", "room_alias_name": "bazaar" });
    let room = alice.create(room).await;
    bob.join(&room, &[A]).await.ok();
    let path = "/directory/room/%23bazaar:a.example";
    let servers = async |who: &Person| who.get(path).await.ok()["servers"].clone();
    for who in [&alice, &carol] {
        assert_eq!(servers(who).await, json!([A, B]));
    }
    alice.leave(&room).await.ok();
    for who in [&alice, &carol] {
        assert_eq!(servers(who).await, json!([B]));
    }
    carol.join("#bazaar:a.example", &[]).await.ok();
    assert_eq!(carol.membership(&room, &bob).await, "join");
}

#[tokio::test]
async fn who_may_not_is_told_what_the_room_says() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    bob.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let ban = json!({ "user_id": bob.user_id });
    alice.post(&format!("/rooms/{room}/ban"), ban).await.ok();
    bob.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
    let acl = json!({ "allow": ["*"], "deny": ["b.example"] });
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    alice.set(&room, "m.room.server_acl", acl).await;
    bob.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_room_that_all_of_ours_left_is_joined_anew() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice
        .create(json!({ "preset": "public_chat", "name": "One" }))
        .await;
    bob.join(&room, &[A]).await.ok();
    bob.leave(&room).await.ok();
    assert!(bob.rooms("leave").await[&room].is_object());
    alice
        .set(&room, "m.room.name", json!({ "name": "Two" }))
        .await;
    alice
        .set(&room, "m.room.topic", json!({ "topic": "New" }))
        .await;
    bob.join(&room, &[A]).await.ok();
    let name = bob
        .get(&format!("/rooms/{room}/state/m.room.name/"))
        .await
        .ok();
    assert_eq!(name["name"], "Two");
    let topic = bob
        .get(&format!("/rooms/{room}/state/m.room.topic/"))
        .await
        .ok();
    assert_eq!(topic["topic"], "New");
    assert!(bob.rooms("join").await[&room].is_object());
}

#[tokio::test]
async fn what_people_keep_of_a_room_goes_on_in_the_one_that_replaces_it() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    bob.join(&room, &[A]).await.ok();
    let tag = |room: &str| format!("/user/{}/rooms/{room}/tags/u.work", bob.user_id);
    bob.put(&tag(&room), json!({ "order": 0.5 })).await.ok();
    let upgrade = json!({ "new_version": "12" });
    let upgraded = alice
        .post(&format!("/rooms/{room}/upgrade"), upgrade)
        .await
        .ok();
    let new = upgraded["replacement_room"].as_str().unwrap().to_owned();
    bob.join(&new, &[A]).await.ok();
    // It is done by a job, soon.
    let path = format!("/user/{}/rooms/{new}/tags", bob.user_id);
    let mut tags = json!({});
    for _ in 0..1_000 {
        tags = bob.get(&path).await.ok()["tags"].clone();
        if tags["u.work"].is_object() {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(tags["u.work"]["order"], 0.5);
}

#[tokio::test]
async fn two_who_come_at_once_come_both() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let alice = Person::new(&a, "alice").await;
    let (bob, beth) = (Person::new(&b, "bob").await, Person::new(&b, "beth").await);
    let room = alice.create(json!({ "preset": "public_chat" })).await;
    let via = [A];
    let (one, two) = tokio::join!(bob.join(&room, &via), beth.join(&room, &via));
    one.ok();
    two.ok();
    assert_eq!(bob.membership(&room, &beth).await, "join");
    let asked = world.network.asked_of(&name(A));
    let joins = asked.iter().filter(|what| what.contains("/send_join/"));
    assert_eq!(joins.count(), 1, "the second one came into a room of ours");
}

#[tokio::test]
async fn servers_are_asked_first_whose_people_may_vouch() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let beth = Person::new(&b, "beth").await;
    let club = alice.create(json!({ "preset": "public_chat" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    let room = json!({
        "preset": "public_chat", "initial_state": state, "room_version": "12",
        "power_level_content_override": { "invite": 50 },
    });
    let room = alice.create(room).await;
    let others: Vec<_> = (0..8).map(|n| format!("other{n}.example")).collect();
    for other in &others {
        let server = world.server(other).await;
        for member in ["one", "two"] {
            let member = Person::new(&server, member).await;
            alice.invite(&room, &member).await.ok();
            member.join(&room, &[A]).await.ok();
        }
    }
    alice.invite(&room, &bob).await.ok();
    bob.join(&room, &[A]).await.ok();
    beth.join(&club, &[A]).await.ok();
    beth.join(&room, &[]).await.ok();
    for other in &others {
        let asked = world.network.asked_of(&name(other));
        let asked = asked.iter().find(|path| path.contains("/make_join/"));
        assert_eq!(asked, None, "{other}");
    }
    // Whom the client names is asked all the same, and before.
    let c = world.server(C).await;
    let (cora, carol) = (
        Person::new(&c, "cora").await,
        Person::new(&c, "carol").await,
    );
    alice.invite(&room, &cora).await.ok();
    cora.join(&room, &[A]).await.ok();
    carol.join(&club, &[A]).await.ok();
    carol.join(&room, &[&others[0]]).await.ok();
    let asked = world.network.asked_of(&name(&others[0]));
    assert!(
        asked.iter().any(|path| path.contains("/make_join/")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_restricted_room_lets_in_who_is_in_the_other_one() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (c, d) = (world.server(C).await, world.server("d.example").await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let (beth, carol) = (
        Person::new(&b, "beth").await,
        Person::new(&c, "carol").await,
    );
    let dave = Person::new(&d, "dave").await;
    let club = alice.create(json!({ "preset": "public_chat" })).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    let state = json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    let room = json!({
        "preset": "public_chat", "initial_state": state, "room_version": "12",
        "power_level_content_override": { "invite": 50 },
    });
    let room = alice.create(room).await;
    beth.join(&room, &[A]).await.refused(403, "M_FORBIDDEN");
    beth.join(&club, &[A]).await.ok();
    alice.invite(&room, &bob).await.ok();
    bob.join(&room, &[]).await.ok();
    // Nobody of B may let her in, but A has somebody.
    beth.join(&room, &[]).await.ok();
    let path = format!("/rooms/{room}/state/m.room.member/{}", beth.user_id);
    let member = beth.get(&path).await.ok();
    let voucher = "join_authorised_via_users_server";
    assert_eq!(member[voucher], alice.user_id.as_str());
    // Of her B does not know that she is in the club, of him it does: and then it has nobody either.
    carol.join(&club, &[A]).await.ok();
    carol.join(&room, &[B]).await.refused(403, "M_FORBIDDEN");
    dave.join(&club, &[B]).await.ok();
    dave.join(&room, &[B])
        .await
        .refused(400, "M_UNABLE_TO_GRANT_JOIN");
    carol.join(&room, &[B, A]).await.ok();
    let path = format!("/rooms/{room}/state/m.room.member/{}", carol.user_id);
    let member = carol.get(&path).await.ok();
    assert_eq!(member[voucher], alice.user_id.as_str());
    // A server that is in none of the rooms that open this one cannot tell.
    bob.leave(&club).await.refused(403, "M_FORBIDDEN");
    beth.leave(&club).await.ok();
    dave.join(&room, &[B])
        .await
        .refused(400, "M_UNABLE_TO_AUTHORISE_JOIN");
}
