//! Which servers are in a room: now, or when something happened in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::future::try_join_all;
use quick_cache::{Weighter, sync::Cache};
use ruma::{OwnedServerName, ServerName, UserId};
use storage::{
    NameHash, Range, Reads, ShortRoomId, Snapshot,
    schema::{self, Generation, Head, Membership},
};

use crate::{EVENTS_AT_ONCE, Room, Rooms, membership_of, read::ReadEvent};

/// So many servers of one room are told anything.
const SERVERS_MAX: usize = 50_000;

/// The other servers of a room.
pub type Servers = Arc<BTreeSet<OwnedServerName>>;

/// How many joined members of each server there are.
type Joined = BTreeMap<OwnedServerName, i64>;

/// Rooms whose servers are remembered, about, and how many servers in all.
const COUNTED_ROOMS: usize = 1_000;
const COUNTED_SERVERS: u64 = 500_000;

/// The servers of a room when its state had a root.
#[derive(Clone, Debug)]
struct ServersAt {
    /// The flat tables by which they were counted: of a room that is not known whole they say more than its state.
    generation: Generation,
    root: [u8; 16],
    joined: Arc<Joined>,
    servers: Servers,
}

/// The servers of rooms at the last roots that were asked for.
pub(crate) struct Counted(Cache<ShortRoomId, Arc<ServersAt>, ByServers>);

#[derive(Clone, Debug)]
struct ByServers;

impl Weighter<ShortRoomId, Arc<ServersAt>> for ByServers {
    fn weight(&self, _: &ShortRoomId, counted: &Arc<ServersAt>) -> u64 {
        1 + counted.joined.len() as u64
    }
}

impl Default for Counted {
    fn default() -> Self {
        Self(Cache::with_weighter(
            COUNTED_ROOMS,
            COUNTED_SERVERS,
            ByServers,
        ))
    }
}

