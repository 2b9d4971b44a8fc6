//! The keys with which this server signs, or has signed.

use std::sync::Arc;

use error::Result;
use pdu::SigningKey;
use storage::{
    Batch, CommitError, Position, Random, Range, Storage,
    schema::{SIGNING_KEY_BY_NUMBER, SigningKeyRow},
};

/// What a key's ID begins with: the only algorithm there is.
const ALGORITHM: &str = "ed25519:";

/// Letters in the name of a key. It need not be secret, only another one than that of any earlier key.
const NAME_LETTERS: usize = 8;

/// The keys with which this server signs, or has signed. Clones are the same keys.
#[derive(Clone, Debug)]
pub struct SigningKeys {
    current: Arc<SigningKey>,
}

impl SigningKeys {
    /// The keys kept in `storage`. If there is none to sign with, makes one.
    ///
    /// # Errors
    ///
    /// Storage fails, or a stored key is not one.
    pub async fn open(storage: &Storage, random: &Random) -> Result<Self> {
        loop {
            let snapshot = storage.snapshot(Position::START).await?;
            let all = Range::prefix(&());
            let rows = snapshot.multi_range(&SIGNING_KEY_BY_NUMBER, &[all]).await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let in_use = rows
                .iter()
                .rev()
                .find(|(_, found)| found.value.expired_ts.is_none());
            if let Some((_, found)) = in_use {
                let current = Arc::new(read(&found.value)?);
                return Ok(Self { current });
            }
            let number = rows
                .last()
                .map_or(1, |(number, _)| number.saturating_add(1));
            let mut batch = Batch::new();
            batch.expect_absent(&SIGNING_KEY_BY_NUMBER, &number);
            batch.put(&SIGNING_KEY_BY_NUMBER, &number, &make(random));
            match storage.commit(batch).await {
                // Written by us, by somebody else, or perhaps: whatever is there now is read.
                Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The one to sign with.
    pub fn current(&self) -> &Arc<SigningKey> {
        &self.current
    }
}

fn make(random: &Random) -> SigningKeyRow {
    let mut secret = [0; 32];
    random.fill(&mut secret);
    // Of the letters drawn, all but `-` may stand in the name of a key.
    let name = random.letters(NAME_LETTERS).replace('-', "_");
    SigningKeyRow {
        key_id: format!("{ALGORITHM}{name}"),
        secret,
        expired_ts: None,
    }
}

fn read(row: &SigningKeyRow) -> Result<SigningKey> {
    let name = row.key_id.strip_prefix(ALGORITHM).unwrap_or_default();
    let key = SigningKey::from_seed(&row.secret, name);
    key.map_err(|why| error::internal(why).context(format_args!("signing key {}", row.key_id)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn open(storage: &Storage, seed: u64) -> String {
        let keys = SigningKeys::open(storage, &Random::seeded(seed))
            .await
            .unwrap();
        keys.current().to_stored()
    }

    #[tokio::test]
    async fn a_key_is_made_once_and_kept() {
        let storage = Storage::model();
        let made = open(&storage, 1).await;
        assert_eq!(open(&storage, 2).await, made);
        assert_ne!(open(&Storage::model(), 2).await, made);
    }

    #[tokio::test]
    async fn an_expired_key_is_followed_by_a_new_one() {
        let storage = Storage::model();
        let mut old = make(&Random::seeded(3));
        old.expired_ts = Some(1);
        let mut batch = Batch::new();
        batch.put(&SIGNING_KEY_BY_NUMBER, &4, &old);
        storage.commit(batch).await.unwrap();
        let made = open(&storage, 5).await;
        assert_ne!(made, read(&old).unwrap().to_stored());
        assert_eq!(open(&storage, 6).await, made);
    }

    #[tokio::test]
    async fn names_are_those_that_others_accept() {
        for seed in 0..200 {
            read(&make(&Random::seeded(seed))).unwrap();
        }
    }

    #[tokio::test]
    async fn a_row_that_is_no_key_is_an_internal_error() {
        let storage = Storage::model();
        let mut batch = Batch::new();
        let row = SigningKeyRow {
            key_id: "rsa:1".into(),
            secret: [0; 32],
            expired_ts: None,
        };
        batch.put(&SIGNING_KEY_BY_NUMBER, &1, &row);
        storage.commit(batch).await.unwrap();
        let failed = SigningKeys::open(&storage, &Random::seeded(1))
            .await
            .unwrap_err();
        assert!(failed.is_internal() && failed.to_string().contains("rsa:1"));
    }
}
