//! The state that a device needs to know besides a timeline.

use std::collections::BTreeSet;

use pdu::EventNumber;
use rooms::{
    Look, ReadEvent, Room,
    event_filter::{passes, wants_room},
};
use ruma::{OwnedUserId, events::StateEventType};

use crate::Reading;

/// What the state is needed for.
pub(crate) struct Needed<'a> {
    pub(crate) room: &'a Room,
    pub(crate) look: &'a Look,
    /// The state that the device knows; none if it does not know the room.
    pub(crate) known: Option<[u8; 16]>,
    /// The state after the timeline.
    pub(crate) end: [u8; 16],
    /// The timeline that it is given.
    pub(crate) timeline: &'a [ReadEvent],
    /// People whose member events it needs even if it loads members lazily.
    pub(crate) heroes: &'a [OwnedUserId],
}

impl Reading<'_> {
    /// The state events that a device needs: with its timeline they make the state at its end, and before
    /// the timeline they make the state before it.
    pub(crate) async fn state(&self, needed: &Needed<'_>) -> error::Result<Vec<ReadEvent>> {
        let filter = &self.request.filter.room.state;
        if !wants_room(filter, &needed.room.room_id) {
            return Ok(Vec::new());
        }
        let lazy = !filter.lazy_load_options.is_disabled();
        let start = match needed.timeline.first() {
            Some(first) if !self.request.state_after => first.roots.before,
            _ => needed.end,
        };
        let mut numbers = match needed.known {
            Some(known) => self.changed(needed, known, start).await?,
            None => self.whole(needed, start, lazy).await?,
        };
        let shown: BTreeSet<_> = needed.timeline.iter().map(|event| event.number).collect();
        if !self.request.state_after {
            // What changed on the way but is not shown there, as the filter hides it for instance.
            let later = self.difference(needed, start, needed.end).await?;
            numbers.extend(later);
            numbers.retain(|number| !shown.contains(number));
        }
        let members: BTreeSet<String> = if lazy {
            needed
                .timeline
                .iter()
                .map(|event| event.row.header.sender.clone())
                .chain(needed.heroes.iter().map(ToString::to_string))
                .chain(
                    needed
                        .known
                        .is_none()
                        .then(|| self.viewer().user_id.to_string()),
                )
                .collect()
        } else {
            BTreeSet::new()
        };
        if lazy {
            let found = self.members(needed, start, &members).await?;
            numbers.extend(found.into_iter().filter(|number| !shown.contains(number)));
        }
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = needed.room.read_events(self.snapshot, &numbers).await?;
        Ok(events
            .into_iter()
            .flatten()
            .filter(|event| {
                let header = &event.row.header;
                let unwanted = lazy
                    && header.event_type == "m.room.member"
                    && !header
                        .state_key
                        .as_ref()
                        .is_some_and(|key| members.contains(key));
                !unwanted && passes(filter, event)
            })
            .collect())
    }

    /// What stands in the second state and not in the first.
    async fn difference(
        &self,
        needed: &Needed<'_>,
        from: [u8; 16],
        to: [u8; 16],
    ) -> error::Result<BTreeSet<EventNumber>> {
        let differences = needed
            .room
            .state_difference(self.snapshot, from, to)
            .await?;
        Ok(differences.into_iter().filter_map(|(_, new)| new).collect())
    }

    /// What changed between what the device knows and the beginning of its timeline.
    async fn changed(
        &self,
        needed: &Needed<'_>,
        known: [u8; 16],
        start: [u8; 16],
    ) -> error::Result<BTreeSet<EventNumber>> {
        if self.request.state_after {
            return self.difference(needed, known, needed.end).await;
        }
        self.difference(needed, known, start).await
    }

    /// The whole state at the beginning of the timeline. With lazy loading the members are left out where
    /// that saves reading them.
    async fn whole(
        &self,
        needed: &Needed<'_>,
        start: [u8; 16],
        lazy: bool,
    ) -> error::Result<BTreeSet<EventNumber>> {
        let head = &needed.look.head;
        if !lazy || needed.end != head.root {
            let all = needed.room.whole_state(self.snapshot, start).await?;
            return Ok(all.into_iter().collect());
        }
        let current = needed
            .room
            .current_without_members(self.rooms(), self.snapshot, head.generation)
            .await?;
        let mut numbers: BTreeSet<_> = current.into_iter().collect();
        let changed = needed
            .room
            .state_difference(self.snapshot, start, head.root)
            .await?;
        for (before, now) in changed {
            if let Some(now) = now {
                numbers.remove(&now);
            }
            numbers.extend(before);
        }
        Ok(numbers)
    }

    /// The member events of some people in a state.
    async fn members(
        &self,
        needed: &Needed<'_>,
        root: [u8; 16],
        members: &BTreeSet<String>,
    ) -> error::Result<Vec<EventNumber>> {
        let keys: Vec<_> = members
            .iter()
            .map(|user| (StateEventType::RoomMember, user.clone()))
            .collect();
        let found = needed
            .room
            .find_state(self.snapshot, &[root], &keys)
            .await?;
        Ok(found.into_values().collect())
    }
}
