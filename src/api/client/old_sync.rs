//! The first ways of synchronising, which `/sync` has replaced and the specification keeps ([spec]). They tell
//! a device nothing of itself: neither messages to it nor how many keys it has.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync

use bytes::Bytes;
use error::Result;
use rooms::RelationFilter;
use ruma::{
    RoomId, UInt, api::client::filter::FilterDefinition, events::AnyTimelineEvent, serde::Raw,
};
use serde::Serialize;
use serde_json::value::RawValue;
use storage::schema::Membership;
use sync::{Request, StateForm, Timeline, Token, Update};
use users::Requester;

use super::{
    peeking,
    reading::{Reading, viewer},
    room::find_event,
};
use crate::{Call, Server, endpoint::Written};

/// Events of each timeline that `/initialSync` tells if the client does not say how many.
const FIRST_EVENTS: u32 = 20;

/// Ruma's request cannot do without a room, which the deprecated form of the endpoint has not.
pub(super) mod listen_to_new_events {
    pub(in crate::client) mod v3 {
        use std::time::Duration;

        use ruma::{
            OwnedRoomId,
            api::{auth_scheme::AccessToken, request, response},
            events::AnyTimelineEvent,
            metadata,
            serde::Raw,
        };

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/events",
                1.1 => "/_matrix/client/v3/events",
            }
        }

        /// Request of `GET /events`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(query)]
            pub(crate) from: Option<String>,
            #[ruma_api(query)]
            pub(crate) room_id: Option<OwnedRoomId>,
            #[ruma_api(query)]
            #[serde(with = "ruma::serde::duration::opt_ms", default)]
            pub(crate) timeout: Option<Duration>,
        }

        /// Response of `GET /events`.
        #[response]
        pub(crate) struct Response {
            pub(crate) chunk: Vec<Raw<AnyTimelineEvent>>,
            pub(crate) start: String,
            pub(crate) end: String,
        }
    }
}

/// An endpoint that Ruma has not.
pub(super) mod get_one_event {
    pub(in crate::client) mod v3 {
        use ruma::{
            OwnedEventId,
            api::{auth_scheme::AccessToken, request, response},
            events::AnyTimelineEvent,
            metadata,
            serde::Raw,
        };

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/events/{event_id}",
                1.1 => "/_matrix/client/v3/events/{event_id}",
            }
        }

        /// Request of `GET /events/{eventId}`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) event_id: OwnedEventId,
        }

        /// Response of `GET /events/{eventId}`.
        #[response]
        pub(crate) struct Response {
            #[ruma_api(body)]
            pub(crate) event: Raw<AnyTimelineEvent>,
        }
    }
}

/// An endpoint that Ruma has not.
pub(super) mod initial_sync {
    pub(in crate::client) mod v3 {
        use ruma::{
            UInt,
            api::{auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: GET,
            rate_limited: false,
            authentication: AccessToken,
            history: {
                1.0 => "/_matrix/client/r0/initialSync",
                1.1 => "/_matrix/client/v3/initialSync",
            }
        }

        /// Request of `GET /initialSync`.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(query)]
            pub(crate) limit: Option<UInt>,
            #[ruma_api(query)]
            #[serde(default)]
            pub(crate) archived: bool,
        }

        /// It is written without Ruma's types.
        #[response]
        pub(crate) struct Response {}
    }
}

/// [`GET /initialSync`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3initialsync).
pub(super) async fn initial_sync(
    server: Server,
    call: Call<initial_sync::v3::Request>,
) -> Result<Written> {
    let mut filter = FilterDefinition::default();
    filter.room.include_leave = call.archived;
    filter.room.timeline.limit = Some(call.limit.unwrap_or(UInt::from(FIRST_EVENTS)));
    let mut request = asked(&server, &call.caller, filter);
    request.state = StateForm::After;
    let (update, token) = look(&server, &request).await?;
    let end = token.to_string();
    let mut rooms = Vec::new();
    for joined in &update.joined {
        rooms.push(RoomInfo {
            room_id: &joined.room.room_id,
            membership: Membership::Join.as_str(),
            visibility: match server.rooms.is_public(&joined.room).await? {
                true => Some("public"),
                false => Some("private"),
            },
            messages: Some(Messages::new(&joined.timeline, &end)),
            state: &joined.state,
            account_data: &joined.account_data,
            invite: None,
        });
    }
    let snapshot = server.rooms.snapshot().await?;
    let user = &call.caller.user_id;
    for left in &update.left {
        let membership = left.room.membership(&server.rooms, &snapshot, user).await?;
        rooms.push(RoomInfo {
            room_id: &left.room.room_id,
            membership: membership.unwrap_or(Membership::Leave).as_str(),
            visibility: None,
            messages: Some(Messages::new(&left.timeline, &end)),
            state: &left.state,
            account_data: &left.account_data,
            invite: None,
        });
    }
    for invited in &update.invited {
        let room = &invited.room;
        let member = room.member(&server.rooms, &snapshot, user).await?;
        let Some((membership, event_id)) = member else {
            continue;
        };
        // It was told to them, whatever they may see of the room.
        let reading = Reading::look(&server, &call.caller, &room.room_id).await?;
        let found = room.find_event(&server.rooms, &reading.snapshot, &event_id);
        let Some(invite) = found.await? else {
            continue;
        };
        let invite = reading.events(&[invite]).await?.pop();
        rooms.push(RoomInfo {
            room_id: &room.room_id,
            membership: membership.as_str(),
            visibility: None,
            messages: None,
            state: &[],
            account_data: &[],
            invite,
        });
    }
    let answer = InitialSync {
        end: &end,
        presence: &update.presence,
        account_data: &update.account_data,
        rooms,
    };
    let body = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(Bytes::from(body)))
}

