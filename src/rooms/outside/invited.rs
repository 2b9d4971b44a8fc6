//! Invites that another server brings, for people of ours ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room

use std::sync::Arc;

use bytes::Bytes;
use pdu::{Pdu, RoomRules};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId, ServerName, UserId};
use serde_json::value::RawValue;
use storage::{
    ShortUserId,
    schema::{self, Membership},
};

use super::Outside;
use crate::{Incoming, Received, Room, Rooms, Standing, format::stripped, resident::check_member};

/// An invite as another server brings it.
#[derive(Clone, Debug)]
pub struct BroughtInvite {
    /// The room, by the path.
    pub room_id: OwnedRoomId,
    /// The event, by the path.
    pub event_id: OwnedEventId,
    /// The version of the room, as the server says; of one that cannot say it, `None`: 1 or 2.
    pub room_version: Option<RoomVersionId>,
    /// The event.
    pub event: Box<RawValue>,
    /// What describes the room.
    pub room_state: Vec<Box<RawValue>>,
}

impl Rooms {
    /// Takes an invite of somebody of ours, and signs it
    /// ([`PUT /invite`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid)).
    /// The event with our signature.
    ///
    /// # Errors
    ///
    /// 400 `M_INCOMPATIBLE_ROOM_VERSION`, `M_BAD_JSON` if it is no event of that version, `M_INVALID_PARAM` if
    /// the room is known to have another version, or it is no invite of the room by the server's people for ours,
    /// or not properly signed, or the room is not properly described; 404 `M_NOT_FOUND` if there is no such person;
    /// 403 `M_FORBIDDEN` if the room's rules do not allow it, 403 `M_INVITE_BLOCKED` if it is not wanted; as [`Rooms::check_admitted`].
    pub async fn take_invite(
        &self,
        origin: &ServerName,
        invite: BroughtInvite,
    ) -> error::Result<Bytes> {
        self.check_admitted(&invite.room_id).await?;
        let rules = self.rules_of_invite(&invite).await?;
        let pdu = self.checked_invite(rules, origin, &invite).await?;
        let invitee = pdu.state_key().and_then(|user| UserId::parse(user).ok());
        let invitee = invitee.filter(|user| user.server_name() == self.server_name());
        let invitee = invitee
            .ok_or_else(|| error::invalid_param("The invited user is not of this server"))?;
        let short = self.find_person(&invitee).await?;
        let short = short.ok_or_else(|| error::not_found(format!("There is no {invitee} here")))?;
        let parties = (pdu.sender(), &*invitee);
        self.check_invites(std::iter::once(parties)).await?;

        let key = self.federation().signing_keys().current();
        let signed = pdu.signed_also(rules, &key, self.server_name());
        let signed = signed.map_err(|fault| error::bad_json(fault.to_string()))?;
        let signed = Arc::new(signed);
        if let Some(room) = self.find_room_of_ours(&invite.room_id).await? {
            self.check_acl(&room, origin).await?;
            // It was not checked by the rules of the room if we came into that meanwhile.
            check_version(&room, rules)?;
            self.receive_invite(&room, &signed).await?;
        } else {
            self.keep_invite(rules, &signed, short, &invite.room_state)
                .await?;
        }
        Ok(signed.json().clone())
    }

