//! Events that wait until what they follow is fetched: a queue for each room, on the disk.
//!
//! Who sends an event need not wait for what others have to tell of it, and what was taken from them is not
//! lost when the server stops. Rooms are worked on side by side, so many at a time, and in each the events of one
//! server in the order in which they came: one room, or server, for which nobody answers is in nobody's way (the
//! [line](self::line)).

mod line;

use std::{sync::Arc, time::Duration};

use pdu::Pdu;
use ruma::ServerName;
use storage::{
    Batch, Found, Position, Range, ShortRoomId,
    schema::{self, WaitingPduRow},
};

pub(crate) use self::line::Waiting;
use self::line::{Share, Turn};
use super::{Asking, incoming::log};
use crate::{Incoming, Received, Room, Rooms};

/// Events that are read together.
const READ_AT_ONCE: usize = 20;
/// About so many bytes of events are written together.
const BYTES_AT_ONCE: usize = 400_000;
/// How long one event may take at its first turn, whatever is asked for it; each time twice as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many turns it has at most.
const TRIES_MAX: u32 = 4;
/// How long a room is left alone after it could not be read or written.
const REST: Duration = Duration::from_secs(30);

impl Rooms {
    /// Keeps events of a server that wait for what they follow, in their order, and begins to fetch that. How many
    /// of them: of one room only so many wait, and never all of one server.
    pub(super) async fn let_wait(
        &self,
        room: &Arc<Room>,
        origin: &ServerName,
        mut json: Vec<String>,
    ) -> error::Result<usize> {
        if json.is_empty() {
            return Ok(0);
        }
        self.learn_what_waits(room).await?;
        let (waiting, origin) = (self.waiting(), origin.as_str());
        json.truncate(waiting.reserve(room.short, origin, json.len()));
        let kept = json.len();
        let rows: Vec<_> = json
            .into_iter()
            .map(|json| WaitingPduRow {
                origin: origin.to_owned(),
                json,
            })
            .collect();
        let mut left = rows.as_slice();
        while !left.is_empty() {
            let (mut batch, mut count) = (Batch::new(), 0);
            let mut rest = left.iter();
            while batch.len_bytes() < BYTES_AT_ONCE
                && let Some(row) = rest.next()
            {
                let key = (room.short, Position::pending(count));
                batch.put(&schema::WAITING_PDU_BY_ROOM, &key, row);
                count += 1;
            }
            match self.storage().commit(batch).await {
                Ok(first) => {
                    let of = |index| Position::new(first.epoch(), first.stamp(), index);
                    let positions: Vec<_> = (0..count).map(of).collect();
                    waiting.came(room.short, origin, &positions);
                }
                Err(error) => {
                    waiting.may_have_come(room.short, origin, left.len());
                    self.begin_waiting(room);
                    return Err(error.into());
                }
            }
            left = rest.as_slice();
        }
        self.begin_waiting(room);
        Ok(kept)
    }

