//! Judging an event of another server: checks 4 to 7 on receipt of a PDU, and where it belongs.

mod again;
mod ahead;
mod ends;
mod event;
mod partial;
mod policy;
mod states;

use std::{collections::BTreeSet, sync::Arc};

use pdu::{
    AuthChain, EventNumber, Pdu, check_auth, check_auth_without_state,
    tree::{NodeHash, Nodes},
};
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use storage::{
    NameHash, Snapshot,
    schema::{
        self, EventRoots, Extremity, Gap, Head, Outcome, Place, Standing as StoredStanding, Verdict,
    },
};

pub(super) use self::again::{Again, Around, judge_again, resolved};
use self::ends::Followed;
pub(crate) use self::event::pruned_by;
pub(super) use self::policy::not_recommended;
use super::{
    Way, auth_ids, generation,
    graph::{Graph, GraphEvent},
    judge::{CurrentChange, Judged, visibility_of},
    load,
    needs::Needs,
    working::Working,
};
use crate::{
    Draft, Incoming, Received, Room, Rooms, Standing, StateKey, StoredEvent, accept::Beside,
    event::Mentions,
};

/// What is to be done with an event that came in.
#[derive(Debug)]
pub(super) enum Judgement {
    /// Nothing is to be written.
    Answer(Received),
    /// It is to be written.
    Write(Box<ToWrite>),
    /// It is to be judged when nothing else waits to be written with it.
    NotWithOthers,
}

/// An event that came in and is to be written.
#[derive(Debug)]
pub(super) struct ToWrite {
    pub(super) judged: Judged,
    pub(super) received: Received,
    pub(super) beside: Beside,
}

/// An event on its way through the checks, and what is known for it.
struct Judging<'a> {
    rooms: &'a Rooms,
    room: &'a Arc<Room>,
    snapshot: &'a Snapshot,
    incoming: &'a Incoming,
    way: &'a Way,
    nodes: Nodes,
    new_nodes: Vec<(NodeHash, Vec<u8>)>,
    /// The number it has as an outlier.
    known_as: Option<EventNumber>,
    auth_events: Vec<Arc<StoredEvent>>,
    /// Redactions that came before it.
    redactions: Vec<EventNumber>,
    /// Accepted events follow it already.
    is_followed: bool,
    /// What it follows.
    followed: Followed,
    /// The flat tables are to be written as a new generation.
    anew: bool,
    /// The room as it is now, and what else writing needs.
    working: &'a mut Working,
    /// Nothing else is written with it.
    alone: bool,
    /// A resolution for it lost state that nobody contested.
    reset: bool,
}

/// Judges an event that came in from one view, and what was written on it: two round trips for one that follows
/// what was there last and changes no state. `working` is what is known from those judged before it on the same
/// view; `alone` says that nothing else is written with it.
pub(super) async fn judge(
    rooms: &Rooms,
    room: &Arc<Room>,
    incoming: &Incoming,
    way: &Way,
    view: &Snapshot,
    working: &mut Working,
    alone: bool,
) -> error::Result<Judgement> {
    let work = async |snapshot: Snapshot| {
        judge_in(rooms, room, incoming, way, &snapshot, working, alone).await
    };
    view.gathered(work).await
}

/// The room as it is, for events that are judged one after the other. Where there are several, what they will
/// want is read for all of them: two round trips.
pub(super) async fn look_ahead(
    rooms: &Rooms,
    room: &Arc<Room>,
    view: &Snapshot,
    events: &[&Incoming],
) -> error::Result<Box<Working>> {
    let mut working = load::cold(rooms, room);
    if events.len() < 2 {
        return Ok(working);
    }
    let mut needs = Needs::default();
    for incoming in events {
        let pdu = &incoming.pdu;
        needs.add(room.rules, rooms.server_name(), &draft_of(pdu)?);
        needs.incoming.insert(pdu.event_id().to_owned());
        needs.graph.extend(named(room, pdu));
    }
    let work = async |view: Snapshot| {
        load::refresh(rooms, room, &view, &needs, &mut working).await?;
        let known = |id: &OwnedEventId| {
            let event = working.graph.events.get(id)?;
            Some(Arc::clone(&event.event))
        };
        let sets = events.iter().flat_map(|incoming| {
            let auth = auth_ids(room, &incoming.pdu);
            let auth: Vec<_> = auth.iter().filter_map(known).collect();
            ahead::chains_of(rooms, &auth)
        });
        let sets: BTreeSet<_> = sets.collect();
        room.chains_if_known(&view, sets).await
    };
    view.gathered(work).await?;
    working.graph = Graph::default();
    Ok(working)
}

