//! What people of this server do that is kept in memory only, or is not worth more, and who is newly to be told of
//! it: for who tells other servers. Nobody has to listen, and who does not keep up misses some of it.

use ruma::{OwnedEventId, OwnedServerName, OwnedUserId};
use storage::{ShortRoomId, ShortUserId};
use tokio::sync::broadcast;

/// So many doings are kept for who listens.
const KEPT_MAX: usize = 8_192;

/// Something that a person of ours does, or that makes somebody want to know how they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// They begin to type in a room, or go on, or cease to.
    Types {
        /// The room.
        room: ShortRoomId,
        /// Who.
        user: OwnedUserId,
        /// Whether they are typing now.
        typing: bool,
    },
    /// They have read up to an event, and everybody may know.
    Reads {
        /// The room.
        room: ShortRoomId,
        /// Who.
        user: OwnedUserId,
        /// The event.
        event_id: OwnedEventId,
        /// `main`, or the root of a thread; none for all of the room.
        thread: Option<String>,
        /// When, in milliseconds since 1970.
        ts: u64,
    },
    /// They come, go, or say how they are.
    IsThere(ShortUserId),
    /// They came into a room while they are there.
    Joins {
        /// The room.
        room: ShortRoomId,
        /// Who.
        user: ShortUserId,
    },
    /// Somebody came into a room who is the first of their server there.
    ServerJoins {
        /// The room.
        room: ShortRoomId,
        /// The server.
        server: OwnedServerName,
    },
}

/// Where doings are told. Clones are the same place.
#[derive(Clone, Debug)]
pub(crate) struct Doings(broadcast::Sender<Doing>);

impl Default for Doings {
    fn default() -> Self {
        Self(broadcast::Sender::new(KEPT_MAX))
    }
}

impl Doings {
    pub(crate) fn tell(&self, doing: Doing) {
        // An error says that nobody listens.
        let _ = self.0.send(doing);
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Doing> {
        self.0.subscribe()
    }
}
