//! Why a room's state at an event is what it is, for operators: which events the state comes from, what was
//! thought of them, between what a resolution had to choose, and what it chose.
//!
//! All of it is what is stored; nothing is judged anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pdu::{
    EventNumber,
    tree::{self, NodeHash, Nodes},
};
use ruma::{EventId, OwnedEventId, events::StateEventType};
use serde::{Deserialize, Serialize};
use storage::{
    Snapshot,
    schema::{self, EventRoots, Outcome, Standing},
};

use crate::{Room, Rooms, StoredEvent, writer::GraphEvent};

/// Entries of the state, and of what differed, that are told at most.
const ENTRIES_MAX: usize = 1_000;

/// A room's state at an event, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The room.
    pub room_id: String,
    /// The version of the room.
    pub version: String,
    /// The event.
    pub event: Named,
    /// Those that it follows, by its own word.
    pub prev: Vec<Named>,
    /// Those that allow it, by its own word.
    pub auth: Vec<Named>,
    /// In what the states differ that its prev events left behind, and what was chosen for the state before it.
    pub differing: Vec<Differing>,
    /// How many entries the state before it has; none if that is not known.
    pub entries: Option<usize>,
    /// Those that were asked for; without members, if no type was.
    pub state: Vec<Entry>,
    /// Its room's forward extremities at the moment.
    pub ends: Vec<String>,
    /// At how many events of the room state was lost in a resolution that nobody had contested.
    pub resets: u64,
}

/// An event, and what is thought of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its id.
    pub event_id: String,
    /// What it is: its type, its state key in brackets, its sender. None for one that is not here.
    pub what: Option<String>,
    /// What is thought of it, and why.
    pub verdict: String,
}

/// An entry in which states differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// The type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
    /// What each of the prev events left there; nothing where it left none.
    pub candidates: Vec<Option<String>>,
    /// What stands in the state before the event; nothing if none was allowed.
    pub chosen: Option<String>,
}

/// An entry of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The type.
    pub event_type: String,
    /// The state key.
    pub state_key: String,
    /// The event.
    pub event_id: String,
    /// Who sent it.
    pub sender: String,
}

impl Rooms {
    /// Explains the state of its room at an event: all of it but members, or the entries of one type.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if there is no such event here. Storage fails.
    pub async fn explain(
        &self,
        event_id: &EventId,
        event_type: Option<&str>,
    ) -> error::Result<Explained> {
        let unknown = || error::not_found(format!("There is no event {event_id} here"));
        let room = self.find_room_of_event(event_id).await?;
        let room = room.ok_or_else(unknown)?;
        let snapshot = self.snapshot().await?;
        let (head, _) = room.current_numbers(self, &snapshot, &[]).await?;
        let own = [event_id.to_owned()];
        let own = room.graph_events(self, &snapshot, &own).await?;
        let own = own.into_iter().flatten().next().ok_or_else(unknown)?;
        let pdu = &own.event.pdu;
        let prev = room.graph_events(self, &snapshot, pdu.prev_events());
        let prev = prev.await?;
        let auth = room.graph_events(self, &snapshot, pdu.auth_events());
        let auth = auth.await?;
        let (differing, entries, state) = match own.roots {
            Some(roots) => {
                let differing = room.differing(&snapshot, &prev, roots).await?;
                let numbers = room.whole_state(&snapshot, roots.before).await?;
                let entries = room.told(&snapshot, &numbers, event_type).await?;
                (differing, Some(numbers.len()), entries)
            }
            None => (Vec::new(), None, Vec::new()),
        };
        let keys = [room.short];
        let resets = snapshot.multi_get(&schema::RESETS_BY_ROOM, &keys);
        let resets = resets.await?.into_iter().flatten().next();
        let ends = head.extremities.iter().map(|one| one.event_id.clone());
        Ok(Explained {
            room_id: room.room_id.to_string(),
            version: room.rules.version().to_owned(),
            prev: all_named(pdu.prev_events(), &prev),
            auth: all_named(pdu.auth_events(), &auth),
            event: named(event_id, Some(&own)),
            differing,
            entries,
            state,
            ends: ends.collect(),
            resets: resets.map_or(0, |row| u64::try_from(row.value.0).unwrap_or(0)),
        })
    }
}

