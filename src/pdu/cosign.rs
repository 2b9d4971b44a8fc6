//! Signatures of other servers than the sender's, which must have a hand in an event too.

use bytes::Bytes;
use ruma::ServerName;

use crate::{
    canonical::{
        Object, Value,
        members::{find, members, string},
    },
    error::PduError,
    event::Pdu,
    redact,
    signing_key::SigningKey,
    version::RoomRules,
};

/// Signatures of one server that are taken over at most.
const SIGNATURES_MAX: usize = 10;
/// The longest signature or key ID that is taken over, in bytes. An Ed25519 signature has 86.
const SIGNATURE_BYTES_MAX: usize = 255;

impl Pdu {
    /// The event with our signature beside those that are there: as the server that lets somebody into a
    /// restricted room, or as the one whose user is invited. Its ID stays, as signatures are no part of it.
    ///
    /// # Errors
    ///
    /// [`PduError`], if it gets too large by it.
    pub fn signed_also(
        &self,
        rules: &RoomRules,
        key: &SigningKey,
        server_name: &ServerName,
    ) -> Result<Self, PduError> {
        let signature = key.sign_base64(&redact::signed_json(self.json(), rules));
        let ours = [(key.key_id().as_str(), signature.as_str())];
        self.with_signatures(rules, server_name, &ours)
    }

    /// The event with the signatures that another server has put on its own copy of it. Nothing else of
    /// that copy is looked at.
    ///
    /// # Errors
    ///
    /// [`PduError`], if the copy holds no such signature, or the event gets too large by them.
    pub fn with_signatures_from(
        &self,
        rules: &RoomRules,
        server_name: &ServerName,
        copy: &[u8],
    ) -> Result<Self, PduError> {
        let copy = Value::parse(copy, rules.numbers())?.to_canonical();
        let theirs = find(&copy, "signatures").and_then(|all| find(all, server_name.as_str()));
        let theirs: Vec<_> = members(theirs.unwrap_or_default())
            .filter_map(|one| Some((one.key_text()?, string(one.value)?)))
            .filter(|(key_id, text)| key_id.len().max(text.len()) <= SIGNATURE_BYTES_MAX)
            .take(SIGNATURES_MAX)
            .collect();
        if theirs.is_empty() {
            return Err(PduError::Invalid {
                field: "signatures",
                reason: format!("{server_name} has not signed"),
            });
        }
        let theirs: Vec<_> = theirs
            .iter()
            .map(|(key_id, text)| (key_id.as_ref(), text.as_ref()))
            .collect();
        self.with_signatures(rules, server_name, &theirs)
    }

    pub(crate) fn with_signatures(
        &self,
        rules: &RoomRules,
        server_name: &ServerName,
        more: &[(&str, &str)],
    ) -> Result<Self, PduError> {
        let mut event = self.object(rules)?;
        let mut signatures = match event.remove("signatures") {
            Some(Value::Object(signatures)) => signatures,
            _ => Object::new(),
        };
        let mut theirs = match signatures.remove(server_name.as_str()) {
            Some(Value::Object(theirs)) => theirs,
            _ => Object::new(),
        };
        for (key_id, signature) in more {
            theirs.insert(*key_id, Value::String((*signature).into()));
        }
        signatures.insert(server_name.as_str(), Value::Object(theirs));
        event.insert("signatures", Value::Object(signatures));
        let json = Bytes::from(event.to_canonical());
        Self::from_stored(self.event_id().to_owned(), json, rules, self.rejected())
    }

    /// The event as an object.
    pub(crate) fn object(&self, rules: &RoomRules) -> Result<Object<'_>, PduError> {
        match Value::parse(self.json(), rules.numbers())? {
            Value::Object(event) => Ok(event),
            _ => Err(PduError::NotAnObject),
        }
    }
}

#[cfg(test)]
mod tests;
