//! What an accepted event becomes in storage: the same for events of ours and of others.
//!
//! Nothing here reads, waits or fails: everything was looked up before. Nobody is told either; who cares
//! reads the room log or the stream.

mod local_users;
mod members;
mod related;

use std::sync::Arc;

use pdu::{EventNumber, tree::NodeHash};
use ruma::{OwnedEventId, events::StateEventType};
use storage::{
    Batch, Position, Raw, ShortRoomId, Storage, Topic,
    schema::{
        self, EndsBehind, EventRef, Gap, Outcome, Place, PlacedEvent, RoomChange, RoomRow, Speaker,
        StateChange, StreamRecord, Verdict,
    },
};

pub(crate) use self::related::EVERYBODY;
use crate::{
    Group, StoredEvent,
    redact_all::{self, Pruning},
    writer::{CurrentChange, Entry, Judged, Working, Written, flat_key, write_answer},
};

/// A commit that changes more entries of the current state than this only says so in the room log.
pub(crate) const LOGGED_CHANGES_MAX: usize = 100;

/// Puts the rows of an event into the batch, as its `index`th event, and moves the head past it.
pub(crate) fn accept(
    storage: &Storage,
    batch: &mut Batch,
    working: &mut Working,
    judged: Judged,
    index: u16,
) {
    let writing = Writing {
        storage,
        batch,
        working,
        index,
    };
    writing.accept(judged);
}

/// What comes with an event of another server.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Holes in the timeline, as they are from now on; closed where nothing is missing.
    pub(crate) gaps: Vec<(Place, Option<Gap>)>,
    /// Those of its prev events that are not here, or not accepted, if it is.
    pub(crate) passed_over: Vec<OwnedEventId>,
    /// What it follows, if it is not accepted.
    pub(crate) behind: Option<EndsBehind>,
    /// A resolution for it lost state that nobody contested.
    pub(crate) reset: bool,
    /// It was here as an outlier.
    pub(crate) was_outlier: bool,
}

/// Puts the rows of an event of another server into the batch, and what it means for the graph and for holes in
/// the timeline.
pub(crate) fn receive(
    storage: &Storage,
    batch: &mut Batch,
    working: &mut Working,
    judged: Judged,
    beside: &Beside,
    index: u16,
) {
    let short = working.room.short;
    if beside.was_outlier && judged.verdict.is_none() {
        let key = (short, judged.event.number);
        batch.delete(&schema::VERDICT_BY_EVENT, &key);
    }
    for (place, gap) in &beside.gaps {
        match gap {
            Some(gap) => batch.put(&schema::GAP_BY_PLACE, &(short, *place), gap),
            None => batch.delete(&schema::GAP_BY_PLACE, &(short, *place)),
        }
    }
    for id in &beside.passed_over {
        let key = (short, storage.event_hash(id));
        batch.put(&schema::FOLLOWED_BY_EVENT, &key, &());
    }
    if let Some(behind) = &beside.behind {
        let key = (short, judged.event.number);
        batch.put(&schema::ENDS_BEHIND_EVENT, &key, behind);
    }
    if beside.reset {
        batch.add(&schema::RESETS_BY_ROOM, &short, 1);
    }
    accept(storage, batch, working, judged, index);
    // Whoever is judged after it on what this batch writes looks for them.
    chains(batch, working);
}

/// Puts the auth chains that are new into the batch.
fn chains(batch: &mut Batch, working: &mut Working) {
    let short = working.room.short;
    let new = working
        .auth_sets
        .iter_mut()
        .filter(|(_, (_, stored))| !stored);
    for (hash, (set, stored)) in new {
        let bytes = Raw(set.to_bytes().into());
        batch.put(&schema::CHAIN_BY_SET, &(short, *hash), &bytes);
        *stored = true;
    }
}

