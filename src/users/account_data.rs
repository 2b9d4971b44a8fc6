//! What clients keep with the server, for the user alone ([account data]), global and per room.
//!
//! A room's account data is written here and not by the room's writer: it is nobody's but the user's,
//! touches nothing that an event reads, and its precondition is its own row.
//!
//! [account data]: https://spec.matrix.org/v1.19/client-server-api/#client-config

use std::collections::{BTreeMap, HashSet};

use error::Result;
use http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use storage::{
    Batch, NameHash, Range, Reads, ShortRoomId, ShortUserId, Storage,
    schema::{ACCOUNT_DATA_BY_USER, AccountDataRow, UserChange},
};

use crate::{Users, change, push_rules};

/// The longest content, in bytes.
const MAX_CONTENT: usize = 512 * 1024;

/// The longest type, in bytes.
const MAX_TYPE: usize = 255;

/// Types that the server writes.
const SERVER_CONTROLLED: [&str; 2] = ["m.fully_read", push_rules::TYPE];

/// One piece of account data.
#[derive(Clone, Debug)]
pub struct AccountData {
    /// Its type.
    pub event_type: String,
    /// Its content: a JSON object.
    pub content: Box<RawValue>,
}

impl AccountData {
    fn new(row: AccountDataRow) -> Result<Self> {
        Ok(Self {
            event_type: row.event_type,
            content: RawValue::from_string(row.json).map_err(error::internal)?,
        })
    }
}

impl Users {
    /// Takes all account data of a user away.
    pub(crate) async fn erase_account_data(&self, user: ShortUserId) -> Result<()> {
        let mut writer = self.writer(user).await;
        loop {
            let next = Range::prefix(&(user,)).limit(1);
            let snapshot = writer.snapshot().await?;
            let rows = snapshot.multi_range(&ACCOUNT_DATA_BY_USER, &[next]).await?;
            let Some((key, row)) = rows.into_iter().flatten().next() else {
                return Ok(());
            };
            // One at a time, and by what it was: it may be long, and is erased in all its pieces.
            let mut batch = Batch::new();
            batch.expect_equals(&ACCOUNT_DATA_BY_USER, &key, &row.raw);
            batch.delete(&ACCOUNT_DATA_BY_USER, &key);
            writer.commit(batch).await?;
        }
    }

    /// Sets account data of a user, of a room or global (`None`).
    ///
    /// # Errors
    ///
    /// 405 `M_BAD_JSON` for types that the server controls, 400 `M_BAD_JSON` if the content is no
    /// object, 413 if it is too long.
    pub async fn set_account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
        event_type: &str,
        content: &RawValue,
    ) -> Result<()> {
        if SERVER_CONTROLLED.contains(&event_type) {
            return Err(error::bad_json(format!(
                "{event_type} is set by the server, through an endpoint of its own"
            ))
            .with_status(StatusCode::METHOD_NOT_ALLOWED));
        }
        self.put_account_data(user, room, event_type, content).await
    }

    /// Sets account data of any type.
    pub(crate) async fn put_account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
        event_type: &str,
        content: &RawValue,
    ) -> Result<()> {
        check(event_type, content)?;
        self.change_account_data(user, room, event_type, |_| Ok(content.to_owned()))
            .await
    }

    /// Changes account data by what it is now. `change` may be called several times.
    ///
    /// # Errors
    ///
    /// What `change` says, and those of [`Users::set_account_data`] about the content.
    pub async fn change_account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
        event_type: &str,
        change: impl Fn(Option<&AccountData>) -> Result<Box<RawValue>>,
    ) -> Result<()> {
        let key = account_data_key(&self.0.storage, user, room, event_type);
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let found = snapshot.multi_get(&ACCOUNT_DATA_BY_USER, &[key]).await?;
            let found = found.into_iter().flatten().next();
            let raw = found.as_ref().map(|found| found.raw.clone());
            let old = found
                .map(|found| AccountData::new(found.value.value))
                .transpose()?;
            let content = change(old.as_ref())?;
            check(event_type, &content)?;
            let mut batch = Batch::new();
            batch.expect_unchanged(&ACCOUNT_DATA_BY_USER, &key, raw.as_ref());
            put(&mut batch, key, event_type, content.get());
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// MSC3391: takes account data back; none there is no error. The empty row that stays tells devices.
    ///
    /// # Errors
    ///
    /// 405 `M_BAD_JSON` for types that the server controls.
    pub async fn delete_account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
        event_type: &str,
    ) -> Result<()> {
        let found = self.find_account_data(user, room, event_type).await?;
        if found.is_none() && !SERVER_CONTROLLED.contains(&event_type) {
            return Ok(());
        }
        let nothing = RawValue::from_string("{}".to_owned()).map_err(error::internal)?;
        self.set_account_data(user, room, event_type, &nothing)
            .await
    }

    /// Account data of a user, of a room or global (`None`), if it says anything. Push rules are there
    /// even if nobody ever set them.
    pub async fn find_account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
        event_type: &str,
    ) -> Result<Option<AccountData>> {
        if room.is_none() && event_type == push_rules::TYPE {
            return self.push_rules_data(user).await.map(Some);
        }
        let key = account_data_key(&self.0.storage, user, room, event_type);
        let mut reads = Reads::new();
        let row = reads.get(&ACCOUNT_DATA_BY_USER, &key);
        let answers = self.snapshot().await?.read(&reads).await?;
        answers
            .one(&row)?
            .map(|found| found.value.value)
            .filter(|row| !says_nothing(row))
            .map(AccountData::new)
            .transpose()
    }

    /// All account data of a user, of a room or global (`None`), push rules as above.
    pub async fn account_data(
        &self,
        user: ShortUserId,
        room: Option<ShortRoomId>,
    ) -> Result<Vec<AccountData>> {
        let range = Range::prefix(&(user, room.unwrap_or(ShortRoomId::NONE)));
        let rows = self
            .snapshot()
            .await?
            .multi_range(&ACCOUNT_DATA_BY_USER, &[range])
            .await?;
        let mut all = rows
            .into_iter()
            .flatten()
            .map(|(_, found)| found.value.value)
            .filter(|row| !says_nothing(row))
            .map(AccountData::new)
            .collect::<Result<Vec<_>>>()?;
        if room.is_none() && !all.iter().any(|data| data.event_type == push_rules::TYPE) {
            all.push(self.push_rules_data(user).await?);
        }
        Ok(all)
    }
}

