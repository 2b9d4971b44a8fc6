//! Events between what we have and an event that was sent to us.

use std::sync::Arc;

use pdu::Pdu;
use ruma::{EventId, OwnedEventId, api::federation::event::get_missing_events};

use super::{asking::Asking, sorted::reached};
use crate::{Incoming, Received, Standing};

/// Events that are asked for at once: more nobody tells.
const AT_ONCE: u32 = 20;
/// How often one goes on asking behind what was told.
const ROUNDS: usize = 5;
/// Holes behind what was told whose state is asked for, at most.
const GAPS_MAX: usize = 10;

impl Asking {
    /// Takes in an event that a server sent us, after what it lacks was fetched: its auth events, and what
    /// lies between it and what is here. An event whose prev events nobody tells stays [`Received::Missing`]:
    /// by the state before it alone we would trust its server with the state of the room.
    pub(super) async fn take_in(&self, pdu: &Arc<Pdu>) -> error::Result<Received> {
        let live = Standing::Live { state_before: None };
        // What lies between may bring the auth events along: these are asked for by themselves only then.
        let received = match self.receive(pdu, live.clone()).await? {
            Received::Missing { prev, .. } if prev.is_empty() => {
                self.receive_with_auth(pdu, live.clone()).await?
            }
            received => received,
        };
        if !matches!(&received, Received::Missing { prev, .. } if !prev.is_empty()) {
            return Ok(received);
        }
        let mut gaps = GAPS_MAX;
        let told = self.fetch_before(pdu).await?;
        let incoming = told.iter().map(|event| Incoming::live(Arc::clone(event)));
        let received = self.rooms.receive_signed(&self.room, incoming.collect());
        for (event, received) in told.iter().zip(received.await?) {
            if let Received::Missing { .. } = received {
                self.take_in_told(event, &mut gaps).await?;
            }
        }
        self.receive_with_auth(pdu, live).await
    }

    /// Fetches what an event lacks that is not to be received yet: its auth events, and what lies between it and
    /// what is here.
    pub(crate) async fn fetch_lacking(
        &self,
        pdu: &Arc<Pdu>,
        auth: &[OwnedEventId],
        prev: &[OwnedEventId],
    ) -> error::Result<()> {
        let mut gaps = GAPS_MAX;
        if !prev.is_empty() {
            for event in self.fetch_before(pdu).await? {
                self.take_in_told(&event, &mut gaps).await?;
            }
        }
        let lacking = self.unknown(auth).await?;
        let fetched = self.fetch_each(&lacking).await?;
        self.keep_as_outliers(fetched).await
    }

    /// What lies between an event and what is here, in order.
    async fn fetch_before(&self, pdu: &Arc<Pdu>) -> error::Result<Vec<Arc<Pdu>>> {
        let earliest = self.extremities().await?;
        for server in self.servers() {
            let mut events: Vec<Arc<Pdu>> = Vec::new();
            let mut latest = vec![pdu.event_id().to_owned()];
            for _ in 0..ROUNDS {
                let room = self.room.room_id.clone();
                let question = get_missing_events::v1::Request::new(room, earliest.clone(), latest);
                let told = self.fetch_missing(server, question, AT_ONCE).await?;
                let told = told.unwrap_or_default();
                let all = told.len() < AT_ONCE as usize;
                let known: Vec<_> = events.iter().map(|one| one.event_id().to_owned()).collect();
                let fresh = told.into_iter().filter(|one| {
                    one.event_id() != pdu.event_id() && !known.iter().any(|id| id == one.event_id())
                });
                let fresh: Vec<_> = fresh.collect();
                latest = self.behind(&fresh).await?;
                let done = fresh.is_empty() || all || latest.is_empty();
                events.extend(fresh);
                if done {
                    break;
                }
            }
            // Behind what is here already nothing is missing.
            let events = self.not_in_graph(events).await?;
            let events = reached(pdu.prev_events(), &events);
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    /// Those of some events that follow what is neither among them nor here.
    async fn behind(&self, events: &[Arc<Pdu>]) -> error::Result<Vec<OwnedEventId>> {
        let among = |id: &EventId| events.iter().any(|event| event.event_id() == id);
        let prev = events.iter().flat_map(|event| event.prev_events());
        let prev: Vec<_> = prev.filter(|id| !among(id)).cloned().collect();
        let unknown = self.unknown(&prev).await?;
        let follows = |event: &&Arc<Pdu>| event.prev_events().iter().any(|id| unknown.contains(id));
        let events = events.iter().filter(follows);
        Ok(events.map(|event| event.event_id().to_owned()).collect())
    }

    async fn extremities(&self) -> error::Result<Vec<OwnedEventId>> {
        let snapshot = self.rooms.snapshot().await?;
        let (head, _) = self
            .room
            .current_numbers(&self.rooms, &snapshot, &[])
            .await?;
        let ids = head.extremities.iter();
        ids.map(|one| EventId::parse(&one.event_id).map_err(error::internal))
            .collect()
    }
}
