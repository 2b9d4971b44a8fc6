//! What the log of a room tells that its readers will need: read beside its events, not after them.

use std::collections::BTreeSet;

use rooms::Room;

use crate::{Reading, log::RoomLog, members::wants_each_once};

/// Entries of the state, and members, that are read ahead of one room, at most.
const AHEAD_MAX: usize = 100;

impl Reading<'_> {
    /// Reads ahead what a device is told besides the timeline: the entries of the state that changed, who
    /// sends for those who load members lazily, and whether those who came and went are joined.
    pub(crate) fn read_ahead(&self, room: &Room, log: &RoomLog) {
        let (rooms, snapshot) = (self.rooms(), self.snapshot);
        let generation = log.head.generation;
        let mut events = BTreeSet::new();
        let changes = log.rows.iter().flat_map(|row| {
            let changes = row.change.state.iter().flatten();
            // The event itself is of the timeline.
            changes.map(|change| {
                (
                    change.before,
                    change.after.filter(|_| row.change.number != change.after),
                )
            })
        });
        for (before, after) in changes.take(AHEAD_MAX) {
            events.extend(before);
            events.extend(after);
        }
        let filter = &self.request.filter.room.state;
        if !filter.lazy_load_options.is_disabled() {
            let each_once = wants_each_once(filter);
            let limit = self.request.timeline_limit().min(AHEAD_MAX);
            let mut members = BTreeSet::new();
            let speakers = log.rows.iter().filter_map(|row| row.change.speaker);
            for speaker in speakers.take(limit) {
                if each_once && self.members.knows(&(room.short, speaker.user)) {
                    continue;
                }
                members.insert(speaker.user);
                events.insert(speaker.member);
                events.extend(speaker.replaced);
            }
            let members: Vec<_> = members.into_iter().collect();
            room.member_numbers_ahead(rooms, snapshot, generation, &members);
        }
        room.read_events_ahead(snapshot, &events);
        let members = log.changed_members().take(AHEAD_MAX);
        room.joined_ahead(rooms, snapshot, generation, members);
    }
}
