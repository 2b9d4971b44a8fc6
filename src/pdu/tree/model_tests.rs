//! Everything the tree answers, against an ordered map.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::{
    update::{build_shaped, update_shaped},
    *,
};
use crate::Step;

type Map = BTreeMap<StateKeyHash, EventNumber>;
type Changes = Vec<(StateKeyHash, Option<EventNumber>)>;

fn key() -> HashKey {
    HashKey::for_room(&[7; 32], [1; 8])
}

/// Storage: hands out what is asked for, and remembers it.
#[derive(Default)]
struct Store {
    rows: HashMap<NodeHash, Vec<u8>>,
    read: BTreeSet<NodeHash>,
    trips: usize,
}

impl Store {
    fn write(&mut self, update: &Update) -> NodeHash {
        self.rows.extend(update.nodes.iter().cloned());
        update.root
    }

    /// Runs an algorithm until it has all it needs, from no nodes at all.
    fn run<T>(
        &mut self,
        mut algorithm: impl FnMut(&Nodes) -> Result<Step<T, NodeHash>, TreeError>,
    ) -> T {
        self.read.clear();
        self.trips = 0;
        let mut nodes = Nodes::new();
        loop {
            match algorithm(&nodes).unwrap() {
                Step::Done(result) => return result,
                Step::Need(hashes) => {
                    assert!(!hashes.is_empty(), "an empty need would never end");
                    self.trips += 1;
                    for hash in hashes {
                        assert!(self.read.insert(hash), "{hash:?} was asked for twice");
                        nodes.insert(hash, &self.rows[&hash]).unwrap();
                    }
                }
            }
        }
    }

    fn change(&mut self, root: NodeHash, changes: &Changes, leaf_max: usize) -> NodeHash {
        let key = key();
        let update = self.run(|nodes| update_shaped(root, changes, nodes, &key, leaf_max));
        self.write(&update)
    }

    fn build(&mut self, map: &Map, leaf_max: usize) -> NodeHash {
        let entries = map.iter().map(|(key, number)| (*key, *number));
        let update = build_shaped(entries, &key(), leaf_max).unwrap();
        self.write(&update)
    }

    fn node(&self, hash: NodeHash) -> Node {
        Node::decode(&self.rows[&hash]).unwrap()
    }
}

/// Keys that crowd: most share long beginnings, so that small trees are deep and ragged.
fn any_key() -> impl Strategy<Value = StateKeyHash> {
    let nibbles = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(15), 0u8..16], 0..6);
    let deep = (any::<prop::sample::Index>(), 0u8..16);
    (nibbles, deep).prop_map(|(nibbles, (at, value))| {
        let mut key = [0u8; 16];
        for (index, nibble) in nibbles.iter().enumerate() {
            key[index / 2] |= if index % 2 == 0 { nibble << 4 } else { *nibble };
        }
        key[at.index(16)] |= value;
        StateKeyHash(key)
    })
}

fn any_map(size: usize) -> impl Strategy<Value = Map> {
    prop::collection::btree_map(any_key(), (0u32..200_000).prop_map(EventNumber), 0..size)
}

fn any_changes(size: usize) -> impl Strategy<Value = Changes> {
    let value = prop_oneof![
        1 => Just(None),
        2 => (0u32..200_000).prop_map(|number| Some(EventNumber(number))),
    ];
    prop::collection::vec((any_key(), value), 0..size)
}

/// Changes of which many hit keys of the map.
fn map_and_changes(size: usize) -> impl Strategy<Value = (Map, Changes)> {
    (
        any_map(size),
        any_changes(size),
        prop::collection::vec(any::<prop::sample::Index>(), size),
    )
        .prop_map(|(map, mut changes, picks)| {
            let keys: Vec<_> = map.keys().copied().collect();
            for (change, pick) in changes.iter_mut().zip(picks) {
                if !keys.is_empty() && pick.index(3) > 0 {
                    change.0 = keys[pick.index(keys.len())];
                }
            }
            (map, changes)
        })
}

