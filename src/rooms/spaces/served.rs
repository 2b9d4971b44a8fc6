//! The tree below a space as another server is told of it
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid)): the space and
//! its rooms, no further.

use ruma::{OwnedRoomId, RoomId, ServerName};

use super::{RoomSummary, summary::Who};
use crate::Rooms;

/// Rooms of a space that are looked at.
const CHILDREN_MAX: usize = 500;

/// A space and its rooms.
#[derive(Clone, Debug)]
pub struct ServedSpace {
    /// The space, or a room that is none.
    pub room: RoomSummary,
    /// Its rooms that are open to the server.
    pub children: Vec<RoomSummary>,
    /// Those that are not.
    pub inaccessible: Vec<OwnedRoomId>,
}

impl Rooms {
    /// A space and its rooms for another server: those that it is in, or could come to or look into. `None` if
    /// that is not so of the space itself, or this server is not in it.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn space_for(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> error::Result<Option<ServedSpace>> {
        let snapshot = self.snapshot().await?;
        let who = Who::Server(server);
        let ids = [room_id.to_owned()];
        if !self.are_here(&snapshot, &ids).await?.contains(&true) {
            return Ok(None);
        }
        let mut found = self.summaries(&snapshot, who, &ids, true).await?;
        let Some(mut room) = found.pop().flatten() else {
            return Ok(None);
        };
        room.children
            .retain(|child| child.suggested || !suggested_only);
        let ids: Vec<_> = room
            .children
            .iter()
            .take(CHILDREN_MAX)
            .map(|child| child.room_id.clone())
            .collect();
        let here = self.are_here(&snapshot, &ids).await?;
        let ids: Vec<_> = ids
            .into_iter()
            .zip(here)
            .filter_map(|(id, here)| here.then_some(id))
            .collect();
        let found = self.summaries(&snapshot, who, &ids, false).await?;
        let (mut children, mut inaccessible) = (Vec::new(), Vec::new());
        for (id, summary) in ids.into_iter().zip(found) {
            match summary {
                Some(summary) => children.push(summary),
                None => inaccessible.push(id),
            }
        }
        Ok(Some(ServedSpace {
            room,
            children,
            inaccessible,
        }))
    }
}
