//! Rooms that a user left, is invited to, or knocks at.

use std::sync::Arc;

use rooms::{Look, PlaceToken};
use serde_json::value::RawValue;
use storage::schema::Membership;

use crate::{
    Reading,
    changes::{Changes, RoomToRead},
    joined::boundary,
    state::Needed,
    update::{Invited, Left, Timeline},
};

impl Reading<'_> {
    /// What happened in rooms until the user left them.
    pub(crate) async fn left(&self, changes: &Changes) -> error::Result<Vec<Left>> {
        let mut left = Vec::new();
        for to_read in &changes.rooms {
            let gone = matches!(
                to_read.row.value.membership,
                Membership::Leave | Membership::Ban
            );
            let wanted = match self.since() {
                Some(since) => to_read.row.position > since,
                None => false,
            };
            if gone && (wanted || self.request.filter.room.include_leave) {
                left.extend(self.left_room(to_read).await?);
            }
        }
        Ok(left)
    }

    async fn left_room(&self, to_read: &RoomToRead) -> error::Result<Option<Left>> {
        let room = &to_read.room;
        let look = room.look(self.snapshot, self.viewer()).await?;
        if look.until.is_none() {
            return self.declined(to_read, &look).await;
        }
        let (mut to, mut known) = (None, None);
        if let Some(since) = self.since() {
            let then = room.root_at(self.snapshot, since.end_of_commit()).await?;
            if self.was_joined(room, then).await? {
                to = Some(boundary(self, room, since).await?);
                known = then.filter(|_| !self.request.full_state);
            }
        }
        let newly = to.is_none() && self.since().is_some();
        let page = self.page_between(room, &look, to).await?;
        let needed = Needed {
            room,
            look: &look,
            known,
            end: look.root()?,
            timeline: &page.events,
            heroes: &[],
        };
        let state = self.state(&needed).await?;
        let state = self.written(room, &look, &state).await?;
        let timeline = self.timeline(room, &look, page, newly).await?;
        if timeline.events.is_empty() && state.is_empty() {
            return Ok(None);
        }
        Ok(Some(Left {
            room: Arc::clone(room),
            timeline,
            state,
            account_data: self.room_account_data(to_read)?,
        }))
    }

    /// A room in which the user never was: only that they are out of it, by their own will or another's.
    async fn declined(&self, to_read: &RoomToRead, look: &Look) -> error::Result<Option<Left>> {
        let room = &to_read.room;
        let Some(number) = to_read.row.value.number else {
            return Ok(None);
        };
        let events = room.read_events(self.snapshot, &[number]).await?;
        let events: Vec<_> = events.into_iter().flatten().collect();
        let place = events.first().and_then(|event| event.row.header.place);
        Ok(Some(Left {
            room: Arc::clone(room),
            timeline: Timeline {
                events: self.written(room, look, &events).await?,
                limited: false,
                prev_batch: place.map(PlaceToken::before),
            },
            state: Vec::new(),
            account_data: Vec::new(),
        }))
    }

    /// New invites.
    pub(crate) async fn invited(&self, changes: &Changes) -> error::Result<Vec<Invited>> {
        self.outside(changes, Membership::Invite)
    }

    /// New knocks.
    pub(crate) async fn knocked(&self, changes: &Changes) -> error::Result<Vec<Invited>> {
        self.outside(changes, Membership::Knock)
    }

    fn outside(&self, changes: &Changes, membership: Membership) -> error::Result<Vec<Invited>> {
        let is_new = |to_read: &&RoomToRead| {
            to_read.row.value.membership == membership
                && self
                    .since()
                    .is_none_or(|since| to_read.row.position > since)
        };
        changes
            .rooms
            .iter()
            .filter(is_new)
            .map(|to_read| {
                let stripped = to_read.row.value.stripped_state.iter();
                let stripped = stripped
                    .map(|event| RawValue::from_string(event.clone()).map_err(error::internal));
                Ok(Invited {
                    room: Arc::clone(&to_read.room),
                    stripped_state: stripped.collect::<error::Result<_>>()?,
                })
            })
            .collect()
    }
}
