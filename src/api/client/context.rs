//! The events around an event.

use std::collections::BTreeSet;

use error::Result;
use rooms::{ReadEvent, event_filter};
use ruma::api::client::filter::RoomEventFilter;

use super::reading::Reading;
use crate::{Call, Server};

/// Ruma's request lacks what filters say of relations.
mod get_context {
    pub(super) mod v3 {
        pub(crate) use ruma::api::client::context::get_context::v3::Response;
        use ruma::{
            OwnedEventId, OwnedRoomId, UInt,
            api::{auth_scheme::AccessToken, request},
            metadata, uint,
        };

        use crate::client::message::TimelineFilter;

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/rooms/{room_id}/context/{event_id}",
                1.1 => "/_matrix/client/v3/rooms/{room_id}/context/{event_id}",
            }
        }

        /// Request of `GET /context`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) room_id: OwnedRoomId,
            #[ruma_api(path)]
            pub(crate) event_id: OwnedEventId,
            #[serde(default = "some")]
            #[ruma_api(query)]
            pub(crate) limit: UInt,
            #[serde(with = "ruma::serde::json_string", default)]
            #[ruma_api(query)]
            pub(crate) filter: TimelineFilter,
        }

        fn some() -> UInt {
            uint!(10)
        }
    }
}
pub(super) use self::get_context::v3::Request as ContextRequest;

/// The most events around one.
const MOST: usize = 100;

/// [`GET /rooms/{roomId}/context/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid).
pub(super) async fn get_context(
    server: Server,
    call: Call<ContextRequest>,
) -> Result<get_context::v3::Response> {
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let none = || error::not_found("There is no such event here, or you may not see it");
    let event = room
        .find_event(&server.rooms, snapshot, &call.event_id)
        .await?
        .ok_or_else(none)?;
    let alone = std::slice::from_ref(&event);
    let visible = room.visible(snapshot, viewer, look, alone).await?;
    let place = event.row.header.place.ok_or_else(none)?;
    if visible != [true] {
        return Err(none());
    }
    let limit = usize::try_from(u64::from(call.limit))
        .unwrap_or(MOST)
        .min(MOST);
    let limits = [limit / 2, limit - limit / 2];
    let around = reading.around(place, limits, &call.filter).await?;
    let (before, after) = (&around.before, &around.after);

    let last = after.events.last().unwrap_or(&event);
    let state = state_after(&reading, &call.filter.plain, last, |senders| {
        let all = before.events.iter().chain(alone).chain(&after.events);
        senders.extend(all.map(|event| event.row.header.sender.clone()));
    })
    .await?;
    let mut response = get_context::v3::Response::new();
    response.start = Some(around.start.to_string());
    response.end = Some(around.end.to_string());
    response.events_before = reading.events(&before.events).await?;
    response.event = reading.events(alone).await?.pop();
    response.events_after = reading.events(&after.events).await?;
    response.state = reading.state(&state).await?;
    Ok(response)
}

/// The state after an event, as far as the filter wants it. With lazy loading only the members that
/// `senders` names, whatever the filter says of types: they are there to show the other events.
async fn state_after(
    reading: &Reading,
    filter: &RoomEventFilter,
    event: &ReadEvent,
    senders: impl FnOnce(&mut BTreeSet<String>),
) -> Result<Vec<ReadEvent>> {
    let (rooms, room, root) = (&reading.server.rooms, &reading.room, event.roots.after);
    let (snapshot, look) = (&reading.snapshot, &reading.look);
    let lazy = !filter.lazy_load_options.is_disabled();
    let mut state = if lazy {
        let mut members = BTreeSet::new();
        senders(&mut members);
        room.state_with_members(rooms, snapshot, look, root, &members)
            .await?
    } else {
        room.state_at(rooms, snapshot, look, root).await?
    };
    state.retain(|event| {
        let member = event.row.header.event_type == "m.room.member";
        (lazy && member) || event_filter::passes(filter, event)
    });
    Ok(state)
}
