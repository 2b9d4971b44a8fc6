//! Inviting people of other servers, which must sign the invite before anybody hears of it ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room

use std::{sync::Arc, time::Duration};

use federation::{Failure, Patience};
use http::StatusCode;
use pdu::{Pdu, RoomRules};
use ruma::{
    OwnedEventId, UserId,
    api::federation::membership::{RawStrippedState, create_invite},
    events::{
        StateEventType, TimelineEventType,
        room::member::{MembershipState, RoomMemberEventContent},
    },
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::knock::raw_of;
use crate::{
    Draft, Group, Incoming, Received, Room, Rooms,
    writer::{STRIPPED_STATE, Tried, Way, tried},
};

/// Tries to place an invite, while the room goes on.
const TRIES_MAX: usize = 3;
/// The longest that somebody is told to wait before they invite again, in milliseconds.
const WAIT_MAX: u64 = 60 * 60 * 1_000;

impl Rooms {
    /// Sends an invite of somebody of another server, the one draft of a group: first to that one, then into the
    /// room. Nothing is sent if they are invited in the same words already. The id of the event.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`]; what the other server says if it refuses; 502 `M_UNKNOWN` if it cannot be asked.
    pub(crate) async fn invite_far(
        &self,
        room: &Arc<Room>,
        group: Group,
    ) -> error::Result<OwnedEventId> {
        let invitee = group.drafts.first().and_then(|draft| {
            let invitee = draft.state_key.as_deref()?;
            UserId::parse(invitee).ok()
        });
        let invitee = invitee.ok_or_else(|| error::invalid_param("This is not a user ID"))?;
        let group = Arc::new(group);
        for _ in 0..TRIES_MAX {
            let Tried {
                event_id,
                event,
                policy,
            } = tried(self, room, &group).await?;
            let Some(mut pdu) = event else {
                return Ok(event_id);
            };
            // Who looks at everything before anybody hears of it comes before the invitee's server too.
            if let Some(policy) = policy {
                let signed = self.fetch_policy_signature(room, &policy, &pdu);
                pdu = Arc::new(signed.await?);
            }
            let signed = Arc::new(self.fetch_signed(room, &pdu, &invitee).await?);
            let way = Way::Ours(Arc::clone(&group));
            match self.receive_one(room, Incoming::live(signed), way).await? {
                Received::Accepted => return Ok(event_id),
                Received::Rejected(reason) => return Err(error::forbidden(reason)),
                // The room has changed so that it does not allow this any more, or not in these words; or it was
                // sent meanwhile.
                Received::Known
                | Received::SoftFailed(_)
                | Received::Missing { .. }
                | Received::ToSign(_) => {}
            }
        }
        Err(error::forbidden(
            "The room does not allow this invite any more",
        ))
    }

    /// The invite with the signature of the invitee's server.
    async fn fetch_signed(&self, room: &Room, pdu: &Pdu, invitee: &UserId) -> error::Result<Pdu> {
        let server = invitee.server_name();
        let event = String::from_utf8_lossy(pdu.json()).into_owned();
        let event = RawValue::from_string(event).map_err(error::internal)?;
        let room_state = self.described(room, pdu).await?;
        let question = create_invite::v2::Request::new(
            pdu.room_id().to_owned(),
            pdu.event_id().to_owned(),
            room.rules.version_id(),
            event,
            room_state.clone(),
        );
        let answer = self
            .federation()
            .ask(server, question, Patience::SHORT)
            .await;
        let copy = match answer {
            Ok(answer) => Ok(answer.event),
            Err(failure) if may_be_older(room.rules, &failure) => {
                self.ask_older(invitee, pdu, room_state, failure).await
            }
            Err(failure) => Err(failure),
        };
        let copy = copy.map_err(|failure| refused(&failure))?;
        let signed = pdu.with_signatures_from(room.rules, server, copy.get().as_bytes());
        signed.map_err(|fault| not_taken(&fault.to_string()))
    }

    /// What a server answers that may know the first version of the endpoint only. If it does not know that
    /// either, what it said of the second.
    async fn ask_older(
        &self,
        invitee: &UserId,
        pdu: &Pdu,
        room_state: Vec<RawStrippedState>,
        failure: Failure,
    ) -> Result<Box<RawValue>, Failure> {
        let body = described_within(pdu, room_state);
        let question = create_invite::v1::RequestInit {
            room_id: pdu.room_id().to_owned(),
            event_id: pdu.event_id().to_owned(),
            sender: pdu.sender().to_owned(),
            origin: self.server_name().to_owned(),
            origin_server_ts: pdu.origin_server_ts(),
            state_key: invitee.to_owned(),
            content: RoomMemberEventContent::new(MembershipState::Invite),
            unsigned: create_invite::v1::UnsignedEventContent::new(),
        };
        let question = create_invite::v1::Request::from(question);
        let server = invitee.server_name();
        let answer = self
            .federation()
            .ask_with(server, question, body, Patience::SHORT)
            .await;
        match answer {
            Ok(answer) => match serde_json::from_str::<Container>(answer.event.get()) {
                Ok(container) => Ok(container.event),
                Err(fault) => Err(Failure::BadAnswer(fault.to_string())),
            },
            Err(Failure::Refused(refusal)) if refusal.is_unrecognized() => Err(failure),
            Err(failure) => Err(failure),
        }
    }

    /// The events by which the invitee's server can tell what the room is.
    async fn described(&self, room: &Room, pdu: &Pdu) -> error::Result<Vec<RawStrippedState>> {
        let mut keys: Vec<_> = STRIPPED_STATE
            .into_iter()
            .map(|kind| (kind, String::new()))
            .collect();
        keys.push((StateEventType::RoomMember, pdu.sender().to_string()));
        let snapshot = self.snapshot().await?;
        let (_, state) = room.current_state(self, &snapshot, &keys).await?;
        let events = keys.iter().filter_map(|key| state.get(key));
        events
            .map(|event| {
                let event = String::from_utf8_lossy(event.pdu.json()).into_owned();
                let event = RawValue::from_string(event).map_err(error::internal)?;
                Ok(RawStrippedState::Pdu(event))
            })
            .collect()
    }
}

/// What stands behind the status in an answer of the first version of the endpoint.
#[derive(Deserialize)]
struct Container {
    event: Box<RawValue>,
}

/// Whether a server that does not take an invite may know the first version of the endpoint only, which is for rooms
/// of versions 1 and 2.
fn may_be_older(rules: &RoomRules, failure: &Failure) -> bool {
    let Failure::Refused(refusal) = failure else {
        return false;
    };
    rules.has_event_id_field() && matches!(refusal.status.as_u16(), 400 | 404 | 405)
}

/// An event with what describes its room in its `unsigned`, as the first version of the endpoint has it.
fn described_within(pdu: &Pdu, room_state: Vec<RawStrippedState>) -> Vec<u8> {
    let mut body = pdu.json().to_vec();
    body.pop();
    body.extend_from_slice(b",\"unsigned\":{\"invite_room_state\":[");
    for (index, event) in room_state.into_iter().filter_map(raw_of).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event.get().as_bytes());
    }
    body.extend_from_slice(b"]}}");
    body
}

