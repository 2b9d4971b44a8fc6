//! What a server gets that has come into a room of ours: the room's state before that, and all that allows
//! it.

use std::collections::BTreeSet;

use bytes::Bytes;
use pdu::{AuthChain, EventNumber};
use ruma::{ServerName, events::StateEventType};
use storage::{
    NameHash, Range, Snapshot,
    schema::{self, Membership},
};

use super::TakenEvent;
use crate::{Room, Rooms, writer::STRIPPED_STATE};

/// Rows that are read together.
const ROWS_AT_ONCE: usize = 2_000;
/// Servers that are named, at most.
const SERVERS_MAX: usize = 100_000;
/// Members that are told of a room without a name ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary
const HEROES: usize = 5;
/// Members that are looked at for heroes.
const HEROES_LOOKED_AT: usize = 100;

/// The answer to a `send_join`.
#[derive(Clone, Debug)]
pub struct JoinAnswer {
    /// The state before the join.
    pub state: Vec<Bytes>,
    /// What allows the join and the state; without what is in the state, where members are left out.
    pub auth_chain: Vec<Bytes>,
    /// The join itself, with our signature if it needs it.
    pub event: Bytes,
    /// For a server that asked for less: the servers in the room. Most members are left out then.
    pub servers_in_room: Option<Vec<String>>,
}

impl Rooms {
    /// What the server gets whose user has joined by an event that was taken; without most members if it
    /// can do without (MSC3706).
    pub async fn answer_to_join(
        &self,
        joined: &TakenEvent,
        omit_members: bool,
    ) -> error::Result<JoinAnswer> {
        let room = &joined.room;
        let event_id = joined.pdu.event_id();
        let snapshot = self.snapshot().await?;
        let name = self.storage().event_hash(event_id);
        let rows = snapshot
            .multi_get(&schema::NUMBER_BY_EVENT, &[name])
            .await?;
        let number = rows
            .into_iter()
            .flatten()
            .next()
            .and_then(|row| row.value.number);
        let number = number.ok_or_else(|| error::internal("a join that was taken is missing"))?;
        let key = [(room.short, number)];
        let roots = snapshot.multi_get(&schema::ROOTS_BY_EVENT, &key).await?;
        let roots = roots.into_iter().flatten().next();
        let before = roots
            .ok_or_else(|| error::internal("a join has no state"))?
            .value
            .before;
        let mut numbers: BTreeSet<_> = if omit_members {
            self.without_members(room, &snapshot, before, joined)
                .await?
        } else {
            room.whole_state(&snapshot, before)
                .await?
                .into_iter()
                .collect()
        };
        let mut sets = BTreeSet::new();
        let own = room.rows_of(self, &[number]).await?;
        sets.extend(own.iter().map(|row| row.header.chain));
        let in_state: Vec<_> = numbers.iter().copied().collect();
        let mut state = Vec::with_capacity(in_state.len());
        for row in room.rows_of(self, &in_state).await? {
            sets.insert(row.header.chain);
            state.push(row.json);
        }
        let mut chain = room.joined_chains(self, sets).await?;
        if omit_members {
            chain.retain(|number| !numbers.contains(number));
        }
        numbers.clear();
        let auth_chain = room.rows_of(self, &chain).await?;
        let servers_in_room = match omit_members {
            true => Some(
                self.servers_without(room, joined.pdu.sender().server_name())
                    .await?,
            ),
            false => None,
        };
        Ok(JoinAnswer {
            state,
            auth_chain: auth_chain.into_iter().map(|row| row.json).collect(),
            event: joined.pdu.json().clone(),
            servers_in_room,
        })
    }

