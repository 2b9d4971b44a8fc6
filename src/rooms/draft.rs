//! What somebody here wants to send, before it has its place in the graph.

use std::{fmt, sync::Arc};

use pdu::RoomRules;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, events::TimelineEventType};
use serde_json::value::RawValue;
use storage::{Batch, OnceKey, ShortRoomId, schema::Sent};

use crate::redact_all::Pruning;

/// An event that somebody here wants to send; the room's writer gives it its place in the graph.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Who sends it.
    pub sender: OwnedUserId,
    /// Its type.
    pub event_type: TimelineEventType,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// Its content: a JSON object.
    pub content: Box<RawValue>,
    /// What it redacts, if it is a redaction.
    pub redacts: Option<OwnedEventId>,
    /// The time it says it was sent, in milliseconds since 1970; now if none (application services may
    /// choose).
    pub origin_server_ts: Option<u64>,
    /// The device and its transaction id, to be shown to that device.
    pub sent: Option<Sent>,
}

impl Draft {
    /// A state event.
    pub fn state(
        sender: OwnedUserId,
        event_type: impl Into<TimelineEventType>,
        state_key: impl Into<String>,
        content: Box<RawValue>,
    ) -> Self {
        Self {
            state_key: Some(state_key.into()),
            ..Self::message(sender, event_type, content)
        }
    }

    /// An event that is not state.
    pub fn message(
        sender: OwnedUserId,
        event_type: impl Into<TimelineEventType>,
        content: Box<RawValue>,
    ) -> Self {
        Self {
            sender,
            event_type: event_type.into(),
            state_key: None,
            content,
            redacts: None,
            origin_server_ts: None,
            sent: None,
        }
    }
}

/// Rows that are to be written together with a group's events. Called once for each try to commit, with
/// the ids of the events.
pub type MoreRows = Arc<dyn Fn(&mut Batch, &[OwnedEventId]) + Send + Sync>;

/// Drafts that are sent together: all of them or none, in one commit.
#[derive(Clone, Default)]
pub struct Group {
    /// The events, in order; later ones see the state that earlier ones make.
    pub drafts: Vec<Draft>,
    /// Makes this the only time that these drafts are sent; a second time gets the first one's answer.
    pub once: Option<OnceKey>,
    /// Other rows of the same commit.
    pub more: Option<MoreRows>,
    /// What is to be pruned without a redaction, instead of drafts.
    pub(crate) pruning: Option<Pruning>,
    /// For the group that makes a new room: its short id (the draft of `m.room.create` comes first).
    pub(crate) create: Option<NewRoom>,
}

/// What a group that makes a room says besides its drafts.
#[derive(Clone, Debug)]
pub(crate) struct NewRoom {
    pub(crate) short: ShortRoomId,
    pub(crate) rules: &'static RoomRules,
    /// In versions whose rooms are named by their first event nobody reads this one.
    pub(crate) room_id: OwnedRoomId,
    /// Whether it is published in the directory.
    pub(crate) public: bool,
}

impl NewRoom {
    /// The room's id, once its first events have theirs.
    pub(crate) fn room_id(&self, ids: &[OwnedEventId]) -> Option<OwnedRoomId> {
        if !self.rules.room_id_is_create_event_id() {
            return Some(self.room_id.clone());
        }
        let hash = ids.first()?.as_str().trim_start_matches('$');
        RoomId::parse(format!("!{hash}")).ok()
    }
}

impl Group {
    /// A single event.
    pub fn one(draft: Draft) -> Self {
        Self {
            drafts: vec![draft],
            ..Self::default()
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group")
            .field("drafts", &self.drafts)
            .field("once", &self.once)
            .field("more", &self.more.is_some())
            .field("pruning", &self.pruning)
            .field("create", &self.create)
            .finish()
    }
}
