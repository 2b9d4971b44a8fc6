//! Signatures of keys that are there already ([spec]): of one's own devices and master key, and of others'
//! master keys. The first everybody sees, the others only who made them.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload

use std::collections::{BTreeMap, HashMap};

use error::{Error, Result};
use pdu::VerifyKey;
use ruma::{DeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;
use storage::{
    Answers, Batch, Found, NameHash, Range, Reads, Slot, Stamped,
    schema::{
        CROSS_SIGNING_KEY_BY_USER, CrossSigningKeyRow, DEVICE_KEYS_BY_USER, DEVICES_BY_REMOTE_USER,
        DeviceKeysRow, KeyUse, RemoteDevicesRow, SIGNATURES_BY_SIGNER, SignaturesRow, USER_BY_NAME,
        UserChange,
    },
};

use super::{signed::Signed, signing_key_id};
use crate::{Requester, Users, change};

/// The most keys that are signed in one request.
const MAX_KEYS: usize = 1_000;

/// What could not be signed, by user and key, and why.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Error>>;

/// Signed keys, by user and by the id of a device or the public key.
type SignedKeys = BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>;

/// A user's own keys.
struct Own {
    devices: HashMap<NameHash, Found<DeviceKeysRow>>,
    cross_signing: BTreeMap<u8, Found<CrossSigningKeyRow>>,
}

/// Another user, whose master key is signed.
struct Other<'a> {
    user: &'a OwnedUserId,
    name: NameHash,
    master: Master,
    mine: Slot<Option<Found<SignaturesRow>>>,
}

/// Where somebody's master key will be found.
enum Master {
    /// Of somebody of this server.
    Here(Slot<Option<Found<CrossSigningKeyRow>>>),
    /// Of somebody of another one: what that one said last.
    Elsewhere(Slot<Option<Found<Stamped<RemoteDevicesRow>>>>),
}

impl Master {
    /// The key as JSON, if it is called so.
    fn find(&self, answers: &Answers, public_key: &str) -> Result<Option<String>> {
        Ok(match self {
            Self::Here(slot) => answers
                .one(slot)?
                .filter(|row| row.value.public_key == public_key)
                .map(|row| row.value.json),
            Self::Elsewhere(slot) => {
                let json = answers.one(slot)?.and_then(|row| row.value.value.master);
                let Some(json) = json else { return Ok(None) };
                let key_id = format!("ed25519:{public_key}");
                let named = Signed::stored(&json)?.verify_key(&key_id).is_some();
                named.then_some(json)
            }
        })
    }
}

/// One key that is signed.
struct Upload<'a> {
    name: &'a str,
    key: &'a Signed,
}

