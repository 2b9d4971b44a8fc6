//! A device uploads its keys ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload

use std::collections::BTreeMap;

use error::Result;
use ruma::{
    OwnedOneTimeKeyId,
    encryption::{DeviceKeys, OneTimeKey},
    serde::Raw,
};
use serde_json::Value;
use storage::{
    Answers, Batch, Found, NameHash, Position, Range, Reads, Rows, ShortUserId, Slot, Stamped,
    Storage, Topic,
    schema::{
        CROSS_SIGNING_KEY_BY_USER, CrossSigningKeyRow, DEVICE_BY_USER, DEVICE_KEYS_BY_USER,
        DeviceKeysRow, DeviceRow, FALLBACK_KEY_BY_DEVICE, FallbackKeyRow, GIVEN_KEYS_BY_DEVICE,
        GivenKeysRow, KEY_COUNTS_BY_DEVICE, KeyCountsRow, ONE_TIME_KEY_BY_DEVICE, OneTimeKeyRow,
    },
};

use super::signed::Signed;
use crate::{Requester, Users};

/// The longest identity keys of a device, and one-time key, in bytes of JSON.
const MAX_DEVICE_KEYS: usize = 64 * 1024;
const MAX_KEY: usize = 8 * 1024;
/// The longest id of a key, in bytes.
const MAX_KEY_ID: usize = 255;
/// How many one-time keys a device may have, and of how many algorithms.
const MAX_ONE_TIME_KEYS: usize = 1_000;
const MAX_ALGORITHMS: usize = 16;

/// What a device uploads.
#[derive(Debug, Default)]
pub struct KeyUpload {
    /// Its identity keys.
    pub device_keys: Option<Raw<DeviceKeys>>,
    /// Keys of which each is given out once.
    pub one_time_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
    /// Keys that are given out when there is none of these left; they replace the former ones.
    pub fallback_keys: BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>,
}

/// A one-time or fallback key, checked.
struct NewKey {
    algorithm: String,
    row: OneTimeKeyRow,
}

/// The one-time keys that are there.
type Existing = Rows<(ShortUserId, NameHash, NameHash, Position), OneTimeKeyRow>;

/// Where that will be found on which an upload rests.
struct Asked {
    device: Slot<Option<Found<DeviceRow>>>,
    device_keys: Slot<Option<Found<DeviceKeysRow>>>,
    one_time: Slot<Existing>,
    fallback: Slot<Rows<(ShortUserId, NameHash, NameHash), FallbackKeyRow>>,
    counts: Slot<Option<Found<Stamped<KeyCountsRow>>>>,
    given: Slot<Option<Found<GivenKeysRow>>>,
    cross_signing: Slot<Rows<(ShortUserId, u8), CrossSigningKeyRow>>,
}

impl Users {
    /// Stores keys of a device; gives how many one-time keys it has, by algorithm. The same keys again
    /// change nothing.
    ///
    /// # Errors
    ///
    /// 400 `M_BAD_JSON` or `M_INVALID_PARAM` for keys that are none or another's, for another key under
    /// the id of one that is there, and for identity keys of a device that is called as a cross-signing
    /// key; 413 if there are too many, or they are too long.
    pub async fn upload_keys(
        &self,
        requester: &Requester,
        upload: &KeyUpload,
    ) -> Result<BTreeMap<String, u32>> {
        let device_keys = match &upload.device_keys {
            Some(keys) => Some(checked_device_keys(requester, keys)?),
            None => None,
        };
        let one_time = checked_keys(&upload.one_time_keys)?;
        let fallback = checked_keys(&upload.fallback_keys)?;
        let (_, device) = requester.own_device()?;
        let key = (requester.user, device);
        let mut writer = self.writer(requester.user).await;
        loop {
            let mut reads = Reads::new();
            let asked = Asked::ask(&mut reads, key);
            let answers = writer.snapshot().await?.read(&reads).await?;
            let Some(device) = answers.one(&asked.device)? else {
                return Err(error::unknown_token(false, "This device was logged out"));
            };
            let mut batch = Batch::new();
            // A device that is logged out meanwhile takes its keys along.
            batch.expect_equals(&DEVICE_BY_USER, &key, &device.raw);
            if let Some(new) = &device_keys {
                self.put_device_keys(&mut batch, requester, &asked, &answers, new)?;
            }
            let counts = answers.one(&asked.counts)?;
            let old = counts.as_ref().map(|row| row.value.value.clone());
            let mut new = old.clone().unwrap_or_default();
            self.put_one_time_keys(&mut batch, key, (&asked, &answers), &one_time, &mut new)?;
            let known = answers.rows(&asked.fallback)?;
            for fallback in &fallback {
                self.put_fallback_key(&mut batch, key, &known, fallback, &mut new)?;
            }
            if new.one_time.len() > MAX_ALGORITHMS || new.unused_fallback.len() > MAX_ALGORITHMS {
                return Err(error::too_large(format!(
                    "A device has keys of at most {MAX_ALGORITHMS} algorithms"
                )));
            }
            if old.as_ref() != Some(&new) && !(old.is_none() && new == KeyCountsRow::default()) {
                let raw = counts.as_ref().map(|row| &row.raw);
                batch.expect_unchanged(&KEY_COUNTS_BY_DEVICE, &key, raw);
                batch.put_stamped(&KEY_COUNTS_BY_DEVICE, &key, 0, new.clone());
                batch.wake(Topic::User(requester.user));
            }
            if batch.is_empty() || writer.commit(batch).await?.is_some() {
                return Ok(new.one_time);
            }
        }
    }

