//! Which servers are in a room: now, or when something happened in it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::future::try_join_all;
use ruma::{OwnedServerName, ServerName, UserId};
use storage::{
    NameHash, Range, Reads, ShortRoomId, Snapshot,
    schema::{self, Generation, Head, Membership},
};

use crate::{Room, Rooms, membership_of, read::ReadEvent};

/// So many servers of one room are told anything.
const SERVERS_MAX: usize = 50_000;

/// The other servers of a room.
pub type Servers = Arc<BTreeSet<OwnedServerName>>;

/// How many joined members of each server there are.
type Joined = BTreeMap<OwnedServerName, i64>;

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
            servers.push(self.others(names));
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
    /// order. Three round trips, and for a root that is not the current one what its state differs in.
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
        let shorts = [room.short];
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &shorts).await?;
        let Some(head) = heads.into_iter().flatten().next() else {
            return Ok(roots.iter().map(|_| Servers::default()).collect());
        };
        let head = head.value;
        // Nobody may be known of those who are there.
        if !head.partial && !self.ever_met(snapshot, room, head.generation).await? {
            return Ok(roots.iter().map(|_| Servers::default()).collect());
        }
        let now = self
            .joined_by_server(snapshot, room, head.generation)
            .await?;
        let distinct: BTreeSet<_> = roots.iter().copied().collect();
        let at = distinct.into_iter().map(async |root| {
            let differences = room.state_difference(snapshot, root, head.root).await?;
            let numbers: BTreeSet<_> = differences
                .iter()
                .flat_map(|one| [one.left, one.right])
                .flatten()
                .collect();
            let numbers: Vec<_> = numbers.into_iter().collect();
            let events = room.read_state(snapshot, &numbers).await?;
            let joins: HashMap<_, _> = numbers
                .iter()
                .zip(events)
                .filter_map(|(number, event)| Some((*number, server_joined(&event?)?)))
                .collect();
            let mut joined = now.clone();
            for one in &differences {
                for (number, change) in [(one.left, 1), (one.right, -1)] {
                    if let Some(server) = number.and_then(|number| joins.get(&number)) {
                        *joined.entry(server.clone()).or_default() += change;
                    }
                }
            }
            let there = joined.into_iter().filter(|(_, joined)| *joined > 0);
            Ok::<_, error::Error>((root, self.others(there.map(|(server, _)| server))))
        });
        let at: HashMap<_, _> = try_join_all(at).await?.into_iter().collect();
        Ok(roots
            .iter()
            .map(|root| at.get(root).cloned().unwrap_or_default())
            .collect())
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

    fn others(&self, servers: impl Iterator<Item = OwnedServerName>) -> Servers {
        let ours = self.server_name();
        Arc::new(servers.filter(|server| server != ours).collect())
    }
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
