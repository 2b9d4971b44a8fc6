//! Receipts of people of other servers ([spec]): the newest stands.
//!
//! [spec]: https://spec.matrix.org/v1.19/server-server-api/#receipts

use std::collections::BTreeSet;

use ruma::{OwnedEventId, OwnedUserId};
use storage::{
    Batch, CommitError, NameHash, Position, Reads, ShortRoomId, Snapshot, Topic,
    schema::{self, Membership, Place, ReceiptKind, ReceiptRef, ReceiptRow},
};

use crate::{
    Room, Rooms,
    receipts::{ReadEvents, thread_hash},
};

/// Tries to store them, while others of the same people come in.
const TRIES_MAX: usize = 20;
/// So many are stored in one commit.
const AT_ONCE: usize = 500;

/// How far somebody elsewhere has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteReceipt {
    /// Who.
    pub user: OwnedUserId,
    /// The event, whether or not it is here; a string of another server.
    pub event_id: String,
    /// `main`, or the root of a thread; none for all of the room.
    pub thread: Option<String>,
    /// When, in milliseconds since 1970, as their server says.
    pub ts: u64,
}

impl Rooms {
    /// Stores receipts of people of other servers who are in a room; those of others are left out, and those
    /// that go back. Of one user and thread at most one.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn receive_receipts(
        &self,
        room: &Room,
        receipts: &[RemoteReceipt],
    ) -> error::Result<()> {
        for some in receipts.chunks(AT_ONCE) {
            self.store_receipts(room, some).await?;
        }
        Ok(())
    }

    async fn store_receipts(&self, room: &Room, receipts: &[RemoteReceipt]) -> error::Result<()> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let batch = self.receipts_batch(&snapshot, room, receipts).await?;
            if batch.is_empty() {
                return Ok(());
            }
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(error::internal("receipts from elsewhere change too fast"))
    }

    async fn receipts_batch(
        &self,
        snapshot: &Snapshot,
        room: &Room,
        receipts: &[RemoteReceipt],
    ) -> error::Result<Batch> {
        let keys: Vec<_> = receipts.iter().map(|it| self.key_of(room, it)).collect();
        let mut batch = Batch::new();
        let heads = [room.short];
        let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &heads).await?;
        let Some(head) = heads.into_iter().flatten().next().map(|head| head.value) else {
            return Ok(batch);
        };
        let join = Membership::Join as u8;
        let members = keys
            .iter()
            .map(|key| (room.short, head.generation, join, key.1));
        let members: Vec<_> = members.collect();
        let mut reads = Reads::new();
        let members = reads.get_all(&schema::MEMBER_BY_ROOM, &members);
        let old = reads.get_all(&schema::RECEIPT_BY_ROOM, &keys);
        let answers = snapshot.read(&reads).await?;
        let (members, old) = (answers.all(&members)?, answers.all(&old)?);
        let users: Vec<_> = receipts.iter().map(|it| &*it.user).collect();
        let perhaps = self.perhaps_joined(snapshot, room, &head, &users).await?;
        let members = members.into_iter().zip(perhaps);
        let named = receipts
            .iter()
            .map(|it| OwnedEventId::try_from(&*it.event_id));
        let named: Vec<_> = named.map(Result::ok).collect();
        let wanted: BTreeSet<_> = named.iter().flatten().cloned().collect();
        let events = ReadEvents::load(self, room, snapshot, &wanted).await?;
        let mut seen = BTreeSet::new();
        let mut index = 0;
        let all = receipts.iter().zip(named).zip(&keys).zip(members).zip(old);
        for ((((receipt, event_id), key), (member, perhaps)), old) in all {
            let joined = member.is_some() || perhaps;
            if !joined || !seen.insert((key.1, key.3)) {
                continue;
            }
            let placed = event_id.and_then(|id| events.placed(&id).ok());
            let place = placed.map(|it| it.place);
            let goes_on = old
                .as_ref()
                .is_none_or(|old| goes_on(&old.value.value, receipt, place));
            if !goes_on {
                continue;
            }
            let raw = old.as_ref().map(|old| &old.raw);
            batch.expect_unchanged(&schema::RECEIPT_BY_ROOM, key, raw);
            if let Some(old) = &old {
                let old = (room.short, old.value.position);
                batch.delete(&schema::RECEIPT_BY_POSITION, &old);
            }
            let row = ReceiptRow {
                user_id: receipt.user.to_string(),
                event_id: receipt.event_id.clone(),
                place,
                thread: receipt.thread.clone(),
                ts: receipt.ts,
            };
            batch.put_stamped(&schema::RECEIPT_BY_ROOM, key, index, row);
            let reference = ReceiptRef {
                user: key.1,
                kind: ReceiptKind::Read,
                thread: key.3,
            };
            let position = (room.short, Position::pending(index));
            batch.put(&schema::RECEIPT_BY_POSITION, &position, &reference);
            batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &room.short, index, ());
            batch.wake(Topic::Room(room.short));
            index += 1;
        }
        Ok(batch)
    }

    fn key_of(
        &self,
        room: &Room,
        receipt: &RemoteReceipt,
    ) -> (ShortRoomId, NameHash, u8, NameHash) {
        let user = self.storage().user_hash(&receipt.user);
        let thread = thread_hash(self.storage(), receipt.thread.as_deref());
        (room.short, user, ReceiptKind::Read as u8, thread)
    }
}

/// Whether a receipt is further on than the one that stands: by the places of their events, or where these are
/// not known by the time.
fn goes_on(old: &ReceiptRow, new: &RemoteReceipt, place: Option<Place>) -> bool {
    if old.event_id == new.event_id {
        return false;
    }
    match (old.place, place) {
        (Some(old), Some(new)) => new > old,
        _ => new.ts >= old.ts,
    }
}
