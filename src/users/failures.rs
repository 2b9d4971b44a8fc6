//! Wrong passwords: whoever guesses has to wait.

use std::time::Duration;

use error::Result;
use quick_cache::sync::Cache;
use storage::NameHash;

/// How many accounts are remembered with their failures.
const MAX_ACCOUNTS: usize = 100_000;

/// Failed logins of accounts that exist or not, in memory.
pub(crate) struct Failures {
    by_account: Cache<NameHash, Failed>,
    max: u64,
    wait: u64,
}

#[derive(Clone, Copy)]
struct Failed {
    count: u64,
    last: u64,
}

impl Failures {
    pub(crate) fn new(settings: &config::Logins) -> Self {
        Self {
            by_account: Cache::new(MAX_ACCOUNTS),
            max: settings.max_failures.into(),
            wait: u64::try_from(settings.failure_wait.as_millis())
                .unwrap_or(u64::MAX)
                .max(1),
        }
    }

    /// Whether a password of this account may be tried at `now`, in milliseconds.
    ///
    /// # Errors
    ///
    /// 429 with how long to wait.
    pub(crate) fn check(&self, account: NameHash, now: u64) -> Result<()> {
        let Some(failed) = self.by_account.get(&account) else {
            return Ok(());
        };
        if self.max == 0 || self.left(failed, now) < self.max {
            return Ok(());
        }
        let since = now.saturating_sub(failed.last);
        let left = Duration::from_millis(self.wait.saturating_sub(since % self.wait));
        Err(error::limit_exceeded(
            Some(left),
            "Too many wrong passwords for this account; wait a moment",
        ))
    }

    /// A password was wrong.
    pub(crate) fn failed(&self, account: NameHash, now: u64) {
        if self.max == 0 {
            return;
        }
        let before = self.by_account.get(&account);
        let before = before.map_or(0, |failed| self.left(failed, now));
        let count = before.saturating_add(1).min(self.max);
        self.by_account.insert(account, Failed { count, last: now });
    }

    /// A password was right.
    pub(crate) fn succeeded(&self, account: NameHash) {
        self.by_account.remove(&account);
    }

    /// How many failures still count: one less after each wait.
    fn left(&self, failed: Failed, now: u64) -> u64 {
        let forgiven = now.saturating_sub(failed.last) / self.wait;
        failed.count.saturating_sub(forgiven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guesser_waits_and_others_do_not() {
        let failures = Failures::new(&config::Logins::default());
        let (anna, bert) = (NameHash([1; 16]), NameHash([2; 16]));
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
        let anna = NameHash([1; 16]);
        for _ in 0..1_000 {
            failures.failed(anna, 0);
        }
        assert!(failures.check(anna, 0).is_ok());
    }
}
