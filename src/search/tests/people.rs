//! Who is found by whom, people of other servers among them.

use std::{collections::BTreeMap, sync::Arc};

use rooms::{Incoming, Preset, Received, Room, Standing};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedUserId, UInt, events::StateEventType};
use serde_json::{json, value::to_raw_value};
use storage::schema;

use super::World;

/// Somebody of another server joins a room of ours, which lets everybody in.
async fn join_from_afar(world: &World, room: &Arc<Room>, user: &str, name: &str) {
    let user: OwnedUserId = user.try_into().unwrap();
    let snapshot = world.rooms.snapshot().await.unwrap();
    let head = snapshot
        .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
        .await
        .unwrap()
        .remove(0)
        .unwrap()
        .value;
    let keys = [
        StateEventType::RoomCreate,
        StateEventType::RoomPowerLevels,
        StateEventType::RoomJoinRules,
    ]
    .map(|event_type| (event_type, String::new()));
    let numbers = room
        .numbers_now(&world.rooms, &snapshot, head.generation, &keys)
        .await
        .unwrap();
    let numbers: Vec<_> = numbers.into_iter().flatten().collect();
    let auth = room.read_state(&snapshot, &numbers).await.unwrap();
    let auth_events = auth
        .into_iter()
        .flatten()
        .map(|event| event.row.header.event_id.try_into().unwrap());
    let content = json!({ "membership": "join", "displayname": name });
    let draft = pdu::Draft {
        room_id: Some(room.room_id.clone()),
        event_type: "m.room.member".into(),
        state_key: Some(user.to_string()),
        content: to_raw_value(&content).unwrap(),
        prev_events: vec![head.extremities[0].event_id.as_str().try_into().unwrap()],
        auth_events: auth_events.collect(),
        depth: head.extremities[0].depth + 1,
        origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_u32)),
        redacts: None,
        reference_hashes: BTreeMap::new(),
        sender: user.clone(),
    };
    let key = pdu::SigningKey::from_seed(&[2; 32], "2").unwrap();
    let pdu = draft.sign(room.rules, &key, user.server_name()).unwrap();
    let incoming = Incoming {
        pdu: Arc::new(pdu),
        standing: Standing::Live { state_before: None },
    };
    let received = world.rooms.receive(room, incoming).await.unwrap();
    assert_eq!(received, Received::Accepted);
}

async fn names(world: &World, person: usize, term: &str) -> Vec<String> {
    let found = world.find_people(person, term).await.into_iter();
    found
        .map(|person| person.display_name.unwrap_or(person.user_id.to_string()))
        .collect()
}

#[tokio::test]
async fn people_of_other_servers_are_found_by_their_names_where_one_sees_them() {
    let world = World::new(&["alice", "bob", "carol"]).await;
    let open = world.room(0, Preset::PublicChat, "shared").await;
    let closed = world.room(0, Preset::PublicChat, "shared").await;
    join_from_afar(&world, &open, "@zoe:far.example", "Zoë of the hills").await;
    join_from_afar(&world, &closed, "@zoe:far.example", "Zoë in private").await;
    world.join(&closed, 1).await;
    let rules = json!({ "join_rule": "invite" });
    world
        .set(&closed, 0, "m.room.join_rules", "", rules)
        .await
        .unwrap();
    // Alice and Bob see both of her names, Carol the one that is public.
    assert_eq!(names(&world, 1, "zoe private").await, ["Zoë in private"]);
    assert_eq!(names(&world, 1, "zoe hil").await, ["Zoë of the hills"]);
    assert_eq!(names(&world, 2, "zoe hil").await, ["Zoë of the hills"]);
    assert_eq!(names(&world, 2, "private").await, Vec::<String>::new());
    for term in ["@zoe:far.example", "zoe far", "@zo"] {
        assert_eq!(names(&world, 2, term).await.len(), 1, "{term}");
    }
    assert_eq!(names(&world, 2, "far").await, Vec::<String>::new());
    // She is told only once, however many rooms one shares with her.
    assert_eq!(names(&world, 0, "zoe").await.len(), 1);
}

#[tokio::test]
async fn a_room_that_all_of_ours_left_says_nothing_of_its_members() {
    let world = World::new(&["alice", "bob"]).await;
    let room = world.room(0, Preset::PublicChat, "shared").await;
    join_from_afar(&world, &room, "@zoe:far.example", "Zoë").await;
    assert_eq!(names(&world, 1, "zoe").await, ["Zoë"]);
    let said = rooms::Said::default();
    world.rooms.leave(&room, world.id(0), said).await.unwrap();
    assert_eq!(names(&world, 1, "zoe").await, Vec::<String>::new());
    world.join(&room, 1).await;
    assert_eq!(names(&world, 1, "zoe").await, ["Zoë"]);
    assert_eq!(names(&world, 0, "zoe").await, ["Zoë"]);
}
