//! Reading on: receipts and the fully-read marker of people of this server ([spec]).
//!
//! None of this touches the room's head. A receipt acts by the place of its event and never goes back;
//! what it says is a row a user, kind and thread, and where its user has read to is another, which
//! unread counts begin at. The preconditions are the rows themselves.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#receipts

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use ruma::{EventId, OwnedEventId, events::receipt::ReceiptThread};
use serde::Deserialize;
use storage::{
    Batch, CommitError, Found, NameHash, Position, Range, Snapshot, Stamped, Topic,
    schema::{
        self, AccountDataRow, Place, ReadRow, ReadScope, ReceiptKind, ReceiptRef, ReceiptRow,
        Totals, UserChange,
    },
};

use crate::{
    Doing, Room, Rooms, Viewer,
    receipts::{ReadEvent, ReadEvents, thread_hash},
    unread::SCOPES_MAX,
};

/// Tries to store what somebody has read, while other devices of theirs are at it too.
const TRIES_MAX: usize = 20;

/// Relations are followed so far to find out whether an event belongs to a thread ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
const HOPS_MAX: usize = 3;

/// So many rows of threads that were read are taken away at once when they say nothing any more.
const FORGOTTEN_MAX: usize = 100;

/// The type of the account data.
const FULLY_READ: &str = "m.fully_read";

/// Up to where somebody says that they have read.
#[derive(Clone, Debug, Default)]
pub struct ReadUpTo {
    /// New receipts: of one kind and thread at most one.
    pub receipts: Vec<NewReceipt>,
    /// The event that `m.fully_read` is to name.
    pub fully_read: Option<OwnedEventId>,
}

/// A new receipt.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// Who may see it.
    pub kind: ReceiptKind,
    /// The last event that was read.
    pub event_id: OwnedEventId,
    /// What else was read with it.
    pub thread: ReceiptThread,
}

impl Rooms {
    /// Stores how far a member has read, all in one commit. What lies behind what they have read already
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if they are not in the room, 404 `M_NOT_FOUND` for an event that is not in its
    /// timeline, 400 `M_INVALID_PARAM` if an event does not belong to the thread that its receipt names.
    pub async fn read_up_to(
        &self,
        room: &Arc<Room>,
        reader: &Viewer,
        wish: &ReadUpTo,
    ) -> error::Result<()> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let reading = Reading::load(self, room, reader, &snapshot, wish).await?;
            let Some(batch) = reading.batch(wish)? else {
                return Ok(());
            };
            match self.storage().commit(batch).await {
                Ok(_) => {
                    self.tell_receipts(room, reader, wish);
                    return Ok(());
                }
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("receipts of one user change too fast"))
    }

    /// Tells of what others may know of it; those who have it already are told the same once more.
    fn tell_receipts(&self, room: &Room, reader: &Viewer, wish: &ReadUpTo) {
        let public = wish.receipts.iter();
        for receipt in public.filter(|receipt| receipt.kind == ReceiptKind::Read) {
            self.0.doings.tell(Doing::Reads {
                room: room.short,
                user: reader.user_id.clone(),
                event_id: receipt.event_id.clone(),
                thread: receipt.thread.as_str().map(ToOwned::to_owned),
                ts: self.now(),
            });
        }
    }
}

/// What is known while a batch is put together.
struct Reading<'a> {
    rooms: &'a Rooms,
    room: &'a Room,
    reader: &'a Viewer,
    user: NameHash,
    events: ReadEvents,
    receipts: Vec<Option<Found<Stamped<ReceiptRow>>>>,
    scopes: Vec<ReadScope>,
    /// Where they have read to, by scope.
    read: BTreeMap<ReadScope, ReadSoFar>,
    fully_read: Option<Found<Stamped<AccountDataRow>>>,
}

/// Where somebody has read to: as it is stored, and with what was put into the batch.
#[derive(Default)]
struct ReadSoFar {
    raw: Option<Bytes>,
    place: Option<Place>,
}

impl ReadSoFar {
    fn new(row: Found<ReadRow>) -> Self {
        Self {
            raw: Some(row.raw),
            place: Some(row.value.place),
        }
    }
}

