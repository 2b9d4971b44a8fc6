//! What can go wrong with an engine that is elsewhere, made to go wrong by dice.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{NameHash, SNAPSHOT_LIFE};

/// How often an engine misbehaves, out of a thousand commits each, and how slow it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Makes the misfortunes the same each time.
    pub seed: u64,
    /// A batch with preconditions is refused as if one did not hold.
    pub conflicts: u32,
    /// A batch is written, and the reply is lost.
    pub lost_replies: u32,
    /// A batch is lost, and nobody knows.
    pub lost_batches: u32,
    /// Nobody is woken by a batch.
    pub lost_wakes: u32,
    /// Those who wait are woken by a batch only after a while, up to [`LATEST_WAKE`].
    pub late_wakes: u32,
    /// How long each list of reads takes, on the storage's clock.
    pub read_takes: Duration,
    /// Out of a thousand lists of reads so many take longer than a view is kept.
    pub stalled_reads: u32,
    /// After so many commits nothing is written any more, as if the process were gone.
    pub stops_after: Option<u32>,
}

/// The longest time after which somebody is woken late.
pub(super) const LATEST_WAKE: Duration = Duration::from_secs(2);

impl Faults {
    /// An engine that is always right, at once.
    pub const NONE: Self = Self {
        seed: 0,
        conflicts: 0,
        lost_replies: 0,
        lost_batches: 0,
        lost_wakes: 0,
        late_wakes: 0,
        read_takes: Duration::ZERO,
        stalled_reads: 0,
        stops_after: None,
    };
}

impl Default for Faults {
    fn default() -> Self {
        Self::NONE
    }
}

/// When those who wait for what a batch changed are woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    Now,
    After(Duration),
    Never,
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
    faults: Mutex<Faults>,
    /// Commits since it misbehaves in this way.
    commits: AtomicU32,
    random: Mutex<StdRng>,
}

impl Dice {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            faults: Mutex::new(faults),
            commits: AtomicU32::new(0),
            random: Mutex::new(StdRng::seed_from_u64(faults.seed)),
        }
    }

    fn faults(&self) -> Faults {
        *self.faults.lock()
    }

    pub(super) fn change(&self, faults: Faults) {
        *self.faults.lock() = faults;
        self.commits.store(0, Ordering::Relaxed);
    }

    /// A name that no other commit has; none if no reply is ever lost.
    pub(super) fn name(&self) -> Option<NameHash> {
        let faults = self.faults();
        let lost = faults.lost_replies + faults.lost_batches;
        (lost > 0).then(|| NameHash(self.random.lock().random()))
    }

    /// Whether wake-ups come late or not at all at times.
    pub(super) fn wakes_badly(&self) -> bool {
        self.faults().lost_wakes + self.faults().late_wakes > 0
    }

    pub(super) fn wake(&self) -> Wake {
        let Faults {
            lost_wakes,
            late_wakes,
            ..
        } = self.faults();
        if !self.wakes_badly() {
            return Wake::Now;
        }
        let mut random = self.random.lock();
        let rolled = random.random_range(0..1_000);
        if rolled < lost_wakes {
            Wake::Never
        } else if rolled < lost_wakes + late_wakes {
            Wake::After(random.random_range(Duration::ZERO..LATEST_WAKE))
        } else {
            Wake::Now
        }
    }

    /// How long the next list of reads takes.
    pub(super) fn read_takes(&self) -> Duration {
        let Faults {
            read_takes,
            stalled_reads,
            ..
        } = self.faults();
        if stalled_reads > 0 && self.random.lock().random_range(0..1_000) < stalled_reads {
            return read_takes + 2 * SNAPSHOT_LIFE;
        }
        read_takes
    }

    pub(super) fn roll(&self) -> Fate {
        let Faults {
            conflicts,
            lost_replies,
            lost_batches,
            stops_after,
            ..
        } = self.faults();
        let before = self.commits.fetch_add(1, Ordering::Relaxed);
        if stops_after.is_some_and(|commits| before >= commits) {
            return Fate::BatchLost;
        }
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
