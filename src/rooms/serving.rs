//! What other servers ask of the rooms they are in: events, the graph around them, the state at them
//! ([spec]).
//!
//! A server gets what its people may see by the history visibility at each event, and of other events a
//! redacted copy, which holds the graph together. Who is not in the room gets nothing, and nobody gets an
//! event of another room than the one they name.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events

mod nearest;
mod sight;
mod state;
mod walk;

use std::sync::Arc;

pub use self::state::ServedState;
use bytes::Bytes;
use ruma::{EventId, OwnedEventId, OwnedServerName, RoomId, ServerName};
use storage::{
    NameHash, Reads, Snapshot,
    schema::{self, Generation},
};

use crate::{Room, Rooms, ServerAcl, StoredEvent, server_acl::denied, writer::GraphEvent};

/// A room as it is served to another server that is in it, at one moment.
#[derive(Clone, Debug)]
pub struct Serving {
    rooms: Rooms,
    room: Arc<Room>,
    snapshot: Snapshot,
    generation: Generation,
    /// Not all of the room's state is known here (MSC3902).
    partial: bool,
    /// Who asks.
    server: OwnedServerName,
    server_hash: NameHash,
}

impl Rooms {
    /// Begins to serve a room to a server. Three round trips.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if the server is not in the room, its access control list denies it, or there is no
    /// such room here: that is told only to those who are in it.
    pub async fn serving(&self, server: &ServerName, room_id: &RoomId) -> error::Result<Serving> {
        let room = self.find_room(room_id).await?.ok_or_else(not_there)?;
        let snapshot = self.snapshot().await?;
        let acl = ServerAcl::key();
        let keys = std::slice::from_ref(&acl);
        let (head, numbers) = room.current_numbers(self, &snapshot, keys).await?;
        let server_hash = self.storage().server_hash(server);
        let numbers: Vec<_> = numbers.into_iter().flatten().collect();
        let mut reads = Reads::new();
        let key = (room.short, head.generation, server_hash);
        let joined = reads.get(&schema::SERVER_BY_ROOM, &key);
        let keys: Vec<_> = numbers.iter().map(|one| (room.short, *one)).collect();
        let acl = reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        let answers = snapshot.read(&reads).await?;
        if answers
            .one(&joined)?
            .is_none_or(|row| row.value.joined == 0)
        {
            return Err(not_there());
        }
        for (number, row) in numbers.into_iter().zip(answers.all(&acl)?) {
            let Some(row) = row else { continue };
            let event = StoredEvent::from_row(number, row.value, room.rules, false)?;
            if !ServerAcl::of(event.pdu.content_bytes()).allows(server) {
                return Err(denied());
            }
        }
        Ok(Serving {
            rooms: self.clone(),
            room,
            snapshot,
            generation: head.generation,
            partial: head.partial,
            server: server.to_owned(),
            server_hash,
        })
    }

    /// An event as a server gets it that may not see more of it, by its id alone
    /// ([`GET /event/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1eventeventid)).
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if it is not here; 403 `M_FORBIDDEN` as [`Rooms::serving`].
    pub async fn serve_event(
        &self,
        server: &ServerName,
        event_id: &EventId,
    ) -> error::Result<Bytes> {
        let room = self.find_room_of_event(event_id).await?;
        let room = room.ok_or_else(unknown_event)?;
        let serving = self.serving(server, &room.room_id).await?;
        let event = serving.find(&[event_id.to_owned()]).await?.pop().flatten();
        let event = event.filter(is_served).ok_or_else(unknown_event)?;
        let events = serving.as_served(&[event]).await?;
        events.into_iter().next().ok_or_else(unknown_event)
    }
}

/// An outlier is served only as what servers in the room are told of its state anyway.
fn is_served(event: &GraphEvent) -> bool {
    event.roots.is_some() || event.event.header.state_key.is_some()
}

fn not_there() -> error::Error {
    error::forbidden("Your server is not in this room, or it does not exist")
}

fn unknown_event() -> error::Error {
    error::not_found("This event is not known here")
}

impl Serving {
    /// Events of this room by their ids, in their order. Two round trips.
    async fn find(&self, ids: &[OwnedEventId]) -> error::Result<Vec<Option<GraphEvent>>> {
        let Self {
            rooms, snapshot, ..
        } = self;
        self.room.graph_events(rooms, snapshot, ids).await
    }

    /// Events as the server gets them, in their order: redacted where it may not see them.
    async fn as_served(&self, events: &[GraphEvent]) -> error::Result<Vec<Bytes>> {
        let seen = self.may_see(events).await?;
        events
            .iter()
            .zip(seen)
            .map(|(event, seen)| {
                let pdu = &event.event.pdu;
                if seen {
                    return Ok(pdu.json().clone());
                }
                let pdu = pdu.redacted(self.room.rules).map_err(error::internal)?;
                Ok(pdu.json().clone())
            })
            .collect()
    }

    /// An event that the server names and may see, with the states around it if they are known.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if it is not an event of this room, 403 `M_FORBIDDEN` if the server may not see it.
    async fn named(&self, event_id: &EventId) -> error::Result<GraphEvent> {
        let found = self.find(&[event_id.to_owned()]).await?.pop().flatten();
        let event = found.filter(is_served).ok_or_else(unknown_event)?;
        if self.may_see(std::slice::from_ref(&event)).await? == [true] {
            Ok(event)
        } else {
            Err(error::forbidden("Your server may not see this event"))
        }
    }
}
