//! The keys with which people sign their own devices, and each other ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#cross-signing

use std::collections::BTreeMap;

use error::Result;
use pdu::VerifyKey;
use ruma::{
    api::client::uiaa::AuthData,
    encryption::{CrossSigningKey, KeyUsage},
    serde::Raw,
};
use storage::{
    Batch, Found, Range, Reads, ShortUserId,
    schema::{CROSS_SIGNING_KEY_BY_USER, CrossSigningKeyRow, DEVICE_BY_USER, KeyUse},
};

use super::signed::Signed;
use crate::{Requester, Users};

/// The longest cross-signing key, in bytes of JSON.
const MAX_KEY: usize = 64 * 1024;

/// New cross-signing keys.
#[derive(Debug, Default)]
pub struct CrossSigningUpload {
    /// The key that stands for the user, if it is new.
    pub master: Option<Raw<CrossSigningKey>>,
    /// The key that signs their devices, if it is new.
    pub self_signing: Option<Raw<CrossSigningKey>>,
    /// The key that signs others, if it is new.
    pub user_signing: Option<Raw<CrossSigningKey>>,
}

/// A key that was checked by itself.
struct NewKey {
    kind: KeyUse,
    public_key: String,
    key: Signed,
}

/// The keys that are there, by their use.
type Existing = BTreeMap<u8, Found<CrossSigningKeyRow>>;

