//! An event as servers exchange it.

use std::ops::Range;

use bytes::Bytes;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomIdFormatVersion,
    state_res::Event,
};
use serde_json::value::RawValue;

use crate::{
    canonical::Value,
    error::{MAX_EVENT_TEXT_BYTES, PduError},
    format::Fields,
    hash::hashed_event_id,
    redact,
    version::RoomRules,
};

/// An event as servers exchange it, with the fields that servers act on read out of its JSON.
///
/// It is never changed after it was made, but for [`Pdu::set_rejected`] before it is shared; put it
/// behind an `Arc` to hold it in several places.
#[derive(Clone, Debug)]
pub struct Pdu {
    event_id: OwnedEventId,
    room_id: OwnedRoomId,
    sender: OwnedUserId,
    event_type: TimelineEventType,
    state_key: Option<String>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: u64,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    redacts: Option<OwnedEventId>,
    json: Bytes,
    content: Range<u32>,
    names_room: bool,
    rejected: bool,
}

impl Pdu {
    /// Reads an event that another server sent.
    ///
    /// Brings it into canonical form, checks the form that its room's version asks for (step 1 of the
    /// [checks performed on receipt of a PDU]) and works out its ID. `unsigned` is dropped: it is what
    /// one server tells another beside the event. Hashes and signatures are not looked at, see
    /// [`check_content_hash`](crate::check_content_hash) and
    /// [`verify_signatures`](crate::verify_signatures).
    ///
    /// # Errors
    ///
    /// Names the field that is missing, too long or not of the form that the version asks for.
    ///
    /// [checks performed on receipt of a PDU]: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
    pub fn parse(text: &[u8], rules: &RoomRules) -> Result<Self, PduError> {
        if text.len() > MAX_EVENT_TEXT_BYTES {
            return Err(PduError::TooLarge(text.len()));
        }
        let Value::Object(mut event) = Value::parse(text, rules.numbers())? else {
            return Err(PduError::NotAnObject);
        };
        event.remove("unsigned");
        let mut json = Vec::with_capacity(text.len());
        Value::Object(event).write(&mut json);
        Self::from_canonical(json.into(), rules)
    }

    /// Makes an event of its canonical JSON, as [`Pdu::json`] gives it.
    pub(crate) fn from_canonical(json: Bytes, rules: &RoomRules) -> Result<Self, PduError> {
        let fields = Fields::read(&json, rules)?;
        let event_id = match &fields.event_id {
            Some(event_id) => event_id.clone(),
            None => hashed_event_id(&json, rules)?,
        };
        Self::from_fields(fields, event_id, json, false)
    }

    /// Makes an event again of what we stored of it: `json` is what [`Pdu::json`] gave.
    ///
    /// No hash is computed, so this is much cheaper than [`Pdu::parse`].
    ///
    /// # Errors
    ///
    /// As [`Pdu::parse`], when the bytes are not what was stored.
    pub fn from_stored(
        event_id: OwnedEventId,
        json: Bytes,
        rules: &RoomRules,
        rejected: bool,
    ) -> Result<Self, PduError> {
        let fields = Fields::read(&json, rules)?;
        Self::from_fields(fields, event_id, json, rejected)
    }

    fn from_fields(
        fields: Fields,
        event_id: OwnedEventId,
        json: Bytes,
        rejected: bool,
    ) -> Result<Self, PduError> {
        let names_room = fields.room_id.is_none();
        let room_id = match fields.room_id {
            Some(room_id) => room_id,
            None => room_id_of_create(&event_id)?,
        };
        Ok(Self {
            event_id,
            room_id,
            sender: fields.sender,
            event_type: fields.event_type,
            state_key: fields.state_key,
            prev_events: fields.prev_events,
            auth_events: fields.auth_events,
            depth: fields.depth,
            origin_server_ts: fields.origin_server_ts,
            redacts: fields.redacts,
            json,
            content: fields.content,
            names_room,
            rejected,
        })
    }

    /// The event's ID: its own field in versions 1 and 2, made of its reference hash since.
    pub fn event_id(&self) -> &EventId {
        &self.event_id
    }

