//! What holds in a room now: entries of the current state, and who is a member.

use std::collections::HashMap;

use pdu::EventNumber;
use ruma::{OwnedEventId, UserId, events::StateEventType};
use storage::{
    Reads, Snapshot,
    schema::{self, Generation, Head, Membership},
};

use crate::{Room, Rooms, StateKey, StoredEvent, writer::flat_key};

impl Room {
    /// The numbers of the events of the current state under some keys, with the head: one round trip
    /// for a room in the first generation of its flat tables, as nearly all are.
    pub(crate) async fn current_numbers(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        keys: &[StateKey],
    ) -> error::Result<(Head, Vec<Option<EventNumber>>)> {
        let mut generation: Generation = 0;
        loop {
            let mut reads = Reads::new();
            let head = reads.get(&schema::HEAD_BY_ROOM, &self.short);
            let flat: Vec<_> = keys
                .iter()
                .map(|(t, k)| flat_key(rooms.storage(), self.short, generation, &t.to_string(), k))
                .collect();
            let entries = reads.get_all(&schema::STATE_BY_ROOM, &flat);
            let answers = snapshot.read(&reads).await?;
            let head = answers
                .one(&head)?
                .ok_or_else(|| error::not_found("This room is gone"))?
                .value;
            if head.generation == generation {
                let entries = answers.all(&entries)?;
                let numbers = entries.into_iter().map(|row| row.map(|row| row.value));
                return Ok((head, numbers.collect()));
            }
            generation = head.generation;
        }
    }

    /// The numbers of the events of the current state under some keys, in a generation of the flat tables
    /// that is known to be in force. One round trip.
    pub async fn numbers_now(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: Generation,
        keys: &[StateKey],
    ) -> error::Result<Vec<Option<EventNumber>>> {
        let flat: Vec<_> = keys
            .iter()
            .map(|(t, k)| flat_key(rooms.storage(), self.short, generation, &t.to_string(), k))
            .collect();
        let rows = snapshot.multi_get(&schema::STATE_BY_ROOM, &flat).await?;
        let numbers = rows.into_iter().map(|row| row.map(|row| row.value));
        Ok(numbers.collect())
    }

    /// Entries of the current state, with the head; two round trips.
    pub(crate) async fn current_state(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        keys: &[StateKey],
    ) -> error::Result<(Head, HashMap<StateKey, StoredEvent>)> {
        let (head, numbers) = self.current_numbers(rooms, snapshot, keys).await?;
        let wanted: Vec<_> = keys
            .iter()
            .zip(&numbers)
            .filter_map(|(key, number)| Some((key.clone(), (*number)?)))
            .collect();
        let numbers: Vec<_> = wanted
            .iter()
            .map(|(_, number)| (self.short, *number))
            .collect();
        let rows = snapshot
            .multi_get(&schema::EVENT_BY_NUMBER, &numbers)
            .await?;
        let mut state = HashMap::new();
        for ((key, number), row) in wanted.into_iter().zip(rows) {
            let row = row.ok_or_else(|| error::internal("a current state event is missing"))?;
            let event = StoredEvent::from_row(number, row.value, self.rules, false)?;
            state.insert(key, event);
        }
        Ok((head, state))
    }

    /// Somebody's membership now, of whatever server they are.
    pub async fn membership(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> error::Result<Option<Membership>> {
        let member = self.member(rooms, snapshot, user).await?;
        Ok(member.map(|(membership, _)| membership))
    }

    /// The same, with the id of the event that says so.
    pub async fn member(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        user: &UserId,
    ) -> error::Result<Option<(Membership, OwnedEventId)>> {
        let key = (StateEventType::RoomMember, user.to_string());
        let (_, state) = self
            .current_state(rooms, snapshot, std::slice::from_ref(&key))
            .await?;
        Ok(state.get(&key).and_then(|event| {
            let membership = event.member().membership?;
            Some((membership, event.pdu.event_id().to_owned()))
        }))
    }
}

impl Rooms {
    /// The content of an event of a room's current state.
    pub async fn current_content(
        &self,
        room: &Room,
        event_type: &StateEventType,
        state_key: &str,
    ) -> error::Result<Option<Vec<u8>>> {
        let snapshot = self.snapshot().await?;
        let key = (event_type.clone(), state_key.to_owned());
        let keys = std::slice::from_ref(&key);
        let (_, state) = room.current_state(self, &snapshot, keys).await?;
        Ok(state
            .get(&key)
            .map(|event| event.pdu.content_bytes().to_vec()))
    }
}
