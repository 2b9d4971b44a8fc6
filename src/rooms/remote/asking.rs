//! Asking servers about a room, one after the other, and what their answers are worth.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use federation::{Checked, EventLists, Failure, Patience, Question};
use pdu::Pdu;
use ruma::{
    EventId, OwnedEventId, OwnedServerName, ServerName,
    api::federation::{
        authorization::get_event_authorization,
        event::{get_event, get_missing_events, get_room_state, get_room_state_ids},
    },
};
use serde_json::value::RawValue;
use storage::{Range, schema};

use crate::{Incoming, Received, Room, Rooms, Standing};

/// Servers that are asked about one thing, at most.
const SERVERS_MAX: usize = 4;
/// Servers of a room among which those are chosen.
const CANDIDATES_MAX: usize = 200;
/// Events of one answer that are looked at: of the state of a room, and of what allows an event.
const STATE_MAX: usize = 500_000;
const CHAIN_MAX: usize = 20_000;
/// Ids of one state that are looked at.
const IDS_MAX: usize = 1_000_000;

/// For answers of a few events.
const FEW: Patience = Patience {
    time: Some(Duration::from_secs(30)),
    ..Patience::QUERY
};
/// For what allows an event.
const CHAIN: Patience = Patience {
    time: Some(Duration::from_secs(60)),
    bytes: 64 << 20,
    ..Patience::QUERY
};
/// For the state of a room.
const STATE: Patience = Patience {
    time: Some(Duration::from_secs(180)),
    ..Patience::STATE
};

/// A room about which other servers are asked, and whom.
#[derive(Clone, Debug)]
pub(crate) struct Asking {
    pub(super) rooms: Rooms,
    pub(super) room: Arc<Room>,
    servers: Vec<OwnedServerName>,
}

impl Asking {
    /// Asks about a room: these servers first, then such as have the most people in it.
    pub(crate) async fn about(
        rooms: &Rooms,
        room: &Arc<Room>,
        first: &[&ServerName],
    ) -> error::Result<Self> {
        let snapshot = rooms.snapshot().await?;
        let (head, _) = room.current_numbers(rooms, &snapshot, &[]).await?;
        let ranges = [Range::prefix(&(room.short, head.generation)).limit(CANDIDATES_MAX)];
        let rows = snapshot.multi_range(&schema::SERVER_BY_ROOM, &ranges);
        let rows = rows.await?.into_iter().flatten();
        let mut others: Vec<_> = rows.map(|(_, row)| row.value).collect();
        others.sort_by_key(|server| std::cmp::Reverse(server.joined));
        let mut seen = BTreeSet::from([rooms.server_name().to_owned()]);
        let first = first.iter().map(|server| (*server).to_owned());
        let others = others
            .into_iter()
            .filter_map(|server| ServerName::parse(server.name).ok());
        let servers = first
            .chain(others)
            .filter(|server| seen.insert(server.clone()));
        Ok(Self {
            rooms: rooms.clone(),
            room: Arc::clone(room),
            servers: servers.take(SERVERS_MAX).collect(),
        })
    }

    /// Those who are asked, in turn.
    pub(super) fn servers(&self) -> &[OwnedServerName] {
        &self.servers
    }

    /// What a server answers; nothing if it does not.
    pub(super) async fn ask<R: Question>(
        &self,
        server: &ServerName,
        question: R,
        patience: Patience,
    ) -> Option<R::IncomingResponse> {
        let asked = self.rooms.federation().ask(server, question, patience);
        self.answered(server, asked.await)
    }

    /// What a server answered, if it did.
    fn answered<T>(&self, server: &ServerName, answer: Result<T, Failure>) -> Option<T> {
        answer
            .inspect_err(|failure| {
                tracing::debug!(room = %self.room.room_id, %server, %failure, "a server has no answer");
            })
            .ok()
    }

    /// Those events of an answer that are of this room, well formed and signed, each once.
    pub(super) async fn checked(
        &self,
        mut raw: Vec<Box<RawValue>>,
        at_most: usize,
    ) -> error::Result<Vec<Arc<Pdu>>> {
        raw.truncate(at_most);
        let federation = self.rooms.federation();
        let checked = federation.check_pdus(self.room.rules, raw).await?;
        Ok(self.of_room(checked))
    }

    /// Those of some events that are of this room and were found good, each once.
    fn of_room(&self, checked: Checked) -> Vec<Arc<Pdu>> {
        let mut seen = HashSet::new();
        let mut events = Vec::new();
        for one in checked {
            match one {
                Ok(pdu) if pdu.room_id() != self.room.room_id => {
                    tracing::warn!(room = %self.room.room_id, event = %pdu.event_id(), "an answer holds an event of another room");
                }
                Ok(pdu) => {
                    if seen.insert(pdu.event_id().to_owned()) {
                        events.push(Arc::new(pdu));
                    }
                }
                Err(fault) => {
                    tracing::debug!(room = %self.room.room_id, %fault, "an event of an answer is dropped");
                }
            }
        }
        events
    }

