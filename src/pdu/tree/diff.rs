//! Where states differ, read level by level along the paths to what differs.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::{
    Entry, NodeHash, Nodes, Position, StateKeyHash, TreeError, groups,
    node::{Body, Branch, Link},
};
use crate::{EventNumber, Step};

/// A key under which two states differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: StateKeyHash,
    /// What the left state has there.
    pub left: Option<EventNumber>,
    /// What the right state has there.
    pub right: Option<EventNumber>,
}

/// A key under which not all of several states agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The key.
    pub key: StateKeyHash,
    /// What each state has there, in the order of the roots.
    pub values: Vec<Option<EventNumber>>,
}

/// A list with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bounded<T> {
    /// All there are.
    All(Vec<T>),
    /// There are more than the limit.
    TooMany,
}

/// The keys under which two states differ, in order. Reads only paths to differences: none for equal roots.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn diff(
    left: NodeHash,
    right: NodeHash,
    nodes: &Nodes,
) -> Result<Step<Vec<Difference>, NodeHash>, TreeError> {
    Ok(match diff_within(left, right, usize::MAX, nodes)? {
        Step::Done(Bounded::All(differences)) => Step::Done(differences),
        Step::Done(Bounded::TooMany) => return Err(TreeError::TooLarge),
        Step::Need(hashes) => Step::Need(hashes),
    })
}

/// As [`diff`], but says `TooMany` as soon as there are certainly more than `limit` differences. The counts
/// in branches often tell long before the differences are read.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn diff_within(
    left: NodeHash,
    right: NodeHash,
    limit: usize,
    nodes: &Nodes,
) -> Result<Step<Bounded<Difference>, NodeHash>, TreeError> {
    compare(&[left, right], limit, nodes, |key, values| Difference {
        key,
        left: values.first().copied().flatten(),
        right: values.get(1).copied().flatten(),
    })
}

/// The keys under which not all states agree, in order, with what each of them has there: what state
/// resolution begins with. Reads only paths to differences: none for equal roots.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn diff_all(
    roots: &[NodeHash],
    nodes: &Nodes,
) -> Result<Step<Vec<Divergence>, NodeHash>, TreeError> {
    Ok(match diff_all_within(roots, usize::MAX, nodes)? {
        Step::Done(Bounded::All(divergences)) => Step::Done(divergences),
        Step::Done(Bounded::TooMany) => return Err(TreeError::TooLarge),
        Step::Need(hashes) => Step::Need(hashes),
    })
}

/// As [`diff_all`], but says `TooMany` as soon as there are certainly more than `limit` such keys.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn diff_all_within(
    roots: &[NodeHash],
    limit: usize,
    nodes: &Nodes,
) -> Result<Step<Bounded<Divergence>, NodeHash>, TreeError> {
    compare(roots, limit, nodes, |key, values| Divergence {
        key,
        values: values.to_vec(),
    })
}

/// What one of the states has at some position.
#[derive(Clone, Copy, PartialEq)]
enum Side<'a> {
    /// These entries, of a leaf that stands here or above; none if the state has nothing here.
    Entries(&'a [Entry]),
    Node(Link),
}

type Sides<'a> = SmallVec<[Side<'a>; 2]>;
type Values = SmallVec<[Option<EventNumber>; 2]>;

impl Side<'_> {
    /// How many entries there are, if that is known.
    fn count(&self) -> Option<usize> {
        match self {
            Self::Entries(entries) => Some(entries.len()),
            Self::Node(link) => link.count.and_then(|count| usize::try_from(count).ok()),
        }
    }
}

/// At how many keys at least such sides, which are not all equal, differ.
fn least_differences(sides: &[Side<'_>]) -> usize {
    let counts = || sides.iter().map(Side::count);
    let spread = if counts().all(|count| count.is_some()) {
        let counts = || counts().flatten();
        counts()
            .max()
            .unwrap_or_default()
            .saturating_sub(counts().min().unwrap_or_default())
    } else {
        0
    };
    // Two nodes of different names certainly differ; a node and a part of a leaf above need not.
    let mut names = sides.iter().filter_map(|side| match side {
        Side::Node(link) => Some(link.hash),
        Side::Entries(_) => None,
    });
    let first = names.next();
    let named_apart = names.any(|name| Some(name) != first);
    spread.max(usize::from(named_apart))
}

fn all_equal<T: PartialEq>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair.first() == pair.last())
}

