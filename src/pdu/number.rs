//! An event's short name in its room.

use serde::{Deserialize, Serialize};

/// An event's short name in its room on this server.
///
/// Numbers rise, stand above those of the event's auth events, and may have holes. They say nothing
/// about the order in which people see events: that is what places are for. 32 bits hold four
/// billion events a room and let sets of them be roaring bitmaps.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct EventNumber(pub u32);

impl EventNumber {
    /// The number after this one; `None` when a room has used up all of them.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl std::fmt::Display for EventNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
