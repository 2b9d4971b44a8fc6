//! Which servers are asked about a room in which we are not.

use ruma::{OwnedServerName, RoomId, UserId};
use storage::{
    ShortUserId,
    schema::{self, UserRoomRow},
};

use crate::{Room, Rooms, outside::servers_of, restricted::powerful_servers};

/// Servers that are asked about one room.
const SERVERS_MAX: usize = 20;
/// Of them those of which only our own tables say that they are in the room.
const KNOWN_MAX: usize = 5;

impl Rooms {
    /// The servers that may help somebody into a room or out of it, the likeliest first: those that are named,
    /// that of who invited them, and those of whom the invite tells. Where none are named, that which the room's
    /// id names, and those that were in the room when we last knew, come after them.
    pub(super) async fn candidates(
        &self,
        room_id: &RoomId,
        user: ShortUserId,
        named: &[OwnedServerName],
    ) -> error::Result<Vec<OwnedServerName>> {
        let mut all = named.to_vec();
        let alone = named.is_empty();
        let room = self.find_room(room_id).await?;
        let snapshot = self.snapshot().await?;
        if let Some(room) = &room {
            let key = [(user, room.short)];
            let rows = snapshot.multi_get(&schema::ROOM_BY_USER, &key).await?;
            for row in rows.into_iter().flatten() {
                all.extend(servers_told_by(&row.value.value));
            }
        }
        if alone {
            all.extend(room_id.server_name().map(ToOwned::to_owned));
        }
        if let Some(room) = room.filter(|_| alone) {
            let servers = room.servers(self, &snapshot, KNOWN_MAX).await?;
            let names = servers
                .into_iter()
                .map(|row| OwnedServerName::try_from(row.name));
            all.extend(names.flatten());
        }
        let mut distinct: Vec<OwnedServerName> = Vec::new();
        for server in all {
            if server != self.server_name() && !distinct.contains(&server) {
                distinct.push(server);
            }
        }
        distinct.truncate(SERVERS_MAX);
        Ok(distinct)
    }

    /// The servers in a room of ours whose people may vouch for somebody of ours, the likeliest first: those that are
    /// named, those of the most powerful people, and those with the most people.
    pub(crate) async fn voucher_servers(
        &self,
        room: &Room,
        named: &[OwnedServerName],
    ) -> error::Result<Vec<OwnedServerName>> {
        let snapshot = self.snapshot().await?;
        let mut all = named.to_vec();
        all.extend(powerful_servers(self, &snapshot, room).await?);
        let largest = room.servers(self, &snapshot, KNOWN_MAX).await?;
        let largest = largest.into_iter();
        all.extend(largest.filter_map(|row| OwnedServerName::try_from(row.name).ok()));
        Ok(all)
    }
}

/// The servers of which an invite or a knock tells that they are in the room.
fn servers_told_by(row: &UserRoomRow) -> Vec<OwnedServerName> {
    let sender = UserId::parse(&row.sender).ok();
    let sender = sender.map(|sender| sender.server_name().to_owned());
    let told = servers_of(&row.stripped_state);
    sender.into_iter().chain(told).collect()
}
