//! Templates: what a server in a room tells one that is not, so that it can make a member event for the room
//! ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms

use std::collections::BTreeMap;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName, UserId,
    events::TimelineEventType,
};
use serde_json::value::RawValue;

use crate::{
    MAX_AUTH_EVENTS, MAX_PREV_EVENTS, base64,
    canonical::{MAX_INTEGER, Value},
    draft::Draft,
    error::PduError,
    event::Pdu,
    version::RoomRules,
};

impl Pdu {
    /// What another server makes an event like this one of: the same without ID, hashes and signatures,
    /// and with the name of who says so, which old servers look for.
    ///
    /// # Errors
    ///
    /// [`PduError`], if the stored event cannot be read.
    pub fn template(
        &self,
        rules: &RoomRules,
        server_name: &ServerName,
    ) -> Result<String, PduError> {
        let mut event = self.object(rules)?;
        for key in ["event_id", "hashes", "signatures"] {
            event.remove(key);
        }
        event.insert("origin", Value::String(server_name.as_str().into()));
        Ok(String::from_utf8_lossy(&event.to_canonical()).into_owned())
    }
}

impl Draft {
    /// The event that another server's template makes at a time. What it is of the room that was asked for,
    /// and of the user, is for the caller to check.
    ///
    /// # Errors
    ///
    /// [`PduError`], if the template lacks something, or is not of the form that the version asks for.
    pub fn of_template(
        text: &[u8],
        rules: &RoomRules,
        origin_server_ts: MilliSecondsSinceUnixEpoch,
    ) -> Result<Self, PduError> {
        let template = Value::parse(text, rules.numbers())?;
        let template = template.as_object().ok_or(PduError::NotAnObject)?;
        let text = |field: &'static str| {
            let value = template.get(field).ok_or(PduError::Missing(field))?;
            value.as_str().ok_or(PduError::Type {
                field,
                expected: "a string",
            })
        };
        let content = template
            .get("content")
            .ok_or(PduError::Missing("content"))?;
        let content = String::from_utf8_lossy(&content.to_canonical()).into_owned();
        let mut reference_hashes = BTreeMap::new();
        let mut references = |field: &'static str, max: usize| {
            let listed = template.get(field).and_then(Value::as_array);
            let listed = listed.ok_or(PduError::Missing(field))?;
            if listed.len() > max {
                return Err(PduError::TooMany { field, max });
            }
            listed
                .iter()
                .map(|one| reference(field, one, &mut reference_hashes))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            prev_events: references("prev_events", MAX_PREV_EVENTS)?,
            auth_events: references("auth_events", MAX_AUTH_EVENTS)?,
            room_id: Some(RoomId::parse(text("room_id")?).map_err(|e| invalid("room_id", &e))?),
            sender: UserId::parse(text("sender")?).map_err(|e| invalid("sender", &e))?,
            event_type: TimelineEventType::from(text("type")?),
            state_key: Some(text("state_key")?.to_owned()),
            content: RawValue::from_string(content).map_err(|e| invalid("content", &e))?,
            depth: template
                .get("depth")
                .and_then(Value::as_integer)
                .map_or(1, |depth| depth.clamp(0, MAX_INTEGER).unsigned_abs()),
            origin_server_ts,
            redacts: None,
            reference_hashes,
        })
    }
}

fn invalid(field: &'static str, reason: &dyn ToString) -> PduError {
    PduError::Invalid {
        field,
        reason: reason.to_string(),
    }
}

/// An event as it is named by others: by its ID, in versions 1 and 2 with its reference hash.
fn reference(
    field: &'static str,
    one: &Value<'_>,
    hashes: &mut BTreeMap<OwnedEventId, [u8; 32]>,
) -> Result<OwnedEventId, PduError> {
    let (event_id, hash) = match one {
        Value::Array(pair) => (pair.first(), pair.get(1).and_then(Value::as_object)),
        id => (Some(id), None),
    };
    let event_id = event_id.and_then(Value::as_str).ok_or(PduError::Type {
        field,
        expected: "a list of event IDs",
    })?;
    let event_id = EventId::parse(event_id).map_err(|e| invalid(field, &e))?;
    let hash = hash.and_then(|hash| base64::decode(hash.get("sha256")?.as_str()?));
    if let Some(hash) = hash.and_then(|hash| <[u8; 32]>::try_from(hash).ok()) {
        hashes.insert(event_id.clone(), hash);
    }
    Ok(event_id)
}

#[cfg(test)]
mod tests;
