//! Wrong passwords: whoever guesses has to wait, be it at one account or from one address.

use std::{net::IpAddr, time::Duration};

use config::{Rate, RateLimits};
use error::Result;
use storage::NameHash;

use crate::limiter::{Limiter, network_of};

/// Failed logins of accounts that exist or not, and from addresses, in memory.
pub(crate) struct Failures {
    limiter: Limiter,
    of_account: Option<Rate>,
    from_address: Option<Rate>,
}

/// What a password is tried for, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    account: NameHash,
    network: Option<IpAddr>,
}

/// What is limited.
#[derive(Clone, Copy, Debug, Hash)]
enum Subject {
    Account(NameHash),
    Network(IpAddr),
}

impl Tried {
    /// The account that a key names, tried from an address.
    pub(crate) fn new(account: NameHash, address: Option<IpAddr>) -> Self {
        Self {
            account,
            network: address.map(network_of),
        }
    }
}

impl Failures {
    pub(crate) fn new(settings: &RateLimits) -> Self {
        Self {
            limiter: Limiter::default(),
            of_account: settings.in_force(settings.failed_logins_of_account),
            from_address: settings.in_force(settings.failed_logins_from_address),
        }
    }

    /// Whether a password may be tried at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// 429 with how long to wait.
    pub(crate) fn check(&self, tried: Tried, now: u64) -> Result<()> {
        let limits = self.limits(tried);
        let waits = limits.map(|(subject, rate)| self.limiter.check(subject, rate, now).err());
        match waits.max().flatten() {
            None => Ok(()),
            Some(wait) => Err(too_many(wait)),
        }
    }

    /// A password was wrong.
    pub(crate) fn failed(&self, tried: Tried, now: u64) {
        for (subject, rate) in self.limits(tried) {
            // Several may have been tried at the same time when there was a token for one only.
            let _ = self.limiter.take(subject, rate, 1, now);
        }
    }

    /// A password was right. What was tried of other accounts from the same address is not forgiven.
    pub(crate) fn succeeded(&self, tried: Tried) {
        self.limiter.forget(Subject::Account(tried.account));
    }

    fn limits(&self, tried: Tried) -> impl Iterator<Item = (Subject, Rate)> {
        let account = self
            .of_account
            .map(|rate| (Subject::Account(tried.account), rate));
        let network = tried.network.map(Subject::Network);
        account.into_iter().chain(network.zip(self.from_address))
    }
}

fn too_many(wait: Duration) -> error::Error {
    error::limit_exceeded(
        Some(wait),
        "Too many wrong passwords for this account, or from your address; wait a moment",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn tried(account: u8, address: Option<u8>) -> Tried {
        let address = address.map(|last| [192, 0, 2, last].into());
        Tried::new(NameHash([account; 16]), address)
    }

    #[test]
    fn who_guesses_at_many_accounts_waits_too() {
        let failures = Failures::new(&RateLimits::default());
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
    fn a_guesser_waits_and_others_do_not() {
        let failures = Failures::new(&RateLimits::default());
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
        let off = RateLimits {
            enabled: false,
            ..RateLimits::default()
        };
        let none = RateLimits {
            failed_logins_of_account: None,
            ..RateLimits::default()
        };
        for settings in [off, none] {
            let failures = Failures::new(&settings);
            let anna = tried(1, None);
            for _ in 0..1_000 {
                failures.failed(anna, 0);
            }
            assert!(failures.check(anna, 0).is_ok());
        }
    }
}
