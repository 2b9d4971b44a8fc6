//! What changed in the rooms that a user is in.

use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use rooms::{
    EventForm, Look, PlaceToken, ReadEvent, RelationFilter, Room, Unread, event_filter::wants_room,
};
use serde_json::{json, value::RawValue};
use storage::schema::{AccountDataRow, Membership};

use crate::{
    Reading,
    changes::{ChangedRoom, Changes},
    fields::only_fields,
    log::{self, Part, RoomLog},
    state::Needed,
    timeline::Shown,
    update::{Joined, Met, Summary, Timeline},
    wants::type_passes,
};

/// Rooms that are read at once.
const ROOMS_AT_ONCE: usize = 200;

/// What the log of a room tells.
#[derive(Debug, Default)]
struct OfLog {
    timeline: Timeline,
    state: Vec<Box<RawValue>>,
    summary: Option<Summary>,
    met: Met,
    /// The device is not told of the room yet.
    hidden: bool,
}

impl Reading<'_> {
    /// What changed in the joined rooms.
    pub(crate) async fn joined(&self, changes: &Changes) -> error::Result<Vec<Joined>> {
        let rooms: Vec<_> = changes
            .rooms
            .iter()
            .filter(|room| room.row.value.membership == Membership::Join)
            .collect();
        let (told, receipts, unread) = tokio::try_join!(
            self.read_logs(&rooms, changes),
            self.receipts(&rooms),
            self.unread(&rooms)
        )?;
        let parts = rooms.into_iter().zip(told).zip(receipts).zip(unread);
        parts
            .filter(|(((_, told), _), _)| !told.hidden)
            .map(|(((changed, told), receipts), unread)| {
                Ok(Joined {
                    room: Arc::clone(&changed.room),
                    timeline: told.timeline,
                    state: told.state,
                    summary: told.summary,
                    unread,
                    ephemeral: self.ephemeral(changed, receipts)?,
                    account_data: Vec::new(),
                    counts_changed: changed.read,
                    met: told.met,
                })
            })
            .collect()
    }

    /// What the logs tell of the rooms that have something new in them, in their order.
    async fn read_logs(
        &self,
        rooms: &[&ChangedRoom],
        changes: &Changes,
    ) -> error::Result<Vec<OfLog>> {
        let logs = self.logs(rooms).await?;
        let mut reading: Vec<BoxFuture<'_, error::Result<OfLog>>> = Vec::new();
        for (changed, log) in rooms.iter().zip(logs) {
            reading.push(match log {
                Some(log) => Box::pin(self.events(changed, log, changes)),
                None => Box::pin(std::future::ready(Ok(OfLog::default()))),
            });
        }
        some_at_once(reading).await
    }

    /// The logs of the rooms that have something new in them.
    async fn logs(&self, rooms: &[&ChangedRoom]) -> error::Result<Vec<Option<RoomLog>>> {
        let wanted = rooms.iter().filter(|changed| changed.log);
        let parts: Vec<_> = wanted
            .map(|changed| {
                self.name_ahead(&changed.room);
                (changed.room.short, self.part(None))
            })
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

    /// Timeline, state and summary of a room whose log went on.
    async fn events(
        &self,
        changed: &ChangedRoom,
        mut log: RoomLog,
        changes: &Changes,
    ) -> error::Result<OfLog> {
        let room = &changed.room;
        // MSC3902: who wants all members is told of a room when they are known, as of one that is new.
        let filter = &self.request.filter.room.state;
        let eager = filter.lazy_load_options.is_disabled();
        if eager && log.head.partial {
            return Ok(OfLog {
                hidden: true,
                ..OfLog::default()
            });
        }
        let known = match self.since() {
            Some(_) if eager && log.was_partial() => false,
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
                return Ok(OfLog::default());
            };
            log = whole;
        }
        let met = Met {
            room_is_new: !known,
            generation: log.head.generation,
            members: log.changed_members().map(ToOwned::to_owned).collect(),
        };
        let look = Look {
            head: log.head.clone(),
            row: Some(changed.row.value.clone()),
            until: None,
        };
        let whole = !known || self.request.full_state;
        let summarised = whole || log.touches_summary();
        if !whole {
            self.read_ahead(room, &log);
        }
        let summary = async {
            match summarised {
                true => self.summary(room, &look).await.map(Some),
                false => Ok(None),
            }
        };
        let shown = self.shown(room, &look, &mut log, &changes.ignored);
        let (mut shown, summary) = tokio::try_join!(shown, summary)?;
        if !known {
            // NOTSPEC: limited, even if it begins with the room: what the device has does not lead up to it.
            shown.limited |= again || !log.begins_with_create();
        }
        let heroes: Vec<String> = summary
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
        let state = self.state(&mut log, &needed);
        let (state, timeline) = tokio::try_join!(state, self.timeline(room, &look, &shown))?;
        Ok(OfLog {
            timeline,
            state,
            summary,
            met,
            hidden: false,
        })
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
        shown: &Shown,
    ) -> error::Result<Timeline> {
        // Without a gap before the events, what relates to them is among them, or was told before.
        let filter = &self.request.filter.room.timeline;
        let related = shown.limited
            || filter.types.is_some()
            || !filter.not_types.is_empty()
            || self.request.relations != RelationFilter::default()
            || shown.events.iter().any(ReadEvent::relates);
        let prev_batch = match shown.before {
            Some(before) => before,
            None => look.end().map(PlaceToken)?,
        };
        Ok(Timeline {
            events: self.written(room, look, &shown.events, related).await?,
            limited: shown.limited,
            prev_batch: Some(prev_batch),
        })
    }

    /// Events as the client gets them, those of a `timeline` as such.
    pub(crate) async fn written(
        &self,
        room: &Room,
        look: &Look,
        events: &[ReadEvent],
        timeline: bool,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let form = EventForm {
            format: self.request.format(),
            timeline,
        };
        let (rooms, viewer) = (self.rooms(), self.viewer());
        let written = room.client_events(rooms, self.snapshot, viewer, look, events, form);
        Ok(self.with_fields(written.await?))
    }

    /// State events as the client gets them.
    pub(crate) async fn written_state(
        &self,
        room: &Room,
        look: &Look,
        events: &[ReadEvent],
    ) -> error::Result<Vec<Box<RawValue>>> {
        let (rooms, viewer) = (self.rooms(), self.viewer());
        let format = self.request.format();
        let written = room.client_state(rooms, self.snapshot, viewer, look, events, format);
        Ok(self.with_fields(written.await?))
    }

    fn with_fields(&self, events: Vec<Box<RawValue>>) -> Vec<Box<RawValue>> {
        let Some(fields) = &self.request.filter.event_fields else {
            return events;
        };
        let kept = events.into_iter().map(|event| only_fields(event, fields));
        kept.collect()
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
            .map(|row| users::account_data_event(&row.event_type, &row.json))
            .collect()
    }

    /// Global account data that changed.
    pub(crate) fn global_account_data(
        &self,
        rows: &[AccountDataRow],
    ) -> error::Result<Vec<Box<RawValue>>> {
        let filter = &self.request.filter.account_data;
        rows.iter()
            .filter(|row| type_passes(filter.types.as_deref(), &filter.not_types, &row.event_type))
            .map(|row| users::account_data_event(&row.event_type, &row.json))
            .collect()
    }
}

/// Reads rooms, some at once, in their order.
pub(crate) async fn some_at_once<T>(
    rooms: Vec<BoxFuture<'_, error::Result<T>>>,
) -> error::Result<Vec<T>> {
    stream::iter(rooms)
        .buffered(ROOMS_AT_ONCE)
        .try_collect()
        .await
}
