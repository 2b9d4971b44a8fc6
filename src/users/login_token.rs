//! Short-lived words that a device gives to another one to log in with ([spec]).
//!
//! They last two minutes, so they are kept in memory: a restart costs whoever scans a code right then
//! a second try.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#token-based-user-login

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use error::Result;
use storage::ShortUserId;

use crate::{
    Requester, Users,
    token::{self, TokenHash},
};

/// How long a token lasts.
const LIFETIME: Duration = Duration::from_secs(120);

/// How many tokens there may be; a new one ends the oldest.
const MAX_TOKENS: usize = 10_000;

/// Letters in a token.
const TOKEN_LETTERS: usize = 40;

/// Tokens, by their hash, and in the order in which they end.
#[derive(Default)]
pub(crate) struct LoginTokens {
    by_hash: HashMap<TokenHash, (ShortUserId, u64)>,
    order: VecDeque<(u64, TokenHash)>,
}

impl LoginTokens {
    fn remove_old(&mut self, now: u64) {
        while let Some((ends, hash)) = self.order.front() {
            if *ends > now && self.order.len() < MAX_TOKENS {
                break;
            }
            self.by_hash.remove(hash);
            self.order.pop_front();
        }
    }
}

impl Users {
    /// Makes a token with which one device may log in, once, as the requester; and says how long it
    /// lasts. The requester must have proven again that it is them.
    ///
    /// # Errors
    ///
    /// 403 for guests.
    pub fn create_login_token(&self, requester: &Requester) -> Result<(String, Duration)> {
        if requester.guest {
            return Err(error::guest_access_forbidden("Guests have one device only"));
        }
        let text = self.0.random.letters(TOKEN_LETTERS);
        let now = self.now();
        let ends = now.saturating_add(u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX));
        let hash = token::hash(&text);
        let mut tokens = self.0.login_tokens.lock();
        tokens.remove_old(now);
        tokens.by_hash.insert(hash, (requester.user, ends));
        tokens.order.push_back((ends, hash));
        Ok((text, LIFETIME))
    }

    /// Whom a token logs in. It is used up by that.
    ///
    /// # Errors
    ///
    /// 403 if it is none (any more).
    pub(crate) fn use_login_token(&self, text: &str) -> Result<ShortUserId> {
        let found = self
            .0
            .login_tokens
            .lock()
            .by_hash
            .remove(&token::hash(text));
        match found {
            Some((user, ends)) if ends > self.now() => Ok(user),
            _ => Err(error::forbidden("This login token is not valid (any more)")),
        }
    }
}
