//! What other servers are told of the devices of people of ours ([spec]).
//!
//! A change of a device gets a number, its `stream_id`, when somebody compares what there is with what was
//! published last: however many changes there were between, other servers hear of the outcome. Which server
//! was told up to which number is kept by who tells it.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#device-management

use std::collections::{BTreeMap, HashMap};

use error::Result;
use ruma::{OwnedDeviceId, UserId};
use serde_json::{Map, Value, json, value::RawValue};
use storage::{
    Answers, Batch, CommitError, NameHash, Position, Range, Reads, Rows, ShortUserId, Slot,
    Snapshot, Storage,
    schema::{
        ACCOUNT_BY_USER, AccountRow, CROSS_SIGNING_KEY_BY_USER, CrossSigningKeyRow, DEVICE_BY_USER,
        DEVICE_KEYS_BY_USER, DEVICE_UPDATE_BY_USER, DEVICE_VERSION_BY_USER, DeviceKeysRow,
        DeviceRow, DeviceUpdateRow, DeviceVersionRow, KeyUse, ToldDevicesRow,
    },
};

use super::signed::Signed;
use crate::Users;

/// How often a change is tried before it is given up.
const MAX_ATTEMPTS: u32 = 32;
/// How many devices that are gone are remembered.
const MAX_GONE: usize = 100;

type OfUser<V> = Slot<Rows<(ShortUserId, NameHash), V>>;

/// Where that will be found what is published of somebody's devices.
struct Asked {
    account: Slot<Option<storage::Found<AccountRow>>>,
    devices: OfUser<DeviceRow>,
    keys: OfUser<DeviceKeysRow>,
    cross_signing: Slot<Rows<(ShortUserId, u8), CrossSigningKeyRow>>,
    updates: OfUser<DeviceUpdateRow>,
    version: Slot<Option<storage::Found<DeviceVersionRow>>>,
}

/// A device as it is published.
struct Published {
    device_id: String,
    display_name: Option<String>,
    keys: Option<Box<RawValue>>,
}

/// What there is of somebody.
struct Devices {
    user_id: String,
    devices: BTreeMap<NameHash, Published>,
    master: Option<Box<RawValue>>,
    self_signing: Option<Box<RawValue>>,
    version: DeviceVersionRow,
}

/// All devices of somebody, for another server.
#[derive(Debug)]
pub struct PublishedDevices {
    /// The number of the latest change.
    pub stream_id: u64,
    /// Those that have published keys: the keys, and what their user calls them.
    pub devices: Vec<(OwnedDeviceId, Box<RawValue>, Option<String>)>,
    /// The key that stands for the user.
    pub master: Option<Box<RawValue>>,
    /// The key with which they sign their devices.
    pub self_signing: Option<Box<RawValue>>,
}

/// EDUs that tell a server what changed of one person's devices.
#[derive(Debug, Default)]
pub struct DeviceNews {
    /// The EDUs, in the order in which they are to be sent.
    pub edus: Vec<Box<RawValue>>,
    /// What the server was told of when it has them.
    pub told: ToldDevicesRow,
    /// Whether there is more.
    pub more: bool,
}

/// Numbers what changed of somebody's devices since it was published last.
///
/// # Errors
///
/// Storage fails.
pub async fn publish_devices(storage: &Storage, user: ShortUserId) -> Result<()> {
    for _ in 0..MAX_ATTEMPTS {
        let snapshot = storage.snapshot(Position::START).await?;
        let mut reads = Reads::new();
        let asked = Asked::ask(&mut reads, user);
        let answers = snapshot.read(&reads).await?;
        let batch = asked.changes(storage, &answers, user)?;
        if batch.is_empty() {
            return Ok(());
        }
        match storage.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(error::internal("the devices of a user change too fast"))
}

impl Users {
    /// The devices of a user of this server as other servers get them; none of whom has no account. Two
    /// round trips.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn published_devices(&self, user_id: &UserId) -> Result<Option<PublishedDevices>> {
        let Some(account) = self.find_account(user_id).await? else {
            return Ok(None);
        };
        let mut reads = Reads::new();
        let asked = Asked::ask(&mut reads, account.user);
        let answers = self.snapshot().await?.read(&reads).await?;
        let Some(found) = asked.answer(&answers)? else {
            return Ok(None);
        };
        let devices = found.devices.into_values().filter_map(|device| {
            let id = OwnedDeviceId::from(device.device_id);
            Some((id, device.keys?, device.display_name))
        });
        Ok(Some(PublishedDevices {
            stream_id: found.version.latest,
            devices: devices.collect(),
            master: found.master,
            self_signing: found.self_signing,
        }))
    }

    /// What a server is to be told of the devices of some people of ours, of each at most `limit` EDUs; one
    /// round trip.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn device_news(
        &self,
        snapshot: &Snapshot,
        told: &[(ShortUserId, ToldDevicesRow)],
        limit: usize,
    ) -> Result<Vec<DeviceNews>> {
        let mut reads = Reads::new();
        let asked: Vec<_> = told
            .iter()
            .map(|(user, _)| Asked::ask(&mut reads, *user))
            .collect();
        let answers = snapshot.read(&reads).await?;
        let news = told.iter().zip(&asked);
        news.map(|((_, told), asked)| asked.news(&answers, *told, limit))
            .collect()
    }
}