impl<'a> Reading<'a> {
    /// Three round trips: rows and numbers, events, places.
    async fn load(
        rooms: &'a Rooms,
        room: &'a Room,
        reader: &'a Viewer,
        snapshot: &Snapshot,
        wish: &ReadUpTo,
    ) -> error::Result<Self> {
        let storage = rooms.storage();
        let user = storage.user_hash(&reader.user_id);
        let mut reads = storage::Reads::new();
        let member = reads.get(&schema::ROOM_BY_USER, &(reader.short, room.short));
        let keys: Vec<_> = wish
            .receipts
            .iter()
            .map(|receipt| receipt_key(rooms, room, user, receipt))
            .collect();
        let receipts = reads.get_all(&schema::RECEIPT_BY_ROOM, &keys);
        let range = Range::prefix(&(reader.short, room.short)).limit(SCOPES_MAX);
        let read = reads.range(&schema::READ_BY_USER_ROOM, &range);
        let fully_read = reads.get(
            &schema::ACCOUNT_DATA_BY_USER,
            &(reader.short, room.short, storage.type_hash(FULLY_READ)),
        );
        let answers = snapshot.read(&reads).await?;
        let joined = answers
            .one(&member)?
            .is_some_and(|row| row.value.value.membership == schema::Membership::Join);
        if !joined {
            return Err(error::forbidden("You are not in this room"));
        }
        let fully_read = answers.one(&fully_read)?;
        let read = answers
            .rows(&read)?
            .into_iter()
            .map(|((_, _, scope), row)| (scope, ReadSoFar::new(row)))
            .collect();

        let mut named: BTreeSet<OwnedEventId> = BTreeSet::new();
        for receipt in &wish.receipts {
            named.insert(receipt.event_id.clone());
            named.extend(root_of(&receipt.thread).map(ToOwned::to_owned));
        }
        named.extend(wish.fully_read.clone());
        named.extend(fully_read.as_ref().and_then(marked_event));
        let events = ReadEvents::load(rooms, room, snapshot, &named).await?;

        let mut scopes = Vec::new();
        for receipt in &wish.receipts {
            scopes.push(scope(rooms, room, snapshot, &events, receipt).await?);
        }
        Ok(Self {
            rooms,
            room,
            reader,
            user,
            events,
            receipts: answers.all(&receipts)?,
            scopes,
            read,
            fully_read,
        })
    }

    /// The rows that change; none if nothing does.
    fn batch(mut self, wish: &ReadUpTo) -> error::Result<Option<Batch>> {
        let mut batch = Batch::new();
        let mut changes = Vec::new();
        let mut public = 0;
        let receipts = std::mem::take(&mut self.receipts);
        let scopes = std::mem::take(&mut self.scopes);
        for ((receipt, old), scope) in wish.receipts.iter().zip(&receipts).zip(&scopes) {
            let event = self.events.placed(&receipt.event_id)?;
            let (place, totals) = (event.place, event.totals);
            let behind = old.as_ref().is_some_and(|old| {
                let old = old.value.value.place;
                old.is_some_and(|old| old >= place)
            });
            if behind {
                continue;
            }
            self.receipt(&mut batch, receipt, place, old.as_ref(), &mut public);
            self.read_on(&mut batch, *scope, place, totals);
        }
        if !batch.is_empty() {
            changes.push(UserChange::Read(self.room.short));
        }
        changes.extend(self.mark(&mut batch, wish.fully_read.as_deref())?);
        if batch.is_empty() {
            return Ok(None);
        }
        self.tell(&mut batch, &changes, public);
        Ok(Some(batch))
    }

    fn receipt(
        &self,
        batch: &mut Batch,
        receipt: &NewReceipt,
        place: Place,
        old: Option<&Found<Stamped<ReceiptRow>>>,
        public: &mut u16,
    ) {
        let short = self.room.short;
        let key = receipt_key(self.rooms, self.room, self.user, receipt);
        batch.expect_unchanged(&schema::RECEIPT_BY_ROOM, &key, old.map(|old| &old.raw));
        let row = ReceiptRow {
            user_id: self.reader.user_id.to_string(),
            event_id: receipt.event_id.to_string(),
            place: Some(place),
            thread: receipt.thread.as_str().map(ToOwned::to_owned),
            ts: self.rooms.now(),
        };
        // Its index is that of its row in the log; private ones have none there.
        batch.put_stamped(&schema::RECEIPT_BY_ROOM, &key, *public, row);
        if receipt.kind != ReceiptKind::Read {
            return;
        }
        let (_, user, _, thread) = key;
        let reference = ReceiptRef {
            user,
            kind: receipt.kind,
            thread,
        };
        if let Some(old) = old {
            let old = (short, old.value.position);
            batch.delete(&schema::RECEIPT_BY_POSITION, &old);
        }
        let position = Position::pending(*public);
        batch.put(&schema::RECEIPT_BY_POSITION, &(short, position), &reference);
        *public += 1;
    }

    /// Moves where somebody has read to, if that is further on.
    fn read_on(&mut self, batch: &mut Batch, scope: ReadScope, place: Place, totals: Totals) {
        let (user, room) = (self.reader.short, self.room.short);
        let read = self.read.entry(scope).or_default();
        if read.place.is_some_and(|old| old >= place) {
            return;
        }
        let key = (user, room, scope);
        let row = ReadRow { place, totals };
        batch.expect_unchanged(&schema::READ_BY_USER_ROOM, &key, read.raw.as_ref());
        batch.put(&schema::READ_BY_USER_ROOM, &key, &row);
        read.place = Some(place);
        if scope != ReadScope::Room {
            return;
        }
        // What was read of threads says nothing any more.
        let behind = |(_, read): &(&ReadScope, &ReadSoFar)| read.place < Some(place);
        for (scope, read) in self.read.iter().filter(behind).take(FORGOTTEN_MAX) {
            let key = (user, room, *scope);
            batch.expect_unchanged(&schema::READ_BY_USER_ROOM, &key, read.raw.as_ref());
            batch.delete(&schema::READ_BY_USER_ROOM, &key);
        }
    }