    /// Works on what waits in a room, beside everything else.
    fn begin_waiting(&self, room: &Arc<Room>) {
        if self.waiting().begins(room.short) {
            let (rooms, room) = (self.clone(), Arc::clone(room));
            tokio::spawn(async move { rooms.work_on_waiting(&room).await });
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
        self.waiting().nothing_waits().await;
    }

    /// Looks what waits in a room, if that is not known since the server was started, or not any more.
    async fn learn_what_waits(&self, room: &Room) -> error::Result<()> {
        if self.waiting().knows(room.short) {
            return Ok(());
        }
        let mut here = Vec::new();
        let mut range = Range::prefix(&(room.short,)).limit(READ_AT_ONCE);
        loop {
            let snapshot = self.snapshot().await?;
            let rows = snapshot
                .multi_range(&schema::WAITING_PDU_BY_ROOM, &[range])
                .await?;
            let rows = rows.into_iter().flatten();
            let read = here.len();
            here.extend(rows.map(|((_, position), row)| (position, row.value.origin)));
            match here.last() {
                Some((last, _)) if here.len() > read => {
                    let last = (room.short, *last);
                    range = Range::prefix(&(room.short,))
                        .after(&last)
                        .limit(READ_AT_ONCE);
                }
                _ => break,
            }
        }
        self.waiting().learn(room.short, here);
        Ok(())
    }

    /// Works on what waits in a room, turn by turn. What cannot be read or written is tried again.
    async fn work_on_waiting(&self, room: &Arc<Room>) {
        loop {
            match self.take_turn(room).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::error!(room = %room.room_id, %error, "events that wait cannot be taken in");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    /// Waits for the turn of a room, and uses it. Not if nothing waits there any more.
    async fn take_turn(&self, room: &Arc<Room>) -> error::Result<bool> {
        self.learn_what_waits(room).await?;
        let waiting = self.waiting();
        if waiting.is_done(room.short) {
            return Ok(false);
        }
        let Some(turn) = waiting.turn(room.short).await else {
            return Ok(true);
        };
        let patience = PATIENCE.saturating_mul(2_u32.saturating_pow(turn.share.tries));
        match tokio::time::timeout(patience, self.use_turn(room, &turn)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.tried_in_vain(room, &turn.share).await?;
                return Err(error);
            }
            Err(_) => self.tried_in_vain(room, &turn.share).await?,
        }
        Ok(true)
    }

    /// Counts a turn that led to nothing. The event is dropped if it has had so many that it may have no more.
    async fn tried_in_vain(&self, room: &Room, share: &Share) -> error::Result<()> {
        if self.waiting().tried(room.short, share) < TRIES_MAX {
            return Ok(());
        }
        let origin = &share.origin;
        tracing::warn!(room = %room.room_id, %origin, "an event cannot be taken in, or not in time, it is dropped");
        self.is_done_with(room, &[(room.short, share.first)]).await
    }

    /// Takes in what lacks nothing any more, and what the turn is for.
    async fn use_turn(&self, room: &Arc<Room>, turn: &Turn<'_>) -> error::Result<()> {
        let share = &turn.share;
        let keys = share.events.iter().map(|position| (room.short, *position));
        let keys: Vec<_> = keys.collect();
        let snapshot = self.snapshot().await?;
        let found = snapshot.multi_get(&schema::WAITING_PDU_BY_ROOM, &keys);
        let (mut rows, mut gone) = (Vec::new(), Vec::new());
        for (key, row) in keys.iter().zip(found.await?) {
            match row {
                Some(row) => rows.push((*key, row)),
                None => gone.push(key.1),
            }
        }
        self.waiting().remove(room.short, &gone);
        let rows = self.take_what_lacks_nothing(room, rows).await?;
        // The others may lack the same.
        let first = rows.into_iter().find(|(key, _)| key.1 == share.first);
        if let Some((key, row)) = first {
            self.take_in_waiting(room, row.value).await?;
            self.is_done_with(room, &[key]).await?;
        }
        Ok(())
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
            log(room, &row.value.origin, id, &received);
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
        let positions: Vec<_> = keys.iter().map(|(_, position)| *position).collect();
        self.waiting().remove(room.short, &positions);
        Ok(())
    }

    /// Takes in an event that waited: fetches what it lacks.
    async fn take_in_waiting(&self, room: &Arc<Room>, row: WaitingPduRow) -> error::Result<()> {
        let Some(pdu) = read(room, &row)? else {
            return Ok(());
        };
        let origin = <&ServerName>::try_from(row.origin.as_str()).map_err(error::internal)?;
        let first = [origin, pdu.sender().server_name()];
        let asking = Asking::about(self, room, &first).await?;
        let received = asking.take_in(&pdu).await?;
        log(room, &row.origin, &pdu.event_id().to_owned(), &received);
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