/// Whom a draft invites, if they are of another server.
pub(crate) fn invitee_of<'a>(rooms: &Rooms, draft: &'a Draft) -> Option<&'a UserId> {
    if draft.event_type != TimelineEventType::RoomMember {
        return None;
    }
    let (_, invitee) = crate::invites::invited(draft)?;
    (invitee.server_name() != rooms.server_name()).then_some(invitee)
}

/// What the one who invites is told if the other server does not take it.
fn refused(failure: &Failure) -> error::Error {
    let Failure::Refused(refusal) = failure else {
        return not_taken(&failure.to_string());
    };
    match (refusal.status.as_u16(), refusal.errcode()) {
        (403, "M_INVITE_BLOCKED") => error::invite_blocked(refusal.error()),
        (403, _) => error::forbidden(refusal.error()),
        (404, "M_NOT_FOUND") => error::not_found(refusal.error()),
        (429, _) => {
            let wait = refusal.body.get("retry_after_ms").and_then(Value::as_u64);
            let wait = wait.map(|wait| Duration::from_millis(wait.min(WAIT_MAX)));
            error::limit_exceeded(wait, refusal.error())
        }
        (400, "M_INCOMPATIBLE_ROOM_VERSION" | "M_UNSUPPORTED_ROOM_VERSION") => {
            error::unsupported_room_version(refusal.error())
        }
        _ => not_taken(&failure.to_string()),
    }
}

fn not_taken(why: &str) -> error::Error {
    error::unknown(
        StatusCode::BAD_GATEWAY,
        format!("The server of the one you invite did not take the invite: {why}"),
    )
}