fn changed(map: &Map, changes: &Changes) -> Map {
    let mut map = map.clone();
    for (key, value) in changes {
        match value {
            Some(number) => map.insert(*key, *number),
            None => map.remove(key),
        };
    }
    map
}

/// Names of all nodes on the paths from a root to keys.
fn paths(
    store: &Store,
    root: NodeHash,
    keys: impl Iterator<Item = StateKeyHash>,
) -> BTreeSet<NodeHash> {
    let mut on_paths = BTreeSet::new();
    for key in keys {
        let mut next = (root != EMPTY_ROOT).then_some(root);
        while let Some(hash) = next {
            on_paths.insert(hash);
            let node = store.node(hash);
            next = match &node.body {
                node::Body::Leaf(_) => None,
                node::Body::Branch(branch) => branch
                    .child(key.nibble(node.position.depth))
                    .map(|child| child.hash),
            };
        }
    }
    on_paths
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_tree_has_the_shape_of_its_content_whatever_its_history(
        (map, changes) in map_and_changes(60), again in any_changes(30), leaf_max in 1usize..5, one_by_one in any::<bool>(),
    ) {
        let mut store = Store::default();
        let mut root = store.build(&map, leaf_max);
        let mut model = map;
        for changes in [changes, again] {
            if one_by_one {
                for change in &changes {
                    root = store.change(root, &vec![*change], leaf_max);
                }
            } else {
                root = store.change(root, &changes, leaf_max);
            }
            model = changed(&model, &changes);
            prop_assert_eq!(root, Store::default().build(&model, leaf_max));
        }
        let entries = store.run(|nodes| entries(root, nodes));
        prop_assert_eq!(entries, model.iter().map(|(key, number)| (*key, *number)).collect::<Vec<_>>());
        let clear: Changes = model.keys().rev().map(|key| (*key, None)).collect();
        prop_assert_eq!(store.change(root, &clear, leaf_max), EMPTY_ROOT);
    }

    #[test]
    fn an_update_writes_what_is_new_and_nothing_else(
        (map, changes) in map_and_changes(60), leaf_max in 1usize..5,
    ) {
        let mut store = Store::default();
        let old = store.build(&map, leaf_max);
        let before: BTreeSet<_> = store.rows.keys().copied().collect();
        let key = key();
        let update = store.run(|nodes| update_shaped(old, &changes, nodes, &key, leaf_max));
        let model = changed(&map, &changes);
        let mut fresh = Store::default();
        fresh.build(&model, leaf_max);
        let written: BTreeSet<_> = update.nodes.iter().map(|(hash, _)| *hash).collect();
        // No node twice, every node of the new tree that the old one lacks, none that belongs to neither.
        prop_assert_eq!(written.len(), update.nodes.len());
        let wanted: BTreeSet<_> = fresh.rows.keys().copied().collect();
        prop_assert_eq!(&written, &wanted.difference(&before).copied().collect());
        if let Some((last, _)) = update.nodes.last() {
            prop_assert_eq!(*last, update.root);
        } else {
            prop_assert!(update.root == old || update.root == EMPTY_ROOT);
        }
        for (hash, bytes) in &update.nodes {
            prop_assert_eq!(*hash, NodeHash::of(&key, bytes));
        }
    }

    #[test]
    fn an_update_asks_only_for_paths_and_for_what_folds(
        (map, changes) in map_and_changes(60), leaf_max in 1usize..5,
    ) {
        let mut store = Store::default();
        let root = store.build(&map, leaf_max);
        let key = key();
        store.run(|nodes| update_shaped(root, &changes, nodes, &key, leaf_max));
        let on_paths = paths(&store, root, changes.iter().map(|(key, _)| *key));
        let depth = store.read.iter().map(|hash| store.node(*hash).position.depth).max();
        // A level a trip on the way down, and at most one for each level that folds on the way up.
        prop_assert!(store.trips <= depth.map_or(0, |depth| 2 * usize::from(depth) + 1));
        prop_assert!(store.read.is_superset(&on_paths));
        for hash in store.read.difference(&on_paths) {
            // A neighbour is read only where the new state has too few entries for the parent to stay a branch.
            let node = store.node(*hash);
            prop_assert!(node.position.depth > 0);
            let model = changed(&map, &changes);
            let parent = Position {
                depth: node.position.depth - 1,
                prefix: Position { depth: node.position.depth - 1, ..Position::ROOT }
                    .prefix_of(&StateKeyHash(node.position.prefix)),
            };
            let left = model.keys().filter(|key| parent.contains(key)).count();
            prop_assert!(left <= leaf_max, "{left} entries stay below the parent");
        }
    }

    #[test]
    fn find_is_the_map_s_get(
        maps in prop::collection::vec(any_map(30), 0..4), other in prop::collection::vec(any_key(), 0..10), leaf_max in 1usize..5,
    ) {
        let mut store = Store::default();
        let mut asked = Vec::new();
        let mut wanted = Vec::new();
        let mut on_paths = BTreeSet::new();
        for map in &maps {
            let root = store.build(map, leaf_max);
            for key in maps.iter().flat_map(|map| map.keys()).chain(&other) {
                asked.push((root, *key));
                wanted.push(map.get(key).copied());
            }
            on_paths.extend(paths(&store, root, asked.iter().filter(|(other, _)| *other == root).map(|(_, key)| *key)));
        }
        prop_assert_eq!(store.run(|nodes| find(&asked, nodes)), wanted);
        prop_assert_eq!(&store.read, &on_paths);
        let depth = store.read.iter().map(|hash| store.node(*hash).position.depth).max();
        prop_assert_eq!(store.trips, depth.map_or(0, |depth| usize::from(depth) + 1), "a level of all roots is one trip");
    }

    #[test]
    fn diff_is_the_difference_of_maps(
        (map, changes) in map_and_changes(60), unrelated in any_map(60), related in any::<bool>(), leaf_max in 1usize..5, limit in 0usize..8,
    ) {
        let mut store = Store::default();
        let other = if related { changed(&map, &changes) } else { unrelated };
        let (left, right) = (store.build(&map, leaf_max), store.build(&other, leaf_max));
        let keys: BTreeSet<_> = map.keys().chain(other.keys()).copied().collect();
        let wanted: Vec<_> = keys
            .into_iter()
            .map(|key| Difference { key, left: map.get(&key).copied(), right: other.get(&key).copied() })
            .filter(|difference| difference.left != difference.right)
            .collect();
        prop_assert_eq!(&store.run(|nodes| diff(left, right, nodes)), &wanted);
        let on_paths = [left, right].map(|root| paths(&store, root, wanted.iter().map(|difference| difference.key)));
        prop_assert!(store.read.iter().all(|hash| on_paths[0].contains(hash) || on_paths[1].contains(hash) || leaf_beside_branch(&store, [&map, &other], *hash, leaf_max)));
        let unlimited_reads = store.read.len();
        let bounded = store.run(|nodes| diff_within(left, right, limit, nodes));
        if wanted.len() > limit {
            prop_assert_eq!(bounded, Bounded::TooMany);
        } else {
            prop_assert_eq!(bounded, Bounded::All(wanted));
        }
        prop_assert!(store.read.len() <= unlimited_reads);
        store.run(|nodes| diff(left, left, nodes));
        prop_assert_eq!(store.trips, 0, "equal roots need no reading");
    }

    #[test]
    fn diff_of_many_is_the_difference_of_maps(
        (map, first) in map_and_changes(40), more in prop::collection::vec(any_changes(20), 0..4), leaf_max in 1usize..5, limit in 0usize..8,
    ) {
        let mut store = Store::default();
        let mut maps = vec![map.clone(), changed(&map, &first)];
        maps.extend(more.iter().map(|changes| changed(&map, changes)));
        let roots: Vec<_> = maps.iter().map(|map| store.build(map, leaf_max)).collect();
        let keys: BTreeSet<_> = maps.iter().flat_map(|map| map.keys()).copied().collect();
        let wanted: Vec<_> = keys
            .into_iter()
            .map(|key| Divergence { key, values: maps.iter().map(|map| map.get(&key).copied()).collect() })
            .filter(|divergence| divergence.values.iter().any(|value| *value != divergence.values[0]))
            .collect();
        prop_assert_eq!(&store.run(|nodes| diff_all(&roots, nodes)), &wanted);
        let bounded = store.run(|nodes| diff_all_within(&roots, limit, nodes));
        if wanted.len() > limit {
            prop_assert_eq!(bounded, Bounded::TooMany);
        } else {
            prop_assert_eq!(bounded, Bounded::All(wanted));
        }
    }

    #[test]
    fn pages_are_the_map_in_order(map in any_map(80), limit in 1usize..20, leaf_max in 1usize..5) {
        let mut store = Store::default();
        let root = store.build(&map, leaf_max);
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = store.run(|nodes| entries_after(root, after, limit, nodes));
            prop_assert!(page.entries.len() == limit || page.next.is_none());
            // Those of the entries, of the key before and of one entry behind.
            let leaves = store.read.iter().filter(|hash| matches!(store.node(**hash).body, node::Body::Leaf(_)));
            prop_assert!(leaves.count() <= limit + 2);
            all.extend(page.entries);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        prop_assert_eq!(all, map.iter().map(|(key, number)| (*key, *number)).collect::<Vec<_>>());
        for after in map.keys() {
            let page = store.run(|nodes| entries_after(root, Some(*after), 1, nodes));
            let next = map.range((std::ops::Bound::Excluded(*after), std::ops::Bound::Unbounded)).next();
            prop_assert_eq!(page.entries.first().map(|(key, _)| key), next.map(|(key, _)| key));
        }
    }

    #[test]
    fn damaged_storage_gives_errors_and_never_panics_or_runs_on(
        (map, changes) in map_and_changes(80), leaf_max in 1usize..5, swaps in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut store = Store::default();
        let (left, right) = (store.build(&map, leaf_max), store.build(&changed(&map, &changes), leaf_max));
        let names: Vec<_> = store.rows.keys().copied().collect();
        if names.is_empty() {
            return Ok(());
        }
        for (to, from) in swaps {
            let row = store.rows[&names[from.index(names.len())]].clone();
            store.rows.insert(names[to.index(names.len())], row);
        }
        for (node, at, value) in bytes {
            let row = store.rows.get_mut(&names[node.index(names.len())]).unwrap();
            let at = at.index(row.len());
            row[at] = value;
        }
        let nodes = &mut Nodes::new();
        for (hash, bytes) in &store.rows {
            let _ = nodes.insert(*hash, bytes);
        }
        let most = map.len() + changes.len();
        let asked: Vec<_> = map.keys().map(|key| (left, *key)).collect();
        if let Ok(Step::Done(found)) = find(&asked, nodes) {
            prop_assert_eq!(found.len(), asked.len());
        }
        if let Ok(Step::Done(entries)) = entries(left, nodes) {
            prop_assert!(entries.len() <= most && entries.is_sorted());
        }
        if let Ok(Step::Done(differences)) = diff(left, right, nodes) {
            prop_assert!(differences.len() <= 2 * most);
        }
        let _ = update_shaped(left, &changes, nodes, &key(), leaf_max);
        let mut reachable = Reachable::new();
        reachable.add_root(left);
        let _ = reachable.step(nodes, 10);
    }
}

