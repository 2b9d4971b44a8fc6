//! Events that wait until what they follow is fetched: a queue for each room, on the disk.
//!
//! Who sends an event need not wait for what others have to tell of it, and what was taken from them is not
//! lost when the server stops. Rooms are worked on side by side, so many at a time, and in each the events in
//! the order in which they came: one room for which nobody answers is in nobody's way.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pdu::Pdu;
use ruma::ServerName;
use storage::{
    Batch, Found, Position, Range, ShortRoomId,
    schema::{self, WaitingPduRow},
};
use tokio::sync::{Semaphore, watch};

use super::{Asking, incoming::log};
use crate::{Incoming, Received, Room, Rooms};

/// Events of one room that wait, at most.
const WAITING_MAX: usize = 500;
/// Rooms that are worked on side by side.
const ROOMS_AT_ONCE: usize = 32;
/// Events that are read together.
const READ_AT_ONCE: usize = 20;
/// About so many bytes of events are written together.
const BYTES_AT_ONCE: usize = 400_000;
/// How long one event may take, whatever is asked for it.
const PATIENCE: Duration = Duration::from_secs(600);

/// The queues of all rooms, as far as something waits in them.
#[derive(Debug)]
pub(crate) struct Waiting {
    rooms: Mutex<HashMap<ShortRoomId, Queue>>,
    slots: Semaphore,
    /// How many rooms are worked on, or wait for it.
    busy: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Queue {
    /// How many events wait.
    events: usize,
    /// It is worked on, or will be.
    begun: bool,
    /// Something came since the rows were last read.
    fresh: bool,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            rooms: Mutex::default(),
            slots: Semaphore::new(ROOMS_AT_ONCE),
            busy: watch::Sender::new(0),
        }
    }
}

impl Waiting {
    /// Takes so many events in, as far as there is room for them: how many.
    fn reserve(&self, room: ShortRoomId, events: usize) -> usize {
        let mut rooms = self.rooms.lock();
        let queue = rooms.entry(room).or_default();
        let events = events.min(WAITING_MAX.saturating_sub(queue.events));
        queue.events += events;
        events
    }

    /// Says that rows came which nobody has read yet. Whether the room is to be begun with.
    fn came(&self, room: ShortRoomId) -> bool {
        let mut rooms = self.rooms.lock();
        let queue = rooms.entry(room).or_default();
        queue.fresh = true;
        let begins = !std::mem::replace(&mut queue.begun, true);
        if begins {
            self.busy.send_modify(|busy| *busy += 1);
        }
        begins
    }

    /// Begins to read what waits.
    fn reads(&self, room: ShortRoomId) {
        if let Some(queue) = self.rooms.lock().get_mut(&room) {
            queue.fresh = false;
        }
    }

    fn one_less(&self, room: ShortRoomId) {
        if let Some(queue) = self.rooms.lock().get_mut(&room) {
            queue.events = queue.events.saturating_sub(1);
        }
    }

    /// Whether a room of which nothing waits is done with: nothing came since that was read.
    fn is_done(&self, room: ShortRoomId) -> bool {
        let fresh = self
            .rooms
            .lock()
            .get(&room)
            .is_some_and(|queue| queue.fresh);
        if !fresh {
            self.ends(room);
        }
        !fresh
    }

    /// Nobody works on a room any more, until something comes for it again.
    fn ends(&self, room: ShortRoomId) {
        let mut rooms = self.rooms.lock();
        let Some(queue) = rooms.get_mut(&room) else {
            return;
        };
        if std::mem::take(&mut queue.begun) {
            self.busy.send_modify(|busy| *busy = busy.saturating_sub(1));
        }
        if queue.events == 0 {
            rooms.remove(&room);
        }
    }
}

impl Rooms {
    /// Keeps events that wait for what they follow, in their order, and begins to fetch that. How many of
    /// them: of one room not more than [`WAITING_MAX`] wait.
    pub(super) async fn let_wait(
        &self,
        room: &Arc<Room>,
        mut rows: Vec<WaitingPduRow>,
    ) -> error::Result<usize> {
        let waiting = self.waiting();
        rows.truncate(waiting.reserve(room.short, rows.len()));
        if rows.is_empty() {
            return Ok(0);
        }
        let kept = rows.len();
        let mut left = rows.as_slice();
        while !left.is_empty() {
            let (mut batch, mut index) = (Batch::new(), 0);
            let mut rest = left.iter();
            while batch.len_bytes() < BYTES_AT_ONCE
                && let Some(row) = rest.next()
            {
                let key = (room.short, Position::pending(index));
                batch.put(&schema::WAITING_PDU_BY_ROOM, &key, row);
                index += 1;
            }
            if let Err(error) = self.storage().commit(batch).await {
                (0..left.len()).for_each(|_| waiting.one_less(room.short));
                return Err(error.into());
            }
            left = rest.as_slice();
        }
        self.begin_waiting(room);
        Ok(kept)
    }

    /// Works on what waits in a room, beside everything else.
    fn begin_waiting(&self, room: &Arc<Room>) {
        if self.waiting().came(room.short) {
            let (rooms, room) = (self.clone(), Arc::clone(room));
            tokio::spawn(async move {
                if let Err(error) = rooms.work_on_waiting(&room).await {
                    tracing::error!(room = %room.room_id, %error, "events that wait cannot be taken in");
                    rooms.waiting().ends(room.short);
                }
            });
        }
    }

