//! Spaces, and rooms before one is in them.

use bytes::Bytes;
use error::Result;
use rooms::{HierarchyQuery, RoomSummary};
use ruma::{RoomId, api::client::space::get_hierarchy};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    directory::{Shown, shown},
    reading::viewer,
};
use crate::{Call, Server, endpoint::Written};

/// The most rooms on a page, and how many there are on one if nobody says.
const MOST: usize = 100;
const PAGE: usize = 50;
/// How far down a tree of spaces is gone, at most.
const DEEPEST: u64 = 100;

/// [`GET /rooms/{roomId}/hierarchy`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy).
pub(super) async fn get_hierarchy(
    server: Server,
    call: Call<get_hierarchy::v1::Request>,
) -> Result<Written> {
    #[derive(Serialize)]
    struct Page<'a> {
        rooms: Vec<SpaceRoom<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        next_batch: Option<&'a str>,
    }
    let limit = call.limit.map(u64::from);
    if limit == Some(0) {
        return Err(error::invalid_param("`limit` is greater than 0"));
    }
    let limit = limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(MOST));
    let query = HierarchyQuery {
        suggested_only: call.suggested_only,
        max_depth: call.max_depth.map_or(DEEPEST, u64::from).min(DEEPEST),
        limit: limit.min(MOST),
    };
    let viewer = viewer(&server, &call.caller);
    let from = call.from.as_deref();
    let page = server
        .rooms
        .hierarchy(&viewer, &call.room_id, query, from)
        .await?;
    let page = Page {
        rooms: page.rooms.iter().map(SpaceRoom::of).collect(),
        next_batch: page.next.as_deref(),
    };
    let json = serde_json::to_vec(&page).map_err(error::internal)?;
    Ok(Written(Bytes::from(json)))
}

/// A room with the rooms that it names, if it is a space.
#[derive(Serialize)]
pub(crate) struct SpaceRoom<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    children_state: Vec<&'a RawValue>,
}

impl<'a> SpaceRoom<'a> {
    pub(crate) fn of(room: &'a RoomSummary) -> Self {
        Self {
            summary: Summary::of(room),
            children_state: room.children.iter().map(|child| &*child.event).collect(),
        }
    }
}

/// A room as it is shown to those who may come to it.
#[derive(Serialize)]
pub(crate) struct Summary<'a> {
    #[serde(flatten)]
    shown: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption: Option<&'a str>,
    room_version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed_room_ids: Vec<&'a RoomId>,
}

impl<'a> Summary<'a> {
    pub(crate) fn of(summary: &'a RoomSummary) -> Self {
        Self {
            shown: shown(&summary.room_id, &summary.shown),
            encryption: summary.encryption.as_deref(),
            room_version: &summary.room_version,
            allowed_room_ids: summary.allowed_rooms.iter().map(AsRef::as_ref).collect(),
        }
    }
}
