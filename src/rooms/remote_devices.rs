//! The devices of people of other servers, as far as these told us ([spec]).
//!
//! What was asked for once is kept, and kept true by the updates that come for as long as a room is shared.
//! It is trusted only while that is so without a break since it was asked for, and no update was missed:
//! anybody else's devices are asked for anew.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#device-management

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde_json::value::RawValue;
use storage::{
    Batch, CommitError, NameHash, Position, Range, Reads, ShortRoomId, Snapshot, Stamped, Topic,
    schema::{self, DeviceChangeRow, Membership, RemoteDevice, RemoteDevicesRow, RemoteRoomRow},
};
use users::{foreign_device_keys, foreign_master_key, foreign_self_signing_key};

use crate::Rooms;

/// How often a change is tried before it is given up.
const TRIES_MAX: usize = 20;
/// So many rooms of one person are looked at.
const ROOMS_MAX: usize = 500;
/// So many updates are remembered by which later ones may say what they follow.
const SEEN_MAX: usize = 50;
/// So many devices of one person are kept, and so much of their keys, in bytes: who has more is asked about
/// each time.
const DEVICES_MAX: usize = 1_000;
const BYTES_MAX: usize = 400_000;
/// The longest id and name of a device that are kept, in bytes.
const NAME_MAX: usize = 1_024;

/// A change of a device of somebody elsewhere: `m.device_list_update`.
#[derive(Clone, Debug)]
pub struct DeviceUpdate {
    /// Whose.
    pub user_id: OwnedUserId,
    /// Which device.
    pub device_id: OwnedDeviceId,
    /// What its user calls it.
    pub display_name: Option<String>,
    /// The number of the change.
    pub stream_id: u64,
    /// The changes that it follows.
    pub prev_ids: Vec<u64>,
    /// It is gone.
    pub deleted: bool,
    /// Its identity keys, if it has published any.
    pub keys: Option<Box<RawValue>>,
}

/// What is known of the devices of somebody elsewhere.
#[derive(Clone, Debug)]
pub struct KnownDevices {
    /// Whether somebody of ours shares a room with them.
    pub shared: bool,
    /// Their devices, if that can be relied on.
    pub trusted: Option<RemoteDevicesRow>,
    /// Their row as it was read.
    raw: Option<Bytes>,
}

/// What came of a word about somebody's devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DevicesChange {
    /// It changes nothing here.
    Nothing,
    /// It is kept, and who shares a room was told.
    Kept,
    /// Something was missed: the devices have to be asked for anew. Who shares a room was told.
    Missed,
}

/// A room that somebody elsewhere shares with somebody of ours.
#[derive(Clone, Copy, Debug)]
struct Shared {
    room: ShortRoomId,
    /// Since when, without a break.
    since: Position,
    row: Stamped<RemoteRoomRow>,
}

/// What is stored of somebody.
struct Stored {
    user: NameHash,
    row: Option<Stamped<RemoteDevicesRow>>,
    raw: Option<Bytes>,
    shared: Vec<Shared>,
}

impl Stored {
    /// Their devices, if that can be relied on.
    fn trusted(&self) -> Option<&RemoteDevicesRow> {
        let row = self.row.as_ref().filter(|row| !row.value.stale)?;
        let lasting = self.shared.iter().any(|shared| shared.since < row.position);
        lasting.then_some(&row.value)
    }
}

