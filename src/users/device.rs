//! A user's devices.

use error::Result;
use ruma::{DeviceId, OwnedDeviceId};
use storage::{
    Batch, Found, NameHash, Range, Reads, ShortUserId, Snapshot,
    schema::{
        ACCOUNT_DATA_BY_USER, DEVICE_BY_TOKEN, DEVICE_BY_USER, DeviceRow, PUSHER_BY_USER,
        REFRESH_BY_TOKEN, SEEN_BY_DEVICE, SeenRow, TOKEN_BY_DEVICE, TokenKind, UserChange,
    },
};

use crate::{
    Requester, Users, account_data::settings_keys, change, job, keys::OfDevice, pusher,
    token::TokenHash,
};

/// How many devices are removed in one batch.
const DEVICES_A_BATCH: usize = 50;

/// The longest display name of a device, in bytes.
const MAX_DISPLAY_NAME: usize = 1024;

/// A device of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its id.
    pub device_id: OwnedDeviceId,
    /// What its user calls it.
    pub display_name: Option<String>,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
    /// When it was last seen, in milliseconds since 1970; some minutes old.
    pub last_seen_ts: Option<u64>,
    /// From which address it was last seen.
    pub last_seen_ip: Option<String>,
    /// With which `User-Agent` it was last seen.
    pub last_seen_user_agent: Option<String>,
}

impl Device {
    fn new(row: DeviceRow, seen: Option<SeenRow>) -> Self {
        let (ts, ip, user_agent) = match seen {
            Some(seen) => (Some(seen.ts), seen.ip, seen.user_agent),
            None => (None, None, None),
        };
        Self {
            device_id: row.device_id.into(),
            display_name: row.display_name,
            created_ts: row.created_ts,
            last_seen_ts: ts,
            last_seen_ip: ip,
            last_seen_user_agent: user_agent,
        }
    }
}

impl Users {
    /// All devices of a user, in the order in which they were made.
    pub async fn devices(&self, user: ShortUserId) -> Result<Vec<Device>> {
        let mut reads = Reads::new();
        let devices = reads.range(&DEVICE_BY_USER, &Range::prefix(&(user,)));
        let seen = reads.range(&SEEN_BY_DEVICE, &Range::prefix(&(user,)));
        let answers = self.snapshot().await?.read(&reads).await?;
        let mut seen = answers.rows(&seen)?.into_iter().peekable();
        let mut devices: Vec<Device> = answers
            .rows(&devices)?
            .into_iter()
            .map(|(key, device)| {
                // Both ranges are in the order of the same keys.
                while seen.next_if(|(other, _)| *other < key).is_some() {}
                let seen = seen.next_if(|(other, _)| *other == key);
                Device::new(device.value, seen.map(|(_, seen)| seen.value))
            })
            .collect();
        devices.sort_by(|a, b| (a.created_ts, &a.device_id).cmp(&(b.created_ts, &b.device_id)));
        Ok(devices)
    }

    /// One device of a user.
    pub async fn find_device(
        &self,
        user: ShortUserId,
        device_id: &DeviceId,
    ) -> Result<Option<Device>> {
        let key = (user, self.0.storage.device_hash(device_id));
        let mut reads = Reads::new();
        let device = reads.get(&DEVICE_BY_USER, &key);
        let seen = reads.get(&SEEN_BY_DEVICE, &key);
        let answers = self.snapshot().await?.read(&reads).await?;
        let seen = answers.one(&seen)?.map(|seen| seen.value);
        let device = answers.one(&device)?;
        Ok(device.map(|device| Device::new(device.value, seen)))
    }

