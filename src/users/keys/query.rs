//! The public keys of people and their devices ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery

use std::collections::{BTreeMap, HashMap};

use error::Result;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use serde_json::{Map, Value, value::RawValue};
use storage::{
    Answers, Found, NameHash, Range, Reads, Rows, ShortUserId, Slot,
    schema::{
        CROSS_SIGNING_KEY_BY_USER, CrossSigningKeyRow, DEVICE_BY_USER, DEVICE_KEYS_BY_USER,
        DeviceKeysRow, DeviceRow, KeyUse, SIGNATURES_BY_SIGNER, SignaturesRow, USER_BY_NAME,
    },
};

use super::signed::Signed;
use crate::{Requester, Users};

/// What is known of a user's keys.
#[derive(Debug, Default)]
pub struct UserKeys {
    /// The identity keys of their devices, with the devices' names under `unsigned`.
    pub devices: BTreeMap<OwnedDeviceId, Box<RawValue>>,
    /// The key that stands for them, with the asker's signatures of it.
    pub master: Option<Box<RawValue>>,
    /// The key with which they sign their devices.
    pub self_signing: Option<Box<RawValue>>,
    /// The key with which they sign others' master keys; to themselves only.
    pub user_signing: Option<Box<RawValue>>,
}

/// Where that will be found what is known of one user.
struct Asked<'a> {
    user: &'a OwnedUserId,
    /// The devices that are asked about; all if there is none.
    wanted: &'a [OwnedDeviceId],
    keys: Slot<Rows<(ShortUserId, NameHash), DeviceKeysRow>>,
    devices: Slot<Rows<(ShortUserId, NameHash), DeviceRow>>,
    cross_signing: Slot<Rows<(ShortUserId, u8), CrossSigningKeyRow>>,
    signatures: Option<Slot<Option<Found<SignaturesRow>>>>,
}

impl Users {
    /// The keys of people of this server, of all their devices or some; two round trips. Who has no account
    /// is left out. `requester` sees their own signatures and user-signing key; another server has none.
    pub async fn query_keys(
        &self,
        requester: Option<&Requester>,
        wanted: &BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>,
    ) -> Result<BTreeMap<OwnedUserId, UserKeys>> {
        let names: Vec<_> = wanted
            .keys()
            .map(|user| self.0.storage.user_hash(user))
            .collect();
        let snapshot = self.snapshot().await?;
        let shorts = snapshot.multi_get(&USER_BY_NAME, &names).await?;
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for (((user, devices), name), short) in wanted.iter().zip(&names).zip(shorts) {
            let Some(short) = short else { continue };
            let all = (short.value,);
            let signer = requester.map(|requester| (requester.user, *name));
            asked.push(Asked {
                user,
                wanted: devices,
                keys: reads.range(&DEVICE_KEYS_BY_USER, &Range::prefix(&all)),
                devices: reads.range(&DEVICE_BY_USER, &Range::prefix(&all)),
                cross_signing: reads.range(&CROSS_SIGNING_KEY_BY_USER, &Range::prefix(&all)),
                signatures: signer.map(|key| reads.get(&SIGNATURES_BY_SIGNER, &key)),
            });
        }
        let answers = snapshot.read(&reads).await?;
        let viewer = requester.map(|requester| &*requester.user_id);
        asked
            .iter()
            .map(|asked| Ok((asked.user.clone(), asked.answer(&answers, viewer)?)))
            .collect()
    }

    /// What somebody of ours signed of other people's master keys, for themselves alone; one round trip.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn signatures_of_others(
        &self,
        requester: &Requester,
        others: &[OwnedUserId],
    ) -> Result<Vec<(OwnedUserId, SignaturesRow)>> {
        let keys: Vec<_> = others
            .iter()
            .map(|other| (requester.user, self.0.storage.user_hash(other)))
            .collect();
        let rows = self
            .snapshot()
            .await?
            .multi_get(&SIGNATURES_BY_SIGNER, &keys)
            .await?;
        let signed = others.iter().zip(rows);
        Ok(signed
            .filter_map(|(other, row)| Some((other.clone(), row?.value)))
            .collect())
    }
}

impl UserKeys {
    /// Adds what the asker signed of the master key, if it is still that one.
    ///
    /// # Errors
    ///
    /// Internal, if the key is none.
    pub fn add_signature(&mut self, signer: &UserId, signed: &SignaturesRow) -> Result<()> {
        let Some(master) = &self.master else {
            return Ok(());
        };
        let mut key = Signed::stored(master.get())?;
        if key
            .verify_key(&format!("ed25519:{}", signed.public_key))
            .is_some()
        {
            for (key_id, signature) in &signed.signatures {
                key.add_signature(signer.as_str(), key_id, signature);
            }
            self.master = Some(key.to_json_with(Map::new())?);
        }
        Ok(())
    }
}

impl Asked<'_> {
    fn answer(&self, answers: &Answers, viewer: Option<&UserId>) -> Result<UserKeys> {
        let mut found = UserKeys::default();
        let names: HashMap<_, _> = answers
            .rows(&self.devices)?
            .into_iter()
            .map(|(key, row)| (key, row.value.display_name))
            .collect();
        for (key, row) in answers.rows(&self.keys)? {
            let device_id = OwnedDeviceId::from(row.value.device_id);
            if !self.wanted.is_empty() && !self.wanted.contains(&device_id) {
                continue;
            }
            let mut unsigned = Map::new();
            if let Some(name) = names.get(&key).cloned().flatten() {
                unsigned.insert("device_display_name".to_owned(), Value::String(name));
            }
            let keys = Signed::stored(&row.value.json)?.to_json_with(unsigned)?;
            found.devices.insert(device_id, keys);
        }
        let signatures = match &self.signatures {
            Some(slot) => answers.one(slot)?.map(|row| row.value),
            None => None,
        };
        for ((_, kind), row) in answers.rows(&self.cross_signing)? {
            let mut key = Signed::stored(&row.value.json)?;
            let place = match kind {
                kind if kind == KeyUse::Master as u8 => {
                    if let (Some(viewer), Some(mine)) = (viewer, &signatures)
                        && mine.public_key == row.value.public_key
                    {
                        for (key_id, signature) in &mine.signatures {
                            key.add_signature(viewer.as_str(), key_id, signature);
                        }
                    }
                    &mut found.master
                }
                kind if kind == KeyUse::SelfSigning as u8 => &mut found.self_signing,
                _ if viewer == Some(self.user) => &mut found.user_signing,
                _ => continue,
            };
            *place = Some(key.to_json_with(Map::new())?);
        }
        Ok(found)
    }
}
