//! The directory of published rooms ([spec]).
//!
//! Each published room has a row of what the directory shows of it, and a key in an index by size. Both are
//! written in the commit that changes them: the room's writer keeps the row at hand ([`Listing`]). Reading
//! goes along the index from a boundary on; with a search, past the rooms that do not fit, so far and no
//! farther a call.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#published-room-directory

mod listing;
mod page;

use pdu::canonical;
use ruma::events::StateEventType;
use storage::{
    Batch, CommitError, ShortRoomId, Storage, Topic, Value,
    schema::{self, DirectoryRow, JobRow, Visibility},
};

pub(crate) use self::listing::{Listing, show};
pub use self::page::{DirectoryPage, DirectoryQuery, DirectoryToken};
use crate::{Room, Rooms};

/// The job of looking again at a room whose state was replaced as a whole.
pub(crate) const LOOK_AGAIN: &str = "directory";

/// Tries to write a row, while the room changes under our hands.
const TRIES_MAX: usize = 20;

/// The state of which the directory shows something; what is readable to all stands in the head.
pub(crate) const SHOWN: [StateEventType; 7] = [
    StateEventType::RoomCreate,
    StateEventType::RoomName,
    StateEventType::RoomTopic,
    StateEventType::RoomCanonicalAlias,
    StateEventType::RoomAvatar,
    StateEventType::RoomJoinRules,
    StateEventType::RoomGuestAccess,
];

impl Rooms {
    /// Publishes a room in this server's directory, or takes it out.
    pub async fn set_public(&self, room: &Room, public: bool) -> error::Result<()> {
        self.list(room, Some(public)).await
    }

    /// Whether a room is published in this server's directory.
    pub async fn is_public(&self, room: &Room) -> error::Result<bool> {
        let snapshot = self.snapshot().await?;
        let mut rows = snapshot
            .multi_get(&schema::DIRECTORY_BY_ROOM, &[room.short])
            .await?;
        Ok(rows.pop().flatten().is_some())
    }

    /// Writes the directory's row of a room anew, by its current state; without a word on whether it is
    /// `public`, only if it has one.
    async fn list(&self, room: &Room, public: Option<bool>) -> error::Result<()> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let mut rows = snapshot
                .multi_get(&schema::DIRECTORY_BY_ROOM, &[room.short])
                .await?;
            let mut listing = Listing::found(rows.pop().flatten());
            let mut batch = Batch::new();
            if public.unwrap_or(listing.is_public()) {
                let keys = SHOWN.map(|event_type| (event_type, String::new()));
                let (head, state) = room.current_state(self, &snapshot, &keys).await?;
                let mut row = DirectoryRow {
                    world_readable: head.visibility == Visibility::WorldReadable,
                    ..DirectoryRow::default()
                };
                for ((event_type, _), event) in &state {
                    show(&mut row, event_type, Some(event.pdu.content_bytes()));
                }
                listing.set(Some(row));
                let raw = head.encode().into();
                batch.expect_equals(&schema::HEAD_BY_ROOM, &room.short, &raw);
                listing.write(&mut batch, room.short, head.joined);
            } else {
                listing.set(None);
                listing.write(&mut batch, room.short, 0);
            }
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("the room changes too fast to be listed"))
    }

    /// Works off a [`LOOK_AGAIN`].
    pub(crate) async fn list_again(&self, row: &JobRow) -> error::Result<()> {
        let short: ShortRoomId = postcard::from_bytes(&row.body).map_err(error::internal)?;
        match self.find_short(short).await? {
            Some(room) => self.list(&room, None).await,
            None => Ok(()),
        }
    }
}

/// Whether a room may have people of other servers in it, by the content of its `m.room.create`; it is shown to
/// other servers only then.
pub(crate) fn federates(create: &[u8]) -> bool {
    canonical::member(create, "m.federate").is_none_or(|value| value == b"true")
}

/// Leaves the job of listing a room anew, since not all that changes of it is in this batch.
pub(crate) fn look_again(storage: &Storage, batch: &mut Batch, room: ShortRoomId) {
    let job = JobRow {
        kind: LOOK_AGAIN.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&room).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    let id = storage.hash("directory job", room.0);
    batch.put(&schema::JOB_BY_ID, &id, &job);
    batch.wake(Topic::Jobs);
}
