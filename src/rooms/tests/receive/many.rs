//! What many events of other servers cost: in one room, and in many. A few with the other tests; as many as servers
//! get, on a disk, with `CHAPAR_RECEIVE_EVENTS=10000 cargo test -p chapar-rooms --lib many -- --nocapture`.

use std::{sync::Arc, time::Instant};

use pdu::Pdu;
use ruma::RoomVersionId;
use storage::{Cost, Options, Storage};

use super::{World, cases::message};
use crate::{Incoming, Received};

/// Events in one room, where nobody wants more.
const FEW: usize = 200;
/// Events that a transaction holds.
const AT_ONCE: usize = 50;
/// In each of many rooms.
const IN_EACH: usize = 10;

/// Messages of somebody of afar, one after the other.
fn conversation(world: &mut World, length: usize) -> Vec<Arc<Pdu>> {
    let mut prev = world.latest();
    let mut events = Vec::with_capacity(length);
    for n in 0..length {
        let event = message(world, &format!("message number {n}"), prev);
        assert_eq!(world.model.receive(&event), "accepted");
        prev = event.event_id().to_owned();
        events.push(event);
    }
    events
}

/// Receives the events of rooms, so many at once.
async fn receive(
    storage: &Storage,
    rooms: &[(World, Vec<Arc<Pdu>>)],
    at_once: usize,
    what: &str,
) -> Cost {
    let (before, begun) = (storage.cost(), Instant::now());
    for (world, events) in rooms {
        for events in events.chunks(at_once) {
            let incoming = events.iter().map(|pdu| Incoming::live(Arc::clone(pdu)));
            let received = world.rooms.receive_all(&world.room, incoming.collect());
            let received = received.await.unwrap();
            assert!(received.iter().all(|one| *one == Received::Accepted));
        }
    }
    let cost = storage.cost() - before;
    say(&format!(
        "{what}, {at_once} at once: {:?} {cost:?}",
        begun.elapsed()
    ));
    cost
}

#[allow(clippy::print_stderr)]
fn say(text: &str) {
    eprintln!("{text}");
}

#[tokio::test]
async fn what_comes_together_is_written_together() {
    let wanted = std::env::var("CHAPAR_RECEIVE_EVENTS").ok();
    let events: usize = wanted.and_then(|n| n.parse().ok()).unwrap_or(FEW);
    let mut costs = Vec::new();
    for at_once in [1, AT_ONCE] {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::open(folder.path(), &Options::default()).unwrap();
        let mut world = World::new(storage.clone(), &RoomVersionId::V11).await;
        world.join(1).await;
        let all = world.rooms.clone();
        let told = conversation(&mut world, events);
        let rooms = [(world, told)];
        let one = receive(&storage, &rooms, at_once, "in one room").await;
        assert_eq!(one.commits, events.div_ceil(at_once) as u64);
        let mut rooms = Vec::new();
        for _ in 0..events / IN_EACH {
            let mut world = World::on(all.clone(), &RoomVersionId::V11).await;
            world.join(1).await;
            let told = conversation(&mut world, IN_EACH);
            rooms.push((world, told));
        }
        let many = receive(&storage, &rooms, at_once, "in many rooms").await;
        let commits = rooms.len() * IN_EACH.div_ceil(at_once);
        assert_eq!(many.commits, commits as u64);
        costs.push(one.bytes_written + many.bytes_written);
    }
    // The head and the tail are written once for all that come together.
    assert!(costs[1] < costs[0], "{costs:?}");
}
