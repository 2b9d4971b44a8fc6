//! What a policy server says of events: whether it has signed them
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#policy-servers)).

use std::borrow::Cow;

use ruma::{OwnedServerName, ServerName, events::TimelineEventType};

use crate::{
    canonical::members::{find, string},
    error::PduError,
    event::Pdu,
    redact,
    signing_key::{SigningKey, VerifyKey},
    version::RoomRules,
};

/// What the key of a policy server is called, whoever that is; its ID has `ed25519:` before it.
pub const POLICY_KEY_NAME: &str = "policy_server";

/// The ID of that key.
pub(crate) const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// The policy server that a room names in its `m.room.policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    /// Who it is. It counts only while somebody of it is joined.
    pub via: OwnedServerName,
    /// The key with which it signs. None if what the room names is no key: nothing is signed with it then.
    pub key: Option<VerifyKey>,
}

impl PolicyServer {
    /// The policy server that the content of an `m.room.policy` names. None if it is not valid, or names
    /// what can be no server.
    pub fn of(content: &[u8]) -> Option<Self> {
        let via = string(find(content, "via")?)?;
        let key = string(find(find(content, "public_keys")?, "ed25519")?)?;
        Some(Self {
            via: ServerName::parse(via.as_ref()).ok()?,
            key: VerifyKey::from_base64(&key).ok(),
        })
    }

    /// Whether policy servers are asked about an event: about all but those that name one, so that a room is
    /// always free to name another, or none.
    pub fn is_asked_about(pdu: &Pdu) -> bool {
        !pdu.is_state(&TimelineEventType::from("m.room.policy"), "")
    }

    /// Whether an event carries its signature.
    pub fn has_signed(&self, pdu: &Pdu, rules: &RoomRules) -> bool {
        match (self.key, self.signature_of(pdu)) {
            (Some(key), Some(signature)) => {
                key.verify_base64(&redact::signed_json(pdu.json(), rules), &signature)
            }
            _ => false,
        }
    }

    /// What an event says is its signature, in Base64.
    pub fn signature_of<'a>(&self, pdu: &'a Pdu) -> Option<Cow<'a, str>> {
        let signatures = find(pdu.json(), "signatures")?;
        string(find(find(signatures, self.via.as_str())?, POLICY_KEY_ID)?)
    }
}

impl Pdu {
    /// What a policy server with this key signs an event with, in Base64.
    pub fn policy_signature(&self, rules: &RoomRules, key: &SigningKey) -> String {
        key.sign_base64(&redact::signed_json(self.json(), rules))
    }

    /// The event with the signature of a policy server beside those that are there, also of the same server;
    /// one that the policy server made before is replaced.
    ///
    /// # Errors
    ///
    /// [`PduError`], if it gets too large by it.
    pub fn with_policy_signature(
        &self,
        rules: &RoomRules,
        via: &ServerName,
        signature: &str,
    ) -> Result<Self, PduError> {
        self.with_signatures(rules, via, &[(POLICY_KEY_ID, signature)])
    }
}

#[cfg(test)]
mod tests;
