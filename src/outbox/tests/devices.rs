//! Messages to devices, and changes of devices.

use ruma::{serde::Raw, to_device::DeviceIdOrAllDevices};
use storage::{
    NameHash, OnceKey,
    schema::{DESTINATION_BY_POSITION, DEVICE_NEWS_BY_DESTINATION, MESSAGE_BY_DESTINATION},
};

use super::*;

async fn send(world: &World, to: &str, number: u8) {
    let content = json!({ "number": number });
    let content = Raw::from_json(to_raw_value(&content).unwrap());
    let user = OwnedUserId::try_from(to).unwrap();
    let device = DeviceIdOrAllDevices::DeviceId("PHONE".into());
    let messages = BTreeMap::from([(user, BTreeMap::from([(device, content)]))]);
    let once = OnceKey {
        day: OnceKey::day_of(NOW),
        name: NameHash([number; 16]),
    };
    let (users, alice) = (&world.users, world.id(0));
    users
        .send_to_devices(alice, "org.example", &messages, once)
        .await
        .unwrap();
}

fn numbers(world: &World, server: &str, user: &str) -> Vec<u64> {
    let edus = world.network.edus(server, "m.direct_to_device");
    let ids: BTreeSet<_> = edus
        .iter()
        .map(|edu| edu["message_id"].to_string())
        .collect();
    assert_eq!(ids.len(), edus.len(), "each has an id of its own");
    let number = |edu: &Value| edu["messages"][user]["PHONE"]["number"].as_u64().unwrap();
    edus.iter().map(number).collect()
}

#[tokio::test]
async fn messages_to_devices_wait_for_their_server_once_and_in_order() {
    let mut world = World::new(&["alice"]).await;
    world.network.mood("b.example", Mood::Away);
    for number in 1..5 {
        send(&world, "@b:b.example", number).await;
        send(&world, "@b:b.example", number).await;
        world.send_all().await;
    }
    assert_eq!(world.count(&MESSAGE_BY_DESTINATION).await, 4);
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.restart(2);
    world.send_all().await;
    assert_eq!(numbers(&world, "b.example", "@b:b.example"), [1, 2, 3, 4]);
    assert_eq!(world.count(&MESSAGE_BY_DESTINATION).await, 0);
    assert_eq!(world.count(&DESTINATION_BY_POSITION).await, 0);
}

#[tokio::test]
async fn messages_to_devices_are_not_held_up_by_what_happens_in_rooms() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    // It is unwell whenever there is an event in a transaction.
    world.network.mood("b.example", Mood::Away);
    for text in texts(0..60) {
        world.say(&room, &text).await;
    }
    world.send_all().await;
    send(&world, "@b:b.example", 7).await;
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.send_all().await;
    let first = &world.network.taken("b.example")[0];
    assert_eq!(first["edus"][0]["edu_type"], "m.direct_to_device");
    assert_eq!(first["pdus"], json!([]));
}

/// The devices that a server was told of: their ids, the number of the change, what it follows.
fn updates(world: &World, server: &str) -> Vec<(String, u64, Vec<u64>)> {
    let edus = world.network.edus(server, "m.device_list_update");
    edus.iter()
        .map(|edu| {
            let prev = edu["prev_id"].as_array().unwrap().iter();
            (
                edu["device_id"].as_str().unwrap().to_owned(),
                edu["stream_id"].as_u64().unwrap(),
                prev.map(|id| id.as_u64().unwrap()).collect(),
            )
        })
        .collect()
}

/// Gives a person a device, or takes it away.
async fn device(world: &World, person: usize, id: &str, there: bool) {
    let key = (world.people[person].short, world.storage.device_hash(id));
    let mut batch = storage::Batch::new();
    if there {
        let row = schema::DeviceRow {
            device_id: id.to_owned(),
            display_name: None,
            created_ts: NOW,
            logins: 1,
        };
        batch.put(&schema::DEVICE_BY_USER, &key, &row);
    } else {
        batch.delete(&schema::DEVICE_BY_USER, &key);
    }
    world.storage.commit(batch).await.unwrap();
}

