//! New states: from others by changes, or from scratch.

use std::collections::BTreeSet;

use super::{
    EMPTY_ROOT, Entry, HashKey, LEAF_MAX, NodeHash, Nodes, Position, StateKeyHash, TreeError,
    groups,
    node::{Body, Branch, Child, Link, Node},
};
use crate::{EventNumber, Step};

/// A new state, and the nodes by which it differs from the one it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The root of the new state.
    pub root: NodeHash,
    /// Every node of every new path, children before their parents, the root last. Write all of them:
    /// a node that is already there may be about to be collected.
    pub nodes: Vec<(NodeHash, Vec<u8>)>,
}

/// The state that comes of setting (`Some`) and removing (`None`) entries of another one.
///
/// Of several changes to one key the last counts. Changes that change nothing write nothing. A removal
/// may ask for the neighbours with which a branch folds back into a leaf.
///
/// # Errors
///
/// If nodes do not fit together.
pub fn update(
    root: NodeHash,
    changes: &[(StateKeyHash, Option<EventNumber>)],
    nodes: &Nodes,
    key: &HashKey,
) -> Result<Step<Update, NodeHash>, TreeError> {
    update_shaped(root, changes, nodes, key, LEAF_MAX)
}

/// A whole state from scratch. Of several entries with one key the last counts.
///
/// # Errors
///
/// [`TreeError::TooLarge`] from 2^32 entries on.
pub fn build(entries: impl IntoIterator<Item = Entry>, key: &HashKey) -> Result<Update, TreeError> {
    build_shaped(entries, key, LEAF_MAX)
}

pub(super) fn update_shaped(
    root: NodeHash,
    changes: &[Change],
    nodes: &Nodes,
    key: &HashKey,
    leaf_max: usize,
) -> Result<Step<Update, NodeHash>, TreeError> {
    let mut changes = changes.to_vec();
    keep_last(&mut changes);
    let mut editor = Editor {
        nodes,
        writer: Writer::new(key, leaf_max),
        need: BTreeSet::new(),
    };
    let root = match editor.apply(Link::root(root), Position::ROOT, &changes)? {
        Applied::Lacking => root,
        Applied::Unchanged => root,
        Applied::Changed(subtree) => editor.writer.write_root(subtree)?,
    };
    Ok(if editor.need.is_empty() {
        Step::Done(Update {
            root,
            nodes: editor.writer.written,
        })
    } else {
        Step::Need(editor.need.into_iter().collect())
    })
}

pub(super) fn build_shaped(
    entries: impl IntoIterator<Item = Entry>,
    key: &HashKey,
    leaf_max: usize,
) -> Result<Update, TreeError> {
    let mut entries: Vec<Entry> = entries.into_iter().collect();
    keep_last(&mut entries);
    let mut writer = Writer::new(key, leaf_max);
    let subtree = writer.subtree(entries, Position::ROOT)?;
    let root = writer.write_root(subtree)?;
    Ok(Update {
        root,
        nodes: writer.written,
    })
}

type Change = (StateKeyHash, Option<EventNumber>);

/// Orders by key and keeps the last of equal keys.
fn keep_last<T: Copy>(items: &mut Vec<(StateKeyHash, T)>) {
    items.sort_by_key(|(key, _)| *key);
    items.dedup_by(|later, earlier| {
        let same = later.0 == earlier.0;
        if same {
            earlier.1 = later.1;
        }
        same
    });
}

/// What a part of the new state looks like, before it is known whether it becomes a node of its own.
enum Subtree {
    Empty,
    Leaf(Vec<Entry>),
    Branch(Box<Branch>),
}

/// Gives contents their shape, and shapes their bytes and names.
struct Writer<'a> {
    key: &'a HashKey,
    leaf_max: usize,
    written: Vec<(NodeHash, Vec<u8>)>,
}

impl<'a> Writer<'a> {
    fn new(key: &'a HashKey, leaf_max: usize) -> Self {
        Self {
            key,
            leaf_max,
            written: Vec::new(),
        }
    }

    fn fits_leaf(&self, count: u32) -> bool {
        usize::try_from(count).is_ok_and(|count| count <= self.leaf_max)
    }

    /// The shape of these entries, which are in order; writes all nodes below.
    fn subtree(&mut self, entries: Vec<Entry>, position: Position) -> Result<Subtree, TreeError> {
        if entries.is_empty() {
            return Ok(Subtree::Empty);
        }
        if entries.len() <= self.leaf_max {
            return Ok(Subtree::Leaf(entries));
        }
        let mut branch = Branch::default();
        for (nibble, group) in groups(&entries, position.depth) {
            let below = position.child(nibble)?;
            let subtree = self.subtree(group.to_vec(), below)?;
            branch.set(nibble, self.write(subtree, below)?);
        }
        Ok(Subtree::Branch(Box::new(branch)))
    }

    /// Writes a node for a subtree; an empty one becomes a child that is not there.
    fn write(&mut self, subtree: Subtree, position: Position) -> Result<Child, TreeError> {
        let body = match subtree {
            Subtree::Empty => return Ok(Child::default()),
            Subtree::Leaf(entries) => Body::Leaf(entries.into_boxed_slice()),
            Subtree::Branch(branch) => Body::Branch(branch),
        };
        let node = Node { position, body };
        let bytes = node.encode();
        let child = Child {
            hash: NodeHash::of(self.key, &bytes),
            count: node.count()?,
        };
        self.written.push((child.hash, bytes));
        Ok(child)
    }

