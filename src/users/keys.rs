//! What end-to-end encryption asks of a server ([spec]): it keeps public keys and hands them out, and
//! never sees a secret one.
//!
//! The keys of a device and of its user are rows under the user. A one-time key is claimed by its removal,
//! on the condition that it is still there: a crash may waste one, and never gives it out twice. That keys
//! changed is left as a job ([`job::DEVICE_LIST`](crate::job::DEVICE_LIST)) to be told in the user's rooms.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption

mod backup;
mod claim;
mod cross_signing;
mod foreign;
mod published;
mod query;
mod signatures;
mod signed;
mod upload;

use ruma::DeviceId;
use storage::{
    Answers, Batch, Key, KeyPrefix, NameHash, Position, Range, Reads, Rows, ShortUserId, Slot,
    Table,
    schema::{
        DEVICE_KEYS_BY_USER, FALLBACK_KEY_BY_DEVICE, FallbackKeyRow, GIVEN_KEYS_BY_DEVICE,
        KEY_COUNTS_BY_DEVICE, MESSAGE_BY_DEVICE, ONE_TIME_KEY_BY_DEVICE, OneTimeKeyRow,
    },
};

pub use self::{
    backup::{Backup, BackupKey, BackupKeys, BackupScope, BackupState},
    claim::ClaimedKeys,
    cross_signing::CrossSigningUpload,
    foreign::{foreign_device_keys, foreign_master_key, foreign_self_signing_key},
    published::{DeviceNews, PublishedDevices, publish_devices},
    query::UserKeys,
    signatures::Failures as SignatureFailures,
    upload::KeyUpload,
};

/// Rows of a device's keys and messages that are removed one by one with it; where there are more, by
/// their range.
const REMOVED_SINGLY: usize = 500;

/// What has to be removed with a device.
pub(crate) struct OfDevice {
    key: (ShortUserId, NameHash),
    messages: Slot<Rows<(ShortUserId, NameHash, Position), String>>,
    one_time: Slot<Rows<(ShortUserId, NameHash, NameHash, Position), OneTimeKeyRow>>,
    fallback: Slot<Rows<(ShortUserId, NameHash, NameHash), FallbackKeyRow>>,
}

impl OfDevice {
    /// Asks for what a device has.
    pub(crate) fn ask(reads: &mut Reads, key: (ShortUserId, NameHash)) -> Self {
        let limit = REMOVED_SINGLY + 1;
        Self {
            key,
            messages: reads.range(&MESSAGE_BY_DEVICE, &Range::prefix(&key).limit(limit)),
            one_time: reads.range(&ONE_TIME_KEY_BY_DEVICE, &Range::prefix(&key).limit(limit)),
            fallback: reads.range(&FALLBACK_KEY_BY_DEVICE, &Range::prefix(&key)),
        }
    }

    /// Puts the end of all of it into a batch.
    pub(crate) fn remove(&self, batch: &mut Batch, answers: &Answers) -> error::Result<()> {
        batch.delete(&DEVICE_KEYS_BY_USER, &self.key);
        batch.delete(&KEY_COUNTS_BY_DEVICE, &self.key);
        batch.delete(&GIVEN_KEYS_BY_DEVICE, &self.key);
        let messages = answers.rows(&self.messages)?;
        remove_all(batch, &MESSAGE_BY_DEVICE, &self.key, &messages);
        let one_time = answers.rows(&self.one_time)?;
        remove_all(batch, &ONE_TIME_KEY_BY_DEVICE, &self.key, &one_time);
        for (key, _) in answers.rows(&self.fallback)? {
            batch.delete(&FALLBACK_KEY_BY_DEVICE, &key);
        }
        Ok(())
    }
}

/// Removes rows one by one, or all with the prefix if there are too many.
fn remove_all<K: Key, V>(
    batch: &mut Batch,
    table: &Table<K, V>,
    prefix: &impl KeyPrefix<K>,
    rows: &Rows<K, V>,
) {
    if rows.len() > REMOVED_SINGLY {
        batch.delete_prefix(table, prefix);
    } else {
        for (key, _) in rows {
            batch.delete(table, key);
        }
    }
}

/// The id of a device's key that signs.
fn signing_key_id(device_id: &DeviceId) -> String {
    format!("ed25519:{device_id}")
}