/// What the job does that a change of devices leaves.
async fn tell(world: &World, person: usize) {
    let short = world.people[person].short;
    let servers = BTreeSet::from([ServerName::parse("b.example").unwrap()]);
    users::publish_devices(&world.storage, short).await.unwrap();
    world
        .rooms
        .leave_device_news(short, &servers)
        .await
        .unwrap();
    world.send_all().await;
}

#[tokio::test]
async fn changes_of_devices_are_told_as_a_chain_and_whole_after_an_outage() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    for id in ["ONE", "TWO"] {
        device(&world, 0, id, true).await;
        tell(&world, 0).await;
    }
    world.network.mood("b.example", Mood::Away);
    for id in ["THREE", "FOUR"] {
        device(&world, 0, id, true).await;
        tell(&world, 0).await;
    }
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.send_all().await;
    let told = updates(&world, "b.example");
    let expected = [
        ("ONE", 1, vec![]),
        ("TWO", 2, vec![1]),
        ("THREE", 3, vec![2]),
        ("FOUR", 4, vec![3]),
    ];
    let expected = expected.map(|(id, number, prev)| (id.to_owned(), number, prev));
    assert_eq!(told, expected);
    device(&world, 0, "TWO", false).await;
    tell(&world, 0).await;
    let last = world
        .network
        .edus("b.example", "m.device_list_update")
        .pop()
        .unwrap();
    let says = [&last["device_id"], &last["deleted"], &last["prev_id"]];
    assert_eq!(says, [&json!("TWO"), &json!(true), &json!([4])]);
    tell(&world, 0).await;
    assert_eq!(updates(&world, "b.example").len(), 5, "nothing changed");
    assert_eq!(world.count(&DEVICE_NEWS_BY_DESTINATION).await, 0);
}

#[tokio::test]
async fn who_comes_into_a_room_is_told_of_to_the_servers_in_it() {
    let world = World::new(&["alice", "anna"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    device(&world, 1, "PHONE", true).await;
    world.join(&room, 1).await;
    world.send_all().await;
    let told = updates(&world, "b.example");
    assert_eq!(told, [("PHONE".to_owned(), 1, vec![])]);

    // Of a room whose members are not all known only who has keys is told.
    let other = world.room(0).await;
    world.far_member(&other, "@c:c.example", "join").await;
    world.join(&other, 1).await;
    let snapshot = world.rooms.snapshot().await.unwrap();
    let key = [other.short];
    let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &key).await;
    let mut head = heads.unwrap()[0].as_ref().unwrap().value.clone();
    head.partial = true;
    let mut batch = storage::Batch::new();
    batch.put(&schema::HEAD_BY_ROOM, &other.short, &head);
    world.storage.commit(batch).await.unwrap();
    world.send_all().await;
    assert_eq!(updates(&world, "c.example"), []);
}

#[tokio::test]
async fn who_comes_back_after_the_last_shared_room_is_told_of_anew() {
    let world = World::new(&["alice", "anna"]).await;
    let (one, two) = (world.room(0).await, world.room(0).await);
    for room in [&one, &two] {
        world.far_member(room, "@b:b.example", "join").await;
    }
    device(&world, 1, "PHONE", true).await;
    world.join(&one, 1).await;
    world.send_all().await;
    assert_eq!(updates(&world, "b.example").len(), 1);
    // It knows of her still.
    world.join(&two, 1).await;
    world.send_all().await;
    assert_eq!(updates(&world, "b.example").len(), 1);
    let anna = world.id(1).clone();
    let leave = async |room: &Arc<Room>| {
        let said = Said::default();
        world.rooms.leave(room, &anna, said).await.unwrap();
        world.send_all().await;
    };
    leave(&one).await;
    world.join(&one, 1).await;
    world.send_all().await;
    assert_eq!(updates(&world, "b.example").len(), 1);
    leave(&one).await;
    leave(&two).await;
    world.join(&two, 1).await;
    world.send_all().await;
    let whole = ("PHONE".to_owned(), 1, vec![]);
    assert_eq!(updates(&world, "b.example"), [whole.clone(), whole]);
}
