//! Which servers are told of what happens in rooms.

use ruma::events::receipt::ReceiptThread;
use storage::schema::{DESTINATION_BY_POSITION, ReceiptKind};

use super::*;

#[tokio::test]
async fn servers_hear_of_a_room_from_their_join_to_the_kick_of_their_last_member() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.say(&room, "before").await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.say(&room, "both in").await;
    world.far_member(&room, "@c:c.example", "join").await;
    world.say(&room, "all in").await;
    world.kick(&room, "@b:b.example").await;
    world.say(&room, "without b").await;
    world.far_member(&room, "@c:c.example", "leave").await;
    world.say(&room, "alone").await;
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), ["both in", "all in"]);
    assert_eq!(world.network.bodies("c.example"), ["all in", "without b"]);
    let last = world.network.all("b.example", "pdus").pop().unwrap();
    assert_eq!(
        last["content"]["membership"], "leave",
        "it hears of the kick"
    );
    let pdus = world.network.all("c.example", "pdus");
    assert!(
        pdus.iter().all(|pdu| pdu["sender"] != "@c:c.example"),
        "what it made itself it is not told"
    );
    let taken = world.network.0.lock().transactions.len();
    world.send_all().await;
    assert_eq!(world.network.0.lock().transactions.len(), taken, "once");
    assert_eq!(world.count(&DESTINATION_BY_POSITION).await, 0);
}

#[tokio::test]
async fn an_invite_is_not_told_to_who_is_invited_and_its_end_is() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    let member = |membership: &str| json!({ "membership": membership });
    world
        .set(&room, "m.room.member", "@b:b.example", member("invite"))
        .await;
    world.send_all().await;
    assert!(world.network.taken("b.example").is_empty());
    world.kick(&room, "@b:b.example").await;
    world.send_all().await;
    assert_eq!(world.network.all("b.example", "pdus").len(), 1);
}

#[tokio::test]
async fn a_server_that_is_far_behind_the_stream_gets_what_it_may_have() {
    // All of it is read after all of it happened.
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@c:c.example", "join").await;
    let mut expected = Vec::new();
    for n in 0..30 {
        world.far_member(&room, "@b:b.example", "join").await;
        expected.push(format!("in {n}"));
        world.say(&room, &format!("in {n}")).await;
        world.far_member(&room, "@b:b.example", "leave").await;
        world.say(&room, &format!("out {n}")).await;
    }
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), expected);
    assert_eq!(world.network.bodies("c.example").len(), 60);
}

#[tokio::test]
async fn typing_receipts_and_presence_are_told_and_private_receipts_never() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    let (first, second) = (world.say(&room, "one").await, world.say(&room, "two").await);
    world.send_all().await;
    let mut doings = world.rooms.listen();
    let alice = &world.people[0];
    world
        .rooms
        .typing()
        .set(&room, &alice.user_id, Some(Duration::from_secs(20)));
    let receipt = |kind, event_id: &OwnedEventId, thread| rooms::NewReceipt {
        kind,
        event_id: event_id.clone(),
        thread,
    };
    let wish = rooms::ReadUpTo {
        receipts: vec![
            receipt(ReceiptKind::Read, &first, ReceiptThread::Unthreaded),
            receipt(ReceiptKind::Read, &second, ReceiptThread::Main),
            receipt(ReceiptKind::ReadPrivate, &second, ReceiptThread::Unthreaded),
        ],
        fully_read: None,
    };
    world.rooms.read_up_to(&room, alice, &wish).await.unwrap();
    let online = ruma::presence::PresenceState::Online;
    let said = Some("here".to_owned());
    world.rooms.set_presence(alice, online, said).await.unwrap();
    let mut some = Vec::new();
    while let Ok(doing) = doings.try_recv() {
        some.push(doing);
    }
    world.outbox.take_doings(some).await.unwrap();
    world.send_all().await;
    let typing = world.network.edus("b.example", "m.typing");
    assert_eq!(typing.len(), 1);
    assert_eq!(typing[0]["typing"], true);
    let receipts = world.network.edus("b.example", "m.receipt");
    let of_alice = |edu: &Value| edu[room.room_id.as_str()]["m.read"]["@alice:a.example"].clone();
    let mut told: Vec<_> = receipts.iter().map(of_alice).collect();
    told.sort_by_key(|told| told["data"]["thread_id"].to_string());
    assert_eq!(told.len(), 2, "an EDU has one of each user: {receipts:?}");
    assert_eq!(told[0]["data"]["thread_id"], "main");
    assert_eq!(told[0]["event_ids"], json!([second]));
    assert_eq!(told[1]["event_ids"], json!([first]));
    assert!(!json!(receipts).to_string().contains("m.read.private"));
    let presence = world.network.edus("b.example", "m.presence");
    assert_eq!(presence[0]["push"][0]["status_msg"], "here");
    assert_eq!(presence[0]["push"][0]["user_id"], "@alice:a.example");
}

