//! A node, its bytes, and the nodes that are loaded.

use std::{collections::HashMap, sync::Arc};

use super::{Entry, NodeHash, Position, StateKeyHash, TreeError};
use crate::EventNumber;

const LEAF: u8 = 1;
const BRANCH: u8 = 2;

/// A decoded node. Cheap to share: behind an [`Arc`] in [`Nodes`] and in caches.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    pub(super) position: Position,
    pub(super) body: Body,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// In order of the keys, at least one.
    Leaf(Box<[Entry]>),
    Branch(Box<Branch>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Branch {
    children: [Child; 16],
}

/// A reference to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) hash: NodeHash,
    /// How many entries are below it; 0: there is no such child.
    pub(super) count: u32,
}

impl Default for Child {
    fn default() -> Self {
        Self {
            hash: super::EMPTY_ROOT,
            count: 0,
        }
    }
}

impl Branch {
    pub(super) fn child(&self, nibble: u8) -> Option<Child> {
        self.children
            .get(usize::from(nibble))
            .copied()
            .filter(|child| child.count > 0)
    }

    pub(super) fn set(&mut self, nibble: u8, child: Child) {
        if let Some(slot) = self.children.get_mut(usize::from(nibble)) {
            *slot = child;
        }
    }

    /// The children there are, in order, each with its half-byte.
    pub(super) fn children(&self) -> impl Iterator<Item = (u8, Child)> {
        (0u8..)
            .zip(self.children)
            .filter(|(_, child)| child.count > 0)
    }

    pub(super) fn count(&self) -> Result<u32, TreeError> {
        self.children
            .iter()
            .try_fold(0u32, |sum, child| sum.checked_add(child.count))
            .ok_or(TreeError::TooLarge)
    }
}

impl Node {
    /// Reads the bytes of a node.
    ///
    /// # Errors
    ///
    /// Whenever the bytes are not exactly what an update would have written for some content at some place.
    pub fn decode(bytes: &[u8]) -> Result<Self, TreeError> {
        let mut input = Input(bytes);
        let format = input.byte()?;
        if !matches!(format, LEAF | BRANCH) {
            return Err(TreeError::UnknownFormat(format));
        }
        let position = input.position()?;
        let body = if format == LEAF {
            Body::Leaf(input.leaf(position)?)
        } else {
            Body::Branch(Box::new(input.branch(position)?))
        };
        if !input.0.is_empty() {
            return Err(TreeError::Damaged("bytes after its end"));
        }
        Ok(Self { position, body })
    }

    /// The bytes this node takes in memory, for caches that are limited in bytes.
    pub fn memory(&self) -> usize {
        let body = match &self.body {
            Body::Leaf(entries) => size_of_val::<[Entry]>(entries),
            Body::Branch(_) => size_of::<Branch>(),
        };
        // The two counters of the `Arc` are the two words.
        size_of::<Self>() + body + 2 * size_of::<usize>()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let whole_bytes = usize::from(self.position.depth / 2);
        let mut bytes = Vec::with_capacity(match &self.body {
            Body::Leaf(entries) => 20 + entries.len() * 20,
            Body::Branch(_) => 20 + 16 * 20,
        });
        bytes.push(match self.body {
            Body::Leaf(_) => LEAF,
            Body::Branch(_) => BRANCH,
        });
        bytes.push(self.position.depth);
        let prefix_bytes = usize::from(self.position.depth.div_ceil(2));
        bytes.extend(self.position.prefix.iter().take(prefix_bytes));
        match &self.body {
            Body::Leaf(entries) => {
                // Leaves are far below 256 entries; `decode` refuses a count that does not fit its entries.
                bytes.push(u8::try_from(entries.len()).unwrap_or(u8::MAX));
                for (key, number) in entries {
                    bytes.extend(key.0.iter().skip(whole_bytes));
                    push_varint(&mut bytes, number.0);
                }
            }
            Body::Branch(branch) => {
                let present = branch
                    .children()
                    .fold(0u16, |bits, (nibble, _)| bits | 1 << nibble);
                bytes.extend(present.to_le_bytes());
                for (_, child) in branch.children() {
                    bytes.extend(child.hash.0);
                    push_varint(&mut bytes, child.count);
                }
            }
        }
        bytes
    }

    /// The number of entries at and below this node.
    pub(super) fn count(&self) -> Result<u32, TreeError> {
        match &self.body {
            Body::Leaf(entries) => u32::try_from(entries.len()).map_err(|_| TreeError::TooLarge),
            Body::Branch(branch) => branch.count(),
        }
    }
}

/// The nodes that have been loaded so far.
///
/// The functions of this module look here for nodes and ask for the rest. A clone shares the decoded nodes.
#[derive(Clone, Debug, Default)]
pub struct Nodes(HashMap<NodeHash, Arc<Node>>);