/// Puts the rows of an outlier into the batch, on the condition that the event is not there: one of many
/// that are the state of a room into which this server comes, under a number that was reserved.
pub(crate) fn lay_down(
    storage: &Storage,
    batch: &mut Batch,
    room: ShortRoomId,
    event: &StoredEvent,
    verdict: &Verdict,
) {
    let key = (room, event.number);
    batch.put(&schema::EVENT_BY_NUMBER, &key, &event.row());
    batch.put(&schema::VERDICT_BY_EVENT, &key, verdict);
    let name = storage.event_hash(&event.header.event_id);
    let reference = EventRef {
        room,
        number: Some(event.number),
    };
    batch.expect_absent(&schema::NUMBER_BY_EVENT, &name);
    batch.put(&schema::NUMBER_BY_EVENT, &name, &reference);
}

/// Prunes events whose sender was removed together with all they said, as far as that still holds; of the
/// batch's events they are the `index`th and those after it. How many events the batch has then.
pub(crate) fn prune_all(
    storage: &Storage,
    batch: &mut Batch,
    working: &mut Working,
    pruning: &Pruning,
    index: u16,
) -> u16 {
    let mut writing = Writing {
        storage,
        batch,
        working,
        index,
    };
    writing.prune_all(pruning);
    writing.index
}

/// Puts the whole current state of a room in the place of that of which we did not know all, without an event
/// that did it; `seen` is what changes by it but members who become known. Who reads the stream is told of it by the
/// join in which the rest was lacking.
pub(crate) fn fill(
    storage: &Storage,
    batch: &mut Batch,
    working: &mut Working,
    join: EventNumber,
    change: CurrentChange,
    seen: Option<Vec<StateChange>>,
) {
    let writing = Writing {
        storage,
        batch,
        working,
        index: 0,
    };
    writing.fill(join, change, seen);
}

/// Puts what a group asks for besides its events into the batch.
pub(crate) fn finish_group(batch: &mut Batch, group: &Group, ids: &[OwnedEventId]) {
    if let Some(once) = group.once {
        batch.once(once, write_answer(ids));
    }
    if let Some(more) = &group.more {
        more(batch, ids);
    }
}

/// Puts the room's head, its tail and what else is written once a commit into the batch.
pub(crate) fn finish(storage: &Storage, batch: &mut Batch, working: &mut Working, events: u16) {
    let short = working.room.short;
    match &working.head_raw {
        Some(raw) => batch.expect_equals(&schema::HEAD_BY_ROOM, &short, raw),
        None => create(storage, batch, working),
    }
    batch.put(&schema::HEAD_BY_ROOM, &short, &working.head);
    batch.put_stamped(&schema::TAIL_BY_ROOM, &short, events.saturating_sub(1), ());
    if let Some(listing) = &mut working.listing {
        listing.write(batch, short, working.head.joined);
    }
    chains(batch, working);
    batch.wake(Topic::Room(short));
    batch.wake(Topic::Stream);
}

/// The rows of a new room.
fn create(storage: &Storage, batch: &mut Batch, working: &Working) {
    let short = working.room.short;
    let create = working.current(&StateEventType::RoomCreate, "");
    let room_id = create.map_or(&*working.room.room_id, |create| create.pdu.room_id());
    let name = storage.room_hash(room_id);
    batch.expect_absent(&schema::HEAD_BY_ROOM, &short);
    batch.expect_absent(&schema::ROOM_BY_NAME, &name);
    batch.put(&schema::ROOM_BY_NAME, &name, &short);
    let row = RoomRow {
        room_id: room_id.to_string(),
        version: working.head.version.clone(),
    };
    batch.put(&schema::ROOM_BY_SHORT_ID, &short, &row);
}

/// What a new generation of the flat tables says of the room as a whole.
fn count_anew(working: &mut Working, written: Written) {
    working.head.joined = written.joined;
    working.head.invited = written.invited;
    working.head.visibility = written.visibility;
    working.servers = written.servers;
}

/// The rows of one event on their way into a batch.
struct Writing<'a> {
    storage: &'a Storage,
    batch: &'a mut Batch,
    working: &'a mut Working,
    index: u16,
}

