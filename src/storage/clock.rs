//! What time it is, as a parameter: tests have a clock of their own and never sleep.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ruma::{MilliSecondsSinceUnixEpoch, UInt};

/// Tells the time of the day. Clones tell the same time.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    /// Since when it is watched.
    System(Instant),
    Set(Arc<AtomicU64>),
}

impl Clock {
    /// The clock of the machine.
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still, `milliseconds` after 1970 began, until [`Clock::advance`] moves
    /// it.
    pub fn standing_at(milliseconds: u64) -> Self {
        Self(Source::Set(Arc::new(AtomicU64::new(milliseconds))))
    }

    /// Moves a standing clock, and all its clones, on. The clock of the machine does not listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Set(time) = &self.0 {
            time.fetch_add(milliseconds(by), Ordering::Relaxed);
        }
    }

    /// A time that only ever goes on, whatever is done to the machine's clock: differences of it are how
    /// long something took.
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Source::System(start) => start.elapsed(),
            Source::Set(time) => Duration::from_millis(time.load(Ordering::Relaxed)),
        }
    }

    /// Milliseconds since 1970 began.
    pub fn now(&self) -> MilliSecondsSinceUnixEpoch {
        let time = match &self.0 {
            // A machine whose clock stands before 1970 has other problems; it is 1970 to us.
            Source::System(_) => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, milliseconds),
            Source::Set(time) => time.load(Ordering::Relaxed),
        };
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(time))
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stands_until_it_is_moved_for_all_clones() {
        let clock = Clock::standing_at(1_000);
        let same = clock.clone();
        assert_eq!(u64::from(same.now().get()), 1_000);
        clock.advance(Duration::from_secs(2));
        assert_eq!(u64::from(same.now().get()), 3_000);
        assert_eq!(same.elapsed(), Duration::from_secs(3));
    }

    #[test]
    fn what_has_elapsed_on_the_machine_never_grows_less() {
        let clock = Clock::system();
        let before = clock.elapsed();
        assert!(clock.elapsed() >= before && before < Duration::from_secs(60));
    }

    #[test]
    fn the_machines_clock_is_past_2020_and_cannot_be_moved() {
        let clock = Clock::system();
        clock.advance(Duration::from_secs(u64::MAX / 1_000));
        let now = u64::from(clock.now().get());
        assert!(
            (1_577_836_800_000..253_402_300_800_000).contains(&now),
            "{now}"
        );
    }
}
