//! Rooms that a user left, is invited to, or knocks at.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rooms::{Look, PlaceToken, Room, Until};
use serde_json::value::RawValue;
use storage::schema::Membership;

use crate::{
    Reading,
    changes::{ChangedRoom, Changes},
    joined::some_at_once,
    log::{self, Part, RoomLog},
    state::Needed,
    update::{Invited, Left, Timeline},
};

impl Reading<'_> {
    /// What happened in rooms until the user left them.
    pub(crate) async fn left(&self, changes: &Changes) -> error::Result<Vec<Left>> {
        let gone = |changed: &&ChangedRoom| {
            let membership = changed.row.value.membership;
            matches!(membership, Membership::Leave | Membership::Ban)
        };
        let rooms: Vec<_> = changes.rooms.iter().filter(gone).collect();
        let parts: Vec<_> = rooms
            .iter()
            .map(|changed| (changed.room.short, self.part(Some(changed.row.position))))
            .collect();
        let logs = log::read(self.snapshot, &parts).await?;
        let mut reading: Vec<BoxFuture<'_, error::Result<Option<Left>>>> = Vec::new();
        for (changed, log) in rooms.iter().copied().zip(logs) {
            reading.push(match log {
                Some(log) => Box::pin(self.left_room(changed, log, changes)),
                // A room in which this server never was.
                None => Box::pin(std::future::ready(Ok(Some(nothing_of(changed))))),
            });
        }
        let found = some_at_once(reading).await?;
        let found = found.into_iter().zip(rooms);
        let found = found.filter_map(|(left, changed)| Some((left?, changed)));
        found
            .map(|(mut left, changed)| {
                // Of what happened when this server was not in the room only this is known.
                for event in &changed.row.value.stripped_state {
                    let event = RawValue::from_string(event.clone()).map_err(error::internal)?;
                    left.timeline.events.push(event);
                }
                Ok(left)
            })
            .collect()
    }

    async fn left_room(
        &self,
        changed: &ChangedRoom,
        mut log: RoomLog,
        changes: &Changes,
    ) -> error::Result<Option<Left>> {
        let room = &changed.room;
        let look = room.look(self.snapshot, self.viewer()).await?;
        if changed.row.value.forgotten && !self.was_there(room, log.root).await? {
            return Ok(None);
        }
        let Some(until) = look.until else {
            return self.declined(changed, &look).await.map(Some);
        };
        let known = self.since().is_some() && self.was_joined(room, log.root).await?;
        if !known {
            let part = Part {
                since: None,
                ..self.part(Some(changed.row.position))
            };
            let again = log::read(self.snapshot, &[(room.short, part)]).await?;
            match again.into_iter().flatten().next() {
                Some(whole) => log = whole,
                None => return Ok(None),
            }
        }
        if !log.cut_after(self.snapshot, until.place).await? {
            // They were out of it for long: only their membership changed.
            return self.declined(changed, &look).await.map(Some);
        }
        let mut shown = self.shown(room, &look, &mut log, &changes.ignored).await?;
        if !known {
            shown.limited |= !log.begins_with_create();
        }
        let needed = Needed {
            room,
            look: &look,
            shown: &shown,
            whole: !known || self.request.full_state,
            current: false,
            heroes: &[],
        };
        Ok(Some(Left {
            room: Arc::clone(room),
            state: self.state(&mut log, &needed).await?,
            timeline: self.timeline(room, &look, &shown).await?,
            account_data: Vec::new(),
        }))
    }

    /// Whether the room was more to the user than one that they had left, in a state.
    async fn was_there(&self, room: &Room, root: Option<[u8; 16]>) -> error::Result<bool> {
        let Some(root) = root else { return Ok(false) };
        let membership = room
            .membership_at(self.snapshot, root, self.viewer())
            .await?;
        Ok(matches!(
            membership,
            Some(Membership::Join | Membership::Invite | Membership::Knock)
        ))
    }

    /// A room in which the user never was: only that they are out of it, by their own will or another's.
    async fn declined(&self, changed: &ChangedRoom, look: &Look) -> error::Result<Left> {
        let mut left = nothing_of(changed);
        let (room, row) = (&changed.room, &changed.row.value);
        let numbers: Vec<_> = row.number.into_iter().collect();
        let events = room.read_events(self.snapshot, &numbers).await?;
        let events: Vec<_> = events.into_iter().flatten().collect();
        // Their own member event is all that they see, so it stands as the end of the room for them.
        let until = row.place.zip(events.first()).map(|(place, event)| Until {
            place,
            root: event.roots.after,
        });
        let look = Look {
            until,
            ..look.clone()
        };
        left.timeline.events = self.written(room, &look, &events, false).await?;
        left.timeline.prev_batch = row.place.map(PlaceToken::before);
        Ok(left)
    }

    /// Rooms to which the user was invited, or at which they began to knock, without invites that they do
    /// not want.
    pub(crate) fn outside(
        &self,
        changes: &Changes,
        membership: Membership,
    ) -> error::Result<Vec<Invited>> {
        let wanted = |changed: &&ChangedRoom| {
            let row = &changed.row.value;
            row.membership == membership
                && (membership != Membership::Invite || changes.welcomes(&row.sender))
        };
        changes
            .rooms
            .iter()
            .filter(wanted)
            .map(|changed| {
                let stripped = changed.row.value.stripped_state.iter();
                let stripped = stripped
                    .map(|event| RawValue::from_string(event.clone()).map_err(error::internal));
                Ok(Invited {
                    room: Arc::clone(&changed.room),
                    knocked: membership == Membership::Knock,
                    stripped_state: stripped.collect::<error::Result<_>>()?,
                })
            })
            .collect()
    }
}

fn nothing_of(changed: &ChangedRoom) -> Left {
    Left {
        room: Arc::clone(&changed.room),
        timeline: Timeline::default(),
        state: Vec::new(),
        account_data: Vec::new(),
    }
}