impl Asked {
    fn ask(reads: &mut Reads, user: ShortUserId) -> Self {
        let all = (user,);
        Self {
            account: reads.get(&ACCOUNT_BY_USER, &user),
            devices: reads.range(&DEVICE_BY_USER, &Range::prefix(&all)),
            keys: reads.range(&DEVICE_KEYS_BY_USER, &Range::prefix(&all)),
            cross_signing: reads.range(&CROSS_SIGNING_KEY_BY_USER, &Range::prefix(&all)),
            updates: reads.range(&DEVICE_UPDATE_BY_USER, &Range::prefix(&all)),
            version: reads.get(&DEVICE_VERSION_BY_USER, &user),
        }
    }

    fn answer(&self, answers: &Answers) -> Result<Option<Devices>> {
        let Some(account) = answers.one(&self.account)? else {
            return Ok(None);
        };
        let mut keys = HashMap::new();
        for ((_, device), row) in answers.rows(&self.keys)? {
            let json = Signed::stored(&row.value.json)?.to_json_with(Map::new())?;
            keys.insert(device, json);
        }
        let devices = answers.rows(&self.devices)?.into_iter();
        let devices = devices.map(|((_, device), row)| {
            let published = Published {
                device_id: row.value.device_id,
                display_name: row.value.display_name,
                keys: keys.remove(&device),
            };
            (device, published)
        });
        let mut found = Devices {
            user_id: account.value.user_id,
            devices: devices.collect(),
            master: None,
            self_signing: None,
            version: answers
                .one(&self.version)?
                .map_or_else(DeviceVersionRow::default, |row| row.value),
        };
        for ((_, kind), row) in answers.rows(&self.cross_signing)? {
            let key = Signed::stored(&row.value.json)?.to_json_with(Map::new())?;
            if kind == KeyUse::Master as u8 {
                found.master = Some(key);
            } else if kind == KeyUse::SelfSigning as u8 {
                found.self_signing = Some(key);
            }
        }
        Ok(Some(found))
    }

    /// The rows that number what changed.
    fn changes(&self, storage: &Storage, answers: &Answers, user: ShortUserId) -> Result<Batch> {
        let mut batch = Batch::new();
        let Some(found) = self.answer(answers)? else {
            return Ok(batch);
        };
        let mut version = found.version;
        let mut before: HashMap<_, _> = answers
            .rows(&self.updates)?
            .into_iter()
            .map(|((_, device), row)| (device, row.value))
            .collect();
        let mut change = |device: NameHash, device_id: String, published: Option<NameHash>| {
            version.latest += 1;
            let row = DeviceUpdateRow {
                device_id,
                number: version.latest,
                published,
            };
            batch.put(&DEVICE_UPDATE_BY_USER, &(user, device), &row);
        };
        for (device, published) in found.published(storage) {
            let old = before.remove(&device);
            if old.is_none_or(|old| old.published != Some(published)) {
                let device_id = found.devices.get(&device);
                let device_id = device_id.map_or_else(String::new, |it| it.device_id.clone());
                change(device, device_id, Some(published));
            }
        }
        let (gone, left): (Vec<_>, Vec<_>) = before
            .into_iter()
            .filter(|(device, _)| *device != NameHash::NONE)
            .partition(|(_, row)| row.published.is_none());
        for (device, row) in left {
            change(device, row.device_id, None);
        }
        if version == found.version {
            return Ok(batch);
        }
        let mut gone: Vec<_> = gone
            .into_iter()
            .map(|(device, row)| (row.number, device))
            .collect();
        gone.sort_unstable();
        gone.truncate(gone.len().saturating_sub(MAX_GONE));
        for (number, device) in gone {
            version.forgotten = version.forgotten.max(number);
            batch.delete(&DEVICE_UPDATE_BY_USER, &(user, device));
        }
        let raw = answers.one(&self.version)?.map(|row| row.raw);
        batch.expect_unchanged(&DEVICE_VERSION_BY_USER, &user, raw.as_ref());
        batch.put(&DEVICE_VERSION_BY_USER, &user, &version);
        Ok(batch)
    }