/// An event and all those that it names.
fn named(room: &Room, pdu: &Pdu) -> Vec<OwnedEventId> {
    let mut named = auth_ids(room, pdu);
    named.push(pdu.event_id().to_owned());
    named.extend(pdu.prev_events().iter().cloned());
    named
}

async fn judge_in(
    rooms: &Rooms,
    room: &Arc<Room>,
    incoming: &Incoming,
    way: &Way,
    snapshot: &Snapshot,
    working: &mut Working,
    alone: bool,
) -> error::Result<Judgement> {
    let pdu = &incoming.pdu;
    if pdu.room_id() != room.room_id {
        return Err(error::internal(
            "an event came into a room that is not its own",
        ));
    }
    let auth_ids = auth_ids(room, pdu);
    let mut needs = Needs::incoming(room.rules, rooms.server_name(), &draft_of(pdu)?);
    needs.incoming.insert(pdu.event_id().to_owned());
    needs.graph.extend(named(room, pdu));
    if let Way::Ours(group) = way {
        needs.once.extend(group.once);
    }
    let given = match &incoming.standing {
        Standing::Live { state_before } => state_before.as_deref(),
        Standing::Historic { state_before, .. } => state_before.as_deref(),
        Standing::Outlier => None,
    };
    let ((), (state, lacking_state)) = tokio::try_join!(
        load::refresh(rooms, room, snapshot, &needs, working),
        numbers_of(rooms, room, snapshot, given.unwrap_or_default()),
    )?;
    let graph = std::mem::take(&mut working.graph);
    let mut lacking_auth = lacking(&auth_ids, |id| graph.events.contains_key(id));
    lacking_auth.extend(lacking_state);
    let roots_of = |id: &OwnedEventId| graph.events.get(id).and_then(|event| event.roots);
    let lacking_prev = lacking(pdu.prev_events(), |id| roots_of(id).is_some());

    let own = graph.events.get(pdu.event_id());
    let was_rejected = own.is_some_and(|own| is_rejected(own) && own.roots.is_some());
    let sent = matches!(way, Way::Ours(group) if working.was_sent(group));
    if sent || own.is_some_and(|own| is_known(own, incoming)) {
        return Ok(Judgement::Answer(Received::Known));
    }
    let entering = matches!(way, Way::Entering { .. });
    let needs_prev = given.is_none() && incoming.standing != Standing::Outlier && !entering;
    if !lacking_auth.is_empty() || (needs_prev && !lacking_prev.is_empty()) {
        return Ok(Judgement::Answer(Received::Missing {
            auth: lacking_auth,
            prev: lacking_prev,
        }));
    }
    let auth_events = auth_ids.iter().filter_map(|id| graph.events.get(id));
    let prev = pdu.prev_events().iter();
    let prev: Vec<_> = prev.filter_map(|id| graph.events.get(id)).collect();
    let followed = Followed::of(pdu.prev_events(), |id| graph.events.get(id));
    let judging = Judging {
        rooms,
        room,
        snapshot,
        incoming,
        way,
        nodes: std::mem::take(&mut working.nodes),
        new_nodes: Vec::new(),
        known_as: own.map(|own| own.event.number),
        auth_events: auth_events.map(|event| Arc::clone(&event.event)).collect(),
        redactions: graph.redactions.clone(),
        is_followed: graph.is_followed,
        followed,
        anew: false,
        working,
        alone,
        reset: false,
    };
    let before = match way {
        Way::Entering { root, .. } => vec![*root],
        _ => judging.roots_before(&prev),
    };
    let judged = judging.judge(before, given.map(|_| state), lacking_prev);
    match judged.await? {
        // Nothing has changed.
        Judgement::Write(again)
            if was_rejected && matches!(again.received, Received::Rejected(_)) =>
        {
            Ok(Judgement::Answer(Received::Known))
        }
        judgement => Ok(judgement),
    }
}