impl Nodes {
    /// No nodes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a node and adds it. That the bytes belong to the name is for storage to guarantee
    /// (compare with [`NodeHash::of`] to check); a node that is not what others say of it is found out on the way.
    ///
    /// # Errors
    ///
    /// If the bytes are no node, see [`Node::decode`].
    pub fn insert(&mut self, hash: NodeHash, bytes: &[u8]) -> Result<(), TreeError> {
        self.0.insert(hash, Arc::new(Node::decode(bytes)?));
        Ok(())
    }

    /// Adds a node that is already decoded, from a cache for instance.
    pub fn insert_node(&mut self, hash: NodeHash, node: Arc<Node>) {
        self.0.insert(hash, node);
    }

    /// The node of this name, if it has been loaded.
    pub fn get(&self, hash: &NodeHash) -> Option<&Arc<Node>> {
        self.0.get(hash)
    }

    /// How many nodes have been loaded.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no node has been loaded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Follows a reference: the node, if it is loaded, checked to be the one that belongs there.
    pub(super) fn follow(
        &self,
        link: Link,
        position: Position,
    ) -> Result<Option<&Node>, TreeError> {
        let Some(node) = self.0.get(&link.hash) else {
            return Ok(None);
        };
        let count_differs = match link.count {
            Some(count) => node.count()? != count,
            None => false,
        };
        if node.position != position || count_differs {
            return Err(TreeError::Misplaced(link.hash));
        }
        Ok(Some(node))
    }
}

/// A reference to a node from a branch, which knows the count, or to a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) hash: NodeHash,
    pub(super) count: Option<u32>,
}

impl Link {
    /// The reference to a root; `None` for the empty state.
    pub(super) fn root(hash: NodeHash) -> Option<Self> {
        (hash != super::EMPTY_ROOT).then_some(Self { hash, count: None })
    }
}