impl Rooms {
    /// What is known of the devices of some people of other servers, in their order; three round trips.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn known_devices(
        &self,
        snapshot: &Snapshot,
        users: &[OwnedUserId],
    ) -> error::Result<Vec<KnownDevices>> {
        let stored = self.stored_devices(snapshot, users).await?;
        let known = stored.into_iter().map(|stored| KnownDevices {
            shared: !stored.shared.is_empty(),
            trusted: stored.trusted().cloned(),
            raw: stored.raw,
        });
        Ok(known.collect())
    }

    /// Notes that somebody's devices are about to be asked for, so that an update that comes meanwhile is not
    /// taken for one of no concern.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn will_ask_devices(&self, users: &[OwnedUserId]) -> error::Result<()> {
        for some in users.chunks(ROOMS_MAX) {
            let snapshot = self.snapshot().await?;
            let keys: Vec<_> = some
                .iter()
                .map(|user| self.storage().user_hash(user))
                .collect();
            let rows = snapshot
                .multi_get(&schema::DEVICES_BY_REMOTE_USER, &keys)
                .await?;
            let mut batch = Batch::new();
            for ((user, key), row) in some.iter().zip(&keys).zip(rows) {
                if row.is_none() {
                    let row = RemoteDevicesRow {
                        user_id: user.to_string(),
                        stale: true,
                        ..RemoteDevicesRow::default()
                    };
                    batch.expect_absent(&schema::DEVICES_BY_REMOTE_USER, key);
                    batch.put_stamped(&schema::DEVICES_BY_REMOTE_USER, key, 0, row);
                }
            }
            if batch.is_empty() {
                continue;
            }
            match self.storage().commit(batch).await {
                // Somebody else was there first.
                Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    /// Keeps what another server said of somebody's devices, unless something changed since `known` was read,
    /// before it was asked: then whoever wants to know asks again. Who shares a room was told when it was missed.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn keep_devices(
        &self,
        user: &UserId,
        known: &KnownDevices,
        devices: RemoteDevicesRow,
    ) -> error::Result<()> {
        if !known.shared || !fits(&devices) {
            return Ok(());
        }
        let key = self.storage().user_hash(user);
        let mut batch = Batch::new();
        batch.expect_unchanged(&schema::DEVICES_BY_REMOTE_USER, &key, known.raw.as_ref());
        batch.put_stamped(&schema::DEVICES_BY_REMOTE_USER, &key, 0, devices);
        match self.storage().commit(batch).await {
            // An update came in between, and says more.
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {
                Ok(())
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Takes in a change of a device, and tells who shares a room.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn receive_device_update(
        &self,
        update: &DeviceUpdate,
    ) -> error::Result<DevicesChange> {
        self.change_devices(&update.user_id, |row, trusted| {
            if row.is_none() && update.keys.is_none() && !update.deleted {
                // Nobody has asked for their keys, and there are none.
                return None;
            }
            let mut row = row.cloned().unwrap_or_default();
            let known = |id: &u64| row.stream_id == Some(*id) || row.seen.contains(id);
            if trusted && known(&update.stream_id) {
                return None;
            }
            let follows = !update.prev_ids.is_empty() && update.prev_ids.iter().all(known);
            row.stale = !trusted || !follows || !apply(&mut row, update) || !fits(&row);
            Some(row)
        })
        .await
    }

    /// Takes in new cross-signing keys of somebody, and tells who shares a room.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn receive_signing_keys(
        &self,
        user: &UserId,
        master: Option<&RawValue>,
        self_signing: Option<&RawValue>,
    ) -> error::Result<DevicesChange> {
        self.change_devices(user, |row, trusted| {
            let old = row.cloned().unwrap_or_default();
            let mut row = old.clone();
            if let Some(master) = master {
                row.master = Some(foreign_master_key(user, master)?);
            }
            if let Some(key) = self_signing {
                let by = row.master.clone()?;
                row.self_signing = Some(foreign_self_signing_key(user, &by, key)?);
            }
            if row == old && trusted {
                return None;
            }
            row.stale = !trusted || !fits(&row);
            Some(row)
        })
        .await
    }

    /// Changes what is kept of somebody with whom a room is shared: `change` is given that, and whether it can
    /// be relied on.
    async fn change_devices(
        &self,
        user: &UserId,
        change: impl Fn(Option<&RemoteDevicesRow>, bool) -> Option<RemoteDevicesRow>,
    ) -> error::Result<DevicesChange> {
        let users = [user.to_owned()];
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let stored = self.stored_devices(&snapshot, &users).await?.pop();
            let Some(stored) = stored.filter(|stored| !stored.shared.is_empty()) else {
                self.remember_late_change(user).await?;
                return Ok(DevicesChange::Nothing);
            };
            let row = stored.row.as_ref().map(|row| &row.value);
            let Some(mut new) = change(row, stored.trusted().is_some()) else {
                return Ok(DevicesChange::Nothing);
            };
            new.user_id = user.to_string();
            let asked_before = row.is_some();
            if new.stale {
                // All of it is asked for anew.
                new = RemoteDevicesRow {
                    user_id: new.user_id,
                    stale: true,
                    ..row.cloned().unwrap_or_default()
                };
            }
            let became = match new.stale {
                true if asked_before => DevicesChange::Missed,
                _ => DevicesChange::Kept,
            };
            let mut batch = Batch::new();
            let (key, raw) = (stored.user, stored.raw.as_ref());
            batch.expect_unchanged(&schema::DEVICES_BY_REMOTE_USER, &key, raw);
            batch.put_stamped(&schema::DEVICES_BY_REMOTE_USER, &key, 0, new);
            tell_change(&mut batch, user, &stored);
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(became),
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(error::internal(
            "the devices of somebody elsewhere change too fast",
        ))
    }

    /// What is stored of some people, in their order; three round trips.
    async fn stored_devices(
        &self,
        snapshot: &Snapshot,
        users: &[OwnedUserId],
    ) -> error::Result<Vec<Stored>> {
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for user in users {
            let user = self.storage().user_hash(user);
            let range = Range::prefix(&(user,)).limit(ROOMS_MAX);
            asked.push((
                user,
                reads.get(&schema::DEVICES_BY_REMOTE_USER, &user),
                reads.range(&schema::ROOM_BY_REMOTE_USER, &range),
            ));
        }
        let answers = snapshot.read(&reads).await?;
        let mut stored = Vec::new();
        let mut rooms = BTreeSet::new();
        for (user, row, in_rooms) in asked {
            let row = answers.one(&row)?;
            let in_rooms = answers.rows(&in_rooms)?.into_iter();
            let shared = in_rooms.map(|((_, room), row)| Shared {
                room,
                since: row.value.value.since.unwrap_or(row.value.position),
                row: row.value,
            });
            let of_user = Stored {
                user,
                raw: row.as_ref().map(|row| row.raw.clone()),
                row: row.map(|row| row.value),
                shared: shared.collect(),
            };
            rooms.extend(of_user.shared.iter().map(|shared| shared.room));
            stored.push(of_user);
        }
        self.leave_shared(snapshot, &mut stored, &rooms).await?;
        Ok(stored)
    }

    /// Leaves of some people's rooms those that they really share with somebody of ours.
    async fn leave_shared(
        &self,
        snapshot: &Snapshot,
        stored: &mut [Stored],
        rooms: &BTreeSet<ShortRoomId>,
    ) -> error::Result<()> {
        let rooms: Vec<_> = rooms.iter().copied().collect();
        let mut reads = Reads::new();
        let ours: Vec<_> = rooms.iter().map(|room| (NameHash::NONE, *room)).collect();
        let ours = reads.get_all(&schema::ROOM_BY_REMOTE_USER, &ours);
        let heads = reads.get_all(&schema::HEAD_BY_ROOM, &rooms);
        let answers = snapshot.read(&reads).await?;
        let (ours, heads) = (answers.all(&ours)?, answers.all(&heads)?);
        let here: HashMap<_, _> = rooms
            .iter()
            .zip(ours.into_iter().zip(heads))
            .filter_map(|(room, (ours, head))| {
                let ours = ours?.value;
                let since = ours.value.since.unwrap_or(ours.position);
                Some((*room, (since, head?.value.generation)))
            })
            .collect();
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for of_user in stored.iter_mut() {
            of_user
                .shared
                .retain(|shared| here.contains_key(&shared.room));
            let keys = of_user.shared.iter().filter_map(|shared| {
                let (_, generation) = here.get(&shared.room)?;
                let join = Membership::Join as u8;
                Some((shared.room, *generation, join, of_user.user))
            });
            let keys: Vec<_> = keys.collect();
            asked.push(reads.get_all(&schema::MEMBER_BY_ROOM, &keys));
        }
        let answers = snapshot.read(&reads).await?;
        for (of_user, members) in stored.iter_mut().zip(asked) {
            let mut members = answers.all(&members)?.into_iter();
            of_user
                .shared
                .retain(|_| members.next().flatten().is_some());
            for shared in &mut of_user.shared {
                if let Some((since, _)) = here.get(&shared.room) {
                    shared.since = shared.since.max(*since);
                }
            }
        }
        Ok(())
    }
}

/// Tells who shares a room with somebody that their devices changed.
fn tell_change(batch: &mut Batch, user: &UserId, stored: &Stored) {
    let row = DeviceChangeRow {
        user_id: user.to_string(),
    };
    for (index, shared) in (0..u16::MAX).zip(&stored.shared) {
        let old = (shared.room, shared.row.position);
        batch.delete(&schema::DEVICE_CHANGE_BY_ROOM, &old);
        let new = (shared.room, Position::pending(index));
        batch.put(&schema::DEVICE_CHANGE_BY_ROOM, &new, &row);
        let since = shared.row.value.since.unwrap_or(shared.row.position);
        let row = RemoteRoomRow { since: Some(since) };
        let key = (stored.user, shared.room);
        batch.put_stamped(&schema::ROOM_BY_REMOTE_USER, &key, index, row);
        batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &shared.room, index, ());
        batch.wake(Topic::Room(shared.room));
    }
}

/// Writes an update into what is kept; whether it could be.
fn apply(row: &mut RemoteDevicesRow, update: &DeviceUpdate) -> bool {
    let id = update.device_id.as_str();
    if update.deleted {
        row.devices.remove(id);
    } else {
        let Some(device) = remote_device(
            &update.user_id,
            &update.device_id,
            update.keys.as_deref(),
            update.display_name.as_deref(),
        ) else {
            return false;
        };
        row.devices.insert(id.to_owned(), device);
    }
    if row.seen.len() >= SEEN_MAX {
        row.seen.remove(0);
    }
    row.seen.push(update.stream_id);
    true
}

/// A device as it is kept; none if what is said of it is wrong by itself, or too much.
pub fn remote_device(
    user: &UserId,
    device: &DeviceId,
    keys: Option<&RawValue>,
    display_name: Option<&str>,
) -> Option<RemoteDevice> {
    let long = device.as_str().len().max(display_name.map_or(0, str::len));
    if long > NAME_MAX {
        return None;
    }
    let keys = match keys {
        Some(keys) => Some(foreign_device_keys(user, device, keys)?),
        None => None,
    };
    Some(RemoteDevice {
        keys,
        display_name: display_name.map(ToOwned::to_owned),
    })
}

/// Whether it is not too much to be kept.
fn fits(row: &RemoteDevicesRow) -> bool {
    let devices = row.devices.iter().map(|(id, device)| {
        let keys = device.keys.as_ref().map_or(0, String::len);
        id.len() + keys + device.display_name.as_ref().map_or(0, String::len)
    });
    let keys = [&row.master, &row.self_signing];
    let keys = keys.map(|key| key.as_ref().map_or(0, String::len));
    row.devices.len() <= DEVICES_MAX
        && devices.sum::<usize>() + keys.iter().sum::<usize>() <= BYTES_MAX
}
