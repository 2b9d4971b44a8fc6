//! Whose devices changed, as far as it concerns those who share a room with them ([spec]).
//!
//! A change is copied into each of the user's rooms by a job, under a position of its own: who syncs finds
//! it there by the rooms' tails, and nobody is looked for on the way of the change. Whether a room is
//! encrypted does not matter: it may become so before the next change.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user

use std::collections::BTreeSet;

use ruma::OwnedServerName;
use storage::{
    Batch, Position, Range, Reads, ShortRoomId, ShortUserId, Snapshot, Topic,
    schema::{self, DestinationRow, DeviceChangeRow, Generation, Membership},
};

use crate::Rooms;

/// Rooms that are told in one batch.
const ROOMS_A_BATCH: usize = 500;
/// Servers that are told in one batch.
const SERVERS_A_BATCH: usize = 2_000;
/// Members of one room that are named, at most: who joins a room of more finds out by the keys themselves.
const MEMBERS_MAX: usize = 10_000;
/// Changes of one room that are read at once.
const CHANGES_MAX: usize = 10_000;

impl Rooms {
    /// Tells everybody who shares a room with a user that their devices changed, those of other servers by
    /// these.
    pub(crate) async fn tell_device_list(&self, user: ShortUserId) -> error::Result<()> {
        let Some(user_id) = self.user_id(user).await? else {
            return Ok(());
        };
        users::publish_devices(self.storage(), user).await?;
        let row = DeviceChangeRow {
            user_id: user_id.to_string(),
        };
        let snapshot = self.snapshot().await?;
        let rooms: Vec<_> = self
            .rooms_of(&snapshot, user)
            .await?
            .into_iter()
            .filter(|(_, row)| row.value.membership == Membership::Join)
            .map(|(room, _)| (user, room))
            .collect();
        for some in rooms.chunks(ROOMS_A_BATCH) {
            let old = snapshot
                .multi_get(&schema::DEVICE_CHANGE_BY_USER, some)
                .await?;
            let mut batch = Batch::new();
            for (index, ((user, room), old)) in (0..u16::MAX).zip(some.iter().zip(old)) {
                if let Some(old) = old {
                    let old = (*room, old.value.position);
                    batch.delete(&schema::DEVICE_CHANGE_BY_ROOM, &old);
                }
                let new = (*room, Position::pending(index));
                batch.put(&schema::DEVICE_CHANGE_BY_ROOM, &new, &row);
                batch.put_stamped(&schema::DEVICE_CHANGE_BY_USER, &(*user, *room), index, ());
                batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, room, index, ());
                batch.wake(Topic::Room(*room));
            }
            self.storage().commit(batch).await?;
        }
        let rooms: Vec<_> = rooms.into_iter().map(|(_, room)| room).collect();
        let mut servers = BTreeSet::new();
        for some in rooms.chunks(ROOMS_A_BATCH) {
            let snapshot = self.snapshot().await?;
            for of_room in self.servers_in(&snapshot, some).await? {
                servers.extend(of_room.iter().cloned());
            }
        }
        self.leave_device_news(user, &servers).await
    }

    /// Leaves it to be told to some servers what changed of the devices of a user of ours since these were told
    /// last.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn leave_device_news(
        &self,
        user: ShortUserId,
        servers: &BTreeSet<OwnedServerName>,
    ) -> error::Result<()> {
        let servers: Vec<_> = servers.iter().collect();
        for some in servers.chunks(SERVERS_A_BATCH) {
            let mut batch = Batch::new();
            for (index, server) in (0..u16::MAX).zip(some) {
                let key = (self.storage().server_hash(*server), user);
                batch.put_stamped(&schema::DEVICE_NEWS_BY_DESTINATION, &key, index, ());
                let name = server.to_string();
                let (position, row) = (Position::pending(index), DestinationRow { name });
                batch.put(&schema::DESTINATION_BY_POSITION, &position, &row);
            }
            batch.wake(Topic::Destinations);
            self.storage().commit(batch).await?;
        }
        Ok(())
    }

    /// Whose devices changed in some rooms after a position. One round trip.
    pub async fn device_changes(
        &self,
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
        since: Position,
    ) -> error::Result<BTreeSet<String>> {
        let ranges: Vec<_> = rooms
            .iter()
            .map(|room| {
                Range::prefix(&(*room,))
                    .after(&(*room, since))
                    .limit(CHANGES_MAX)
            })
            .collect();
        let rows = snapshot
            .multi_range(&schema::DEVICE_CHANGE_BY_ROOM, &ranges)
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value.user_id)
            .collect())
    }

    /// Who is joined to some rooms. Two round trips.
    pub async fn joined_to(
        &self,
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
    ) -> error::Result<BTreeSet<String>> {
        let ranges: Vec<_> = self
            .generations(snapshot, rooms)
            .await?
            .into_iter()
            .map(|(room, generation)| {
                Range::prefix(&(room, generation, Membership::Join as u8)).limit(MEMBERS_MAX)
            })
            .collect();
        let rows = snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &ranges)
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|(_, row)| row.value.user_id)
            .collect())
    }

    /// Those of some users who are joined to one of these rooms. Two round trips.
    pub async fn joined_to_any(
        &self,
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
        users: &BTreeSet<String>,
    ) -> error::Result<BTreeSet<String>> {
        let generations = self.generations(snapshot, rooms).await?;
        let mut reads = Reads::new();
        let mut asked = Vec::new();
        for user in users {
            let hash = self.storage().user_hash(user);
            let keys: Vec<_> = generations
                .iter()
                .map(|(room, generation)| (*room, *generation, Membership::Join as u8, hash))
                .collect();
            asked.push((user, reads.get_all(&schema::MEMBER_BY_ROOM, &keys)));
        }
        let answers = snapshot.read(&reads).await?;
        let mut joined = BTreeSet::new();
        for (user, rows) in asked {
            if answers.all(&rows)?.iter().any(Option::is_some) {
                joined.insert(user.clone());
            }
        }
        Ok(joined)
    }

    /// The generations of some rooms' flat tables.
    pub(crate) async fn generations(
        &self,
        snapshot: &Snapshot,
        rooms: &[ShortRoomId],
    ) -> error::Result<Vec<(ShortRoomId, Generation)>> {
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, rooms).await?;
        Ok(rooms
            .iter()
            .zip(heads)
            .filter_map(|(room, head)| Some((*room, head?.value.generation)))
            .collect())
    }
}