/// What becomes of an event, by why it is not allowed.
fn received(rejected: Option<String>, soft_failed: Option<String>) -> Received {
    match (rejected, soft_failed) {
        (Some(reason), _) => Received::Rejected(reason),
        (None, Some(reason)) => Received::SoftFailed(reason),
        (None, None) => Received::Accepted,
    }
}

fn is_rejected(own: &GraphEvent) -> bool {
    let verdict = own.verdict.as_ref();
    verdict.is_some_and(|verdict| verdict.outcome == Outcome::Rejected)
}

/// Whether an event is here as more than an outlier, or as all that is asked. One that was rejected is judged
/// again when it is sent again: what allows it may have been missing, or rejected, then.
fn is_known(own: &GraphEvent, incoming: &Incoming) -> bool {
    if is_rejected(own) && incoming.standing != Standing::Outlier {
        return false;
    }
    let outlier = own
        .verdict
        .as_ref()
        .is_some_and(|verdict| verdict.standing == StoredStanding::Outlier);
    !outlier || incoming.standing == Standing::Outlier
}

/// Those of some events that are not here.
fn lacking(ids: &[OwnedEventId], is_here: impl Fn(&OwnedEventId) -> bool) -> Vec<OwnedEventId> {
    ids.iter().filter(|id| !is_here(id)).cloned().collect()
}

/// The numbers of the events of a state, and those that are not here.
async fn numbers_of(
    rooms: &Rooms,
    room: &Room,
    snapshot: &Snapshot,
    ids: &[OwnedEventId],
) -> error::Result<(Vec<EventNumber>, Vec<OwnedEventId>)> {
    if ids.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let names: Vec<_> = ids
        .iter()
        .map(|id| rooms.storage().event_hash(id))
        .collect();
    let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await?;
    let (mut numbers, mut lacking) = (Vec::new(), Vec::new());
    for (id, row) in ids.iter().zip(rows) {
        let row = row.filter(|row| row.value.room == room.short);
        match row.and_then(|row| row.value.number) {
            Some(number) => numbers.push(number),
            None => lacking.push(id.clone()),
        }
    }
    Ok((numbers, lacking))
}

/// What a draft of our own would be that makes such an event: it needs the same things.
fn draft_of(pdu: &Pdu) -> error::Result<Draft> {
    let content = std::str::from_utf8(pdu.content_bytes()).map_err(error::internal)?;
    let content = RawValue::from_string(content.to_owned()).map_err(error::internal)?;
    Ok(Draft {
        state_key: pdu.state_key().map(ToOwned::to_owned),
        redacts: pdu.redacts().map(ToOwned::to_owned),
        ..Draft::message(pdu.sender().to_owned(), pdu.event_type().clone(), content)
    })
}

