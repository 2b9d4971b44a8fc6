//! Wrong passwords: whoever guesses has to wait, be it at one account or from one address.

use std::{net::IpAddr, time::Duration};

use error::Result;
use quick_cache::sync::Cache;
use storage::{NameHash, Storage};

/// How many accounts and addresses are remembered with their failures.
const MAX_REMEMBERED: usize = 200_000;

/// Failed logins of accounts that exist or not, and from addresses, in memory.
pub(crate) struct Failures {
    by_key: Cache<NameHash, Failed>,
    max: u64,
    max_by_address: u64,
    wait: u64,
}

/// What a password is tried for, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    account: NameHash,
    address: Option<NameHash>,
}

#[derive(Clone, Copy)]
struct Failed {
    count: u64,
    last: u64,
}

impl Tried {
    /// The account that a key names, tried from an address. Whoever has one IPv6 address has 2^64 of them:
    /// these count as one.
    pub(crate) fn new(storage: &Storage, account: NameHash, address: Option<IpAddr>) -> Self {
        let address = address.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => storage.hash("failures of address", address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d].map(u16::to_be_bytes).concat();
                storage.hash("failures of address", network)
            }
        });
        Self { account, address }
    }
}

impl Failures {
    pub(crate) fn new(settings: &config::Logins) -> Self {
        Self {
            by_key: Cache::new(MAX_REMEMBERED),
            max: settings.max_failures.into(),
            max_by_address: settings.max_failures_by_address.into(),
            wait: u64::try_from(settings.failure_wait.as_millis())
                .unwrap_or(u64::MAX)
                .max(1),
        }
    }

    /// Whether a password may be tried at `now`, in milliseconds.
    ///
    /// # Errors
    ///
    /// 429 with how long to wait.
    pub(crate) fn check(&self, tried: Tried, now: u64) -> Result<()> {
        for (key, max) in self.limits(tried) {
            let Some(failed) = self.by_key.get(&key) else {
                continue;
            };
            if self.left(failed, now) >= max {
                let since = now.saturating_sub(failed.last);
                let left = Duration::from_millis(self.wait.saturating_sub(since % self.wait));
                return Err(error::limit_exceeded(
                    Some(left),
                    "Too many wrong passwords for this account, or from your address; wait a moment",
                ));
            }
        }
        Ok(())
    }

    /// A password was wrong.
    pub(crate) fn failed(&self, tried: Tried, now: u64) {
        for (key, max) in self.limits(tried) {
            let before = self.by_key.get(&key);
            let before = before.map_or(0, |failed| self.left(failed, now));
            let count = before.saturating_add(1).min(max);
            self.by_key.insert(key, Failed { count, last: now });
        }
    }

    /// A password was right. What was tried of other accounts from the same address is not forgiven.
    pub(crate) fn succeeded(&self, tried: Tried) {
        self.by_key.remove(&tried.account);
    }

    /// What is limited, to how many failures.
    fn limits(&self, tried: Tried) -> impl Iterator<Item = (NameHash, u64)> {
        let account = (tried.account, self.max);
        let address = tried.address.map(|address| (address, self.max_by_address));
        let both = std::iter::once(account).chain(address);
        both.filter(|(_, max)| *max > 0)
    }

    /// How many failures still count: one less after each wait.
    fn left(&self, failed: Failed, now: u64) -> u64 {
        let forgiven = now.saturating_sub(failed.last) / self.wait;
        failed.count.saturating_sub(forgiven)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tried(account: u8, address: Option<u8>) -> Tried {
        let hash = |byte| NameHash([byte; 16]);
        Tried {
            account: hash(account),
            address: address.map(hash),
        }
    }

    #[test]
    fn who_guesses_at_many_accounts_waits_too() {
        let failures = Failures::new(&config::Logins::default());
        for account in 0..100 {
            failures.check(tried(account, Some(200)), 0).unwrap();
            failures.failed(tried(account, Some(200)), 0);
        }
        assert!(failures.check(tried(150, Some(200)), 0).is_err());
        failures.succeeded(tried(1, Some(200)));
        assert!(failures.check(tried(150, Some(200)), 0).is_err());
        assert!(failures.check(tried(150, Some(201)), 0).is_ok());
        assert!(failures.check(tried(150, Some(200)), 30_000).is_ok());
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let storage = Storage::model();
        let of = |address: &str| {
            let address = address.parse().unwrap();
            Tried::new(&storage, NameHash([0; 16]), Some(address)).address
        };
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn a_guesser_waits_and_others_do_not() {
        let failures = Failures::new(&config::Logins::default());
        let [anna, bert] = [1, 2].map(|name| tried(name, None));
        for _ in 0..10 {
            assert!(failures.check(anna, 0).is_ok());
            failures.failed(anna, 0);
        }
        assert!(failures.check(anna, 29_999).is_err());
        assert!(failures.check(bert, 29_999).is_ok());
        // One more try for each wait.
        assert!(failures.check(anna, 30_000).is_ok());
        failures.failed(anna, 30_000);
        assert!(failures.check(anna, 30_001).is_err());
        failures.succeeded(anna);
        assert!(failures.check(anna, 30_001).is_ok());
    }

    #[test]
    fn an_operator_can_let_everybody_guess() {
        let settings = config::Logins {
            max_failures: 0,
            ..config::Logins::default()
        };
        let failures = Failures::new(&settings);
        let anna = tried(1, None);
        for _ in 0..1_000 {
            failures.failed(anna, 0);
        }
        assert!(failures.check(anna, 0).is_ok());
    }
}
