//! The rooms in which this server talks to people ([spec]): one a person.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#server-notices

use std::sync::Arc;

use ruma::{OwnedUserId, UserId};
use storage::{ShortRoomId, ShortUserId, schema::NOTICES_ROOM_BY_USER};

use crate::{MoreRows, Room, Rooms};

impl Rooms {
    /// Says who talks for the server. Once: later calls change nothing.
    pub fn set_notices_user(&self, user: OwnedUserId) {
        // Who said so first is right.
        let _ = self.0.notices_user.set(user);
    }

    /// Who talks for the server, if anybody does.
    pub fn notices_user(&self) -> Option<&UserId> {
        self.0.notices_user.get().map(|user| &**user)
    }

    /// The room in which the server talks to a user.
    pub async fn find_notices_room(&self, user: ShortUserId) -> error::Result<Option<Arc<Room>>> {
        let snapshot = self.snapshot().await?;
        let found = snapshot.multi_get(&NOTICES_ROOM_BY_USER, &[user]).await?;
        match found.into_iter().flatten().next() {
            Some(found) => self.find_short(found.value).await,
            None => Ok(None),
        }
    }
}

/// The row that makes a room the one in which the server talks to a user.
pub(crate) fn row(user: ShortUserId, room: ShortRoomId) -> MoreRows {
    Arc::new(move |batch, _| batch.put(&NOTICES_ROOM_BY_USER, &user, &room))
}
