//! Backups of the keys of encrypted rooms, on the server and encrypted themselves ([spec]).
//!
//! A user has versions of it, of which the latest is in force. A version's number is never given out again:
//! its row stays when it is deleted. Every change of a version's keys changes its row too, by which two at
//! once are told apart.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups

use std::collections::BTreeMap;

use error::Result;
use ruma::{OwnedRoomId, RoomId};
use serde_json::value::RawValue;
use storage::{
    Batch, Found, NameHash, Range, Reads, ShortUserId, Snapshot,
    schema::{BACKUP_BY_USER, BACKUP_KEY_BY_VERSION, BackupKeyRow, BackupRow},
};

use crate::Users;

/// The longest `auth_data` and key, in bytes of JSON, and the longest name of an algorithm or a session.
const MAX_AUTH_DATA: usize = 64 * 1024;
const MAX_KEY: usize = 64 * 1024;
const MAX_NAME: usize = 255;
/// How many keys are written or removed in one batch.
const KEYS_A_BATCH: usize = 200;
/// How many keys are read at once.
const KEYS_A_PAGE: usize = 1_000;

/// A version of a backup.
#[derive(Clone, Debug)]
pub struct Backup {
    /// Its number, as clients write it.
    pub version: String,
    /// How its keys are encrypted.
    pub algorithm: String,
    /// What belongs to the algorithm.
    pub auth_data: Box<RawValue>,
    /// What changes with its keys.
    pub state: BackupState,
}

/// What of a backup changes with its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupState {
    /// How many keys it holds.
    pub count: u64,
    /// Another text after every change.
    pub etag: String,
}

/// A key to be backed up.
#[derive(Clone, Debug)]
pub struct BackupKey {
    /// It can decrypt messages from this one on.
    pub first_message_index: u64,
    /// How often it was passed on from device to device.
    pub forwarded_count: u64,
    /// Whether the device that backs it up had verified the one it came from.
    pub is_verified: bool,
    /// All of it.
    pub json: Box<RawValue>,
}

/// Which keys of a backup.
#[derive(Clone, Copy, Debug)]
pub enum BackupScope<'a> {
    /// All.
    All,
    /// Those of a room.
    Room(&'a RoomId),
    /// That of a session.
    Session(&'a RoomId, &'a str),
}

/// Keys, by room and session.
pub type BackupKeys = BTreeMap<OwnedRoomId, BTreeMap<String, BackupKey>>;

/// Backed-up keys as they were sent, by room and session.
type StoredKeys = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

