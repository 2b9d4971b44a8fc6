//! Events that are sent later ([MSC4140]): in the form in which the proposal was merged, and in those that
//! clients of today ask for.
//!
//! [MSC4140]: https://github.com/matrix-org/matrix-spec-proposals/pull/4140

use bytes::Bytes;
use error::{Error, Result};
use http::StatusCode;
use rooms::{DelayAction, Delayed, NewDelayedEvent};
use ruma::{
    RoomId, TransactionId,
    api::client::delayed_events::{get_all_delayed_events, update_delayed_event::UpdateAction},
};
use serde::Serialize;
use serde_json::value::RawValue;
use storage::{
    OnceKey, ShortUserId,
    schema::{DelayedEventRow, DelayedOutcome},
};
use users::Requester;

use super::{joined_room, state::check_aliases, transaction::transaction};
use crate::{Call, Server, endpoint::Written, suspended};

/// The parameter with which today's clients ask for a delay, where they send events.
pub(super) const DELAY: &str = "org.matrix.msc4140.delay";

/// The largest content of an event, in bytes; the event around it has to fit too, when it is sent.
const CONTENT_MAX: usize = 65_536;

/// An event that is to be sent later: the request of both paths.
macro_rules! send_later {
    ($module:ident, $path:literal) => {
        pub(crate) mod $module {
            use ruma::{
                OwnedRoomId, OwnedTransactionId, UInt,
                api::{auth_scheme::AccessToken, request, response},
                metadata,
            };
            use serde_json::value::RawValue;

            metadata! {
                method: PUT,
                rate_limited: true,
                authentication: AccessToken,
                path: $path,
            }

            /// What is to be sent, where, and when.
            #[request]
            pub(crate) struct Request {
                #[ruma_api(path)]
                pub(crate) room_id: OwnedRoomId,
                #[ruma_api(path)]
                pub(crate) event_type: String,
                #[ruma_api(path)]
                pub(crate) txn_id: OwnedTransactionId,
                // What it was called until the proposal was merged.
                #[serde(alias = "delay")]
                pub(crate) delay_ms: UInt,
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(crate) state_key: Option<String>,
                pub(crate) content: Box<RawValue>,
            }

            /// By which the event can be found.
            #[response]
            pub(crate) struct Response {
                pub(crate) delay_id: String,
            }
        }
    };
}

pub(super) mod send_delayed_event {
    send_later!(
        v3,
        "/_matrix/client/v3/rooms/{room_id}/delayed_event/{event_type}/{txn_id}"
    );
    send_later!(
        unstable,
        "/_matrix/client/unstable/org.matrix.msc4140/rooms/{room_id}/delayed_event/{event_type}/{txn_id}"
    );
}

/// An event that is to be sent later by a parameter of the query: Ruma's cannot read it.
macro_rules! send_with_query {
    ($path:literal, $variable:ident) => {
        pub(crate) mod unstable {
            use ruma::{
                OwnedRoomId, UInt,
                api::{auth_scheme::AccessToken, request, response},
                metadata,
            };
            use serde_json::value::RawValue;

            metadata! {
                method: PUT,
                rate_limited: true,
                authentication: AccessToken,
                path: $path,
            }

            /// What is to be sent, where, and when.
            #[request]
            pub(crate) struct Request {
                #[ruma_api(path)]
                pub(crate) room_id: OwnedRoomId,
                #[ruma_api(path)]
                pub(crate) event_type: String,
                #[ruma_api(path)]
                pub(crate) $variable: String,
                #[ruma_api(query)]
                #[serde(rename = "org.matrix.msc4140.delay")]
                pub(crate) delay: UInt,
                #[ruma_api(body)]
                pub(crate) content: Box<RawValue>,
            }

            /// By which the event can be found.
            #[response]
            pub(crate) struct Response {
                pub(crate) delay_id: String,
            }
        }
    };
}

pub(super) mod delayed_message_event {
    send_with_query!(
        "/_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
        txn_id
    );
}

pub(super) mod delayed_state_event {
    send_with_query!(
        "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}",
        state_key
    );
}

pub(super) mod get_delayed_event {
    pub(crate) mod v1 {
        use ruma::{
            api::{auth_scheme::AccessToken, request, response},
            metadata,
        };

        metadata! {
            method: GET,
            rate_limited: true,
            authentication: AccessToken,
            path: "/_matrix/client/v1/delayed_events/{delay_id}",
        }

