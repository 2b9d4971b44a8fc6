//! Invites of people of whom only an address was known, once they have shown whose it is ([spec]).
//!
//! What shows it is a statement signed by an identity server, whose key stands in the room's
//! `m.room.third_party_invite`: the rules of the room check it.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#third-party-invites

use federation::{Failure, Patience};
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    api::federation::thirdparty::exchange_invite, serde::Raw,
};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{Draft, Group, Rooms, membership::json_content};

/// Invites that are looked at, of those that an identity server says somebody has.
const INVITES_MAX: usize = 50;

/// An invite of an address that turned out to be somebody's of ours.
#[derive(Clone, Debug)]
pub struct BoundInvite {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Who invited.
    pub sender: OwnedUserId,
    /// The statement of the identity server.
    pub signed: Box<RawValue>,
}

impl Rooms {
    /// Makes an invite of what another server says somebody of it has shown, and sends it
    /// ([`exchange_third_party_invite`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1exchange_third_party_inviteroomid)).
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if we are not in the room; 403 `M_FORBIDDEN` if the server's access is denied, the one
    /// who invited is not of ours, the one who is invited not of that server, or the room's rules do not allow
    /// it; 400 `M_BAD_JSON` if it is no such invite; as [`Rooms::send`].
    pub async fn exchange_invite(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        sender: &UserId,
        invitee: &UserId,
        content: &RawValue,
    ) -> error::Result<()> {
        let room = self.find_room_of_ours(room_id).await?;
        let room = room.ok_or_else(|| error::not_found("This server is not in this room"))?;
        self.check_acl(&room, origin).await?;
        if sender.server_name() != self.server_name() || invitee.server_name() != origin {
            return Err(error::forbidden(
                "The one who invites must be of this server, the one who is invited of yours",
            ));
        }
        let content: Map<String, Value> = serde_json::from_str(content.get())
            .map_err(|fault| error::bad_json(fault.to_string()))?;
        let by_address = content
            .get("third_party_invite")
            .is_some_and(Value::is_object);
        let invites = content.get("membership").and_then(Value::as_str) == Some("invite");
        if !by_address || !invites {
            return Err(error::bad_json(
                "The content must be that of an invite with a `third_party_invite`",
            ));
        }
        let content = json_content(content)?;
        let draft = Draft::state(
            sender.to_owned(),
            "m.room.member",
            invitee.as_str(),
            content,
        );
        self.send(&room, Group::one(draft)).await?;
        Ok(())
    }

    /// Takes note that somebody of ours was found to be the one whom invites of an address meant
    /// ([`3pid/onbind`](https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv13pidonbind)): has the
    /// server of each who invited make a real invite of it. Nobody proves to be the identity server here; what
    /// it signed proves itself.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if there is no such person here. An invite that comes to nothing is no error.
    pub async fn take_bound_invites(
        &self,
        user: &UserId,
        invites: Vec<BoundInvite>,
    ) -> error::Result<()> {
        let ours = user.server_name() == self.server_name();
        if !ours || self.find_person(user).await?.is_none() {
            return Err(error::not_found(format!("There is no {user} here")));
        }
        for invite in invites.into_iter().take(INVITES_MAX) {
            let room_id = invite.room_id.clone();
            if let Err(error) = self.make_bound_invite(user, invite).await {
                tracing::info!(%error, %user, %room_id, "an invite by an address came to nothing");
            }
        }
        Ok(())
    }

    async fn make_bound_invite(&self, user: &UserId, invite: BoundInvite) -> error::Result<()> {
        let signed: Value = serde_json::from_str(invite.signed.get())
            .map_err(|fault| error::bad_json(fault.to_string()))?;
        let named = signed.get("mxid").and_then(Value::as_str);
        if named != Some(user.as_str()) {
            return Err(error::invalid_param("The statement is about somebody else"));
        }
        let token = signed
            .get("token")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let display_name = self.name_of_address(&invite.room_id, token).await?;
        let content = json!({
            "membership": "invite",
            "third_party_invite": { "display_name": display_name, "signed": signed },
        });
        let content = serde_json::value::to_raw_value(&content).map_err(error::internal)?;
        if invite.sender.server_name() == self.server_name() {
            let own = self.server_name().to_owned();
            let (room_id, sender) = (&invite.room_id, &invite.sender);
            return self
                .exchange_invite(&own, room_id, sender, user, &content)
                .await;
        }
        let server = invite.sender.server_name().to_owned();
        let question = exchange_invite::v1::Request::new(
            invite.room_id,
            invite.sender,
            user.to_owned(),
            Raw::from_json(content),
        );
        let asked = self
            .federation()
            .ask(&server, question, Patience::SHORT)
            .await;
        asked.map(|_| ()).map_err(|failure: Failure| {
            error::unknown(http::StatusCode::BAD_GATEWAY, failure.to_string())
        })
    }

    /// What an address is called in the room, if we are in it.
    async fn name_of_address(&self, room_id: &RoomId, token: &str) -> error::Result<String> {
        let Some(room) = self.find_room_of_ours(room_id).await? else {
            return Ok(String::new());
        };
        let kind = "m.room.third_party_invite".into();
        let content = self
            .current_content(&room, &kind, token)
            .await?
            .unwrap_or_default();
        let name = pdu::canonical::member(&content, "display_name");
        let name = name.and_then(pdu::canonical::string);
        Ok(name.map(|name| name.into_owned()).unwrap_or_default())
    }
}
