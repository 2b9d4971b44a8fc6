//! Rooms in which this server is not: those to which its people are invited, or at which they knock.
//!
//! Such a room is known by its id and version and has a head without events, so that nothing has to be
//! made anew when somebody comes in. What its people see of it is in their own rows: their membership has
//! no event here. A room that all of ours have left is one of these again: its head, and what its tables
//! say of ours, is what it was then.

mod invited;
mod seen;
mod taken_back;

use std::sync::Arc;

use pdu::RoomRules;
use ruma::{RoomId, ServerName};
use storage::{
    Batch, CommitError, Found, Position, Reads, ShortRoomId, ShortUserId, Snapshot, Stamped, Topic,
    schema::{self, Generation, Head, Membership, RoomRow, ServerRow, UserChange, UserRoomRow},
};

pub use self::invited::BroughtInvite;
pub(crate) use self::seen::servers_of;
use crate::{Room, Rooms, writer::head_without_events};

/// Servers of one room that are looked at for those with the most people, at least.
const LOOKED_AT: usize = 10_000;
/// Tries to write a row that others write too.
const TRIES_MAX: usize = 20;

/// What somebody's membership of a room becomes in which this server is not.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    pub(crate) membership: Membership,
    /// Who says so.
    pub(crate) sender: String,
    /// For an invite or a knock what they see of the room, stripped events as JSON; else the event that ended
    /// it, as clients get it.
    pub(crate) stripped_state: Vec<String>,
}

impl Room {
    /// How many people of a server are joined, with the room's head. One round trip, as a rule.
    pub(crate) async fn joined_of(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        server: &ServerName,
    ) -> error::Result<(Head, u64)> {
        let server = rooms.storage().server_hash(server);
        let mut generation: Generation = 0;
        loop {
            let mut reads = Reads::new();
            let head = reads.get(&schema::HEAD_BY_ROOM, &self.short);
            let key = (self.short, generation, server);
            let row = reads.get(&schema::SERVER_BY_ROOM, &key);
            let answers = snapshot.read(&reads).await?;
            let gone = || error::not_found("This room is gone");
            let head = answers.one(&head)?.ok_or_else(gone)?.value;
            if head.generation == generation {
                let joined = answers.one(&row)?.map_or(0, |row| row.value.joined);
                return Ok((head, joined));
            }
            generation = head.generation;
        }
    }

    /// Whether this server takes part in the room: one of its people is joined.
    pub async fn is_ours(&self, rooms: &Rooms, snapshot: &Snapshot) -> error::Result<bool> {
        let (_, joined) = self.joined_of(rooms, snapshot, rooms.server_name()).await?;
        Ok(joined > 0)
    }

    /// The servers in the room, at most `limit` of them; those with the most people first, of [`LOOKED_AT`] if the
    /// limit is not larger.
    pub async fn servers(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        limit: usize,
    ) -> error::Result<Vec<ServerRow>> {
        let (head, _) = self.joined_of(rooms, snapshot, rooms.server_name()).await?;
        let range =
            storage::Range::prefix(&(self.short, head.generation)).limit(limit.max(LOOKED_AT));
        let rows = snapshot
            .multi_range(&schema::SERVER_BY_ROOM, &[range])
            .await?;
        let rows = rows.into_iter().flatten();
        let mut servers: Vec<_> = rows.map(|(_, row)| row.value).collect();
        servers.sort_by(|one, other| {
            other
                .joined
                .cmp(&one.joined)
                .then(one.name.cmp(&other.name))
        });
        servers.truncate(limit);
        Ok(servers)
    }
}

