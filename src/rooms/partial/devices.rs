//! Devices of people who may be in a room of which we do not know all members: what is heard of them meanwhile is
//! told when it is known that they are.

use std::collections::BTreeSet;

use ruma::UserId;
use storage::{
    Batch, Position, Range, Reads, ShortRoomId, Snapshot,
    schema::{self, DeviceChangeRow, Generation, Membership, RemoteRoomRow},
};

use crate::Rooms;

/// Rooms of which not all members are known that are looked at.
const ROOMS_MAX: usize = 200;
/// People of whom something is remembered, in one room: the rest are told of when they change something again.
const CHANGES_MAX: usize = 1_000;

impl Rooms {
    /// Remembers that devices changed of somebody with whom no room is known to be shared.
    pub(crate) async fn remember_late_change(&self, user: &UserId) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let all = [Range::prefix(&()).limit(ROOMS_MAX)];
        let rooms = snapshot.multi_range(&schema::PARTIAL_ROOM, &all).await?;
        let rooms: Vec<_> = rooms.into_iter().flatten().map(|(room, _)| room).collect();
        if rooms.is_empty() {
            return Ok(());
        }
        let server = self.storage().server_hash(user.server_name());
        let mut reads = Reads::new();
        let asked: Vec<_> = self
            .generations(&snapshot, &rooms)
            .await?
            .into_iter()
            .map(|(room, generation)| {
                let range = Range::prefix(&(room,)).limit(CHANGES_MAX);
                (
                    room,
                    reads.get(&schema::SERVER_BY_ROOM, &(room, generation, server)),
                    reads.range(&schema::LATE_DEVICE_CHANGE_BY_ROOM, &range),
                )
            })
            .collect();
        let answers = snapshot.read(&reads).await?;
        let row = DeviceChangeRow {
            user_id: user.to_string(),
        };
        let mut batch = Batch::new();
        for (room, server, changes) in asked {
            let full = answers.rows(&changes)?.len() >= CHANGES_MAX;
            if answers.one(&server)?.is_some() && !full {
                let key = (room, self.storage().user_hash(user));
                batch.put(&schema::LATE_DEVICE_CHANGE_BY_ROOM, &key, &row);
            }
        }
        if !batch.is_empty() {
            self.storage().commit(batch).await?;
        }
        Ok(())
    }
}

/// Tells who is in a room of the devices that changed of those who turn out to be in it, by a generation of its
/// flat tables.
pub(crate) async fn tell_late_changes(
    snapshot: &Snapshot,
    batch: &mut Batch,
    room: ShortRoomId,
    generation: Generation,
) -> error::Result<()> {
    let range = [Range::prefix(&(room,)).limit(CHANGES_MAX)];
    let changes = snapshot.multi_range(&schema::LATE_DEVICE_CHANGE_BY_ROOM, &range);
    let changes: Vec<_> = changes.await?.into_iter().flatten().collect();
    let join = Membership::Join as u8;
    let keys: Vec<_> = changes
        .iter()
        .map(|((_, user), _)| (room, generation, join, *user))
        .collect();
    let members = snapshot.multi_get(&schema::MEMBER_BY_ROOM, &keys).await?;
    let mut told = BTreeSet::new();
    for (index, (((_, user), row), member)) in (0..u16::MAX).zip(changes.into_iter().zip(members)) {
        if member.is_none() || !told.insert(user) {
            continue;
        }
        let position = (room, Position::pending(index));
        batch.put(&schema::DEVICE_CHANGE_BY_ROOM, &position, &row.value);
        // Where it stands, to be replaced by the next one.
        let shared = RemoteRoomRow::default();
        batch.put_stamped(&schema::ROOM_BY_REMOTE_USER, &(user, room), index, shared);
        batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &room, index, ());
    }
    batch.delete_prefix(&schema::LATE_DEVICE_CHANGE_BY_ROOM, &(room,));
    batch.delete(&schema::PARTIAL_ROOM, &room);
    Ok(())
}