    /// The events of a state but those of members; those of a few members if the room has no name.
    async fn without_members(
        &self,
        room: &Room,
        snapshot: &Snapshot,
        root: [u8; 16],
        joined: &TakenEvent,
    ) -> error::Result<BTreeSet<EventNumber>> {
        let (head, _) = room.joined_of(self, snapshot, self.server_name()).await?;
        let generation = head.generation;
        let current = room.current_entries(self, snapshot, generation, false);
        let mut numbers: BTreeSet<_> = current.await?.into_iter().collect();
        // The current state may have gone on since.
        for one in room.state_difference(snapshot, root, head.root).await? {
            if let Some(now) = one.right {
                numbers.remove(&now);
            }
            numbers.extend(one.left);
        }
        let naming = [StateEventType::RoomName, StateEventType::RoomCanonicalAlias];
        let naming = naming.map(|kind| (kind, String::new()));
        let named = room.find_state(snapshot, &[root], &naming).await?;
        let heroes = match named.is_empty() {
            true => {
                self.heroes(room, snapshot, root, generation, joined)
                    .await?
            }
            false => Vec::new(),
        };
        let all: Vec<_> = numbers.into_iter().collect();
        let mut kept = BTreeSet::from_iter(heroes);
        for (row, number) in room.rows_of(self, &all).await?.iter().zip(&all) {
            if row.header.event_type != "m.room.member" {
                kept.insert(*number);
            }
        }
        Ok(kept)
    }

    /// The first few members of a state, but the one who joins.
    async fn heroes(
        &self,
        room: &Room,
        snapshot: &Snapshot,
        root: [u8; 16],
        generation: schema::Generation,
        joined: &TakenEvent,
    ) -> error::Result<Vec<EventNumber>> {
        let ranges = [Membership::Join, Membership::Invite].map(|membership| {
            let prefix = (room.short, generation, membership as u8);
            Range::prefix(&prefix).limit(HEROES_LOOKED_AT)
        });
        let rows = snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &ranges)
            .await?;
        let rows = rows.into_iter().flatten().map(|(_, row)| row.value);
        let mut rows: Vec<_> = rows
            .filter(|row| row.user_id != joined.pdu.sender().as_str())
            .collect();
        rows.sort_unstable_by_key(|row| row.number);
        let keys: Vec<_> = rows
            .into_iter()
            .take(HEROES)
            .map(|row| (StateEventType::RoomMember, row.user_id))
            .collect();
        let found = room.find_state(snapshot, &[root], &keys).await?;
        Ok(found.into_values().collect())
    }

    /// The servers that were in the room before somebody of one of them joined.
    async fn servers_without(
        &self,
        room: &Room,
        server: &ServerName,
    ) -> error::Result<Vec<String>> {
        let snapshot = self.snapshot().await?;
        let servers = room.servers(self, &snapshot, SERVERS_MAX).await?;
        let there = servers
            .into_iter()
            .filter(|row| row.name != server.as_str() || row.joined > 1);
        Ok(there.map(|row| row.name).collect())
    }

    /// What somebody who knocks gets to see of a room: the events themselves.
    pub async fn answer_to_knock(&self, room: &Room) -> error::Result<Vec<Bytes>> {
        let snapshot = self.snapshot().await?;
        let keys = STRIPPED_STATE.map(|kind| (kind, String::new()));
        let (_, state) = room.current_state(self, &snapshot, &keys).await?;
        let seen = keys.iter().filter_map(|key| state.get(key));
        Ok(seen.map(|event| event.pdu.json().clone()).collect())
    }
}

impl Room {
    /// The rows of events, in the order of their numbers as given. They never change, so that the views they
    /// are read from may be as new as they like.
    pub(crate) async fn rows_of(
        &self,
        rooms: &Rooms,
        numbers: &[EventNumber],
    ) -> error::Result<Vec<schema::EventRow>> {
        let mut all = Vec::with_capacity(numbers.len());
        for numbers in numbers.chunks(ROWS_AT_ONCE) {
            let snapshot = rooms.snapshot().await?;
            let keys: Vec<_> = numbers.iter().map(|one| (self.short, *one)).collect();
            for row in snapshot.multi_get(&schema::EVENT_BY_NUMBER, &keys).await? {
                let missing = || error::internal("an event that a state names is missing");
                all.push(row.ok_or_else(missing)?.value);
            }
        }
        Ok(all)
    }

    /// All that is in one of some auth chains.
    async fn joined_chains(
        &self,
        rooms: &Rooms,
        sets: BTreeSet<NameHash>,
    ) -> error::Result<Vec<EventNumber>> {
        let sets: Vec<_> = sets.into_iter().collect();
        let mut all = AuthChain::default();
        for sets in sets.chunks(ROWS_AT_ONCE) {
            let snapshot = rooms.snapshot().await?;
            for chain in self.chains(&snapshot, sets.iter().copied()).await?.values() {
                all.add(chain);
            }
        }
        Ok(all.numbers().into_iter().map(EventNumber).collect())
    }
}
