//! The fields of an event, and what each room version asks of their form
//! (["Checks performed on receipt of a PDU"], step 1).
//!
//! ["Checks performed on receipt of a PDU"]: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu

use std::{borrow::Cow, fmt::Display, ops::Range};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt,
    UserId, events::TimelineEventType, room_version_rules::EventsReferenceFormatVersion,
};

use crate::{
    canonical::{
        MAX_INTEGER,
        members::{self, Member, elements, members},
    },
    error::{MAX_AUTH_EVENTS, MAX_EVENT_BYTES, MAX_FIELD_BYTES, MAX_PREV_EVENTS, PduError},
    version::RoomRules,
};

/// What the members of an event say, in types.
pub(crate) struct Fields {
    pub(crate) event_id: Option<OwnedEventId>,
    pub(crate) room_id: Option<OwnedRoomId>,
    pub(crate) sender: OwnedUserId,
    pub(crate) event_type: TimelineEventType,
    pub(crate) state_key: Option<String>,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) depth: u64,
    pub(crate) origin_server_ts: MilliSecondsSinceUnixEpoch,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) content: Range<u32>,
}

/// The members of an event that mean something to us, as they are written.
#[derive(Default)]
struct Raw<'a> {
    auth_events: Option<&'a [u8]>,
    content: Option<Member<'a>>,
    depth: Option<&'a [u8]>,
    event_id: Option<&'a [u8]>,
    hashes: Option<&'a [u8]>,
    origin_server_ts: Option<&'a [u8]>,
    prev_events: Option<&'a [u8]>,
    redacts: Option<&'a [u8]>,
    room_id: Option<&'a [u8]>,
    sender: Option<&'a [u8]>,
    signatures: Option<&'a [u8]>,
    state_key: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
}

impl<'a> Raw<'a> {
    fn of(json: &'a [u8]) -> Self {
        let mut raw = Self::default();
        for member in members(json) {
            let value = Some(member.value);
            match member.key {
                b"auth_events" => raw.auth_events = value,
                b"content" => raw.content = Some(member),
                b"depth" => raw.depth = value,
                b"event_id" => raw.event_id = value,
                b"hashes" => raw.hashes = value,
                b"origin_server_ts" => raw.origin_server_ts = value,
                b"prev_events" => raw.prev_events = value,
                b"redacts" => raw.redacts = value,
                b"room_id" => raw.room_id = value,
                b"sender" => raw.sender = value,
                b"signatures" => raw.signatures = value,
                b"state_key" => raw.state_key = value,
                b"type" => raw.event_type = value,
                _ => {}
            }
        }
        raw
    }
}

impl Fields {
    /// Reads the fields of an event in canonical form and checks them.
    ///
    /// # Errors
    ///
    /// Names the first field that is missing or is not what the room version asks for.
    pub(crate) fn read(json: &[u8], rules: &RoomRules) -> Result<Self, PduError> {
        if json.len() > MAX_EVENT_BYTES {
            return Err(PduError::TooLarge(json.len()));
        }
        let raw = Raw::of(json);

        let event_type = text(raw.event_type, "type", rules)?;
        let state_key = optional_text(raw.state_key, "state_key", rules)?.map(Cow::into_owned);
        let is_create = event_type == "m.room.create";
        let (content, content_bytes) = read_content(raw.content.as_ref())?;
        for (value, field) in [(raw.hashes, "hashes"), (raw.signatures, "signatures")] {
            if value.is_some_and(|value| value.first() != Some(&b'{')) {
                return Err(PduError::Type {
                    field,
                    expected: "an object",
                });
            }
        }

        let sender = text(raw.sender, "sender", rules)?;
        let sender = UserId::parse(sender.as_ref()).map_err(|e| invalid("sender", e))?;
        let references = rules.events_reference_format;
        let prev_events =
            read_references(raw.prev_events, "prev_events", MAX_PREV_EVENTS, references)?;
        let auth_events =
            read_references(raw.auth_events, "auth_events", MAX_AUTH_EVENTS, references)?;

        let fields = Self {
            event_id: read_event_id(raw.event_id, rules)?,
            room_id: read_room_id(raw.room_id, is_create, state_key.as_deref(), rules)?,
            sender,
            redacts: read_redacts(raw.redacts, content_bytes, &event_type, rules),
            event_type: TimelineEventType::from(event_type.as_ref()),
            state_key,
            prev_events,
            auth_events,
            depth: read_depth(raw.depth)?,
            origin_server_ts: read_origin_server_ts(raw.origin_server_ts, rules)?,
            content,
        };
        fields.check_create_not_in_auth_events(rules)?;
        Ok(fields)
    }

    /// Since version 12 the room ID implies the create event, which must not be among the auth events.
    fn check_create_not_in_auth_events(&self, rules: &RoomRules) -> Result<(), PduError> {
        if rules.event_format.allow_room_create_in_auth_events {
            return Ok(());
        }
        let Some(room_id) = &self.room_id else {
            return Ok(());
        };
        let hash = room_id.strip_sigil();
        if self
            .auth_events
            .iter()
            .any(|id| id.as_str().strip_prefix('$') == Some(hash))
        {
            return Err(invalid(
                "auth_events",
                "the m.room.create event must not be listed",
            ));
        }
        Ok(())
    }
}

fn invalid(field: &'static str, reason: impl Display) -> PduError {
    PduError::Invalid {
        field,
        reason: reason.to_string(),
    }
}

