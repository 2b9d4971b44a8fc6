//! Rooms that are for the people of one server alone: `m.federate` is `false` in them.

use federation::{Failure, Patience};
use http::Method;
use ruma::{OwnedRoomId, api::federation::space::get_hierarchy};
use serde_json::{Value, json};

use super::{A, B, Person, World, name};

/// The ids of rooms in a list.
fn ids(answer: &Value, list: &str) -> Vec<String> {
    let rooms = answer[list].as_array().unwrap().iter();
    rooms
        .map(|room| room["room_id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn nobody_elsewhere_comes_in_nor_is_invited_nor_sees_the_room() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let anna = Person::new(&a, "anna").await;
    let public = |content: Value| {
        let preset = json!({ "preset": "public_chat", "visibility": "public" });
        let mut room = preset;
        room["creation_content"] = content;
        room
    };
    for version in ["6", "11", "12"] {
        let mut closed = public(json!({ "m.federate": false }));
        closed["room_version"] = json!(version);
        let closed = alice.create(closed).await;
        bob.join(&closed, &[A]).await.refused(403, "M_FORBIDDEN");
        alice
            .invite(&closed, &bob)
            .await
            .refused(403, "M_FORBIDDEN");
        let asked = world.network.asked_of(&name(B));
        assert!(!asked.iter().any(|what| what.contains("/invite/")));
        anna.join(&closed, &[]).await.ok();
    }
    let open = alice.create(public(json!({ "m.federate": true }))).await;
    let here = alice.get("/publicRooms").await.ok();
    assert_eq!(ids(&here, "chunk").len(), 4);
    let there = bob.get(&format!("/publicRooms?server={A}")).await.ok();
    assert_eq!(ids(&there, "chunk"), [open.as_str()]);
    let filter = json!({ "filter": { "room_types": [null] } });
    let there = bob.post(&format!("/publicRooms?server={A}"), filter).await;
    assert_eq!(ids(&there.ok(), "chunk"), [open.as_str()]);

    let closed = ids(&here, "chunk").into_iter().find(|id| *id != open);
    let closed = closed.unwrap();
    let space = alice.create(public(json!({ "type": "m.space" }))).await;
    for child in [&open, &closed] {
        let path = format!("/rooms/{space}/state/m.space.child/{child}");
        alice.put(&path, json!({ "via": [A] })).await.ok();
    }
    let path = format!("/_matrix/client/v1/rooms/{space}/hierarchy");
    let here = alice.ask(Method::GET, &path, &json!({})).await.ok();
    assert_eq!(ids(&here, "rooms").len(), 3);
    let hierarchy = async |room: &str| {
        let room = OwnedRoomId::try_from(room).unwrap();
        let question = get_hierarchy::v1::Request::new(room);
        b.federation.ask(&name(A), question, Patience::QUERY).await
    };
    let told = hierarchy(&space).await.unwrap();
    let children = told.children.iter().map(|child| child.room_id.as_str());
    assert_eq!(children.collect::<Vec<_>>(), [open.as_str()]);
    let refused = hierarchy(&closed).await;
    assert!(
        matches!(&refused, Err(Failure::Refused(refusal)) if refusal.errcode() == "M_NOT_FOUND"),
        "{refused:?}"
    );
}
