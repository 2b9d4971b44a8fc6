//! What the tree costs: printed (`cargo test -p chapar-pdu cost -- --nocapture`) and asserted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::collections::HashMap;

use super::{
    update::{build_shaped, update_shaped},
    *,
};
use crate::Step;

/// State events besides members: create, power levels, join rules, …
const OTHERS: u32 = 10;

struct Room {
    key: HashKey,
    leaf_max: usize,
    members: u32,
    root: NodeHash,
    rows: HashMap<NodeHash, Vec<u8>>,
}

/// What one operation cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    trips: usize,
    read: usize,
    written: usize,
    bytes: usize,
}

impl Room {
    fn new(members: u32, leaf_max: usize) -> Self {
        let key = HashKey::for_room(&[3; 32], [9; 8]);
        // Each member joined with an event of its own, among others.
        let entries = (0..members + OTHERS).map(|n| (member(&key, n), EventNumber(3 * n)));
        let built = build_shaped(entries, &key, leaf_max).unwrap();
        Self {
            key,
            leaf_max,
            members,
            root: built.root,
            rows: built.nodes.into_iter().collect(),
        }
    }

    fn run<T>(
        &self,
        mut algorithm: impl FnMut(&Nodes) -> Result<Step<T, NodeHash>, TreeError>,
    ) -> (T, Cost) {
        let mut nodes = Nodes::new();
        let mut cost = Cost::default();
        loop {
            match algorithm(&nodes).unwrap() {
                Step::Done(result) => return (result, cost),
                Step::Need(hashes) => {
                    cost.trips += 1;
                    cost.read += hashes.len();
                    for hash in hashes {
                        nodes.insert(hash, &self.rows[&hash]).unwrap();
                    }
                }
            }
        }
    }

    /// The state after one event for each of these members.
    fn change(&mut self, members: impl Iterator<Item = u32>) -> (NodeHash, Cost) {
        let number = EventNumber(4 * self.members + 100);
        let changes: Vec<_> = members
            .map(|n| (member(&self.key, n), Some(number)))
            .collect();
        let (update, mut cost) =
            self.run(|nodes| update_shaped(self.root, &changes, nodes, &self.key, self.leaf_max));
        cost.written = update.nodes.len();
        cost.bytes = update.nodes.iter().map(|(_, bytes)| bytes.len()).sum();
        self.rows.extend(update.nodes);
        (update.root, cost)
    }

    /// Mean and most of one state event: a member that changes, or a new one.
    fn state_event(&mut self) -> (Cost, Cost) {
        let tries = 200.min(self.members);
        let mut sum = Cost::default();
        let mut most = Cost::default();
        for at in 0..tries {
            // Half of them are of members already there.
            let n = if at % 2 == 0 {
                at * self.members / tries
            } else {
                self.members + OTHERS + at
            };
            let (_, cost) = self.change([n].into_iter());
            sum.trips += cost.trips;
            sum.read += cost.read;
            sum.written += cost.written;
            sum.bytes += cost.bytes;
            most.trips = most.trips.max(cost.trips);
            most.read = most.read.max(cost.read);
            most.written = most.written.max(cost.written);
            most.bytes = most.bytes.max(cost.bytes);
        }
        let tries = usize::try_from(tries).unwrap();
        let mean = Cost {
            trips: sum.trips / tries,
            read: sum.read / tries,
            written: sum.written / tries,
            bytes: sum.bytes / tries,
        };
        (mean, most)
    }
}

fn member(key: &HashKey, n: u32) -> StateKeyHash {
    StateKeyHash::new(key, "m.room.member", &format!("@user{n}:example.org"))
}

