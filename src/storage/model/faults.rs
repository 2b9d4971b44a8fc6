//! What can go wrong with an engine that is elsewhere, made to go wrong by dice.

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::NameHash;

/// How often an engine misbehaves, out of a thousand commits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Makes the misfortunes the same each time.
    pub seed: u64,
    /// A batch with preconditions is refused as if one did not hold.
    pub conflicts: u32,
    /// A batch is written, and the reply is lost.
    pub lost_replies: u32,
    /// A batch is lost, and nobody knows.
    pub lost_batches: u32,
}

/// What happens to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    Conflict,
    ReplyLost,
    BatchLost,
}

#[derive(Debug)]
pub(super) struct Dice {
    faults: Faults,
    random: Mutex<StdRng>,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults,
            random: Mutex::new(StdRng::seed_from_u64(faults.seed)),
        }
    }

    /// A name that no other commit has; none if no reply is ever lost.
    pub(super) fn name(&self) -> Option<NameHash> {
        let lost = self.faults.lost_replies + self.faults.lost_batches;
        (lost > 0).then(|| NameHash(self.random.lock().random()))
    }

    pub(super) fn roll(&self) -> Fate {
        let Faults {
            conflicts,
            lost_replies,
            lost_batches,
            ..
        } = self.faults;
        if conflicts + lost_replies + lost_batches == 0 {
            return Fate::Good;
        }
        let rolled = self.random.lock().random_range(0..1_000);
        if rolled < conflicts {
            Fate::Conflict
        } else if rolled < conflicts + lost_replies {
            Fate::ReplyLost
        } else if rolled < conflicts + lost_replies + lost_batches {
            Fate::BatchLost
        } else {
            Fate::Good
        }
    }
}
