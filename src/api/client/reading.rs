//! Reading a room: what the endpoints that do so share.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use error::Result;
use futures_util::future::try_join;
use pdu::EventNumber;
use rooms::{
    EVENTS_AT_ONCE, EventForm, EventFormat, Look, Page, PlaceToken, ReadEvent, Room, Span, Viewer,
    Wanted,
};
use ruma::{RoomId, api::Direction, events::StateEventType, serde::Raw};
use storage::{Position, Snapshot, schema::Place};
use users::Requester;

use super::message::{MessagesRequest, TimelineFilter};
use crate::Server;

/// The most events on a page.
const MOST: usize = 1_000;
/// How often history is fetched for one page, at most: so many holes are filled, or parts of one.
const FILLED_MAX: usize = 3;
/// How long who wants a page waits for other servers each time.
const PATIENCE: Duration = Duration::from_secs(30);

/// A room that somebody reads, at one moment.
pub(super) struct Reading {
    pub(super) server: Server,
    pub(super) room: Arc<Room>,
    pub(super) snapshot: Snapshot,
    pub(super) viewer: Viewer,
    pub(super) look: Look,
}

/// What lies around an event.
pub(super) struct Around {
    pub(super) before: Page,
    pub(super) after: Page,
    /// From where one goes on back in time.
    pub(super) start: PlaceToken,
    /// From where one goes on.
    pub(super) end: PlaceToken,
}

impl Reading {
    /// Begins to read a room.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the requester may see nothing of it, or it does not exist.
    pub(super) async fn begin(
        server: &Server,
        requester: &Requester,
        room_id: &RoomId,
    ) -> Result<Self> {
        let reading = Self::look(server, requester, room_id).await?;
        reading.look.root()?;
        Ok(reading)
    }

    /// The same, where single events may be seen though the room may not be.
    pub(super) async fn look(
        server: &Server,
        requester: &Requester,
        room_id: &RoomId,
    ) -> Result<Self> {
        let room = server.rooms.room(room_id).await?;
        let snapshot = server.rooms.snapshot().await?;
        let viewer = viewer(server, requester);
        let look = room.look(&snapshot, &viewer).await?;
        Ok(Self {
            server: server.clone(),
            room,
            snapshot,
            viewer,
            look,
        })
    }

    /// Begins to read a room with a page of its timeline, between the boundaries that tokens of the client
    /// name. Gives the boundary at which the page begins, too.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` as [`Reading::begin`], 400 `M_INVALID_PARAM` for tokens that are none.
    pub(super) async fn page(
        server: &Server,
        requester: &Requester,
        request: &MessagesRequest,
    ) -> Result<(Self, PlaceToken, Page)> {
        let room = server.rooms.room(&request.room_id).await?;
        let mut snapshot = server.rooms.snapshot().await?;
        let viewer = viewer(server, requester);
        let mut boundaries = [None, None];
        for (boundary, token) in boundaries.iter_mut().zip([&request.from, &request.to]) {
            if let Some(token) = token {
                *boundary = Some(boundary_of(&room, &snapshot, token).await?);
            }
        }
        let [from, to] = boundaries;
        let filter = &request.filter.plain;
        let limit = filter.limit.unwrap_or(request.limit);
        let limit = usize::try_from(u64::from(limit.min(request.limit)));
        let wanted = Wanted {
            to,
            direction: request.dir,
            limit: limit.unwrap_or(MOST).clamp(1, MOST),
            filter,
            relations: Some((&server.rooms, &request.filter.relations)),
        };
        let (mut look, start, mut page) =
            room.look_at_page(&snapshot, &viewer, from, &wanted).await?;
        for _ in 0..FILLED_MAX {
            let Some(filled) = fill(server, &room, &page, &wanted).await else {
                break;
            };
            // Also where nothing came: that may have taken longer than a view is kept.
            snapshot = server.rooms.snapshot().await?;
            let again = room.look_at_page(&snapshot, &viewer, Some(start), &wanted);
            (look, _, page) = again.await?;
            if !filled {
                break;
            }
        }
        let reading = Self {
            server: server.clone(),
            room,
            snapshot,
            viewer,
            look,
        };
        Ok((reading, start, page))
    }

    /// What lies around the event at a place, as far as the filter wants it: so many events before it, latest
    /// first, and so many after it.
    pub(super) async fn around(
        &self,
        place: Place,
        [before, after]: [usize; 2],
        filter: &TimelineFilter,
    ) -> Result<Around> {
        let relations = Some((&self.server.rooms, &filter.relations));
        let page = |from, direction, limit| {
            let span = Span {
                from,
                to: None,
                direction,
                limit,
            };
            let (room, filter) = (&self.room, &filter.plain);
            room.timeline(
                &self.snapshot,
                &self.viewer,
                &self.look,
                span,
                filter,
                relations,
            )
        };
        let before = page(PlaceToken::before(place), Direction::Backward, before);
        let after = page(PlaceToken(place), Direction::Forward, after);
        let (before, after) = try_join(before, after).await?;
        let end_of = |page: &Page, boundary: fn(Place) -> PlaceToken| {
            let last = page.events.last().and_then(|event| event.row.header.place);
            page.next.unwrap_or(boundary(last.unwrap_or(place)))
        };
        Ok(Around {
            start: end_of(&before, PlaceToken::before),
            end: end_of(&after, PlaceToken),
            before,
            after,
        })
    }

    /// The boundary in the timeline that a token of the client names.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for a token that is none.
    pub(super) async fn boundary(&self, token: &str) -> Result<PlaceToken> {
        boundary_of(&self.room, &self.snapshot, token).await
    }