/// Where one state has a leaf and the other a branch, their parts can only be compared by reading them.
fn leaf_beside_branch(store: &Store, maps: [&Map; 2], hash: NodeHash, leaf_max: usize) -> bool {
    let position = store.node(hash).position;
    let [left, right] = (0..position.depth).fold([false; 2], |shapes, depth| {
        let above = Position {
            depth,
            ..Position::ROOT
        };
        let above = Position {
            depth,
            prefix: above.prefix_of(&StateKeyHash(position.prefix)),
        };
        let sizes = maps.map(|map| map.keys().filter(|key| above.contains(key)).count());
        [
            shapes[0] || sizes[0] <= leaf_max,
            shapes[1] || sizes[1] <= leaf_max,
        ]
    });
    left != right
}

#[test]
fn what_is_reachable_is_what_the_states_are_made_of() {
    let mut store = Store::default();
    let map = |range: std::ops::Range<u32>| -> Map {
        range
            .map(|n| {
                (
                    StateKeyHash::new(&key(), "m.room.member", &n.to_string()),
                    EventNumber(n),
                )
            })
            .collect()
    };
    let kept = [
        store.build(&map(0..3_000), LEAF_MAX),
        store.build(&map(10..3_010), LEAF_MAX),
    ];
    let wanted: BTreeSet<_> = store.rows.keys().copied().collect();
    store.build(&map(5..2_000), LEAF_MAX);

    let mut reachable = Reachable::new();
    for root in kept.into_iter().chain([EMPTY_ROOT]) {
        reachable.add_root(root);
    }
    let mut most = 0;
    let mut read = 0;
    let mut nodes = Nodes::new();
    while let Step::Need(hashes) = reachable.step(&nodes, 7).unwrap() {
        most = most.max(hashes.len());
        read += hashes.len();
        nodes = Nodes::new();
        for hash in hashes {
            nodes.insert(hash, &store.rows[&hash]).unwrap();
        }
    }
    assert_eq!(most, 7);
    assert_eq!(reachable.iter().collect::<BTreeSet<_>>(), wanted);
    assert!(
        read * 8 < wanted.len(),
        "{read} nodes read to find {}",
        wanted.len()
    );
    assert!(
        store.rows.keys().any(|hash| !reachable.contains(hash)),
        "garbage stays garbage"
    );
}

