//! The state that a device needs to know besides its timeline.
//!
//! With the events of its timeline it makes the state in the end; before them (unless the device asked
//! for the state after its timeline, MSC4222) it is the state there. Entries that changed on the way
//! without an event that is shown, by resolution or because the filter hides it, are told with it.

use std::collections::{BTreeSet, HashMap, HashSet};

use pdu::{EventNumber, tree::StateKeyHash};
use rooms::{
    EVENTS_AT_ONCE, Look, ReadEvent, Room,
    event_filter::{passes, wants_room},
};
use ruma::events::StateEventType;
use serde_json::value::RawValue;

use crate::{
    Reading,
    log::{Entry, RoomLog},
    members::wants_each_once,
    timeline::Shown,
};

/// What the state is needed for.
pub(crate) struct Needed<'a> {
    pub(crate) room: &'a Room,
    pub(crate) look: &'a Look,
    /// The timeline that the device is given.
    pub(crate) shown: &'a Shown,
    /// The whole state is wanted, not only what changed.
    pub(crate) whole: bool,
    /// The state in the end is that of the room now.
    pub(crate) current: bool,
    /// The members after whom the room is named: who loads members lazily needs them too.
    pub(crate) heroes: &'a [String],
}

type Entries = HashMap<StateKeyHash, Entry>;

