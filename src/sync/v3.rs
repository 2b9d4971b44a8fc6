//! Writing what changed for `/sync` ([spec]).
//!
//! Events are written already; they are put together as they are, without Ruma's types in between.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync

use std::collections::{BTreeMap, BTreeSet};

use rooms::Count;
use ruma::{EventId, OwnedUserId, RoomId};
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;

use crate::{Invited, Joined, Left, Request, StateForm, Summary, Timeline, Token, Update};

/// The answer's body.
///
/// # Errors
///
/// Internal, if something that was stored cannot be written.
pub fn encode(request: &Request, update: &Update, token: Token) -> error::Result<Vec<u8>> {
    let rooms = Rooms {
        join: update
            .joined
            .iter()
            .map(|joined| (&*joined.room.room_id, JoinedRoom(request, joined)))
            .collect(),
        invite: outside(&update.invited),
        knock: outside(&update.knocked),
        leave: update
            .left
            .iter()
            .map(|left| (&*left.room.room_id, LeftRoom(request, left)))
            .collect(),
    };
    let of_device = &update.of_device;
    let answer = Answer {
        next_batch: token.to_string(),
        to_device: Events::some(&of_device.messages),
        device_lists: Some(&update.device_lists)
            .filter(|lists| !lists.is_empty())
            .map(|lists| Lists {
                changed: &lists.changed,
                left: &lists.left,
            }),
        device_one_time_keys_count: &of_device.one_time_keys,
        device_unused_fallback_key_types: &of_device.unused_fallback_keys,
        account_data: Events::some(&update.account_data),
        presence: Events::some(&update.presence),
        rooms: Some(rooms).filter(|rooms| !rooms.is_empty()),
    };
    serde_json::to_vec(&answer).map_err(error::internal)
}

fn outside(rooms: &[Invited]) -> BTreeMap<&RoomId, Outside<'_>> {
    rooms
        .iter()
        .map(|invited| (&*invited.room.room_id, Outside(invited)))
        .collect()
}

#[derive(Serialize)]
struct Answer<'a> {
    next_batch: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_device: Option<Events<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_lists: Option<Lists<'a>>,
    device_one_time_keys_count: &'a BTreeMap<String, u32>,
    // There even if it is empty: it tells that the server knows fallback keys.
    device_unused_fallback_key_types: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    account_data: Option<Events<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Events<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<Rooms<'a>>,
}

#[derive(Serialize)]
struct Lists<'a> {
    changed: &'a BTreeSet<String>,
    left: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct Rooms<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<&'a RoomId, JoinedRoom<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<&'a RoomId, Outside<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<&'a RoomId, Outside<'a>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<&'a RoomId, LeftRoom<'a>>,
}

impl Rooms<'_> {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

#[derive(Serialize)]
struct Events<'a> {
    events: &'a [Box<RawValue>],
}

impl<'a> Events<'a> {
    fn some(events: &'a [Box<RawValue>]) -> Option<Self> {
        (!events.is_empty()).then_some(Self { events })
    }
}

struct JoinedRoom<'a>(&'a Request, &'a Joined);

impl Serialize for JoinedRoom<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(request, joined) = self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(summary) = &joined.summary {
            map.serialize_entry("summary", &RoomSummary::new(summary))?;
        }
        let unread = &joined.unread;
        if request.filter.room.timeline.unread_thread_notifications {
            map.serialize_entry("unread_notifications", &Counts::new(unread.main))?;
            let threads: BTreeMap<&EventId, Counts> = unread
                .threads
                .iter()
                .map(|(root, count)| (&**root, Counts::new(*count)))
                .collect();
            if !threads.is_empty() {
                map.serialize_entry("unread_thread_notifications", &threads)?;
            }
        } else {
            map.serialize_entry("unread_notifications", &Counts::new(unread.whole()))?;
        }
        events(&mut map, request, &joined.timeline, &joined.state)?;
        for (name, list) in [
            ("ephemeral", &joined.ephemeral),
            ("account_data", &joined.account_data),
        ] {
            // Clients look for these lists in each room at first, even if they are empty.
            let filter = &request.filter.room;
            let all = filter.account_data.is_empty() && filter.ephemeral.is_empty();
            let at_first = request.since.is_none() && all;
            if at_first || !list.is_empty() {
                map.serialize_entry(name, &Events { events: list })?;
            }
        }
        map.end()
    }
}

struct LeftRoom<'a>(&'a Request, &'a Left);

impl Serialize for LeftRoom<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(request, left) = self;
        let mut map = serializer.serialize_map(None)?;
        events(&mut map, request, &left.timeline, &left.state)?;
        if let Some(list) = Events::some(&left.account_data) {
            map.serialize_entry("account_data", &list)?;
        }
        map.end()
    }
}

/// Timeline and state of a room.
fn events<M: serde::ser::SerializeMap>(
    map: &mut M,
    request: &Request,
    timeline: &Timeline,
    state: &[Box<RawValue>],
) -> Result<(), M::Error> {
    if timeline.prev_batch.is_some() || !timeline.events.is_empty() {
        map.serialize_entry("timeline", &RoomTimeline::new(timeline))?;
    }
    let state = Events { events: state };
    match request.state {
        StateForm::Before if state.events.is_empty() => Ok(()),
        StateForm::Before => map.serialize_entry("state", &state),
        // There even if it is empty: it tells the client not to look into the timeline for state.
        StateForm::After => map.serialize_entry("state_after", &state),
        StateForm::UnstableAfter => map.serialize_entry("org.matrix.msc4222.state_after", &state),
    }
}

struct Outside<'a>(&'a Invited);

impl Serialize for Outside<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let name = if self.0.knocked {
            "knock_state"
        } else {
            "invite_state"
        };
        let events = &self.0.stripped_state;
        map.serialize_entry(name, &Events { events })?;
        map.end()
    }
}

#[derive(Serialize)]
struct RoomTimeline<'a> {
    events: &'a [Box<RawValue>],
    limited: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
}

impl<'a> RoomTimeline<'a> {
    fn new(timeline: &'a Timeline) -> Self {
        Self {
            events: &timeline.events,
            limited: timeline.limited,
            prev_batch: timeline.prev_batch.map(|token| token.to_string()),
        }
    }
}

#[derive(Serialize)]
struct RoomSummary<'a> {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    heroes: Option<&'a [OwnedUserId]>,
    #[serde(rename = "m.joined_member_count")]
    joined: u64,
    #[serde(rename = "m.invited_member_count")]
    invited: u64,
}

impl<'a> RoomSummary<'a> {
    fn new(summary: &'a Summary) -> Self {
        Self {
            heroes: summary.heroes.as_deref(),
            joined: summary.joined,
            invited: summary.invited,
        }
    }
}

#[derive(Serialize)]
struct Counts {
    notification_count: u64,
    highlight_count: u64,
}

impl Counts {
    fn new(count: Count) -> Self {
        Self {
            notification_count: count.notifications,
            highlight_count: count.highlights,
        }
    }
}
