//! The tables of end-to-end encryption: keys of devices and people, what waits for devices, backups.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{NameHash, Position, ShortRoomId, ShortUserId, Stamped, table::tables, value::records};

tables! { KEY_TABLES:
    /// The identity keys of a user's devices (device). Users write it.
    100 DEVICE_KEYS_BY_USER Range: (ShortUserId, NameHash) => DeviceKeysRow;
    /// A user's cross-signing keys, by their use. Users write it.
    101 CROSS_SIGNING_KEY_BY_USER Range: (ShortUserId, u8) => CrossSigningKeyRow;
    /// What a user signed of others' master keys (signed user), for themselves alone. Users write it.
    102 SIGNATURES_BY_SIGNER Range: (ShortUserId, NameHash) => SignaturesRow;
    /// The one-time keys that a device has left (device, algorithm), in the order in which they came. Users write it.
    103 ONE_TIME_KEY_BY_DEVICE Log: (ShortUserId, NameHash, NameHash, Position) => OneTimeKeyRow;
    /// What is given out when there is no one-time key left (device, algorithm). Users write it.
    104 FALLBACK_KEY_BY_DEVICE Range: (ShortUserId, NameHash, NameHash) => FallbackKeyRow;
    /// What a device is told of its one-time and fallback keys. Users write it, with the keys.
    105 KEY_COUNTS_BY_DEVICE Hot: (ShortUserId, NameHash) => Stamped<KeyCountsRow>;
    /// Messages that wait for a device, as JSON. Users write it.
    106 MESSAGE_BY_DEVICE Log: (ShortUserId, NameHash, Position) => String;
    /// Members of a room whose device lists changed, in order; each stands there once. Rooms write it.
    107 DEVICE_CHANGE_BY_ROOM Log: (ShortRoomId, Position) => DeviceChangeRow;
    /// Where in a room a user's latest change stands. Rooms write it.
    108 DEVICE_CHANGE_BY_USER Range: (ShortUserId, ShortRoomId) => Stamped<()>;
    /// The versions of a user's key backup. Users write it.
    109 BACKUP_BY_USER Range: (ShortUserId, u64) => BackupRow;
    /// The keys in a version of a user's backup (version, room, session). Users write it.
    110 BACKUP_KEY_BY_VERSION Range: (ShortUserId, u64, NameHash, NameHash) => BackupKeyRow;
    /// Which one-time keys of a device were given out lately, so that none is taken in again. Users write it.
    111 GIVEN_KEYS_BY_DEVICE Hot: (ShortUserId, NameHash) => GivenKeysRow;
    /// Rooms of which not all members are known yet (MSC3902). Rooms write it.
    200 PARTIAL_ROOM Range: ShortRoomId => ();
    /// People elsewhere (user) whose devices changed while they may have been in such a room. Rooms write it.
    201 LATE_DEVICE_CHANGE_BY_ROOM Range: (ShortRoomId, NameHash) => DeviceChangeRow;
}

/// The identity keys of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceKeysRow {
    /// The device's id.
    pub device_id: String,
    /// The keys as their device signed them, with the signatures that its user added, as JSON.
    pub json: String,
}

/// What a cross-signing key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyUse {
    /// Stands for the user.
    Master = 0,
    /// Signs the user's devices.
    SelfSigning = 1,
    /// Signs others' master keys.
    UserSigning = 2,
}

/// A cross-signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrossSigningKeyRow {
    /// The public key, in unpadded Base64: the part of its id behind `ed25519:`.
    pub public_key: String,
    /// The key with its signatures, as JSON.
    pub json: String,
}

/// A user's signatures of another's master key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignaturesRow {
    /// Whose master key.
    pub user_id: String,
    /// Which: another one by now is not signed.
    pub public_key: String,
    /// By the id of the key that signed.
    pub signatures: BTreeMap<String, String>,
}

/// A one-time key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneTimeKeyRow {
    /// Its id: algorithm, colon, name.
    pub key_id: String,
    /// The key, as JSON.
    pub json: String,
}

/// The one-time keys of a device that were given out last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenKeysRow {
    /// Hashes of their ids and public parts, oldest first.
    pub keys: VecDeque<NameHash>,
}

/// A fallback key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FallbackKeyRow {
    /// The key.
    pub key: OneTimeKeyRow,
    /// Whether it was given out.
    pub used: bool,
}

/// What a device is told of its one-time and fallback keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCountsRow {
    /// One-time keys that are left, by algorithm.
    pub one_time: BTreeMap<String, u32>,
    /// Algorithms whose fallback key was not given out.
    pub unused_fallback: BTreeSet<String>,
}

/// A user whose devices or keys changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceChangeRow {
    /// Who.
    pub user_id: String,
}

/// A version of a key backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRow {
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What belongs to the algorithm, as JSON.
    pub auth_data: String,
    /// How many keys it holds.
    pub count: u64,
    /// Raised with every change of its keys.
    pub etag: u64,
    /// It is gone; only its number stays, so that it is not given out again.
    pub deleted: bool,
}

/// A key in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupKeyRow {
    /// The room in which it is used.
    pub room_id: String,
    /// The session that it is the key of.
    pub session_id: String,
    /// The key can decrypt messages from this one on.
    pub first_message_index: u64,
    /// How often it was passed on from device to device.
    pub forwarded_count: u64,
    /// Whether the device that backed it up had verified the one it came from.
    pub is_verified: bool,
    /// All of it, as JSON.
    pub json: String,
}

records!(
    DeviceKeysRow,
    CrossSigningKeyRow,
    SignaturesRow,
    OneTimeKeyRow,
    GivenKeysRow,
    FallbackKeyRow,
    KeyCountsRow,
    DeviceChangeRow,
    BackupRow,
    BackupKeyRow,
);
