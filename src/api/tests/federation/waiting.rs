//! Events that wait for what they follow: of servers that answer slowly, and in rows that cannot be read.

use std::{sync::Arc, time::Duration};

use federation::{Federation, Patience};
use http::Method;
use pdu::{Draft, Pdu};
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId, ServerName,
    api::federation::transactions::send_transaction_message, events::StateEventType,
};
use serde_json::json;
use storage::{Batch, Position, schema};
use tokio::time::Instant;

use super::far::{FAR, NEAR, World, raw};

/// More rooms than are worked on at once, and no more than a transaction has events.
const ROOMS: usize = 40;

fn id(event: &Pdu) -> OwnedEventId {
    event.event_id().to_owned()
}

/// Sends events as a server, each of which must be taken.
async fn send(world: &World, from: &Federation, name: &str, events: &[Arc<Pdu>]) {
    let origin = from.server_name().to_owned();
    let now = world.clock.now();
    let mut question = send_transaction_message::v1::Request::new(name.into(), origin, now);
    question.pdus = events.iter().map(|event| raw(event)).collect();
    let near = ServerName::parse(NEAR).unwrap();
    let answer = from.ask(&near, question, Patience::QUERY).await.unwrap();
    assert_eq!(answer.pdus.len(), events.len());
    assert!(answer.pdus.values().all(Result::is_ok), "{answer:?}");
}

#[tokio::test]
async fn a_server_that_is_slow_in_many_rooms_is_in_nobodys_way() {
    let mut world = World::new(RoomVersionId::V11).await;
    let slow = world.network.peer("slow.example", &world.clock).await;
    let (rules, key) = (world.rules, slow.signing_keys().current());
    let sign = |draft: &Draft| Arc::new(draft.sign(rules, &key, slow.server_name()).unwrap());
    let sam: OwnedUserId = "@sam:slow.example".try_into().unwrap();
    let (mut joins, mut later) = (Vec::new(), Vec::new());
    let nowhere: OwnedEventId = format!("${}", "n".repeat(43)).try_into().unwrap();
    let mut others = Rooms::of(&world);
    for _ in 0..ROOMS {
        others.make(&mut world).await;
        let last = world.last.clone();
        let content = json!({ "membership": "join" });
        let key = Some(sam.as_str());
        let join = sign(&world.draft(&sam, "m.room.member", key, &content, &[&last]));
        let member = (StateEventType::RoomMember, sam.to_string());
        world.state.insert(member, id(&join));
        joins.push(join);
        let content = json!({ "msgtype": "m.text", "body": "wait for me" });
        let message = world.draft(&sam, "m.room.message", None, &content, &[&nowhere]);
        later.push(sign(&message));
    }
    send(&world, &slow, "joins", &joins).await;
    world.network.hush(slow.server_name());
    send(&world, &slow, "later", &later).await;
    others.back(&mut world);
    // Bob's server tells what his event follows.
    let last = world.last.clone();
    let lost = world.message("lost", &[&last]);
    let found = world.message("found", &[&id(&lost)]);
    tokio::time::pause();
    let began = Instant::now();
    world.send_raw(vec![raw(&found)]).await;
    let mut looks = 0;
    while !world.sees(&found).await && looks < 1_000 {
        looks += 1;
        tokio::task::yield_now().await;
    }
    assert!(world.sees(&found).await && world.sees(&lost).await);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

/// The room that a world is in, while it makes others.
struct Rooms {
    room: ruma::OwnedRoomId,
    state: std::collections::BTreeMap<(StateEventType, String), OwnedEventId>,
    last: OwnedEventId,
}

impl Rooms {
    fn of(world: &World) -> Self {
        Self {
            room: world.room.clone(),
            state: world.state.clone(),
            last: world.last.clone(),
        }
    }

    /// One more room of Alice, in which the world is then.
    async fn make(&mut self, world: &mut World) {
        let body = json!({ "preset": "public_chat", "room_version": world.rules.version() });
        let room = world.client(Method::POST, "/createRoom", &body).await;
        world.room = room["room_id"].as_str().unwrap().try_into().unwrap();
        world.look().await;
    }

    /// The world is in its own room again.
    fn back(self, world: &mut World) {
        world.room = self.room;
        world.state = self.state;
        world.last = self.last;
    }
}

#[tokio::test]
async fn what_cannot_be_taken_in_does_not_keep_the_rest_from_it() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let lost = world.message("lost", &[&last]);
    let found = world.message("found", &[&id(&lost)]);
    let bob = world.bob.clone();
    let content = json!({ "msgtype": "m.text", "body": "astray" });
    let mut astray = world.draft(&bob, "m.room.message", None, &content, &[&last]);
    astray.room_id = Some("!elsewhere:far.example".try_into().unwrap());
    let astray = world.sign(&astray);
    let room = world.server.rooms.room(&world.room).await.unwrap();
    let mut batch = Batch::new();
    // What nobody ever writes stands beside it, of the same server and of another one.
    for (index, (origin, event)) in [(FAR, &astray), ("no name", &astray), (FAR, &found)]
        .into_iter()
        .enumerate()
    {
        let row = schema::WaitingPduRow {
            origin: origin.to_owned(),
            json: raw(event).get().to_owned(),
        };
        let index = u16::try_from(index).unwrap();
        let key = (room.short, Position::pending(index));
        batch.put(&schema::WAITING_PDU_BY_ROOM, &key, &row);
    }
    world.server.storage.commit(batch).await.unwrap();
    tokio::time::pause();
    world.start_again().await;
    world.server.rooms.nothing_waits().await;
    assert!(world.sees(&found).await && world.sees(&lost).await);
    let range = [storage::Range::prefix(&(room.short,))];
    let snapshot = world.server.rooms.snapshot().await.unwrap();
    let left = snapshot.multi_range(&schema::WAITING_PDU_BY_ROOM, &range);
    assert!(left.await.unwrap().iter().all(Vec::is_empty));
}
