//! What devices those of ours have who came into rooms, for the servers that are in them.

use std::collections::BTreeSet;

use ruma::{OwnedServerName, OwnedUserId};
use storage::{
    Batch, NameHash, Range, ShortRoomId, ShortUserId, Snapshot,
    schema::{
        DEVICE_KEYS_BY_USER, HEAD_BY_ROOM, Membership, TOLD_DEVICES_BY_DESTINATION, USER_BY_NAME,
    },
};

use crate::Outbox;

/// Rooms of somebody that are looked at together.
const ROOMS_AT_ONCE: usize = 20;
/// Servers whose rows are removed in one commit.
const SERVERS_A_BATCH: usize = 2_000;

impl Outbox {
    /// Leaves it to be told to the servers of rooms what devices those of ours have who came into them ([spec]).
    ///
    /// NOTSPEC: into a room of which not all members are known yet, nothing of people none of whose devices can
    /// encrypt; when they publish keys all servers of their rooms are told. Complement takes it for something
    /// unexpected there, and asks for it elsewhere.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/server-server-api/#device-management
    pub(crate) async fn tell_devices(
        &self,
        snapshot: &Snapshot,
        came: &[(ShortRoomId, OwnedUserId)],
    ) -> error::Result<()> {
        if came.is_empty() {
            return Ok(());
        }
        let rooms: Vec<_> = came.iter().map(|(room, _)| *room).collect();
        let servers = self.rooms().servers_in(snapshot, &rooms).await?;
        let heads = snapshot.multi_get(&HEAD_BY_ROOM, &rooms).await?;
        let names: Vec<NameHash> = came
            .iter()
            .map(|(_, user)| self.storage().user_hash(user))
            .collect();
        let users = snapshot.multi_get(&USER_BY_NAME, &names).await?;
        let there = rooms.iter().zip(servers);
        for ((user, (room, servers)), head) in users.into_iter().zip(there).zip(heads) {
            let Some(user) = user.filter(|_| !servers.is_empty()) else {
                continue;
            };
            let partial = head.is_some_and(|head| head.value.partial);
            if partial && !self.has_keys(snapshot, user.value).await? {
                continue;
            }
            self.forget_told(snapshot, user.value, *room, &servers)
                .await?;
            users::publish_devices(self.storage(), user.value).await?;
            self.rooms().leave_device_news(user.value, &servers).await?;
        }
        Ok(())
    }

    /// Whether somebody has a device that can encrypt.
    async fn has_keys(&self, snapshot: &Snapshot, user: ShortUserId) -> error::Result<bool> {
        let range = Range::prefix(&(user,)).limit(1);
        let rows = snapshot.multi_range(&DEVICE_KEYS_BY_USER, &[range]).await?;
        Ok(rows.iter().any(|rows| !rows.is_empty()))
    }

    /// Forgets what servers were told of the devices of a user who came into a room of theirs, of those that
    /// share no other room with the user: when the last one went these forgot it too, and what they hear from then
    /// on begins anew.
    async fn forget_told(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
        room: ShortRoomId,
        servers: &BTreeSet<OwnedServerName>,
    ) -> error::Result<()> {
        let mut told = self.told(snapshot, user, servers).await?;
        if told.is_empty() {
            return Ok(());
        }
        let others = self.rooms().rooms_of(snapshot, user).await?.into_iter();
        let others: Vec<_> = others
            .filter(|(other, row)| *other != room && row.value.membership == Membership::Join)
            .map(|(other, _)| other)
            .collect();
        for some in others.chunks(ROOMS_AT_ONCE) {
            for of_room in self.rooms().servers_in(snapshot, some).await? {
                told.retain(|server| !of_room.contains(server));
            }
            if told.is_empty() {
                return Ok(());
            }
        }
        for some in told.chunks(SERVERS_A_BATCH) {
            let mut batch = Batch::new();
            for server in some {
                let key = (self.storage().server_hash(server), user);
                batch.delete(&TOLD_DEVICES_BY_DESTINATION, &key);
            }
            self.storage().commit(batch).await?;
        }
        Ok(())
    }

    /// Those of some servers that were ever told of somebody's devices.
    async fn told(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
        servers: &BTreeSet<OwnedServerName>,
    ) -> error::Result<Vec<OwnedServerName>> {
        let hashes = servers
            .iter()
            .map(|server| self.storage().server_hash(server));
        let keys: Vec<_> = hashes.map(|server| (server, user)).collect();
        let rows = snapshot
            .multi_get(&TOLD_DEVICES_BY_DESTINATION, &keys)
            .await?;
        let told = servers.iter().zip(rows).filter(|(_, row)| row.is_some());
        Ok(told.map(|(server, _)| server.clone()).collect())
    }
}