/// Whether account data is as good as none.
///
/// NOTSPEC: an empty object is, as MSC3391 has it; the specification knows no way to take account data back.
pub fn says_nothing(row: &AccountDataRow) -> bool {
    let json = row.json.trim();
    let inside = json
        .strip_prefix('{')
        .and_then(|json| json.strip_suffix('}'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

/// Account data as an event.
///
/// # Errors
///
/// Internal, if what was stored is no JSON.
pub fn account_data_event(event_type: &str, content: &str) -> Result<Box<RawValue>> {
    let event_type = serde_json::to_string(event_type).map_err(error::internal)?;
    let event = format!("{{\"type\":{event_type},\"content\":{content}}}");
    RawValue::from_string(event).map_err(error::internal)
}

/// The people in the content of an `m.ignored_user_list`.
pub fn ignored_users(content: &str) -> HashSet<String> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        ignored_users: BTreeMap<String, IgnoredAny>,
    }
    serde_json::from_str::<Content>(content)
        .map(|content| content.ignored_users.into_keys().collect())
        .unwrap_or_default()
}

/// Puts account data, and the word of it, into a batch that changes nothing else of the user.
pub(crate) fn put(
    batch: &mut Batch,
    key: (ShortUserId, ShortRoomId, NameHash),
    event_type: &str,
    json: &str,
) {
    let row = AccountDataRow {
        event_type: event_type.to_owned(),
        json: json.to_owned(),
    };
    batch.put_stamped(&ACCOUNT_DATA_BY_USER, &key, 0, row);
    change::tell(batch, key.0, [UserChange::AccountData(key.1, key.2)]);
}

/// The key of account data.
pub(crate) fn account_data_key(
    storage: &Storage,
    user: ShortUserId,
    room: Option<ShortRoomId>,
    event_type: &str,
) -> (ShortUserId, ShortRoomId, NameHash) {
    let room = room.unwrap_or(ShortRoomId::NONE);
    (user, room, storage.type_hash(event_type))
}

/// The keys of a device's own notification settings, which end with it ([spec]); clients still prefer
/// the unstable name of MSC3890.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-notifications
pub(crate) fn settings_keys(
    storage: &Storage,
    user: ShortUserId,
    device_id: &str,
) -> [(ShortUserId, ShortRoomId, NameHash); 2] {
    let names = ["m", "org.matrix.msc3890"];
    names.map(|prefix| {
        let event_type = format!("{prefix}.local_notification_settings.{device_id}");
        account_data_key(storage, user, None, &event_type)
    })
}

fn check(event_type: &str, content: &RawValue) -> Result<()> {
    if event_type.len() > MAX_TYPE {
        return Err(error::invalid_param(format!(
            "The type of account data has at most {MAX_TYPE} bytes"
        )));
    }
    if content.get().len() > MAX_CONTENT {
        return Err(error::too_large(format!(
            "Account data has at most {MAX_CONTENT} bytes"
        )));
    }
    if content.get().trim_start().starts_with('{') {
        Ok(())
    } else {
        Err(error::bad_json("Account data is a JSON object"))
    }
}
