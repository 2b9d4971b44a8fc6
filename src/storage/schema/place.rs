//! Places in a timeline.

use serde::{Deserialize, Serialize};

use crate::key::{KeyError, KeyPart, KeyReader, KeyWriter};

/// Where an event stands in its room's timeline, as this server shows it.
///
/// A live event takes the next slot at step 0; history found before slot *s* takes (s, −1), (s, −2) …
/// Places never move.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Place {
    /// Counts the live events of the room.
    pub slot: u64,
    /// 0 for the live event of the slot; negative for history found before it.
    pub step: i32,
}

impl Place {
    /// Before every event.
    pub const START: Self = Self {
        slot: 0,
        step: i32::MIN,
    };
    /// After every event.
    pub const END: Self = Self {
        slot: u64::MAX,
        step: i32::MAX,
    };

    /// The live event's place in `slot`.
    pub const fn live(slot: u64) -> Self {
        Self { slot, step: 0 }
    }
}

impl KeyPart for Place {
    fn write(&self, to: &mut KeyWriter) {
        KeyPart::write(&self.slot, to);
        KeyPart::write(&self.step, to);
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        Ok(Self {
            slot: KeyPart::read(from)?,
            step: KeyPart::read(from)?,
        })
    }
}
