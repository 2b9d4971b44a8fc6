//! What changed for a device, whatever way it is going to be written.

use std::sync::Arc;

use rooms::{PlaceToken, Room, Unread};
use ruma::OwnedUserId;
use serde_json::value::RawValue;
use storage::schema::Generation;

use crate::{device::OfDevice, device_lists::DeviceLists};

/// Everything that changed.
#[derive(Debug, Default)]
pub struct Update {
    /// Rooms that the user is in.
    pub joined: Vec<Joined>,
    /// Rooms that they left.
    pub left: Vec<Left>,
    /// Rooms that they are invited to.
    pub invited: Vec<Invited>,
    /// Rooms that they knock at.
    pub knocked: Vec<Invited>,
    /// Global account data.
    pub account_data: Vec<Box<RawValue>>,
    /// Who is online, where that changed.
    pub presence: Vec<Box<RawValue>>,
    /// What the device is told of itself.
    pub of_device: OfDevice,
    /// Whose devices changed.
    pub device_lists: DeviceLists,
}

/// A piece of a timeline.
#[derive(Debug, Default)]
pub struct Timeline {
    /// Its events, oldest first, as the client gets them.
    pub events: Vec<Box<RawValue>>,
    /// Whether the device has a gap before them.
    pub limited: bool,
    /// Where what is before them can be read.
    pub prev_batch: Option<PlaceToken>,
}

/// What changed in a room that the user is in.
#[derive(Debug)]
pub struct Joined {
    /// The room.
    pub room: Arc<Room>,
    /// New events.
    pub timeline: Timeline,
    /// The state that the device does not know, before or after the timeline.
    pub state: Vec<Box<RawValue>>,
    /// Who the room is named after, and how many are in it; where that changed.
    pub summary: Option<Summary>,
    /// What the user has not read.
    pub unread: Unread,
    /// Typing and receipts.
    pub ephemeral: Vec<Box<RawValue>>,
    /// Account data of the room.
    pub account_data: Vec<Box<RawValue>>,
    /// Whether it is to be told though nothing above is there: the counts changed.
    pub counts_changed: bool,
    /// With whom the user may share a room newly.
    pub(crate) met: Met,
}

/// With whom a user may share a room newly.
#[derive(Debug, Default)]
pub(crate) struct Met {
    /// With all that are in it.
    pub(crate) room_is_new: bool,
    /// Which of the room's flat tables are in force.
    pub(crate) generation: Generation,
    /// With those whose membership changed.
    pub(crate) members: Vec<String>,
}

/// Who a room is named after, and how many are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// A few members, if the room has no name.
    pub heroes: Option<Vec<OwnedUserId>>,
    /// How many are joined.
    pub joined: u64,
    /// How many are invited.
    pub invited: u64,
}

/// What changed in a room that the user left.
#[derive(Debug)]
pub struct Left {
    /// The room.
    pub room: Arc<Room>,
    /// Events up to their leaving.
    pub timeline: Timeline,
    /// The state that the device does not know, before or after the timeline.
    pub state: Vec<Box<RawValue>>,
    /// Account data of the room.
    pub account_data: Vec<Box<RawValue>>,
}

/// A room that the user is invited to, or knocks at.
#[derive(Debug)]
pub struct Invited {
    /// The room.
    pub room: Arc<Room>,
    /// Whether they knock.
    pub knocked: bool,
    /// What they see of it.
    pub stripped_state: Vec<Box<RawValue>>,
}

impl Update {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.joined.is_empty()
            && self.left.is_empty()
            && self.invited.is_empty()
            && self.knocked.is_empty()
            && self.account_data.is_empty()
            && self.presence.is_empty()
            && self.of_device.is_empty()
            && self.device_lists.is_empty()
    }
}

impl Joined {
    pub(crate) fn is_empty(&self) -> bool {
        self.timeline.events.is_empty()
            && !self.timeline.limited
            && self.state.is_empty()
            && self.summary.is_none()
            && self.ephemeral.is_empty()
            && self.account_data.is_empty()
            && !self.counts_changed
    }
}
