//! What has to be known to judge some drafts.

use std::{collections::BTreeSet, sync::Arc};

use pdu::RoomRules;
use ruma::{
    EventId, OwnedEventId, OwnedUserId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use storage::OnceKey;

use crate::{Draft, Group, StateKey, StoredEvent, event::Mentions, redact_all::Pruning};

/// The state that everybody who is invited, or who knocks, gets to see (client-server API, *Stripped
/// state*).
pub(crate) const STRIPPED_STATE: [StateEventType; 7] = [
    StateEventType::RoomCreate,
    StateEventType::RoomName,
    StateEventType::RoomAvatar,
    StateEventType::RoomTopic,
    StateEventType::RoomJoinRules,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomEncryption,
];

/// What has to be known to judge some drafts and to write what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Needs {
    pub(super) state: BTreeSet<StateKey>,
    /// For each draft the keys under which its auth events stand.
    pub(super) auth: Vec<Vec<StateKey>>,
    pub(super) once: Vec<OnceKey>,
    /// Events that drafts relate to or redact.
    pub(super) events: BTreeSet<OwnedEventId>,
    /// People of ours whose rows may change.
    pub(super) users: BTreeSet<OwnedUserId>,
    /// People whose membership may change.
    pub(super) members: BTreeSet<OwnedUserId>,
    /// Events that came in.
    pub(super) incoming: BTreeSet<OwnedEventId>,
    /// The events of the graph to look at: those and all that they name.
    pub(super) graph: BTreeSet<OwnedEventId>,
}

impl Needs {
    pub(super) fn of(rules: &RoomRules, server_name: &ServerName, groups: &[&Group]) -> Self {
        let mut needs = Self::default();
        for group in groups {
            needs.once.extend(group.once);
            if let Some(pruning) = &group.pruning {
                needs.add_pruning(pruning);
            }
            for draft in &group.drafts {
                needs.add(rules, server_name, draft);
            }
        }
        needs
    }

    /// What is needed to judge an event of another server that is like this draft.
    pub(super) fn incoming(rules: &RoomRules, server_name: &ServerName, draft: &Draft) -> Self {
        let mut needs = Self::default();
        needs.add(rules, server_name, draft);
        needs
    }

    /// What is needed to put these events into the current state.
    pub(super) fn of_changes<'a>(
        server_name: &ServerName,
        events: impl Iterator<Item = &'a Arc<StoredEvent>>,
    ) -> Self {
        let mut needs = Self::default();
        for event in events {
            if *event.pdu.event_type() != TimelineEventType::RoomMember {
                continue;
            }
            let Some(member) = event
                .pdu
                .state_key()
                .and_then(|key| UserId::parse(key).ok())
            else {
                continue;
            };
            let sender = event.header.sender.clone();
            needs.state.insert((StateEventType::RoomMember, sender));
            let stripped = STRIPPED_STATE.map(|kind| (kind, String::new()));
            needs.state.extend(stripped);
            if member.server_name() == server_name {
                needs.users.insert(member.clone());
            }
            needs.members.insert(member);
        }
        needs
    }

    fn add_pruning(&mut self, pruning: &Pruning) {
        self.state.extend([
            (StateEventType::RoomCreate, String::new()),
            (StateEventType::RoomPowerLevels, String::new()),
            (StateEventType::RoomMember, pruning.user.clone()),
        ]);
        self.events.extend(pruning.targets.iter().cloned());
    }

    /// What is needed for one more draft.
    pub(super) fn add(&mut self, rules: &RoomRules, server_name: &ServerName, draft: &Draft) {
        for event_type in [
            StateEventType::RoomCreate,
            StateEventType::RoomPowerLevels,
            StateEventType::RoomHistoryVisibility,
            StateEventType::RoomPolicy,
        ] {
            self.state.insert((event_type, String::new()));
        }
        let auth = auth_types(draft, rules);
        self.state.extend(auth.iter().cloned());
        self.auth.push(auth);
        self.users.insert(draft.sender.clone());
        if let Some(state_key) = &draft.state_key {
            let event_type = StateEventType::from(draft.event_type.to_string());
            self.state.insert((event_type, state_key.clone()));
        }
        if draft.event_type == TimelineEventType::RoomMember
            && let Some(member) = draft
                .state_key
                .as_deref()
                .and_then(|key| UserId::parse(key).ok())
        {
            self.state.extend(
                STRIPPED_STATE
                    .into_iter()
                    .map(|event_type| (event_type, String::new())),
            );
            self.members.insert(member);
        }
        self.events.extend(draft.redacts.clone());
        if draft.event_type == TimelineEventType::RoomRedaction && draft.redacts.is_none() {
            self.events.extend(redacts_in_content(draft.content.get()));
        }
        let mentions = Mentions::of_content(draft.content.get().as_bytes());
        self.events
            .extend(mentions.relation.map(|relation| relation.parent));
        self.users.extend(mentions.users);
        self.users.extend(self.members.iter().cloned());
        self.users.retain(|user| user.server_name() == server_name);
    }
}

/// The keys under which a draft's auth events stand, since version 12 with that of `m.room.create`.
pub(super) fn auth_types(draft: &Draft, rules: &RoomRules) -> Vec<StateKey> {
    let state_key = draft.state_key.as_deref();
    let mut types = pdu::auth_types(
        &draft.event_type,
        &draft.sender,
        state_key,
        &draft.content,
        rules,
    );
    if rules.room_id_is_create_event_id() && draft.event_type != TimelineEventType::RoomCreate {
        types.push((StateEventType::RoomCreate, String::new()));
    }
    types
}

/// The id that a redaction names in its content, where its version has it there.
pub(super) fn redacts_in_content(content: &str) -> Option<OwnedEventId> {
    #[derive(serde::Deserialize)]
    struct Content {
        redacts: Option<String>,
    }
    let content: Content = serde_json::from_str(content).ok()?;
    EventId::parse(content.redacts?).ok()
}
