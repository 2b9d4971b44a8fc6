//! Reading a room: what the endpoints that do so share.

use std::{collections::BTreeSet, sync::Arc};

use error::Result;
use rooms::{EventFormat, Look, PlaceToken, ReadEvent, Room, Viewer};
use ruma::{RoomId, events::StateEventType, serde::Raw};
use storage::{Position, Snapshot};
use users::Requester;

use crate::Server;

/// A room that somebody reads, at one moment.
pub(super) struct Reading {
    pub(super) server: Server,
    pub(super) room: Arc<Room>,
    pub(super) snapshot: Snapshot,
    pub(super) viewer: Viewer,
    pub(super) look: Look,
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

    /// Events as the client gets them.
    pub(super) async fn events<T>(&self, events: &[ReadEvent]) -> Result<Vec<Raw<T>>> {
        let written = self
            .room
            .client_events(
                &self.server.rooms,
                &self.snapshot,
                &self.viewer,
                &self.look,
                events,
                EventFormat::Client,
            )
            .await?;
        Ok(written.into_iter().map(Raw::from_json).collect())
    }

    /// The boundary in the timeline that a token of a client names: one of `/messages` or of `/sync`.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM`.
    pub(super) async fn boundary(&self, token: &str) -> Result<PlaceToken> {
        if let Ok(place) = token.parse() {
            return Ok(place);
        }
        let position = position_of(token)?;
        self.room.place_at(&self.snapshot, position).await
    }

    /// The root of the state at a token of a client, as far as the viewer may see it.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM`.
    pub(super) async fn root_at(&self, token: &str) -> Result<[u8; 16]> {
        let own = self.look.root()?;
        if !self.look.is_joined() {
            return Ok(own);
        }
        if let Ok(place) = token.parse::<PlaceToken>() {
            let at = self.room.last_event(&self.snapshot, place).await?;
            return Ok(at.map_or(own, |event| event.roots.after));
        }
        let position = position_of(token)?;
        let root = self.room.root_at(&self.snapshot, position).await?;
        Ok(root.unwrap_or(own))
    }

    /// The member events of the senders of some events, in the state of `root`.
    pub(super) async fn senders(
        &self,
        root: [u8; 16],
        events: &[&ReadEvent],
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
        let members = self.room.read_events(&self.snapshot, &numbers).await?;
        Ok(members.into_iter().flatten().collect())
    }
}

/// Who reads.
pub(super) fn viewer(server: &Server, requester: &Requester) -> Viewer {
    let (user, device) = (requester.user_id.as_str(), requester.device_id.as_str());
    Viewer {
        user_id: requester.user_id.clone(),
        short: requester.user,
        device: server.storage.user_device_hash(user, device),
    }
}

fn position_of(token: &str) -> Result<Position> {
    token
        .parse()
        .map(|token: sync::Token| token.position)
        .map_err(|_| error::invalid_param("This is no token that this server has given out"))
}