/// Bytes and nodes written per state event, with the leaf size chosen and with others.
#[test]
fn cost_of_a_state_event() {
    println!(
        "leaf | members | rows | bytes of all | an event: mean bytes, nodes | most bytes, nodes"
    );
    for leaf_max in [8, 16, LEAF_MAX, 64] {
        for members in [10, 100, 1_000, 10_000, 100_000] {
            let mut room = Room::new(members, leaf_max);
            let rows = room.rows.len();
            let bytes: usize = room.rows.values().map(Vec::len).sum();
            let (mean, most) = room.state_event();
            println!(
                "{leaf_max:4} | {members:7} | {rows:5} | {bytes:8} | {:5} {:2} | {:5} {:2}",
                mean.bytes, mean.written, most.bytes, most.written
            );
            if leaf_max == LEAF_MAX {
                let (bytes, depth, of_all) = match members {
                    10 => (450, 1, 1),
                    100 => (600, 2, 17),
                    1_000 => (1_000, 3, 300),
                    10_000 => (1_700, 4, 4_000),
                    _ => (1_900, 5, 8_000),
                };
                assert!(most.bytes <= bytes, "{members} members: {most:?}");
                // A leaf that grows beyond its limit becomes a branch and up to 16 leaves.
                assert!(mean.written <= depth, "{members} members: {mean:?}");
                assert!(most.written <= depth + 16, "{members} members: {most:?}");
                // Cold, the nodes read are those of the old path, a level a trip.
                assert!(
                    most.read <= depth && most.trips <= depth,
                    "{members} members: {most:?}"
                );
                assert!(rows <= of_all, "{members} members: {rows} rows");
            }
        }
    }
}

/// Keys read per diff: the paths to what differs on both sides, whatever the size of the room.
#[test]
fn cost_of_a_diff() {
    println!("members | differences | trips | nodes read");
    for members in [10, 1_000, 100_000] {
        let mut room = Room::new(members, LEAF_MAX);
        let depth = match members {
            10 => 1,
            1_000 => 3,
            _ => 5,
        };
        for differences in [0, 1, 10, 100] {
            let stride = (members / differences.max(1)).max(1);
            let chosen: Vec<_> = (0..members)
                .step_by(stride as usize)
                .take(differences as usize)
                .collect();
            let (other, _) = room.change(chosen.iter().copied());
            let (found, cost) = room.run(|nodes| diff(room.root, other, nodes));
            assert_eq!(found.len(), chosen.len());
            println!(
                "{members:7} | {:11} | {:5} | {:5}",
                found.len(),
                cost.trips,
                cost.read
            );
            assert!(
                cost.read <= 2 * depth * found.len(),
                "{members} members: {cost:?}"
            );
            assert!(cost.trips <= depth, "{members} members: {cost:?}");
        }
    }
}

/// That there are too many differences is known from the counts, long before they are read.
#[test]
fn cost_of_too_many_differences() {
    let mut room = Room::new(100_000, LEAF_MAX);
    let small = build(
        (0..50).map(|n| (member(&room.key, n), EventNumber(n))),
        &room.key,
    )
    .unwrap();
    room.rows.extend(small.nodes);
    let (result, cost) = room.run(|nodes| diff_within(small.root, room.root, 100, nodes));
    assert_eq!(result, Bounded::TooMany);
    println!("a state of 50 and one of 100,000: {cost:?}");
    assert!(cost.read <= 2, "{cost:?}");

    let (other, _) = room.change((0..5_000).map(|n| n * 17));
    let (result, cost) = room.run(|nodes| diff_within(room.root, other, 100, nodes));
    assert_eq!(result, Bounded::TooMany);
    println!("5,000 of 100,000 members differ: {cost:?}");
    assert!(cost.read <= 2 * (1 + 16), "{cost:?}");
}

/// One key of many states is found with one read a level and state.
#[test]
fn cost_of_a_find() {
    for members in [10, 1_000, 100_000] {
        let mut room = Room::new(members, LEAF_MAX);
        let roots: Vec<_> = (0..5).map(|n| room.change([n].into_iter()).0).collect();
        let asked: Vec<_> = roots
            .iter()
            .map(|root| (*root, member(&room.key, 7)))
            .collect();
        let (found, cost) = room.run(|nodes| find(&asked, nodes));
        assert_eq!(found, vec![Some(EventNumber(21)); 5]);
        println!("{members:7} members, one key in 5 states: {cost:?}");
        assert!(
            cost.trips <= 5 && cost.read <= 5 * cost.trips,
            "{members} members: {cost:?}"
        );
    }
}
