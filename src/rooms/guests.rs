//! Guests in rooms ([spec]): who lets them in, and that they go when the room no longer does.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#guest-access

use std::sync::Arc;

use pdu::canonical;
use ruma::{UserId, events::StateEventType};
use storage::{
    Batch, NameHash, Range, ShortRoomId, Storage, Topic,
    schema::{self, JobRow, Membership},
};

use crate::{Room, Rooms, Said, StoredEvent, jobs::unless_forbidden};

/// The job of letting the guests of a room leave.
pub(crate) const GUESTS_LEAVE: &str = "guests leave";

/// Members that are looked at together.
const AT_ONCE: usize = 200;

/// Whether the content of a `m.room.guest_access` lets guests join.
pub(crate) fn can_join(content: &[u8]) -> bool {
    let access = canonical::member(content, "guest_access").and_then(canonical::string);
    access.as_deref() == Some("can_join")
}

/// Leaves the job, if a change of a room's `m.room.guest_access` shuts guests out.
pub(crate) fn changed(
    storage: &Storage,
    batch: &mut Batch,
    room: ShortRoomId,
    before: Option<&StoredEvent>,
    after: Option<&StoredEvent>,
) {
    let lets_in = |event: Option<&StoredEvent>| {
        event.is_some_and(|event| can_join(event.pdu.content_bytes()))
    };
    if lets_in(before) && !lets_in(after) {
        leave_job(storage, batch, room);
    }
}

/// Leaves the job of looking whether guests have to leave a room.
pub(crate) fn leave_job(storage: &Storage, batch: &mut Batch, room: ShortRoomId) {
    let job = JobRow {
        kind: GUESTS_LEAVE.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&room).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    batch.put(
        &schema::JOB_BY_ID,
        &storage.hash("guests job", room.0),
        &job,
    );
    batch.wake(Topic::Jobs);
}

impl Rooms {
    /// Whether guests may join a room.
    pub async fn lets_guests_in(&self, room: &Room) -> error::Result<bool> {
        let access = StateEventType::RoomGuestAccess;
        let content = self.current_content(room, &access, "").await?;
        Ok(content.is_some_and(|content| can_join(&content)))
    }

    /// Works off a [`GUESTS_LEAVE`]: nobody has to go if guests were let in again meanwhile.
    pub(crate) async fn let_guests_leave(&self, row: &JobRow) -> error::Result<()> {
        let short: ShortRoomId = postcard::from_bytes(&row.body).map_err(error::internal)?;
        match self.find_short(short).await? {
            Some(room) if !self.lets_guests_in(&room).await? => self.send_guests_away(&room).await,
            _ => Ok(()),
        }
    }

    async fn send_guests_away(&self, room: &Arc<Room>) -> error::Result<()> {
        let own = self.storage().server_hash(self.server_name());
        let mut after: Option<NameHash> = None;
        loop {
            let snapshot = self.snapshot().await?;
            let (head, _) = room.current_numbers(self, &snapshot, &[]).await?;
            let key = (room.short, head.generation, own);
            let mut range = Range::prefix(&key).limit(AT_ONCE);
            if let Some(after) = after {
                range = range.after(&(key.0, key.1, key.2, after));
            }
            let rows = snapshot
                .multi_range(&schema::MEMBER_BY_SERVER, &[range])
                .await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let Some(last) = rows.last().map(|((.., user), _)| *user) else {
                return Ok(());
            };
            after = Some(last);
            // A row is under the hash of its user's id, as in the table of users.
            let names: Vec<_> = rows.iter().map(|((.., user), _)| *user).collect();
            let shorts = snapshot.multi_get(&schema::USER_BY_NAME, &names).await?;
            let shorts: Vec<_> = shorts.into_iter().flatten().map(|row| row.value).collect();
            let accounts = snapshot
                .multi_get(&schema::ACCOUNT_BY_USER, &shorts)
                .await?;
            for account in accounts.into_iter().flatten().filter(|row| row.value.guest) {
                let user = UserId::parse(&account.value.user_id).map_err(error::internal)?;
                if room.membership(self, &snapshot, &user).await? == Some(Membership::Join) {
                    unless_forbidden(self.leave(room, &user, Said::default()).await)?;
                }
            }
        }
    }
}
