//! What changed in the rooms that a user is in.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use rooms::{EventForm, Look, PlaceToken, ReadEvent, Room, Unread, event_filter::wants_room};
use serde_json::{json, value::RawValue};
use storage::schema::{AccountDataRow, Membership};

use crate::{
    Reading,
    changes::{ChangedRoom, Changes},
    fields::only_fields,
    log::{self, Part, RoomLog},
    state::Needed,
    timeline::Shown,
    update::{Joined, Met, Timeline},
    wants::type_passes,
};

/// Rooms that are read at once.
const ROOMS_AT_ONCE: usize = 16;

/// What is read of all rooms together.
struct OfRoom<'a> {
    changed: &'a ChangedRoom,
    log: Option<RoomLog>,
    receipts: Option<Box<RawValue>>,
    unread: Unread,
}

impl Reading<'_> {
    /// What changed in the joined rooms.
    pub(crate) async fn joined(&self, changes: &Changes) -> error::Result<Vec<Joined>> {
        let rooms: Vec<_> = changes
            .rooms
            .iter()
            .filter(|room| room.row.value.membership == Membership::Join)
            .collect();
        let (logs, receipts, unread) = tokio::try_join!(
            self.logs(&rooms),
            self.receipts(&rooms),
            self.unread(&rooms)
        )?;
        let parts = rooms.into_iter().zip(logs).zip(receipts).zip(unread);
        let mut reading: Vec<BoxFuture<'_, error::Result<Option<Joined>>>> = Vec::new();
        for (((changed, log), receipts), unread) in parts {
            let of_room = OfRoom {
                changed,
                log,
                receipts,
                unread,
            };
            reading.push(Box::pin(self.joined_room(of_room, changes)));
        }
        some_at_once(reading).await
    }

    /// The logs of the rooms that have something new in them.
    async fn logs(&self, rooms: &[&ChangedRoom]) -> error::Result<Vec<Option<RoomLog>>> {
        let wanted = rooms.iter().filter(|changed| changed.log);
        let parts: Vec<_> = wanted
            .map(|changed| (changed.room.short, self.part(None)))
            .collect();
        let mut logs = log::read(self.snapshot, &parts).await?.into_iter();
        let of = |changed: &&ChangedRoom| match changed.log {
            true => logs.next().flatten(),
            false => None,
        };
        Ok(rooms.iter().map(of).collect())
    }

    /// The part of a log that is news for the device, up to now or to an end.
    pub(crate) fn part(&self, end: Option<storage::Position>) -> Part {
        Part {
            since: self.since(),
            end: end.unwrap_or(self.snapshot.position()),
            limit: self.request.timeline_limit(),
        }
    }

    async fn receipts(&self, rooms: &[&ChangedRoom]) -> error::Result<Vec<Option<Box<RawValue>>>> {
        let filter = &self.request.filter.room.ephemeral;
        if !type_passes(filter.types.as_deref(), &filter.not_types, "m.receipt") {
            return Ok(rooms.iter().map(|_| None).collect());
        }
        let asked: Vec<_> = rooms
            .iter()
            .filter(|changed| changed.receipts || changed.read)
            .map(|changed| {
                // Who may be new in the room gets all.
                let since = self.since().filter(|since| changed.row.position <= *since);
                (Arc::clone(&changed.room), since)
            })
            .collect();
        let found = self.rooms().receipts(self.snapshot, self.viewer(), &asked);
        let mut found = found.await?.into_iter();
        let of = |changed: &&ChangedRoom| match changed.receipts || changed.read {
            true => found.next().flatten(),
            false => None,
        };
        Ok(rooms.iter().map(of).collect())
    }

    async fn unread(&self, rooms: &[&ChangedRoom]) -> error::Result<Vec<Unread>> {
        let rooms: Vec<_> = rooms
            .iter()
            .map(|changed| Arc::clone(&changed.room))
            .collect();
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        self.rooms()
            .unread(self.snapshot, self.viewer(), &rooms)
            .await
    }

    async fn joined_room(
        &self,
        of_room: OfRoom<'_>,
        changes: &Changes,
    ) -> error::Result<Option<Joined>> {
        let changed = of_room.changed;
        let room = &changed.room;
        let mut joined = Joined {
            room: Arc::clone(room),
            timeline: Timeline::default(),
            state: Vec::new(),
            summary: None,
            unread: of_room.unread,
            ephemeral: self.ephemeral(changed, of_room.receipts)?,
            account_data: self.room_account_data(room, &changed.account_data)?,
            counts_changed: changed.read,
            met: Met::default(),
        };
        if let Some(log) = of_room.log {
            self.events(&mut joined, changed, log, changes).await?;
        }
        Ok(Some(joined).filter(|joined| !joined.is_empty()))
    }

    /// Timeline, state and summary of a room whose log went on.
    async fn events(
        &self,
        joined: &mut Joined,
        changed: &ChangedRoom,
        mut log: RoomLog,
        changes: &Changes,
    ) -> error::Result<()> {
        let room = &changed.room;
        let known = match self.since() {
            None => false,
            Some(since) if changed.row.position <= since => true,
            Some(_) => self.was_joined(room, log.root).await?,
        };
        // Where the device may have a piece of the timeline from before its user left.
        let again = !known && log.root.is_some();
        if !known && self.since().is_some() {
            // New to the device: what happened before its token is news too.
            let part = Part {
                since: None,
                ..self.part(None)
            };
            let again = log::read(self.snapshot, &[(room.short, part)]).await?;
            let Some(whole) = again.into_iter().flatten().next() else {
                return Ok(());
            };
            log = whole;
        }
        joined.met = Met {
            room_is_new: !known,
            generation: log.head.generation,
            members: log.changed_members().map(ToOwned::to_owned).collect(),
        };
        let look = Look {
            head: log.head.clone(),
            row: Some(changed.row.value.clone()),
            until: None,
        };
        let mut shown = self.shown(room, &look, &mut log, &changes.ignored).await?;
        if !known {
            // NOTSPEC: limited, even if it begins with the room: what the device has does not lead up to it.
            shown.limited |= again || !log.begins_with_create();
        }
        let whole = !known || self.request.full_state;
        if whole || log.touches_summary() {
            joined.summary = Some(self.summary(room, &look).await?);
        }
        let heroes: Vec<String> = joined
            .summary
            .iter()
            .filter_map(|summary| summary.heroes.as_ref())
            .flatten()
            .map(ToString::to_string)
            .collect();
        let needed = Needed {
            room,
            look: &look,
            shown: &shown,
            whole,
            current: true,
            heroes: &heroes,
        };
        let state = self.state(&mut log, &needed).await?;
        joined.state = self.written(room, &look, &state, false).await?;
        joined.timeline = self.timeline(room, &look, shown).await?;
        Ok(())
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

    /// A timeline as the client gets it.
    pub(crate) async fn timeline(
        &self,
        room: &Room,
        look: &Look,
        shown: Shown,
    ) -> error::Result<Timeline> {
        // Without a gap before the events, what relates to them is among them, or was told before.
        let filter = &self.request.filter.room.timeline;
        let related = shown.limited
            || filter.types.is_some()
            || !filter.not_types.is_empty()
            || shown.events.iter().any(ReadEvent::relates);
        let end = || look.end().map(PlaceToken);
        let prev_batch = match shown.before {
            Some(before) => before,
            None => end()?,
        };
        Ok(Timeline {
            events: self.written(room, look, &shown.events, related).await?,
            limited: shown.limited,
            prev_batch: Some(prev_batch),
        })
    }

    /// Events as the client gets them, those of a timeline with what relates to them.
    pub(crate) async fn written(
        &self,
        room: &Room,
        look: &Look,
        events: &[ReadEvent],
        relations: bool,
    ) -> error::Result<Vec<Box<RawValue>>> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let form = EventForm {
            format: self.request.format(),
            relations,
        };
        let (rooms, viewer) = (self.rooms(), self.viewer());
        let written = room
            .client_events(rooms, self.snapshot, viewer, look, events, form)
            .await?;
        let Some(fields) = &self.request.filter.event_fields else {
            return Ok(written);
        };
        let kept = written.into_iter().map(|event| only_fields(event, fields));
        Ok(kept.collect())
    }

    /// Who types, and receipts, as far as they changed.
    fn ephemeral(
        &self,
        changed: &ChangedRoom,
        receipts: Option<Box<RawValue>>,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.room.ephemeral;
        if !wants_room(filter, &changed.room.room_id) {
            return Ok(Vec::new());
        }
        let typing = changed.typing.as_ref().map(|typing| {
            let content = json!({ "user_ids": typing.users });
            ("m.typing", content.to_string())
        });
        let receipts = receipts.map(|content| ("m.receipt", content.get().to_owned()));
        typing
            .into_iter()
            .chain(receipts)
            .map(|(kind, content)| {
                let event = format!("{{\"type\":\"{kind}\",\"content\":{content}}}");
                RawValue::from_string(event).map_err(error::internal)
            })
            .collect()
    }

    /// Account data of a room that changed.
    pub(crate) fn room_account_data(
        &self,
        room: &Room,
        rows: &[AccountDataRow],
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.room.account_data;
        if !wants_room(filter, &room.room_id) {
            return Ok(Vec::new());
        }
        rows.iter()
            .filter(|row| type_passes(filter.types.as_deref(), &filter.not_types, &row.event_type))
            .map(account_data_event)
            .collect()
    }

    /// Global account data that changed.
    pub(crate) fn global_account_data(
        &self,
        changes: &Changes,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.account_data;
        changes
            .account_data
            .iter()
            .filter(|row| type_passes(filter.types.as_deref(), &filter.not_types, &row.event_type))
            .map(account_data_event)
            .collect()
    }
}

/// Reads rooms, some at once, in their order.
pub(crate) async fn some_at_once<T>(
    rooms: Vec<BoxFuture<'_, error::Result<Option<T>>>>,
) -> error::Result<Vec<T>> {
    let found: Vec<Option<T>> = stream::iter(rooms)
        .buffered(ROOMS_AT_ONCE)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Account data as an event.
fn account_data_event(row: &AccountDataRow) -> error::Result<Box<RawValue>> {
    let event_type = serde_json::to_string(&row.event_type).map_err(error::internal)?;
    let event = format!("{{\"type\":{event_type},\"content\":{}}}", row.json);
    RawValue::from_string(event).map_err(error::internal)
}
