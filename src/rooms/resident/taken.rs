//! Member events that servers make of our templates.

use std::sync::Arc;

use pdu::{Pdu, canonical};
use ruma::{EventId, OwnedUserId, RoomId, ServerName, UserId, events::TimelineEventType};
use serde_json::value::RawValue;
use storage::schema::{self, Membership, Outcome};

use crate::{Received, Room, Rooms, event::MemberContent, remote::Asking};

/// A member event that was taken into a room of ours.
#[derive(Clone, Debug)]
pub struct TakenEvent {
    /// The room.
    pub room: Arc<Room>,
    /// The event, with our signature if it needs it.
    pub pdu: Arc<Pdu>,
}

impl Rooms {
    /// Takes an event by which somebody of another server joins, leaves or knocks, and lets the other servers
    /// of the room know
    /// ([`send_join`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid),
    /// `send_leave`, `send_knock`). Taking the same one again changes nothing.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if we are not in the room; 403 `M_FORBIDDEN` if the server's access is denied or the
    /// room's rules do not allow the event; 400 `M_BAD_JSON` if it is no event of the room's version,
    /// `M_INVALID_PARAM` if it is another event than the endpoint takes or not properly signed,
    /// `M_UNABLE_TO_AUTHORISE_JOIN`, `M_UNABLE_TO_GRANT_JOIN`; what the room's policy server says if it does not
    /// let the event through.
    pub async fn take_member(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
        membership: Membership,
    ) -> error::Result<TakenEvent> {
        let (room, _) = self
            .room_for(origin, room_id, membership == Membership::Leave)
            .await?;
        let pdu = Pdu::parse(event.get().as_bytes(), room.rules)
            .map_err(|fault| error::bad_json(fault.to_string()))?;
        check_member(&pdu, room_id, event_id, membership)?;
        if pdu.sender().server_name() != origin || pdu.state_key() != Some(pdu.sender().as_str()) {
            return Err(error::invalid_param(
                "The event must be of one of your people, about themselves",
            ));
        }
        let pdu = self.vouched(&room, pdu).await?;
        let pdu = Arc::new(self.checked(&room, &pdu).await?);
        // One that was cut down to its essentials is another one than was sent.
        check_member(&pdu, room_id, event_id, membership)?;
        let mut received = self.receive_to_pass_on(&room, Arc::clone(&pdu)).await?;
        if let Received::Missing { auth, prev } = &received {
            // Its template came from another server, which is further on than we are.
            let asking = Asking::about(self, &room, &[origin]).await?;
            asking.fetch_lacking(&pdu, auth, prev).await?;
            received = self.receive_to_pass_on(&room, Arc::clone(&pdu)).await?;
        }
        let mut pdu = pdu;
        if let Received::ToSign(policy) = &received {
            // It becomes an event of the room through us: what its policy server does not let through does not.
            let signed = self.fetch_policy_signature(&room, policy, &pdu).await?;
            pdu = Arc::new(signed);
            received = self.receive_to_pass_on(&room, Arc::clone(&pdu)).await?;
        }
        match received {
            Received::Accepted => {}
            Received::Known => self.check_accepted(&room, event_id).await?,
            Received::SoftFailed(reason) | Received::Rejected(reason) => {
                return Err(error::forbidden(reason));
            }
            Received::ToSign(_) => {
                return Err(error::forbidden(
                    "The room changes faster than its policy server answers",
                ));
            }
            Received::Missing { .. } => {
                return Err(error::invalid_param(
                    "The event follows events, or is allowed by such, that this server does not know",
                ));
            }
        }
        Ok(TakenEvent { room, pdu })
    }

    /// The event with our signature, if one of our people is to vouch for it.
    async fn vouched(&self, room: &Room, pdu: Pdu) -> error::Result<Pdu> {
        let Some(voucher) = authorised_by(&pdu) else {
            return Ok(pdu);
        };
        let rules = &room.rules.signatures;
        let own = voucher.server_name() == self.server_name();
        if !own || !rules.check_join_authorised_via_users_server {
            return Ok(pdu);
        }
        // The rules of the room say whether that one may; whether they should is ours to say.
        self.authoriser_of(room, pdu.sender()).await?;
        let key = self.federation().signing_keys().current();
        let signed = pdu.signed_also(room.rules, &key, self.server_name());
        signed.map_err(|fault| error::bad_json(fault.to_string()))
    }

    /// An event whose signatures and hash are checked.
    pub(crate) async fn checked(&self, room: &Room, pdu: &Pdu) -> error::Result<Pdu> {
        let raw = String::from_utf8_lossy(pdu.json()).into_owned();
        let raw = RawValue::from_string(raw).map_err(error::internal)?;
        let checked = self.federation().check_pdus(room.rules, vec![raw]).await?;
        let checked = checked.into_iter().next();
        let checked = checked.ok_or_else(|| error::internal("an event was not checked"))?;
        checked.map_err(|fault| error::invalid_param(fault.to_string()))
    }

    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if an event that is here was not accepted when it came.
    async fn check_accepted(&self, room: &Room, event_id: &EventId) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let name = self.storage().event_hash(event_id);
        let rows = snapshot
            .multi_get(&schema::NUMBER_BY_EVENT, &[name])
            .await?;
        let numbers = rows
            .into_iter()
            .flatten()
            .filter_map(|row| row.value.number);
        let keys: Vec<_> = numbers.map(|number| (room.short, number)).collect();
        let verdicts = snapshot.multi_get(&schema::VERDICT_BY_EVENT, &keys).await?;
        for verdict in verdicts.into_iter().flatten().map(|row| row.value) {
            if verdict.outcome != Outcome::Accepted {
                let reason = verdict.reason.unwrap_or_default();
                return Err(error::forbidden(format!(
                    "This event was refused: {reason}"
                )));
            }
        }
        Ok(())
    }
}

/// Whether an event is the one that the endpoint takes.
pub(crate) fn check_member(
    pdu: &Pdu,
    room_id: &RoomId,
    event_id: &EventId,
    membership: Membership,
) -> error::Result<()> {
    if pdu.event_id() != event_id {
        return Err(error::invalid_param(
            "The event has another ID than the path",
        ));
    }
    if pdu.room_id() != room_id {
        return Err(error::invalid_param(
            "The event is of another room than the path",
        ));
    }
    let is_member = *pdu.event_type() == TimelineEventType::RoomMember;
    if !is_member || MemberContent::of(pdu).membership != Some(membership) {
        return Err(error::invalid_param(format!(
            "The event must be an `m.room.member` with the membership `{}`",
            membership.as_str()
        )));
    }
    Ok(())
}

/// Who is said to vouch for a join.
fn authorised_by(pdu: &Pdu) -> Option<OwnedUserId> {
    let key = "join_authorised_via_users_server";
    let user = canonical::string(canonical::member(pdu.content_bytes(), key)?)?;
    UserId::parse(user.as_ref()).ok()
}
