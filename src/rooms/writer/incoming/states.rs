//! The states around an event that came in, and what it changes in the current one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::{
    AuthChain, EventNumber,
    tree::{self, NodeHash},
};
use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
};
use smallvec::SmallVec;
use storage::schema::{self, EventRoots, Extremity};

use super::Judging;
use crate::{
    StateKey, StoredEvent,
    writer::{
        Way,
        graph::GraphEvent,
        judge::{CurrentChange, Entry},
    },
};

/// More changed entries of the current state than this are written as a new generation of the flat
/// tables; in tests few are, so that there are such.
const CHANGED_MAX: usize = if cfg!(test) { 20 } else { 1_000 };

/// Entries of states, by the states' roots and their keys.
pub(super) type Entries = HashMap<([u8; 16], StateKey), Arc<StoredEvent>>;

impl Judging<'_> {
    /// The states around events; outliers have none.
    async fn roots(
        &self,
        numbers: &[EventNumber],
    ) -> error::Result<HashMap<EventNumber, EventRoots>> {
        if numbers.is_empty() {
            return Ok(HashMap::new());
        }
        let keys: Vec<_> = numbers
            .iter()
            .map(|number| (self.room.short, *number))
            .collect();
        let rows = self
            .snapshot
            .multi_get(&schema::ROOTS_BY_EVENT, &keys)
            .await?;
        let all = numbers.iter().zip(rows);
        Ok(all
            .filter_map(|(number, row)| Some((*number, row?.value)))
            .collect())
    }

    /// The states that the event's prev events leave behind.
    pub(super) fn roots_before(&self, prev: &[&GraphEvent]) -> Vec<[u8; 16]> {
        let numbers: BTreeSet<_> = prev.iter().map(|event| event.event.number).collect();
        let extremities = &self.head().extremities;
        if numbers == extremities.iter().map(|one| one.number).collect() {
            // They are resolved already: that is the current state.
            return vec![self.head().root];
        }
        let roots = prev.iter().filter_map(|event| event.roots);
        roots.map(|roots| roots.after).collect()
    }

    /// The states that the forward extremities leave behind which the event does not follow.
    pub(super) async fn beside(&self) -> error::Result<Vec<[u8; 16]>> {
        let others = self.others();
        let numbers: Vec<_> = others.iter().map(|extremity| extremity.number).collect();
        let roots = self.roots(&numbers).await?;
        Ok(roots.into_values().map(|roots| roots.after).collect())
    }

    /// The state before the event: what its prev events leave behind, resolved if they differ, or what
    /// was given.
    pub(super) async fn state_before(
        &mut self,
        mut roots: Vec<[u8; 16]>,
        given: Option<Vec<EventNumber>>,
        create: EventNumber,
    ) -> error::Result<[u8; 16]> {
        if let Some(numbers) = given {
            let events = self.room.stored_events(self.snapshot, &numbers).await?;
            // What was rejected changes no state, whoever says so, and a room has one create event only: its server
            // could make another, which by itself is none that the rules reject.
            let another = |event: &StoredEvent| {
                let first = self.first_event();
                event.pdu.is_state(&TimelineEventType::RoomCreate, "")
                    && first.is_some_and(|first| first != event.number)
            };
            let entries: Vec<_> = events
                .iter()
                .filter(|event| !event.pdu.rejected() && !another(event))
                .filter_map(|event| {
                    let (event_type, state_key) = event.pdu.state_slot()?;
                    Some((
                        self.room.tree_key(&event_type, state_key),
                        Some(event.number),
                    ))
                })
                .collect();
            let root = self.changed(tree::EMPTY_ROOT.0, &entries).await?;
            roots.push(root);
        }
        if roots.is_empty() {
            return Ok(tree::EMPTY_ROOT.0);
        }
        self.resolved(&roots, create, None).await
    }

    /// The room's create event, if there is one here already.
    fn first_event(&self) -> Option<EventNumber> {
        let key = (StateEventType::RoomCreate, String::new());
        let create = self.working.state.get(&key)?.as_ref()?;
        Some(create.number)
    }

    pub(super) async fn resolved(
        &mut self,
        roots: &[[u8; 16]],
        create: EventNumber,
        unstored: Option<(&Arc<StoredEvent>, &Arc<AuthChain>)>,
    ) -> error::Result<[u8; 16]> {
        let resolved = self
            .room
            .resolve(self.snapshot, &mut self.nodes, roots, create, unstored)
            .await?;
        self.new_nodes.extend(resolved.nodes);
        self.reset |= resolved.reset;
        Ok(resolved.root)
    }

    pub(super) async fn changed(
        &mut self,
        root: [u8; 16],
        changes: &[(tree::StateKeyHash, Option<EventNumber>)],
    ) -> error::Result<[u8; 16]> {
        let changed = self
            .room
            .changed_tree(self.snapshot, &mut self.nodes, root, changes)
            .await?;
        self.new_nodes.extend(changed.nodes);
        Ok(changed.root)
    }

    /// What is known already of the states of some roots, and what is not.
    pub(super) fn known_entries(
        &self,
        roots: &[[u8; 16]],
        keys: &[StateKey],
    ) -> (Entries, Vec<([u8; 16], StateKey)>) {
        let current = self.head().root;
        let mut state = HashMap::new();
        let mut unknown = Vec::new();
        for (root, key) in roots
            .iter()
            .flat_map(|root| keys.iter().map(move |key| (*root, key)))
        {
            // What the current state holds is known, as far as it was foreseen.
            match self.working.state.get(key) {
                Some(event) if root == current => {
                    state.extend(event.clone().map(|event| ((root, key.clone()), event)));
                }
                _ => unknown.push((root, key.clone())),
            }
        }
        (state, unknown)
    }

    /// Events of the states of some roots.
    pub(super) async fn find(
        &mut self,
        roots: &[[u8; 16]],
        keys: &[StateKey],
    ) -> error::Result<Entries> {
        let (mut state, asked) = self.known_entries(roots, keys);
        if asked.is_empty() {
            return Ok(state);
        }
        let wanted: Vec<_> = asked
            .iter()
            .map(|(root, (kind, key))| (NodeHash(*root), self.room.tree_key(kind, key)))
            .collect();
        let found = self
            .room
            .on_tree(self.snapshot, &mut self.nodes, |nodes| {
                tree::find(&wanted, nodes)
            })
            .await?;
        let numbers: BTreeSet<_> = found.iter().flatten().copied().collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = self.room.stored_events(self.snapshot, &numbers).await?;
        let events: HashMap<_, _> = numbers.into_iter().zip(events).collect();
        state.extend(
            asked
                .into_iter()
                .zip(found)
                .filter_map(|(asked, number)| Some((asked, Arc::clone(events.get(&number?)?)))),
        );
        Ok(state)
    }

    /// The forward extremities after the event, and what it changes in the current state.
    pub(super) async fn now(
        &mut self,
        own: &Arc<StoredEvent>,
        chain: &Arc<AuthChain>,
        roots: EventRoots,
        create: EventNumber,
    ) -> error::Result<(SmallVec<[Extremity; 1]>, CurrentChange)> {
        let mut states = self.beside().await?;
        let mut extremities = self.others();
        // There is always one, whatever loops the first room versions let servers make.
        if self.is_end() || extremities.is_empty() {
            states.push(roots.after);
            extremities.push(Extremity {
                number: own.number,
                event_id: own.header.event_id.clone(),
                depth: own.header.depth,
            });
        } else if extremities.len() == self.head().extremities.len() {
            return Ok(self.unchanged());
        }
        let unstored = Some((own, chain));
        let old = self.head().root;
        let told_anew = self.is_told_anew();
        if extremities.len() == 1 && states == [roots.after] && roots.before == old && !told_anew {
            // It simply goes on from what was there last: nothing but its own entry can change.
            return Ok((extremities, self.own_change(own, roots)));
        }
        let root = self.resolved(&states, create, unstored).await?;
        let differences = self
            .room
            .on_tree(self.snapshot, &mut self.nodes, |nodes| {
                tree::diff(NodeHash(old), NodeHash(root), nodes)
            })
            .await?;
        self.anew = differences.len() > CHANGED_MAX || told_anew;
        let entries = if self.anew {
            // What is left to do in the event's commit concerns people of ours.
            let own_server = self.rooms.server_name();
            let is_ours = |state_key: &str| {
                UserId::parse(state_key).is_ok_and(|user| user.server_name() == own_server)
            };
            self.entries(own, &differences, is_ours).await?
        } else {
            self.entries(own, &differences, |_| true).await?
        };
        let change = CurrentChange {
            root,
            entries,
            written: None,
        };
        Ok((extremities, change))
    }

    /// Whether we come back into a room of which not all members are known, or were not when we left: who was said to
    /// be there besides counts for one generation of the flat tables.
    fn is_told_anew(&self) -> bool {
        let Way::Entering { partial, .. } = self.way else {
            return false;
        };
        let was_here = self.head().root != tree::EMPTY_ROOT.0;
        was_here && (partial.is_some() || self.head().partial)
    }

    /// What an event changes that goes on from the current state.
    fn own_change(&self, own: &Arc<StoredEvent>, roots: EventRoots) -> CurrentChange {
        let entry = self.own_key().map(|key| Entry {
            before: self.working.state.get(&key).cloned().flatten(),
            after: Some(Arc::clone(own)),
            key,
        });
        CurrentChange {
            root: roots.after,
            entries: entry.into_iter().collect(),
            written: None,
        }
    }

    /// The entries of the current state that change and whose state keys are wanted, with their events.
    pub(super) async fn entries(
        &self,
        own: &Arc<StoredEvent>,
        differences: &[tree::Difference],
        wanted: impl Fn(&str) -> bool,
    ) -> error::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for differences in differences.chunks(CHANGED_MAX) {
            let numbers = differences.iter().flat_map(|one| [one.left, one.right]);
            let numbers: BTreeSet<_> = numbers.flatten().filter(|one| *one != own.number).collect();
            let numbers: Vec<_> = numbers.into_iter().collect();
            let events = self.room.stored_events(self.snapshot, &numbers).await?;
            let mut events: HashMap<_, _> = numbers.into_iter().zip(events).collect();
            events.insert(own.number, Arc::clone(own));
            let event = |number: Option<EventNumber>| events.get(&number?).cloned();
            entries.extend(differences.iter().filter_map(|one| {
                let (before, after) = (event(one.left), event(one.right));
                let (event_type, state_key) =
                    after.as_ref().or(before.as_ref())?.pdu.state_slot()?;
                let key = (event_type, state_key.to_owned());
                wanted(&key.1).then_some(Entry { key, before, after })
            }));
        }
        Ok(entries)
    }
}
