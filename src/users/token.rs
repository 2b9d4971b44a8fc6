//! Access and refresh tokens: made here, stored as their SHA-256 only.
//!
//! A token is a prefix that secret scanners can look for, and, in base64url, the owner's short id (so
//! that token and account are read together), 32 random bytes, and four bytes of a checksum, so that
//! garbage costs no read.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use storage::{Random, ShortUserId};

/// The SHA-256 of a token: what is stored of it.
pub(crate) type TokenHash = [u8; 32];

/// What all access tokens begin with.
pub(crate) const ACCESS: &str = "cat_";
/// What all refresh tokens begin with.
pub(crate) const REFRESH: &str = "crt_";

const CHECKSUM: usize = 4;

/// A token as its owner gets it: the only time that it is in clear. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(String);

impl AccessToken {
    /// The token, to be sent to its owner.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The token, to be sent to its owner.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Draws a token for `user` that begins with `prefix`.
    pub(crate) fn draw(prefix: &str, user: ShortUserId, random: &Random) -> Self {
        let mut secret = [0; 32];
        random.fill(&mut secret);
        let mut bytes = [user.0.as_slice(), secret.as_slice()].concat();
        let checksum = checksum(prefix, &bytes);
        bytes.extend(checksum);
        Self(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(crate) fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// What is stored of a token.
pub(crate) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}

/// Whose a token claims to be; `None` if we never made it. The claim is proven by finding its hash.
pub(crate) fn claimed_user(prefix: &str, token: &str) -> Option<ShortUserId> {
    let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix(prefix)?).ok()?;
    let (rest, sum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if *sum != checksum(prefix, rest) {
        return None;
    }
    let (user, secret) = rest.split_first_chunk::<8>()?;
    (secret.len() == 32).then_some(ShortUserId(*user))
}

fn checksum(prefix: &str, bytes: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new()
        .chain_update(prefix)
        .chain_update(bytes)
        .finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_its_owner_and_garbage_tells_nothing() {
        let user = ShortUserId([7; 8]);
        let random = Random::seeded(3);
        let token = AccessToken::draw(ACCESS, user, &random);
        assert_eq!(claimed_user(ACCESS, token.as_str()), Some(user));
        assert_ne!(token, AccessToken::draw(ACCESS, user, &random));
        assert_eq!(claimed_user(REFRESH, token.as_str()), None);
        assert!(!format!("{token:?}").contains(token.as_str().trim_start_matches(ACCESS)));
        let mut letters: Vec<char> = token.as_str().chars().collect();
        for at in 0..letters.len() {
            let letter = letters.get(at).copied().unwrap_or_default();
            if let Some(place) = letters.get_mut(at) {
                *place = if letter == 'A' { 'B' } else { 'A' };
            }
            let changed: String = letters.iter().collect();
            assert_eq!(claimed_user(ACCESS, &changed), None, "{at}");
            if let Some(place) = letters.get_mut(at) {
                *place = letter;
            }
        }
        for garbage in ["", "cat_", "cat_AAAA", "cat_ä", "syt_abc_def", "cat_===="] {
            assert_eq!(claimed_user(ACCESS, garbage), None, "{garbage}");
        }
    }
}