impl Judging<'_> {
    fn pdu(&self) -> &Arc<Pdu> {
        &self.incoming.pdu
    }

    fn head(&self) -> &Head {
        &self.working.head
    }

    async fn judge(
        mut self,
        prev_roots: Vec<[u8; 16]>,
        given: Option<Vec<EventNumber>>,
        lacking_prev: Vec<OwnedEventId>,
    ) -> error::Result<Judgement> {
        let create = self.create_event()?;
        self.auth_chain_ahead();
        // 4. Passes authorization rules based on the event's auth events, otherwise it is rejected.
        let mut rejected = self.check_by_auth_events(create.as_deref()).err();
        if self.incoming.standing == Standing::Outlier {
            return self.outlier(rejected).await;
        }
        let first = create
            .as_ref()
            .map_or(EventNumber(1), |create| create.number);
        let entering = matches!(self.way, Way::Entering { .. });
        let followed = std::mem::take(&mut self.followed);
        let followed = followed.look_behind(self.room, self.snapshot);
        let ahead = async {
            match given.is_none() && !entering {
                true => self.states_ahead(&prev_roots).await,
                false => Ok(()),
            }
        };
        let (followed, ()) = tokio::try_join!(followed, ahead)?;
        self.followed = followed;
        let before = self.state_before(prev_roots, given, first).await?;
        let before = self.with_own_auth(before, first).await?;
        let now = self.with_own_auth(self.head().root, first).await?;
        let keys = self.keys();
        let state = self.find(&[before, now], &keys).await?;
        let at = |root: [u8; 16], key: &StateKey| state.get(&(root, key.clone())).cloned();
        let check = |root: [u8; 16]| self.check_by_state(create.as_deref(), root, &state);
        // 5. Passes authorization rules based on the state before the event, otherwise it is rejected.
        if rejected.is_none() {
            rejected = check(before).err();
        }
        // 6. Passes authorization rules based on the current state, and 7. is validated by the policy server,
        // otherwise it is soft-failed.
        let live = matches!(self.incoming.standing, Standing::Live { .. });
        let soft_failed = match &rejected {
            // What was the current state before we came in says nothing any more.
            None if live && !entering => match self.check_now(check(now)) {
                Ok(reason) => reason,
                Err(policy) => return Ok(Judgement::Answer(Received::ToSign(policy))),
            },
            _ => None,
        };
        if let Some(answer) = self.in_vain(&rejected, &soft_failed) {
            return Ok(Judgement::Answer(answer));
        }
        let key = self.own_key();
        let replaced = key.as_ref().and_then(|key| at(before, key));
        let visibility = at(
            before,
            &(StateEventType::RoomHistoryVisibility, String::new()),
        );
        let visibility = visibility_of(visibility.as_ref().map(|event| &*event.pdu));
        let verdict = self.verdict(&rejected, soft_failed.clone());
        let after = self.state_after(before, rejected.is_some()).await?;
        let roots = EventRoots { before, after };
        let place = match (&verdict, &self.incoming.standing) {
            (Some(verdict), _) if verdict.outcome != Outcome::Accepted => None,
            (_, Standing::Historic { place, .. }) => Some(self.free_place(*place).await?),
            _ => Some(Place::live(self.head().next_slot)),
        };
        let (chain, chains) = self.auth_chain().await?;
        let own = self.own_event(place, visibility, replaced.as_ref(), chain);
        let own = self
            .pruned_if_redacted(own, create.as_deref(), before)
            .await?;
        let own = match (&verdict, live) {
            // By it they are in the room again, or nobody is who was removed.
            (None, true) => own,
            _ => self.pruned_if_removed(own),
        };
        let (extremities, change) = match (&verdict, live) {
            (None, true) => self.now(&own, &chains, roots, first).await?,
            _ => self.unchanged(),
        };
        let received = received(rejected, soft_failed);
        let gaps = match place {
            Some(place) => self.gaps(place, lacking_prev).await?,
            None => Vec::new(),
        };
        let judged = Judged {
            mentions: Mentions::of(&own.pdu),
            event: own,
            roots: Some(roots),
            verdict,
            nodes: std::mem::take(&mut self.new_nodes),
            change,
            extremities,
            local: matches!(self.way, Way::HandedOver | Way::Ours(_)),
        };
        self.write(judged, (chain, chains), received, gaps).await
    }

    /// The state that the event leaves behind.
    async fn state_after(&mut self, before: [u8; 16], rejected: bool) -> error::Result<[u8; 16]> {
        match self.own_key() {
            Some((event_type, state_key)) if !rejected => {
                let key = self.room.tree_key(&event_type, &state_key);
                self.changed(before, &[(key, Some(self.number()))]).await
            }
            _ => Ok(before),
        }
    }

    /// Checks the event by the state of a root.
    fn check_by_state(
        &self,
        create: Option<&StoredEvent>,
        root: [u8; 16],
        state: &states::Entries,
    ) -> Result<(), String> {
        let at = |event_type: &StateEventType, state_key: &str| {
            state.get(&(root, (event_type.clone(), state_key.to_owned())))
        };
        let Some(create) = create else {
            // Without a create event there is nothing to check by: this is one. A room has one only.
            let key = (StateEventType::RoomCreate, String::new());
            let first = state.get(&(self.head().root, key));
            return match first {
                Some(first) if Some(first.number) != self.known_as => {
                    Err("the room was created by another event".to_owned())
                }
                _ => Ok(()),
            };
        };
        // Another one than the room's allows nothing in it.
        let own = at(&StateEventType::RoomCreate, "");
        if own.map(|own| own.number) != Some(create.number) {
            return Err("its `m.room.create` is not that of the room".to_owned());
        }
        let entry = |event_type: &StateEventType, state_key: &str| {
            at(event_type, state_key).map(|event| Arc::clone(&event.pdu))
        };
        check_auth(self.pdu(), self.room.rules, &create.pdu, entry)
            .map_err(|reason| reason.to_string())
    }

    /// For an event by which this server comes into the room: what writing it looks up in the current state
    /// stands in the one before it.
    async fn enter(&mut self, before: [u8; 16]) -> error::Result<()> {
        let Way::Entering { partial, .. } = self.way else {
            return Ok(());
        };
        let partial = partial.is_some();
        let keys: Vec<_> = self.working.state.keys().cloned().collect();
        let mut state = self.find(&[before], &keys).await?;
        for key in keys {
            let event = state.remove(&(before, key.clone()));
            self.working.state.insert(key, event);
        }
        self.working.head.partial = partial;
        Ok(())
    }

    /// An event that is only somebody's auth event or state: judged by its auth events alone.
    async fn outlier(mut self, rejected: Option<String>) -> error::Result<Judgement> {
        let verdict = self.verdict(&rejected, None);
        let (chain, chains) = self.auth_chain().await?;
        let own = self.own_event(None, schema::Visibility::Shared, None, chain);
        let (extremities, change) = self.unchanged();
        let judged = Judged {
            mentions: Mentions::default(),
            event: own,
            roots: None,
            verdict,
            nodes: std::mem::take(&mut self.new_nodes),
            change,
            extremities,
            local: false,
        };
        let received = rejected.map_or(Received::Accepted, Received::Rejected);
        self.write(judged, (chain, chains), received, Vec::new())
            .await
    }

    /// What an event leaves that does not change the room's current state.
    fn unchanged(&self) -> (SmallVec<[Extremity; 1]>, CurrentChange) {
        let change = CurrentChange {
            root: self.head().root,
            entries: Vec::new(),
            written: None,
        };
        (self.head().extremities.clone(), change)
    }

    /// The room's create event: among the auth events in all versions; none for itself.
    fn create_event(&self) -> error::Result<Option<Arc<StoredEvent>>> {
        let found = self
            .auth_events
            .iter()
            .find(|event| *event.pdu.event_type() == TimelineEventType::RoomCreate);
        Ok(found.cloned())
    }

    fn check_by_auth_events(&self, create: Option<&StoredEvent>) -> Result<(), String> {
        let (pdu, rules) = (self.pdu(), self.room.rules);
        let by_id = |id: &EventId| {
            let found = self
                .auth_events
                .iter()
                .find(|event| event.pdu.event_id() == id);
            found.map(|event| Arc::clone(&event.pdu))
        };
        check_auth_without_state(pdu, rules, by_id).map_err(|reason| reason.to_string())?;
        let Some(create) = create else { return Ok(()) };
        let entry = |event_type: &StateEventType, state_key: &str| {
            let found = self.auth_events.iter().find(|event| {
                event
                    .pdu
                    .state_slot()
                    .is_some_and(|(kind, key)| kind == *event_type && key == state_key)
            });
            found.map(|event| Arc::clone(&event.pdu))
        };
        check_auth(pdu, rules, &create.pdu, entry).map_err(|reason| reason.to_string())
    }

    fn own_key(&self) -> Option<StateKey> {
        let (event_type, state_key) = self.pdu().state_slot()?;
        Some((event_type, state_key.to_owned()))
    }

    /// The keys of the states that judging looks at.
    fn keys(&self) -> Vec<StateKey> {
        let mut keys: BTreeSet<_> = self.pdu().auth_types(self.room.rules).into_iter().collect();
        keys.extend(self.own_key());
        keys.insert((StateEventType::RoomCreate, String::new()));
        keys.insert((StateEventType::RoomHistoryVisibility, String::new()));
        keys.insert((StateEventType::RoomPowerLevels, String::new()));
        keys.into_iter().collect()
    }

    fn number(&self) -> EventNumber {
        self.known_as.unwrap_or(self.head().next_number)
    }

    fn verdict(&self, rejected: &Option<String>, soft_failed: Option<String>) -> Option<Verdict> {
        let standing = match self.incoming.standing {
            Standing::Live { .. } => StoredStanding::Live,
            Standing::Outlier => StoredStanding::Outlier,
            Standing::Historic { .. } => StoredStanding::Historic,
        };
        let (outcome, reason) = match (rejected, soft_failed) {
            (Some(reason), _) => (Outcome::Rejected, Some(reason.clone())),
            (None, Some(reason)) => (Outcome::SoftFailed, Some(reason)),
            (None, None) => (Outcome::Accepted, None),
        };
        let plain = standing == StoredStanding::Live && outcome == Outcome::Accepted;
        (!plain).then_some(Verdict {
            standing,
            outcome,
            partial: false,
            reason,
        })
    }

    /// Loads what writing needs besides, where the event changes more than its own entry of the state.
    async fn write(
        mut self,
        mut judged: Judged,
        (chain, set): (NameHash, Arc<AuthChain>),
        received: Received,
        gaps: Vec<(Place, Option<Gap>)>,
    ) -> error::Result<Judgement> {
        let entries = judged.change.entries.iter();
        let events = entries.flat_map(|entry| [&entry.before, &entry.after]);
        let needs = Needs::of_changes(self.rooms.server_name(), events.flatten());
        load::more(self.rooms, self.snapshot, self.working, &needs).await?;
        if judged.verdict.is_none()
            && let Some(roots) = judged.roots
        {
            self.enter(roots.before).await?;
        }
        if self.anew && !self.alone {
            return Ok(Judgement::NotWithOthers);
        }
        let working = self.working;
        working.nodes = self.nodes;
        if self.anew {
            // Takes longer than a view is kept, and is the last thing to do.
            let nodes = std::mem::take(&mut judged.nodes);
            let (root, generation) = (judged.change.root, working.head.generation);
            let (rooms, room, own) = (self.rooms, self.room, &judged.event);
            let written =
                generation::write(rooms, room, root, &nodes, generation, Some(own)).await?;
            judged.change.written = Some(written);
        }
        if chain != NameHash::NONE {
            working.auth_sets.entry(chain).or_insert((set, false));
        }
        let outlier = self.incoming.standing == Standing::Outlier;
        let has_place = judged.event.header.place.is_some();
        let behind = (!has_place && !outlier).then(|| self.followed.behind());
        let passed_over = Some(self.followed.passed_over).filter(|_| has_place);
        Ok(Judgement::Write(Box::new(ToWrite {
            judged,
            received,
            beside: Beside {
                gaps,
                passed_over: passed_over.unwrap_or_default(),
                behind,
                reset: self.reset,
                was_outlier: self.known_as.is_some(),
            },
        })))
    }
}