impl Users {
    /// Adds signatures to keys that are there. Says of which it could not.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many keys.
    pub async fn upload_signatures(
        &self,
        requester: &Requester,
        signed: &SignedKeys,
    ) -> Result<Failures> {
        if signed.values().map(BTreeMap::len).sum::<usize>() > MAX_KEYS {
            return Err(error::invalid_param(format!(
                "At most {MAX_KEYS} keys can be signed at once"
            )));
        }
        let user = requester.user;
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let others: Vec<_> = signed
                .keys()
                .filter(|other| **other != requester.user_id)
                .map(|other| (other, self.0.storage.user_hash(other)))
                .collect();
            let names: Vec<_> = others.iter().map(|(_, name)| *name).collect();
            let shorts = snapshot.multi_get(&USER_BY_NAME, &names).await?;
            let mut reads = Reads::new();
            let own_devices = reads.range(&DEVICE_KEYS_BY_USER, &Range::prefix(&(user,)));
            let own_keys = reads.range(&CROSS_SIGNING_KEY_BY_USER, &Range::prefix(&(user,)));
            let mut asked = Vec::new();
            for ((other, name), short) in others.into_iter().zip(shorts) {
                let master = match short {
                    Some(short) => {
                        let key = (short.value, KeyUse::Master as u8);
                        Master::Here(reads.get(&CROSS_SIGNING_KEY_BY_USER, &key))
                    }
                    None if other.server_name() == self.server_name() => continue,
                    None => Master::Elsewhere(reads.get(&DEVICES_BY_REMOTE_USER, &name)),
                };
                asked.push(Other {
                    user: other,
                    name,
                    master,
                    mine: reads.get(&SIGNATURES_BY_SIGNER, &(user, name)),
                });
            }
            let answers = snapshot.read(&reads).await?;
            let own = Own {
                devices: answers
                    .rows(&own_devices)?
                    .into_iter()
                    .map(|((_, device), row)| (device, row))
                    .collect(),
                cross_signing: answers
                    .rows(&own_keys)?
                    .into_iter()
                    .map(|((_, kind), row)| (kind, row))
                    .collect(),
            };
            let mut failures = Failures::new();
            let mut batch = Batch::new();
            let own_changed = self.sign_own(&mut batch, requester, &own, signed, &mut failures)?;
            let told = sign_others(
                &mut batch,
                requester,
                &own,
                signed,
                (&asked, &answers),
                &mut failures,
            )?;
            if own_changed {
                self.tell_device_list(&mut batch, user, told);
            } else {
                change::tell(&mut batch, user, told);
            }
            if batch.is_empty() || writer.commit(batch).await?.is_some() {
                return Ok(failures);
            }
        }
    }

    /// Adds the signatures of one's own devices and master key; whether there are new ones.
    fn sign_own(
        &self,
        batch: &mut Batch,
        requester: &Requester,
        own: &Own,
        signed: &SignedKeys,
        failures: &mut Failures,
    ) -> Result<bool> {
        let mut changed = false;
        for (name, json) in signed.get(&requester.user_id).into_iter().flatten() {
            let result = Signed::read(json).and_then(|key| {
                let upload = Upload { name, key: &key };
                let device = self.0.storage.device_hash(name);
                match own.devices.get(&device) {
                    Some(row) => sign_device(batch, requester, own, &upload, device, row),
                    None => self.sign_own_master(batch, requester, own, &upload),
                }
            });
            match result {
                Ok(new) => changed |= new,
                Err(failure) => fail(failures, &requester.user_id, name, failure)?,
            }
        }
        Ok(changed)
    }

    fn sign_own_master(
        &self,
        batch: &mut Batch,
        requester: &Requester,
        own: &Own,
        upload: &Upload<'_>,
    ) -> Result<bool> {
        let kind = KeyUse::Master as u8;
        let master = own
            .cross_signing
            .get(&kind)
            .filter(|row| row.value.public_key == upload.name)
            .ok_or_else(|| error::not_found("You have no such device or master key"))?;
        let mut key = Signed::stored(&master.value.json)?;
        check_same(&key, upload.key)?;
        let mut valid = Vec::new();
        for (key_id, signature) in upload.key.signatures_of(&requester.user_id) {
            let Some(device_id) = key_id.strip_prefix("ed25519:") else {
                continue;
            };
            let device = self.0.storage.device_hash(device_id);
            let signer = match own.devices.get(&device) {
                Some(row) => Signed::stored(&row.value.json)?.verify_key(&key_id),
                // The master key signs itself where clients do not know better.
                None => None,
            };
            if let Some(signer) = signer {
                check_signature(upload.key, &requester.user_id, &key_id, &signer)?;
                valid.push((key_id, signature));
            }
        }
        if valid.is_empty() {
            return Err(error::invalid_signature(
                "None of your devices has signed this key",
            ));
        }
        for (key_id, signature) in &valid {
            key.add_signature(requester.user_id.as_str(), key_id, signature);
        }
        let row = CrossSigningKeyRow {
            json: key.to_json(),
            ..master.value.clone()
        };
        if row == master.value {
            return Ok(false);
        }
        let place = (requester.user, kind);
        batch.expect_equals(&CROSS_SIGNING_KEY_BY_USER, &place, &master.raw);
        batch.put(&CROSS_SIGNING_KEY_BY_USER, &place, &row);
        Ok(true)
    }
}

fn sign_device(
    batch: &mut Batch,
    requester: &Requester,
    own: &Own,
    upload: &Upload<'_>,
    device: NameHash,
    row: &Found<DeviceKeysRow>,
) -> Result<bool> {
    let mut keys = Signed::stored(&row.value.json)?;
    check_same(&keys, upload.key)?;
    let signature = signature_of(own, KeyUse::SelfSigning, requester, upload.key)?;
    keys.add_signature(requester.user_id.as_str(), &signature.0, &signature.1);
    let new = DeviceKeysRow {
        json: keys.to_json(),
        ..row.value.clone()
    };
    if new == row.value {
        return Ok(false);
    }
    let place = (requester.user, device);
    batch.expect_equals(&DEVICE_KEYS_BY_USER, &place, &row.raw);
    batch.put(&DEVICE_KEYS_BY_USER, &place, &new);
    Ok(true)
}

