//! The way through a tree of spaces: depth first, each room once. It reads nothing; it says what it has
//! to know.

use std::collections::{HashMap, HashSet};

use ruma::{OwnedRoomId, RoomId};

use super::RoomSummary;

/// Rooms of one tree that are gone to, at most.
const ROOMS_MAX: usize = 10_000;
/// Rooms that are looked at together, at most.
const AT_ONCE: usize = 50;

/// What is known of rooms; nothing may be known of one that is not there for who asks.
pub(super) type Known = HashMap<OwnedRoomId, Option<RoomSummary>>;

/// How far one has come.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    /// Where to go on, the nearest last, and how deep it is.
    ahead: Vec<(OwnedRoomId, u64)>,
    /// Where one has been.
    seen: HashSet<OwnedRoomId>,
}

/// Which part of the tree is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) suggested_only: bool,
    pub(super) max_depth: u64,
    pub(super) limit: usize,
}

/// One page of the way.
#[derive(Debug)]
pub(super) struct Steps {
    /// Where it leads on.
    pub(super) walk: Walk,
    /// The rooms that are shown.
    pub(super) shown: Vec<OwnedRoomId>,
    /// Rooms on it of which one would have to know before it can be gone.
    pub(super) unknown: Vec<OwnedRoomId>,
}

impl Walk {
    /// The way from a space.
    pub(super) fn from(space: &RoomId) -> Self {
        Self {
            ahead: vec![(space.to_owned(), 0)],
            seen: HashSet::new(),
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.ahead.is_empty()
    }

    /// What it takes in memory, about, in bytes.
    pub(super) fn bytes(&self) -> usize {
        const ROOM_ID: usize = 80;
        (self.ahead.len() + self.seen.len()) * ROOM_ID
    }

    /// Goes on for a page, past rooms of which nothing is known yet as if they were not there.
    pub(super) fn page(&self, known: &Known, wanted: Wanted) -> Steps {
        self.steps(known, wanted, AT_ONCE)
    }

    /// Goes on for a page that ends, full or not, where nothing more is known.
    pub(super) fn known_page(&self, known: &Known, wanted: Wanted) -> Steps {
        self.steps(known, wanted, 0)
    }

    fn steps(&self, known: &Known, wanted: Wanted, unknown_max: usize) -> Steps {
        let mut walk = self.clone();
        let (mut shown, mut unknown) = (Vec::new(), Vec::new());
        while shown.len() < wanted.limit {
            let Some((room_id, depth)) = walk.ahead.pop() else {
                break;
            };
            if walk.seen.contains(&room_id) {
                continue;
            }
            match known.get(&room_id) {
                None if unknown.len() >= unknown_max => {
                    walk.ahead.push((room_id, depth));
                    break;
                }
                None => unknown.push(room_id.clone()),
                Some(None) => {}
                Some(Some(summary)) => {
                    shown.push(room_id.clone());
                    if depth < wanted.max_depth {
                        walk.go_into(summary, depth + 1, wanted.suggested_only);
                    }
                }
            }
            walk.seen.insert(room_id);
        }
        let seen = &walk.seen;
        walk.ahead.retain(|(room_id, _)| !seen.contains(room_id));
        Steps {
            walk,
            shown,
            unknown,
        }
    }

    fn go_into(&mut self, space: &RoomSummary, depth: u64, suggested_only: bool) {
        let room = ROOMS_MAX.saturating_sub(self.ahead.len() + self.seen.len());
        let children = space.children.iter();
        let wanted = children.filter(|child| child.suggested || !suggested_only);
        let wanted: Vec<_> = wanted.take(room).collect();
        let steps = wanted.into_iter().rev();
        self.ahead
            .extend(steps.map(|child| (child.room_id.clone(), depth)));
    }
}