fn optional_text<'a>(
    value: Option<&'a [u8]>,
    field: &'static str,
    rules: &RoomRules,
) -> Result<Option<Cow<'a, str>>, PduError> {
    let Some(value) = value else { return Ok(None) };
    let text = members::string(value).ok_or(PduError::Type {
        field,
        expected: "a string",
    })?;
    let length = if rules.counts_code_points() {
        text.chars().count()
    } else {
        text.len()
    };
    if length > MAX_FIELD_BYTES {
        return Err(PduError::TooLong(field));
    }
    Ok(Some(text))
}

fn text<'a>(
    value: Option<&'a [u8]>,
    field: &'static str,
    rules: &RoomRules,
) -> Result<Cow<'a, str>, PduError> {
    optional_text(value, field, rules)?.ok_or(PduError::Missing(field))
}

fn read_content<'a>(member: Option<&Member<'a>>) -> Result<(Range<u32>, &'a [u8]), PduError> {
    let field = "content";
    let member = member.ok_or(PduError::Missing(field))?;
    if member.value.first() != Some(&b'{') {
        return Err(PduError::Type {
            field,
            expected: "an object",
        });
    }
    // The length was checked to be far below 2^32.
    let offset = |at: usize| u32::try_from(at).map_err(|_| PduError::TooLarge(at));
    Ok((
        offset(member.span.start)?..offset(member.span.end)?,
        member.value,
    ))
}

fn read_event_id(
    value: Option<&[u8]>,
    rules: &RoomRules,
) -> Result<Option<OwnedEventId>, PduError> {
    let field = "event_id";
    if !rules.has_event_id_field() {
        // NOTSPEC: the spec only says that the field is no longer sent; Synapse refuses events with it,
        // and an event that some servers take and others do not is worse than one that nobody takes.
        return match value {
            Some(_) => Err(invalid(
                field,
                "events of this room version must not have it",
            )),
            None => Ok(None),
        };
    }
    let id = text(value, field, rules)?;
    let id = EventId::parse(id.as_ref()).map_err(|e| invalid(field, e))?;
    if id.server_name().is_none() {
        return Err(invalid(field, "it must end in a server name"));
    }
    Ok(Some(id))
}

fn read_room_id(
    value: Option<&[u8]>,
    is_create: bool,
    state_key: Option<&str>,
    rules: &RoomRules,
) -> Result<Option<OwnedRoomId>, PduError> {
    let field = "room_id";
    if is_create && !rules.event_format.require_room_create_room_id {
        if value.is_some() {
            return Err(invalid(field, "the m.room.create event must not have one"));
        }
        if state_key != Some("") {
            return Err(invalid(
                "state_key",
                "it must be empty on the m.room.create event",
            ));
        }
        return Ok(None);
    }
    let id = text(value, field, rules)?;
    RoomId::parse(id.as_ref())
        .map(Some)
        .map_err(|e| invalid(field, e))
}

/// The target of a redaction. Anything that is no event ID is no target: it makes the redaction do
/// nothing, not invalid.
fn read_redacts(
    top_level: Option<&[u8]>,
    content: &[u8],
    event_type: &str,
    rules: &RoomRules,
) -> Option<OwnedEventId> {
    if event_type != "m.room.redaction" {
        return None;
    }
    let value = if rules.redaction.content_field_redacts {
        members::find(content, "redacts")
    } else {
        top_level
    };
    let text = members::string(value?)?;
    (text.len() <= MAX_FIELD_BYTES)
        .then(|| EventId::parse(text.as_ref()).ok())
        .flatten()
}

fn read_references(
    value: Option<&[u8]>,
    field: &'static str,
    max: usize,
    format: EventsReferenceFormatVersion,
) -> Result<Vec<OwnedEventId>, PduError> {
    let array = value.ok_or(PduError::Missing(field))?;
    if array.first() != Some(&b'[') {
        return Err(PduError::Type {
            field,
            expected: "an array",
        });
    }
    let pairs = format == EventsReferenceFormatVersion::V1;
    let expected = if pairs {
        "an array of pairs of event ID and hashes"
    } else {
        "an array of event IDs"
    };
    let mut ids = Vec::new();
    for element in elements(array) {
        if ids.len() == max {
            return Err(PduError::TooMany { field, max });
        }
        let id = if pairs {
            elements(element).next()
        } else {
            Some(element)
        };
        let id = id
            .and_then(members::string)
            .ok_or(PduError::Type { field, expected })?;
        if id.len() > MAX_FIELD_BYTES {
            return Err(PduError::TooLong(field));
        }
        ids.push(EventId::parse(id.as_ref()).map_err(|e| invalid(field, e))?);
    }
    Ok(ids)
}

fn read_depth(value: Option<&[u8]>) -> Result<u64, PduError> {
    let field = "depth";
    let value = value.ok_or(PduError::Missing(field))?;
    let expected = "an integer that is not negative";
    members::integer(value)
        .and_then(|depth| u64::try_from(depth).ok())
        .ok_or(PduError::Type { field, expected })
}

fn read_origin_server_ts(
    value: Option<&[u8]>,
    rules: &RoomRules,
) -> Result<MilliSecondsSinceUnixEpoch, PduError> {
    let field = "origin_server_ts";
    let value = value.ok_or(PduError::Missing(field))?;
    let type_error = PduError::Type {
        field,
        expected: "an integer that is not negative",
    };
    let mut time = members::integer(value).ok_or(type_error.clone())?;
    if !rules.authorization.strict_canonical_json {
        // Rooms of these versions hold events with absurd times; what matters is that they can be sorted.
        time = time.clamp(0, MAX_INTEGER);
    }
    let time = u64::try_from(time)
        .ok()
        .and_then(|time| UInt::try_from(time).ok());
    time.map(MilliSecondsSinceUnixEpoch).ok_or(type_error)
}

#[cfg(test)]
mod tests;