    /// The event nearest to a time that the viewer may see, among those that are here.
    pub(super) async fn nearest_in_time(
        &self,
        time: u64,
        direction: Direction,
    ) -> Result<Option<ReadEvent>> {
        let (room, snapshot) = (&self.room, &self.snapshot);
        room.nearest_in_time(snapshot, &self.viewer, &self.look, time, direction)
            .await
    }

    /// Events of the timeline as the client gets them, with what relates to them.
    pub(super) async fn events<T>(&self, events: &[ReadEvent]) -> Result<Vec<Raw<T>>> {
        let form = EventForm {
            format: EventFormat::Client,
            timeline: true,
        };
        let Self {
            server,
            room,
            snapshot,
            viewer,
            look,
        } = self;
        let written = room.client_events(&server.rooms, snapshot, viewer, look, events, form);
        Ok(written.await?.into_iter().map(Raw::from_json).collect())
    }

    /// Events of the state as the client gets them.
    pub(super) async fn state<T>(&self, events: &[ReadEvent]) -> Result<Vec<Raw<T>>> {
        let Self {
            server,
            room,
            snapshot,
            viewer,
            look,
        } = self;
        let format = EventFormat::Client;
        let written = room.client_state(&server.rooms, snapshot, viewer, look, events, format);
        Ok(written.await?.into_iter().map(Raw::from_json).collect())
    }

    /// State events by their numbers, those that are wanted, as the client gets them. Written as they are read:
    /// there may be very many.
    pub(super) async fn state_of<T>(
        &self,
        numbers: &[EventNumber],
        wanted: impl Fn(&ReadEvent) -> bool,
    ) -> Result<Vec<Raw<T>>> {
        let mut written = Vec::with_capacity(numbers.len());
        for numbers in numbers.chunks(EVENTS_AT_ONCE) {
            let events = self.room.read_state_events(&self.snapshot, numbers);
            let mut events = events.await?;
            events.retain(&wanted);
            written.extend(self.state(&events).await?);
        }
        Ok(written)
    }

    /// The numbers of the events of a root's state.
    pub(super) async fn state_numbers(&self, root: [u8; 16]) -> Result<Vec<EventNumber>> {
        let (rooms, snapshot) = (&self.server.rooms, &self.snapshot);
        self.room
            .state_numbers_at(rooms, snapshot, &self.look, root)
            .await
    }

    /// The root of the state at a token of a client, as far as the viewer may see it.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM`.
    pub(super) async fn root_at(&self, token: &str) -> Result<[u8; 16]> {
        let own = self.look.root()?;
        let end = PlaceToken(self.look.end()?);
        let (boundary, root) = match token.parse::<PlaceToken>() {
            Ok(boundary) => {
                let root = match self.room.root_at_place(&self.snapshot, boundary).await? {
                    None => self.room.opening_root(&self.snapshot).await?,
                    root => root,
                };
                (boundary, root)
            }
            Err(_) => {
                let position = position_of(token)?;
                let root = self.room.root_at(&self.snapshot, position).await?;
                let boundary = self.room.place_at(&self.snapshot, position).await?;
                (boundary, root)
            }
        };
        // Who left sees no state after that.
        let seen = self.look.until.is_none() || boundary <= end;
        Ok(root.filter(|_| seen).unwrap_or(own))
    }

    /// The member events of the senders of some events, in the state of `root`.
    pub(super) async fn senders(
        &self,
        root: [u8; 16],
        events: &[ReadEvent],
    ) -> Result<Vec<ReadEvent>> {
        let senders: BTreeSet<_> = events
            .iter()
            .map(|event| event.row.header.sender.clone())
            .collect();
        let keys: Vec<_> = senders
            .into_iter()
            .map(|sender| (StateEventType::RoomMember, sender))
            .collect();
        let found = self.room.find_state(&self.snapshot, &[root], &keys).await?;
        let mut numbers: Vec<_> = found.into_values().collect();
        numbers.sort_unstable();
        let members = self.room.read_state(&self.snapshot, &numbers).await?;
        Ok(members.into_iter().flatten().collect())
    }
}

/// Fetches the events that a page back in time lacks, from other servers. Whether anything has come; none if it lacks
/// nothing.
async fn fill(server: &Server, room: &Arc<Room>, page: &Page, wanted: &Wanted<'_>) -> Option<bool> {
    if wanted.direction != Direction::Backward {
        return None;
    }
    let short = page.events.len() < wanted.limit;
    let at = page.from_gap.or(page.gap.filter(|_| short))?;
    let filled = tokio::time::timeout(PATIENCE, server.rooms.backfill(room, at)).await;
    Some(filled.is_ok_and(|filled| {
        filled.unwrap_or_else(|error| {
            tracing::error!(%error, room = %room.room_id, "history cannot be taken in");
            false
        })
    }))
}

/// Who reads.
pub(super) fn viewer(server: &Server, requester: &Requester) -> Viewer {
    let (user, device) = (requester.user_id.as_str(), requester.device_name());
    Viewer {
        user_id: requester.user_id.clone(),
        short: requester.user,
        device: server.storage.user_device_hash(user, device),
    }
}

/// The boundary in the timeline that a token of a client names: one of `/messages` or of `/sync`.
async fn boundary_of(room: &Room, snapshot: &Snapshot, token: &str) -> Result<PlaceToken> {
    if let Ok(place) = token.parse() {
        return Ok(place);
    }
    room.place_at(snapshot, position_of(token)?).await
}

fn position_of(token: &str) -> Result<Position> {
    token
        .parse()
        .map(|token: sync::Token| token.position)
        .map_err(|_| error::invalid_param("This is no token that this server has given out"))
}
