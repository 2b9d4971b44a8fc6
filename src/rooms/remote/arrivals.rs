//! One at a time comes into a room in which we are not.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::OwnedMutexGuard;

/// Rooms into which somebody comes just now: one at a time, so that the second one finds us there.
#[derive(Debug, Default)]
pub(crate) struct Arrivals(Mutex<HashMap<OwnedRoomId, Arc<tokio::sync::Mutex<()>>>>);

impl Arrivals {
    /// Waits until nobody else is on the way into the room.
    pub(super) async fn begin(&self, room_id: &RoomId) -> OwnedMutexGuard<()> {
        let own = {
            let mut all = self.0.lock();
            // Those that nobody holds or waits for.
            all.retain(|_, one| Arc::strong_count(one) > 1);
            Arc::clone(all.entry(room_id.to_owned()).or_default())
        };
        own.lock_owned().await
    }
}