fn compare<T>(
    roots: &[NodeHash],
    limit: usize,
    nodes: &Nodes,
    make: impl Fn(StateKeyHash, &[Option<EventNumber>]) -> T,
) -> Result<Step<Bounded<T>, NodeHash>, TreeError> {
    let sides = roots
        .iter()
        .map(|root| Link::root(*root).map_or(Side::Entries(&[]), Side::Node));
    let mut open: Vec<(Position, Sides<'_>)> = vec![(Position::ROOT, sides.collect())];
    let mut need = BTreeSet::new();
    let mut found: Vec<(StateKeyHash, Values)> = Vec::new();
    // Differences below nodes that are not loaded yet.
    let mut below = 0usize;

    while let Some((position, sides)) = open.pop() {
        if all_equal(&sides) {
            continue;
        }
        match look_at(&sides, position, nodes)? {
            Looked::Lacking(hashes) => {
                need.extend(hashes);
                below = below.saturating_add(least_differences(&sides));
            }
            Looked::Entries(lists) => merge(&lists, &mut found),
            Looked::Split(parts) => open.extend(parts),
        }
        if found.len().saturating_add(below) > limit {
            return Ok(Step::Done(Bounded::TooMany));
        }
    }

    if !need.is_empty() {
        return Ok(Step::Need(need.into_iter().collect()));
    }
    found.sort_unstable_by_key(|(key, _)| *key);
    let all = found
        .iter()
        .map(|(key, values)| make(*key, values))
        .collect();
    Ok(Step::Done(Bounded::All(all)))
}

enum Looked<'a> {
    /// Nodes that must be loaded.
    Lacking(SmallVec<[NodeHash; 2]>),
    /// No side goes any deeper.
    Entries(SmallVec<[&'a [Entry]; 2]>),
    /// What the sides have one level deeper.
    Split(Vec<(Position, Sides<'a>)>),
}

#[derive(Clone, Copy)]
enum Content<'a> {
    Entries(&'a [Entry]),
    Branch(&'a Branch),
}

fn look_at<'a>(
    sides: &[Side<'a>],
    position: Position,
    nodes: &'a Nodes,
) -> Result<Looked<'a>, TreeError> {
    let mut lacking = SmallVec::new();
    let mut contents: SmallVec<[Content<'a>; 2]> = SmallVec::new();
    for side in sides {
        contents.push(match side {
            Side::Entries(entries) => Content::Entries(entries),
            Side::Node(link) => match nodes.follow(*link, position)?.map(|node| &node.body) {
                Some(Body::Leaf(entries)) => Content::Entries(entries),
                Some(Body::Branch(branch)) => Content::Branch(branch),
                None => {
                    lacking.push(link.hash);
                    continue;
                }
            },
        });
    }
    if !lacking.is_empty() {
        return Ok(Looked::Lacking(lacking));
    }
    let lists: Option<_> = contents
        .iter()
        .map(|content| match content {
            Content::Entries(entries) => Some(*entries),
            Content::Branch(_) => None,
        })
        .collect();
    Ok(match lists {
        Some(lists) => Looked::Entries(lists),
        None => Looked::Split(split(&contents, position)?),
    })
}

/// The parts below a position, without those in which all sides are equal.
fn split<'a>(
    contents: &[Content<'a>],
    position: Position,
) -> Result<Vec<(Position, Sides<'a>)>, TreeError> {
    let mut parts: Vec<(u8, Sides<'a>)> = (0..16)
        .map(|nibble| {
            (
                nibble,
                contents.iter().map(|_| Side::Entries(&[])).collect(),
            )
        })
        .collect();
    let mut put = |nibble: u8, side: usize, what: Side<'a>| {
        let part = parts.get_mut(usize::from(nibble));
        if let Some(slot) = part.and_then(|(_, sides)| sides.get_mut(side)) {
            *slot = what;
        }
    };
    for (side, content) in contents.iter().enumerate() {
        match content {
            Content::Entries(entries) => {
                for (nibble, group) in groups(entries, position.depth) {
                    put(nibble, side, Side::Entries(group));
                }
            }
            Content::Branch(branch) => {
                for (nibble, child) in branch.children() {
                    put(nibble, side, Side::Node(child.into()));
                }
            }
        }
    }
    parts
        .into_iter()
        .filter(|(_, sides)| !all_equal(sides))
        .map(|(nibble, sides)| Ok((position.child(nibble)?, sides)))
        .collect()
}

/// Adds the keys at which the lists, each in order, do not all agree.
fn merge(lists: &[&[Entry]], found: &mut Vec<(StateKeyHash, Values)>) {
    let mut rest: SmallVec<[_; 2]> = lists.iter().map(|list| list.iter().peekable()).collect();
    while let Some(key) = rest
        .iter_mut()
        .filter_map(|list| list.peek().map(|(key, _)| *key))
        .min()
    {
        let values: Values = rest
            .iter_mut()
            .map(|list| {
                list.next_if(|(other, _)| *other == key)
                    .map(|(_, number)| *number)
            })
            .collect();
        if !all_equal(&values) {
            found.push((key, values));
        }
    }
}
