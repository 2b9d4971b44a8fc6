//! The key with which this server signs as a policy server
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures)).
//!
//! It is another one than the server's, and is not published with those: rooms hold it in their state, and each
//! can give it up without us.

use std::{fmt, sync::Arc};

use error::Result;
use pdu::{POLICY_KEY_NAME, SigningKey};
use storage::{
    Batch, CommitError, Position, Random, Range, Storage,
    schema::{POLICY_KEY_BY_NUMBER, SigningKeyRow},
};
use tokio::sync::OnceCell;

/// How often it is tried to make the key.
const MAX_ATTEMPTS: u32 = 32;

/// The key, once somebody wanted it.
#[derive(Default)]
pub(crate) struct PolicyKey(OnceCell<Arc<SigningKey>>);

impl PolicyKey {
    /// The last of the stored keys; makes the first one if there is none.
    ///
    /// # Errors
    ///
    /// Storage fails, or the stored key cannot be read.
    pub(crate) async fn get_or_make(
        &self,
        storage: &Storage,
        random: &Random,
    ) -> Result<Arc<SigningKey>> {
        let key = self.0.get_or_try_init(|| read_or_make(storage, random));
        key.await.map(Arc::clone)
    }
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.get().fmt(f)
    }
}

async fn read_or_make(storage: &Storage, random: &Random) -> Result<Arc<SigningKey>> {
    let mut secret = [0; 32];
    random.fill(&mut secret);
    let new = SigningKeyRow {
        key_id: format!("ed25519:{POLICY_KEY_NAME}"),
        secret,
        expired_ts: None,
    };
    for _ in 0..MAX_ATTEMPTS {
        let snapshot = storage.snapshot(Position::START).await?;
        let rows = snapshot
            .multi_range(&POLICY_KEY_BY_NUMBER, &[Range::prefix(&())])
            .await?;
        if let Some((_, row)) = rows.into_iter().flatten().next_back() {
            let key = SigningKey::from_seed(&row.value.secret, POLICY_KEY_NAME);
            return key.map(Arc::new).map_err(error::internal);
        }
        let mut batch = Batch::new();
        batch.expect_absent(&POLICY_KEY_BY_NUMBER, &0);
        batch.put(&POLICY_KEY_BY_NUMBER, &0, &new);
        match storage.commit(batch).await {
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(error::internal(
        "the key of the policy server cannot be made",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn it_is_made_once_and_found_again() {
        let storage = Storage::model();
        let (one, two) = (PolicyKey::default(), PolicyKey::default());
        let (first, second) = (Random::seeded(1), Random::seeded(2));
        let (one, two) = tokio::join!(
            one.get_or_make(&storage, &first),
            two.get_or_make(&storage, &second),
        );
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.verify_key(), two.verify_key());
        assert_eq!(one.key_id(), "ed25519:policy_server");
        let random = Random::seeded(3);
        let later = PolicyKey::default();
        let later = later.get_or_make(&storage, &random).await.unwrap();
        assert_eq!(later.sign(b"x"), one.sign(b"x"));
        let (elsewhere, other) = (Storage::model(), PolicyKey::default());
        let other = other.get_or_make(&elsewhere, &random).await.unwrap();
        assert_ne!(other.verify_key(), one.verify_key());
    }
}