    fn put_device_keys(
        &self,
        batch: &mut Batch,
        requester: &Requester,
        asked: &Asked,
        answers: &Answers,
        new: &Signed,
    ) -> Result<()> {
        let (device_id, device) = requester.own_device()?;
        let clash = answers.rows(&asked.cross_signing)?;
        if clash
            .iter()
            .any(|(_, row)| row.value.public_key == device_id.as_str())
        {
            return Err(error::invalid_param(
                "A device cannot be called as one of its user's cross-signing keys",
            ));
        }
        let key = (requester.user, device);
        let found = answers.one(&asked.device_keys)?;
        let mut new = new.clone();
        if let Some(found) = &found {
            let old = Signed::stored(&found.value.json)?;
            if old.says_the_same(&new) {
                new.keep_signatures_of(&old);
            }
            if old == new {
                return Ok(());
            }
        }
        let row = DeviceKeysRow {
            device_id: device_id.to_string(),
            json: new.to_json(),
        };
        if found.as_ref().is_some_and(|found| found.value == row) {
            return Ok(());
        }
        let raw = found.as_ref().map(|found| &found.raw);
        batch.expect_unchanged(&DEVICE_KEYS_BY_USER, &key, raw);
        batch.put(&DEVICE_KEYS_BY_USER, &key, &row);
        self.tell_device_list(batch, requester.user, []);
        Ok(())
    }

    fn put_one_time_keys(
        &self,
        batch: &mut Batch,
        (user, device): (ShortUserId, NameHash),
        (asked, answers): (&Asked, &Answers),
        new: &[NewKey],
        counts: &mut KeyCountsRow,
    ) -> Result<()> {
        let known = answers.rows(&asked.one_time)?;
        let given = answers.one(&asked.given)?;
        let given = given.map(|found| found.value.keys).unwrap_or_default();
        let mut left = known.len();
        let known: BTreeMap<String, String> = known
            .into_iter()
            .map(|(_, row)| (row.value.key_id, row.value.json))
            .collect();
        let mut index = 0;
        for key in new {
            match known.get(&key.row.key_id) {
                Some(known) if same_key(known, &key.row.json) => continue,
                Some(_) => {
                    return Err(error::invalid_param(format!(
                        "There is another one-time key {}",
                        key.row.key_id
                    )));
                }
                // The answer to its first upload was lost, and it was claimed since.
                None if given.contains(&hash_of(&self.0.storage, &key.row)) => continue,
                None => {}
            }
            left += 1;
            if left > MAX_ONE_TIME_KEYS {
                return Err(error::too_large(format!(
                    "A device has at most {MAX_ONE_TIME_KEYS} one-time keys"
                )));
            }
            let algorithm = self.0.storage.algorithm_hash(&key.algorithm);
            let place = (user, device, algorithm, Position::pending(index));
            batch.put(&ONE_TIME_KEY_BY_DEVICE, &place, &key.row);
            index += 1;
            *counts.one_time.entry(key.algorithm.clone()).or_default() += 1;
        }
        Ok(())
    }

