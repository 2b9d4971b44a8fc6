//! Resolving the states of several roots of a room into one.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::{
    AuthChain, EventNumber, Step,
    resolve::{Differences, Facts, Need, Reach, resolve},
    tree::{self, NodeHash, Nodes},
};
use roaring::RoaringBitmap;
use storage::{
    NameHash, Reads, Snapshot,
    schema::{self, Outcome},
};

use crate::{Room, StoredEvent};

/// Entries whose auth chains are read together, where a whole state has to be looked through.
const ENTRIES_AT_ONCE: usize = 2_000;

/// A state that several were resolved into.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) root: [u8; 16],
    /// Nodes of it that may not be stored yet.
    pub(crate) nodes: Vec<(NodeHash, Vec<u8>)>,
    /// State was lost that nobody contested.
    pub(crate) reset: bool,
}

impl Room {
    /// The state that the states of `roots` resolve into, by the algorithm of the room's version. A state
    /// that was lost though nobody contested it is logged. Entries on which they agree are looked up in the
    /// first of them. `unstored` is an event that the states may hold
    /// though it is not stored yet, with its auth chain.
    pub(crate) async fn resolve(
        &self,
        snapshot: &Snapshot,
        nodes: &mut Nodes,
        roots: &[[u8; 16]],
        create: EventNumber,
        unstored: Option<(&Arc<StoredEvent>, &Arc<AuthChain>)>,
    ) -> error::Result<Resolved> {
        let Some(first) = roots.first().copied().map(NodeHash) else {
            return Err(error::internal("there are no states to resolve"));
        };
        let distinct: BTreeSet<_> = roots.iter().copied().collect();
        let roots: Vec<_> = distinct.into_iter().map(NodeHash).collect();
        if roots.len() == 1 {
            return Ok(Resolved {
                root: first.0,
                nodes: Vec::new(),
                reset: false,
            });
        }
        let divergences = self
            .on_tree(snapshot, nodes, |nodes| tree::diff_all(&roots, nodes))
            .await?;
        let mut differences = Differences::new(roots.len(), create);
        for divergence in &divergences {
            differences.push(divergence.values.iter().copied());
        }
        let mut loading = Loading {
            room: self,
            snapshot,
            agreed_without: divergences.iter().map(|one| one.key).collect(),
            root: first,
            facts: Facts::new(),
            rows: HashMap::new(),
            chains: HashMap::new(),
        };
        if let Some((event, chain)) = unstored {
            loading.rows.insert(event.number, Arc::clone(event));
            loading.chains.insert(event.header.chain, Arc::clone(chain));
        }
        let resolution = loop {
            match resolve(self.rules, &differences, &loading.facts) {
                Step::Done(resolution) => break resolution,
                Step::Need(needs) => loading.load(nodes, needs).await?,
            }
        };
        for reset in &resolution.resets {
            tracing::warn!(room = %self.room_id, ?reset, "state that nobody contested was lost in a resolution");
        }
        let mut changes: Vec<_> = divergences
            .iter()
            .zip(&resolution.winners)
            .map(|(divergence, winner)| (divergence.key, *winner))
            .collect();
        loading.events(&resolution.added).await?;
        for number in resolution.added {
            let event = loading.rows.get(&number);
            if let Some((event_type, state_key)) = event.and_then(|event| event.pdu.state_slot()) {
                changes.push((self.tree_key(&event_type, state_key), Some(number)));
            }
        }
        let changed = self.changed_tree(snapshot, nodes, first.0, &changes);
        Ok(Resolved {
            reset: !resolution.resets.is_empty(),
            ..changed.await?
        })
    }

    /// The state that some changes make of another.
    pub(crate) async fn changed_tree(
        &self,
        snapshot: &Snapshot,
        nodes: &mut Nodes,
        root: [u8; 16],
        changes: &[(tree::StateKeyHash, Option<EventNumber>)],
    ) -> error::Result<Resolved> {
        let update = self
            .on_tree(snapshot, nodes, |nodes| {
                tree::update(NodeHash(root), changes, nodes, &self.tree_key)
            })
            .await?;
        for (hash, bytes) in &update.nodes {
            nodes.insert(*hash, bytes).map_err(error::internal)?;
        }
        Ok(Resolved {
            root: update.root.0,
            nodes: update.nodes,
            reset: false,
        })
    }

    /// Events by their numbers; rejected ones say so.
    pub(crate) async fn stored_events(
        &self,
        snapshot: &Snapshot,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<Arc<StoredEvent>>> {
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let mut reads = Reads::new();
        let rows = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        let verdicts = reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
        let answers = snapshot.read(&reads).await?;
        let all = numbers
            .iter()
            .zip(answers.all(&rows)?)
            .zip(answers.all(&verdicts)?);
        all.map(|((number, row), verdict)| {
            let row =
                row.ok_or_else(|| error::internal("an event that a state names is missing"))?;
            let rejected =
                verdict.is_some_and(|verdict| verdict.value.outcome == Outcome::Rejected);
            let event = StoredEvent::from_row(*number, row.value, self.rules, rejected)?;
            Ok(Arc::new(event))
        })
        .collect()
    }
}

/// What a resolution was told, and where more comes from.
struct Loading<'a> {
    room: &'a Room,
    snapshot: &'a Snapshot,
    /// Keys under which the states differ.
    agreed_without: BTreeSet<tree::StateKeyHash>,
    /// Any of the states: where they agree, it is as good as the others.
    root: NodeHash,
    facts: Facts,
    rows: HashMap<EventNumber, Arc<StoredEvent>>,
    chains: HashMap<NameHash, Arc<AuthChain>>,
}