/// Alice reads up to an event.
async fn read(world: &World, room: &Arc<Room>, event_id: OwnedEventId) {
    let wish = rooms::ReadUpTo {
        receipts: vec![rooms::NewReceipt {
            kind: ReceiptKind::Read,
            event_id,
            thread: ReceiptThread::Unthreaded,
        }],
        fully_read: None,
    };
    let alice = &world.people[0];
    world.rooms.read_up_to(room, alice, &wish).await.unwrap();
}

/// How many PDUs and EDUs are in each of some transactions.
fn kinds(transactions: &[Value]) -> Vec<(usize, usize)> {
    let count = |one: &Value, kind: &str| one[kind].as_array().map_or(0, Vec::len);
    let transactions = transactions.iter();
    transactions
        .map(|one| (count(one, "pdus"), count(one, "edus")))
        .collect()
}

#[tokio::test]
async fn a_receipt_follows_the_event_that_was_read() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.send_all().await;
    let mut doings = world.rooms.listen();
    let said = world.say(&room, "one").await;
    read(&world, &room, said).await;
    world.outbox.look().await.unwrap();
    let read = vec![doings.try_recv().unwrap()];
    world.outbox.take_doings(read).await.unwrap();
    let before = world.network.taken("b.example").len();
    world.send_all().await;
    let sent = world.network.taken("b.example").split_off(before);
    assert_eq!(kinds(&sent), [(1, 0), (0, 1)]);
}

#[tokio::test]
async fn who_reads_all_the_time_is_told_of_where_events_are_told_all_the_time() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.send_all().await;
    let before = world.network.taken("b.example").len();
    let mut doings = world.rooms.listen();
    // Each is read before the next transaction is sent.
    for text in ["one", "two"] {
        let said = world.say(&room, text).await;
        read(&world, &room, said).await;
        world.outbox.look().await.unwrap();
        let read = vec![doings.try_recv().unwrap()];
        world.outbox.take_doings(read).await.unwrap();
        let (due, _) = world.outbox.due(1);
        world.outbox.send_one(&due[0]).await;
    }
    let sent = world.network.taken("b.example").split_off(before);
    assert_eq!(kinds(&sent), [(1, 0), (1, 1)]);
}

#[tokio::test]
async fn who_comes_into_a_room_is_told_who_is_there() {
    let world = World::new(&["alice", "anne", "away"]).await;
    let room = world.room(0).await;
    let (online, none) = (ruma::presence::PresenceState::Online, None);
    let alice = &world.people[0];
    let present = world
        .rooms
        .set_presence(alice, online.clone(), none.clone());
    present.await.unwrap();
    let away = Said::default();
    world
        .rooms
        .join(&room, world.id(2), &[], away)
        .await
        .unwrap();
    let mut doings = world.rooms.listen();
    let tell = async |doings: &mut tokio::sync::broadcast::Receiver<rooms::Doing>| {
        let mut some = Vec::new();
        while let Ok(doing) = doings.try_recv() {
            some.push(doing);
        }
        world.outbox.take_doings(some).await.unwrap();
        world.send_all().await;
    };
    let told = |server: &str| {
        let edus = world.network.edus(server, "m.presence").into_iter();
        let people = edus.flat_map(|edu| edu["push"].as_array().unwrap().clone());
        let mut people: Vec<_> = people
            .map(|one| one["user_id"].as_str().unwrap().to_owned())
            .collect();
        people.sort();
        people
    };
    world.far_member(&room, "@b:b.example", "join").await;
    tell(&mut doings).await;
    assert_eq!(told("b.example"), ["@alice:a.example"]);
    // The next one of that server is nothing new to it.
    world.far_member(&room, "@two:b.example", "join").await;
    tell(&mut doings).await;
    assert_eq!(told("b.example").len(), 1);
    // Who comes in while they are there is told to those who are.
    let anne = &world.people[1];
    let present = world.rooms.set_presence(anne, online, none);
    present.await.unwrap();
    let said = Said::default();
    world
        .rooms
        .join(&room, &anne.user_id, &[], said)
        .await
        .unwrap();
    tell(&mut doings).await;
    assert_eq!(told("b.example"), ["@alice:a.example", "@anne:a.example"]);
    world.far_member(&room, "@c:c.example", "join").await;
    tell(&mut doings).await;
    assert_eq!(told("c.example"), ["@alice:a.example", "@anne:a.example"]);
    assert_eq!(told("b.example").len(), 2);
}