impl Rooms {
    /// The room of that id, if this server takes part in it.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn find_room_of_ours(&self, room_id: &RoomId) -> error::Result<Option<Arc<Room>>> {
        let Some(room) = self.find_room(room_id).await? else {
            return Ok(None);
        };
        let snapshot = self.snapshot().await?;
        let ours = room.is_ours(self, &snapshot).await?;
        Ok(ours.then_some(room))
    }

    /// The room of that id and version, made known if it is not.
    ///
    /// Somebody may have told us a wrong version of a room in which nothing has happened yet: it is
    /// replaced.
    ///
    /// # Errors
    ///
    /// 502 `M_UNKNOWN` if the room is known to be of another version.
    pub(crate) async fn known_or_new_room(
        &self,
        room_id: &RoomId,
        rules: &'static RoomRules,
    ) -> error::Result<Arc<Room>> {
        for _ in 0..TRIES_MAX {
            let batch = match self.find_room(room_id).await? {
                Some(room) if room.rules.version() == rules.version() => return Ok(room),
                Some(room) => self.with_version(&room, rules).await?,
                None => self.new_known_room(room_id, rules),
            };
            match self.storage().commit(batch).await {
                Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => {
                    self.forget_cached(room_id);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a room changes too fast to be made known"))
    }

    fn new_known_room(&self, room_id: &RoomId, rules: &'static RoomRules) -> Batch {
        let mut short = [0; 8];
        self.parts().random.fill(&mut short);
        let short = ShortRoomId(short);
        let name = self.storage().room_hash(room_id);
        let mut batch = Batch::new();
        batch.expect_absent(&schema::HEAD_BY_ROOM, &short);
        batch.expect_absent(&schema::ROOM_BY_NAME, &name);
        // What it was here before goes first.
        batch.expect_absent(&schema::PURGE_BY_NAME, &name);
        batch.put(&schema::ROOM_BY_NAME, &name, &short);
        put_room(&mut batch, short, room_id, rules);
        batch
    }

    async fn with_version(&self, room: &Room, rules: &'static RoomRules) -> error::Result<Batch> {
        let snapshot = self.snapshot().await?;
        let head = self.head(&snapshot, room).await?;
        if is_begun(&head.value) {
            return Err(other_version());
        }
        let mut batch = Batch::new();
        batch.expect_equals(&schema::HEAD_BY_ROOM, &room.short, &head.raw);
        put_room(&mut batch, room.short, &room.room_id, rules);
        Ok(batch)
    }

    async fn head(&self, snapshot: &Snapshot, room: &Room) -> error::Result<Found<Head>> {
        let room = [room.short];
        let mut heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &room).await?;
        let head = heads.pop().flatten();
        head.ok_or_else(|| error::not_found("This room is gone"))
    }

    /// Whether a room [is deserted](is_deserted).
    pub(crate) async fn finds_deserted(&self, room: &Room) -> error::Result<bool> {
        let head = self.head(&self.snapshot().await?, room).await?;
        Ok(is_deserted(&head.value))
    }

    /// Whether something [has happened](is_begun) in a room.
    async fn finds_begun(&self, room: &Room) -> error::Result<bool> {
        let head = self.head(&self.snapshot().await?, room).await?;
        Ok(is_begun(&head.value))
    }

    /// Forgets what is in memory of a room if its row says another version: somebody had told a wrong one, which
    /// was replaced since.
    ///
    /// # Errors
    ///
    /// 502 `M_UNKNOWN` if so. What was read by other rules must not be written there.
    pub(crate) fn check_version(&self, room: &Room, head: &Head) -> error::Result<()> {
        if head.version == room.rules.version() {
            return Ok(());
        }
        self.forget_cached(&room.room_id);
        self.forget_cached_by_short(room.short);
        Err(other_version())
    }

    /// Somebody's row of a room in which this server is not; `None` if it is, or they have none.
    pub(crate) async fn find_outside(
        &self,
        room: &Room,
        user: ShortUserId,
    ) -> error::Result<Option<UserRoomRow>> {
        let snapshot = self.snapshot().await?;
        if room.is_ours(self, &snapshot).await? {
            return Ok(None);
        }
        let key = (user, room.short);
        let mut rows = snapshot.multi_get(&schema::ROOM_BY_USER, &[key]).await?;
        Ok(rows.pop().flatten().map(|row| row.value.value))
    }

    /// Writes what somebody of this server is to a room in which it is not, if `change` makes something
    /// of what they were before. Whether it was written: not if this server takes part in the room.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub(crate) async fn set_outside(
        &self,
        room: &Room,
        user: ShortUserId,
        change: impl Fn(Option<&UserRoomRow>) -> Option<Outside>,
    ) -> error::Result<bool> {
        let key = (user, room.short);
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            if room.is_ours(self, &snapshot).await? {
                return Ok(false);
            }
            let head = self.head(&snapshot, room).await?;
            let mut rows = snapshot.multi_get(&schema::ROOM_BY_USER, &[key]).await?;
            let old: Option<Found<Stamped<UserRoomRow>>> = rows.pop().flatten();
            let Some(new) = change(old.as_ref().map(|row| &row.value.value)) else {
                return Ok(false);
            };
            let mut batch = Batch::new();
            // Who comes into the room meanwhile changes its head.
            batch.expect_equals(&schema::HEAD_BY_ROOM, &room.short, &head.raw);
            let raw = old.as_ref().map(|row| &row.raw);
            batch.expect_unchanged(&schema::ROOM_BY_USER, &key, raw);
            // Who was in the room before may go on reading what was theirs to read.
            let before = old.as_ref().map(|row| &row.value.value);
            let row = UserRoomRow {
                membership: new.membership,
                number: before.and_then(|row| row.number),
                sender: new.sender,
                place: before.and_then(|row| row.place),
                stripped_state: new.stripped_state,
                forgotten: false,
            };
            batch.put_stamped(&schema::ROOM_BY_USER, &key, 0, row);
            let change = (user, Position::pending(0));
            let what = UserChange::Room(room.short);
            batch.put(&schema::CHANGE_BY_USER_POSITION, &change, &what);
            batch.put_stamped(&schema::TAIL_BY_USER, &user, 0, ());
            batch.wake(Topic::User(user));
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(true),
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a membership changes too fast"))
    }
}

/// Whether everybody has left a room in which this server was: what is still to be done there is for it to do.
pub(crate) fn is_deserted(head: &Head) -> bool {
    head.joined == 0 && !head.extremities.is_empty()
}

/// Whether something has happened in a room here, so that its version is known for sure.
fn is_begun(head: &Head) -> bool {
    !head.extremities.is_empty() || head.next_number.0 > 1
}

fn other_version() -> error::Error {
    error::unknown(
        http::StatusCode::BAD_GATEWAY,
        "Other servers say that this room has another version than it has here",
    )
}

/// The rows of a room of which nothing but id and version is known.
fn put_room(batch: &mut Batch, short: ShortRoomId, room_id: &RoomId, rules: &RoomRules) {
    let row = RoomRow {
        room_id: room_id.to_string(),
        version: rules.version().to_owned(),
    };
    batch.put(&schema::ROOM_BY_SHORT_ID, &short, &row);
    batch.put(&schema::HEAD_BY_ROOM, &short, &head_without_events(rules));
}