impl Users {
    /// Stores cross-signing keys. Who replaces some that are there has to prove who they are; the same
    /// keys again, and the first ones, need no proof (MSC3967), nor does an application service
    /// ([spec](https://spec.matrix.org/v1.19/application-service-api/#cross-signing)).
    ///
    /// # Errors
    ///
    /// 400 `M_BAD_JSON` or `M_INVALID_PARAM` for what is no such key, `M_MISSING_PARAM` without a master
    /// key, `M_INVALID_SIGNATURE` for keys that the master key did not sign; 401 with what is to be proven.
    pub async fn upload_cross_signing_keys(
        &self,
        requester: &Requester,
        upload: &CrossSigningUpload,
        auth: Option<&AuthData>,
    ) -> Result<()> {
        let new = checked(requester, upload)?;
        let existing = self.cross_signing_keys(requester.user).await?;
        if new.iter().all(|key| key.is_in(&existing)) {
            return Ok(());
        }
        if existing.contains_key(&(KeyUse::Master as u8)) && requester.service.is_none() {
            self.prove_again(requester, "upload_signing_keys", auth)
                .await?;
        }
        let mut writer = self.writer(requester.user).await;
        loop {
            let mut reads = Reads::new();
            let existing = reads.range(
                &CROSS_SIGNING_KEY_BY_USER,
                &Range::prefix(&(requester.user,)),
            );
            let names: Vec<_> = new
                .iter()
                .map(|key| {
                    let called = self.0.storage.device_hash(&key.public_key);
                    (requester.user, called)
                })
                .collect();
            let devices = reads.get_all(&DEVICE_BY_USER, &names);
            let answers = writer.snapshot().await?.read(&reads).await?;
            if answers.all(&devices)?.iter().any(Option::is_some) {
                return Err(error::invalid_param(
                    "A cross-signing key cannot be called as one of its user's devices",
                ));
            }
            let existing = by_use(answers.rows(&existing)?);
            let mut batch = Batch::new();
            put(&mut batch, requester, &existing, &new)?;
            if batch.is_empty() {
                return Ok(());
            }
            self.tell_device_list(&mut batch, requester.user, []);
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn cross_signing_keys(&self, user: ShortUserId) -> Result<Existing> {
        let rows = self
            .snapshot()
            .await?
            .multi_range(&CROSS_SIGNING_KEY_BY_USER, &[Range::prefix(&(user,))])
            .await?;
        Ok(by_use(rows.into_iter().flatten()))
    }
}

fn by_use(
    rows: impl IntoIterator<Item = ((ShortUserId, u8), Found<CrossSigningKeyRow>)>,
) -> Existing {
    rows.into_iter()
        .map(|((_, kind), row)| (kind, row))
        .collect()
}

/// Puts those that are new into a batch, if the master key that will be there has signed them.
fn put(
    batch: &mut Batch,
    requester: &Requester,
    existing: &Existing,
    new: &[NewKey],
) -> Result<()> {
    let old_master = existing.get(&(KeyUse::Master as u8));
    let new_master = new.iter().find(|key| key.kind == KeyUse::Master);
    let master = match (new_master, old_master) {
        (Some(new), _) => new.public_key.as_str(),
        (None, Some(old)) => old.value.public_key.as_str(),
        (None, None) => {
            return Err(error::missing_param(
                "There is no master key yet, and none in `master_key`",
            ));
        }
    };
    let key_id = format!("ed25519:{master}");
    let verify_key = VerifyKey::from_base64(master).map_err(error::internal)?;
    if old_master.is_some() {
        // Of two uploads at once, one would otherwise be signed by a key that the other replaces.
        let raw = old_master.map(|old| &old.raw);
        let place = (requester.user, KeyUse::Master as u8);
        batch.expect_unchanged(&CROSS_SIGNING_KEY_BY_USER, &place, raw);
    }
    for key in new {
        if key.kind != KeyUse::Master
            && !key
                .key
                .is_signed_by(&requester.user_id, &key_id, &verify_key)
        {
            return Err(error::invalid_signature(
                "Self-signing and user-signing keys are signed by the master key",
            ));
        }
        if key.is_in(existing) {
            continue;
        }
        let old = existing.get(&(key.kind as u8));
        let mut signed = key.key.clone();
        if let Some(old) = old
            && old.value.public_key == key.public_key
        {
            signed.keep_signatures_of(&Signed::stored(&old.value.json)?);
        }
        let row = CrossSigningKeyRow {
            public_key: key.public_key.clone(),
            json: signed.to_json(),
        };
        let place = (requester.user, key.kind as u8);
        if key.kind != KeyUse::Master || old.is_none() {
            batch.expect_unchanged(&CROSS_SIGNING_KEY_BY_USER, &place, old.map(|old| &old.raw));
        }
        batch.put(&CROSS_SIGNING_KEY_BY_USER, &place, &row);
    }
    Ok(())
}

impl NewKey {
    /// Whether it is there already, with all its signatures.
    fn is_in(&self, existing: &Existing) -> bool {
        existing.get(&(self.kind as u8)).is_some_and(|old| {
            let stored = Signed::stored(&old.value.json);
            let mut new = self.key.clone();
            stored.is_ok_and(|stored| {
                new.keep_signatures_of(&stored);
                stored.says_the_same(&new) && stored.to_json() == new.to_json()
            })
        })
    }
}

/// Checks each key by itself.
fn checked(requester: &Requester, upload: &CrossSigningUpload) -> Result<Vec<NewKey>> {
    let kinds = [
        (KeyUse::Master, KeyUsage::Master, &upload.master),
        (
            KeyUse::SelfSigning,
            KeyUsage::SelfSigning,
            &upload.self_signing,
        ),
        (
            KeyUse::UserSigning,
            KeyUsage::UserSigning,
            &upload.user_signing,
        ),
    ];
    let mut new: Vec<NewKey> = Vec::new();
    for (kind, usage, raw) in kinds {
        let Some(raw) = raw else { continue };
        if raw.json().get().len() > MAX_KEY {
            return Err(error::too_large(format!(
                "A cross-signing key has at most {MAX_KEY} bytes"
            )));
        }
        let parsed = raw.deserialize().map_err(|problem| {
            error::bad_json(format!("This is no cross-signing key: {problem}"))
        })?;
        if parsed.user_id != requester.user_id {
            return Err(error::invalid_param("This is somebody else's key"));
        }
        if parsed.usage != [usage] {
            return Err(error::invalid_param(
                "The key's `usage` is not what it is uploaded as",
            ));
        }
        let mut keys = parsed.keys.iter();
        let (Some((key_id, public_key)), None) = (keys.next(), keys.next()) else {
            return Err(error::invalid_param(
                "A cross-signing key holds exactly one public key",
            ));
        };
        if VerifyKey::from_base64(public_key).is_err()
            || key_id.as_str() != format!("ed25519:{public_key}")
        {
            return Err(error::invalid_param(
                "A cross-signing key is an Ed25519 key in unpadded Base64, and called by it",
            ));
        }
        if new.iter().any(|other| other.public_key == *public_key) {
            return Err(error::invalid_param("Each use has a key of its own"));
        }
        new.push(NewKey {
            kind,
            public_key: public_key.clone(),
            key: Signed::read(raw.json())?,
        });
    }
    Ok(new)
}
