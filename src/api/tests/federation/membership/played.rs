//! A server that a test plays, and a room of it.

use std::{collections::BTreeMap, sync::Arc};

use federation::Federation;
use pdu::{Pdu, RoomRules};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt,
    UserId,
};
use serde_json::{Value, json, value::to_raw_value};

use super::name;

pub(super) const EVIL: &str = "evil.example";

/// A room of a server that a test plays.
pub(super) struct EvilRoom {
    key: Arc<pdu::SigningKey>,
    pub(super) rules: &'static RoomRules,
    pub(super) room_id: OwnedRoomId,
    pub(super) events: Vec<Arc<Pdu>>,
    pub(super) state: BTreeMap<(String, String), OwnedEventId>,
    /// When everything in it happened, in milliseconds since 1970.
    time: u64,
}

pub(super) fn eve() -> OwnedUserId {
    "@eve:evil.example".try_into().unwrap()
}

impl EvilRoom {
    pub(super) fn new(peer: &Federation, version: &str) -> Self {
        Self::at(peer, version, 1_600_000_000)
    }

    /// The same as it would be if it had been made at another time.
    pub(super) fn at(peer: &Federation, version: &str, time: u64) -> Self {
        let rules = RoomRules::named(version).unwrap();
        let mut room = Self {
            key: peer.signing_keys().current(),
            rules,
            room_id: RoomId::parse(format!("!evil{time}:{EVIL}")).unwrap(),
            events: Vec::new(),
            state: BTreeMap::new(),
            time,
        };
        let create = json!({ "room_version": version, "creator": eve() });
        room.put("m.room.create", "", &create);
        if rules.room_id_is_create_event_id() {
            room.room_id = room.events[0].room_id().to_owned();
        }
        room.put(
            "m.room.member",
            eve().as_str(),
            &json!({ "membership": "join" }),
        );
        let levels = match rules.room_id_is_create_event_id() {
            true => json!({}),
            false => json!({ "users": { eve().as_str(): 100 } }),
        };
        room.put("m.room.power_levels", "", &levels);
        room.put("m.room.join_rules", "", &json!({ "join_rule": "public" }));
        room.put("m.room.name", "", &json!({ "name": "Trap" }));
        room
    }

    /// Makes a state event of Eve, in the room's state.
    pub(super) fn make(&self, event_type: &str, state_key: &str, content: &Value) -> Pdu {
        self.make_by(&eve(), event_type, Some(state_key), content)
    }