impl Rooms {
    /// The servers that are in some rooms, beside this one, in the order of the rooms. Two round trips.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn servers_in(
        &self,
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
    ) -> error::Result<Vec<Servers>> {
        let generations = self.generations(snapshot, rooms).await?;
        let generations: HashMap<_, _> = generations.into_iter().collect();
        let mut reads = Reads::new();
        let asked: Vec<_> = rooms
            .iter()
            .map(|room| {
                let generation = generations.get(room)?;
                let range = Range::prefix(&(*room, *generation)).limit(SERVERS_MAX);
                Some(reads.range(&schema::SERVER_BY_ROOM, &range))
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let mut servers = Vec::new();
        for slot in asked {
            let rows = slot.map(|slot| answers.rows(&slot)).transpose()?;
            let rows = rows.into_iter().flatten();
            let names = rows.filter_map(|(_, row)| parsed(&row.value.name));
            let names = names.filter(|server| server != self.server_name());
            servers.push(Arc::new(names.collect()));
        }
        Ok(servers)
    }

    /// Whether somebody, of this server or another one, is in a room; two round trips. While we do not know
    /// all members of it (MSC3902), whoever is of a server in it and of whom we know nothing counts as such.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn is_joined(&self, room: &Room, user: &UserId) -> error::Result<bool> {
        let snapshot = self.snapshot().await?;
        let heads = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
            .await?;
        let Some(head) = heads.into_iter().flatten().next() else {
            return Ok(false);
        };
        let head = head.value;
        let name = self.storage().user_hash(user);
        let keys = [(room.short, head.generation, Membership::Join as u8, name)];
        let rows = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
        if rows.iter().any(Option::is_some) {
            return Ok(true);
        }
        let users = [user];
        let perhaps = self.perhaps_joined(&snapshot, room, &head, &users).await?;
        Ok(perhaps.first() == Some(&true))
    }

    /// Of which of some people we know nothing who may be in a room of which we do not know all members: their
    /// server is. Nobody in other rooms, which costs nothing; else one round trip.
    pub(crate) async fn perhaps_joined(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        head: &Head,
        users: &[&UserId],
    ) -> error::Result<Vec<bool>> {
        if !head.partial {
            return Ok(vec![false; users.len()]);
        }
        let mut reads = Reads::new();
        let asked: Vec<_> = users
            .iter()
            .map(|user| {
                let server = self.storage().server_hash(user.server_name());
                let server = (room.short, head.generation, server);
                let user = self.storage().user_hash(user);
                let member = (server.0, server.1, server.2, user);
                (
                    reads.get(&schema::SERVER_BY_ROOM, &server),
                    reads.get(&schema::MEMBER_BY_SERVER, &member),
                )
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let asked = asked.into_iter();
        asked
            .map(|(server, member)| {
                Ok(answers.one(&server)?.is_some() && answers.one(&member)?.is_none())
            })
            .collect()
    }

    /// The servers that were in a room, beside this one, when its state was that of these roots; in their
    /// order, which is best that of time. It is counted from root to root, and from the last root that was asked for,
    /// so that a long log costs what changed in it: two round trips, and for roots that differ what they differ in.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn servers_at(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        roots: &[[u8; 16]],
    ) -> error::Result<Vec<Servers>> {
        let Some(first) = self.servers_counted(snapshot, room).await? else {
            return Ok(roots.iter().map(|_| Servers::default()).collect());
        };
        let before = std::iter::once(&first.root).chain(roots);
        let changes = before
            .zip(roots)
            .map(|(from, to)| self.servers_changed(snapshot, room, *from, *to));
        let changes = try_join_all(changes).await?;
        let mut counted = first.as_ref().clone();
        let mut servers = Vec::with_capacity(roots.len());
        for (root, changes) in roots.iter().zip(changes) {
            counted.go_to(*root, changes, self.server_name());
            servers.push(Arc::clone(&counted.servers));
        }
        self.counted().0.insert(room.short, Arc::new(counted));
        Ok(servers)
    }

    /// The servers of a room at some root: at the last that was asked for, or as it is now. None if nobody of
    /// another server ever was there.
    async fn servers_counted(
        &self,
        snapshot: &Snapshot,
        room: &Room,
    ) -> error::Result<Option<Arc<ServersAt>>> {
        let heads = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
            .await?;
        let Some(head) = heads.into_iter().flatten().next() else {
            return Ok(None);
        };
        let head = head.value;
        let counted = self.counted().0.get(&room.short);
        if let Some(counted) = counted.filter(|it| it.generation == head.generation) {
            return Ok(Some(counted));
        }
        // Nobody may be known of those who are there.
        if !head.partial && !self.ever_met(snapshot, room, head.generation).await? {
            return Ok(None);
        }
        let joined = self
            .joined_by_server(snapshot, room, head.generation)
            .await?;
        Ok(Some(Arc::new(ServersAt {
            generation: head.generation,
            root: head.root,
            servers: others(&joined, self.server_name()),
            joined: Arc::new(joined),
        })))
    }

    /// Members of which servers came and went between two roots.
    async fn servers_changed(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        from: [u8; 16],
        to: [u8; 16],
    ) -> error::Result<Vec<(OwnedServerName, i64)>> {
        if from == to {
            return Ok(Vec::new());
        }
        let differences = room.state_difference(snapshot, from, to).await?;
        let numbers = |one: &pdu::tree::Difference| [(one.left, -1), (one.right, 1)];
        let numbers: Vec<_> = differences
            .iter()
            .flat_map(numbers)
            .filter_map(|(number, change)| Some((number?, change)))
            .collect();
        let mut changes = Vec::new();
        for numbers in numbers.chunks(EVENTS_AT_ONCE) {
            let keys: Vec<_> = numbers.iter().map(|(number, _)| *number).collect();
            let events = room.read_state(snapshot, &keys).await?;
            let events = events.into_iter().zip(numbers);
            changes.extend(
                events.filter_map(|(event, (_, change))| Some((server_joined(&event?)?, *change))),
            );
        }
        Ok(changes)
    }

    /// Whether anybody of another server ever was a member: of most rooms nobody was.
    async fn ever_met(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        generation: Generation,
    ) -> error::Result<bool> {
        let ours = self.storage().server_hash(self.server_name());
        let all = Range::prefix(&(room.short, generation)).limit(1);
        let ours = (room.short, generation, ours);
        let first = NameHash([0; 16]);
        let last = NameHash([u8::MAX; 16]);
        let ranges = [
            all.clone().before(&(ours.0, ours.1, ours.2, first)),
            all.after(&(ours.0, ours.1, ours.2, last)),
        ];
        let rows = snapshot
            .multi_range(&schema::MEMBER_BY_SERVER, &ranges)
            .await?;
        Ok(rows.iter().any(|rows| !rows.is_empty()))
    }

    async fn joined_by_server(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        generation: Generation,
    ) -> error::Result<Joined> {
        let range = Range::prefix(&(room.short, generation)).limit(SERVERS_MAX);
        let rows = snapshot
            .multi_range(&schema::SERVER_BY_ROOM, &[range])
            .await?;
        let rows = rows.into_iter().flatten();
        Ok(rows
            .filter_map(|(_, row)| {
                let joined = i64::try_from(row.value.joined).unwrap_or(i64::MAX);
                Some((parsed(&row.value.name)?, joined))
            })
            .collect())
    }
}

impl ServersAt {
    /// Goes on to another root, by what changed on the way.
    fn go_to(&mut self, root: [u8; 16], changes: Vec<(OwnedServerName, i64)>, own: &ServerName) {
        self.root = root;
        let mut others_changed = false;
        for (server, change) in changes {
            let joined = Arc::make_mut(&mut self.joined).entry(server).or_default();
            let before = *joined;
            *joined += change;
            others_changed |= (before > 0) != (*joined > 0);
        }
        if others_changed {
            self.servers = others(&self.joined, own);
        }
    }
}

fn others(joined: &Joined, own: &ServerName) -> Servers {
    let there = joined.iter().filter(|(_, joined)| **joined > 0);
    let others = there.filter(|(server, _)| *server != own);
    Arc::new(others.map(|(server, _)| server.clone()).collect())
}

fn parsed(name: &str) -> Option<OwnedServerName> {
    ServerName::parse(name).ok()
}

/// For a member event that says that somebody is in the room: their server.
fn server_joined(event: &ReadEvent) -> Option<OwnedServerName> {
    let member = event.is_state("m.room.member") && membership_of(event) == Some(Membership::Join);
    let user = event.row.header.state_key.as_deref().filter(|_| member)?;
    Some(UserId::parse(user).ok()?.server_name().to_owned())
}