impl Writing<'_> {
    fn accept(mut self, mut judged: Judged) {
        if let Some(root) = self.thread(&judged) {
            Arc::make_mut(&mut judged.event).header.thread = Some(root);
        }
        let counted = self.counts(&judged);
        self.event(&judged);
        self.place(&judged, counted);
        self.nodes(&judged.nodes);
        if judged.event.header.place.is_some() {
            self.log(&judged);
        }
        if let Some(listing) = &mut self.working.listing {
            listing.see(&judged.change.entries);
        }
        match &judged.change.written {
            None => {
                for entry in &judged.change.entries {
                    self.state_entry(entry);
                }
            }
            Some(written) => self.new_generation(written, &judged.change.entries),
        }
        self.related(&judged, counted);
        let entries = judged.change.entries.iter();
        let changed = entries.filter_map(|entry| entry.after.as_ref());
        // Left twice, as for an event that changes the state itself, it is one job.
        for event in changed.chain([&judged.event]) {
            redact_all::leave_job(self.storage, self.batch, self.short(), event);
        }
        let working = self.working;
        if let Some(written) = judged.change.written {
            count_anew(working, written);
        }
        working.head.extremities = judged.extremities;
        working.head.root = judged.change.root;
        working.head.next_number = judged
            .event
            .number
            .next()
            .map_or(working.head.next_number, |next| {
                next.max(working.head.next_number)
            });
        for entry in judged.change.entries {
            working.state.insert(entry.key, entry.after);
        }
        let id = judged.event.pdu.event_id().to_owned();
        let rejected = judged.verdict.as_ref();
        let accepted = rejected.is_none_or(|verdict| verdict.outcome == Outcome::Accepted);
        let event = accepted.then_some(judged.event);
        working.events.insert(id, event);
    }

    /// The flat tables are written already, as another generation: what is left to do concerns people of
    /// ours, and what is worked out of all of the state.
    fn new_generation(&mut self, written: &Written, entries: &[Entry]) {
        self.working.head.generation = written.generation;
        let short = self.working.room.short;
        crate::directory::look_again(self.storage, self.batch, short);
        crate::guests::leave_job(self.storage, self.batch, short);
        for entry in entries {
            self.our_member(entry);
        }
        let ours = written.servers.get(&self.working.server_name);
        let here = ours.is_some_and(|row| row.joined > 0);
        // Who was in the room before is so without a break.
        if !here || !written.was_here {
            self.our_presence(here);
        }
    }

    fn fill(mut self, join: EventNumber, change: CurrentChange, seen: Option<Vec<StateChange>>) {
        let Some(written) = change.written else {
            return;
        };
        self.new_generation(&written, &change.entries);
        let row = RoomChange {
            number: None,
            place: None,
            historic: false,
            root: change.root,
            state: seen,
            speaker: None,
        };
        let key = (self.short(), Position::pending(self.index));
        self.batch.put(&schema::CHANGE_BY_ROOM_POSITION, &key, &row);
        self.look_again(join, None);
        let working = self.working;
        count_anew(working, written);
        working.head.root = change.root;
        working.head.partial = false;
    }

    fn short(&self) -> ShortRoomId {
        self.working.room.short
    }

    fn event(&mut self, judged: &Judged) {
        let (short, event) = (self.short(), &judged.event);
        let key = (short, event.number);
        self.batch.put(&schema::EVENT_BY_NUMBER, &key, &event.row());
        let name = self.storage.event_hash(&event.header.event_id);
        let reference = EventRef {
            room: short,
            number: Some(event.number),
        };
        self.batch.put(&schema::NUMBER_BY_EVENT, &name, &reference);
        if let Some(roots) = &judged.roots {
            self.batch.put(&schema::ROOTS_BY_EVENT, &key, roots);
        }
        if let Some(verdict) = &judged.verdict {
            self.batch.put(&schema::VERDICT_BY_EVENT, &key, verdict);
        }
    }

    fn place(&mut self, judged: &Judged, counted: bool) {
        let Some(place) = judged.event.header.place else {
            return;
        };
        let thread = judged.event.header.thread;
        let head = &mut self.working.head;
        head.next_slot = head.next_slot.max(place.slot.saturating_add(1));
        if counted {
            head.totals.notify += 1;
            head.totals.threaded += u64::from(thread.is_some());
        }
        let placed = PlacedEvent {
            number: judged.event.number,
            totals: head.totals,
            state: judged.event.header.state_key.is_some(),
            thread,
            root: Some(judged.change.root).filter(|root| {
                !judged.is_historic() && judged.roots.map(|it| it.after) != Some(*root)
            }),
        };
        let key = (self.short(), place);
        self.batch.put(&schema::EVENT_BY_PLACE, &key, &placed);
        let time = judged.event.header.origin_server_ts;
        let key = (self.short(), time, place);
        self.batch
            .put(&schema::EVENT_BY_TIME, &key, &judged.event.number);
    }

    fn nodes(&mut self, nodes: &[(NodeHash, Vec<u8>)]) {
        for (hash, bytes) in nodes {
            let key = (self.short(), hash.0);
            self.batch
                .put(&schema::NODE_BY_HASH, &key, &Raw(bytes.clone().into()));
        }
    }

    fn log(&mut self, judged: &Judged) {
        let entries = &judged.change.entries;
        let all = judged.change.written.is_none();
        let state = (all && entries.len() <= LOGGED_CHANGES_MAX).then(|| {
            let change = |entry: &Entry| StateChange {
                event_type: entry.key.0.to_string(),
                state_key: entry.key.1.clone(),
                before: entry.before.as_ref().map(|event| event.number),
                after: entry.after.as_ref().map(|event| event.number),
            };
            entries.iter().map(change).collect()
        });
        let change = RoomChange {
            number: Some(judged.event.number),
            place: judged.event.header.place,
            historic: judged.is_historic(),
            root: judged.change.root,
            state,
            speaker: self.speaker(judged),
        };
        let position = Position::pending(self.index);
        self.batch.put(
            &schema::CHANGE_BY_ROOM_POSITION,
            &(self.short(), position),
            &change,
        );
        let record = StreamRecord {
            room: self.short(),
            number: judged.event.number,
            place: judged.event.header.place,
            historic: judged.is_historic(),
            local: judged.local,
            servers: self.servers_to_tell(judged),
        };
        self.batch
            .put(&schema::STREAM_BY_POSITION, &position, &record);
    }

    /// A record of the stream by which those who keep an index look at an event again; nobody else is told.
    fn look_again(&mut self, number: EventNumber, place: Option<Place>) {
        let record = StreamRecord {
            room: self.short(),
            number,
            place,
            historic: true,
            local: false,
            servers: Vec::new(),
        };
        let position = Position::pending(self.index);
        self.batch
            .put(&schema::STREAM_BY_POSITION, &position, &record);
    }

    fn speaker(&self, judged: &Judged) -> Option<Speaker> {
        let sender = &judged.event.header.sender;
        let member = self.working.current(&StateEventType::RoomMember, sender)?;
        (!judged.is_historic()).then(|| Speaker {
            user: self.storage.state_key_hash(sender),
            member: member.number,
            replaced: member.header.replaces_state,
        })
    }

    /// One changed entry of the current state, in the flat tables.
    fn state_entry(&mut self, entry: &Entry) {
        let generation = self.working.head.generation;
        let (event_type, state_key) = &entry.key;
        let event_type_text = event_type.to_string();
        let key = flat_key(
            self.storage,
            self.short(),
            generation,
            &event_type_text,
            state_key,
        );
        match &entry.after {
            Some(event) => self.batch.put(&schema::STATE_BY_ROOM, &key, &event.number),
            None => self.batch.delete(&schema::STATE_BY_ROOM, &key),
        }
        match event_type {
            StateEventType::RoomMember => self.member(entry),
            StateEventType::RoomHistoryVisibility if state_key.is_empty() => {
                let pdu = entry.after.as_ref().map(|event| event.pdu.as_ref());
                self.working.head.visibility = crate::writer::visibility_of(pdu);
            }
            StateEventType::RoomGuestAccess if state_key.is_empty() => {
                let (before, after) = (entry.before.as_deref(), entry.after.as_deref());
                let short = self.working.room.short;
                crate::guests::changed(self.storage, self.batch, short, before, after);
            }
            _ => {}
        }
    }
}