impl Users {
    /// Begins a new version; its number.
    ///
    /// # Errors
    ///
    /// 413 for an endless name of an algorithm, or `auth_data`.
    pub async fn create_backup(
        &self,
        user: ShortUserId,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<String> {
        check_size(algorithm, auth_data)?;
        let row = BackupRow {
            algorithm: algorithm.to_owned(),
            auth_data: auth_data.get().to_owned(),
            count: 0,
            etag: 0,
            deleted: false,
        };
        let mut writer = self.writer(user).await;
        loop {
            let latest = latest(&writer.snapshot().await?, user, true).await?;
            let version = latest.map_or(1, |(version, _)| version.saturating_add(1));
            let mut batch = Batch::new();
            batch.expect_absent(&BACKUP_BY_USER, &(user, version));
            batch.put(&BACKUP_BY_USER, &(user, version), &row);
            if writer.commit(batch).await?.is_some() {
                return Ok(version.to_string());
            }
        }
    }

    /// A version, or the latest one (`None`).
    ///
    /// # Errors
    ///
    /// 404 if there is none.
    pub async fn backup(&self, user: ShortUserId, version: Option<&str>) -> Result<Backup> {
        let snapshot = self.snapshot().await?;
        let (version, found) = match version {
            None => latest(&snapshot, user, false)
                .await?
                .ok_or_else(no_backup)?,
            Some(version) => {
                let number = number(version)?;
                (number, at(&snapshot, user, number).await?)
            }
        };
        let row = found.value;
        Ok(Backup {
            version: version.to_string(),
            algorithm: row.algorithm.clone(),
            state: BackupState::of(&row),
            auth_data: RawValue::from_string(row.auth_data).map_err(error::internal)?,
        })
    }

    /// Changes what belongs to a version's algorithm.
    ///
    /// # Errors
    ///
    /// 404 if there is no such version, 400 `M_INVALID_PARAM` for another algorithm, 413 for endless data.
    pub async fn update_backup(
        &self,
        user: ShortUserId,
        version: &str,
        algorithm: &str,
        auth_data: &RawValue,
    ) -> Result<()> {
        check_size(algorithm, auth_data)?;
        let version = number(version)?;
        let mut writer = self.writer(user).await;
        loop {
            let found = at(&writer.snapshot().await?, user, version).await?;
            if found.value.algorithm != algorithm {
                return Err(error::invalid_param(
                    "The algorithm of a backup cannot be changed",
                ));
            }
            let row = BackupRow {
                auth_data: auth_data.get().to_owned(),
                ..found.value.clone()
            };
            if row == found.value {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.expect_equals(&BACKUP_BY_USER, &(user, version), &found.raw);
            batch.put(&BACKUP_BY_USER, &(user, version), &row);
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Deletes a version with all its keys.
    ///
    /// # Errors
    ///
    /// 404 if there never was such a version.
    pub async fn delete_backup(&self, user: ShortUserId, version: &str) -> Result<()> {
        let version = number(version)?;
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let found = row(&snapshot, user, version).await?.ok_or_else(no_backup)?;
            if found.value.deleted {
                return Ok(());
            }
            let gone = BackupRow {
                auth_data: String::new(),
                count: 0,
                etag: found.value.etag,
                deleted: true,
                algorithm: found.value.algorithm,
            };
            let mut batch = Batch::new();
            batch.expect_equals(&BACKUP_BY_USER, &(user, version), &found.raw);
            batch.put(&BACKUP_BY_USER, &(user, version), &gone);
            batch.delete_prefix(&BACKUP_KEY_BY_VERSION, &(user, version));
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Takes all versions of a user's backup away, with what they hold.
    pub(crate) async fn erase_backups(&self, user: ShortUserId) -> Result<()> {
        let snapshot = self.snapshot().await?;
        let versions = Range::prefix(&(user,));
        let rows = snapshot.multi_range(&BACKUP_BY_USER, &[versions]).await?;
        for ((_, version), _) in rows.into_iter().flatten() {
            self.delete_backup(user, &version.to_string()).await?;
        }
        Ok(())
    }

    /// Backs up keys into the latest version. Where there is a key of the session already, the better one
    /// stays.
    ///
    /// # Errors
    ///
    /// 403 `M_WRONG_ROOM_KEYS_VERSION` if another version is the latest, 404 if there is none, 413 for
    /// endless keys.
    pub async fn put_backup_keys(
        &self,
        user: ShortUserId,
        version: &str,
        keys: &BackupKeys,
    ) -> Result<BackupState> {
        let mut new = Vec::new();
        for (room_id, sessions) in keys {
            for (session_id, key) in sessions {
                if key.json.get().len() > MAX_KEY || session_id.len() > MAX_NAME {
                    return Err(error::too_large(format!(
                        "A key in a backup has at most {MAX_KEY} bytes, its session's id {MAX_NAME}"
                    )));
                }
                let row = BackupKeyRow {
                    room_id: room_id.to_string(),
                    session_id: session_id.clone(),
                    first_message_index: key.first_message_index,
                    forwarded_count: key.forwarded_count,
                    is_verified: key.is_verified,
                    json: key.json.get().to_owned(),
                };
                new.push((self.key_place(room_id, session_id), row));
            }
        }
        let mut state = self.current_state(user, version).await?;
        for some in new.chunks(KEYS_A_BATCH) {
            state = self.put_some(user, version, some).await?;
        }
        Ok(state)
    }

    /// Where a key lies in its version.
    fn key_place(&self, room_id: &RoomId, session_id: &str) -> (NameHash, NameHash) {
        (
            self.0.storage.room_hash(room_id),
            self.0.storage.session_hash(session_id),
        )
    }

    async fn current_state(&self, user: ShortUserId, version: &str) -> Result<BackupState> {
        let snapshot = self.snapshot().await?;
        let (_, found) = current(&snapshot, user, version).await?;
        Ok(BackupState::of(&found.value))
    }

    async fn put_some(
        &self,
        user: ShortUserId,
        version: &str,
        new: &[((NameHash, NameHash), BackupKeyRow)],
    ) -> Result<BackupState> {
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let (version, found) = current(&snapshot, user, version).await?;
            let places: Vec<_> = new
                .iter()
                .map(|((room, session), _)| (user, version, *room, *session))
                .collect();
            let old = snapshot.multi_get(&BACKUP_KEY_BY_VERSION, &places).await?;
            let mut row = found.value.clone();
            let mut batch = Batch::new();
            for ((place, old), (_, new)) in places.iter().zip(old).zip(new) {
                match old {
                    Some(old) if !is_better(new, &old.value) => continue,
                    Some(_) => {}
                    None => row.count += 1,
                }
                batch.put(&BACKUP_KEY_BY_VERSION, place, new);
            }
            if batch.is_empty() {
                return Ok(BackupState::of(&row));
            }
            row.etag += 1;
            batch.expect_equals(&BACKUP_BY_USER, &(user, version), &found.raw);
            batch.put(&BACKUP_BY_USER, &(user, version), &row);
            if writer.commit(batch).await?.is_some() {
                return Ok(BackupState::of(&row));
            }
        }
    }

    /// Keys of a version.
    ///
    /// # Errors
    ///
    /// 404 if there is no such version.
    pub async fn backup_keys(
        &self,
        user: ShortUserId,
        version: &str,
        scope: BackupScope<'_>,
    ) -> Result<StoredKeys> {
        let version = number(version)?;
        let snapshot = self.snapshot().await?;
        at(&snapshot, user, version).await?;
        let mut keys = StoredKeys::new();
        let mut from = None;
        loop {
            let page = self.page(&snapshot, (user, version), scope, from).await?;
            let whole = page.len() < KEYS_A_PAGE;
            from = page.last().map(|(place, _)| *place);
            for (_, found) in page {
                let row = found.value;
                let room_id = RoomId::parse(row.room_id).map_err(error::internal)?;
                let json = RawValue::from_string(row.json).map_err(error::internal)?;
                keys.entry(room_id)
                    .or_default()
                    .insert(row.session_id, json);
            }
            if whole {
                return Ok(keys);
            }
        }
    }

    /// Some of the keys of a version, after a place.
    async fn page(
        &self,
        snapshot: &Snapshot,
        (user, version): (ShortUserId, u64),
        scope: BackupScope<'_>,
        from: Option<KeyPlace>,
    ) -> Result<Vec<(KeyPlace, Found<BackupKeyRow>)>> {
        let mut range = match scope {
            BackupScope::All => Range::prefix(&(user, version)),
            BackupScope::Room(room_id) => {
                let room = self.0.storage.room_hash(room_id);
                Range::prefix(&(user, version, room))
            }
            BackupScope::Session(room_id, session_id) => {
                let (room, session) = self.key_place(room_id, session_id);
                let place = (user, version, room, session);
                Range::prefix(&(user, version, room))
                    .from(&place)
                    .up_to(&place)
            }
        };
        if let Some(from) = &from {
            range = range.after(from);
        }
        let range = range.limit(KEYS_A_PAGE);
        let rows = snapshot
            .multi_range(&BACKUP_KEY_BY_VERSION, &[range])
            .await?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// Removes keys of the latest version.
    ///
    /// # Errors
    ///
    /// 404 if there is no such version, 403 `M_WRONG_ROOM_KEYS_VERSION` if another one is the latest.
    pub async fn delete_backup_keys(
        &self,
        user: ShortUserId,
        version: &str,
        scope: BackupScope<'_>,
    ) -> Result<BackupState> {
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let (number, found) = current(&snapshot, user, version).await?;
            let page = self.page(&snapshot, (user, number), scope, None).await?;
            let some = page.get(..KEYS_A_BATCH).unwrap_or(&page);
            let mut row = found.value;
            if some.is_empty() {
                return Ok(BackupState::of(&row));
            }
            let mut batch = Batch::new();
            for (place, _) in some {
                batch.delete(&BACKUP_KEY_BY_VERSION, place);
            }
            row.count = row.count.saturating_sub(some.len() as u64);
            row.etag += 1;
            batch.expect_equals(&BACKUP_BY_USER, &(user, number), &found.raw);
            batch.put(&BACKUP_BY_USER, &(user, number), &row);
            writer.commit(batch).await?;
        }
    }
}

/// The key of a backed-up key.
type KeyPlace = (ShortUserId, u64, NameHash, NameHash);

impl BackupState {
    fn of(row: &BackupRow) -> Self {
        Self {
            count: row.count,
            etag: row.etag.to_string(),
        }
    }
}

/// The rules by which a key replaces the one of the same session ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid
fn is_better(new: &BackupKeyRow, old: &BackupKeyRow) -> bool {
    let rank = |key: &BackupKeyRow| {
        (
            !key.is_verified,
            key.first_message_index,
            key.forwarded_count,
        )
    };
    rank(new) < rank(old)
}

/// The latest version that is not deleted, or the latest there ever was.
async fn latest(
    snapshot: &Snapshot,
    user: ShortUserId,
    even_deleted: bool,
) -> Result<Option<(u64, Found<BackupRow>)>> {
    let range = Range::prefix(&(user,)).reverse();
    let rows = snapshot.multi_range(&BACKUP_BY_USER, &[range]).await?;
    Ok(rows
        .into_iter()
        .flatten()
        .map(|((_, version), row)| (version, row))
        .find(|(_, row)| even_deleted || !row.value.deleted))
}

/// The latest version, if it is this one.
async fn current(
    snapshot: &Snapshot,
    user: ShortUserId,
    version: &str,
) -> Result<(u64, Found<BackupRow>)> {
    let (number, found) = latest(snapshot, user, false).await?.ok_or_else(no_backup)?;
    if number.to_string() == version {
        return Ok((number, found));
    }
    Err(error::wrong_room_keys_version(
        number.to_string(),
        "Another version of the backup is in force",
    ))
}

/// A version that is not deleted.
async fn at(snapshot: &Snapshot, user: ShortUserId, version: u64) -> Result<Found<BackupRow>> {
    let found = row(snapshot, user, version).await?;
    found.filter(|row| !row.value.deleted).ok_or_else(no_backup)
}

async fn row(
    snapshot: &Snapshot,
    user: ShortUserId,
    version: u64,
) -> Result<Option<Found<BackupRow>>> {
    let mut reads = Reads::new();
    let row = reads.get(&BACKUP_BY_USER, &(user, version));
    Ok(snapshot.read(&reads).await?.one(&row)?)
}

fn number(version: &str) -> Result<u64> {
    version.parse().map_err(|_| no_backup())
}

fn no_backup() -> error::Error {
    error::not_found("You have no such backup")
}

fn check_size(algorithm: &str, auth_data: &RawValue) -> Result<()> {
    if algorithm.len() > MAX_NAME || auth_data.get().len() > MAX_AUTH_DATA {
        return Err(error::too_large(format!(
            "The algorithm of a backup has at most {MAX_NAME} bytes, its data {MAX_AUTH_DATA}"
        )));
    }
    Ok(())
}
