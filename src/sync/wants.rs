//! What a filter lets through, besides events.

use rooms::EventFormat;
use ruma::{OwnedRoomId, RoomId, api::client::filter};

use crate::Request;

/// Events of a timeline, if the filter says nothing.
const TIMELINE: usize = 10;
/// Events of a timeline at most.
const TIMELINE_MAX: usize = 500;

/// Whether a filter's lists of types let one through.
pub(crate) fn type_passes(
    types: Option<&[String]>,
    not_types: &[String],
    event_type: &str,
) -> bool {
    let is = |pattern: &String| rooms::event_filter::matches(pattern, event_type);
    !not_types.iter().any(is) && types.is_none_or(|types| types.iter().any(is))
}

/// Whether a filter's lists of rooms let one through.
pub(crate) fn room_passes(
    rooms: Option<&[OwnedRoomId]>,
    not_rooms: &[OwnedRoomId],
    room: &RoomId,
) -> bool {
    let is = |id: &OwnedRoomId| id == room;
    !not_rooms.iter().any(is) && rooms.is_none_or(|rooms| rooms.iter().any(is))
}

impl Request {
    /// How many events of a timeline are wanted.
    pub(crate) fn timeline_limit(&self) -> usize {
        let limit = self.filter.room.timeline.limit;
        limit
            .and_then(|limit| usize::try_from(u64::from(limit)).ok())
            .unwrap_or(TIMELINE)
            .min(TIMELINE_MAX)
    }

    /// In which form events are wanted.
    pub(crate) fn format(&self) -> EventFormat {
        match self.filter.event_format {
            filter::EventFormat::Federation => EventFormat::Federation,
            _ if self.device.is_none() => EventFormat::Client,
            _ => EventFormat::WithoutRoomId,
        }
    }
}
