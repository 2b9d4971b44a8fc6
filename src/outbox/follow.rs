//! Reading the stream, and what others left to be told, into lanes.
//!
//! How far the stream was read is stored only as far as all of it was told or written down: a crash lets some
//! of it be told again.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::try_join_all;
use rooms::{Room, Servers};
use ruma::{OwnedServerName, ServerName};
use storage::{
    Batch, CommitError, Position, Range, Reads, ShortRoomId, Snapshot,
    schema::{DESTINATION_BY_POSITION, POSITION_BY_FOLLOWER, PositionRow, StreamRecord},
};

use crate::{
    Outbox,
    lanes::{Late, Parking, Put, Queued},
};

/// Records that are read together, and rows of what was left.
const AT_ONCE: usize = 100;
const LEFT_AT_ONCE: usize = 1_000;
/// How far the stream was read is stored so often, in milliseconds.
const SAVE_EVERY: u64 = 1_000;
/// What was left for servers that had no lane is read again so often at most, in milliseconds.
const AGAIN_EVERY: u64 = 10 * 60 * 1_000;

/// How far what is to be told was read.
#[derive(Debug)]
pub(crate) struct Following {
    began: bool,
    /// Where the stream is read on.
    stream: Position,
    /// The position that is stored, and its row.
    saved: Position,
    raw: Option<bytes::Bytes>,
    saved_ts: u64,
    /// Where what was left is read on.
    left: Position,
    /// Not before this time it is read from the beginning again, in milliseconds since 1970.
    again_ts: u64,
}

impl Default for Following {
    fn default() -> Self {
        Self {
            began: false,
            stream: Position::START,
            saved: Position::START,
            raw: None,
            saved_ts: 0,
            left: Position::START,
            again_ts: 0,
        }
    }
}

impl Following {
    /// Up to where the stream was read.
    pub(crate) fn reached(&self) -> Position {
        self.stream
    }
}

/// An event of ours, and who is to be told of it.
struct Telling {
    event: Queued,
    position: Position,
    servers: Vec<OwnedServerName>,
}

type Record = (Position, StreamRecord);

impl Outbox {
    /// Reads all that there is to be told now.
    pub(crate) async fn look(&self) -> error::Result<()> {
        let mut following = self.0.following.lock().await;
        if !following.began {
            self.begin(&mut following).await?;
        }
        self.take_left(&mut following).await?;
        while self.read_on(&mut following).await? {}
        self.save_place(&mut following, false).await
    }

    /// Goes on where the stream was last read, and with what was left then.
    async fn begin(&self, following: &mut Following) -> error::Result<()> {
        let snapshot = self.rooms().snapshot().await?;
        let name = self.storage().follower_hash("outbox");
        let mut reads = Reads::new();
        let row = reads.get(&POSITION_BY_FOLLOWER, &name);
        if let Some(row) = snapshot.read(&reads).await?.one(&row)? {
            following.saved = row.value.0;
            following.stream = row.value.0;
            following.raw = Some(row.raw);
        }
        while self.read_left(following, true).await? {}
        following.began = true;
        Ok(())
    }

    /// Lets lanes know that something was left for them; now and then again from the beginning, if there was no
    /// lane for some of it.
    async fn take_left(&self, following: &mut Following) -> error::Result<()> {
        let due = following.again_ts <= self.now();
        if due && std::mem::take(&mut self.0.lanes.lock().left_out) {
            following.left = Position::START;
            following.again_ts = self.now().saturating_add(AGAIN_EVERY);
        }
        while self.read_left(following, false).await? {}
        Ok(())
    }

    /// The next rows of what was left; whether there may be more. At the start a lane may have been late.
    async fn read_left(&self, following: &mut Following, start: bool) -> error::Result<bool> {
        let snapshot = self.rooms().snapshot().await?;
        let range = Range::prefix(&())
            .after(&following.left)
            .limit(LEFT_AT_ONCE);
        let rows = snapshot
            .multi_range(&DESTINATION_BY_POSITION, &[range])
            .await?;
        let rows: Vec<_> = rows.into_iter().flatten().collect();
        let federation = &self.0.parts.federation;
        let mut lanes = self.0.lanes.lock();
        for (position, row) in &rows {
            if let Ok(server) = ServerName::parse(&row.value.name) {
                let hash = self.storage().server_hash(&server);
                let away = || federation.backing_off(&server).is_some();
                match lanes.lane(&server, hash, away) {
                    Some(lane) => {
                        if let Err(at) = lane.left.binary_search(position) {
                            lane.left.insert(at, *position);
                            lane.durable = true;
                        }
                        if start && lane.late.is_none() {
                            lane.late = Some(Late::default());
                        }
                        lanes.schedule(&server);
                    }
                    // Others are not kept waiting for that.
                    None => lanes.left_out = true,
                }
            }
            following.left = *position;
        }
        Ok(rows.len() == LEFT_AT_ONCE)
    }

