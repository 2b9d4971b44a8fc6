//! Messages for devices of other servers ([spec]): parcels that wait until the outbox has sent them.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging

use std::collections::BTreeMap;

use error::Result;
use ruma::{
    OwnedServerName, UserId, events::AnyToDeviceEventContent, serde::Raw,
    to_device::DeviceIdOrAllDevices,
};
use serde::Serialize;
use storage::{
    Batch, NameHash, Position, Topic,
    schema::{DESTINATION_BY_POSITION, DestinationRow, MESSAGE_BY_DESTINATION},
};

use super::{MAX_CONTENT, Sending};
use crate::Users;

/// The messages of one EDU, by user and device.
type OfParcel<'a> =
    BTreeMap<&'a UserId, BTreeMap<&'a DeviceIdOrAllDevices, &'a Raw<AnyToDeviceEventContent>>>;

/// Messages for devices of one server, as one EDU.
pub(super) struct Parcel {
    server: OwnedServerName,
    edu: String,
}

#[derive(Serialize)]
struct Edu<'a> {
    edu_type: &'static str,
    content: Content<'a>,
}

/// `m.direct_to_device`
#[derive(Serialize)]
struct Content<'a> {
    sender: &'a UserId,
    #[serde(rename = "type")]
    event_type: &'a str,
    message_id: &'a str,
    messages: &'a OfParcel<'a>,
}

impl Parcel {
    /// Puts it into the queue of its server, as the `index`th thing of a batch.
    pub(super) fn put(&self, batch: &mut Batch, server: NameHash, index: u16) {
        let position = Position::pending(index);
        batch.put(&MESSAGE_BY_DESTINATION, &(server, position), &self.edu);
        let name = self.server.to_string();
        let row = DestinationRow { name };
        batch.put(&DESTINATION_BY_POSITION, &position, &row);
        batch.wake(Topic::Destinations);
    }
}

impl Users {
    /// What is for devices of other servers: parcels, numbered for each server, each of about the longest
    /// message at most. The same for the same request, however often it is made.
    pub(super) fn parcels(&self, sending: &Sending<'_>) -> Result<Vec<(NameHash, u32, Parcel)>> {
        let ours = self.server_name();
        let mut by_server: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (user, devices) in sending.messages {
            if user.server_name() != ours {
                let of_server = by_server.entry(user.server_name()).or_default();
                of_server.extend(devices.iter().map(|(device, json)| (user, device, json)));
            }
        }
        let mut parcels = Vec::new();
        for (server, messages) in by_server {
            let hash = self.0.storage.server_hash(server);
            let (mut bytes, mut held) = (0, OfParcel::new());
            let mut number = 0;
            let mut close = |held: &mut OfParcel<'_>| {
                let parcel = Parcel {
                    server: server.to_owned(),
                    edu: self.edu(sending, hash, number, held)?,
                };
                parcels.push((hash, number, parcel));
                number += 1;
                held.clear();
                Ok::<_, error::Error>(())
            };
            for (user, device, json) in messages {
                let more = json.json().get().len() + user.as_str().len() + 255;
                if bytes + more > MAX_CONTENT && !held.is_empty() {
                    close(&mut held)?;
                    bytes = 0;
                }
                bytes += more;
                held.entry(user).or_default().insert(device, json);
            }
            if !held.is_empty() {
                close(&mut held)?;
            }
        }
        Ok(parcels)
    }

    fn edu(
        &self,
        sending: &Sending<'_>,
        server: NameHash,
        number: u32,
        messages: &OfParcel<'_>,
    ) -> Result<String> {
        let name = [
            &sending.once.name.0[..],
            &server.0[..],
            &number.to_be_bytes(),
        ];
        // 32 letters, as many as the specification allows.
        let message_id = format!("{:?}", self.0.storage.hash("message id", name.concat()));
        let edu = Edu {
            edu_type: "m.direct_to_device",
            content: Content {
                sender: sending.sender,
                event_type: sending.event_type,
                message_id: &message_id,
                messages,
            },
        };
        serde_json::to_string(&edu).map_err(error::internal)
    }
}
