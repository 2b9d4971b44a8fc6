//! Rows that a reader of a room will probably need, read with the next list of reads.

use std::{collections::BTreeSet, sync::Arc};

use pdu::EventNumber;
use ruma::events::StateEventType;
use storage::{
    NameHash, Reads, Snapshot,
    schema::{self, Generation, Membership},
};

use crate::{Room, Rooms, StateKey, StoredEvent, writer::flat_key};

impl Room {
    /// Reads events ahead, whoever is going to look at them.
    pub fn read_events_ahead(&self, snapshot: &Snapshot, numbers: &BTreeSet<EventNumber>) {
        let keys: Vec<_> = numbers.iter().map(|number| (self.short, *number)).collect();
        let mut reads = Reads::new();
        reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
        reads.get_all(&schema::ROOTS_BY_EVENT, &keys);
        snapshot.read_ahead(&reads);
    }

    /// Reads events ahead, for [`Room::stored_events`].
    pub(crate) fn stored_events_ahead(
        &self,
        snapshot: &Snapshot,
        numbers: impl IntoIterator<Item = EventNumber>,
    ) {
        let numbers = numbers.into_iter();
        let keys: Vec<_> = numbers.map(|number| (self.short, number)).collect();
        let mut reads = Reads::new();
        reads.get_all(&schema::EVENT_BY_NUMBER, &keys);
        reads.get_all(&schema::VERDICT_BY_EVENT, &keys);
        snapshot.read_ahead(&reads);
    }

    /// Reads ahead what a resolution will want of some events: their auth chains, and the events that they
    /// name as their auth events.
    pub(crate) fn auth_ahead(&self, snapshot: &Snapshot, events: &[Arc<StoredEvent>]) {
        let headers = || events.iter().map(|event| &event.header);
        let chains: BTreeSet<_> = headers().map(|header| header.chain).collect();
        self.chains_ahead(snapshot, chains);
        let auth_events: BTreeSet<_> = headers().flat_map(|one| &one.auth_events).collect();
        self.stored_events_ahead(snapshot, auth_events.into_iter().copied());
    }

    /// Reads auth chains ahead.
    pub(crate) fn chains_ahead(
        &self,
        snapshot: &Snapshot,
        sets: impl IntoIterator<Item = NameHash>,
    ) {
        let sets = sets.into_iter().filter(|set| *set != NameHash::NONE);
        let keys: Vec<_> = sets.map(|set| (self.short, set)).collect();
        let mut reads = Reads::new();
        reads.get_all(&schema::CHAIN_BY_SET, &keys);
        snapshot.read_ahead(&reads);
    }

    /// Reads entries of the current state ahead, for [`Room::numbers_now`].
    pub fn numbers_ahead(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: Generation,
        keys: &[StateKey],
    ) {
        let flat: Vec<_> = keys
            .iter()
            .map(|(t, k)| flat_key(rooms.storage(), self.short, generation, &t.to_string(), k))
            .collect();
        let mut reads = Reads::new();
        reads.get_all(&schema::STATE_BY_ROOM, &flat);
        snapshot.read_ahead(&reads);
    }

    /// Reads ahead which member events stand in the current state, by the hashes of their state keys.
    pub fn member_numbers_ahead(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: Generation,
        users: &[NameHash],
    ) {
        let member = StateEventType::RoomMember.to_string();
        let (.., of_type, _) = flat_key(rooms.storage(), self.short, generation, &member, "");
        let keys: Vec<_> = users
            .iter()
            .map(|user| (self.short, generation, of_type, *user))
            .collect();
        let mut reads = Reads::new();
        reads.get_all(&schema::STATE_BY_ROOM, &keys);
        snapshot.read_ahead(&reads);
    }

    /// Reads ahead whether some users are joined, for who asks how people are that came or went.
    pub fn joined_ahead<'a>(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        generation: Generation,
        users: impl Iterator<Item = &'a str>,
    ) {
        let users: Vec<_> = users.map(|user| rooms.storage().user_hash(user)).collect();
        if users.is_empty() {
            return;
        }
        let keys: Vec<_> = users
            .iter()
            .map(|user| (self.short, generation, Membership::Join as u8, *user))
            .collect();
        let mut reads = Reads::new();
        reads.get(&schema::HEAD_BY_ROOM, &self.short);
        reads.get_all(&schema::MEMBER_BY_ROOM, &keys);
        reads.get_all(&schema::USER_BY_NAME, &users);
        snapshot.read_ahead(&reads);
    }
}
