//! The one total order in which this server learned of things.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::key::{KeyError, KeyPart, KeyReader, KeyWriter};

/// The place that the engine gave to one commit, rising with every commit of one epoch.
///
/// Ten bytes, compared as they lie; only the engine knows what they mean.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp(pub [u8; 10]);

impl Stamp {
    /// Stands in a batch for the stamp that the commit will be given.
    const PENDING: Self = Self([0xff; 10]);
    const ZERO: Self = Self([0; 10]);
}

/// The stamp of an engine that counts.
pub(crate) fn stamp_of(count: u64) -> Stamp {
    let mut stamp = Stamp::ZERO;
    if let Some(low) = stamp.0.last_chunk_mut::<8>() {
        *low = count.to_be_bytes();
    }
    stamp
}

/// Puts epoch and stamp over the first fourteen bytes of the pending position at `at`.
pub(crate) fn fill(bytes: &mut [u8], at: usize, epoch: u32, stamp: Stamp) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(14)) {
        let (epoch_bytes, stamp_bytes) = place.split_at_mut(4);
        epoch_bytes.copy_from_slice(&epoch.to_be_bytes());
        stamp_bytes.copy_from_slice(&stamp.0);
    }
}

/// When this server learned of something: an opaque, totally ordered token.
///
/// It begins with an epoch, which a restored backup or an import raises, so that tokens handed out
/// before are recognised as those of another history. `index` tells apart what one commit wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    epoch: u32,
    stamp: Stamp,
    index: u16,
}

impl Position {
    /// Bytes in its encoded form.
    pub const LEN: usize = 16;
    /// Before everything.
    pub const START: Self = Self {
        epoch: 0,
        stamp: Stamp::ZERO,
        index: 0,
    };
    /// After everything.
    pub const END: Self = Self {
        epoch: u32::MAX,
        stamp: Stamp::PENDING,
        index: u16::MAX,
    };

    /// The position of the `index`th thing in the commit that this is put into: a placeholder, filled
    /// in by the engine.
    pub const fn pending(index: u16) -> Self {
        Self {
            epoch: u32::MAX - 1,
            stamp: Stamp::PENDING,
            index,
        }
    }

    /// The position of the `index`th thing in the commit `stamp` of `epoch`.
    pub const fn new(epoch: u32, stamp: Stamp, index: u16) -> Self {
        Self {
            epoch,
            stamp,
            index,
        }
    }

    /// The history this position belongs to.
    pub const fn epoch(self) -> u32 {
        self.epoch
    }

    /// The commit this position belongs to.
    pub const fn stamp(self) -> Stamp {
        self.stamp
    }

    /// Which thing of its commit.
    pub const fn index(self) -> u16 {
        self.index
    }

    /// The last position of the same commit: what a reader has seen who has seen the commit.
    pub const fn end_of_commit(self) -> Self {
        Self {
            index: u16::MAX,
            ..self
        }
    }

    /// The next position after this one, whether anything is there or not.
    pub fn successor(self) -> Self {
        u128::from_be_bytes(self.to_bytes())
            .checked_add(1)
            .map_or(Self::END, |next| Self::from_bytes(next.to_be_bytes()))
    }

    /// Whether the commit that is to give it its stamp has not happened yet.
    pub fn is_pending(self) -> bool {
        self.epoch == u32::MAX - 1 && self.stamp == Stamp::PENDING
    }

    /// Sixteen bytes that compare as positions do.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let (epoch, rest) = bytes.split_at_mut(4);
        let (stamp, index) = rest.split_at_mut(10);
        epoch.copy_from_slice(&self.epoch.to_be_bytes());
        stamp.copy_from_slice(&self.stamp.0);
        index.copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [e0, e1, e2, e3, stamp @ .., i0, i1] = bytes;
        Self {
            epoch: u32::from_be_bytes([e0, e1, e2, e3]),
            stamp: Stamp(stamp),
            index: u16::from_be_bytes([i0, i1]),
        }
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_pending() {
            return write!(f, "pending.{}", self.index);
        }
        write!(f, "{}.", self.epoch)?;
        let stamp = self
            .stamp
            .0
            .iter()
            .fold(0u128, |n, byte| (n << 8) | u128::from(*byte));
        write!(f, "{stamp}.{}", self.index)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl KeyPart for Position {
    fn write(&self, to: &mut KeyWriter) {
        if self.is_pending() {
            to.stamp_here();
        }
        to.bytes(&self.to_bytes());
    }

    fn read(from: &mut KeyReader<'_>) -> Result<Self, KeyError> {
        from.array().map(Self::from_bytes)
    }
}