impl Room {
    /// In what the states differ that these events leave behind, and what of it stands in the state before
    /// the one that follows them.
    async fn differing(
        &self,
        snapshot: &Snapshot,
        prev: &[Option<GraphEvent>],
        roots: EventRoots,
    ) -> error::Result<Vec<Differing>> {
        let roots_of = |event: &Option<GraphEvent>| Some(event.as_ref()?.roots?.after);
        let after: Vec<_> = prev.iter().map(roots_of).collect();
        let distinct: BTreeSet<_> = after.iter().flatten().copied().collect();
        if distinct.len() < 2 {
            return Ok(Vec::new());
        }
        let distinct: Vec<_> = distinct.into_iter().collect();
        let hashes: Vec<_> = distinct.iter().copied().map(NodeHash).collect();
        let mut nodes = Nodes::new();
        let divergences = self
            .on_tree(snapshot, &mut nodes, |nodes| tree::diff_all(&hashes, nodes))
            .await?;
        let divergences: Vec<_> = divergences.into_iter().take(ENTRIES_MAX).collect();
        let before = NodeHash(roots.before);
        let wanted: Vec<_> = divergences.iter().map(|one| (before, one.key)).collect();
        let chosen = self
            .on_tree(snapshot, &mut nodes, |nodes| tree::find(&wanted, nodes))
            .await?;
        let numbers = divergences.iter().flat_map(|one| &one.values);
        let numbers: BTreeSet<_> = numbers.chain(&chosen).flatten().copied().collect();
        let events = self.by_number(snapshot, numbers).await?;
        let id = |number: Option<EventNumber>| {
            let event = events.get(&number?)?;
            Some(event.header.event_id.clone())
        };
        let mut differing = Vec::new();
        for (divergence, chosen) in divergences.iter().zip(chosen) {
            let held = divergence.values.iter().flatten().next();
            let Some(event) = held.and_then(|number| events.get(number)) else {
                continue;
            };
            let left = |root: &Option<[u8; 16]>| {
                let place = distinct.iter().position(|one| Some(*one) == *root)?;
                id(*divergence.values.get(place)?)
            };
            differing.push(Differing {
                event_type: event.header.event_type.clone(),
                state_key: event.header.state_key.clone().unwrap_or_default(),
                candidates: after.iter().map(left).collect(),
                chosen: id(chosen),
            });
        }
        differing.sort_by_key(|one| (one.event_type.clone(), one.state_key.clone()));
        Ok(differing)
    }

    /// Those entries of a state that are told.
    async fn told(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
        event_type: Option<&str>,
    ) -> error::Result<Vec<Entry>> {
        let mut entries: BTreeMap<_, Entry> = BTreeMap::new();
        for numbers in numbers.chunks(ENTRIES_MAX) {
            let events = self.by_number(snapshot, numbers.iter().copied().collect());
            for event in events.await?.into_values() {
                let header = &event.header;
                let told = match event_type {
                    Some(wanted) => header.event_type == wanted,
                    None => header.event_type != StateEventType::RoomMember.to_string(),
                };
                if !told {
                    continue;
                }
                let state_key = header.state_key.clone().unwrap_or_default();
                let entry = Entry {
                    event_type: header.event_type.clone(),
                    state_key,
                    event_id: header.event_id.clone(),
                    sender: header.sender.clone(),
                };
                let key = (entry.event_type.clone(), entry.state_key.clone());
                entries.insert(key, entry);
            }
        }
        Ok(entries.into_values().take(ENTRIES_MAX).collect())
    }

    async fn by_number(
        &self,
        snapshot: &Snapshot,
        numbers: BTreeSet<EventNumber>,
    ) -> error::Result<HashMap<EventNumber, StoredEvent>> {
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = self.graph_by_number(snapshot, &numbers).await?;
        let events = events.into_iter();
        Ok(events
            .map(|(number, event)| (number, (*event.event).clone()))
            .collect())
    }
}

fn all_named(ids: &[OwnedEventId], events: &[Option<GraphEvent>]) -> Vec<Named> {
    let all = ids.iter().zip(events);
    all.map(|(id, event)| named(id, event.as_ref())).collect()
}

fn named(event_id: &EventId, event: Option<&GraphEvent>) -> Named {
    let what = event.map(|event| {
        let header = &event.event.header;
        let key = header.state_key.as_ref();
        let key = key.map(|key| format!(" [{key}]")).unwrap_or_default();
        format!("{}{key} by {}", header.event_type, header.sender)
    });
    Named {
        event_id: event_id.to_string(),
        what,
        verdict: event.map_or_else(|| "not here".to_owned(), verdict),
    }
}

fn verdict(event: &GraphEvent) -> String {
    let Some(verdict) = &event.verdict else {
        return "accepted".to_owned();
    };
    let standing = match verdict.standing {
        Standing::Live => "",
        Standing::Historic => " as history",
        Standing::Outlier => " as somebody's state or auth event",
    };
    let outcome = match verdict.outcome {
        Outcome::Accepted => "accepted",
        Outcome::SoftFailed => "soft-failed",
        Outcome::Rejected => "rejected",
    };
    let reason = verdict.reason.as_ref();
    let reason = reason
        .map(|reason| format!(": {reason}"))
        .unwrap_or_default();
    format!("{outcome}{standing}{reason}")
}
