//! Inviting people of other servers, which must sign the invite before anybody hears of it ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room

use std::sync::Arc;

use federation::{Failure, Patience};
use http::StatusCode;
use pdu::Pdu;
use ruma::{
    OwnedEventId, UserId,
    api::federation::membership::{RawStrippedState, create_invite},
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;

use crate::{
    Draft, Received, Room, Rooms,
    writer::{STRIPPED_STATE, tried},
};

/// Tries to place an invite, while the room goes on.
const TRIES_MAX: usize = 3;

impl Rooms {
    /// Sends an invite of somebody of another server: first to that one, then into the room. Nothing is sent if
    /// they are invited in the same words already. The id of the event.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`]; what the other server says if it refuses; 502 `M_UNKNOWN` if it cannot be asked.
    pub(crate) async fn invite_far(
        &self,
        room: &Arc<Room>,
        draft: Draft,
    ) -> error::Result<OwnedEventId> {
        let invitee = draft
            .state_key
            .as_deref()
            .and_then(|user| UserId::parse(user).ok());
        let invitee = invitee.ok_or_else(|| error::invalid_param("This is not a user ID"))?;
        for _ in 0..TRIES_MAX {
            let (event_id, pdu) = tried(self, room, draft.clone()).await?;
            let Some(pdu) = pdu else {
                return Ok(event_id);
            };
            let signed = Arc::new(self.fetch_signed(room, &pdu, &invitee).await?);
            match self.receive_to_pass_on(room, signed).await? {
                Received::Accepted | Received::Known => return Ok(event_id),
                Received::Rejected(reason) => return Err(error::forbidden(reason)),
                // The room has changed so that it does not allow this any more, or not in these words.
                Received::SoftFailed(_) | Received::Missing { .. } => {}
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
            room_state,
        );
        let answer = self
            .federation()
            .ask(server, question, Patience::SHORT)
            .await;
        let copy = answer.map(|answer| answer.event);
        let copy = copy.map_err(|failure| refused(&failure))?;
        let signed = pdu.with_signatures_from(room.rules, server, copy.get().as_bytes());
        signed.map_err(|fault| not_taken(&fault.to_string()))
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
