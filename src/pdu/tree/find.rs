//! Looking up keys, in many states at once.

use std::collections::BTreeSet;

use super::{
    NodeHash, Nodes, Position, StateKeyHash, TreeError,
    node::{Body, Link},
};
use crate::{EventNumber, Step};

/// What stands under keys in states: for each pair of a root and a key, in order, the event's number.
///
/// All pairs descend together, so that a call asks for one level of all of them.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn find(
    roots_and_keys: &[(NodeHash, StateKeyHash)],
    nodes: &Nodes,
) -> Result<Step<Vec<Option<EventNumber>>, NodeHash>, TreeError> {
    let mut need = BTreeSet::new();
    let mut found = Vec::with_capacity(roots_and_keys.len());
    for (root, key) in roots_and_keys {
        match find_one(*root, key, nodes)? {
            Step::Done(number) => found.push(number),
            Step::Need(hashes) => need.extend(hashes),
        }
    }
    Ok(if need.is_empty() {
        Step::Done(found)
    } else {
        Step::Need(need.into_iter().collect())
    })
}

fn find_one(
    root: NodeHash,
    key: &StateKeyHash,
    nodes: &Nodes,
) -> Result<Step<Option<EventNumber>, NodeHash>, TreeError> {
    let mut next = Link::root(root);
    let mut position = Position::ROOT;
    while let Some(link) = next {
        let Some(node) = nodes.follow(link, position)? else {
            return Ok(Step::Need(vec![link.hash]));
        };
        match &node.body {
            Body::Leaf(entries) => {
                let at = entries.binary_search_by_key(key, |(key, _)| *key).ok();
                let number = at.and_then(|at| entries.get(at)).map(|(_, number)| *number);
                return Ok(Step::Done(number));
            }
            Body::Branch(branch) => {
                let nibble = key.nibble(position.depth);
                position = position.child(nibble)?;
                next = branch.child(nibble).map(Link::from);
            }
        }
    }
    Ok(Step::Done(None))
}
