//! What happened in a room since we came in, judged again by whole states.
//!
//! Event after event, in the order of the graph, as if each came now: which state is before it, whether it is
//! allowed, whether it would still have been when it came, and what the room is then. What was accepted and should not
//! have been is hidden from now on; what was not and should have been is put into the timeline, at its end.
//!
//! Done a second time, as after a crash, it comes to the same.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    sync::Arc,
};

use pdu::{
    EventNumber,
    tree::{NodeHash, Nodes},
};
use ruma::{OwnedServerName, UserId, events::TimelineEventType};
use smallvec::SmallVec;
use storage::{
    Batch, NameHash, Raw,
    schema::{
        self, EndsBehind, EventRoots, Extremity, Outcome, Place, RemoteRoomRow, Standing, Verdict,
    },
};

use super::super::{
    incoming::{Again, Around, judge_again, not_recommended, resolved},
    judge::{CurrentChange, Judged},
};
use crate::{
    Room, Rooms, StoredEvent,
    accept::{self, Beside},
    event::Mentions,
};

/// Events that are looked at together.
const EVENTS_AT_ONCE: usize = 500;
/// Events that one follows which is not accepted, at most.
const BEHIND_MAX: usize = 200;
/// Nodes that are remembered on the way.
const NODES_MAX: usize = 50_000;

/// An event that is to be judged again, and what it follows, by names.
struct Waiting {
    number: EventNumber,
    name: NameHash,
    prev: Vec<NameHash>,
}

/// Where one is, going through the events.
pub(super) struct Replay<'a> {
    rooms: &'a Rooms,
    room: &'a Arc<Room>,
    nodes: Nodes,
    batch: Batch,
    rows: usize,
    roots: HashMap<EventNumber, EventRoots>,
    numbers: HashMap<NameHash, EventNumber>,
    /// Of events that are not accepted: the accepted ones that they follow, through others like them.
    behind: HashMap<EventNumber, BTreeSet<EventNumber>>,
    /// The forward extremities, with the states that they leave behind.
    extremities: Vec<(Extremity, [u8; 16])>,
    current: [u8; 16],
    /// What was the room's state after each event.
    currents: HashMap<EventNumber, [u8; 16]>,
    /// Events that were put into the timeline.
    restored: BTreeSet<EventNumber>,
    /// The servers of those whose memberships changed.
    moved: BTreeSet<OwnedServerName>,
}

/// What the room is after all that happened.
pub(super) struct Replayed {
    pub(super) root: [u8; 16],
    pub(super) extremities: SmallVec<[Extremity; 1]>,
    /// The states around each event.
    pub(super) roots: HashMap<EventNumber, EventRoots>,
    /// What was the room's state after each event.
    pub(super) current: HashMap<EventNumber, [u8; 16]>,
    /// Events that were put into the timeline.
    pub(super) restored: BTreeSet<EventNumber>,
    /// The servers of those whose memberships changed.
    pub(super) moved: BTreeSet<OwnedServerName>,
}

/// Judges all events again from a join on, the whole state before which has this root.
pub(super) async fn replay(
    rooms: &Rooms,
    room: &Arc<Room>,
    join: EventNumber,
    whole: [u8; 16],
    next: EventNumber,
) -> error::Result<Replayed> {
    let mut replay = Replay {
        rooms,
        room,
        nodes: Nodes::new(),
        batch: Batch::new(),
        rows: 0,
        roots: HashMap::new(),
        numbers: HashMap::new(),
        behind: HashMap::new(),
        extremities: Vec::new(),
        current: whole,
        currents: HashMap::new(),
        restored: BTreeSet::new(),
        moved: BTreeSet::new(),
    };
    replay.begin(join, whole).await?;
    let waiting = replay.waiting(join, next).await?;
    for numbers in in_order(&waiting).chunks(EVENTS_AT_ONCE) {
        replay.some(numbers).await?;
    }
    replay.commit().await?;
    Ok(Replayed {
        root: replay.current,
        extremities: replay.extremities.into_iter().map(|one| one.0).collect(),
        roots: replay.roots,
        current: replay.currents,
        restored: replay.restored,
        moved: replay.moved,
    })
}

