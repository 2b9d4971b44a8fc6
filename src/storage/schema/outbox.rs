//! The tables of what other servers are still to be told, and of what they told of their people's devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    NameHash, Position, ShortRoomId, ShortUserId, Stamped, schema::Place, table::tables,
    value::records,
};

tables! { OUTBOX_TABLES:
    /// Servers for which something was left in the tables below, in the order in which it was. Whoever leaves something writes it; the outbox removes it when nothing is left.
    180 DESTINATION_BY_POSITION Log: Position => DestinationRow;
    /// Rooms of which a server that lags has not been told everything. The outbox writes it.
    181 LATE_ROOM_BY_DESTINATION Range: (NameHash, ShortRoomId) => LateRoomRow;
    /// Messages to devices of another server, as the EDUs to be sent. Users write it, the outbox removes what was sent.
    182 MESSAGE_BY_DESTINATION Log: (NameHash, Position) => String;
    /// Up to where a server was told of the devices of a person of ours. The outbox writes it.
    183 TOLD_DEVICES_BY_DESTINATION Range: (NameHash, ShortUserId) => ToldDevicesRow;
    /// People of ours of whose devices a server may have something to be told. Rooms and the outbox write it, the outbox removes what was told.
    184 DEVICE_NEWS_BY_DESTINATION Range: (NameHash, ShortUserId) => Stamped<()>;
    /// The latest change of each device of a person of ours, as other servers are told of it; under no device, that of their cross-signing keys. Users write it.
    185 DEVICE_UPDATE_BY_USER Range: (ShortUserId, NameHash) => DeviceUpdateRow;
    /// Which changes of a person's devices there were. Users write it.
    186 DEVICE_VERSION_BY_USER Hot: ShortUserId => DeviceVersionRow;
    /// The rooms that a person of another server is in, with where their latest change of devices stands there; under no name, the rooms that somebody of ours is in. Rooms write it.
    187 ROOM_BY_REMOTE_USER Range: (NameHash, ShortRoomId) => Stamped<RemoteRoomRow>;
    /// What another server said of the devices of one of its people. Rooms write it.
    188 DEVICES_BY_REMOTE_USER Point: NameHash => Stamped<RemoteDevicesRow>;
}

/// A server for which something was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationRow {
    /// Its name.
    pub name: String,
}

/// A room of which a server was not told everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateRoomRow {
    /// The place of the first event that it was not told of.
    pub from: Place,
    /// Raised when more of the room came to be told while it was being told of what there was.
    pub again: u32,
}

/// Up to where a server was told of somebody's devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldDevicesRow {
    /// The number of the last change that it was told of.
    pub told: u64,
    /// The `stream_id` of the last `m.device_list_update` that it was sent.
    pub latest: Option<u64>,
}

/// The latest change of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceUpdateRow {
    /// The device's id; empty for the cross-signing keys.
    pub device_id: String,
    /// The number of the change: `stream_id`.
    pub number: u64,
    /// A hash of what was published of it; none of a device that is gone.
    pub published: Option<NameHash>,
}

/// Which changes of a person's devices there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceVersionRow {
    /// The number of the latest change.
    pub latest: u64,
    /// The greatest number of a change that is not remembered any more: who was not told of it has to ask.
    pub forgotten: u64,
}

/// A room that a person of another server is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRoomRow {
    /// Since when; since the row was written if none.
    pub since: Option<Position>,
}

/// What another server said of somebody's devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDevicesRow {
    /// Whose.
    pub user_id: String,
    /// Something was missed: it is to be asked for anew.
    pub stale: bool,
    /// The `stream_id` of what it said first.
    pub stream_id: Option<u64>,
    /// The `stream_id`s of the latest updates since.
    pub seen: Vec<u64>,
    /// The devices, by their ids.
    pub devices: BTreeMap<String, RemoteDevice>,
    /// The key that stands for the user, as JSON.
    pub master: Option<String>,
    /// The key with which they sign their devices, as JSON.
    pub self_signing: Option<String>,
}

/// A device of a person of another server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDevice {
    /// Its identity keys, as JSON without `unsigned`; none if it has not published any.
    pub keys: Option<String>,
    /// What its user calls it.
    pub display_name: Option<String>,
}

records!(
    DestinationRow,
    LateRoomRow,
    ToldDevicesRow,
    DeviceUpdateRow,
    DeviceVersionRow,
    RemoteRoomRow,
    RemoteDevicesRow,
);