    /// Makes an event in the room's state.
    pub(super) fn make_by(
        &self,
        sender: &UserId,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> Pdu {
        let draft = self.draft_by(sender, event_type, state_key, content);
        draft.sign(self.rules, &self.key, &name(EVIL)).unwrap()
    }

    /// The draft of one.
    pub(super) fn draft_by(
        &self,
        sender: &UserId,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
    ) -> pdu::Draft {
        let content = to_raw_value(content).unwrap();
        let kind = event_type.into();
        let types = pdu::auth_types(&kind, sender, state_key, &content, self.rules);
        let auth = types
            .iter()
            .filter_map(|(kind, key)| self.state.get(&(kind.to_string(), key.clone())).cloned());
        let is_create = event_type == "m.room.create";
        pdu::Draft {
            room_id: (!is_create || !self.rules.room_id_is_create_event_id())
                .then(|| self.room_id.clone()),
            sender: sender.to_owned(),
            event_type: kind,
            state_key: state_key.map(ToOwned::to_owned),
            content,
            prev_events: self
                .events
                .last()
                .iter()
                .map(|pdu| pdu.event_id().to_owned())
                .collect(),
            auth_events: auth.collect(),
            depth: self.events.len() as u64 + 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.time)),
            redacts: None,
            reference_hashes: BTreeMap::new(),
        }
    }

    /// The same event, but after another one.
    pub(super) fn after(&self, pdu: &Pdu, prev: &EventId) -> Pdu {
        let content = pdu.content().to_owned();
        let draft = pdu::Draft {
            room_id: Some(self.room_id.clone()),
            sender: pdu.sender().to_owned(),
            event_type: pdu.event_type().clone(),
            state_key: pdu.state_key().map(ToOwned::to_owned),
            content,
            prev_events: vec![prev.to_owned()],
            auth_events: pdu.auth_events().to_vec(),
            depth: pdu.depth() + 1,
            origin_server_ts: pdu.origin_server_ts(),
            redacts: None,
            reference_hashes: BTreeMap::new(),
        };
        draft.sign(self.rules, &self.key, &name(EVIL)).unwrap()
    }

    pub(super) fn put(&mut self, event_type: &str, state_key: &str, content: &Value) {
        self.put_by(&eve(), event_type, state_key, content);
    }

    pub(super) fn put_by(
        &mut self,
        sender: &UserId,
        event_type: &str,
        state_key: &str,
        content: &Value,
    ) {
        let pdu = self.make_by(sender, event_type, Some(state_key), content);
        let key = (event_type.to_owned(), state_key.to_owned());
        self.state.insert(key, pdu.event_id().to_owned());
        self.events.push(Arc::new(pdu));
    }

    /// What is told of the room who wants to join.
    pub(super) fn template(&self, user: &str) -> Value {
        let auth = ["m.room.create", "m.room.power_levels", "m.room.join_rules"];
        let auth = auth
            .iter()
            .filter(|kind| !self.rules.room_id_is_create_event_id() || **kind != "m.room.create");
        let auth: Vec<_> = auth
            .map(|kind| self.state[&((*kind).to_owned(), String::new())].clone())
            .collect();
        let event = json!({
            "room_id": self.room_id, "sender": user, "state_key": user, "type": "m.room.member",
            "content": { "membership": "join" }, "depth": 9, "auth_events": auth,
            "prev_events": [self.events.last().unwrap().event_id()],
        });
        json!({ "room_version": self.rules.version(), "event": event })
    }

    fn current(&self) -> Vec<Value> {
        let state: Vec<_> = self.state.values().collect();
        let now = |pdu: &&Arc<Pdu>| state.iter().any(|id| *id == pdu.event_id());
        let events = self.events.iter().filter(now);
        events
            .map(|pdu| serde_json::from_slice(pdu.json()).unwrap())
            .collect()
    }

    fn told<'a>(events: impl IntoIterator<Item = &'a Arc<Pdu>>) -> Vec<Value> {
        let events = events.into_iter();
        events
            .map(|pdu| serde_json::from_slice(pdu.json()).unwrap())
            .collect()
    }

    /// What is told of the room who has joined.
    pub(super) fn state(&self) -> Value {
        let events = Self::told(&self.events);
        json!({ "state": events, "auth_chain": events })
    }

    /// The same, without these members.
    pub(super) fn state_without(&self, members: &[&UserId]) -> Value {
        let kind = "m.room.member".into();
        let is_left_out =
            |pdu: &&Arc<Pdu>| members.iter().any(|it| pdu.is_state(&kind, it.as_str()));
        let (left_out, state): (Vec<_>, Vec<_>) = self.events.iter().partition(is_left_out);
        let allows = |pdu: &&Arc<Pdu>| {
            let mut allowed = state.iter().map(|event| event.auth_events());
            allowed.any(|ids| ids.iter().any(|id| id == pdu.event_id()))
        };
        let chain = left_out.into_iter().filter(allows);
        json!({
            "state": Self::told(state.iter().copied()), "auth_chain": Self::told(chain), "members_omitted": true,
            "servers_in_room": [EVIL],
        })
    }

    /// What is told of the room's state later.
    pub(super) fn whole_state(&self) -> Value {
        let all = Self::told(&self.events);
        let now = self.current();
        json!({ "pdus": now, "auth_chain": all })
    }

    /// The same, by ids alone.
    pub(super) fn whole_state_ids(&self) -> Value {
        let all: Vec<_> = self.events.iter().map(|pdu| pdu.event_id()).collect();
        let now: Vec<_> = self.state.values().collect();
        json!({ "pdu_ids": now, "auth_chain_ids": all })
    }
}
