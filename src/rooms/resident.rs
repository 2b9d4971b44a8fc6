//! What this server does for others whose people come into a room of ours, leave it or knock: it makes
//! templates of their member events, and takes the events that they make of these ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms

mod answer;
mod taken;
mod template;

use std::sync::Arc;

use ruma::{RoomId, ServerName};
use storage::schema::Head;

pub(crate) use self::taken::check_member;
pub use self::{answer::JoinAnswer, taken::TakenEvent, template::MemberTemplate};
use crate::{Room, Rooms, outside::is_deserted};

impl Rooms {
    /// A room that this server may let people of another one into, or out of if they are `leaving`: that of a
    /// room that everybody has left, too.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if none of ours is in it, or we do not know all of its state yet; 403 `M_FORBIDDEN`
    /// if its access control list denies the server.
    async fn room_for(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        leaving: bool,
    ) -> error::Result<(Arc<Room>, Head)> {
        let unknown = || error::not_found("This server is not in this room");
        let room = self.find_room(room_id).await?.ok_or_else(unknown)?;
        let snapshot = self.snapshot().await?;
        let own = self.server_name();
        let (head, joined) = room.joined_of(self, &snapshot, own).await?;
        if joined == 0 && !(leaving && is_deserted(&head)) {
            return Err(unknown());
        }
        self.check_acl(&room, origin).await?;
        if head.partial {
            return Err(error::not_found(
                "This server does not know all of this room yet; ask another one",
            ));
        }
        Ok((room, head))
    }
}
