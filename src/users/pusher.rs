//! Pushers: where a user wants to be told of what happens ([spec]). Stored here, followed by the
//! outbox.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-notifications

use error::Result;
use ruma::api::client::push::{
    Pusher, PusherIds, PusherKind,
    set_pusher::v3::{PusherAction, PusherPostData},
};
use storage::{
    Batch, NameHash, Range, Reads, ShortUserId,
    schema::{DEVICE_BY_USER, PUSHER_BY_USER, PusherRow, USER_BY_PUSHER},
};

use crate::{Requester, Users};

/// How many pushers a user may have.
const MAX_PUSHERS: usize = 100;

/// The longest push key and app id ([spec]), and the longest pusher, in bytes.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3pushersset
const MAX_PUSHKEY: usize = 512;
const MAX_APP_ID: usize = 64;
const MAX_PUSHER: usize = 16 * 1024;

/// The path that a push gateway listens on.
const GATEWAY_PATH: &str = "/_matrix/push/v1/notify";

impl Users {
    /// Sets or removes a pusher of a user.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` if it cannot be one, `M_TOO_LARGE` if it is too long or there are too
    /// many.
    pub async fn set_pusher(&self, requester: &Requester, action: &PusherAction) -> Result<()> {
        match action {
            PusherAction::Post(data) => self.put_pusher(requester, data).await,
            PusherAction::Delete(ids) => self.delete_pusher(requester.user, ids).await,
            _ => Err(error::invalid_param("A pusher is set or removed")),
        }
    }

    /// A user's pushers, in the order in which they were set.
    pub async fn pushers(&self, user: ShortUserId) -> Result<Vec<Pusher>> {
        let rows = self
            .snapshot()
            .await?
            .multi_range(&PUSHER_BY_USER, &[Range::prefix(&(user,))])
            .await?;
        let mut rows: Vec<PusherRow> = rows
            .into_iter()
            .flatten()
            .map(|(_, found)| found.value)
            .collect();
        rows.sort_by_key(|row| row.set_ts);
        rows.iter()
            .map(|row| serde_json::from_str(&row.json).map_err(error::internal))
            .collect()
    }

    async fn put_pusher(&self, requester: &Requester, data: &PusherPostData) -> Result<()> {
        let user = requester.user;
        let (device_id, device) = requester.own_device()?;
        let json = check(&data.pusher)?;
        let hash = self.pusher_hash(&data.pusher.ids);
        let row = PusherRow {
            device_id: device_id.to_string(),
            json,
            set_ts: self.now(),
        };
        let device = (user, device);
        let mut writer = self.writer(user).await;
        loop {
            let mut reads = Reads::new();
            let device_row = reads.get(&DEVICE_BY_USER, &device);
            let mine = reads.range(&PUSHER_BY_USER, &Range::prefix(&(user,)));
            let owners = reads.range(&USER_BY_PUSHER, &Range::prefix(&(hash,)));
            let answers = writer.snapshot().await?.read(&reads).await?;
            let Some(device_row) = answers.one(&device_row)? else {
                return Err(error::unknown_token(false, "This device was logged out"));
            };
            let mine = answers.rows(&mine)?;
            if mine.len() >= MAX_PUSHERS && mine.iter().all(|((_, other), _)| *other != hash) {
                return Err(error::too_large(format!(
                    "A user has at most {MAX_PUSHERS} pushers"
                )));
            }
            let mut batch = Batch::new();
            // A device that is logged out meanwhile takes its pushers along.
            batch.expect_equals(&DEVICE_BY_USER, &device, &device_row.raw);
            batch.put(&PUSHER_BY_USER, &(user, hash), &row);
            batch.put(&USER_BY_PUSHER, &(hash, user), &());
            if !data.append {
                // The same app on the same phone: whoever had it before has it no more.
                for ((_, other), _) in answers.rows(&owners)? {
                    if other != user {
                        remove(&mut batch, other, hash);
                    }
                }
            }
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn delete_pusher(&self, user: ShortUserId, ids: &PusherIds) -> Result<()> {
        let hash = self.pusher_hash(ids);
        let mut writer = self.writer(user).await;
        loop {
            let mut batch = Batch::new();
            remove(&mut batch, user, hash);
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    fn pusher_hash(&self, ids: &PusherIds) -> NameHash {
        let name = format!("{}\0{}", ids.app_id, ids.pushkey);
        self.0.storage.pusher_hash(&name)
    }
}

/// Puts the end of a pusher into a batch.
pub(crate) fn remove(batch: &mut Batch, user: ShortUserId, hash: NameHash) {
    batch.delete(&PUSHER_BY_USER, &(user, hash));
    batch.delete(&USER_BY_PUSHER, &(hash, user));
}

/// Whether something can be a pusher; its JSON.
fn check(pusher: &Pusher) -> Result<String> {
    if pusher.ids.pushkey.len() > MAX_PUSHKEY || pusher.ids.app_id.len() > MAX_APP_ID {
        return Err(error::invalid_param(format!(
            "A push key has at most {MAX_PUSHKEY} bytes, an app id at most {MAX_APP_ID}"
        )));
    }
    let PusherKind::Http(data) = &pusher.kind else {
        return Err(error::invalid_param(
            "This server pushes to gateways only: `http`",
        ));
    };
    let address: http::Uri = data
        .url
        .parse()
        .map_err(|_| error::invalid_param("The address of the push gateway is none"))?;
    if !matches!(address.scheme_str(), Some("https" | "http"))
        || address.host().is_none()
        || address.path() != GATEWAY_PATH
    {
        return Err(error::invalid_param(format!(
            "The address of a push gateway is https://…{GATEWAY_PATH}"
        )));
    }
    let json = serde_json::to_string(pusher).map_err(error::internal)?;
    if json.len() > MAX_PUSHER {
        return Err(error::too_large(format!(
            "A pusher has at most {MAX_PUSHER} bytes"
        )));
    }
    Ok(json)
}
