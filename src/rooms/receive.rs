//! Receiving events of other servers.
//!
//! Checks 1 to 3 on receipt of a PDU (its form, its signatures, its hashes) are done by who has fetched the
//! keys; the rest of them is [`judged`](crate::writer) by the room's writer, in the specification's order
//! ([spec]), and what passes is accepted like an event of our own.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu

use std::sync::Arc;

use pdu::{Pdu, PolicyServer};
use ruma::OwnedEventId;
use storage::schema::Place;

use crate::{Room, Rooms, writer::Way};

/// An event of another server, well formed, its signatures and hashes checked.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// How it stands to the timeline.
    pub standing: Standing,
}

impl Incoming {
    /// An event that happened now, as far as we know.
    pub fn live(pdu: Arc<Pdu>) -> Self {
        Self {
            pdu,
            standing: Standing::Live { state_before: None },
        }
    }
}

/// How an event that comes in stands to the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It happened now. `state_before` names the state before it, for one that follows events we lack.
    Live {
        /// All events of the state before it, if its prev events do not tell.
        state_before: Option<Vec<OwnedEventId>>,
    },
    /// It is only needed as somebody's auth event or state.
    Outlier,
    /// It happened before what is here, and was found later.
    Historic {
        /// Where it goes in the timeline: before the live event of the place's slot.
        place: Place,
        /// The hole in the timeline that it fills, if it was looked for there.
        fills: Option<Place>,
        /// All events of the state before it, if its prev events do not tell.
        state_before: Option<Vec<OwnedEventId>>,
    },
}

/// What became of an event that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// It passed all checks.
    Accepted,
    /// The state before it allows it, the current state does not: kept out of sight.
    SoftFailed(String),
    /// It is not allowed.
    Rejected(String),
    /// It is here already.
    Known,
    /// It cannot be judged without these events, which have to be received first.
    Missing {
        /// Of its auth events, and of the state it was given.
        auth: Vec<OwnedEventId>,
        /// Of its prev events.
        prev: Vec<OwnedEventId>,
    },
    /// This policy server of the room has to sign it first, or to say that it does not.
    ToSign(Box<PolicyServer>),
}

impl Rooms {
    /// Receives an event of another server into a room that this server knows. Receiving the same one
    /// again changes nothing.
    ///
    /// # Errors
    ///
    /// Storage fails, or the event cannot be stored.
    pub async fn receive(&self, room: &Arc<Room>, incoming: Incoming) -> error::Result<Received> {
        self.receive_one(room, incoming, Way::Heard).await
    }

    /// Receives events of another server that wait together, in their order, as [`Rooms::receive`] does each of
    /// them: in as few commits as hold them.
    ///
    /// # Errors
    ///
    /// As [`Rooms::receive`]; some may have been received.
    pub async fn receive_all(
        &self,
        room: &Arc<Room>,
        incoming: Vec<Incoming>,
    ) -> error::Result<Vec<Received>> {
        let incoming = incoming.into_iter().map(|one| (one, Way::Heard));
        let writer = self.writer(room);
        writer.receive_each(self, incoming.collect()).await
    }

    pub(crate) async fn receive_one(
        &self,
        room: &Arc<Room>,
        incoming: Incoming,
        way: Way,
    ) -> error::Result<Received> {
        let writer = self.writer(room);
        let received = writer.receive_each(self, vec![(incoming, way)]).await?;
        let received = received.into_iter().next();
        received.ok_or_else(|| error::internal("an event was not received"))
    }

    /// Receives an event that was made with our help or handed to us: the other servers of the room hear
    /// of it from us.
    ///
    /// # Errors
    ///
    /// As [`Rooms::receive`].
    pub(crate) async fn receive_to_pass_on(
        &self,
        room: &Arc<Room>,
        pdu: Arc<Pdu>,
    ) -> error::Result<Received> {
        let incoming = Incoming {
            pdu,
            standing: Standing::Live { state_before: None },
        };
        self.receive_one(room, incoming, Way::HandedOver).await
    }
}