/// The numbers of events after those that they follow, lowest first where that leaves a choice.
fn in_order(waiting: &[Waiting]) -> Vec<EventNumber> {
    let index: HashMap<_, _> = waiting.iter().map(|one| (one.name, one.number)).collect();
    let mut left: HashMap<EventNumber, usize> = HashMap::new();
    let mut followers: HashMap<EventNumber, Vec<EventNumber>> = HashMap::new();
    let mut next = BinaryHeap::new();
    for one in waiting {
        let before = one.prev.iter().filter_map(|name| index.get(name));
        let before: BTreeSet<_> = before.copied().collect();
        if before.is_empty() {
            next.push(Reverse(one.number));
        }
        left.insert(one.number, before.len());
        for other in before {
            followers.entry(other).or_default().push(one.number);
        }
    }
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(number)) = next.pop() {
        order.push(number);
        for follower in followers.remove(&number).unwrap_or_default() {
            let Some(left) = left.get_mut(&follower) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                next.push(Reverse(follower));
            }
        }
    }
    order
}

impl Replay<'_> {
    /// The join itself: it was judged by those who let us in, and all that matters to it was told then.
    async fn begin(&mut self, join: EventNumber, whole: [u8; 16]) -> error::Result<()> {
        let snapshot = self.rooms.snapshot().await?;
        let events = self.room.stored_events(&snapshot, &[join]).await?;
        let event = events.into_iter().next();
        let event = event.ok_or_else(|| error::internal("the join of a room is missing"))?;
        let Some((event_type, state_key)) = event.pdu.state_slot() else {
            return Err(error::internal("a join is no state event"));
        };
        let change = (self.room.tree_key(&event_type, state_key), Some(join));
        let changed = self
            .room
            .changed_tree(&snapshot, &mut self.nodes, whole, &[change])
            .await?;
        let roots = EventRoots {
            before: whole,
            after: changed.root,
        };
        self.put_roots(join, roots, changed.nodes);
        self.extremities = vec![(extremity_of(&event), roots.after)];
        self.current = roots.after;
        self.currents.insert(join, roots.after);
        let name = self.rooms.storage().event_hash(event.pdu.event_id());
        self.numbers.insert(name, join);
        Ok(())
    }

    /// The events since the join, but outliers.
    async fn waiting(
        &mut self,
        join: EventNumber,
        next: EventNumber,
    ) -> error::Result<Vec<Waiting>> {
        let storage = self.rooms.storage();
        let numbers: Vec<_> = (join.0.saturating_add(1)..next.0)
            .map(EventNumber)
            .collect();
        let mut waiting = Vec::new();
        for numbers in numbers.chunks(EVENTS_AT_ONCE) {
            let snapshot = self.rooms.snapshot().await?;
            let keys: Vec<_> = numbers.iter().map(|one| (self.room.short, *one)).collect();
            let roots = snapshot.multi_get(&schema::ROOTS_BY_EVENT, &keys).await?;
            let numbers = numbers
                .iter()
                .zip(roots)
                .filter(|(_, roots)| roots.is_some());
            let numbers: Vec<_> = numbers.map(|(number, _)| *number).collect();
            for event in self.room.stored_events(&snapshot, &numbers).await? {
                let prev = event.pdu.prev_events().iter();
                let name = storage.event_hash(event.pdu.event_id());
                self.numbers.insert(name, event.number);
                waiting.push(Waiting {
                    number: event.number,
                    name,
                    prev: prev.map(|id| storage.event_hash(id)).collect(),
                });
            }
        }
        Ok(waiting)
    }

    async fn some(&mut self, numbers: &[EventNumber]) -> error::Result<()> {
        let snapshot = self.rooms.snapshot().await?;
        let keys: Vec<_> = numbers.iter().map(|one| (self.room.short, *one)).collect();
        let mut reads = storage::Reads::new();
        let roots = reads.get_all(&schema::ROOTS_BY_EVENT, &keys);
        let verdicts = reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
        let answers = snapshot.read(&reads).await?;
        let events = self.room.stored_events(&snapshot, numbers).await?;
        let roots = answers.all(&roots)?.into_iter();
        let verdicts = answers.all(&verdicts)?.into_iter();
        for ((event, roots), verdict) in events.into_iter().zip(roots).zip(verdicts) {
            let Some(roots) = roots else { continue };
            let verdict = verdict.map(|row| row.value);
            self.one(&event, roots.value, verdict).await?;
        }
        Ok(())
    }

    async fn one(
        &mut self,
        event: &Arc<StoredEvent>,
        old: EventRoots,
        verdict: Option<Verdict>,
    ) -> error::Result<()> {
        let live = verdict
            .as_ref()
            .is_none_or(|one| one.standing == Standing::Live);
        let around = Around {
            roots: &self.roots,
            old,
            current: live.then_some(self.current),
        };
        let again = judge_again(self.rooms, self.room, event, &around, &mut self.nodes);
        let mut again = again.await?;
        if again.soft_failed.is_none() {
            again.soft_failed = verdict.as_ref().and_then(not_recommended);
        }
        let nodes = std::mem::take(&mut again.new_nodes);
        self.put_roots(event.number, again.roots, nodes);
        let outcome = match (&again.rejected, &again.soft_failed) {
            (Some(_), _) => Outcome::Rejected,
            (None, Some(_)) => Outcome::SoftFailed,
            (None, None) => Outcome::Accepted,
        };
        let was = verdict.map_or(Outcome::Accepted, |verdict| verdict.outcome);
        let followed = self.followed(event);
        if live && outcome == Outcome::Accepted {
            self.go_on(event, &followed, again.roots.after).await?;
        } else {
            self.behind.insert(event.number, followed);
        }
        self.currents.insert(event.number, self.current);
        let member = match *event.pdu.event_type() {
            TimelineEventType::RoomMember => event.pdu.state_key(),
            _ => None,
        };
        if let Some(user) = member.and_then(|key| UserId::parse(key).ok()) {
            if was != outcome {
                self.distrust_devices(&user);
            }
            self.moved.insert(user.server_name().to_owned());
        }
        match (was, outcome) {
            (was, outcome) if was == outcome => {}
            // It has no place to stand in.
            (_, Outcome::Accepted) if !live => {}
            (_, Outcome::Accepted) => {
                self.commit().await?;
                self.restore(event, again).await?;
            }
            _ => self.withdraw(event, live, outcome, &again).await?,
        }
        if self.rows > EVENTS_AT_ONCE {
            self.commit().await?;
        }
        Ok(())
    }

    /// Somebody was not in the room all the time that it was thought, or not known to be: what was said of their
    /// devices meanwhile cannot be relied on.
    fn distrust_devices(&mut self, user: &UserId) {
        if user.server_name() == self.rooms.server_name() {
            return;
        }
        let key = (self.rooms.storage().user_hash(user), self.room.short);
        // Who is not in the room keeps a row, which nobody relies on.
        let row = RemoteRoomRow::default();
        self.batch
            .put_stamped(&schema::ROOM_BY_REMOTE_USER, &key, 0, row);
    }

    /// The accepted events that an event follows, through such as are not.
    fn followed(&self, event: &StoredEvent) -> BTreeSet<EventNumber> {
        let storage = self.rooms.storage();
        let prev = event.pdu.prev_events().iter();
        let prev = prev.filter_map(|id| self.numbers.get(&storage.event_hash(id)));
        let mut followed = BTreeSet::new();
        for number in prev {
            match self.behind.get(number) {
                Some(behind) => followed.extend(behind.iter().rev().take(BEHIND_MAX)),
                None => drop(followed.insert(*number)),
            }
        }
        followed
    }

    /// The room goes on from an event.
    async fn go_on(
        &mut self,
        event: &StoredEvent,
        followed: &BTreeSet<EventNumber>,
        after: [u8; 16],
    ) -> error::Result<()> {
        self.extremities
            .retain(|(one, _)| !followed.contains(&one.number));
        self.extremities.push((extremity_of(event), after));
        let states: Vec<_> = self.extremities.iter().map(|one| one.1).collect();
        if states.iter().all(|state| *state == after) {
            self.current = after;
            return Ok(());
        }
        // What it reads must be there.
        self.commit().await?;
        let (root, nodes) = resolved(self.rooms, self.room, &states, &mut self.nodes).await?;
        self.put_nodes(nodes);
        self.current = root;
        Ok(())
    }

    /// Hides an event that should not have been accepted, or says anew why it is hidden.
    async fn withdraw(
        &mut self,
        event: &StoredEvent,
        live: bool,
        outcome: Outcome,
        again: &Again,
    ) -> error::Result<()> {
        let reason = again.rejected.clone().or_else(|| again.soft_failed.clone());
        tracing::info!(
            room = %self.room.room_id, event = %event.pdu.event_id(), reason,
            "an event turns out not to be allowed, now that the whole state is known"
        );
        let verdict = Verdict {
            standing: if live {
                Standing::Live
            } else {
                Standing::Historic
            },
            outcome,
            partial: false,
            reason,
        };
        let key = (self.room.short, event.number);
        self.batch.put(&schema::VERDICT_BY_EVENT, &key, &verdict);
        let behind = self.behind.get(&event.number).into_iter().flatten();
        let behind = EndsBehind {
            events: behind.copied().collect(),
        };
        self.batch.put(&schema::ENDS_BEHIND_EVENT, &key, &behind);
        // Those that name it look at this.
        self.commit().await
    }

    /// Puts an event into the timeline that should have been accepted. What it changes in the current state
    /// comes with all the rest.
    async fn restore(&mut self, event: &StoredEvent, again: Again) -> error::Result<()> {
        tracing::info!(
            room = %self.room.room_id, event = %event.pdu.event_id(),
            "an event turns out to be allowed, now that the whole state is known"
        );
        self.restored.insert(event.number);
        let mut working = again.working;
        let mut own = StoredEvent::from_row(event.number, event.row(), self.room.rules, false)?;
        if own.header.place.is_none() {
            own.header.place = Some(Place::live(working.head.next_slot));
        }
        own.header.visibility = again.visibility;
        let judged = Judged {
            mentions: Mentions::of(&own.pdu),
            event: Arc::new(own),
            roots: Some(again.roots),
            verdict: None,
            nodes: Vec::new(),
            change: CurrentChange {
                root: working.head.root,
                entries: Vec::new(),
                written: None,
            },
            extremities: working.head.extremities.clone(),
            local: false,
        };
        let storage = self.rooms.storage();
        let mut batch = Batch::new();
        let beside = Beside {
            was_outlier: true,
            ..Beside::default()
        };
        accept::receive(storage, &mut batch, &mut working, judged, &beside, 0);
        accept::finish(storage, &mut batch, &mut working, 1);
        match storage.commit(batch).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn put_roots(
        &mut self,
        number: EventNumber,
        roots: EventRoots,
        nodes: Vec<(NodeHash, Vec<u8>)>,
    ) {
        self.put_nodes(nodes);
        let key = (self.room.short, number);
        self.batch.put(&schema::ROOTS_BY_EVENT, &key, &roots);
        self.rows += 1;
        self.roots.insert(number, roots);
    }

    fn put_nodes(&mut self, nodes: Vec<(NodeHash, Vec<u8>)>) {
        self.rows += nodes.len();
        for (hash, bytes) in nodes {
            let key = (self.room.short, hash.0);
            self.batch
                .put(&schema::NODE_BY_HASH, &key, &Raw(bytes.into()));
        }
    }

    async fn commit(&mut self) -> error::Result<()> {
        self.rows = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.rooms.storage().commit(batch).await?;
        }
        if self.nodes.len() > NODES_MAX {
            self.nodes = Nodes::new();
        }
        Ok(())
    }
}

fn extremity_of(event: &StoredEvent) -> Extremity {
    Extremity {
        number: event.number,
        event_id: event.header.event_id.clone(),
        depth: event.header.depth,
    }
}
