//! Events that we make: hashed and signed.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, ServerName,
    events::TimelineEventType, room_version_rules::EventsReferenceFormatVersion,
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    base64,
    canonical::{MAX_INTEGER, Object, Value},
    error::PduError,
    event::Pdu,
    hash, redact,
    signing_key::SigningKey,
    version::RoomRules,
};

/// An event that we are about to make.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The room; `None` for the `m.room.create` event since version 12, and only there.
    pub room_id: Option<OwnedRoomId>,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// The type.
    pub event_type: TimelineEventType,
    /// The state key, if it is a state event.
    pub state_key: Option<String>,
    /// The content, any JSON object that the room version allows; need not be canonical.
    pub content: Box<RawValue>,
    /// The room's forward extremities.
    pub prev_events: Vec<OwnedEventId>,
    /// The events of the current state that [`auth_types`](crate::auth_types) names.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the largest depth among `prev_events`.
    pub depth: u64,
    /// The time.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// What it redacts, if it is an `m.room.redaction`. Written where the room version wants it.
    pub redacts: Option<OwnedEventId>,
    /// Versions 1 and 2: the [reference hashes](Pdu::reference_hash) of `prev_events` and
    /// `auth_events`. One that is not here is left out, which other servers put up with.
    pub reference_hashes: BTreeMap<OwnedEventId, [u8; 32]>,
}

impl Draft {
    /// Hashes and signs the event in the name of a server.
    ///
    /// # Errors
    ///
    /// [`PduError`], if the event would not pass the checks that every receiver makes: it is too large,
    /// holds numbers that the version does not allow, or misses what it needs.
    pub fn sign(
        &self,
        rules: &RoomRules,
        key: &SigningKey,
        server_name: &ServerName,
    ) -> Result<Pdu, PduError> {
        let mut event = self.unsigned_event(rules)?;
        if rules.has_event_id_field() {
            // Versions 1 and 2 only ask for an ID that no other event of ours has: a hash is one, and
            // needs no randomness.
            let opaque = base64::encode_url_safe(Sha256::digest(event.to_canonical()));
            event.insert("event_id", string(format!("${opaque}:{server_name}")));
        }
        let content_hash = hash::content_hash(&event.to_canonical());
        let hashes = object([("sha256", string(base64::encode(content_hash)))]);
        event.insert("hashes", hashes);

        let message = redact::signed_json(&event.to_canonical(), rules);
        let signature = key.sign_base64(&message);
        let ours = object([(key.key_id().as_str(), string(signature))]);
        event.insert("signatures", object([(server_name.as_str(), ours)]));
        let event_id = match event.get("event_id").and_then(Value::as_str) {
            Some(event_id) => EventId::parse(event_id).map_err(|e| PduError::Invalid {
                field: "event_id",
                reason: e.to_string(),
            })?,
            // The reference hash is the hash of what was signed.
            None => hash::event_id_of_hash(Sha256::digest(&message).into(), rules)?,
        };
        Pdu::from_stored(event_id, Bytes::from(event.to_canonical()), rules, false)
    }

    /// All of the event but its ID, hashes and signatures.
    fn unsigned_event(&self, rules: &RoomRules) -> Result<Object<'_>, PduError> {
        let mut event = Object::new();
        event.insert("auth_events", self.references(&self.auth_events, rules));
        event.insert("content", self.content(rules)?);
        event.insert("depth", integer(self.depth));
        event.insert(
            "origin_server_ts",
            integer(self.origin_server_ts.get().into()),
        );
        event.insert("prev_events", self.references(&self.prev_events, rules));
        if let Some(room_id) = &self.room_id {
            event.insert("room_id", string(room_id.as_str()));
        }
        event.insert("sender", string(self.sender.as_str()));
        if let Some(state_key) = &self.state_key {
            event.insert("state_key", string(state_key.as_str()));
        }
        event.insert("type", string(self.event_type.to_string()));
        if let Some(redacts) = &self.redacts
            && !rules.redaction.content_field_redacts
        {
            event.insert("redacts", string(redacts.as_str()));
        }
        Ok(event)
    }

    fn content(&self, rules: &RoomRules) -> Result<Value<'_>, PduError> {
        let content = Value::parse(self.content.get().as_bytes(), rules.numbers())?;
        let Value::Object(mut content) = content else {
            return Err(PduError::Type {
                field: "content",
                expected: "an object",
            });
        };
        if let Some(redacts) = &self.redacts
            && rules.redaction.content_field_redacts
        {
            content.insert("redacts", string(redacts.as_str()));
        }
        Ok(Value::Object(content))
    }

    fn references<'a>(&'a self, ids: &'a [OwnedEventId], rules: &RoomRules) -> Value<'a> {
        let pairs = rules.events_reference_format == EventsReferenceFormatVersion::V1;
        let reference = |id: &'a OwnedEventId| {
            if !pairs {
                return string(id.as_str());
            }
            let hash = self.reference_hashes.get(id);
            let hash = hash.map(|hash| ("sha256", string(base64::encode(hash))));
            Value::Array(vec![string(id.as_str()), object(hash)])
        };
        Value::Array(ids.iter().map(reference).collect())
    }
}

fn string<'a>(text: impl Into<Cow<'a, str>>) -> Value<'a> {
    Value::String(text.into())
}

/// The largest integer that events may hold stands for all that are larger: a depth that has come so far
/// stays there.
fn integer(value: u64) -> Value<'static> {
    Value::Integer(i64::try_from(value).unwrap_or(MAX_INTEGER).min(MAX_INTEGER))
}

fn object<'a>(members: impl IntoIterator<Item = (&'a str, Value<'a>)>) -> Value<'a> {
    let mut object = Object::new();
    for (key, value) in members {
        object.insert(key, value);
    }
    Value::Object(object)
}

#[cfg(test)]
mod tests;