    fn put_fallback_key(
        &self,
        batch: &mut Batch,
        (user, device): (ShortUserId, NameHash),
        known: &Rows<(ShortUserId, NameHash, NameHash), FallbackKeyRow>,
        new: &NewKey,
        counts: &mut KeyCountsRow,
    ) -> Result<()> {
        let key = (user, device, self.0.storage.algorithm_hash(&new.algorithm));
        let found = known.iter().find(|(other, _)| *other == key);
        if let Some((_, found)) = found {
            let known = &found.value.key;
            if known.key_id == new.row.key_id {
                return if same_key(&known.json, &new.row.json) {
                    Ok(())
                } else {
                    Err(error::invalid_param(format!(
                        "There is another fallback key {}",
                        new.row.key_id
                    )))
                };
            }
        }
        batch.expect_unchanged(
            &FALLBACK_KEY_BY_DEVICE,
            &key,
            found.map(|(_, found)| &found.raw),
        );
        let row = FallbackKeyRow {
            key: new.row.clone(),
            used: false,
        };
        batch.put(&FALLBACK_KEY_BY_DEVICE, &key, &row);
        counts.unused_fallback.insert(new.algorithm.clone());
        Ok(())
    }
}

impl Asked {
    fn ask(reads: &mut Reads, key: (ShortUserId, NameHash)) -> Self {
        let all = Range::prefix(&key);
        Self {
            device: reads.get(&DEVICE_BY_USER, &key),
            device_keys: reads.get(&DEVICE_KEYS_BY_USER, &key),
            one_time: reads.range(&ONE_TIME_KEY_BY_DEVICE, &all.limit(MAX_ONE_TIME_KEYS + 1)),
            fallback: reads.range(&FALLBACK_KEY_BY_DEVICE, &Range::prefix(&key)),
            counts: reads.get(&KEY_COUNTS_BY_DEVICE, &key),
            given: reads.get(&GIVEN_KEYS_BY_DEVICE, &key),
            cross_signing: reads.range(&CROSS_SIGNING_KEY_BY_USER, &Range::prefix(&(key.0,))),
        }
    }
}

fn checked_device_keys(requester: &Requester, keys: &Raw<DeviceKeys>) -> Result<Signed> {
    if keys.json().get().len() > MAX_DEVICE_KEYS {
        return Err(error::too_large(format!(
            "The keys of a device have at most {MAX_DEVICE_KEYS} bytes"
        )));
    }
    let parsed = keys
        .deserialize()
        .map_err(|problem| error::bad_json(format!("These are no keys of a device: {problem}")))?;
    if parsed.user_id != requester.user_id || parsed.device_id != requester.own_device()?.0 {
        return Err(error::invalid_param(
            "These are the keys of another device than the one that uploads them",
        ));
    }
    Signed::read(keys.json())
}

fn checked_keys(keys: &BTreeMap<OwnedOneTimeKeyId, Raw<OneTimeKey>>) -> Result<Vec<NewKey>> {
    if keys.len() > MAX_ONE_TIME_KEYS {
        return Err(error::too_large(format!(
            "At most {MAX_ONE_TIME_KEYS} keys can be uploaded at once"
        )));
    }
    keys.iter()
        .map(|(id, key)| {
            let json = key.json().get();
            if json.len() > MAX_KEY || id.as_str().len() > MAX_KEY_ID {
                return Err(error::too_large(format!(
                    "A key has at most {MAX_KEY} bytes, its id at most {MAX_KEY_ID}"
                )));
            }
            let value = serde_json::from_str::<Value>(json).ok();
            if value.as_ref().and_then(public_part).is_none() {
                return Err(error::bad_json(format!(
                    "{id} is no key: a string, or an object with a string `key`"
                )));
            }
            Ok(NewKey {
                algorithm: id.algorithm().to_string(),
                row: OneTimeKeyRow {
                    key_id: id.to_string(),
                    json: json.to_owned(),
                },
            })
        })
        .collect()
}

/// Of a one-time key, whoever signed it and however it is written.
pub(super) fn hash_of(storage: &Storage, key: &OneTimeKeyRow) -> NameHash {
    let json = serde_json::from_str::<Value>(&key.json).unwrap_or_default();
    let public = public_part(&json).unwrap_or_default();
    storage.one_time_key_hash(&[&key.key_id, "\0", public].concat())
}

fn public_part(key: &Value) -> Option<&str> {
    key.as_str().or_else(|| key.get("key")?.as_str())
}

/// Whether two are the same key, whoever signed them and however they are written.
fn same_key(one: &str, other: &str) -> bool {
    let parse = |json: &str| serde_json::from_str::<Value>(json).unwrap_or_default();
    let (one, other) = (parse(one), parse(other));
    public_part(&one).is_some() && public_part(&one) == public_part(&other)
}