impl Reading<'_> {
    /// The state events that a device needs, as it gets them.
    pub(crate) async fn state(
        &self,
        log: &mut RoomLog,
        needed: &Needed<'_>,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let (room, shown) = (needed.room, needed.shown);
        let filter = &self.request.filter.room.state;
        if !wants_room(filter, &room.room_id) {
            return Ok(Vec::new());
        }
        let lazy = !filter.lazy_load_options.is_disabled();
        let shown_keys: HashSet<_> = shown
            .events
            .iter()
            .filter_map(|event| key_of(room, event))
            .collect();
        let (mut numbers, entries) = if needed.whole {
            self.whole(log, needed, lazy, &shown_keys).await?
        } else {
            let entries = log.changes(room, self.snapshot, shown.first).await?;
            (self.changed(&entries, &shown_keys), entries)
        };
        if lazy {
            let members = self.members(log, needed, &entries, &shown_keys).await?;
            numbers.extend(members);
        }
        let numbers: Vec<_> = numbers.into_iter().collect();
        let kept = (lazy && needed.whole && !needed.current).then(|| lazy_members(self, needed));
        let is_kept = |event: &ReadEvent| match (&kept, &event.row.header.state_key) {
            (Some(kept), Some(key)) if event.row.header.event_type == "m.room.member" => {
                kept.contains(key)
            }
            _ => true,
        };
        // Written as they are read: there may be very many.
        let mut written = Vec::new();
        for numbers in numbers.chunks(EVENTS_AT_ONCE) {
            let mut events = room.read_state_events(self.snapshot, numbers).await?;
            events.retain(|event| is_kept(event) && passes(filter, event));
            written.extend(self.written_state(room, needed.look, &events).await?);
        }
        Ok(written)
    }

    /// What changed since the device was last told, and is not told by its timeline.
    fn changed(&self, entries: &Entries, shown: &HashSet<StateKeyHash>) -> BTreeSet<EventNumber> {
        entries
            .iter()
            .filter_map(|(key, entry)| {
                let told = self.told(key, entry, shown);
                told.filter(|_| told != entry.since)
            })
            .collect()
    }

    /// What is told of an entry that changed: what stood there before the timeline if that goes on from
    /// there, or else what stands there in the end.
    fn told(
        &self,
        key: &StateKeyHash,
        entry: &Entry,
        shown: &HashSet<StateKeyHash>,
    ) -> Option<EventNumber> {
        if shown.contains(key) && !self.request.wants_state_after() {
            entry.start
        } else {
            entry.end
        }
    }

    /// The whole state, and what changed within the timeline.
    async fn whole(
        &self,
        log: &mut RoomLog,
        needed: &Needed<'_>,
        lazy: bool,
        shown: &HashSet<StateKeyHash>,
    ) -> error::Result<(BTreeSet<EventNumber>, Entries)> {
        let room = needed.room;
        let entries = match needed.shown.first {
            Some(first) => log.changes_from(room, self.snapshot, first).await?,
            None => Entries::new(),
        };
        let mut numbers: BTreeSet<_> = if needed.current {
            let generation = needed.look.head.generation;
            room.current_entries(self.rooms(), self.snapshot, generation, !lazy)
                .await?
                .into_iter()
                .collect()
        } else {
            match log.end() {
                Some(root) => room.whole_state(self.snapshot, root).await?,
                None => Vec::new(),
            }
            .into_iter()
            .collect()
        };
        // NOTSPEC: Synapse tells the newest part of the graph at first, and not what came last, so that Complement
        // looks in the state for an event that came late. Where the timeline begins with one before which
        // nothing stood there, it is told in both.
        let begins = needed.shown.events.first().filter(|_| needed.shown.limited);
        let begins = begins.map(|event| event.number);
        if !self.request.wants_state_after() {
            for (_, entry) in entries.iter().filter(|(key, _)| shown.contains(key)) {
                if let Some(end) = entry.end
                    && (entry.start.is_some() || entry.end != begins)
                {
                    numbers.remove(&end);
                }
                // Who loads members lazily gets those of the senders only.
                let is_there = !(lazy && needed.current && self.is_member(needed, entry));
                numbers.extend(entry.start.filter(|_| is_there));
            }
        }
        Ok((numbers, entries))
    }

    /// Whether what changed is a member event of the timeline.
    fn is_member(&self, needed: &Needed<'_>, entry: &Entry) -> bool {
        needed.shown.events.iter().any(|event| {
            Some(event.number) == entry.end && event.row.header.event_type == "m.room.member"
        })
    }

    /// The member events of those who sent the timeline, and of those after whom the room is named.
    async fn members(
        &self,
        log: &RoomLog,
        needed: &Needed<'_>,
        entries: &Entries,
        shown: &HashSet<StateKeyHash>,
    ) -> error::Result<BTreeSet<EventNumber>> {
        let (mut numbers, mut unknown) = (BTreeSet::new(), Vec::new());
        let each_once = wants_each_once(&self.request.filter.room.state);
        if needed.whole {
            self.told.lock().anew.push(needed.room.short);
        }
        for user in lazy_members(self, needed) {
            let member = (
                needed.room.short,
                self.rooms().storage().state_key_hash(&user),
            );
            let known = each_once && !needed.whole && self.members.knows(&member);
            if !known {
                self.told.lock().members.push(member);
            }
            let key = (StateEventType::RoomMember, user);
            let hash = needed.room.tree_key(&key.0, &key.1);
            match entries.get(&hash) {
                Some(entry) => numbers.extend(self.told(&hash, entry, shown)),
                None if known => {}
                None => unknown.push(key),
            }
        }
        if unknown.is_empty() {
            return Ok(numbers);
        }
        if needed.current {
            let generation = needed.look.head.generation;
            let found = needed
                .room
                .numbers_now(self.rooms(), self.snapshot, generation, &unknown)
                .await?;
            numbers.extend(found.into_iter().flatten());
        } else if let Some(root) = log.end() {
            let found = needed
                .room
                .find_state(self.snapshot, &[root], &unknown)
                .await?;
            numbers.extend(found.into_values());
        }
        Ok(numbers)
    }
}

/// Whose member events a device gets that loads them lazily.
fn lazy_members(reading: &Reading<'_>, needed: &Needed<'_>) -> BTreeSet<String> {
    let senders = needed.shown.events.iter();
    let mut members: BTreeSet<_> = senders
        .map(|event| event.row.header.sender.clone())
        .collect();
    if needed.whole {
        members.insert(reading.viewer().user_id.to_string());
    }
    members.extend(needed.heroes.iter().cloned());
    members
}

/// The key of the state under which an event stands, if it is one of the state.
pub(crate) fn key_of(room: &Room, event: &ReadEvent) -> Option<StateKeyHash> {
    let header = &event.row.header;
    let state_key = header.state_key.as_ref()?;
    Some(room.tree_key(&header.event_type.as_str().into(), state_key))
}