    /// By which rules an invite is read. Where something has happened in the room here they are those of the room,
    /// whatever the server says: an event that was read by others could not be read again.
    ///
    /// # Errors
    ///
    /// 400 `M_INCOMPATIBLE_ROOM_VERSION`, `M_INVALID_PARAM` if the room has another version than is said.
    async fn rules_of_invite(&self, invite: &BroughtInvite) -> error::Result<&'static RoomRules> {
        let said = match &invite.room_version {
            Some(version) => Some(RoomRules::of(version).ok_or_else(|| {
                error::incompatible_room_version(
                    version.clone(),
                    format!("This server does not know room version {version}"),
                )
            })?),
            None => None,
        };
        if let Some(room) = self.find_room(&invite.room_id).await?
            && self.finds_begun(&room).await?
        {
            check_version(&room, said.unwrap_or(room.rules))?;
            return Ok(room.rules);
        }
        // Events of versions 1 and 2 are alike.
        let oldest = || RoomRules::named("1").ok_or_else(|| error::internal("version 1 is gone"));
        said.map_or_else(oldest, Ok)
    }

    /// The invite, well formed, properly signed, and what it is said to be.
    async fn checked_invite(
        &self,
        rules: &'static RoomRules,
        origin: &ServerName,
        invite: &BroughtInvite,
    ) -> error::Result<Pdu> {
        let text = invite.event.get().as_bytes();
        Pdu::parse(text, rules).map_err(|fault| error::bad_json(fault.to_string()))?;
        let raw = vec![invite.event.clone()];
        let checked = self.federation().check_pdus(rules, raw).await?;
        let checked = checked.into_iter().next();
        let checked = checked.ok_or_else(|| error::internal("an event was not checked"))?;
        let pdu = checked.map_err(|fault| error::invalid_param(fault.to_string()))?;
        check_member(&pdu, &invite.room_id, &invite.event_id, Membership::Invite)?;
        if pdu.sender().server_name() != origin {
            return Err(error::invalid_param(
                "The invite must be sent by one of your people",
            ));
        }
        Ok(pdu)
    }

    /// Somebody of this server whose account is open.
    pub(crate) async fn find_person(&self, user: &UserId) -> error::Result<Option<ShortUserId>> {
        let Some(short) = self.find_account(user).await? else {
            return Ok(None);
        };
        let snapshot = self.snapshot().await?;
        let users = [short];
        let accounts = snapshot.multi_get(&schema::ACCOUNT_BY_USER, &users).await?;
        let account = accounts.into_iter().flatten().next();
        let open = account.is_some_and(|account| !account.value.deactivated);
        Ok(open.then_some(short))
    }

    /// The account of somebody of this server, be it closed.
    pub(crate) async fn find_account(&self, user: &UserId) -> error::Result<Option<ShortUserId>> {
        let snapshot = self.snapshot().await?;
        let name = [self.storage().user_hash(user)];
        let short = snapshot.multi_get(&schema::USER_BY_NAME, &name).await?;
        Ok(short.into_iter().flatten().next().map(|row| row.value))
    }

    /// Takes an invite into a room that we are in. It comes a second time with what else happens there, and
    /// what it follows comes then if it is not here, or what the policy server says of it.
    async fn receive_invite(&self, room: &Arc<Room>, pdu: &Arc<Pdu>) -> error::Result<()> {
        let incoming = Incoming {
            pdu: Arc::clone(pdu),
            standing: Standing::Live { state_before: None },
        };
        match self.receive(room, incoming).await? {
            Received::Accepted
            | Received::Known
            | Received::Missing { .. }
            | Received::ToSign(_) => Ok(()),
            Received::SoftFailed(reason) | Received::Rejected(reason) => {
                Err(error::forbidden(reason))
            }
        }
    }

    /// Keeps an invite into a room in which we are not.
    async fn keep_invite(
        &self,
        rules: &'static RoomRules,
        pdu: &Pdu,
        invitee: ShortUserId,
        room_state: &[Box<RawValue>],
    ) -> error::Result<()> {
        let mut seen = self.seen_of(rules, pdu.room_id(), room_state).await?;
        let strict = rules.room_id_is_create_event_id();
        match seen.fault {
            Some(fault) if strict => {
                return Err(error::invalid_param(format!(
                    "`invite_room_state`: {fault}"
                )));
            }
            Some(fault) => {
                tracing::warn!(room = %pdu.room_id(), fault, "an invite describes its room badly");
            }
            None => {}
        }
        if strict && !seen.has_create {
            return Err(error::invalid_param(
                "`invite_room_state` must hold the room's `m.room.create`",
            ));
        }
        seen.stripped.push(stripped(pdu));
        let room = self.known_or_new_room(pdu.room_id(), rules).await?;
        let sender = pdu.sender().to_string();
        self.set_outside(&room, invitee, |_| {
            Some(Outside {
                membership: Membership::Invite,
                sender: sender.clone(),
                stripped_state: seen.stripped.clone(),
            })
        })
        .await?;
        Ok(())
    }
}

/// # Errors
///
/// 400 `M_INVALID_PARAM` if a room has another version than that of these rules.
fn check_version(room: &Room, rules: &RoomRules) -> error::Result<()> {
    if room.rules.version() == rules.version() {
        return Ok(());
    }
    Err(error::invalid_param(format!(
        "The room has version {}, the invite is said to be of version {}",
        room.rules.version(),
        rules.version()
    )))
}
