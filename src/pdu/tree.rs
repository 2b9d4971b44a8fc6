//! The state of a room as a persistent tree.
//!
//! A hash trie: the same content has the same shape and so the same root, whatever the history of
//! changes. Every state a room ever had is a root; two states share all nodes in which they agree, so a
//! state event costs the nodes on one path, equal states are recognised by their roots, and the
//! difference of two states costs the paths to what differs.
//!
//! # Shape
//!
//! An entry is a [`StateKeyHash`] and the [`EventNumber`] that stands under it. A node at depth *d* holds
//! all entries that share their first *d* half-bytes. If there are at most [`LEAF_MAX`] of them, it is a
//! *leaf*, which lists them in order; otherwise a *branch*, with up to 16 children. The empty state has no
//! node and the root [`EMPTY_ROOT`]. Content alone decides, hence removals fold branches back into leaves,
//! for which a branch knows the number of entries below each child. The state of a small room is one row.
//!
//! # Bytes
//!
//! A node is named by the keyed BLAKE3 hash, 16 bytes of it, of its bytes:
//!
//! | part | bytes |
//! |---|---|
//! | format | 1: `1` leaf, `2` branch |
//! | depth *d* | 1 |
//! | the half-bytes that lead here | ⌈*d* / 2⌉, an unused last half-byte is 0 |
//! | leaf: number of entries | 1 |
//! | leaf: each entry | the key without its first ⌊*d* / 2⌋ bytes, the number as LEB128 |
//! | branch: which children there are | 2, little endian, bit *i* for the child of half-byte *i* |
//! | branch: each child | its hash, 16, the number of entries below it as LEB128 |
//!
//! That a node says where it stands bounds every walk over damaged bytes: no node fits in two places, so
//! there are no cycles and none of the sharing with which few bytes could pretend to be an endless tree.
//!
//! # Why leaves of 32
//!
//! Measured by `tree/cost_tests.rs`: mean bytes and nodes that one changed or new member writes in a room
//! of so many, and the rows of the whole state.
//!
//! | leaf | 10 | 100 | 1,000 | 10,000 | 100,000 |
//! |---|---|---|---|---|---|
//! | 8 | 281, 2, 15 | 430, 3, 42 | 646, 3, 322 | 884, 4, 4,018 | 1,135, 5, 55,797 |
//! | 16 | 281, 2, 15 | 419, 2, 17 | 642, 3, 269 | 884, 4, 3,987 | 1,140, 5, 54,163 |
//! | **32** | 352, 1, 1 | 419, 2, 17 | 642, 3, 269 | 938, 4, 3,372 | 1,301, 4, 7,596 |
//! | 64 | 352, 1, 1 | 419, 2, 17 | 1,086, 3, 110 | 1,261, 3, 273 | 1,333, 4, 4,369 |
//!
//! A branch of 16 children takes 290 to 310 bytes, an entry of a leaf 17 to 19. With 32 the state of a new
//! or small room is one row; 8 and 16 save some bytes in the largest rooms, for a level more and seven times the rows; with
//! 64 a small room rewrites up to 1,200 bytes, and one of 1,000 members 70 % more than with 32, for each event.
//! At most 1,800 bytes were written for an event at 100,000 members; with the nodes in memory it takes 7 µs
//! (`benches/tree.rs`), as does the difference of the states before and after.
//!
//! # Use
//!
//! All functions are pure and say by [`Step::Need`](crate::Step::Need) which nodes they lack: every node
//! they can know of at that point, for all roots and keys given. The caller loads them under the room's
//! short id into [`Nodes`] and calls again with the same arguments. [`EMPTY_ROOT`] is never asked for.

mod diff;
mod find;
mod node;
mod update;
mod walk;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod model_tests;

pub use self::{
    diff::{Bounded, Difference, Divergence, diff, diff_all, diff_all_within, diff_within},
    find::find,
    node::{Node, Nodes},
    update::{Update, build, update},
    walk::{Page, Reachable, entries, entries_after},
};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::EventNumber;

/// A leaf holds at most so many entries. Part of the format: another number is another shape.
pub const LEAF_MAX: usize = 32;

/// The root of the state in which nothing is set. No node has this name.
pub const EMPTY_ROOT: NodeHash = NodeHash([0; 16]);

