//! What other servers tell beside events ([spec]): each EDU is believed only of people of the server that
//! sends it, and in rooms where they are.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#edus

use std::{collections::BTreeMap, time::Duration};

use error::Result;
use federation::{Class, Direction};
use rooms::{DeviceUpdate, DevicesChange, RemotePresence, RemoteReceipt};
use ruma::{
    OwnedDeviceId, OwnedRoomId, OwnedUserId, ServerName, UserId,
    api::federation::transactions::edu::{DirectDeviceContent, Edu},
    presence::PresenceState,
    serde::Raw,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use storage::OnceKey;

use crate::{Server, json, remote_devices};

/// For so long somebody elsewhere is typing who does not say so again.
const TYPING: Duration = Duration::from_secs(60);
/// So many people's presence, rooms' receipts, and receipts of one room are read of one EDU.
const PEOPLE_MAX: usize = 500;
const ROOMS_MAX: usize = 500;
const RECEIPTS_MAX: usize = 1_000;
/// The longest id of a message, and of a thread, in bytes.
const ID_MAX: usize = 255;
/// So many changes an update of a device may follow.
const PREV_MAX: usize = 100;

#[derive(Deserialize)]
struct Envelope<'a> {
    edu_type: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

#[derive(Deserialize)]
struct OfRoom {
    #[serde(rename = "m.read", default)]
    read: BTreeMap<OwnedUserId, Receipt>,
}

#[derive(Deserialize)]
struct Receipt {
    /// NOTSPEC: what is no event id is taken too (Complement, `CanReceiveReceiptDuringPartialStateJoin`).
    event_ids: Vec<String>,
    data: ReceiptData,
}

#[derive(Deserialize)]
struct ReceiptData {
    ts: u64,
    thread_id: Option<String>,
}

#[derive(Deserialize)]
struct Presence {
    push: Vec<Pushed>,
}

#[derive(Deserialize)]
struct Pushed {
    user_id: OwnedUserId,
    presence: PresenceState,
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: u64,
    #[serde(default)]
    currently_active: bool,
}

#[derive(Deserialize)]
struct DeviceList {
    user_id: OwnedUserId,
    device_id: OwnedDeviceId,
    device_display_name: Option<String>,
    stream_id: u64,
    #[serde(default)]
    prev_id: Vec<u64>,
    #[serde(default)]
    deleted: Option<bool>,
    keys: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct SigningKeys {
    user_id: OwnedUserId,
    master_key: Option<Box<RawValue>>,
    self_signing_key: Option<Box<RawValue>>,
}

/// Takes in an EDU. One that is not known, or that the server may not send, is ignored.
///
/// # Errors
///
/// Internal, if what must not be lost could not be stored: then the transaction is to be sent again.
pub(super) async fn receive_edu(
    server: &Server,
    origin: &ServerName,
    edu: &Raw<Edu>,
) -> Result<()> {
    // People are going to be shown parts of it.
    if json::check(edu.json().get().as_bytes()).is_err() {
        return Ok(());
    }
    let Ok(Envelope { edu_type, content }) = serde_json::from_str(edu.json().get()) else {
        return Ok(());
    };
    let from = From { server, origin };
    let taken = match edu_type.as_str() {
        "m.typing" => from.typing(read(content)).await,
        "m.receipt" => from.receipts(read(content)).await,
        "m.presence" => from.presence(read(content)).await,
        "m.direct_to_device" => return from.messages(read(content)).await,
        "m.device_list_update" => return from.device_list(read(content)).await,
        "m.signing_key_update" | "org.matrix.signing_key_update" => {
            return from.signing_keys(read(content)).await;
        }
        _ => Ok(()),
    };
    if let Err(error) = taken {
        // What was true at that moment is not worth being sent again.
        tracing::warn!(%error, %origin, edu_type, "an EDU could not be taken in");
    }
    Ok(())
}

/// What is said; none if it is not of its form.
fn read<T: DeserializeOwned>(content: &RawValue) -> Option<T> {
    let read = serde_json::from_str(content.get());
    read.inspect_err(|error| tracing::debug!(%error, "an EDU cannot be read"))
        .ok()
}

/// Who says something, and to whom.
#[derive(Clone, Copy)]
struct From<'a> {
    server: &'a Server,
    origin: &'a ServerName,
}

impl From<'_> {
    fn speaks_for(self, user: &UserId) -> bool {
        user.server_name() == self.origin
    }

    /// The room of that id, if it is here and its list lets the server take part.
    async fn room(self, room_id: &OwnedRoomId) -> Result<Option<std::sync::Arc<rooms::Room>>> {
        let Some(room) = self.server.rooms.find_room(room_id).await? else {
            return Ok(None);
        };
        let allowed = self.server.rooms.check_acl(&room, self.origin).await;
        Ok(allowed.is_ok().then_some(room))
    }

    async fn typing(self, said: Option<Typing>) -> Result<()> {
        let Some(said) = said.filter(|said| self.speaks_for(&said.user_id)) else {
            return Ok(());
        };
        let Some(room) = self.room(&said.room_id).await? else {
            return Ok(());
        };
        let rooms = &self.server.rooms;
        if rooms.is_joined(&room, &said.user_id).await? {
            let timeout = said.typing.then_some(TYPING);
            rooms.typing().set(&room, &said.user_id, timeout);
        }
        Ok(())
    }

    async fn receipts(self, said: Option<BTreeMap<OwnedRoomId, Box<RawValue>>>) -> Result<()> {
        for (room_id, of_room) in said.into_iter().flatten().take(ROOMS_MAX) {
            let Some(OfRoom { read }) = read(&of_room) else {
                continue;
            };
            let Some(room) = self.room(&room_id).await? else {
                continue;
            };
            let receipts = read
                .into_iter()
                .filter(|(user, _)| self.speaks_for(user))
                .filter_map(|(user, receipt)| {
                    Some(RemoteReceipt {
                        user,
                        event_id: receipt.event_ids.into_iter().next()?,
                        thread: receipt.data.thread_id,
                        ts: receipt.data.ts,
                    })
                })
                .filter(|it| it.event_id.len() <= ID_MAX)
                .filter(|it| it.thread.as_ref().is_none_or(|id| id.len() <= ID_MAX))
                .take(RECEIPTS_MAX);
            let receipts: Vec<_> = receipts.collect();
            self.server.rooms.receive_receipts(&room, &receipts).await?;
        }
        Ok(())
    }

    async fn presence(self, said: Option<Presence>) -> Result<()> {
        let federation = &self.server.federation;
        if !federation.allows(self.origin, Direction::In, Class::Presence) {
            return Ok(());
        }
        let pushed = said.into_iter().flat_map(|said| said.push).take(PEOPLE_MAX);
        for said in pushed.filter(|said| self.speaks_for(&said.user_id)) {
            let presence = RemotePresence {
                presence: said.presence,
                status_msg: said.status_msg,
                last_active_ago: said.last_active_ago,
                currently_active: said.currently_active,
            };
            let rooms = &self.server.rooms;
            rooms.receive_presence(&said.user_id, presence).await?;
        }
        Ok(())
    }

    async fn messages(self, said: Option<DirectDeviceContent>) -> Result<()> {
        let Some(said) = said.filter(|said| self.speaks_for(&said.sender)) else {
            return Ok(());
        };
        if said.message_id.as_str().len() > ID_MAX {
            return Ok(());
        }
        let (users, ours) = (&self.server.users, self.server.rooms.server_name());
        let mut messages = said.messages;
        messages.retain(|user, _| user.server_name() == ours);
        let name = [self.origin.as_str(), "\0", said.message_id.as_str()].concat();
        let once = OnceKey {
            day: OnceKey::day_of(self.server.rooms.now()),
            name: self.server.storage.hash("message of a server", name),
        };
        let event_type = said.ev_type.to_string();
        let sent = users.send_to_devices(&said.sender, &event_type, &messages, once);
        self.unless_wrong(sent.await)
    }

    async fn device_list(self, said: Option<DeviceList>) -> Result<()> {
        let Some(said) = said.filter(|said| self.speaks_for(&said.user_id)) else {
            return Ok(());
        };
        let mut prev_ids = said.prev_id;
        prev_ids.truncate(PREV_MAX);
        let update = DeviceUpdate {
            user_id: said.user_id,
            device_id: said.device_id,
            display_name: said.device_display_name,
            stream_id: said.stream_id,
            prev_ids,
            deleted: said.deleted.unwrap_or(false),
            keys: said.keys,
        };
        let change = self.server.rooms.receive_device_update(&update).await?;
        self.resync(change, update.user_id);
        Ok(())
    }

    async fn signing_keys(self, said: Option<SigningKeys>) -> Result<()> {
        let Some(said) = said.filter(|said| self.speaks_for(&said.user_id)) else {
            return Ok(());
        };
        let (master, self_signing) = (said.master_key.as_deref(), said.self_signing_key.as_deref());
        let rooms = &self.server.rooms;
        let change = rooms.receive_signing_keys(&said.user_id, master, self_signing);
        let change = change.await?;
        self.resync(change, said.user_id);
        Ok(())
    }

    fn resync(self, change: DevicesChange, user: OwnedUserId) {
        if change == DevicesChange::Missed {
            remote_devices::resync_soon(self.server, user);
        }
    }

    /// What is wrong with what was sent will be wrong again.
    fn unless_wrong(self, taken: Result<()>) -> Result<()> {
        match taken {
            Err(error) if !error.status().is_server_error() => {
                tracing::debug!(%error, origin = %self.origin, "an EDU is refused");
                Ok(())
            }
            taken => taken,
        }
    }
}