/// Keeps one's signatures of others' master keys; whose they are, to tell one's own devices.
fn sign_others(
    batch: &mut Batch,
    requester: &Requester,
    own: &Own,
    signed: &SignedKeys,
    (asked, answers): (&[Other<'_>], &Answers),
    failures: &mut Failures,
) -> Result<Vec<UserChange>> {
    let mut told = Vec::new();
    for (user, keys) in signed {
        if *user == requester.user_id {
            continue;
        }
        let other = asked.iter().find(|other| other.user == user);
        for (name, json) in keys {
            let result = Signed::read(json).and_then(|key| {
                let upload = Upload { name, key: &key };
                sign_other(batch, requester, own, other, answers, &upload)
            });
            match result {
                Ok(change) => told.extend(change),
                Err(failure) => fail(failures, user, name, failure)?,
            }
        }
    }
    Ok(told)
}

fn sign_other(
    batch: &mut Batch,
    requester: &Requester,
    own: &Own,
    other: Option<&Other<'_>>,
    answers: &Answers,
    upload: &Upload<'_>,
) -> Result<Option<UserChange>> {
    let unknown = || error::not_found("This user has no such master key");
    let other = other.ok_or_else(unknown)?;
    let master = other.master.find(answers, upload.name)?;
    let master = master.ok_or_else(unknown)?;
    check_same(&Signed::stored(&master)?, upload.key)?;
    let (key_id, signature) = signature_of(own, KeyUse::UserSigning, requester, upload.key)?;
    let mine = answers.one(&other.mine)?;
    let mut row = SignaturesRow {
        user_id: other.user.to_string(),
        public_key: upload.name.to_owned(),
        signatures: BTreeMap::new(),
    };
    row.signatures.insert(key_id, signature);
    if mine.as_ref().is_some_and(|mine| mine.value == row) {
        return Ok(None);
    }
    let place = (requester.user, other.name);
    batch.expect_unchanged(
        &SIGNATURES_BY_SIGNER,
        &place,
        mine.as_ref().map(|mine| &mine.raw),
    );
    batch.put(&SIGNATURES_BY_SIGNER, &place, &row);
    Ok(Some(UserChange::Signatures(other.name)))
}

/// The signature of a key by one of one's own that sign.
fn signature_of(
    own: &Own,
    by: KeyUse,
    requester: &Requester,
    key: &Signed,
) -> Result<(String, String)> {
    let signer = own.cross_signing.get(&(by as u8)).ok_or_else(|| {
        error::invalid_signature("You have no key of your own that could have signed this")
    })?;
    let public_key = signer.value.public_key.as_str();
    let key_id = signing_key_id(<&DeviceId>::from(public_key));
    let verify_key = VerifyKey::from_base64(public_key).map_err(error::internal)?;
    check_signature(key, &requester.user_id, &key_id, &verify_key)?;
    key.signatures_of(&requester.user_id)
        .into_iter()
        .find(|(id, _)| *id == key_id)
        .ok_or_else(|| error::invalid_signature("This is not signed by your key"))
}

fn check_signature(key: &Signed, user: &UserId, key_id: &str, by: &VerifyKey) -> Result<()> {
    if key.is_signed_by(user, key_id, by) {
        return Ok(());
    }
    Err(error::invalid_signature(format!(
        "There is no valid signature by {key_id}"
    )))
}

fn check_same(stored: &Signed, uploaded: &Signed) -> Result<()> {
    if stored.says_the_same(uploaded) {
        return Ok(());
    }
    Err(error::invalid_signature(
        "What was signed is not the key that is there",
    ))
}

/// Keeps why a key could not be signed; what went wrong here ends the request.
fn fail(failures: &mut Failures, user: &UserId, name: &str, failure: Error) -> Result<()> {
    if failure.status().is_server_error() {
        return Err(failure);
    }
    failures
        .entry(user.to_owned())
        .or_default()
        .insert(name.to_owned(), failure);
    Ok(())
}