        /// Which one.
        #[request]
        pub(crate) struct Request {
            #[ruma_api(path)]
            pub(crate) delay_id: String,
        }

        /// Written by hand: see [`Shown`](super::super::Shown).
        #[response]
        pub(crate) struct Response {}
    }
}

/// What is to be done to a delayed event, by whom.
macro_rules! update {
    ($module:ident, $authentication:ident, $path:literal, $($action:meta)?) => {
        pub(crate) mod $module {
            use ruma::{
                api::{auth_scheme, client::delayed_events::update_delayed_event::UpdateAction, request, response},
                metadata,
            };
            use auth_scheme::$authentication;

            metadata! {
                method: POST,
                rate_limited: true,
                authentication: $authentication,
                path: $path,
            }

            /// Which event, and what.
            #[request]
            pub(crate) struct Request {
                #[ruma_api(path)]
                pub(crate) delay_id: String,
                $(#[$action])?
                pub(crate) action: UpdateAction,
            }

            /// Nothing to say.
            #[response]
            pub(crate) struct Response {}
        }
    };
}

pub(super) mod update_delayed_event {
    update!(
        v1,
        AccessToken,
        "/_matrix/client/v1/delayed_events/{delay_id}/{action}",
        ruma_api(path)
    );
    update!(
        unstable,
        AccessTokenOptional,
        "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}/{action}",
        ruma_api(path)
    );
    update!(
        v0,
        AccessTokenOptional,
        "/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delay_id}",
    );
}

/// In which form a delay was asked for, and so in which it is refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Merged,
    Unstable,
    /// By a parameter of the query.
    Query,
}

impl Form {
    fn too_long(self, most: u64) -> Error {
        let message = format!("An event is delayed by at most {most} ms here");
        let max_delay = "org.matrix.msc4140.max_delay";
        let status = StatusCode::BAD_REQUEST;
        match self {
            Self::Merged => error::other(status, "M_DELAY_TOO_LARGE", message),
            Self::Unstable => error::other(status, "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE", message)
                .with_member(max_delay, most),
            Self::Query => error::unknown(status, message)
                .with_member("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
                .with_member(max_delay, most),
        }
    }
}

/// An event as it came with a request.
struct Later<'a> {
    form: Form,
    room_id: &'a RoomId,
    event_type: String,
    state_key: Option<String>,
    content: Box<RawValue>,
    delay: u64,
    once: Option<OnceKey>,
}

/// Takes in an event that is to be sent later.
async fn delay(server: &Server, requester: &Requester, later: Later<'_>) -> Result<String> {
    // By a parameter of the query it is an endpoint that they may ask for otherwise.
    if requester.suspended {
        return Err(suspended::refusal());
    }
    let settings = &server.config.delayed_events;
    let most = u64::try_from(settings.max_delay.as_millis()).unwrap_or(u64::MAX);
    if most == 0 {
        return Err(error::forbidden("This server sends no events later"));
    }
    if later.delay == 0 {
        return Err(error::invalid_param("The delay is greater than 0"));
    }
    if later.delay > most {
        return Err(later.form.too_long(most));
    }
    let content = later.content.get();
    if !content.trim_start().starts_with('{') {
        return Err(error::bad_json("content is a JSON object"));
    }
    if content.len() > CONTENT_MAX {
        return Err(error::too_large(
            "The content is larger than an event may be",
        ));
    }
    // Whether there is such a room is not told to those outside.
    let room = joined_room(server, later.room_id, &requester.user_id).await?;
    if later.event_type == "m.room.canonical_alias" && later.state_key.as_deref() == Some("") {
        check_aliases(server, &room, content).await?;
    }
    let new = NewDelayedEvent {
        user: requester.user,
        user_id: requester.user_id.clone(),
        room_id: later.room_id,
        event_type: later.event_type,
        state_key: later.state_key,
        content: later.content,
        delay: later.delay,
        once: later.once,
    };
    let scheduled = usize::try_from(settings.max_scheduled).unwrap_or(usize::MAX);
    server.rooms.delay(new, scheduled).await
}

/// What makes a delay happen once.
fn once(
    server: &Server,
    requester: &Requester,
    room_id: &RoomId,
    event_type: &str,
    txn_id: &TransactionId,
) -> Result<OnceKey> {
    let action = ["delay", room_id.as_str(), event_type];
    Ok(transaction(server, requester, &action, txn_id)?.0)
}

