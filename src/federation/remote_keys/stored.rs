//! Keys of other servers in storage.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use error::Result;
use pdu::VerifyKey;
use ruma::{OwnedServerName, ServerName, ServerSigningKeyId};
use storage::{
    Batch, CommitError, Position, Range, Raw,
    schema::{KEYS_ANSWER_BY_SERVER, REMOTE_KEY_BY_SERVER, RemoteKeyRow},
};

use super::{
    KeysOf, KeysOfServers, LONGEST_VALIDITY, LOOKED_UP_AT_ONCE, RemoteKey, Wanted, servers_of,
};
use crate::{Federation, keys_answer::KeysAnswer};

/// How often a change is tried before it is given up.
const MAX_ATTEMPTS: u32 = 32;

/// The most keys of a server that are kept. Whoever makes more only makes its own events worthless.
const MAX_KEYS: usize = 256;

impl Federation {
    /// Adds what is known of the servers of these.
    pub(super) async fn load_keys(
        &self,
        wanted: &[&Wanted],
        found: &mut KeysOfServers,
    ) -> Result<()> {
        let mut unknown: Vec<OwnedServerName> = Vec::new();
        for server in servers_of(wanted) {
            match self.0.remote_keys.known.get(&server) {
                Some(keys) => {
                    found.insert(server, keys);
                }
                None => unknown.push(server),
            }
        }
        let storage = self.storage();
        for unknown in unknown.chunks(LOOKED_UP_AT_ONCE) {
            let ranges: Vec<_> = unknown
                .iter()
                .map(|server| Range::prefix(&(storage.hash("server", server),)))
                .collect();
            let snapshot = storage.snapshot(Position::START).await?;
            let rows = snapshot.multi_range(&REMOTE_KEY_BY_SERVER, &ranges).await?;
            for (server, rows) in unknown.iter().zip(rows) {
                let keys = rows.iter().filter_map(|(_, row)| read(&row.value));
                let keys: Arc<KeysOf> = Arc::new(keys.collect());
                if keys.is_empty() {
                    continue;
                }
                let known = Arc::clone(&keys);
                self.0.remote_keys.known.insert(server.clone(), known);
                found.insert(server.clone(), keys);
            }
        }
        Ok(())
    }

    /// Stores what a server said of its keys: itself, then with the answer as it came, or through a notary.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub(super) async fn store_keys(&self, said: &KeysAnswer, direct: Option<&Bytes>) -> Result<()> {
        let now = self.now();
        let longest = u64::try_from(LONGEST_VALIDITY.as_millis()).unwrap_or(u64::MAX);
        let valid_until = said.valid_until.min(now.saturating_add(longest));
        let row =
            |key_id: &ServerSigningKeyId, key: VerifyKey, until: u64, expired: bool| RemoteKeyRow {
                key_id: key_id.to_string(),
                key: key.to_bytes(),
                valid_until_ts: until,
                expired,
                direct: direct.is_some(),
                said_ts: said.valid_until,
            };
        let old = said.old.iter();
        let old = old.map(|(key_id, key, expired)| row(key_id, *key, *expired, true));
        let keys = said.keys.iter();
        let keys = keys.map(|(key_id, key)| row(key_id, *key, valid_until, false));
        // A key that is in both lists is one that signs.
        let rows: BTreeMap<String, RemoteKeyRow> = old
            .chain(keys)
            .map(|row| (row.key_id.clone(), row))
            .collect();
        for _ in 0..MAX_ATTEMPTS {
            let batch = self.keys_batch(&said.server, &rows, direct).await?;
            if batch.is_empty() {
                break;
            }
            match self.storage().commit(batch).await {
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                done => {
                    done?;
                    break;
                }
            }
        }
        self.0.remote_keys.known.remove(&said.server);
        Ok(())
    }

    async fn keys_batch(
        &self,
        server: &ServerName,
        rows: &BTreeMap<String, RemoteKeyRow>,
        direct: Option<&Bytes>,
    ) -> Result<Batch> {
        let storage = self.storage();
        let hash = storage.hash("server", server);
        let snapshot = storage.snapshot(Position::START).await?;
        let mut before = snapshot
            .multi_range(&REMOTE_KEY_BY_SERVER, &[Range::prefix(&(hash,))])
            .await?;
        let before: BTreeMap<_, _> = before.pop().unwrap_or_default().into_iter().collect();
        let mut batch = Batch::new();
        let mut count = before.len();
        for (key_id, row) in rows {
            let key = (hash, storage.hash("server key", key_id));
            let known = before.get(&key);
            if known.is_some_and(|known| known.value == *row || !replaces(row, &known.value)) {
                continue;
            }
            if known.is_none() {
                count += 1;
            }
            if count > MAX_KEYS {
                tracing::warn!(%server, "a server has more keys than are kept");
                break;
            }
            batch.expect_unchanged(&REMOTE_KEY_BY_SERVER, &key, known.map(|known| &known.raw));
            batch.put(&REMOTE_KEY_BY_SERVER, &key, row);
        }
        if let Some(answer) = direct {
            batch.put(&KEYS_ANSWER_BY_SERVER, &hash, &Raw(answer.clone()));
        }
        Ok(batch)
    }
}

/// Whether what is said of a key now counts more than what was said before.
///
/// What a server says itself is the last word, until it says something else; what others say of it must be
/// newer, and about the same key.
fn replaces(new: &RemoteKeyRow, old: &RemoteKeyRow) -> bool {
    if new.direct {
        return true;
    }
    let newer = new.said_ts > old.said_ts;
    if old.direct {
        newer && new.key == old.key
    } else {
        newer || new.said_ts == old.said_ts && new.key == old.key
    }
}

fn read(row: &RemoteKeyRow) -> Option<(ruma::OwnedServerSigningKeyId, RemoteKey)> {
    let key = RemoteKey {
        key: VerifyKey::from_bytes(&row.key).ok()?,
        valid_until: row.valid_until_ts,
        expired: row.expired,
    };
    Some((ServerSigningKeyId::parse(row.key_id.as_str()).ok()?, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(direct: bool, said_ts: u64, key: u8) -> RemoteKeyRow {
        RemoteKeyRow {
            key_id: "ed25519:a".to_owned(),
            key: [key; 32],
            valid_until_ts: said_ts,
            expired: false,
            direct,
            said_ts,
        }
    }

    #[test]
    fn what_a_server_says_of_itself_is_not_undone_by_what_others_say() {
        for (new, old, replaced) in [
            // What it says itself counts, be it the same, another key, or for a shorter time.
            (row(true, 5, 1), row(true, 9, 1), true),
            (row(true, 5, 2), row(true, 9, 1), true),
            (row(true, 5, 2), row(false, 9, 1), true),
            // What a notary says must be newer, and about the same key.
            (row(false, 9, 1), row(true, 5, 1), true),
            (row(false, 5, 1), row(true, 9, 1), false),
            (row(false, 9, 1), row(true, 9, 1), false),
            (row(false, 9, 2), row(true, 5, 1), false),
            // Among what others say, the newest counts.
            (row(false, 9, 2), row(false, 5, 1), true),
            (row(false, 5, 2), row(false, 9, 1), false),
            (row(false, 9, 2), row(false, 9, 1), false),
        ] {
            assert_eq!(replaces(&new, &old), replaced, "{new:?} after {old:?}");
        }
    }
}
