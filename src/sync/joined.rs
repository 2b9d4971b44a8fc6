//! What changed in the rooms that a user is in.

use std::sync::Arc;

use rooms::{EventFormat, Look, Page, PlaceToken, ReadEvent, Room, Span, Unread};
use ruma::api::Direction;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use storage::{
    Position, Range, Reads,
    schema::{self, Head, Membership, RoomChange},
};

use crate::{
    Reading,
    changes::{Changes, RoomToRead, account_data_event},
    fields::only_fields,
    state::Needed,
    update::{Joined, Timeline, format_of},
};

/// Events of a timeline, if the filter says nothing.
const TIMELINE: usize = 10;
/// Events of a timeline at most.
const TIMELINE_MAX: usize = 1_000;
/// Rows of the room log that are read before the timeline is looked at by its places instead.
const LOG_MAX: usize = 200;

/// What happened in a room since the device's token.
struct Since {
    /// The room's state then; none if it was not there.
    root: Option<[u8; 16]>,
    /// The boundary in the timeline then; none if nothing was added to it since.
    place: Option<PlaceToken>,
    /// A member event came, as far as one can tell.
    members_changed: bool,
}

impl Reading<'_> {
    /// What changed in the joined rooms.
    pub(crate) async fn joined(&self, changes: &Changes) -> error::Result<Vec<Joined>> {
        let rooms: Vec<_> = changes
            .rooms
            .iter()
            .filter(|room| room.row.value.membership == Membership::Join)
            .collect();
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let mut reads = Reads::new();
        let heads = reads.get_all(
            &schema::HEAD_BY_ROOM,
            rooms.iter().map(|room| &room.room.short),
        );
        let answers = self.snapshot.read(&reads).await?;
        let heads = answers.all(&heads)?;
        let with_heads: Vec<(Arc<Room>, Head)> = rooms
            .iter()
            .zip(heads)
            .filter_map(|(room, head)| Some((Arc::clone(&room.room), head?.value)))
            .collect();
        let to_count: Vec<_> = with_heads
            .iter()
            .map(|(room, _)| Arc::clone(room))
            .collect();
        let unread = self
            .rooms()
            .unread(self.snapshot, self.viewer(), &to_count)
            .await?;
        let since: Vec<_> = rooms
            .iter()
            .map(|room| (Arc::clone(&room.room), self.since()))
            .collect();
        let receipts = self
            .rooms()
            .receipts(self.snapshot, self.viewer(), &since)
            .await?;
        let mut joined = Vec::new();
        let parts = rooms.into_iter().zip(with_heads).zip(unread).zip(receipts);
        for (((room, (_, head)), unread), receipts) in parts {
            let one = self.joined_room(room, head, unread, receipts).await?;
            joined.extend(one.filter(|one| !one.is_empty()));
        }
        Ok(joined)
    }

    async fn joined_room(
        &self,
        to_read: &RoomToRead,
        head: Head,
        unread: Unread,
        receipts: Option<Box<RawValue>>,
    ) -> error::Result<Option<Joined>> {
        let room = &to_read.room;
        let look = Look {
            head,
            row: Some(to_read.row.value.clone()),
            until: None,
        };
        let mut since = self.since_in(room).await?;
        if to_read.member_changed
            && let Some(then) = &since
            && !self.was_joined(room, then.root).await?
        {
            since = None;
        }
        let page = self.page(room, &look, since.as_ref()).await?;
        let newly_joined = since.is_none() && self.since().is_some();
        let known = match &since {
            Some(since) if !self.request.full_state => since.root,
            _ => None,
        };
        let events = page.as_ref().map_or(&[][..], |page| &page.events);
        let summary = match &since {
            Some(since) if !since.members_changed && !self.request.full_state => None,
            _ => Some(self.summary(room, &look).await?),
        };
        let heroes = summary.as_ref().and_then(|summary| summary.heroes.as_ref());
        let needed = Needed {
            room,
            look: &look,
            known,
            end: look.head.root,
            timeline: events,
            heroes: heroes.map_or(&[], |heroes| heroes),
        };
        let state = self.state(&needed).await?;
        let state = self.written(room, &look, &state).await?;
        let timeline = match page {
            Some(page) => self.timeline(room, &look, page, newly_joined).await?,
            None => Timeline::default(),
        };
        Ok(Some(Joined {
            counts_changed: to_read.read_changed,
            account_data: self.room_account_data(to_read)?,
            ephemeral: self.ephemeral(room, receipts)?,
            room: Arc::clone(room),
            timeline,
            state,
            summary,
            unread,
        }))
    }

    /// What happened in a room since the token; none without a token.
    async fn since_in(&self, room: &Room) -> error::Result<Option<Since>> {
        let Some(position) = self.since() else {
            return Ok(None);
        };
        let at = (room.short, position.end_of_commit());
        let after = Range::prefix(&(room.short,)).after(&at).limit(LOG_MAX);
        let before = Range::prefix(&(room.short,)).up_to(&at).reverse().limit(1);
        let rows = self
            .snapshot
            .multi_range(&schema::CHANGE_BY_ROOM_POSITION, &[after, before])
            .await?;
        let mut rows = rows.into_iter();
        let after = rows.next().unwrap_or_default();
        let before = rows.next().unwrap_or_default();
        let changes: Vec<RoomChange> = after.into_iter().map(|(_, row)| row.value).collect();
        let place = if changes.len() < LOG_MAX {
            let first = changes
                .iter()
                .filter(|change| !change.historic)
                .find_map(|change| change.place);
            first.map(PlaceToken::before)
        } else {
            Some(room.place_at(self.snapshot, position).await?)
        };
        let is_member = |change: &RoomChange| {
            change.state.as_ref().is_none_or(|state| {
                state
                    .iter()
                    .any(|entry| entry.event_type == "m.room.member")
            })
        };
        Ok(Some(Since {
            root: before.into_iter().next().map(|(_, row)| row.value.root),
            place,
            members_changed: changes.len() >= LOG_MAX || changes.iter().any(is_member),
        }))
    }

    /// Whether the user was joined in a state.
    pub(crate) async fn was_joined(
        &self,
        room: &Room,
        root: Option<[u8; 16]>,
    ) -> error::Result<bool> {
        let Some(root) = root else { return Ok(false) };
        let membership = room
            .membership_at(self.snapshot, root, self.viewer())
            .await?;
        Ok(membership == Some(Membership::Join))
    }

    /// The newest events that the device does not know, oldest first; none if there are none.
    async fn page(
        &self,
        room: &Room,
        look: &Look,
        since: Option<&Since>,
    ) -> error::Result<Option<Page>> {
        let to = match since {
            Some(since) => match since.place {
                Some(place) => Some(place),
                None => return Ok(None),
            },
            None => None,
        };
        self.page_between(room, look, to).await.map(Some)
    }

    /// The newest events after a boundary, oldest first.
    pub(crate) async fn page_between(
        &self,
        room: &Room,
        look: &Look,
        to: Option<PlaceToken>,
    ) -> error::Result<Page> {
        let filter = &self.request.filter.room.timeline;
        let limit = filter
            .limit
            .and_then(|limit| usize::try_from(u64::from(limit)).ok())
            .unwrap_or(TIMELINE)
            .min(TIMELINE_MAX);
        let span = Span {
            from: PlaceToken(look.end()?),
            to,
            direction: Direction::Backward,
            limit,
        };
        let mut page = room
            .timeline(self.snapshot, self.viewer(), look, span, filter)
            .await?;
        page.events.reverse();
        Ok(page)
    }

    /// A page as the client gets it.
    pub(crate) async fn timeline(
        &self,
        room: &Room,
        look: &Look,
        page: Page,
        newly_joined: bool,
    ) -> error::Result<Timeline> {
        let first = page.events.first().and_then(|event| event.row.header.place);
        let prev_batch = match first {
            Some(first) => PlaceToken::before(first),
            None => page.next.unwrap_or(PlaceToken(look.end()?)),
        };
        Ok(Timeline {
            events: self.written(room, look, &page.events).await?,
            limited: page.next.is_some() || newly_joined,
            prev_batch: Some(prev_batch),
        })
    }

    /// Events as the client gets them.
    pub(crate) async fn written(
        &self,
        room: &Room,
        look: &Look,
        events: &[ReadEvent],
    ) -> error::Result<Vec<Box<RawValue>>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let format: EventFormat = format_of(&self.request.filter);
        let written = room
            .client_events(
                self.rooms(),
                self.snapshot,
                self.viewer(),
                look,
                events,
                format,
            )
            .await?;
        let Some(fields) = &self.request.filter.event_fields else {
            return Ok(written);
        };
        let kept = written.into_iter().map(|event| only_fields(event, fields));
        Ok(kept.collect())
    }

    /// Who types, if that changed, and receipts.
    fn ephemeral(
        &self,
        room: &Room,
        receipts: Option<Box<RawValue>>,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let cursor = self.request.since.map(|since| since.ephemeral);
        let known = cursor
            .filter(|cursor| cursor.run == self.rooms().run())
            .map(|cursor| cursor.serial);
        let typing = self.rooms().typing().in_room(room.short);
        let typing = Some(typing).filter(|typing| match known {
            Some(known) => typing.serial > known,
            None => !typing.users.is_empty(),
        });
        let typing = typing
            .map(|typing| to_raw_value(&json!({ "user_ids": typing.users })))
            .transpose()
            .map_err(error::internal)?;
        let filter = &self.request.filter.room.ephemeral;
        [("m.typing", typing), ("m.receipt", receipts)]
            .into_iter()
            .filter_map(|(kind, content)| Some((kind, content?)))
            .filter(|(kind, _)| type_passes(&filter.types, &filter.not_types, kind))
            .map(|(kind, content)| {
                let event = format!("{{\"type\":\"{kind}\",\"content\":{content}}}");
                RawValue::from_string(event).map_err(error::internal)
            })
            .collect()
    }

    /// Account data of a room that changed.
    pub(crate) fn room_account_data(
        &self,
        to_read: &RoomToRead,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.room.account_data;
        to_read
            .account_data
            .iter()
            .filter(|row| type_passes(&filter.types, &filter.not_types, &row.event_type))
            .map(account_data_event)
            .collect()
    }

    /// Global account data that changed.
    pub(crate) async fn global_account_data(
        &self,
        changes: &Changes,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.account_data;
        changes
            .account_data
            .iter()
            .filter(|row| type_passes(&filter.types, &filter.not_types, &row.event_type))
            .map(account_data_event)
            .collect()
    }
}

/// Whether a filter's lists of types let one through.
pub(crate) fn type_passes(
    types: &Option<Vec<String>>,
    not_types: &[String],
    event_type: &str,
) -> bool {
    let is = |pattern: &String| rooms::event_filter::matches(pattern, event_type);
    !not_types.iter().any(is) && types.as_ref().is_none_or(|types| types.iter().any(is))
}

/// The place of a position, for rooms whose log is read by others too.
pub(crate) async fn boundary(
    reading: &Reading<'_>,
    room: &Room,
    position: Position,
) -> error::Result<PlaceToken> {
    room.place_at(reading.snapshot, position.end_of_commit())
        .await
}
