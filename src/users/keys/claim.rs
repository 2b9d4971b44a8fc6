//! Claiming one-time keys of others' devices ([spec]): in the order in which they were uploaded
//! (MSC4225), each once.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim

use std::collections::BTreeMap;

use error::Result;
use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId};
use serde_json::value::RawValue;
use storage::{
    Batch, Found, NameHash, Range, Reads, ShortUserId, Topic,
    schema::{
        FALLBACK_KEY_BY_DEVICE, FallbackKeyRow, GIVEN_KEYS_BY_DEVICE, GivenKeysRow,
        KEY_COUNTS_BY_DEVICE, ONE_TIME_KEY_BY_DEVICE, OneTimeKeyRow, USER_BY_NAME,
    },
};

use super::upload;
use crate::Users;

/// How many devices one request may ask keys of.
const MAX_DEVICES: usize = 10_000;
/// Users whose keys are claimed at once.
const USERS_AT_ONCE: usize = 16;
/// How many keys that were given out are remembered of a device: as many as clients upload at once, since
/// an upload whose answer was lost comes again.
const GIVEN_KEYS: usize = 100;
/// Devices of one user whose keys are claimed in one batch.
const DEVICES_A_BATCH: usize = 100;

/// The keys of one user's devices: by device, then the key's id and its JSON.
pub type ClaimedKeys = BTreeMap<OwnedDeviceId, (String, Box<RawValue>)>;

/// The devices of a user of whom keys are wanted, and of which algorithm.
type Wanted = BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>;

impl Users {
    /// Claims a key of each of some devices of people of this server. Devices that have none are left
    /// out.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many devices.
    pub async fn claim_keys(
        &self,
        wanted: &BTreeMap<OwnedUserId, Wanted>,
    ) -> Result<BTreeMap<OwnedUserId, ClaimedKeys>> {
        if wanted.values().map(BTreeMap::len).sum::<usize>() > MAX_DEVICES {
            return Err(error::invalid_param(format!(
                "Keys of at most {MAX_DEVICES} devices can be claimed at once"
            )));
        }
        let names: Vec<_> = wanted
            .keys()
            .map(|user| self.0.storage.user_hash(user))
            .collect();
        let shorts = self
            .snapshot()
            .await?
            .multi_get(&USER_BY_NAME, &names)
            .await?;
        let mut claims: Vec<BoxFuture<'_, Result<(OwnedUserId, ClaimedKeys)>>> = Vec::new();
        for ((user, devices), short) in wanted.iter().zip(shorts) {
            let Some(short) = short else { continue };
            claims.push(Box::pin(async move {
                Ok((user.clone(), self.claim_of(short.value, devices).await?))
            }));
        }
        let claimed: Vec<_> = stream::iter(claims)
            .buffer_unordered(USERS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(claimed
            .into_iter()
            .filter(|(_, keys)| !keys.is_empty())
            .collect())
    }

    async fn claim_of(&self, user: ShortUserId, wanted: &Wanted) -> Result<ClaimedKeys> {
        let mut claimed = ClaimedKeys::new();
        let wanted: Vec<_> = wanted.iter().collect();
        for some in wanted.chunks(DEVICES_A_BATCH) {
            let mut writer = self.writer(user).await;
            let keys = loop {
                let mut batch = Batch::new();
                let snapshot = writer.snapshot().await?;
                let keys = self.claim_in(&snapshot, &mut batch, user, some).await?;
                if batch.is_empty() || writer.commit(batch).await?.is_some() {
                    break keys;
                }
            };
            for (device, key) in keys {
                let json = RawValue::from_string(key.json).map_err(error::internal)?;
                claimed.insert(device, (key.key_id, json));
            }
        }
        Ok(claimed)
    }

    /// Puts into a batch that the first keys of some devices are gone.
    async fn claim_in(
        &self,
        snapshot: &storage::Snapshot,
        batch: &mut Batch,
        user: ShortUserId,
        wanted: &[(&OwnedDeviceId, &OneTimeKeyAlgorithm)],
    ) -> Result<Vec<(OwnedDeviceId, OneTimeKeyRow)>> {
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for (device, algorithm) in wanted {
            let key = (user, self.0.storage.device_hash(*device));
            let algorithm_hash = self.0.storage.algorithm_hash(algorithm.as_str());
            let with_algorithm = (key.0, key.1, algorithm_hash);
            let first = Range::prefix(&with_algorithm).limit(1);
            asked.push((
                *device,
                *algorithm,
                key,
                with_algorithm,
                reads.range(&ONE_TIME_KEY_BY_DEVICE, &first),
                reads.get(&FALLBACK_KEY_BY_DEVICE, &with_algorithm),
                reads.get(&KEY_COUNTS_BY_DEVICE, &key),
                reads.get(&GIVEN_KEYS_BY_DEVICE, &key),
            ));
        }
        let answers = snapshot.read(&reads).await?;
        let mut claimed = Vec::new();
        for (device, algorithm, key, with_algorithm, first, fallback, counts, given_keys) in &asked
        {
            let counts = answers.one(counts)?;
            let mut left = counts
                .as_ref()
                .map(|row| row.value.value.clone())
                .unwrap_or_default();
            let first = answers.rows(first)?.into_iter().next();
            let given = if let Some((place, row)) = first {
                batch.expect_equals(&ONE_TIME_KEY_BY_DEVICE, &place, &row.raw);
                batch.delete(&ONE_TIME_KEY_BY_DEVICE, &place);
                if let Some(count) = left.one_time.get_mut(algorithm.as_str()) {
                    *count = count.saturating_sub(1);
                }
                let hash = upload::hash_of(&self.0.storage, &row.value);
                remember(batch, key, answers.one(given_keys)?, hash);
                row.value
            } else if let Some(fallback) = answers.one(fallback)? {
                if !fallback.value.used {
                    batch.expect_equals(&FALLBACK_KEY_BY_DEVICE, with_algorithm, &fallback.raw);
                    let used = FallbackKeyRow {
                        used: true,
                        ..fallback.value.clone()
                    };
                    batch.put(&FALLBACK_KEY_BY_DEVICE, with_algorithm, &used);
                    left.unused_fallback.remove(algorithm.as_str());
                }
                fallback.value.key
            } else {
                continue;
            };
            if counts.as_ref().is_none_or(|row| row.value.value != left) {
                let raw = counts.as_ref().map(|row| &row.raw);
                batch.expect_unchanged(&KEY_COUNTS_BY_DEVICE, key, raw);
                batch.put_stamped(&KEY_COUNTS_BY_DEVICE, key, 0, left);
                batch.wake(Topic::User(user));
            }
            claimed.push(((*device).clone(), given));
        }
        Ok(claimed)
    }
}

/// Puts into a batch that a key was given out.
fn remember(
    batch: &mut Batch,
    key: &(ShortUserId, NameHash),
    found: Option<Found<GivenKeysRow>>,
    given: NameHash,
) {
    let raw = found.as_ref().map(|found| found.raw.clone());
    batch.expect_unchanged(&GIVEN_KEYS_BY_DEVICE, key, raw.as_ref());
    let mut row = found.map(|found| found.value).unwrap_or_default();
    row.keys.push_back(given);
    while row.keys.len() > GIVEN_KEYS {
        row.keys.pop_front();
    }
    batch.put(&GIVEN_KEYS_BY_DEVICE, key, &row);
}