#[test]
fn a_cycle_is_an_error() {
    // A branch that claims to be its own child, with counts that agree.
    let name = NodeHash([5; 16]);
    let mut branch = node::Branch::default();
    branch.set(
        0,
        node::Child {
            hash: name,
            count: 40,
        },
    );
    let node = Node {
        position: Position::ROOT,
        body: node::Body::Branch(Box::new(branch)),
    };
    let mut nodes = Nodes::new();
    nodes.insert(name, &node.encode()).unwrap();
    assert_eq!(entries(name, &nodes), Err(TreeError::Misplaced(name)));
    assert_eq!(
        diff(name, EMPTY_ROOT, &nodes),
        Err(TreeError::Misplaced(name))
    );
    let zero = StateKeyHash([0; 16]);
    assert_eq!(
        find(&[(name, zero)], &nodes),
        Err(TreeError::Misplaced(name))
    );
    assert_eq!(
        update(name, &[(zero, None)], &nodes, &key()),
        Err(TreeError::Misplaced(name))
    );
}

#[test]
fn the_last_of_several_changes_to_a_key_counts() {
    let (nodes, key) = (Nodes::new(), key());
    let at = StateKeyHash::new(&key, "m.room.name", "");
    let set = |number| (at, Some(EventNumber(number)));
    let one = update(EMPTY_ROOT, &[(at, None), set(2), set(1)], &nodes, &key).unwrap();
    assert_eq!(
        one,
        Step::Done(build([(at, EventNumber(1))], &key).unwrap())
    );
    let none = update(EMPTY_ROOT, &[set(2), (at, None)], &nodes, &key).unwrap();
    assert_eq!(
        none,
        Step::Done(Update {
            root: EMPTY_ROOT,
            nodes: Vec::new()
        })
    );
}

#[test]
fn hashes_differ_by_room_type_and_state_key() {
    let rooms = [[1; 8], [2; 8]].map(|room| HashKey::for_room(&[7; 32], room));
    let hashes: BTreeSet<_> = rooms
        .iter()
        .flat_map(|room| {
            [("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")]
                .map(|(event_type, state_key)| StateKeyHash::new(room, event_type, state_key))
        })
        .collect();
    assert_eq!(hashes.len(), 8);
    assert_eq!(format!("{:?}", rooms[0]), "HashKey(secret)");
}
