//! What really happened in a room, read from its timeline without any of what syncs are made of.

use std::collections::BTreeMap;

use rooms::Room;
use serde_json::Value;
use storage::{
    Range,
    schema::{self, Place},
};

use super::World;

/// A key of the state, and the event that stands there.
pub(super) type State = BTreeMap<(String, String), String>;

/// A room's events, in order. They were sent one after the other, so that each state event holds.
pub(super) struct History(pub(super) Vec<Event>);

pub(super) struct Event {
    pub(super) id: String,
    pub(super) place: Place,
    pub(super) event_type: String,
    pub(super) state_key: Option<String>,
    pub(super) content: Value,
}

impl History {
    pub(super) async fn of(world: &World, room: &Room) -> Self {
        let snapshot = world.rooms.snapshot().await.unwrap();
        let range = Range::prefix(&(room.short,));
        let placed = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await
            .unwrap()
            .remove(0);
        let keys: Vec<_> = placed
            .iter()
            .map(|(_, placed)| (room.short, placed.value.number))
            .collect();
        let rows = snapshot
            .multi_get(&schema::EVENT_BY_NUMBER, &keys)
            .await
            .unwrap();
        let events = placed.into_iter().zip(rows).map(|(((_, place), _), row)| {
            let row = row.unwrap().value;
            let json: Value = serde_json::from_slice(&row.json).unwrap();
            Event {
                id: row.header.event_id,
                place,
                event_type: row.header.event_type,
                state_key: row.header.state_key,
                content: json["content"].clone(),
            }
        });
        Self(events.collect())
    }

    /// The state before the event at `index`.
    pub(super) fn state_before(&self, index: usize) -> State {
        let mut state = State::new();
        for event in &self.0[..index] {
            if let Some(key) = &event.state_key {
                let key = (event.event_type.clone(), key.clone());
                state.insert(key, event.id.clone());
            }
        }
        state
    }

    pub(super) fn index(&self, id: &str) -> usize {
        self.0.iter().position(|event| event.id == id).unwrap()
    }

    /// Somebody's membership after each event.
    pub(super) fn memberships(&self, user: &str) -> Vec<String> {
        let mut current = String::new();
        let after = self.0.iter().map(|event| {
            if event.event_type == "m.room.member" && event.state_key.as_deref() == Some(user) {
                event.content["membership"]
                    .as_str()
                    .unwrap()
                    .clone_into(&mut current);
            }
            current.clone()
        });
        after.collect()
    }

    /// Which events somebody may see who is in the room now, or was until the event before `end`.
    pub(super) fn visible(&self, user: &str, end: usize) -> Vec<bool> {
        let memberships = self.memberships(user);
        let mut visibility = "shared".to_owned();
        let seen = self.0.iter().enumerate().map(|(index, event)| {
            let before = visibility.clone();
            if event.event_type == "m.room.history_visibility" {
                event.content["history_visibility"]
                    .as_str()
                    .unwrap()
                    .clone_into(&mut visibility);
            }
            let own =
                event.event_type == "m.room.member" && event.state_key.as_deref() == Some(user);
            let was = |at: usize| memberships.get(at).is_some_and(|was| was == "join");
            let joined = was(index) || (own && index > 0 && was(index - 1));
            index < end && (joined || before == "shared" || visibility == "shared")
        });
        seen.collect()
    }
}