/// One entry of a state: what stands under a key.
pub type Entry = (StateKeyHash, EventNumber);

/// The secret from which a room's node names and state key hashes are made.
///
/// Without it nobody can choose state keys that crowd into one corner of the tree, nor recognise a state
/// key or an equal state in another room.
#[derive(Clone)]
pub struct HashKey([u8; 32]);

impl HashKey {
    /// A key from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key of one room, from the server's key and the room's short id.
    pub fn for_room(server_key: &[u8; 32], room: [u8; 8]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(server_key);
        hasher.update(b"state tree of room");
        hasher.update(&room);
        Self(*hasher.finalize().as_bytes())
    }

    fn hash(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in parts {
            hasher.update(part);
        }
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        hash
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

/// An event type and a state key, as one keyed hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateKeyHash(pub [u8; 16]);

impl StateKeyHash {
    /// The hash under which a room's state holds the event of this type and state key.
    pub fn new(key: &HashKey, event_type: &str, state_key: &str) -> Self {
        let length = (event_type.len() as u64).to_le_bytes();
        Self(key.hash(&[b"k", &length, event_type.as_bytes(), state_key.as_bytes()]))
    }

    /// The half-byte at this depth; 0 beyond the end.
    fn nibble(&self, depth: u8) -> u8 {
        let byte = self
            .0
            .get(usize::from(depth / 2))
            .copied()
            .unwrap_or_default();
        if depth.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 0x0f
        }
    }
}

impl fmt::Debug for StateKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StateKeyHash({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The name of a node: the keyed hash of its bytes. As a root it names a whole state.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeHash(pub [u8; 16]);

impl NodeHash {
    /// The name of a node with these bytes.
    pub fn of(key: &HashKey, bytes: &[u8]) -> Self {
        Self(key.hash(&[b"n", bytes]))
    }
}

impl fmt::Debug for NodeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeHash({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What is wrong with stored nodes. All of these mean damage, or a node that was put under another name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The first byte is none of the known formats.
    #[error("a state node has the unknown format {0}")]
    UnknownFormat(u8),
    /// The bytes of a node are not what its format asks for.
    #[error("a state node is damaged: {0}")]
    Damaged(&'static str),
    /// A node is whole, but does not belong where another one points to it.
    #[error("the state node {0:?} does not belong where it is referred to")]
    Misplaced(NodeHash),
    /// More entries than a state can count (2^32 - 1).
    #[error("a state has too many entries")]
    TooLarge,
}

/// Where a node stands: the half-bytes that all keys below it begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    depth: u8,
    /// The half-bytes, then zeros.
    prefix: [u8; 16],
}

impl Position {
    const ROOT: Self = Self {
        depth: 0,
        prefix: [0; 16],
    };

    /// Half-bytes in a key.
    const DEEPEST: u8 = 32;

    /// The position of the child under a half-byte.
    fn child(self, nibble: u8) -> Result<Self, TreeError> {
        let Self { depth, mut prefix } = self;
        let byte = prefix
            .get_mut(usize::from(depth / 2))
            .ok_or(TreeError::Damaged(
                "a branch below the last half-byte of its keys",
            ))?;
        *byte |= if depth.is_multiple_of(2) {
            nibble << 4
        } else {
            nibble & 0x0f
        };
        Ok(Self {
            depth: depth + 1,
            prefix,
        })
    }

    /// The first half-bytes of the key, as many as this position has.
    fn prefix_of(self, key: &StateKeyHash) -> [u8; 16] {
        let bits = 4 * u32::from(self.depth);
        // A shift by all 128 bits would overflow: at the root nothing is kept.
        let mask = u128::MAX
            .checked_shl(128u32.saturating_sub(bits))
            .unwrap_or_default();
        (u128::from_be_bytes(key.0) & mask).to_be_bytes()
    }

    fn contains(self, key: &StateKeyHash) -> bool {
        self.prefix_of(key) == self.prefix
    }
}

/// Splits what is in order of its keys by the half-byte at a depth.
fn groups<T>(
    items: &[(StateKeyHash, T)],
    depth: u8,
) -> impl Iterator<Item = (u8, &[(StateKeyHash, T)])> {
    items
        .chunk_by(move |a, b| a.0.nibble(depth) == b.0.nibble(depth))
        .filter_map(move |group| Some((group.first()?.0.nibble(depth), group)))
}
