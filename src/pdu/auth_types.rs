//! Which parts of the state must allow an event: the auth events selection.

use std::borrow::Cow;

use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;

use crate::{
    canonical::{
        Numbers, Value,
        members::{find, string},
    },
    event::Pdu,
    version::RoomRules,
};

/// The parts of the room's state that an event must be allowed by and lists in `auth_events`, as far as
/// they exist ([auth events selection]).
///
/// Since version 12 the `m.room.create` event is not among them. A malformed member event, which the auth
/// rules will refuse anyway, gets fewer.
///
/// [auth events selection]: https://spec.matrix.org/v1.19/server-server-api/#auth-events-selection
pub fn auth_types(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &RawValue,
    rules: &RoomRules,
) -> Vec<(StateEventType, String)> {
    let mut canonical = Vec::new();
    if *event_type == TimelineEventType::RoomMember
        && let Ok(content) = Value::parse(content.get().as_bytes(), Numbers::Any)
    {
        content.write(&mut canonical);
    }
    select(event_type, sender, state_key, &canonical, rules)
}

impl Pdu {
    /// The parts of the room's state that this event must be allowed by, see [`auth_types`].
    pub fn auth_types(&self, rules: &RoomRules) -> Vec<(StateEventType, String)> {
        select(
            self.event_type(),
            self.sender(),
            self.state_key(),
            self.content_bytes(),
            rules,
        )
    }
}

fn select(
    event_type: &TimelineEventType,
    sender: &UserId,
    state_key: Option<&str>,
    content: &[u8],
    rules: &RoomRules,
) -> Vec<(StateEventType, String)> {
    if *event_type == TimelineEventType::RoomCreate {
        return Vec::new();
    }
    let mut types = Vec::with_capacity(5);
    if !rules.authorization.room_create_event_id_as_room_id {
        types.push((StateEventType::RoomCreate, String::new()));
    }
    types.push((StateEventType::RoomPowerLevels, String::new()));
    types.push((StateEventType::RoomMember, sender.to_string()));
    if *event_type == TimelineEventType::RoomMember {
        select_for_member(state_key, content, rules, &mut types);
    }
    types
}

fn select_for_member(
    state_key: Option<&str>,
    content: &[u8],
    rules: &RoomRules,
    types: &mut Vec<(StateEventType, String)>,
) {
    let mut add = |event_type: StateEventType, state_key: &str| {
        if !types
            .iter()
            .any(|(t, k)| *t == event_type && k == state_key)
        {
            types.push((event_type, state_key.to_owned()));
        }
    };
    if let Some(target) = state_key {
        add(StateEventType::RoomMember, target);
    }
    let membership = find(content, "membership").and_then(string);
    let membership = membership.as_deref().unwrap_or_default();
    if matches!(membership, "join" | "invite" | "knock") {
        add(StateEventType::RoomJoinRules, "");
    }
    if membership == "invite"
        && let Some(token) = third_party_token(content)
    {
        add(StateEventType::RoomThirdPartyInvite, &token);
    }
    if membership == "join"
        && rules.authorization.restricted_join_rule
        && let Some(user) = find(content, "join_authorised_via_users_server").and_then(string)
    {
        add(StateEventType::RoomMember, &user);
    }
}

fn third_party_token(content: &[u8]) -> Option<Cow<'_, str>> {
    string(find(
        find(find(content, "third_party_invite")?, "signed")?,
        "token",
    )?)
}
