//! What the contents of state events say to servers, read leniently: what is missing or malformed is
//! read as what a room has that never set it.

use ruma::{
    events::room::{history_visibility::HistoryVisibility, member::MembershipState},
    room::JoinRuleKind,
};

use crate::{canonical::members, event::Pdu};

impl Pdu {
    /// The value of a key of `content`, in canonical form.
    pub fn content_member(&self, key: &str) -> Option<&[u8]> {
        members::find(self.content_bytes(), key)
    }

    /// The value of a key of `content`, if it is a string.
    pub fn content_string(&self, key: &str) -> Option<std::borrow::Cow<'_, str>> {
        self.content_member(key).and_then(members::string)
    }

    /// The `membership` of an `m.room.member` event; `None` if there is none or it is no string.
    pub fn membership(&self) -> Option<MembershipState> {
        self.content_string("membership")
            .map(|text| MembershipState::from(text.as_ref()))
    }

    /// The `join_rule` of an `m.room.join_rules` event; `None` if there is none or it is no string.
    pub fn join_rule(&self) -> Option<JoinRuleKind> {
        self.content_string("join_rule")
            .map(|text| JoinRuleKind::from(text.as_ref()))
    }
}

/// The membership that a user's `m.room.member` event says; without one, the user has left.
pub fn membership_of(event: Option<&Pdu>) -> MembershipState {
    event
        .and_then(Pdu::membership)
        .unwrap_or(MembershipState::Leave)
}

/// The join rule of a room whose `m.room.join_rules` event this is.
///
/// NOTSPEC: the spec gives rooms without one no rule; like Synapse we take `invite`.
pub fn join_rule_of(event: Option<&Pdu>) -> JoinRuleKind {
    event
        .and_then(Pdu::join_rule)
        .unwrap_or(JoinRuleKind::Invite)
}

/// The history visibility of a room whose `m.room.history_visibility` event this is: `shared` without
/// one, and for what is none of the four values
/// ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility)).
pub fn history_visibility_of(event: Option<&Pdu>) -> HistoryVisibility {
    let text = event.and_then(|event| event.content_string("history_visibility"));
    match text.as_deref() {
        Some("invited") => HistoryVisibility::Invited,
        Some("joined") => HistoryVisibility::Joined,
        Some("world_readable") => HistoryVisibility::WorldReadable,
        _ => HistoryVisibility::Shared,
    }
}
