//! Messages of a room: sending them, and reading the timeline.

use error::Result;
use rooms::{Draft, Group, Page, PlaceToken, RelationFilter};
use ruma::{
    OwnedEventId,
    api::{
        Direction,
        client::{filter::RoomEventFilter, message::send_message_event},
    },
    events::MessageLikeEventType,
};
use serde::Deserialize;
use storage::schema::ONCE_BY_DAY;

use super::{
    appservice::chosen_time,
    reading::{Reading, viewer},
    redact::check_own,
    the_event,
    transaction::transaction,
};
use crate::{Call, Server, suspended};

/// Ruma's request lacks what filters say of relations.
mod get_message_events {
    pub(super) mod v3 {
        pub(crate) use ruma::api::client::message::get_message_events::v3::Response;
        use ruma::{
            OwnedRoomId, UInt,
            api::{Direction, auth_scheme::AccessToken, request},
            metadata, uint,
        };

        use super::super::TimelineFilter;

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/rooms/{room_id}/messages",
                1.1 => "/_matrix/client/v3/rooms/{room_id}/messages",
            }
        }

        /// Request of `GET /messages`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) room_id: OwnedRoomId,
            #[ruma_api(query)]
            pub(crate) from: Option<String>,
            #[ruma_api(query)]
            pub(crate) to: Option<String>,
            #[ruma_api(query)]
            pub(crate) dir: Direction,
            #[serde(default = "page")]
            #[ruma_api(query)]
            pub(crate) limit: UInt,
            #[serde(with = "ruma::serde::json_string", default)]
            #[ruma_api(query)]
            pub(crate) filter: TimelineFilter,
        }

        fn page() -> UInt {
            uint!(10)
        }
    }
}
pub(super) use self::get_message_events::v3::Request as MessagesRequest;

/// A filter of room events, with what it says of relations.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct TimelineFilter {
    #[serde(flatten)]
    pub(super) plain: RoomEventFilter,
    #[serde(flatten)]
    pub(super) relations: RelationFilter,
}

/// [`PUT /rooms/{roomId}/send/{eventType}/{txnId}`](https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid).
pub(super) async fn send_message_event(
    server: Server,
    call: Call<send_message_event::v3::Request>,
) -> Result<send_message_event::v3::Response> {
    if call.caller.suspended {
        check_redaction_of_own(&server, &call).await?;
    }
    let request = call.request;
    let event_type = request.event_type.to_string();
    let action = ["send", request.room_id.as_str(), &event_type];
    let (once, sent) = transaction(&server, &call.caller, &action, &request.txn_id)?;
    let room = server.rooms.room(&request.room_id).await?;
    let sender = call.caller.user_id.clone();
    let content = request.body.json().get().as_bytes();
    let checked = room
        .check_relation(&server.rooms, &sender, &event_type, content)
        .await;
    if let Err(refusal) = checked {
        // What was sent already is answered as it was then.
        let snapshot = server.rooms.snapshot().await?;
        let sent = snapshot.multi_get(&ONCE_BY_DAY, &once.keys()).await?;
        if sent.iter().all(Option::is_none) {
            return Err(refusal);
        }
    }
    let draft = Draft {
        sent: Some(sent),
        origin_server_ts: chosen_time(&call.caller, request.timestamp),
        ..Draft::message(sender, request.event_type, request.body.into_json())
    };
    let mut group = Group::one(draft);
    group.once = Some(once);
    let event_id = the_event(server.rooms.send(&room, group).await?)?;
    let sender = viewer(&server, &call.caller);
    server.rooms.is_active(&sender).await;
    Ok(send_message_event::v3::Response::new(event_id))
}

/// Who is suspended sends nothing but redactions of what they sent.
///
/// # Errors
///
/// 403 `M_USER_SUSPENDED`.
async fn check_redaction_of_own(
    server: &Server,
    call: &Call<send_message_event::v3::Request>,
) -> Result<()> {
    #[derive(Deserialize)]
    struct Content {
        redacts: OwnedEventId,
    }
    let content = serde_json::from_slice::<Content>(&call.body);
    match (&call.event_type, content) {
        (MessageLikeEventType::RoomRedaction, Ok(content)) => {
            check_own(server, &call.caller, &call.room_id, &content.redacts).await
        }
        _ => Err(suspended::refusal()),
    }
}

/// [`GET /rooms/{roomId}/messages`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages).
pub(super) async fn get_message_events(
    server: Server,
    call: Call<MessagesRequest>,
) -> Result<get_message_events::v3::Response> {
    let (reading, start, page) = Reading::page(&server, &call.caller, &call.request).await?;
    let mut response = get_message_events::v3::Response::new();
    if !call.filter.plain.lazy_load_options.is_disabled()
        && let Some(first) = page.events.first()
    {
        let members = reading.senders(first.roots.after, &page.events).await?;
        response.state = reading.state(&members).await?;
    }
    response.start = start.to_string();
    let next = page.next.or_else(|| behind(&page, &call.request));
    response.end = next.map(|next| next.to_string());
    response.chunk = reading.events(&page.events).await?;
    Ok(response)
}

/// Where to go on behind the last page of chosen events.
///
/// NOTSPEC: there is nothing there, and so no `end`; Synapse tells one behind every page that holds something,
/// Complement looks for it where a filter chooses events.
fn behind(page: &Page, request: &MessagesRequest) -> Option<PlaceToken> {
    let filter = &request.filter.plain;
    let chooses = filter.url_filter.is_some() || filter.types.is_some() || filter.senders.is_some();
    let place = page.events.last()?.row.header.place?;
    chooses.then(|| match request.dir {
        Direction::Backward => PlaceToken::before(place),
        Direction::Forward => PlaceToken(place),
    })
}