impl Loading<'_> {
    async fn load(&mut self, nodes: &mut Nodes, needs: Vec<Need>) -> error::Result<()> {
        let (mut events, mut chains, mut keys, mut asked) =
            (Vec::new(), Vec::new(), Vec::new(), None);
        for need in needs {
            match need {
                Need::Event(number) => events.push(number),
                Need::Chain(number) => chains.push(number),
                Need::Entry(key) => keys.push(key),
                Need::Reached(numbers) => asked = Some(numbers),
            }
        }
        let rows = [events.as_slice(), &chains].concat();
        // They come with the first nodes, if any of these are lacking.
        let unknown = self.unknown(&rows);
        self.room.stored_events_ahead(self.snapshot, unknown);
        let wanted: Vec<_> = keys
            .iter()
            .map(|(event_type, state_key)| (self.root, self.room.tree_key(event_type, state_key)))
            .collect();
        let found = self
            .room
            .on_tree(self.snapshot, nodes, |nodes| tree::find(&wanted, nodes))
            .await?;
        // Whoever asks for an entry will look at its event.
        events.extend(found.iter().flatten());
        let new = self.events(&[events.as_slice(), &chains].concat()).await?;
        self.room.auth_ahead(self.snapshot, &new);
        for (key, number) in keys.into_iter().zip(found) {
            self.facts.add_entry(key, number);
        }
        for number in &events {
            if let Some(event) = self.rows.get(number) {
                let auth_events = &event.header.auth_events;
                self.facts
                    .add_event(*number, Arc::clone(&event.pdu), auth_events);
            }
        }
        self.chains(&chains).await?;
        for number in chains {
            let chain = self.chain_of(number);
            self.facts.add_chain(number, chain);
        }
        if let Some(asked) = asked {
            let reached = self.reached(nodes, &asked).await?;
            self.facts.add_reached(&asked, &reached);
        }
        Ok(())
    }

    fn unknown(&self, numbers: &[EventNumber]) -> BTreeSet<EventNumber> {
        let unknown = numbers.iter().filter(|one| !self.rows.contains_key(one));
        unknown.copied().collect()
    }

    /// Reads events that are not known yet: those.
    async fn events(&mut self, numbers: &[EventNumber]) -> error::Result<Vec<Arc<StoredEvent>>> {
        let unknown: Vec<_> = self.unknown(numbers).into_iter().collect();
        let events = self.room.stored_events(self.snapshot, &unknown).await?;
        let by_number = events.iter().map(|event| (event.number, Arc::clone(event)));
        self.rows.extend(by_number);
        Ok(events)
    }

    /// Reads the auth chains of events that are known.
    async fn chains(&mut self, numbers: &[EventNumber]) -> error::Result<()> {
        let sets = numbers
            .iter()
            .filter_map(|number| Some(self.rows.get(number)?.header.chain));
        let unknown = sets.filter(|set| !self.chains.contains_key(set));
        let read = self.room.chains(self.snapshot, unknown).await?;
        self.chains.extend(read);
        Ok(())
    }

    fn chain_of(&self, number: EventNumber) -> Arc<AuthChain> {
        let chain = self.rows.get(&number).map(|event| event.header.chain);
        chain
            .and_then(|chain| self.chains.get(&chain).cloned())
            .unwrap_or_default()
    }

    /// Which events are among the entries on which the states agree, or in the auth chain of one.
    async fn reached(
        &mut self,
        nodes: &mut Nodes,
        asked: &RoaringBitmap,
    ) -> error::Result<RoaringBitmap> {
        let root = self.root;
        let entries = self
            .room
            .on_tree(self.snapshot, nodes, |nodes| tree::entries(root, nodes))
            .await?;
        let mut reach = Reach::new(asked);
        let agreed: Vec<_> = entries
            .into_iter()
            .filter(|(key, _)| !self.agreed_without.contains(key))
            .map(|(_, number)| number)
            .collect();
        for numbers in agreed.chunks(ENTRIES_AT_ONCE) {
            let Some(lowest) = reach.lowest() else { break };
            let numbers: Vec<_> = numbers
                .iter()
                .filter(|number| **number >= lowest)
                .copied()
                .collect();
            self.events(&numbers).await?;
            self.chains(&numbers).await?;
            for number in numbers {
                reach.feed_entry(number);
                reach.feed_chain(&self.chain_of(number));
            }
        }
        Ok(reach.into_reached())
    }
}
