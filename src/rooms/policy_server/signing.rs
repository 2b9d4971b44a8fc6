//! This server as a policy server: what it signs ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign

use http::StatusCode;
use pdu::{Pdu, PolicyServer};
use ruma::{OwnedRoomId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::PolicyRules;
use crate::{Room, Rooms};

impl Rooms {
    /// Says what this server lets through as a policy server, if it is one. Once: later calls change nothing.
    pub fn set_policy_server(&self, settings: &config::PolicyServer) {
        if let Some(rules) = PolicyRules::of(settings) {
            // Who said so first is right.
            let _ = self.0.policy_rules.set(rules);
        }
    }

    /// What this server lets through; none if it is no policy server.
    pub(crate) fn policy_rules(&self) -> Option<&PolicyRules> {
        self.0.policy_rules.get()
    }

    /// The signature of this server as a policy server for an event that another server shows it
    /// ([`POST /sign`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixpolicyv1sign)).
    ///
    /// It is given in every room for which the settings want it and in which somebody of ours is, whether or not
    /// the room names this server: others may have heard sooner than we that it does.
    ///
    /// # Errors
    ///
    /// 404 `M_UNRECOGNIZED` if this is no policy server; 404 `M_NOT_FOUND` if it is none of this room; 403
    /// `M_FORBIDDEN` if the room's access control list denies the server; 400 `M_BAD_JSON` if this is no event of
    /// the room's version; 400 `M_FORBIDDEN` if it is not let through, or not properly signed.
    pub async fn policy_signature(
        &self,
        origin: &ServerName,
        event: &RawValue,
    ) -> error::Result<String> {
        #[derive(Deserialize)]
        struct Event {
            room_id: OwnedRoomId,
        }
        if self.policy_rules().is_none() {
            return Err(error::unrecognized("This server is no policy server"));
        }
        let bad = |fault: String| error::bad_json(fault);
        let of: Event =
            serde_json::from_str(event.get()).map_err(|fault| bad(fault.to_string()))?;
        let room = self.find_room_of_ours(&of.room_id).await?;
        let room = room.ok_or_else(not_served)?;
        self.check_acl(&room, origin).await?;
        let pdu = Pdu::parse(event.get().as_bytes(), room.rules);
        let pdu = pdu.map_err(|fault| bad(fault.to_string()))?;
        let raw = vec![event.to_owned()];
        let checked = self.federation().check_pdus(room.rules, raw).await?;
        for checked in checked {
            checked.map_err(|fault| refused(fault.to_string()))?;
        }
        if !pdu::check_content_hash(&pdu) {
            return Err(refused("The content is not what the event's hash says"));
        }
        self.own_policy_signature(&room, &pdu).await
    }

    /// The signature for an event of which it is known that it is its sender's.
    ///
    /// # Errors
    ///
    /// As [`Rooms::policy_signature`].
    pub(super) async fn own_policy_signature(
        &self,
        room: &Room,
        pdu: &Pdu,
    ) -> error::Result<String> {
        let rules = self.policy_rules();
        let rules = rules.filter(|rules| rules.serves(&room.room_id));
        let rules = rules.ok_or_else(not_served)?;
        if !PolicyServer::is_asked_about(pdu) {
            return Err(refused(
                "A room's `m.room.policy` is not for its policy server to sign",
            ));
        }
        if let Some(why) = rules.refusal(pdu) {
            tracing::info!(room = %room.room_id, event = %pdu.event_id(), why, "an event is not let through");
            return Err(refused(why));
        }
        let key = self.federation().policy_key().await?;
        Ok(pdu.policy_signature(room.rules, &key))
    }
}

fn not_served() -> error::Error {
    error::not_found("This server is not the policy server of this room")
}

/// What the specification has a policy server say that does not sign.
fn refused(why: impl Into<String>) -> error::Error {
    error::forbidden(why).with_status(StatusCode::BAD_REQUEST)
}