    /// Begins to work on what waited when the server stopped. One round trip a room.
    pub async fn resume_waiting(&self) -> error::Result<()> {
        let mut range = Range::prefix(&()).limit(1);
        loop {
            let snapshot = self.snapshot().await?;
            let ranges = [range];
            let rows = snapshot
                .multi_range(&schema::WAITING_PDU_BY_ROOM, &ranges)
                .await?;
            let Some(((short, _), _)) = rows.into_iter().flatten().next() else {
                return Ok(());
            };
            for room in self
                .find_by_short(&snapshot, &[short])
                .await?
                .iter()
                .flatten()
            {
                self.begin_waiting(room);
            }
            let last = (short, Position::END);
            range = Range::prefix(&()).after(&last).limit(1);
        }
    }

    /// Waits until no room has events that wait.
    pub async fn nothing_waits(&self) {
        let mut busy = self.waiting().busy.subscribe();
        // The sender lives as long as the rooms.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    async fn work_on_waiting(&self, room: &Arc<Room>) -> error::Result<()> {
        let waiting = self.waiting();
        let _slot = waiting.slots.acquire().await.map_err(error::internal)?;
        loop {
            waiting.reads(room.short);
            let snapshot = self.snapshot().await?;
            let ranges = [Range::prefix(&(room.short,)).limit(READ_AT_ONCE)];
            let rows = snapshot.multi_range(&schema::WAITING_PDU_BY_ROOM, &ranges);
            let rows: Vec<_> = rows.await?.into_iter().flatten().collect();
            if rows.is_empty() && waiting.is_done(room.short) {
                return Ok(());
            }
            let rows = self.take_what_lacks_nothing(room, rows).await?;
            // The others may lack the same.
            if let Some((key, row)) = rows.into_iter().next() {
                let taken = self.take_in_waiting(room, row.value);
                match tokio::time::timeout(PATIENCE, taken).await {
                    Ok(taken) => taken?,
                    Err(_) => {
                        tracing::warn!(room = %room.room_id, "an event takes too long to be taken in, it is dropped");
                    }
                }
                self.is_done_with(room, &[key]).await?;
            }
        }
    }

    /// Takes in those of some events that wait for nothing, or not any more, or for the policy server alone: the
    /// others.
    async fn take_what_lacks_nothing(
        &self,
        room: &Arc<Room>,
        rows: Vec<Row>,
    ) -> error::Result<Vec<Row>> {
        let (mut waiting, mut done, mut incoming) = (Vec::new(), Vec::new(), Vec::new());
        for (key, row) in rows {
            match read(room, &row.value)? {
                Some(pdu) => {
                    incoming.push(Incoming::live(pdu));
                    waiting.push((key, row));
                }
                None => done.push(key),
            }
        }
        let ids = incoming.iter().map(|one| one.pdu.event_id().to_owned());
        let ids: Vec<_> = ids.collect();
        let received = self.receive_signed(room, incoming).await?;
        let mut left = Vec::new();
        for ((id, received), (key, row)) in ids.iter().zip(received).zip(waiting) {
            if let Received::Missing { .. } | Received::ToSign(_) = received {
                left.push((key, row));
                continue;
            }
            let origin = ServerName::parse(&row.value.origin).map_err(error::internal)?;
            log(room, &origin, id, &received);
            done.push(key);
        }
        self.is_done_with(room, &done).await?;
        Ok(left)
    }

    /// Events wait no more.
    async fn is_done_with(
        &self,
        room: &Room,
        keys: &[(ShortRoomId, Position)],
    ) -> error::Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for key in keys {
            batch.delete(&schema::WAITING_PDU_BY_ROOM, key);
        }
        self.storage().commit(batch).await?;
        keys.iter()
            .for_each(|_| self.waiting().one_less(room.short));
        Ok(())
    }

    /// Takes in an event that waited: fetches what it lacks.
    async fn take_in_waiting(&self, room: &Arc<Room>, row: WaitingPduRow) -> error::Result<()> {
        let origin = ServerName::parse(&row.origin).map_err(error::internal)?;
        let Some(pdu) = read(room, &row)? else {
            return Ok(());
        };
        let first = [&*origin, pdu.sender().server_name()];
        let asking = Asking::about(self, room, &first).await?;
        let received = asking.take_in(&pdu).await?;
        log(room, &origin, &pdu.event_id().to_owned(), &received);
        Ok(())
    }
}

/// An event that waits, and where.
type Row = ((ShortRoomId, Position), Found<WaitingPduRow>);

/// An event that waited. Its signatures were right when it came.
fn read(room: &Room, row: &WaitingPduRow) -> error::Result<Option<Arc<Pdu>>> {
    let Ok(pdu) = Pdu::parse(row.json.as_bytes(), room.rules) else {
        return Ok(None);
    };
    Ok(Some(match pdu::check_content_hash(&pdu) {
        true => Arc::new(pdu),
        false => Arc::new(pdu.redacted(room.rules).map_err(error::internal)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_room_so_many_wait_and_others_are_not_in_their_way() {
        let waiting = Waiting::default();
        let (one, other) = (ShortRoomId([1; 8]), ShortRoomId([2; 8]));
        assert_eq!(waiting.reserve(one, WAITING_MAX - 1), WAITING_MAX - 1);
        assert!(waiting.came(one));
        assert_eq!(waiting.reserve(one, 50), 1);
        assert_eq!(waiting.reserve(one, 50), 0);
        assert_eq!(waiting.reserve(other, 50), 50);
        assert!(!waiting.came(one), "it is worked on already");
        // What comes while the last rows were read is read too.
        waiting.reads(one);
        waiting.came(one);
        assert!(!waiting.is_done(one));
        waiting.reads(one);
        (0..WAITING_MAX).for_each(|_| waiting.one_less(one));
        assert!(waiting.is_done(one));
        assert_eq!(*waiting.busy.borrow(), 0);
        assert_eq!(waiting.reserve(one, 1), 1);
        assert!(waiting.came(one), "it is begun with anew");
    }
}
