//! Walks over whole states: their entries, and the nodes they are made of.

use std::collections::{BTreeSet, HashSet};

use super::{
    EMPTY_ROOT, Entry, LEAF_MAX, NodeHash, Nodes, Position, StateKeyHash, TreeError,
    node::{Body, Link},
};
use crate::Step;

/// All entries of a state, in order of their keys. For large states see [`entries_after`].
///
/// # Errors
///
/// If nodes do not fit together.
pub fn entries(root: NodeHash, nodes: &Nodes) -> Result<Step<Vec<Entry>, NodeHash>, TreeError> {
    walk(root, None, usize::MAX, nodes)
}

/// A part of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries in order of their keys.
    pub entries: Vec<Entry>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<StateKeyHash>,
}

/// The first entries of a state behind a key, or from the start; at most `limit`, at least one if there is one.
///
/// Asks only for nodes that these entries, the key before and one entry behind lie in, so neither answers nor
/// memory grow with the state.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn entries_after(
    root: NodeHash,
    after: Option<StateKeyHash>,
    limit: usize,
    nodes: &Nodes,
) -> Result<Step<Page, NodeHash>, TreeError> {
    let limit = limit.max(1);
    // One more tells whether there is a next page.
    Ok(match walk(root, after, limit.saturating_add(1), nodes)? {
        Step::Need(hashes) => Step::Need(hashes),
        Step::Done(mut entries) => {
            let more = entries.len() > limit;
            entries.truncate(limit);
            let next = entries.last().map(|(key, _)| *key).filter(|_| more);
            Step::Done(Page { entries, next })
        }
    })
}

fn walk(
    root: NodeHash,
    after: Option<StateKeyHash>,
    wanted: usize,
    nodes: &Nodes,
) -> Result<Step<Vec<Entry>, NodeHash>, TreeError> {
    let mut walk = Walk {
        nodes,
        after,
        wanted,
        found: Vec::new(),
        need: BTreeSet::new(),
    };
    if let Some(link) = Link::root(root) {
        walk.visit(link, Position::ROOT)?;
    }
    Ok(if walk.need.is_empty() {
        Step::Done(walk.found)
    } else {
        Step::Need(walk.need.into_iter().collect())
    })
}

struct Walk<'a> {
    nodes: &'a Nodes,
    after: Option<StateKeyHash>,
    /// How many entries are still to be found, those below nodes that were asked for not among them.
    wanted: usize,
    found: Vec<Entry>,
    need: BTreeSet<NodeHash>,
}

impl Walk<'_> {
    fn visit(&mut self, link: Link, position: Position) -> Result<(), TreeError> {
        let after = self.after;
        let first = after.map(|after| position.prefix_of(&after));
        if self.wanted == 0 || first.is_some_and(|first| position.prefix < first) {
            return Ok(());
        }
        let nodes = self.nodes;
        match nodes.follow(link, position)?.map(|node| &node.body) {
            None => {
                self.need.insert(link.hash);
                // How much of the node at the start lies behind it is not known before it is there: until
                // then nothing further is asked for, so as never to read what is not wanted.
                self.wanted = match link.count {
                    Some(count) if first != Some(position.prefix) => self
                        .wanted
                        .saturating_sub(usize::try_from(count).unwrap_or(usize::MAX)),
                    _ => 0,
                };
            }
            Some(Body::Leaf(leaf)) => {
                let before = self.found.len();
                let behind = leaf
                    .iter()
                    .filter(|(key, _)| after.is_none_or(|after| *key > after));
                self.found.extend(behind.take(self.wanted));
                self.wanted = self.wanted.saturating_sub(self.found.len() - before);
            }
            Some(Body::Branch(branch)) => {
                for (nibble, child) in branch.children() {
                    self.visit(child.into(), position.child(nibble)?)?;
                }
            }
        }
        Ok(())
    }
}

/// All nodes that states are made of: what the collector must not delete.
///
/// Leaves are known from their parents and not read: a walk reads about one in sixteen nodes. What was
/// reached from one root is not walked again from another.
#[derive(Clone, Debug, Default)]
pub struct Reachable {
    reached: HashSet<NodeHash>,
    /// Nodes reached whose children are not yet, with where they stand.
    open: Vec<(Link, Position)>,
}

impl Reachable {
    /// Nothing is reachable yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a state, to be walked by the next steps.
    pub fn add_root(&mut self, root: NodeHash) {
        if root != EMPTY_ROOT && self.reached.insert(root) {
            self.open.push((
                Link {
                    hash: root,
                    count: None,
                },
                Position::ROOT,
            ));
        }
    }

    /// Walks on with the nodes loaded, of which none is used again later, and asks for at most `at_most`
    /// more (but at least one).
    ///
    /// # Errors
    ///
    /// If nodes do not fit together.
    pub fn step(&mut self, nodes: &Nodes, at_most: usize) -> Result<Step<(), NodeHash>, TreeError> {
        let mut waiting = Vec::new();
        while let Some((link, position)) = self.open.pop() {
            match nodes.follow(link, position)?.map(|node| &node.body) {
                None => waiting.push((link, position)),
                Some(Body::Leaf(_)) => {}
                Some(Body::Branch(branch)) => {
                    for (nibble, child) in branch.children() {
                        let leaf = usize::try_from(child.count).is_ok_and(|n| n <= LEAF_MAX);
                        if self.reached.insert(child.hash) && !leaf {
                            self.open.push((child.into(), position.child(nibble)?));
                        }
                    }
                }
            }
        }
        let need: Vec<_> = waiting
            .iter()
            .take(at_most.max(1))
            .map(|(link, _)| link.hash)
            .collect();
        self.open = waiting;
        Ok(if need.is_empty() {
            Step::Done(())
        } else {
            Step::Need(need)
        })
    }

    /// Whether a node has been reached.
    pub fn contains(&self, hash: &NodeHash) -> bool {
        self.reached.contains(hash)
    }

    /// The nodes reached, in no order. All of them only once a step was done.
    pub fn iter(&self) -> impl Iterator<Item = NodeHash> {
        self.reached.iter().copied()
    }
}
