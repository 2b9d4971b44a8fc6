//! Messages from device to device ([spec]): they wait in a queue for each device until it has them.
//!
//! A device has a message when it syncs from a token that was given out with it; then it is removed. Until
//! then it is given out again.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging

mod elsewhere;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use error::Result;
use ruma::{
    OwnedUserId, UserId, events::AnyToDeviceEventContent, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use storage::{
    Batch, Found, NameHash, OnceKey, Position, Range, Reads, ShortUserId, Snapshot, Topic,
    schema::{DEVICE_BY_USER, DeviceRow, MESSAGE_BY_DEVICE, USER_BY_NAME},
};

use self::elsewhere::Parcel;
use crate::Users;

/// How many devices one request may send to.
const MAX_DEVICES: usize = 10_000;
/// The longest type of a message, and the longest content, in bytes.
const MAX_TYPE: usize = 255;
const MAX_CONTENT: usize = 65_536;
/// When a batch is full, in bytes: enough is left for one more message.
const FULL: usize = storage::MAX_BATCH - 3 * MAX_CONTENT;
/// How many messages are removed at once.
const REMOVED_AT_ONCE: usize = 1_000;

/// What is sent: by user and device.
pub type Messages =
    BTreeMap<OwnedUserId, BTreeMap<DeviceIdOrAllDevices, Raw<AnyToDeviceEventContent>>>;

/// A message as its device gets it, the content as it came.
#[derive(Serialize)]
struct Message<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    sender: &'a UserId,
    content: &'a Raw<AnyToDeviceEventContent>,
}

/// What is sent, from whom, once for a once key.
struct Sending<'a> {
    sender: &'a UserId,
    event_type: &'a str,
    messages: &'a Messages,
    once: OnceKey,
}

/// One thing to be put into a queue.
enum Outgoing {
    /// A message, for the device whose row this is.
    Here(Found<DeviceRow>, String),
    /// Messages for devices of another server.
    Elsewhere(Parcel),
}

/// What tells the things of one request apart: the device, and whether all of its user's were meant; the
/// server and the number of the parcel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Here(ShortUserId, NameHash, bool),
    Elsewhere(NameHash, u32),
}

impl Users {
    /// Puts messages into the queues of devices, once for a once key: those of this server, and for those of
    /// other servers what these are to be sent. Users and devices that are not there are left out.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many devices or an endless type, 413 for endless messages.
    pub async fn send_to_devices(
        &self,
        sender: &UserId,
        event_type: &str,
        messages: &Messages,
        once: OnceKey,
    ) -> Result<()> {
        check(event_type, messages)?;
        let sending = Sending {
            sender,
            event_type,
            messages,
            once,
        };
        let mut writer = self.unlocked_writer();
        let mut part = 0;
        let mut done = BTreeSet::new();
        loop {
            let snapshot = writer.snapshot().await?;
            let mut left = self.outgoing(&snapshot, &sending).await?;
            left.retain(|address, _| !done.contains(address));
            let (batch, put) = self.batch_of(&left, once, part);
            let whole = put.len() == left.len();
            if !writer.commit_once(batch).await? {
                continue;
            }
            if whole {
                return Ok(());
            }
            // More than one batch takes: each is a part with a once key of its own.
            done.extend(put);
            part += 1;
        }
    }

    /// As many as fit, and which these are.
    fn batch_of(
        &self,
        outgoing: &BTreeMap<Address, Outgoing>,
        once: OnceKey,
        part: u32,
    ) -> (Batch, Vec<Address>) {
        let mut batch = Batch::new();
        let mut put = Vec::new();
        let name = match part {
            0 => once.name,
            part => {
                let name = [&once.name.0[..], &part.to_be_bytes()].concat();
                self.0.storage.hash("part of an action", name)
            }
        };
        batch.once(OnceKey { name, ..once }, Vec::new());
        for (index, (address, outgoing)) in (0..u16::MAX).zip(outgoing) {
            if batch.len_bytes() > FULL {
                break;
            }
            match (*address, outgoing) {
                (Address::Here(user, device, _), Outgoing::Here(row, json)) => {
                    // A device that goes meanwhile takes its queue along.
                    batch.expect_equals(&DEVICE_BY_USER, &(user, device), &row.raw);
                    let place = (user, device, Position::pending(index));
                    batch.put(&MESSAGE_BY_DEVICE, &place, json);
                    batch.wake(Topic::User(user));
                }
                (Address::Elsewhere(server, _), Outgoing::Elsewhere(parcel)) => {
                    parcel.put(&mut batch, server, index);
                }
                _ => {}
            }
            put.push(*address);
        }
        (batch, put)
    }

