//! The keys with which this server signs, now and before.

use std::{fmt, sync::Arc};

use error::Result;
use parking_lot::RwLock;
use pdu::{SigningKey, VerifyKey};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerSigningKeyId, ServerSigningKeyId};
use storage::{
    Batch, CommitError, Position, Random, Range, Storage,
    schema::{SIGNING_KEY_BY_NUMBER, SigningKeyRow},
};

/// How often a change of the keys is tried before it is given up.
const MAX_ATTEMPTS: u32 = 32;

/// Bytes of randomness in the name of a key.
const NAME_BYTES: usize = 4;

/// This server's signing keys. Clones share them.
#[derive(Clone)]
pub struct SigningKeys {
    storage: Storage,
    random: Random,
    keys: Arc<RwLock<Keys>>,
}

#[derive(Clone, Debug)]
struct Keys {
    current: Arc<SigningKey>,
    old: Arc<[OldKey]>,
}

/// A key that signs no more, published so that what it signed can still be verified.
#[derive(Clone, Debug)]
pub struct OldKey {
    /// Its id.
    pub key_id: OwnedServerSigningKeyId,
    /// The public half.
    pub key: VerifyKey,
    /// When it stopped being used.
    pub expired_ts: MilliSecondsSinceUnixEpoch,
}

impl SigningKeys {
    /// The keys kept in `storage`; makes the first one if there is none that signs.
    ///
    /// # Errors
    ///
    /// Storage fails, or a stored key cannot be read.
    pub async fn open(storage: &Storage, random: &Random) -> Result<Self> {
        let new = draw(random);
        let mut attempts = 0;
        let rows = loop {
            let rows = read(storage).await?;
            if rows.iter().any(|(_, row)| row.expired_ts.is_none()) {
                break rows;
            }
            let mut batch = Batch::new();
            put_next(&mut batch, &rows, &new);
            commit(storage, batch, &mut attempts).await?;
        };
        Ok(Self {
            storage: storage.clone(),
            random: random.clone(),
            keys: Arc::new(RwLock::new(keys(&rows)?)),
        })
    }

    /// The key that signs.
    pub fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.keys.read().current)
    }

    /// The keys that signed before, oldest first.
    pub fn old(&self) -> Arc<[OldKey]> {
        Arc::clone(&self.keys.read().old)
    }

    /// Makes a new key. The one before signs no more; its private half is no longer used but stays in
    /// storage.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn rotate(&self, now: MilliSecondsSinceUnixEpoch) -> Result<()> {
        let new = draw(&self.random);
        let mut attempts = 0;
        loop {
            let rows = read(&self.storage).await?;
            if rows.iter().any(|(_, row)| row.secret == new.secret) {
                *self.keys.write() = keys(&rows)?;
                return Ok(());
            }
            let mut batch = Batch::new();
            for (number, row) in rows.iter().filter(|(_, row)| row.expired_ts.is_none()) {
                let row = SigningKeyRow {
                    expired_ts: Some(now.get().into()),
                    ..row.clone()
                };
                batch.put(&SIGNING_KEY_BY_NUMBER, number, &row);
            }
            put_next(&mut batch, &rows, &new);
            commit(&self.storage, batch, &mut attempts).await?;
        }
    }
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.keys.read().fmt(f)
    }
}

/// All keys, in the order in which they were made.
async fn read(storage: &Storage) -> Result<Vec<(u32, SigningKeyRow)>> {
    let rows = storage
        .snapshot(Position::START)
        .await?
        .multi_range(&SIGNING_KEY_BY_NUMBER, &[Range::prefix(&())])
        .await?;
    let rows = rows.into_iter().flatten();
    Ok(rows.map(|(number, found)| (number, found.value)).collect())
}

/// Puts a key behind all others into a batch, on the condition that it still is behind all others.
fn put_next(batch: &mut Batch, rows: &[(u32, SigningKeyRow)], row: &SigningKeyRow) {
    let next = rows
        .last()
        .map_or(0, |(number, _)| number.saturating_add(1));
    batch.expect_absent(&SIGNING_KEY_BY_NUMBER, &next);
    batch.put(&SIGNING_KEY_BY_NUMBER, &next, row);
}