    /// Puts the next events of the stream into lanes; whether there may be more.
    async fn read_on(&self, following: &mut Following) -> error::Result<bool> {
        let snapshot = self.rooms().snapshot().await?;
        let records = snapshot.stream_after(following.stream, AT_ONCE).await?;
        let Some((last, _)) = records.last() else {
            return Ok(false);
        };
        let (last, more) = (*last, records.len() == AT_ONCE);
        let tellings = self.tellings(&snapshot, &records, following.stream).await?;
        let (mut parkings, mut emptied) = (Vec::new(), Vec::new());
        {
            let federation = &self.0.parts.federation;
            let mut lanes = self.0.lanes.lock();
            for telling in &tellings {
                for server in &telling.servers {
                    let hash = self.storage().server_hash(server);
                    let (event, position) = (telling.event, telling.position);
                    let park = |event: &Queued| Parking {
                        server: server.clone(),
                        hash,
                        room: event.room,
                        from: event.place,
                    };
                    let away = || federation.backing_off(server).is_some();
                    match lanes.put(server, hash, event, position, away) {
                        Put::Done => {}
                        Put::Park => parkings.push(park(&event)),
                        Put::ParkAll => {
                            emptied.push(server.clone());
                            parkings.push(park(&event));
                            let waiting = lanes.get_mut(server).into_iter();
                            parkings.extend(waiting.flat_map(|lane| lane.queue.iter()).map(park));
                        }
                    }
                }
            }
        }
        self.park(parkings, &emptied).await?;
        following.stream = last;
        Ok(more)
    }

    /// Which of these records are to be told to whom. Leaves it to be told, besides, what devices those of ours
    /// have who came into rooms.
    async fn tellings(
        &self,
        snapshot: &Snapshot,
        records: &[Record],
        before: Position,
    ) -> error::Result<Vec<Telling>> {
        let news = self.rooms().news(snapshot, records).await?;
        self.tell_devices(snapshot, &news.came).await?;
        let ours = |record: &&Record| record.1.local && !record.1.historic;
        let mut by_room: BTreeMap<ShortRoomId, Vec<(&Record, [u8; 16])>> = BTreeMap::new();
        for (record, root) in records.iter().zip(&news.roots) {
            if let (true, Some(root)) = (ours(&record), root) {
                let of_room = by_room.entry(record.1.room).or_default();
                of_room.push((record, *root));
            }
        }
        let shorts: Vec<_> = by_room.keys().copied().collect();
        let found = self.rooms().by_short(snapshot, &shorts).await?;
        let servers = self.servers_by_position(snapshot, &found, &by_room).await?;
        let mut tellings = Vec::new();
        let mut after = before;
        let now = self.now();
        for (position, record) in records {
            if let Some(there) = servers.get(position) {
                let named = record.servers.iter();
                let named = named.filter_map(|name| ServerName::parse(name).ok());
                let mut all: Vec<_> = there.iter().cloned().chain(named).collect();
                all.retain(|server| server != self.rooms().server_name());
                all.sort_unstable();
                all.dedup();
                tellings.push(Telling {
                    event: Queued {
                        after,
                        room: record.room,
                        number: record.number,
                        place: record.place.unwrap_or_default(),
                        ts: now,
                    },
                    position: *position,
                    servers: all,
                });
            }
            after = *position;
        }
        Ok(tellings)
    }

    /// The servers that were in the rooms of some records when these were written.
    async fn servers_by_position(
        &self,
        snapshot: &Snapshot,
        found: &[Arc<Room>],
        by_room: &BTreeMap<ShortRoomId, Vec<(&Record, [u8; 16])>>,
    ) -> error::Result<BTreeMap<Position, Servers>> {
        let at = snapshot.gathered(async |snapshot| {
            let rooms = found.iter().zip(by_room.values());
            let rooms = rooms.map(|(room, records)| {
                let snapshot = &snapshot;
                async move {
                    let roots: Vec<_> = records.iter().map(|(_, root)| *root).collect();
                    let servers = self.rooms().servers_at(snapshot, room, &roots).await?;
                    let positions = records.iter().map(|(record, _)| record.0);
                    Ok::<_, error::Error>(positions.zip(servers).collect::<Vec<_>>())
                }
            });
            try_join_all(rooms).await
        });
        Ok(at.await?.into_iter().flatten().collect())
    }

    /// Stores how far all was told or written down, now and then, or `now`.
    pub(crate) async fn save_place(
        &self,
        following: &mut Following,
        now: bool,
    ) -> error::Result<()> {
        let place = self.0.lanes.lock().place();
        let place = place.unwrap_or(following.stream).min(following.stream);
        let due = following.saved_ts.saturating_add(SAVE_EVERY) <= self.now();
        if place <= following.saved || !(now || due) {
            return Ok(());
        }
        let name = self.storage().follower_hash("outbox");
        let row = PositionRow(place);
        let mut batch = Batch::new();
        batch.expect_unchanged(&POSITION_BY_FOLLOWER, &name, following.raw.as_ref());
        batch.put(&POSITION_BY_FOLLOWER, &name, &row);
        match self.storage().commit(batch).await {
            Ok(_) => {
                following.raw = Some(storage::Value::encode(&row).into());
                following.saved = place;
                following.saved_ts = self.now();
                Ok(())
            }
            // It is stored the next time.
            Err(CommitError::Unknown | CommitError::Conflict(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}
