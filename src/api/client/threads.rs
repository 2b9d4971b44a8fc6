//! The threads of a room, and subscriptions to them ([MSC4306], [MSC4308]).
//!
//! Of MSC4306 the push rules are left out: threads notify whether one is subscribed to them or not.
//!
//! [MSC4306]: https://github.com/matrix-org/matrix-spec-proposals/pull/4306
//! [MSC4308]: https://github.com/matrix-org/matrix-spec-proposals/pull/4308

use std::collections::BTreeMap;

use bytes::Bytes;
use error::Result;
use http::StatusCode;
use rooms::{PlaceToken, ReadEvent, Span, Subscribed};
use ruma::{
    EventId, RoomId,
    api::{
        Direction,
        client::threads::get_threads::{self, v1::IncludeThreads},
    },
};
use serde::{Deserialize, Serialize};
use storage::schema::{Place, Subscription};

use super::{reading::Reading, relations::page_limit, room::seen_event};
use crate::{Call, Server, endpoint::Written};

/// The most subscriptions on a page, and how many there are on one if nobody says.
const MOST: usize = 500;
const PAGE: usize = 100;

/// A subscription of the requester to a thread. Ruma has these endpoints behind features of its own.
macro_rules! subscription {
    ($module:ident, $method:ident $(, $field:ident: $type:ty)?) => {
        pub(crate) mod $module {
            pub(crate) mod unstable {
                use ruma::{
                    OwnedEventId, OwnedRoomId,
                    api::{auth_scheme::AccessToken, request, response},
                    metadata,
                };

                metadata! {
                    method: $method,
                    rate_limited: true,
                    authentication: AccessToken,
                    path: "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{event_id}/subscription",
                }

                /// Which thread, by its root.
                #[request]
                pub(crate) struct Request {
                    #[ruma_api(path)]
                    pub(crate) room_id: OwnedRoomId,
                    #[ruma_api(path)]
                    pub(crate) event_id: OwnedEventId,
                    $(
                        /// The event for which the client subscribes by itself.
                        #[serde(skip_serializing_if = "Option::is_none")]
                        pub(crate) $field: $type,
                    )?
                }

                /// What there is to say is written by hand.
                #[response]
                pub(crate) struct Response {}
            }
        }
    };
}

subscription!(get_thread_subscription, GET);
subscription!(subscribe_thread, PUT, automatic: Option<OwnedEventId>);
subscription!(unsubscribe_thread, DELETE);

pub(super) mod get_thread_subscriptions_changes {
    pub(crate) mod unstable {
        use ruma::{
            UInt,
            api::{Direction, auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: GET,
            rate_limited: true,
            authentication: AccessToken,
            path: "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions",
        }

        /// From where to where, back in time.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(query)]
            pub(crate) dir: Direction,
            #[ruma_api(query)]
            pub(crate) from: Option<String>,
            #[ruma_api(query)]
            pub(crate) to: Option<String>,
            #[ruma_api(query)]
            pub(crate) limit: Option<UInt>,
        }

        /// It is written by hand.
        #[response]
        pub(crate) struct Response {}
    }
}

/// `GET /rooms/{roomId}/thread/{eventId}/subscription` (MSC4306).
pub(super) async fn get_thread_subscription(
    server: Server,
    call: Call<get_thread_subscription::unstable::Request>,
) -> Result<Written> {
    let (reading, root) = seen_event(&server, &call.caller, &call.room_id, &call.event_id).await?;
    let found = server
        .rooms
        .find_subscription(&reading.snapshot, call.caller.user, &reading.room, &root)
        .await?;
    let automatic = match found {
        Some(Subscription::Manual) => false,
        Some(Subscription::Automatic) => true,
        Some(Subscription::Ended(_)) | None => {
            return Err(error::not_found("You are not subscribed to this thread"));
        }
    };
    let json = serde_json::json!({ "automatic": automatic });
    Ok(Written(Bytes::from(json.to_string())))
}

/// `PUT /rooms/{roomId}/thread/{eventId}/subscription` (MSC4306).
pub(super) async fn subscribe_thread(
    server: Server,
    call: Call<subscribe_thread::unstable::Request>,
) -> Result<subscribe_thread::unstable::Response> {
    let (caller, room_id) = (&call.caller, &call.room_id);
    let (reading, root) = seen_event(&server, caller, room_id, &call.event_id).await?;
    let cause = match &call.automatic {
        None => None,
        Some(cause) => {
            let (_, cause) = seen_event(&server, caller, room_id, cause).await?;
            Some(in_thread(&cause, &call.event_id)?)
        }
    };
    let subscribed = server
        .rooms
        .subscribe(caller.user, &reading.room, &root, cause)
        .await?;
    match subscribed {
        Subscribed::Yes => Ok(subscribe_thread::unstable::Response {}),
        Subscribed::EndedSince => Err(error::other(
            StatusCode::CONFLICT,
            "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION",
            "You have ended your subscription after this event",
        )),
    }
}