/// Writes a change, or leaves it to be decided again.
async fn commit(storage: &Storage, batch: Batch, attempts: &mut u32) -> Result<()> {
    *attempts += 1;
    match storage.commit(batch).await {
        Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld)
            if *attempts < MAX_ATTEMPTS =>
        {
            Ok(())
        }
        done => Ok(done.map(|_| ())?),
    }
}

fn draw(random: &Random) -> SigningKeyRow {
    let mut secret = [0; 32];
    random.fill(&mut secret);
    let mut name = [0; NAME_BYTES];
    random.fill(&mut name);
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    SigningKeyRow {
        key_id: format!("ed25519:{name}"),
        secret,
        expired_ts: None,
    }
}

fn keys(rows: &[(u32, SigningKeyRow)]) -> Result<Keys> {
    let mut current = None;
    let mut old = Vec::new();
    for (_, row) in rows {
        let key = signing_key(row)?;
        match row.expired_ts {
            None => current = Some(key),
            Some(expired_ts) => old.push(OldKey {
                key_id: key.key_id().to_owned(),
                key: key.verify_key(),
                expired_ts: MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(expired_ts)),
            }),
        }
    }
    let current = current.ok_or_else(|| error::internal("no stored key signs"))?;
    Ok(Keys {
        current: Arc::new(current),
        old: old.into(),
    })
}

fn signing_key(row: &SigningKeyRow) -> Result<SigningKey> {
    let key_id = <&ServerSigningKeyId>::try_from(row.key_id.as_str()).map_err(error::internal)?;
    SigningKey::from_seed(&row.secret, key_id.key_name().as_str()).map_err(error::internal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn at(ts: u32) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(ts.into())
    }

    #[tokio::test]
    async fn the_first_start_makes_a_key_and_later_ones_find_it() {
        let storage = Storage::model();
        let first = SigningKeys::open(&storage, &Random::seeded(1))
            .await
            .unwrap();
        let again = SigningKeys::open(&storage, &Random::seeded(2))
            .await
            .unwrap();
        assert_eq!(first.current().key_id(), again.current().key_id());
        assert_eq!(first.current().sign(b"x"), again.current().sign(b"x"));
        assert!(first.old().is_empty());
        let other = SigningKeys::open(&Storage::model(), &Random::seeded(2))
            .await
            .unwrap();
        assert_ne!(first.current().sign(b"x"), other.current().sign(b"x"));
    }

    #[tokio::test]
    async fn two_first_starts_at_once_agree() {
        let storage = Storage::model();
        let (one, two) = (Random::seeded(1), Random::seeded(2));
        let (one, two) = tokio::join!(
            SigningKeys::open(&storage, &one),
            SigningKeys::open(&storage, &two)
        );
        assert_eq!(
            one.unwrap().current().sign(b"x"),
            two.unwrap().current().sign(b"x")
        );
    }

    #[tokio::test]
    async fn an_old_key_stays_published_and_signs_no_more() {
        let storage = Storage::model();
        let keys = SigningKeys::open(&storage, &Random::seeded(1))
            .await
            .unwrap();
        let before = keys.current();
        keys.clone().rotate(at(5)).await.unwrap();
        assert_ne!(keys.current().key_id(), before.key_id());
        let old = keys.old();
        assert_eq!(old.len(), 1);
        assert_eq!(old[0].key_id, before.key_id());
        assert_eq!(old[0].expired_ts, at(5));
        assert!(old[0].key.verify(b"x", &before.sign(b"x")));
        keys.rotate(at(9)).await.unwrap();
        let reopened = SigningKeys::open(&storage, &Random::seeded(3))
            .await
            .unwrap();
        assert_eq!(reopened.current().key_id(), keys.current().key_id());
        let expired: Vec<_> = reopened.old().iter().map(|key| key.expired_ts).collect();
        assert_eq!(expired, [at(5), at(9)]);
    }
}