    /// The fully-read marker, which does not go back either.
    fn mark(
        &self,
        batch: &mut Batch,
        event_id: Option<&EventId>,
    ) -> error::Result<Option<UserChange>> {
        let Some(event_id) = event_id else {
            return Ok(None);
        };
        let place = self.events.placed(event_id)?.place;
        let old = self.fully_read.as_ref();
        let old_place = old
            .and_then(marked_event)
            .and_then(|event| self.events.placed(&event).ok())
            .map(|event| event.place);
        if old_place.is_some_and(|old| old >= place) {
            return Ok(None);
        }
        let event_type = self.rooms.storage().type_hash(FULLY_READ);
        let key = (self.reader.short, self.room.short, event_type);
        let row = AccountDataRow {
            event_type: FULLY_READ.to_owned(),
            json: serde_json::json!({ "event_id": event_id }).to_string(),
        };
        batch.expect_unchanged(&schema::ACCOUNT_DATA_BY_USER, &key, old.map(|old| &old.raw));
        batch.put_stamped(&schema::ACCOUNT_DATA_BY_USER, &key, 0, row);
        Ok(Some(UserChange::AccountData(self.room.short, event_type)))
    }

    /// The word of it: to the room for what others see, to the user for the rest.
    fn tell(&self, batch: &mut Batch, changes: &[UserChange], public: u16) {
        let (user, room) = (self.reader.short, self.room.short);
        if public > 0 {
            batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &room, public - 1, ());
            batch.wake(Topic::Room(room));
        }
        let mut index = 0;
        for change in changes {
            let key = (user, Position::pending(index));
            batch.put(&schema::CHANGE_BY_USER_POSITION, &key, change);
            index += 1;
        }
        batch.put_stamped(&schema::TAIL_BY_USER, &user, index.saturating_sub(1), ());
        batch.wake(Topic::User(user));
    }
}

type ReceiptKey = (storage::ShortRoomId, NameHash, u8, NameHash);

fn receipt_key(rooms: &Rooms, room: &Room, user: NameHash, receipt: &NewReceipt) -> ReceiptKey {
    let thread = thread_hash(rooms.storage(), receipt.thread.as_str());
    (room.short, user, receipt.kind as u8, thread)
}

fn root_of(thread: &ReceiptThread) -> Option<&EventId> {
    match thread {
        ReceiptThread::Thread(root) => Some(root),
        _ => None,
    }
}

/// The event that a stored fully-read marker names.
fn marked_event(row: &Found<Stamped<AccountDataRow>>) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content {
        event_id: OwnedEventId,
    }
    let content: Content = serde_json::from_str(&row.value.value.json).ok()?;
    Some(content.event_id)
}

/// What a receipt says was read. The thread it names must be one that its event belongs to: by itself, as
/// its root, or as what relates to the root, over [`HOPS_MAX`] others at most.
async fn scope(
    rooms: &Rooms,
    room: &Room,
    snapshot: &Snapshot,
    events: &ReadEvents,
    receipt: &NewReceipt,
) -> error::Result<ReadScope> {
    let event = events.placed(&receipt.event_id)?;
    let wrong =
        || error::invalid_param("The event does not belong to the thread that `thread_id` names");
    let root_id = match &receipt.thread {
        ReceiptThread::Unthreaded => return Ok(ReadScope::Room),
        ReceiptThread::Main if event.row.header.thread.is_none() => return Ok(ReadScope::Main),
        ReceiptThread::Thread(root_id) => root_id,
        _ => return Err(wrong()),
    };
    let root = events.find(root_id).ok_or_else(wrong)?;
    let thread = ReadScope::Thread(root.number);
    if event.row.header.thread == Some(root.number) {
        return Ok(thread);
    }
    if !root.is_thread_root || event.row.header.thread.is_some() {
        return Err(wrong());
    }
    if event.number == root.number {
        return Ok(thread);
    }
    let mut parent = event.parent();
    for _ in 0..HOPS_MAX {
        let Some(id) = parent else { break };
        if id == *root_id {
            return Ok(thread);
        }
        let wanted = BTreeSet::from([id.clone()]);
        let found = ReadEvents::load(rooms, room, snapshot, &wanted).await?;
        parent = found.find(&id).and_then(ReadEvent::parent);
    }
    Err(wrong())
}