    fn write_root(&mut self, subtree: Subtree) -> Result<NodeHash, TreeError> {
        let root = self.write(subtree, Position::ROOT)?;
        Ok(if root.count == 0 {
            EMPTY_ROOT
        } else {
            root.hash
        })
    }
}

enum Applied {
    /// Nodes have been asked for.
    Lacking,
    /// All changes say what is so already.
    Unchanged,
    Changed(Subtree),
}

struct Editor<'a> {
    nodes: &'a Nodes,
    writer: Writer<'a>,
    need: BTreeSet<NodeHash>,
}

impl Editor<'_> {
    /// Applies changes, all of which belong at this position, to what stands there.
    fn apply(
        &mut self,
        link: Option<Link>,
        position: Position,
        changes: &[Change],
    ) -> Result<Applied, TreeError> {
        if changes.is_empty() {
            return Ok(Applied::Unchanged);
        }
        let nodes = self.nodes;
        let old: &[Entry] = match link {
            None => &[],
            Some(link) => match nodes.follow(link, position)?.map(|node| &node.body) {
                None => {
                    self.need.insert(link.hash);
                    return Ok(Applied::Lacking);
                }
                Some(Body::Branch(branch)) => return self.apply_below(branch, position, changes),
                Some(Body::Leaf(entries)) => entries,
            },
        };
        let new = merged(old, changes);
        Ok(if new == old {
            Applied::Unchanged
        } else {
            Applied::Changed(self.writer.subtree(new, position)?)
        })
    }

    fn apply_below(
        &mut self,
        branch: &Branch,
        position: Position,
        changes: &[Change],
    ) -> Result<Applied, TreeError> {
        let mut lacking = false;
        let mut changed = Vec::new();
        for (nibble, group) in groups(changes, position.depth) {
            let link = branch.child(nibble).map(Link::from);
            match self.apply(link, position.child(nibble)?, group)? {
                Applied::Lacking => lacking = true,
                Applied::Unchanged => {}
                Applied::Changed(subtree) => changed.push((nibble, subtree)),
            }
        }
        if lacking {
            return Ok(Applied::Lacking);
        }
        if changed.is_empty() {
            return Ok(Applied::Unchanged);
        }
        self.join(branch, position, changed)
    }

    /// Puts new subtrees, in order, in the place of some children.
    fn join(
        &mut self,
        branch: &Branch,
        position: Position,
        changed: Vec<(u8, Subtree)>,
    ) -> Result<Applied, TreeError> {
        let mut kept = branch.clone();
        let mut count = 0u32;
        for (nibble, subtree) in &changed {
            kept.set(*nibble, Child::default());
            let below = match subtree {
                Subtree::Empty => 0,
                Subtree::Leaf(entries) => {
                    u32::try_from(entries.len()).map_err(|_| TreeError::TooLarge)?
                }
                Subtree::Branch(branch) => branch.count()?,
            };
            count = count.checked_add(below).ok_or(TreeError::TooLarge)?;
        }
        count = count
            .checked_add(kept.count()?)
            .ok_or(TreeError::TooLarge)?;
        if self.writer.fits_leaf(count) {
            return self.fold(&kept, position, changed);
        }
        for (nibble, subtree) in changed {
            let child = self.writer.write(subtree, position.child(nibble)?)?;
            kept.set(nibble, child);
        }
        Ok(Applied::Changed(Subtree::Branch(Box::new(kept))))
    }

    /// Makes one leaf of what is left below a branch.
    fn fold(
        &mut self,
        kept: &Branch,
        position: Position,
        changed: Vec<(u8, Subtree)>,
    ) -> Result<Applied, TreeError> {
        let mut entries = Vec::new();
        let mut lacking = false;
        for (nibble, child) in kept.children() {
            lacking |= !self.gather(child.into(), position.child(nibble)?, &mut entries)?;
        }
        for (_, subtree) in changed {
            match subtree {
                Subtree::Empty => {}
                Subtree::Leaf(leaf) => entries.extend(leaf),
                // A changed branch holds more than a leaf can, and so does all of which it is a part.
                Subtree::Branch(_) => return Err(TreeError::TooLarge),
            }
        }
        if lacking {
            return Ok(Applied::Lacking);
        }
        entries.sort_unstable();
        Ok(Applied::Changed(if entries.is_empty() {
            Subtree::Empty
        } else {
            Subtree::Leaf(entries)
        }))
    }

    /// Collects all entries below a reference; false if nodes had to be asked for.
    fn gather(
        &mut self,
        link: Link,
        position: Position,
        entries: &mut Vec<Entry>,
    ) -> Result<bool, TreeError> {
        let nodes = self.nodes;
        match nodes.follow(link, position)?.map(|node| &node.body) {
            None => {
                self.need.insert(link.hash);
                Ok(false)
            }
            Some(Body::Leaf(leaf)) => {
                entries.extend(leaf);
                Ok(true)
            }
            Some(Body::Branch(branch)) => {
                let mut whole = true;
                for (nibble, child) in branch.children() {
                    whole &= self.gather(child.into(), position.child(nibble)?, entries)?;
                }
                Ok(whole)
            }
        }
    }
}

/// The entries of a leaf after changes; both are in order.
fn merged(old: &[Entry], changes: &[Change]) -> Vec<Entry> {
    let mut new = Vec::with_capacity(old.len() + changes.len());
    let mut old = old.iter().copied().peekable();
    for (key, value) in changes {
        while let Some(before) = old.next_if(|(old_key, _)| old_key < key) {
            new.push(before);
        }
        old.next_if(|(old_key, _)| old_key == key);
        new.extend(value.map(|number| (*key, number)));
    }
    new.extend(old);
    new
}