impl From<Child> for Link {
    fn from(child: Child) -> Self {
        Self {
            hash: child.hash,
            count: Some(child.count),
        }
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], TreeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(TreeError::Damaged("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, TreeError> {
        self.take(1)?
            .first()
            .copied()
            .ok_or(TreeError::Damaged("it ends too early"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TreeError> {
        self.take(N)?
            .try_into()
            .map_err(|_| TreeError::Damaged("it ends too early"))
    }

    /// A number, in the shortest form only: one content has one encoding.
    fn varint(&mut self) -> Result<u32, TreeError> {
        let mut value = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(TreeError::Damaged("a number is longer than it must be"));
                }
                return u32::try_from(value)
                    .map_err(|_| TreeError::Damaged("a number is too large"));
            }
        }
        Err(TreeError::Damaged("a number is too large"))
    }

    fn position(&mut self) -> Result<Position, TreeError> {
        let depth = self.byte()?;
        if depth > Position::DEEPEST {
            return Err(TreeError::Damaged("it stands deeper than keys are long"));
        }
        let mut prefix = [0; 16];
        for (to, from) in prefix
            .iter_mut()
            .zip(self.take(usize::from(depth.div_ceil(2)))?)
        {
            *to = *from;
        }
        let position = Position { depth, prefix };
        if !position.contains(&StateKeyHash(prefix)) {
            return Err(TreeError::Damaged("its place has a half-byte too many"));
        }
        Ok(position)
    }

    fn leaf(&mut self, position: Position) -> Result<Box<[Entry]>, TreeError> {
        let count = self.byte()?;
        if count == 0 {
            return Err(TreeError::Damaged("a leaf without entries"));
        }
        let whole_bytes = usize::from(position.depth / 2);
        let mut entries: Vec<Entry> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let mut key = StateKeyHash(position.prefix);
            let rest = self.take(key.0.len().saturating_sub(whole_bytes))?;
            for (to, from) in key.0.iter_mut().skip(whole_bytes).zip(rest) {
                *to = *from;
            }
            if !position.contains(&key) {
                return Err(TreeError::Damaged("a key that belongs elsewhere"));
            }
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                return Err(TreeError::Damaged("keys out of order"));
            }
            entries.push((key, EventNumber(self.varint()?)));
        }
        Ok(entries.into_boxed_slice())
    }

    fn branch(&mut self, position: Position) -> Result<Branch, TreeError> {
        if position.depth >= Position::DEEPEST {
            return Err(TreeError::Damaged(
                "a branch below the last half-byte of its keys",
            ));
        }
        let present = u16::from_le_bytes(self.array()?);
        if present == 0 {
            return Err(TreeError::Damaged("a branch without children"));
        }
        let mut branch = Branch::default();
        for nibble in (0u8..16).filter(|nibble| present & 1 << nibble != 0) {
            let child = Child {
                hash: NodeHash(self.array()?),
                count: self.varint()?,
            };
            if child.count == 0 || child.hash == super::EMPTY_ROOT {
                return Err(TreeError::Damaged("a child without entries"));
            }
            branch.set(nibble, child);
        }
        branch.count()?;
        Ok(branch)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use proptest::prelude::*;

    use super::*;

    fn leaf() -> Node {
        let key = |last| StateKeyHash([0xab, 0xc5, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, last]);
        let mut prefix = [0; 16];
        prefix[..2].copy_from_slice(&[0xab, 0xc0]);
        Node {
            position: Position { depth: 3, prefix },
            body: Body::Leaf(Box::new([
                (key(3), EventNumber(0)),
                (key(4), EventNumber(300)),
                (key(9), EventNumber(u32::MAX)),
            ])),
        }
    }

    fn branch() -> Node {
        let mut branch = Branch::default();
        branch.set(
            0,
            Child {
                hash: NodeHash([7; 16]),
                count: 1,
            },
        );
        branch.set(
            15,
            Child {
                hash: NodeHash([8; 16]),
                count: 70_000,
            },
        );
        Node {
            position: Position::ROOT,
            body: Body::Branch(Box::new(branch)),
        }
    }

    #[test]
    fn nodes_read_back_as_written() {
        for node in [leaf(), branch()] {
            assert_eq!(Node::decode(&node.encode()), Ok(node));
        }
        // Format, depth, 2 bytes of place, count; then keys without their first byte and 1, 2, 5 bytes of number.
        assert_eq!(leaf().encode().len(), 5 + 3 * 15 + 1 + 2 + 5);
        // Format, depth, 2 bytes of bits; then hashes with 1 and 3 bytes of count.
        assert_eq!(branch().encode().len(), 4 + 17 + 19);
    }

    #[test]
    fn bytes_that_no_update_writes_are_refused() {
        let changed = |node: Node, at: usize, value: u8| {
            let mut bytes = node.encode();
            bytes[at] = value;
            Node::decode(&bytes).unwrap_err()
        };
        assert_eq!(
            Node::decode(&[]),
            Err(TreeError::Damaged("it ends too early"))
        );
        assert_eq!(changed(leaf(), 0, 9), TreeError::UnknownFormat(9));
        assert!(matches!(changed(leaf(), 1, 33), TreeError::Damaged(_)));
        // An unused half-byte of the place.
        assert!(matches!(changed(leaf(), 3, 0xc1), TreeError::Damaged(_)));
        // Too few, too many, no entries.
        assert!(matches!(changed(leaf(), 4, 2), TreeError::Damaged(_)));
        assert!(matches!(changed(leaf(), 4, 4), TreeError::Damaged(_)));
        assert!(matches!(changed(leaf(), 4, 0), TreeError::Damaged(_)));
        // A key outside its leaf, keys out of order.
        assert!(matches!(changed(leaf(), 5, 0xd5), TreeError::Damaged(_)));
        assert!(matches!(changed(leaf(), 19, 4), TreeError::Damaged(_)));
        // A child that the bits do not name; a count of 0.
        assert!(matches!(changed(branch(), 2, 3), TreeError::Damaged(_)));
        assert!(matches!(changed(branch(), 20, 0), TreeError::Damaged(_)));
    }

    #[test]
    fn numbers_have_one_encoding() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut bytes = Vec::new();
            push_varint(&mut bytes, value);
            assert_eq!(Input(&bytes).varint(), Ok(value));
        }
        for wrong in [
            &[0x80, 0][..],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
            &[0x80; 6],
            &[0x80],
        ] {
            assert!(Input(wrong).varint().is_err(), "{wrong:?}");
        }
    }

    proptest! {
        /// Whatever decodes is the one encoding of what was decoded, so no two byte strings mean the same node.
        #[test]
        fn any_bytes_decode_to_their_own_encoding_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200), format in 0u8..4, depth in 0u8..4,
        ) {
            for bytes in [bytes.clone(), [vec![format, depth], bytes].concat()] {
                if let Ok(node) = Node::decode(&bytes) {
                    prop_assert_eq!(node.encode(), bytes);
                }
            }
        }

        #[test]
        fn damaged_nodes_decode_to_their_own_encoding_or_an_error(
            which in any::<bool>(), at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = if which { leaf() } else { branch() }.encode();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes.clone());
            }
            bytes.truncate(cut.index(bytes.len()));
            if let Ok(node) = Node::decode(&bytes) {
                prop_assert_eq!(node.encode(), bytes.clone());
            }
            let mut whole = if which { leaf() } else { branch() }.encode();
            whole.truncate(cut.index(whole.len()));
            prop_assert!(Node::decode(&whole).is_err());
        }
    }
}
