//! Time of the state tree's operations, in rooms of 10, 1,000 and 100,000 members, all nodes in memory.
#![allow(missing_docs, clippy::expect_used)]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pdu::{
    EventNumber, Step,
    tree::{self, HashKey, NodeHash, Nodes, StateKeyHash, TreeError, Update},
};

struct Room {
    key: HashKey,
    nodes: Nodes,
    root: NodeHash,
    /// The state after one more event.
    next: NodeHash,
    changed: StateKeyHash,
}

fn member(key: &HashKey, n: u32) -> StateKeyHash {
    StateKeyHash::new(key, "m.room.member", &format!("@user{n}:example.org"))
}

fn done<T>(step: Result<Step<T, NodeHash>, TreeError>) -> T {
    step.ok()
        .and_then(Step::done)
        .expect("all nodes are loaded")
}

fn load(nodes: &mut Nodes, update: Update) -> NodeHash {
    for (hash, bytes) in update.nodes {
        nodes.insert(hash, &bytes).expect("nodes read back");
    }
    update.root
}

impl Room {
    fn new(members: u32) -> Self {
        let key = HashKey::for_room(&[3; 32], [9; 8]);
        let mut nodes = Nodes::new();
        let entries = (0..members).map(|n| (member(&key, n), EventNumber(n)));
        let root = load(&mut nodes, tree::build(entries, &key).expect("a state"));
        let changed = member(&key, members / 2);
        let changes = [(changed, Some(EventNumber(members)))];
        let update = done(tree::update(root, &changes, &nodes, &key));
        let next = load(&mut nodes, update);
        Self {
            key,
            nodes,
            root,
            next,
            changed,
        }
    }
}

fn operations(criterion: &mut Criterion) {
    for members in [10, 1_000, 100_000] {
        let room = Room::new(members);
        let mut bench = |name: &str, run: &mut dyn FnMut()| {
            criterion.bench_with_input(BenchmarkId::new(name, members), &(), |bencher, ()| {
                bencher.iter(&mut *run);
            });
        };
        let changes = [(room.changed, Some(EventNumber(members)))];
        bench("update", &mut || {
            std::hint::black_box(done(tree::update(
                room.root,
                &changes,
                &room.nodes,
                &room.key,
            )));
        });
        bench("find", &mut || {
            std::hint::black_box(done(tree::find(&[(room.next, room.changed)], &room.nodes)));
        });
        bench("diff", &mut || {
            std::hint::black_box(done(tree::diff(room.root, room.next, &room.nodes)));
        });
        bench("entries", &mut || {
            std::hint::black_box(done(tree::entries(room.root, &room.nodes)));
        });
        bench("build", &mut || {
            let entries = (0..members).map(|n| (member(&room.key, n), EventNumber(n)));
            std::hint::black_box(tree::build(entries, &room.key).expect("a state"));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = operations
}
criterion_main!(benches);
