//! Having the whole state before our join told ([spec]).
//!
//! First the ids: a server that does not have the state says so quickly, and what was laid down before a restart need
//! not be told twice. Then all of its events at once, as nearly all are lacking, or the few that do.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid

use std::sync::Arc;

use federation::{Failure, Patience};
use pdu::EventNumber;
use ruma::{
    EventId, OwnedEventId, ServerName,
    api::federation::event::{get_event, get_room_state_ids},
    events::StateEventType,
};
use storage::{Batch, Raw, schema};

use crate::{Incoming, Received, Room, Rooms, Standing, StoredEvent, writer::lay_state};

/// Ids of one state that are looked at.
const IDS_MAX: usize = 1_000_000;
/// Events that are looked at together.
const AT_ONCE: usize = 2_000;

/// Why a server does not help.
type Told<T> = error::Result<Result<T, String>>;

impl Rooms {
    /// The root of the whole state before an event, which lies there afterwards. The inner error says why a
    /// server does not tell it.
    pub(super) async fn fetch_whole(
        &self,
        room: &Arc<Room>,
        own: &StoredEvent,
        server: &ServerName,
    ) -> Told<[u8; 16]> {
        // A server need not have taken our join in yet: what it follows it must know.
        if let [prev] = own.pdu.prev_events() {
            match self.fetch_whole_after(room, prev, server).await? {
                Ok(root) => return Ok(Ok(root)),
                Err(why) => {
                    tracing::debug!(%server, why, "asked for the state before a join itself")
                }
            }
        }
        self.fetch_whole_before(room, own.pdu.event_id(), server)
            .await
    }

    async fn fetch_whole_after(
        &self,
        room: &Arc<Room>,
        event_id: &EventId,
        server: &ServerName,
    ) -> Told<[u8; 16]> {
        let before = match self.fetch_whole_before(room, event_id, server).await? {
            Ok(before) => before,
            Err(why) => return Ok(Err(why)),
        };
        let event = match self.fetch_outlier(room, event_id, server).await? {
            Ok(event) => event,
            Err(why) => return Ok(Err(why)),
        };
        let slot = event.pdu.state_slot().filter(|_| !event.pdu.rejected());
        let Some((event_type, state_key)) = slot else {
            return Ok(Ok(before));
        };
        let change = [(room.tree_key(&event_type, state_key), Some(event.number))];
        let snapshot = self.snapshot().await?;
        let mut nodes = pdu::tree::Nodes::new();
        let changed = room.changed_tree(&snapshot, &mut nodes, before, &change);
        let changed = changed.await?;
        let mut batch = Batch::new();
        for (hash, bytes) in changed.nodes {
            batch.put(
                &schema::NODE_BY_HASH,
                &(room.short, hash.0),
                &Raw(bytes.into()),
            );
        }
        if !batch.is_empty() {
            self.storage().commit(batch).await?;
        }
        Ok(Ok(changed.root))
    }

    /// An event that is here afterwards, as an outlier at least.
    async fn fetch_outlier(
        &self,
        room: &Arc<Room>,
        event_id: &EventId,
        server: &ServerName,
    ) -> Told<Arc<StoredEvent>> {
        if let Some(known) = self.find_stored(room, event_id).await? {
            return Ok(Ok(known));
        }
        let question = get_event::v1::Request::new(event_id.to_owned());
        let patience = Patience::QUERY.despite_back_off();
        let answer = match self.federation().ask(server, question, patience).await {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        let checked = self.federation().check_pdus(room.rules, vec![answer.pdu]);
        let pdu = checked.await?.into_iter().next().and_then(Result::ok);
        let Some(pdu) =
            pdu.filter(|pdu| pdu.event_id() == event_id && pdu.room_id() == room.room_id)
        else {
            return Ok(Err("another event than was asked for".to_owned()));
        };
        let incoming = Incoming {
            pdu: Arc::new(pdu),
            standing: Standing::Outlier,
        };
        if let Received::Missing { .. } = self.receive(room, incoming).await? {
            return Ok(Err(
                "the state lacks what allows the event after it".to_owned()
            ));
        }
        let known = self.find_stored(room, event_id).await?;
        Ok(known.ok_or_else(|| "an event was not kept".to_owned()))
    }

    async fn fetch_whole_before(
        &self,
        room: &Arc<Room>,
        event_id: &EventId,
        server: &ServerName,
    ) -> Told<[u8; 16]> {
        let ids = match self.ask_state_ids(room, event_id, server).await {
            Ok(answer) => answer.pdu_ids,
            Err(failure) => return Ok(Err(failure.to_string())),
        };
        if ids.len() > IDS_MAX {
            return Ok(Err(format!("there are more than {IDS_MAX} events")));
        }
        if let Some(numbers) = self.find_all(room, &ids).await? {
            return self.root_of(room, &numbers).await;
        }
        let patience = Patience::STATE.despite_back_off();
        let asked = self.ask_for_state(room, event_id, server, patience);
        match asked.await? {
            Ok(proven) => self.lay_down_state(room, &proven, server).await,
            Err(why) => Ok(Err(why)),
        }
    }

    async fn ask_state_ids(
        &self,
        room: &Room,
        event_id: &EventId,
        server: &ServerName,
    ) -> Result<get_room_state_ids::v1::Response, Failure> {
        let room_id = room.room_id.clone();
        let question = get_room_state_ids::v1::Request::new(event_id.to_owned(), room_id);
        let patience = Patience::STATE.despite_back_off();
        self.federation().ask(server, question, patience).await
    }

    /// The numbers of events of a room, if all of them are here.
    async fn find_all(
        &self,
        room: &Room,
        ids: &[OwnedEventId],
    ) -> error::Result<Option<Vec<EventNumber>>> {
        let mut numbers = Vec::with_capacity(ids.len());
        for ids in ids.chunks(AT_ONCE) {
            let snapshot = self.snapshot().await?;
            let names: Vec<_> = ids.iter().map(|id| self.storage().event_hash(id)).collect();
            for row in snapshot.multi_get(&schema::NUMBER_BY_EVENT, &names).await? {
                let row = row.filter(|row| row.value.room == room.short);
                let Some(number) = row.and_then(|row| row.value.number) else {
                    return Ok(None);
                };
                numbers.push(number);
            }
        }
        Ok(Some(numbers))
    }

    /// The root of a state of which all events are here.
    async fn root_of(&self, room: &Room, numbers: &[EventNumber]) -> Told<[u8; 16]> {
        let mut entries = Vec::with_capacity(numbers.len());
        let mut has_create = false;
        for numbers in numbers.chunks(AT_ONCE) {
            let snapshot = self.snapshot().await?;
            for event in room.stored_events(&snapshot, numbers).await? {
                let slot = event.pdu.state_slot().filter(|_| !event.pdu.rejected());
                if let Some((event_type, state_key)) = slot {
                    has_create |= event_type == StateEventType::RoomCreate && state_key.is_empty();
                    entries.push((room.tree_key(&event_type, state_key), event.number));
                }
            }
        }
        if !has_create {
            return Ok(Err("the state holds no create event".to_owned()));
        }
        lay_state(self, room, entries).await.map(Ok)
    }

    /// An event of a room that is here.
    pub(crate) async fn find_stored(
        &self,
        room: &Room,
        event_id: &EventId,
    ) -> error::Result<Option<Arc<StoredEvent>>> {
        let numbers = self.find_all(room, &[event_id.to_owned()]).await?;
        let snapshot = self.snapshot().await?;
        let numbers = numbers.unwrap_or_default();
        Ok(room.stored_events(&snapshot, &numbers).await?.pop())
    }
}
