//! Content hashes, reference hashes, and the event IDs made of them.

use ruma::{EventId, OwnedEventId, room_version_rules::EventIdFormatVersion};
use sha2::{Digest, Sha256};

use crate::{
    base64,
    canonical::{
        Value,
        members::{find, members, string},
    },
    error::{MAX_EVENT_TEXT_BYTES, PduError},
    event::Pdu,
    redact,
    version::RoomRules,
};

/// The hash of the whole event but its `hashes` and `signatures`
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-content-hash-for-an-event)).
pub(crate) fn content_hash(json: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut separator: &[u8] = b"{";
    for member in members(json) {
        if matches!(member.key, b"hashes" | b"signatures" | b"unsigned") {
            continue;
        }
        hasher.update(separator);
        hasher.update(json.get(member.whole).unwrap_or_default());
        separator = b",";
    }
    if separator == b"{" {
        hasher.update(separator);
    }
    hasher.update(b"}");
    hasher.finalize().into()
}

/// The hash of what a redaction leaves of the event, but its `signatures`
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#calculating-the-reference-hash-for-an-event)).
pub(crate) fn reference_hash(json: &[u8], rules: &RoomRules) -> [u8; 32] {
    Sha256::digest(redact::signed_json(json, rules)).into()
}

/// The event ID that the reference hash makes, in versions that name events so.
pub(crate) fn hashed_event_id(json: &[u8], rules: &RoomRules) -> Result<OwnedEventId, PduError> {
    event_id_of_hash(reference_hash(json, rules), rules)
}

/// The event ID that a reference hash makes, in versions that name events so.
pub(crate) fn event_id_of_hash(
    hash: [u8; 32],
    rules: &RoomRules,
) -> Result<OwnedEventId, PduError> {
    let hash = match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => base64::encode(hash),
        _ => base64::encode_url_safe(hash),
    };
    EventId::parse(format!("${hash}")).map_err(|e| PduError::Invalid {
        field: "event_id",
        reason: e.to_string(),
    })
}

/// The ID of what another server sent as an event, whether or not it has the form of one, so that the server can be
/// told what is wrong with it; `None` if nobody can tell. Nothing of it is checked.
pub fn claimed_event_id(text: &[u8], rules: &RoomRules) -> Option<OwnedEventId> {
    if text.len() > MAX_EVENT_TEXT_BYTES {
        return None;
    }
    let Value::Object(mut event) = Value::parse(text, rules.numbers()).ok()? else {
        return None;
    };
    if rules.has_event_id_field() {
        return EventId::parse(event.get("event_id")?.as_str()?).ok();
    }
    // Of what else a redaction would leave nobody can say.
    event.get("content")?.as_object()?;
    event.remove("unsigned");
    hashed_event_id(&Value::Object(event).to_canonical(), rules).ok()
}

/// Whether the event is what its own `hashes` say.
///
/// If not, somebody removed or changed what the signatures do not cover, usually by a redaction: such an
/// event is to be treated as [redacted](Pdu::redacted)
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events)).
pub fn check_content_hash(pdu: &Pdu) -> bool {
    let claimed = find(pdu.json(), "hashes")
        .and_then(|hashes| find(hashes, "sha256"))
        .and_then(string)
        .and_then(|hash| base64::decode(&hash));
    claimed.is_some_and(|claimed| claimed == content_hash(pdu.json()))
}

impl Pdu {
    /// The hash of what a redaction leaves of the event: what its signatures sign, and since version 3
    /// what names it.
    pub fn reference_hash(&self, rules: &RoomRules) -> [u8; 32] {
        reference_hash(self.json(), rules)
    }
}
