//! Token buckets: how often somebody has done something lately.
//!
//! A bucket is one number, the time at which it will be full again. One that is full is not kept, so that
//! memory holds only those who did something lately, and of these at most [`BUCKETS`].

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use config::Rate;
use parking_lot::Mutex;

/// The most buckets kept: some 10 MiB.
const BUCKETS: usize = 1 << 18;
/// Each has a lock of its own.
const PARTS: usize = 32;

/// Buckets, in memory.
#[derive(Debug)]
pub struct Limiter {
    parts: Vec<Mutex<Part>>,
    hasher: RandomState,
}

/// By the hash of what is limited: when its bucket is full, in microseconds since 1970.
#[derive(Debug, Default)]
struct Part {
    full_at: HashMap<u64, u64>,
}

impl Default for Limiter {
    fn default() -> Self {
        let parts = std::iter::repeat_with(Mutex::default).take(PARTS);
        Self {
            parts: parts.collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Limiter {
    /// Takes tokens out of the bucket of `subject` at `now`, in milliseconds since 1970. As many as the
    /// bucket holds do for more.
    ///
    /// # Errors
    ///
    /// How long it takes until there are enough.
    pub fn take(
        &self,
        subject: impl Hash,
        rate: Rate,
        count: u32,
        now: u64,
    ) -> Result<(), Duration> {
        self.change(subject, rate, now, |part, key, bucket| {
            let full_at = bucket.less(count)?;
            part.put(key, full_at, bucket.now);
            Ok(())
        })
    }

    /// Whether there is a token for `subject`.
    ///
    /// # Errors
    ///
    /// How long it takes until there is one.
    pub fn check(&self, subject: impl Hash, rate: Rate, now: u64) -> Result<(), Duration> {
        self.change(subject, rate, now, |_, _, bucket| bucket.less(1).map(drop))
    }

    /// Fills the bucket of `subject`.
    pub fn forget(&self, subject: impl Hash) {
        let key = self.hasher.hash_one(subject);
        if let Some(part) = self.part(key) {
            part.lock().full_at.remove(&key);
        }
    }

    fn change(
        &self,
        subject: impl Hash,
        rate: Rate,
        now: u64,
        change: impl FnOnce(&mut Part, u64, Bucket) -> Result<(), Duration>,
    ) -> Result<(), Duration> {
        let key = self.hasher.hash_one(subject);
        let Some(part) = self.part(key) else {
            return Ok(());
        };
        let mut part = part.lock();
        let full_at = part.full_at.get(&key).copied();
        change(&mut part, key, Bucket::new(rate, full_at, now))
    }

    fn part(&self, key: u64) -> Option<&Mutex<Part>> {
        let [first, ..] = key.to_be_bytes();
        self.parts.get(usize::from(first) % PARTS)
    }
}

/// A bucket while it is looked at, in microseconds.
struct Bucket {
    rate: Rate,
    interval: u64,
    now: u64,
    full_at: u64,
}

impl Bucket {
    fn new(rate: Rate, full_at: Option<u64>, now: u64) -> Self {
        let interval = u64::try_from(rate.interval().as_micros()).unwrap_or(u64::MAX);
        let now = now.saturating_mul(1_000);
        let empty = now.saturating_add(interval.saturating_mul(rate.burst().into()));
        Self {
            rate,
            interval,
            now,
            // Beyond that the clock was put back, or the rate was another one: begin anew.
            full_at: full_at.filter(|at| *at <= empty).unwrap_or(now).max(now),
        }
    }

    /// When it is full after tokens are taken out.
    fn less(&self, count: u32) -> Result<u64, Duration> {
        let taken = |count: u32| self.interval.saturating_mul(count.into());
        let full_at = self
            .full_at
            .saturating_add(taken(count.min(self.rate.burst())));
        let latest = self.now.saturating_add(taken(self.rate.burst()));
        match full_at.checked_sub(latest) {
            None | Some(0) => Ok(full_at),
            Some(wait) => Err(Duration::from_micros(wait)),
        }
    }
}

impl Part {
    fn put(&mut self, key: u64, full_at: u64, now: u64) {
        if self.full_at.len() >= BUCKETS / PARTS && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= BUCKETS / PARTS / 2 {
                self.forget_fuller_half();
            }
        }
        self.full_at.insert(key, full_at);
    }

    /// Makes room when so many people are busy: whose buckets are nearly full loses least.
    fn forget_fuller_half(&mut self) {
        let mut times: Vec<u64> = self.full_at.values().copied().collect();
        let half = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(half);
        let (middle, mut left) = (*middle, half);
        self.full_at.retain(|_, full_at| {
            let goes = left > 0 && *full_at <= middle;
            left -= usize::from(goes);
            !goes
        });
    }
}

/// What an address counts as. Whoever has one IPv6 address has 2^64 of them: these are one.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const RATE: &str = "3, then 1/s";

    fn rate() -> Rate {
        RATE.parse().unwrap()
    }

    #[test]
    fn a_bucket_empties_and_fills_again() {
        let limiter = Limiter::default();
        let take = |now| limiter.take("anna", rate(), 1, now);
        for _ in 0..3 {
            take(1_000).unwrap();
        }
        assert_eq!(take(1_000), Err(Duration::from_secs(1)));
        assert_eq!(take(1_600), Err(Duration::from_millis(400)));
        limiter.check("bert", rate(), 1_600).unwrap();
        take(2_000).unwrap();
        assert_eq!(take(2_000), Err(Duration::from_secs(1)));
        // What is refused costs nothing; more than a bucket holds is not kept.
        for _ in 0..3 {
            take(100_000).unwrap();
        }
        take(100_000).unwrap_err();
        limiter.forget("anna");
        take(100_000).unwrap();
    }

    #[test]
    fn several_tokens_are_taken_together_or_not_at_all() {
        let limiter = Limiter::default();
        limiter.take("anna", rate(), 2, 0).unwrap();
        assert_eq!(
            limiter.take("anna", rate(), 2, 0),
            Err(Duration::from_secs(1))
        );
        limiter.take("anna", rate(), 1, 0).unwrap();
        assert_eq!(
            limiter.take("anna", rate(), 50, 0),
            Err(Duration::from_secs(3))
        );
        limiter.take("anna", rate(), 50, 3_000).unwrap();
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let limiter = Limiter::default();
        limiter.take("anna", rate(), 3, 1_000_000).unwrap();
        for _ in 0..3 {
            limiter.take("anna", rate(), 1, 0).unwrap();
        }
        let wait = limiter.take("anna", rate(), 1, 0);
        assert_eq!(wait, Err(Duration::from_secs(1)));
    }

    #[test]
    fn full_buckets_are_forgotten_and_there_are_never_too_many() {
        let limiter = Limiter::default();
        let kept = || {
            let parts = limiter.parts.iter();
            parts.map(|part| part.lock().full_at.len()).sum::<usize>()
        };
        for subject in 0..2 * BUCKETS {
            limiter.take(subject, rate(), 1, 0).unwrap();
        }
        assert!((BUCKETS / 2..=BUCKETS).contains(&kept()), "{}", kept());
        limiter.take("busy", rate(), 3, 0).unwrap();
        for subject in 0..BUCKETS {
            limiter.take(subject, rate(), 1, 10).unwrap();
        }
        limiter.check("busy", rate(), 10).unwrap_err();
        for subject in 0..BUCKETS {
            limiter
                .take((subject, "later"), rate(), 1, 1_000_000)
                .unwrap();
        }
        limiter.check("busy", rate(), 1_000_000).unwrap();
        assert!(kept() <= BUCKETS);
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let of = |address: &str| network_of(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