/// `PUT /rooms/{roomId}/delayed_event/{eventType}/{txnId}` (MSC4140).
pub(super) async fn send_delayed_event(
    server: Server,
    call: Call<send_delayed_event::v3::Request>,
) -> Result<send_delayed_event::v3::Response> {
    let request = call.request;
    let (room_id, event_type) = (&request.room_id, &request.event_type);
    let once = once(&server, &call.caller, room_id, event_type, &request.txn_id)?;
    let later = Later {
        form: Form::Merged,
        room_id,
        event_type: request.event_type.clone(),
        state_key: request.state_key,
        content: request.content,
        delay: request.delay_ms.into(),
        once: Some(once),
    };
    let delay_id = delay(&server, &call.caller, later).await?;
    Ok(send_delayed_event::v3::Response { delay_id })
}

/// The same, as it is asked until the specification has it.
pub(super) async fn send_delayed_event_unstable(
    server: Server,
    call: Call<send_delayed_event::unstable::Request>,
) -> Result<send_delayed_event::unstable::Response> {
    let request = call.request;
    let (room_id, event_type) = (&request.room_id, &request.event_type);
    let once = once(&server, &call.caller, room_id, event_type, &request.txn_id)?;
    let later = Later {
        form: Form::Unstable,
        room_id,
        event_type: request.event_type.clone(),
        state_key: request.state_key,
        content: request.content,
        delay: request.delay_ms.into(),
        once: Some(once),
    };
    let delay_id = delay(&server, &call.caller, later).await?;
    Ok(send_delayed_event::unstable::Response { delay_id })
}

/// `PUT /rooms/{roomId}/send/{eventType}/{txnId}` with a delay in its query, as Element Call asks it.
pub(super) async fn delayed_message_event(
    server: Server,
    call: Call<delayed_message_event::unstable::Request>,
) -> Result<delayed_message_event::unstable::Response> {
    let request = call.request;
    let (room_id, event_type) = (&request.room_id, &request.event_type);
    let txn_id = request.txn_id.as_str().into();
    let once = once(&server, &call.caller, room_id, event_type, txn_id)?;
    if call.body.is_empty() {
        // Complement asks again so. Nothing but what was asked before is in such a request.
        let before = server.rooms.delayed_once(once).await?;
        let delay_id = before.ok_or_else(|| error::not_json("The body of the request is empty"))?;
        return Ok(delayed_message_event::unstable::Response { delay_id });
    }
    let later = Later {
        form: Form::Query,
        room_id,
        event_type: request.event_type.clone(),
        state_key: None,
        content: request.content,
        delay: request.delay.into(),
        once: Some(once),
    };
    let delay_id = delay(&server, &call.caller, later).await?;
    Ok(delayed_message_event::unstable::Response { delay_id })
}

/// `PUT /rooms/{roomId}/state/{eventType}/{stateKey}` with a delay in its query.
pub(super) async fn delayed_state_event(
    server: Server,
    call: Call<delayed_state_event::unstable::Request>,
) -> Result<delayed_state_event::unstable::Response> {
    if call.body.is_empty() {
        return Err(error::not_json("The body of the request is empty"));
    }
    let request = call.request;
    let later = Later {
        form: Form::Query,
        room_id: &request.room_id,
        event_type: request.event_type,
        state_key: Some(request.state_key),
        content: request.content,
        delay: request.delay.into(),
        once: None,
    };
    let delay_id = delay(&server, &call.caller, later).await?;
    Ok(delayed_state_event::unstable::Response { delay_id })
}

/// A delayed event as its owner is shown it.
#[derive(Serialize)]
struct Shown<'a> {
    delay_id: &'a str,
    room_id: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    content: &'a RawValue,
    delay_ms: u64,
    delayed_since_ts: u64,
    // What these two were called until the proposal was merged.
    delay: u64,
    running_since: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalised: Option<Finalised<'a>>,
}

/// What became of it.
#[derive(Serialize)]
struct Finalised<'a> {
    finalised_ts: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Failure<'a>>,
}

#[derive(Serialize)]
struct Failure<'a> {
    errcode: &'a str,
    error: &'a str,
}