/// The place of an event of a thread.
///
/// # Errors
///
/// 400 `IO.ELEMENT.MSC4306.M_NOT_IN_THREAD` for one that is not.
fn in_thread(event: &ReadEvent, root: &EventId) -> Result<Place> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Relation,
    }
    #[derive(Deserialize)]
    struct Relation {
        rel_type: String,
        event_id: String,
    }
    let relation = serde_json::from_slice::<Content>(event.content()).ok();
    let relation = relation.map(|content| content.relates_to);
    let inside = relation.is_some_and(|relation| {
        relation.rel_type == "m.thread" && relation.event_id == root.as_str()
    });
    event.row.header.place.filter(|_| inside).ok_or_else(|| {
        error::other(
            StatusCode::BAD_REQUEST,
            "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD",
            "The event for which you subscribe is not in this thread",
        )
    })
}

/// `DELETE /rooms/{roomId}/thread/{eventId}/subscription` (MSC4306).
pub(super) async fn unsubscribe_thread(
    server: Server,
    call: Call<unsubscribe_thread::unstable::Request>,
) -> Result<unsubscribe_thread::unstable::Response> {
    let (reading, root) = seen_event(&server, &call.caller, &call.room_id, &call.event_id).await?;
    let end = Place::live(reading.look.head.next_slot.saturating_sub(1));
    server
        .rooms
        .unsubscribe(call.caller.user, &reading.room, &root, end)
        .await?;
    Ok(unsubscribe_thread::unstable::Response {})
}

/// `GET /thread_subscriptions` (MSC4308).
pub(super) async fn get_thread_subscriptions_changes(
    server: Server,
    call: Call<get_thread_subscriptions_changes::unstable::Request>,
) -> Result<Written> {
    #[derive(Serialize)]
    struct Change {
        #[serde(skip_serializing_if = "Option::is_none")]
        automatic: Option<bool>,
        bump_stamp: u64,
    }
    type Changes<'a> = BTreeMap<&'a RoomId, BTreeMap<&'a str, Change>>;
    #[derive(Default, Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        subscribed: Changes<'a>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        unsubscribed: Changes<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        end: Option<String>,
    }
    if call.dir != Direction::Backward {
        return Err(error::invalid_param("`dir` is b: back in time"));
    }
    let limit = call.limit.map(u64::from);
    if limit == Some(0) {
        return Err(error::invalid_param("`limit` is greater than 0"));
    }
    let limit = limit.map_or(PAGE, |limit| usize::try_from(limit).unwrap_or(MOST));
    let stamp = |token: &Option<String>| {
        let stamp = token.as_deref().map(str::parse::<u64>).transpose();
        stamp.map_err(|_| error::invalid_param("This is no token that this server has given out"))
    };
    let (from, to) = (stamp(&call.from)?, stamp(&call.to)?);
    let page = server
        .rooms
        .subscription_changes(call.caller.user, from, to, limit.min(MOST))
        .await?;
    let mut answer = Answer::default();
    for change in &page.changes {
        let (list, automatic) = match change.row.subscription {
            Subscription::Manual => (&mut answer.subscribed, Some(false)),
            Subscription::Automatic => (&mut answer.subscribed, Some(true)),
            Subscription::Ended(_) => (&mut answer.unsubscribed, None),
        };
        let bump_stamp = change.row.stamp;
        let shown = Change {
            automatic,
            bump_stamp,
        };
        let threads = list.entry(&*change.room.room_id).or_default();
        threads.insert(&change.row.root, shown);
    }
    answer.end = page.next.map(|next| next.to_string());
    let json = serde_json::to_vec(&answer).map_err(error::internal)?;
    Ok(Written(Bytes::from(json)))
}

/// [`GET /rooms/{roomId}/threads`](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidthreads).
pub(super) async fn get_threads(
    server: Server,
    call: Call<get_threads::v1::Request>,
) -> Result<get_threads::v1::Response> {
    let limit = page_limit(call.limit)?;
    let only_participated = match call.include {
        IncludeThreads::All => false,
        IncludeThreads::Participated => true,
        _ => {
            return Err(error::invalid_param("`include` is `all` or `participated`"));
        }
    };
    let reading = Reading::begin(&server, &call.caller, &call.room_id).await?;
    let Reading {
        room,
        snapshot,
        viewer,
        look,
        ..
    } = &reading;
    let from = match &call.from {
        Some(token) => reading.boundary(token).await?,
        None => PlaceToken(Place::END),
    };
    let span = Span {
        from,
        to: None,
        direction: Direction::Backward,
        limit,
    };
    let page = room
        .threads(
            &server.rooms,
            snapshot,
            (viewer, look),
            only_participated,
            span,
        )
        .await?;
    let mut response = get_threads::v1::Response::new(reading.events(&page.events).await?);
    response.next_batch = page.next.map(|next| next.to_string());
    Ok(response)
}