/// `GET /events`: of [one room](https://spec.matrix.org/v1.19/client-server-api/#peek_events_endpoint), or of
/// [all](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3events) that the user is in.
pub(super) async fn listen_to_new_events(
    server: Server,
    call: Call<listen_to_new_events::v3::Request>,
) -> Result<listen_to_new_events::v3::Response> {
    if let Some(room_id) = &call.room_id {
        return peeking::listen(&server, &call, room_id).await;
    }
    let start = match &call.from {
        Some(from) => from
            .parse::<Token>()
            .map_err(|_| error::invalid_param("`from` is no token that this server gave out"))?,
        None => now(&server, &call.caller).await?,
    };
    let mut request = asked(&server, &call.caller, FilterDefinition::default());
    request.since = Some(start);
    request.timeout = call.timeout.unwrap_or_default();
    let (update, end) = look(&server, &request).await?;
    let joined = update.joined.into_iter().map(|joined| joined.timeline);
    let left = update.left.into_iter().map(|left| left.timeline);
    Ok(listen_to_new_events::v3::Response {
        chunk: joined
            .chain(left)
            .flat_map(|timeline| timeline.events)
            .map(Raw::from_json)
            .collect(),
        start: start.to_string(),
        end: end.to_string(),
    })
}

/// [`GET /events/{eventId}`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3eventseventid).
pub(super) async fn get_one_event(
    server: Server,
    call: Call<get_one_event::v3::Request>,
) -> Result<get_one_event::v3::Response> {
    let room = server.rooms.find_room_of_event(&call.event_id).await?;
    let room =
        room.ok_or_else(|| error::not_found("There is no such event, or you may not see it"))?;
    let event = find_event(&server, &call.caller, &room.room_id, &call.event_id).await?;
    Ok(get_one_event::v3::Response { event })
}

/// A question as `/sync` would ask it.
fn asked(server: &Server, requester: &Requester, filter: FilterDefinition) -> Request {
    Request {
        viewer: viewer(server, requester),
        device: None,
        since: None,
        filter,
        relations: RelationFilter::default(),
        full_state: false,
        state: StateForm::Before,
        timeout: std::time::Duration::ZERO,
    }
}

async fn look(server: &Server, request: &Request) -> Result<(Update, Token)> {
    server.syncs.sync(request, server.shutdown.begun()).await
}

/// A token for all that has happened.
async fn now(server: &Server, requester: &Requester) -> Result<Token> {
    let mut nothing = FilterDefinition::default();
    nothing.room.rooms = Some(Vec::new());
    let (_, token) = look(server, &asked(server, requester, nothing)).await?;
    Ok(token)
}

#[derive(Serialize)]
struct InitialSync<'a> {
    end: &'a str,
    presence: &'a [Box<RawValue>],
    account_data: &'a [Box<RawValue>],
    rooms: Vec<RoomInfo<'a>>,
}

#[derive(Serialize)]
struct RoomInfo<'a> {
    room_id: &'a RoomId,
    membership: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    visibility: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Messages<'a>>,
    state: &'a [Box<RawValue>],
    account_data: &'a [Box<RawValue>],
    #[serde(skip_serializing_if = "Option::is_none")]
    invite: Option<Raw<AnyTimelineEvent>>,
}

#[derive(Serialize)]
struct Messages<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    end: &'a str,
    chunk: &'a [Box<RawValue>],
}

impl<'a> Messages<'a> {
    fn new(timeline: &'a Timeline, end: &'a str) -> Self {
        Self {
            start: timeline.prev_batch.map(|start| start.to_string()),
            end,
            chunk: &timeline.events,
        }
    }
}