fn shown(row: &DelayedEventRow) -> Result<Shown<'_>> {
    let finalised = row.finalised.as_ref().map(|done| {
        let (event_id, error) = match &done.outcome {
            DelayedOutcome::Sent(event_id) => (Some(event_id.as_str()), None),
            DelayedOutcome::Cancelled => (None, None),
            DelayedOutcome::Failed { errcode, error } => (None, Some(Failure { errcode, error })),
        };
        Finalised {
            finalised_ts: done.ts,
            event_id,
            error,
        }
    });
    Ok(Shown {
        delay_id: &row.delay_id,
        room_id: &row.room_id,
        r#type: &row.event_type,
        state_key: row.state_key.as_deref(),
        content: serde_json::from_str(&row.content).map_err(error::internal)?,
        delay_ms: row.delay,
        delayed_since_ts: row.since_ts,
        delay: row.delay,
        running_since: row.since_ts,
        finalised,
    })
}

/// `GET /delayed_events`: those that wait to be sent. MSC4140 had it until it was merged; as Complement asks
/// it.
pub(super) async fn get_all_delayed_events(
    server: Server,
    call: Call<get_all_delayed_events::unstable::Request>,
) -> Result<Written> {
    #[derive(Serialize)]
    struct Answer<'a> {
        delayed_events: Vec<Shown<'a>>,
    }
    let rows = server.rooms.delayed_events(call.caller.user).await?;
    let delayed_events = rows.iter().map(shown).collect::<Result<_>>()?;
    let json = serde_json::to_vec(&Answer { delayed_events }).map_err(error::internal)?;
    Ok(Written(Bytes::from(json)))
}

/// `GET /delayed_events/{delayId}` (MSC4140).
pub(super) async fn get_delayed_event(
    server: Server,
    call: Call<get_delayed_event::v1::Request>,
) -> Result<Written> {
    let row = server
        .rooms
        .find_delayed_event(call.caller.user, &call.delay_id)
        .await?;
    let row = row.ok_or_else(unknown)?;
    let json = serde_json::to_vec(&shown(&row)?).map_err(error::internal)?;
    Ok(Written(Bytes::from(json)))
}

fn unknown() -> Error {
    error::not_found("There is no such delayed event")
}

/// Acts on a delayed event. `conflict`: the error where something else was done to it before.
async fn act(
    server: &Server,
    delay_id: &str,
    owner: Option<ShortUserId>,
    action: &UpdateAction,
    conflict: impl FnOnce() -> Error,
) -> Result<()> {
    let action = match action {
        UpdateAction::Send => DelayAction::Send,
        UpdateAction::Cancel => DelayAction::Cancel,
        UpdateAction::Restart => DelayAction::Restart,
        _ => return Err(error::unrecognized("An action is send, cancel or restart")),
    };
    match server.rooms.act_on_delayed(delay_id, owner, action).await? {
        Delayed::Done => Ok(()),
        Delayed::Conflict => Err(conflict()),
        Delayed::Unknown => Err(unknown()),
    }
}

/// `POST /delayed_events/{delayId}/{action}` (MSC4140).
pub(super) async fn update_delayed_event(
    server: Server,
    call: Call<update_delayed_event::v1::Request>,
) -> Result<update_delayed_event::v1::Response> {
    let owner = Some(call.caller.user);
    act(&server, &call.delay_id, owner, &call.action, || {
        error::unknown(
            StatusCode::CONFLICT,
            "The event was sent or cancelled before",
        )
    })
    .await?;
    Ok(update_delayed_event::v1::Response {})
}

/// The same, as clients of today ask it: whoever knows the id may, and what was done with is not there.
pub(super) async fn update_delayed_event_unstable(
    server: Server,
    call: Call<update_delayed_event::unstable::Request>,
) -> Result<update_delayed_event::unstable::Response> {
    let owner = call.caller.as_ref().map(|caller| caller.user);
    act(&server, &call.delay_id, owner, &call.action, unknown).await?;
    Ok(update_delayed_event::unstable::Response {})
}

/// The same, with the action in the body.
pub(super) async fn update_delayed_event_by_body(
    server: Server,
    call: Call<update_delayed_event::v0::Request>,
) -> Result<update_delayed_event::v0::Response> {
    let owner = call.caller.as_ref().map(|caller| caller.user);
    act(&server, &call.delay_id, owner, &call.action, unknown).await?;
    Ok(update_delayed_event::v0::Response {})
}