    /// The room. For the `m.room.create` event of a room of version 12 it is made of the event's ID.
    pub fn room_id(&self) -> &RoomId {
        &self.room_id
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        &self.sender
    }

    /// The type.
    pub fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    /// The state key; `None` if this is no state event.
    pub fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    /// What the event is in the room's state: type and state key; `None` if this is no state event.
    pub fn state_slot(&self) -> Option<(StateEventType, &str)> {
        let state_key = self.state_key()?;
        Some((StateEventType::from(self.event_type.to_string()), state_key))
    }

    /// Whether this is the state event of a type and state key.
    pub fn is_state(&self, event_type: &TimelineEventType, state_key: &str) -> bool {
        self.event_type == *event_type && self.state_key.as_deref() == Some(state_key)
    }

    /// The events that came before, as far as the sender's server knew.
    pub fn prev_events(&self) -> &[OwnedEventId] {
        &self.prev_events
    }

    /// The events that allow this one, as listed in it: since version 12 without the `m.room.create`
    /// event, which [`RoomRules::implied_create_event`] names.
    pub fn auth_events(&self) -> &[OwnedEventId] {
        &self.auth_events
    }

    /// How many events lie between the room's beginning and this one, as the sender's server says.
    pub fn depth(&self) -> u64 {
        self.depth
    }

    /// When the sender's server says to have made it.
    pub fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    /// What this redacts, if it is an `m.room.redaction` that names an event.
    pub fn redacts(&self) -> Option<&EventId> {
        self.redacts.as_deref()
    }

    /// The event in canonical form, as servers exchange it: without `unsigned`, and since version 3
    /// without `event_id`.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Where `content` lies within [`Pdu::json`], in bytes.
    pub fn content_span(&self) -> Range<u32> {
        self.content.clone()
    }

    /// `content` in canonical form.
    pub fn content_bytes(&self) -> &[u8] {
        // A u32 fits into a usize wherever a homeserver runs; an unfit span is an empty content.
        let start = usize::try_from(self.content.start).unwrap_or(usize::MAX);
        let end = usize::try_from(self.content.end).unwrap_or(usize::MAX);
        self.json.get(start..end).unwrap_or(b"{}")
    }

    /// `content` as raw JSON, for serde. Costs one pass over it; [`canonical::member`] reads single
    /// fields without.
    ///
    /// [`canonical::member`]: crate::canonical::member
    pub fn content(&self) -> &RawValue {
        serde_json::from_slice(self.content_bytes()).unwrap_or(RawValue::NULL)
    }

    /// Whether the event failed the checks of its auth events or of the state before it.
    pub fn rejected(&self) -> bool {
        self.rejected
    }

    /// Says whether the event failed the checks of its auth events or of the state before it.
    pub fn set_rejected(&mut self, rejected: bool) {
        self.rejected = rejected;
    }

    /// The event as it is after a redaction, with the same ID
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#redactions)).
    ///
    /// # Errors
    ///
    /// Only if this event was made under the rules of another room version than `rules`.
    pub fn redacted(&self, rules: &RoomRules) -> Result<Self, PduError> {
        let json = redact::redacted_json(&self.json, rules);
        Self::from_stored(self.event_id.clone(), json.into(), rules, self.rejected)
    }
}

impl RoomRules {
    /// The ID of the `m.room.create` event of a room, where the room is named by it (since version 12).
    pub fn implied_create_event(&self, room_id: &RoomId) -> Option<OwnedEventId> {
        if self.room_id_format != RoomIdFormatVersion::V2 {
            return None;
        }
        EventId::parse(format!("${}", room_id.strip_sigil())).ok()
    }
}

fn room_id_of_create(event_id: &EventId) -> Result<OwnedRoomId, PduError> {
    let hash = event_id.as_str().strip_prefix('$').unwrap_or_default();
    RoomId::parse(format!("!{hash}")).map_err(|e| PduError::Invalid {
        field: "room_id",
        reason: e.to_string(),
    })
}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        (!self.names_room).then_some(&*self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.event_type
    }

    fn content(&self) -> &RawValue {
        Pdu::content(self)
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}
