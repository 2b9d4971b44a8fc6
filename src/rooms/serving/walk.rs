//! Walks through the graph of a room, back from events that another server names.

use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};

use bytes::Bytes;
use ruma::OwnedEventId;
use storage::{
    Range,
    schema::{self, Place},
};

use super::Serving;
use crate::writer::GraphEvent;

/// The most events that one answer to `/backfill` holds.
const BACKFILL_MAX: usize = 100;
/// The most events that one answer to `/get_missing_events` holds.
const MISSING_MAX: usize = 20;
/// The most events from which a walk begins, or at which it ends.
const NAMED_MAX: usize = 50;
/// How many more events of the timeline are read ahead than are wanted: not all lie on the way.
const AHEAD: usize = 20;

/// What a walk has read so far.
struct Walk<'a> {
    serving: &'a Serving,
    known: HashMap<OwnedEventId, GraphEvent>,
    /// Looked for, and not here.
    missing: HashSet<OwnedEventId>,
}

impl Serving {
    /// The named events and those before them, latest first, at most `limit`
    /// ([`GET /backfill/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1backfillroomid)).
    pub async fn backfill(&self, from: &[OwnedEventId], limit: usize) -> error::Result<Vec<Bytes>> {
        let limit = limit.min(BACKFILL_MAX);
        let from: Vec<_> = from.iter().take(NAMED_MAX).cloned().collect();
        let mut walk = Walk::new(self);
        walk.begin(&from, limit).await?;
        let mut seen: HashSet<_> = from.iter().cloned().collect();
        let mut next = BinaryHeap::new();
        next.extend(from.iter().filter_map(|id| walk.step(id)));
        let mut events = Vec::new();
        while events.len() < limit
            && let Some((_, id)) = next.pop()
        {
            let Some(event) = walk.known.get(&id).cloned() else {
                continue;
            };
            let prev = event.event.pdu.prev_events().iter();
            let prev: Vec<_> = prev
                .filter(|id| seen.insert((*id).clone()))
                .cloned()
                .collect();
            events.push(event);
            walk.read(&prev).await?;
            next.extend(prev.iter().filter_map(|id| walk.step(id)));
        }
        self.as_served(&events).await
    }

    /// Events that lie between those that another server has and the `latest` ones, earliest first, at
    /// most `limit` and not below a depth
    /// ([`POST /get_missing_events/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1get_missing_eventsroomid)).
    pub async fn missing_events(
        &self,
        earliest: &[OwnedEventId],
        latest: &[OwnedEventId],
        limit: usize,
        min_depth: u64,
    ) -> error::Result<Vec<Bytes>> {
        let limit = limit.min(MISSING_MAX);
        let mut level: Vec<_> = latest.iter().take(NAMED_MAX).cloned().collect();
        let mut walk = Walk::new(self);
        walk.begin(&level, limit).await?;
        let mut seen: HashSet<_> = earliest.iter().chain(latest).cloned().collect();
        let mut events: Vec<GraphEvent> = Vec::new();
        while events.len() < limit && !level.is_empty() {
            let before = level.iter().filter_map(|id| walk.known.get(id));
            let before = before.flat_map(|event| event.event.pdu.prev_events());
            let before: BTreeSet<_> = before.cloned().collect();
            level = before
                .into_iter()
                .filter(|id| seen.insert(id.clone()))
                .collect();
            walk.read(&level).await?;
            level.retain(|id| {
                let event = walk.known.get(id);
                event.is_some_and(|event| event.event.header.depth >= min_depth)
            });
            let found = level.iter().filter_map(|id| walk.known.get(id)).cloned();
            events.extend(found.take(limit - events.len()));
        }
        events.sort_by_key(|event| (event.event.header.depth, event.event.number));
        self.as_served(&events).await
    }
}

impl<'a> Walk<'a> {
    fn new(serving: &'a Serving) -> Self {
        Self {
            serving,
            known: HashMap::new(),
            missing: HashSet::new(),
        }
    }

    /// Reads the events from which the walk begins, and ahead what stands before the last of them in the
    /// timeline: most often all that lies on the way.
    async fn begin(&mut self, from: &[OwnedEventId], wanted: usize) -> error::Result<()> {
        self.read(from).await?;
        let places = self.known.values().map(|event| event.event.header.place);
        let Some(last) = places.flatten().max() else {
            return Ok(());
        };
        self.read_before(last, wanted.saturating_add(AHEAD)).await
    }

    async fn read_before(&mut self, last: Place, limit: usize) -> error::Result<()> {
        let Serving { room, snapshot, .. } = self.serving;
        let range = Range::prefix(&(room.short,)).before(&(room.short, last));
        let ranges = [range.reverse().limit(limit)];
        let rows = snapshot.multi_range(&schema::EVENT_BY_PLACE, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let numbers: Vec<_> = rows.map(|(_, row)| row.value.number).collect();
        for event in room
            .graph_by_number(snapshot, &numbers)
            .await?
            .into_values()
        {
            self.take(event);
        }
        Ok(())
    }

    /// Reads events that are not known yet.
    async fn read(&mut self, ids: &[OwnedEventId]) -> error::Result<()> {
        let unknown = ids.iter().filter(|id| !self.known.contains_key(*id));
        let unknown = unknown.filter(|id| !self.missing.contains(*id));
        let unknown: Vec<_> = unknown.cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let found = self.serving.find(&unknown).await?;
        for (id, event) in unknown.into_iter().zip(found) {
            match event {
                Some(event) => self.take(event),
                None => {
                    self.missing.insert(id);
                }
            }
        }
        Ok(())
    }

    /// Outliers are not part of the graph as it is known here.
    fn take(&mut self, event: GraphEvent) {
        let id = event.event.pdu.event_id().to_owned();
        if event.roots.is_some() {
            self.known.insert(id, event);
        } else {
            self.missing.insert(id);
        }
    }

    /// An event in the order of the walk: the deepest first.
    fn step(&self, id: &OwnedEventId) -> Option<(u64, OwnedEventId)> {
        let event = self.known.get(id)?;
        Some((event.event.header.depth, id.clone()))
    }
}