    fn news(&self, answers: &Answers, told: ToldDevicesRow, limit: usize) -> Result<DeviceNews> {
        let mut news = DeviceNews {
            told,
            ..DeviceNews::default()
        };
        let Some(found) = self.answer(answers)? else {
            return Ok(news);
        };
        // What was forgotten meanwhile the server cannot be told: without a link to what it had before it
        // asks for all of it.
        let anew = told.told < found.version.forgotten || told.latest.is_none();
        if anew {
            news.told.latest = None;
        }
        let mut updates: Vec<_> = answers
            .rows(&self.updates)?
            .into_iter()
            .map(|((_, device), row)| (device, row.value))
            .filter(|(_, row)| row.number > told.told && (row.published.is_some() || !anew))
            .collect();
        updates.sort_unstable_by_key(|(_, row)| row.number);
        for (device, row) in updates {
            if news.edus.len() >= limit {
                news.more = true;
                return Ok(news);
            }
            news.told.told = row.number;
            if device == NameHash::NONE {
                news.edus.extend(found.signing_key_updates()?);
            } else {
                let edu = found.device_list_update(device, &row, news.told.latest)?;
                news.edus.push(edu);
                news.told.latest = Some(row.number);
            }
        }
        news.told.told = found.version.latest;
        Ok(news)
    }
}

impl Devices {
    /// What is published, as a hash for each device, and one for the cross-signing keys.
    fn published(&self, storage: &Storage) -> Vec<(NameHash, NameHash)> {
        let text = |json: &Option<Box<RawValue>>| {
            json.as_ref()
                .map_or_else(String::new, |json| json.get().to_owned())
        };
        let hash =
            |one: &str, two: &str| storage.hash("published device", [one, "\0", two].concat());
        let mut published: Vec<_> = self
            .devices
            .iter()
            .map(|(device, it)| {
                let name = it.display_name.as_deref().unwrap_or_default();
                (*device, hash(name, &text(&it.keys)))
            })
            .collect();
        if self.master.is_some() || self.self_signing.is_some() {
            let keys = hash(&text(&self.master), &text(&self.self_signing));
            published.push((NameHash::NONE, keys));
        }
        published
    }

    fn device_list_update(
        &self,
        device: NameHash,
        row: &DeviceUpdateRow,
        latest: Option<u64>,
    ) -> Result<Box<RawValue>> {
        let mut content = json!({
            "user_id": self.user_id,
            "device_id": row.device_id,
            "stream_id": row.number,
            "prev_id": Vec::from_iter(latest),
        });
        // As it is now, which may be later than this change: then another one follows.
        let members = match self.devices.get(&device) {
            None => [Some(("deleted", Value::Bool(true))), None],
            Some(device) => {
                let name = device.display_name.clone();
                let keys = device.keys.as_ref();
                let keys = keys.and_then(|keys| serde_json::from_str(keys.get()).ok());
                [
                    name.map(|name| ("device_display_name", Value::String(name))),
                    keys.map(|keys| ("keys", keys)),
                ]
            }
        };
        if let Some(content) = content.as_object_mut() {
            let members = members.into_iter().flatten();
            content.extend(members.map(|(name, value)| (name.to_owned(), value)));
        }
        edu("m.device_list_update", &content)
    }

    /// New cross-signing keys, under the stable name and under the one that servers know from before.
    fn signing_key_updates(&self) -> Result<[Box<RawValue>; 2]> {
        let mut content = json!({ "user_id": self.user_id });
        let keys = [
            ("master_key", &self.master),
            ("self_signing_key", &self.self_signing),
        ];
        for (name, key) in keys {
            if let (Some(key), Some(content)) = (key, content.as_object_mut()) {
                let key = serde_json::from_str(key.get()).map_err(error::internal)?;
                content.insert(name.to_owned(), key);
            }
        }
        Ok([
            edu("m.signing_key_update", &content)?,
            edu("org.matrix.signing_key_update", &content)?,
        ])
    }
}

fn edu(edu_type: &str, content: &Value) -> Result<Box<RawValue>> {
    let edu = json!({ "edu_type": edu_type, "content": content });
    serde_json::value::to_raw_value(&edu).map_err(error::internal)
}