    /// Names a device; `None` leaves its name as it is.
    ///
    /// # Errors
    ///
    /// 404 if the user has no such device, 413 for an endless name.
    pub async fn rename_device(
        &self,
        user: ShortUserId,
        device_id: &DeviceId,
        display_name: Option<&str>,
    ) -> Result<()> {
        check_display_name(display_name)?;
        let key = (user, self.0.storage.device_hash(device_id));
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let found = snapshot.multi_get(&DEVICE_BY_USER, &[key]).await?;
            let Some(found) = found.into_iter().flatten().next() else {
                return Err(error::not_found("You have no such device"));
            };
            let mut row = found.value.clone();
            if let Some(display_name) = display_name {
                row.display_name = Some(display_name.to_owned());
            }
            if row == found.value {
                return Ok(());
            }
            let mut batch = Batch::new();
            batch.expect_equals(&DEVICE_BY_USER, &key, &found.raw);
            batch.put(&DEVICE_BY_USER, &key, &row);
            self.tell_device_list(&mut batch, user, []);
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Makes a device that has no token, for an application service; where it is there already, names it as
    /// [`Users::rename_device`] does. Whether it was made ([spec]).
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for an id that no device can have, 403 if the user has too many, 413 for an endless
    /// name.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#device-management
    pub async fn put_device(
        &self,
        user: ShortUserId,
        device_id: &DeviceId,
        display_name: Option<&str>,
    ) -> Result<bool> {
        check_display_name(display_name)?;
        check_device_id(device_id)?;
        let key = (user, self.0.storage.device_hash(device_id));
        let most = self.0.settings.limits.max_devices_of_user as usize;
        let row = DeviceRow {
            device_id: device_id.to_string(),
            display_name: display_name.map(str::to_owned),
            created_ts: self.now(),
            logins: 0,
        };
        let mut writer = self.writer(user).await;
        loop {
            let mut reads = Reads::new();
            let found = reads.get(&DEVICE_BY_USER, &key);
            let all = reads.range(&DEVICE_BY_USER, &Range::prefix(&(user,)).limit(most));
            let answers = writer.snapshot().await?.read(&reads).await?;
            if answers.one(&found)?.is_some() {
                break;
            }
            if answers.rows(&all)?.len() >= most {
                return Err(self.too_many(format!(
                    "The user has {most} devices, as many as this server allows"
                )));
            }
            let mut batch = Batch::new();
            batch.expect_absent(&DEVICE_BY_USER, &key);
            batch.put(&DEVICE_BY_USER, &key, &row);
            self.tell_device_list(&mut batch, user, []);
            if writer.commit(batch).await?.is_some() {
                return Ok(true);
            }
        }
        drop(writer);
        self.rename_device(user, device_id, display_name).await?;
        Ok(false)
    }

    /// Ends the session of a requester: their device, its tokens, its keys and what waits for it.
    ///
    /// # Errors
    ///
    /// 400 `M_MISSING_PARAM` if an application service names no device.
    pub async fn logout(&self, requester: &Requester) -> Result<()> {
        let (_, device) = requester.own_device()?;
        self.remove_devices(requester.user, &[device]).await
    }

    /// Ends all sessions of a requester.
    pub async fn logout_all(&self, requester: &Requester) -> Result<()> {
        self.remove_all_devices(requester.user, None).await
    }

    /// Removes devices of a user; those that are not there are no error.
    pub async fn delete_devices(&self, user: ShortUserId, devices: &[&DeviceId]) -> Result<()> {
        let hashes: Vec<NameHash> = devices
            .iter()
            .map(|id| self.0.storage.device_hash(*id))
            .collect();
        self.remove_devices(user, &hashes).await
    }

    /// Removes all devices of a user, except one.
    pub(crate) async fn remove_all_devices(
        &self,
        user: ShortUserId,
        except: Option<NameHash>,
    ) -> Result<()> {
        let range = Range::prefix(&(user,));
        let rows = self
            .snapshot()
            .await?
            .multi_range(&DEVICE_BY_USER, &[range])
            .await?;
        let devices: Vec<NameHash> = rows
            .into_iter()
            .flatten()
            .map(|((_, device), _)| device)
            .filter(|device| Some(*device) != except)
            .collect();
        self.remove_devices(user, &devices).await
    }

    async fn remove_devices(&self, user: ShortUserId, devices: &[NameHash]) -> Result<()> {
        for devices in devices.chunks(DEVICES_A_BATCH) {
            let mut writer = self.writer(user).await;
            let tokens = loop {
                let snapshot = writer.snapshot().await?;
                let mut batch = Batch::new();
                let tokens = self
                    .remove_devices_in(&snapshot, &mut batch, user, devices)
                    .await?;
                if batch.is_empty() || writer.commit(batch).await?.is_some() {
                    break tokens;
                }
            };
            self.forget_requesters(&tokens);
        }
        Ok(())
    }

    /// Puts the end of devices, and of everything that is theirs, into a batch. Returns their tokens.
    async fn remove_devices_in(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        user: ShortUserId,
        devices: &[NameHash],
    ) -> Result<Vec<TokenHash>> {
        let mut reads = Reads::new();
        let keys: Vec<_> = devices.iter().map(|device| (user, *device)).collect();
        let rows = reads.get_all(&DEVICE_BY_USER, &keys);
        let tokens: Vec<_> = keys
            .iter()
            .map(|key| reads.range(&TOKEN_BY_DEVICE, &Range::prefix(key)))
            .collect();
        let pushers = reads.range(&PUSHER_BY_USER, &Range::prefix(&(user,)));
        let theirs: Vec<_> = keys
            .iter()
            .map(|key| OfDevice::ask(&mut reads, *key))
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut ended = Vec::new();
        let mut settings = Vec::new();
        for ((_, hash), pusher) in answers.rows(&pushers)? {
            let device = self.0.storage.device_hash(pusher.value.device_id.as_str());
            if devices.contains(&device) {
                pusher::remove(batch, user, hash);
            }
        }
        let rows = keys.iter().zip(answers.all(&rows)?);
        for (((key, row), tokens), theirs) in rows.zip(&tokens).zip(&theirs) {
            end_tokens(batch, answers.rows(tokens)?, &mut ended);
            let Some(row) = row else { continue };
            theirs.remove(batch, &answers)?;
            batch.expect_equals(&DEVICE_BY_USER, key, &row.raw);
            batch.delete(&DEVICE_BY_USER, key);
            batch.delete(&SEEN_BY_DEVICE, key);
            settings.extend(settings_keys(&self.0.storage, user, &row.value.device_id));
        }
        let mut changes = Vec::new();
        let found = snapshot.multi_get(&ACCOUNT_DATA_BY_USER, &settings).await?;
        for (key, _) in settings.iter().zip(found).filter(|(_, row)| row.is_some()) {
            batch.delete(&ACCOUNT_DATA_BY_USER, key);
            changes.push(UserChange::AccountData(key.1, key.2));
        }
        if !batch.is_empty() {
            self.tell_device_list(batch, user, changes);
        }
        Ok(ended)
    }

    /// Tells a user's devices, and by a job everybody else who must know, that the list of their
    /// devices changed; and their own devices of `changes` besides.
    pub(crate) fn tell_device_list(
        &self,
        batch: &mut Batch,
        user: ShortUserId,
        changes: impl IntoIterator<Item = UserChange>,
    ) {
        let changes = changes.into_iter().chain([UserChange::DeviceList]);
        change::tell(batch, user, changes);
        job::leave(batch, self, job::DEVICE_LIST, user);
    }
}

/// Puts the end of tokens into a batch, and their hashes into `ended`.
pub(crate) fn end_tokens(
    batch: &mut Batch,
    tokens: Vec<((ShortUserId, NameHash, TokenHash), Found<TokenKind>)>,
    ended: &mut Vec<TokenHash>,
) {
    for (key, kind) in tokens {
        match kind.value {
            TokenKind::Access => batch.delete(&DEVICE_BY_TOKEN, &key.2),
            TokenKind::Refresh => batch.delete(&REFRESH_BY_TOKEN, &key.2),
        }
        batch.delete(&TOKEN_BY_DEVICE, &key);
        ended.push(key.2);
    }
}

/// The longest device id, in bytes.
const MAX_DEVICE_ID: usize = 255;

pub(crate) fn check_device_id(device_id: &DeviceId) -> Result<()> {
    if (1..=MAX_DEVICE_ID).contains(&device_id.as_str().len()) {
        return Ok(());
    }
    Err(error::invalid_param(format!(
        "A device id has 1 to {MAX_DEVICE_ID} bytes"
    )))
}

pub(crate) fn check_display_name(display_name: Option<&str>) -> Result<()> {
    if display_name.is_some_and(|name| name.len() > MAX_DISPLAY_NAME) {
        return Err(error::too_large(format!(
            "The name of a device has at most {MAX_DISPLAY_NAME} bytes"
        )));
    }
    Ok(())
}
