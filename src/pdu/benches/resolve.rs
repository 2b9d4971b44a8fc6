//! Time of resolving a small fork in rooms of 100, 1,000 and 10,000 members: by differences as rooms do it,
//! all rounds together, and by whole maps as ruma does it, its auth chains ready made.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

#[path = "../tests/resolution/crowd.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "../tests/resolution/room.rs"]
mod room;

use std::{collections::BTreeMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pdu::{
    EventNumber, Step,
    resolve::{Differences, Facts, Need, Reach, Resolution, StateMap, resolve},
};
use ruma::{
    EventId, OwnedEventId,
    room_version_rules::StateResolutionVersion,
    state_res::{self, utils::event_id_set::EventIdSet},
};

use crate::{
    crowd::Fork,
    room::{Room, index},
};

/// What rooms hold ready: where the two states differ, and what they agree on by number.
struct Stored<'a> {
    fork: &'a Fork,
    differences: Differences,
    agreed: BTreeMap<EventNumber, ()>,
}

impl<'a> Stored<'a> {
    fn new(fork: &'a Fork) -> Self {
        let mut differences = Differences::new(2, fork.room.create());
        let mut agreed = BTreeMap::new();
        for (key, number) in &fork.left {
            let other = fork.right.get(key);
            if other == Some(number) {
                agreed.insert(*number, ());
            } else {
                differences.push([Some(*number), other.copied()]);
            }
        }
        for (key, number) in &fork.right {
            if !fork.left.contains_key(key) {
                differences.push([None, Some(*number)]);
            }
        }
        Self {
            fork,
            differences,
            agreed,
        }
    }

    fn resolve(&self) -> Resolution {
        let room = &self.fork.room;
        let mut facts = Facts::new();
        loop {
            let needs = match resolve(room.rules, &self.differences, &facts) {
                Step::Done(resolution) => return resolution,
                Step::Need(needs) => needs,
            };
            for need in needs {
                match need {
                    Need::Event(number) => {
                        let loaded = room.event(index(number));
                        facts.add_event(number, Arc::clone(&loaded.pdu), &loaded.auth_events);
                    }
                    Need::Chain(number) => {
                        facts.add_chain(number, Arc::clone(&room.event(index(number)).chain));
                    }
                    Need::Entry(key) => {
                        let entry = self.fork.left.get(&key).copied();
                        facts.add_entry(key, entry);
                    }
                    Need::Reached(asked) => {
                        let mut reach = Reach::new(&asked);
                        let lowest = reach.lowest().unwrap();
                        for (&number, ()) in self.agreed.range(lowest..) {
                            reach.feed_entry(number);
                            reach.feed_chain(&room.event(index(number)).chain);
                        }
                        facts.add_reached(&asked, &reach.into_reached());
                    }
                }
            }
        }
    }
}

/// The auth chain of a state, its events included.
fn chain(room: &Room, state: &StateMap<EventNumber>) -> EventIdSet<OwnedEventId> {
    let mut numbers = roaring::RoaringBitmap::new();
    for number in state.values() {
        numbers.insert(number.0);
        numbers |= room.event(index(*number)).chain.numbers();
    }
    numbers
        .iter()
        .map(|number| id(room, EventNumber(number)))
        .collect()
}

fn id(room: &Room, number: EventNumber) -> OwnedEventId {
    room.event(index(number)).pdu.event_id().to_owned()
}

fn forks(criterion: &mut Criterion) {
    for version in ["11", "12"] {
        let mut group = criterion.benchmark_group(format!("fork in version {version}"));
        group.sample_size(20);
        for members in [100, 1_000, 10_000] {
            let fork = crowd::fork(version, members);
            let stored = Stored::new(&fork);
            group.bench_with_input(
                BenchmarkId::new("differences", members),
                &(),
                |bencher, ()| {
                    bencher.iter(|| black_box(stored.resolve()));
                },
            );

            let room = &fork.room;
            let StateResolutionVersion::V2(rules) = room.rules.state_res else {
                continue;
            };
            let states = [&fork.left, &fork.right];
            let maps: Vec<state_res::StateMap<OwnedEventId>> = states
                .iter()
                .map(|state| {
                    state
                        .iter()
                        .map(|(key, &n)| (key.clone(), id(room, n)))
                        .collect()
                })
                .collect();
            let chains: Vec<_> = states.iter().map(|state| chain(room, state)).collect();
            // Nothing lies between two events of this fork but the conflicted events themselves.
            let subgraph = |conflicted: &state_res::StateMap<Vec<OwnedEventId>>| {
                Some(conflicted.values().flatten().cloned().collect())
            };
            let fetch = |id: &EventId| room.find(id).map(|loaded| Arc::clone(&loaded.pdu));
            group.bench_with_input(BenchmarkId::new("ruma", members), &(), |bencher, ()| {
                bencher.iter_batched(
                    || chains.clone(),
                    |chains| {
                        let rules = (&room.rules.authorization, &rules);
                        state_res::resolve(rules.0, rules.1, &maps, chains, fetch, subgraph)
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, forks);
criterion_main!(benches);