    async fn outgoing(
        &self,
        snapshot: &Snapshot,
        sending: &Sending<'_>,
    ) -> Result<BTreeMap<Address, Outgoing>> {
        let ours = self.server_name();
        let here = || {
            let all = sending.messages.iter();
            all.filter(|(user, _)| user.server_name() == ours)
        };
        let names: Vec<_> = here()
            .map(|(user, _)| self.0.storage.user_hash(user))
            .collect();
        let shorts = snapshot.multi_get(&USER_BY_NAME, &names).await?;
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for ((_, devices), short) in here().zip(shorts) {
            let Some(short) = short else { continue };
            let all = reads.range(&DEVICE_BY_USER, &Range::prefix(&(short.value,)));
            asked.push((devices, all));
        }
        let answers = snapshot.read(&reads).await?;
        let mut outgoing = BTreeMap::new();
        for (wanted, devices) in asked {
            let devices: HashMap<_, _> = answers
                .rows(&devices)?
                .into_iter()
                .map(|(key, row)| (row.value.device_id.clone(), (key, row)))
                .collect();
            for (device, content) in wanted {
                let message = Message {
                    event_type: sending.event_type,
                    sender: sending.sender,
                    content,
                };
                let json = serde_json::to_string(&message).map_err(error::internal)?;
                let to: Vec<_> = match device {
                    DeviceIdOrAllDevices::DeviceId(id) => {
                        devices.get(id.as_str()).into_iter().collect()
                    }
                    DeviceIdOrAllDevices::AllDevices => devices.values().collect(),
                };
                let all = *device == DeviceIdOrAllDevices::AllDevices;
                outgoing.extend(to.into_iter().map(|((user, device), row)| {
                    let address = Address::Here(*user, *device, all);
                    (address, Outgoing::Here(row.clone(), json.clone()))
                }));
            }
        }
        for (server, number, parcel) in self.parcels(sending)? {
            let address = Address::Elsewhere(server, number);
            outgoing.insert(address, Outgoing::Elsewhere(parcel));
        }
        Ok(outgoing)
    }

    /// Removes the messages of a device that it has: those up to a position.
    pub async fn remove_messages(
        &self,
        user: ShortUserId,
        device: NameHash,
        up_to: Position,
    ) -> Result<()> {
        let mut writer = self.unlocked_writer();
        loop {
            let range = Range::prefix(&(user, device))
                .up_to(&(user, device, up_to))
                .limit(REMOVED_AT_ONCE);
            let snapshot = writer.snapshot().await?;
            let rows = snapshot.multi_range(&MESSAGE_BY_DEVICE, &[range]).await?;
            let mut batch = Batch::new();
            for (key, _) in rows.iter().flatten() {
                batch.delete(&MESSAGE_BY_DEVICE, key);
            }
            if batch.is_empty() {
                return Ok(());
            }
            let whole = rows.iter().flatten().count() < REMOVED_AT_ONCE;
            if writer.commit(batch).await?.is_some() && whole {
                return Ok(());
            }
        }
    }
}

fn check(event_type: &str, messages: &Messages) -> Result<()> {
    if event_type.len() > MAX_TYPE {
        return Err(error::invalid_param(format!(
            "The type of a message has at most {MAX_TYPE} bytes"
        )));
    }
    let contents = || messages.values().flat_map(BTreeMap::values);
    if contents().count() > MAX_DEVICES {
        return Err(error::invalid_param(format!(
            "Messages can be sent to at most {MAX_DEVICES} devices at once"
        )));
    }
    if contents().any(|content| content.json().get().len() > MAX_CONTENT) {
        return Err(error::too_large(format!(
            "A message to a device has at most {MAX_CONTENT} bytes"
        )));
    }
    if contents().any(|content| !content.json().get().starts_with('{')) {
        return Err(error::bad_json("The content of a message is an object"));
    }
    Ok(())
}
