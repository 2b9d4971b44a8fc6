//! Words by which somebody proves to a service outside who they are ([spec]): the service asks us whose a word
//! is.
//!
//! They last an hour, so they are kept in memory: a restart costs whoever proves something right then a second
//! try.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#openid

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use ruma::OwnedUserId;

use crate::{
    Requester, Users,
    token::{self, TokenHash},
};

/// How long a token lasts.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// How many tokens there may be; a new one ends the oldest.
const MAX_TOKENS: usize = 100_000;

/// Letters in a token.
const TOKEN_LETTERS: usize = 40;

/// Tokens, by their hash, and in the order in which they end.
#[derive(Default)]
pub(crate) struct OpenIdTokens {
    by_hash: HashMap<TokenHash, (OwnedUserId, u64)>,
    order: VecDeque<(u64, TokenHash)>,
}

impl Users {
    /// Makes a token by which others can find out that it is the requester who gave it to them; and says how
    /// long it lasts.
    pub fn create_openid_token(&self, requester: &Requester) -> (String, Duration) {
        let text = self.0.random.letters(TOKEN_LETTERS);
        let now = self.now();
        let ends = now.saturating_add(u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX));
        let hash = token::hash(&text);
        let mut tokens = self.0.openid_tokens.lock();
        while let Some((oldest, hash)) = tokens.order.front().copied() {
            if oldest > now && tokens.order.len() < MAX_TOKENS {
                break;
            }
            tokens.by_hash.remove(&hash);
            tokens.order.pop_front();
        }
        let user_id = requester.user_id.clone();
        tokens.by_hash.insert(hash, (user_id, ends));
        tokens.order.push_back((ends, hash));
        (text, LIFETIME)
    }

    /// Who made a token; none if it is none (any more).
    pub fn find_openid_user(&self, text: &str) -> Option<OwnedUserId> {
        let tokens = self.0.openid_tokens.lock();
        let (user_id, ends) = tokens.by_hash.get(&token::hash(text))?;
        (*ends > self.now()).then(|| user_id.clone())
    }
}
