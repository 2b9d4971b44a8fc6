//! Whose keys a device has to ask for again, and whose it may forget ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use storage::{NameHash, ShortRoomId, schema::SIGNATURES_BY_SIGNER};

use crate::{Left, Reading, changes::Changes, update::Joined};

/// How many rows are looked at to find out with whom a user shares no room any more: where it would be more,
/// nobody is said to have left, and devices go on to hear of them.
const SHARED_MAX: usize = 100_000;

/// Whose devices changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DeviceLists {
    /// Those whose devices changed, or who share a room newly.
    pub changed: BTreeSet<String>,
    /// Those with whom no room is shared any more.
    pub left: BTreeSet<String>,
}

impl DeviceLists {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.left.is_empty()
    }
}

impl Reading<'_> {
    /// Whose devices changed since the device's token, whoever came and went; nobody's at first, when it knows
    /// nobody's.
    pub(crate) async fn changed_devices(
        &self,
        changes: &Changes,
    ) -> error::Result<BTreeSet<String>> {
        let mut changed = BTreeSet::new();
        let Some(since) = self.since() else {
            return Ok(changed);
        };
        if changes.devices.own {
            changed.insert(self.viewer().user_id.to_string());
        }
        let rooms = &changes.devices.rooms;
        let of_rooms = self.rooms().device_changes(self.snapshot, rooms, since);
        let (signed, of_rooms) = tokio::try_join!(self.signed(changes), of_rooms)?;
        changed.extend(signed);
        changed.extend(of_rooms);
        Ok(changed)
    }

    /// Those whose devices changed, and who share a room newly or no more; nothing at first.
    pub(crate) async fn device_lists(
        &self,
        changes: &Changes,
        changed: BTreeSet<String>,
        joined: &[Joined],
        left: &[Left],
    ) -> error::Result<DeviceLists> {
        let mut lists = DeviceLists {
            changed,
            ..DeviceLists::default()
        };
        if self.since().is_none() {
            return Ok(lists);
        }
        let (rooms, snapshot) = (self.rooms(), self.snapshot);
        let new: Vec<ShortRoomId> = joined
            .iter()
            .filter(|joined| joined.met.room_is_new)
            .map(|joined| joined.room.short)
            .collect();
        lists.changed.extend(rooms.joined_to(snapshot, &new).await?);
        let mut gone = self.met(&mut lists, joined).await?;
        let left: Vec<_> = left.iter().map(|left| left.room.short).collect();
        gone.extend(rooms.joined_to(snapshot, &left).await?);
        lists.left = self.no_longer_shared(changes, gone).await?;
        let left = &lists.left;
        lists.changed.retain(|user| !left.contains(user));
        Ok(lists)
    }

    /// Whose master keys the user signed: what they see of them changed.
    async fn signed(&self, changes: &Changes) -> error::Result<Vec<String>> {
        let signer = self.viewer().short;
        let keys: Vec<_> = changes
            .devices
            .signed
            .iter()
            .map(|name| (signer, *name))
            .collect();
        let rows = self
            .snapshot
            .multi_get(&SIGNATURES_BY_SIGNER, &keys)
            .await?;
        Ok(rows
            .into_iter()
            .flatten()
            .map(|row| row.value.user_id)
            .collect())
    }

    /// Adds those who came into rooms; gives those who went.
    async fn met(
        &self,
        lists: &mut DeviceLists,
        joined: &[Joined],
    ) -> error::Result<BTreeSet<String>> {
        let mut gone = BTreeSet::new();
        let told = |joined: &&Joined| !joined.met.room_is_new && !joined.met.members.is_empty();
        let asked = joined.iter().filter(told).map(async |joined| {
            let members: BTreeSet<String> = joined.met.members.iter().cloned().collect();
            let here = self
                .rooms()
                .joined_to_any(self.snapshot, &[joined.room.short], &members)
                .await?;
            Ok::<_, error::Error>((members, here))
        });
        for (members, here) in try_join_all(asked).await? {
            gone.extend(members.difference(&here).cloned());
            lists.changed.extend(here);
        }
        Ok(gone)
    }

    async fn no_longer_shared(
        &self,
        changes: &Changes,
        mut gone: BTreeSet<String>,
    ) -> error::Result<BTreeSet<String>> {
        gone.remove(self.viewer().user_id.as_str());
        let rooms: Vec<_> = changes.joined.iter().copied().collect();
        if gone.is_empty() || gone.len().saturating_mul(rooms.len()) > SHARED_MAX {
            return Ok(BTreeSet::new());
        }
        let shared = self
            .rooms()
            .joined_to_any(self.snapshot, &rooms, &gone)
            .await?;
        Ok(gone.difference(&shared).cloned().collect())
    }
}

/// What is known of changed devices before rooms are read.
#[derive(Debug, Default)]
pub(crate) struct DeviceNews {
    /// The user's own changed.
    pub(crate) own: bool,
    /// Others whose master key they signed, by the hash of their ids.
    pub(crate) signed: BTreeSet<NameHash>,
    /// Rooms in which somebody's may have changed.
    pub(crate) rooms: Vec<ShortRoomId>,
}
