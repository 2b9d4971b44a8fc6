//! What events of other servers cost: their round trips.

use std::sync::Arc;

use pdu::Pdu;
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};
use storage::{Cost, Storage};

use super::{VERSIONS, World, alice, person};
use crate::{Incoming, Received, Standing};

/// People of afar in the rooms: their trees are two levels deep.
const PEOPLE: u8 = 60;
/// How deep the trees of such a room are.
const LEVELS: u64 = 2;
/// The head with what the event names, their rows; then the events in conflict, and what these name.
const FORK: u64 = 4;
/// What stands behind those.
const CONFLICTED: u64 = 1;

/// State that somebody sets: who, of which type, under which key, to what.
type State = (u8, &'static str, String, Value);

fn topic(sender: u8, topic: &str) -> State {
    let content = json!({ "topic": topic });
    (sender, "m.room.topic", String::new(), content)
}

fn member(sender: u8, target: u8, membership: &str) -> State {
    let content = json!({ "membership": membership });
    let target = person(target).to_string();
    (sender, "m.room.member", target, content)
}

/// Levels by which `target` has one; creators of rooms since version 12 have no need of one.
fn levels(sender: u8, target: u8, level: u8, creator: bool) -> State {
    let mut users = json!({ person(1).as_str(): 50, person(target).as_str(): level });
    if creator {
        users[alice().as_str()] = json!(100);
    }
    let content = json!({ "users": users });
    (sender, "m.room.power_levels", String::new(), content)
}

struct Fork {
    storage: Storage,
    world: World,
    prev: OwnedEventId,
}

impl Fork {
    /// A room of many people, the first of whom may set its state.
    async fn new(version: &RoomVersionId) -> Self {
        let storage = Storage::model();
        let mut world = World::new(storage.clone(), version).await;
        for n in 1..PEOPLE {
            world.join(n).await;
        }
        let prev = world.latest();
        let mut fork = Self {
            storage,
            world,
            prev,
        };
        for state in [
            levels(0, 1, 50, *version != RoomVersionId::V12),
            topic(0, "before"),
        ] {
            let event = fork.state(&state);
            fork.take(&event).await;
            fork.prev = event.event_id().to_owned();
        }
        fork
    }

    fn state(&mut self, (sender, event_type, key, content): &State) -> Arc<Pdu> {
        let prev = vec![self.prev.clone()];
        let key = Some(key.clone());
        self.world
            .make(*sender, event_type, key, content, prev, None)
    }

    fn message(&mut self, sender: u8, prev: Vec<OwnedEventId>) -> Arc<Pdu> {
        let content = json!({ "msgtype": "m.text", "body": "hello" });
        self.world
            .make(sender, "m.room.message", None, &content, prev, None)
    }

    /// What it costs to receive an event, whatever becomes of it.
    async fn take(&mut self, event: &Arc<Pdu>) -> Cost {
        let expected = self.world.model.receive(event);
        let before = self.storage.cost();
        let live = Standing::Live { state_before: None };
        let received = self.world.take(event, live).await;
        let cost = self.storage.cost() - before;
        let received = match received {
            Received::Accepted => "accepted",
            Received::SoftFailed(_) => "soft-failed",
            Received::Rejected(_) => "rejected",
            other => panic!("{other:?}"),
        };
        assert_eq!(received, expected);
        assert_eq!(cost.commits, 1);
        cost
    }
}

#[tokio::test]
async fn a_fork_costs_few_round_trips() {
    for version in VERSIONS {
        // Two say something at once; then somebody answers both.
        let mut fork = Fork::new(&version).await;
        let prev = vec![fork.prev.clone()];
        let (one, other) = (fork.message(2, prev.clone()), fork.message(3, prev));
        fork.take(&one).await;
        let cost = fork.take(&other).await;
        assert!(cost.round_trips <= 3, "room version {version}: {cost:?}");
        let both = [&one, &other].map(|event| event.event_id().to_owned());
        let answer = fork.message(2, both.to_vec());
        let cost = fork.take(&answer).await;
        assert!(cost.round_trips <= 3, "room version {version}: {cost:?}");
    }
}

#[tokio::test]
async fn many_that_come_together_cost_one_commit() {
    for version in VERSIONS {
        let mut fork = Fork::new(&version).await;
        let mut prev = fork.prev.clone();
        let mut events = Vec::new();
        for n in 0..50 {
            // Of several people, and some of it state.
            let event = match n % 10 {
                9 => {
                    fork.prev = prev.clone();
                    fork.state(&topic(1, &n.to_string()))
                }
                _ => fork.message(2 + n % 3, vec![prev.clone()]),
            };
            assert_eq!(fork.world.model.receive(&event), "accepted");
            prev = event.event_id().to_owned();
            events.push(event);
        }
        let before = fork.storage.cost();
        let incoming = events.iter().map(|pdu| Incoming::live(Arc::clone(pdu)));
        let (rooms, room) = (&fork.world.rooms, &fork.world.room);
        let received = rooms.receive_all(room, incoming.collect()).await.unwrap();
        assert!(received.iter().all(|one| *one == Received::Accepted));
        let cost = fork.storage.cost() - before;
        assert_eq!(cost.commits, 1, "room version {version}: {cost:?}");
        // Three for all of them, and the way down the tree.
        let most = 4 + LEVELS;
        assert!(cost.round_trips <= most, "room version {version}: {cost:?}");
        fork.world.compare().await;
    }
}

#[tokio::test]
async fn a_resolution_costs_few_round_trips() {
    for version in VERSIONS {
        let creator = version != RoomVersionId::V12;
        for (one, other) in [
            (topic(0, "one"), topic(1, "two")),
            (topic(0, "one"), member(4, 4, "leave")),
            (member(0, 1, "leave"), topic(1, "two")),
            (member(0, 5, "ban"), member(5, 5, "leave")),
            (levels(0, 2, 25, creator), levels(1, 3, 25, creator)),
            (levels(0, 1, 0, creator), member(1, 6, "ban")),
        ] {
            let mut fork = Fork::new(&version).await;
            let late = fork.message(7, vec![fork.prev.clone()]);
            let (one, other) = (fork.state(&one), fork.state(&other));
            fork.take(&one).await;
            // The other side of the fork, then somebody who knows neither, then one who knows both.
            let other_cost = fork.take(&other).await;
            let late_cost = fork.take(&late).await;
            let both = [&one, &other].map(|event| event.event_id().to_owned());
            let answer = fork.message(2, both.to_vec());
            let answer_cost = fork.take(&answer).await;
            for cost in [other_cost, late_cost, answer_cost] {
                let most = FORK + CONFLICTED + LEVELS;
                assert!(cost.round_trips <= most, "room version {version}: {cost:?}");
            }
        }
    }
}