    /// An event, from the first server that has it.
    pub(super) async fn fetch_event(&self, id: &EventId) -> error::Result<Option<Arc<Pdu>>> {
        for server in &self.servers {
            let question = get_event::v1::Request::new(id.to_owned());
            let Some(answer) = self.ask(server, question, FEW).await else {
                continue;
            };
            let events = self.checked(vec![answer.pdu], 1).await?;
            if let Some(event) = events.into_iter().find(|event| event.event_id() == id) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// What allows an event, as the first server says that has an answer.
    pub(super) async fn fetch_chain(&self, id: &EventId) -> error::Result<Vec<Arc<Pdu>>> {
        for server in &self.servers {
            let room = self.room.room_id.clone();
            let question = get_event_authorization::v1::Request::new(room, id.to_owned());
            if let Some(answer) = self.ask(server, question, CHAIN).await {
                return self.checked(answer.auth_chain, CHAIN_MAX).await;
            }
        }
        Ok(Vec::new())
    }

    /// The ids of the state before an event, and of what allows that.
    pub(super) async fn fetch_state_ids(
        &self,
        id: &EventId,
    ) -> Option<(Vec<OwnedEventId>, Vec<OwnedEventId>)> {
        for server in &self.servers {
            let room = self.room.room_id.clone();
            let question = get_room_state_ids::v1::Request::new(id.to_owned(), room);
            if let Some(answer) = self.ask(server, question, STATE).await
                && answer.pdu_ids.len() <= IDS_MAX
                && answer.auth_chain_ids.len() <= IDS_MAX
            {
                return Some((answer.pdu_ids, answer.auth_chain_ids));
            }
        }
        None
    }

    /// The events of the state before an event, and what allows them.
    pub(super) async fn fetch_state(&self, id: &EventId) -> error::Result<Vec<Arc<Pdu>>> {
        for server in &self.servers {
            let room = self.room.room_id.clone();
            let question = get_room_state::v1::Request::new(id.to_owned(), room);
            let lists = EventLists {
                names: ["auth_chain", "pdus"],
                rules: self.room.rules,
                most: STATE_MAX,
            };
            let federation = self.rooms.federation();
            let told = federation
                .ask_for_events(server, question, lists, STATE)
                .await;
            if let Some((_, [mut events, state])) = self.answered(server, told) {
                events.extend(state);
                let checked = federation.verify_pdus(self.room.rules, events).await?;
                return Ok(self.of_room(checked));
            }
        }
        Ok(Vec::new())
    }

    /// Events between those that we have and one that we do not understand, as a server tells them.
    pub(super) async fn fetch_missing(
        &self,
        server: &ServerName,
        mut question: get_missing_events::v1::Request,
        limit: u32,
    ) -> error::Result<Option<Vec<Arc<Pdu>>>> {
        question.limit = limit.into();
        match self.ask(server, question, FEW).await {
            Some(answer) => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                self.checked(answer.events, limit).await.map(Some)
            }
            None => Ok(None),
        }
    }

    /// Gives an event to the room's writer, and if it asks for that, to the policy server before.
    pub(super) async fn receive(
        &self,
        pdu: &Arc<Pdu>,
        standing: Standing,
    ) -> error::Result<Received> {
        let pdu = Arc::clone(pdu);
        let incoming = Incoming { pdu, standing };
        self.rooms.receive_one_signed(&self.room, incoming).await
    }

    /// Which of some events are not here, as events of this room; outliers are.
    pub(super) async fn unknown(&self, ids: &[OwnedEventId]) -> error::Result<Vec<OwnedEventId>> {
        let storage = self.rooms.storage();
        let mut unknown = Vec::new();
        for ids in ids.chunks(LOOKED_UP_AT_ONCE) {
            let snapshot = self.rooms.snapshot().await?;
            let names: Vec<_> = ids.iter().map(|id| storage.event_hash(id)).collect();
            let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await?;
            let is_here = |row: &Option<storage::Found<schema::EventRef>>| {
                row.as_ref().is_some_and(|row| {
                    row.value.room == self.room.short && row.value.number.is_some()
                })
            };
            let lacking = ids.iter().zip(&rows).filter(|(_, row)| !is_here(row));
            unknown.extend(lacking.map(|(id, _)| id.clone()));
        }
        Ok(unknown)
    }
}

/// Events whose rows are looked up together.
const LOOKED_UP_AT_ONCE: usize = 2_000;
