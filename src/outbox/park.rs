//! Writing down of which rooms a server has not been told.

use std::collections::BTreeMap;

use ruma::OwnedServerName;
use storage::{
    Batch, CommitError, Position,
    schema::{DESTINATION_BY_POSITION, DestinationRow, LATE_ROOM_BY_DESTINATION, LateRoomRow},
};

use crate::{Outbox, lanes::Parking};

/// So many rows are written in one commit.
const AT_ONCE: usize = 2_000;
/// Tries to write them, while others work them off.
const TRIES_MAX: usize = 20;

impl Outbox {
    /// Writes down from where on servers have to be told of rooms. `emptied` are those all of whose waiting events
    /// are among it: they wait no more. If it cannot be written these wait as before.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub(crate) async fn park(
        &self,
        parkings: Vec<Parking>,
        emptied: &[OwnedServerName],
    ) -> error::Result<()> {
        if parkings.is_empty() {
            return Ok(());
        }
        let mut rows: BTreeMap<_, Parking> = BTreeMap::new();
        for parking in parkings {
            let key = (parking.hash, parking.room);
            let from = parking.from;
            let row = rows.entry(key).or_insert(parking);
            row.from = row.from.min(from);
        }
        let rows: Vec<_> = rows.into_values().collect();
        let turn = self.0.lanes.lock().turn();
        let mut written = Ok(());
        for some in rows.chunks(AT_ONCE) {
            if written.is_ok() {
                written = self.write_late(some).await;
            }
        }
        let mut lanes = self.0.lanes.lock();
        if written.is_ok() {
            for parking in &rows {
                lanes.parked(&parking.server, parking.room, turn);
            }
        }
        for server in emptied {
            match &written {
                Ok(()) => lanes.drop_first(server, usize::MAX),
                Err(_) => {
                    if let Some(lane) = lanes.get_mut(server) {
                        lane.late = None;
                    }
                }
            }
            lanes.schedule(server);
        }
        self.0.ready.notify_one();
        written
    }

    async fn write_late(&self, parkings: &[Parking]) -> error::Result<()> {
        let keys: Vec<_> = parkings
            .iter()
            .map(|parking| (parking.hash, parking.room))
            .collect();
        for _ in 0..TRIES_MAX {
            let snapshot = self.rooms().snapshot().await?;
            let old = snapshot.multi_get(&LATE_ROOM_BY_DESTINATION, &keys).await?;
            let mut batch = Batch::new();
            for ((parking, key), old) in parkings.iter().zip(&keys).zip(&old) {
                let row = match old {
                    Some(old) => LateRoomRow {
                        from: old.value.from.min(parking.from),
                        again: old.value.again.wrapping_add(1),
                    },
                    None => LateRoomRow {
                        from: parking.from,
                        again: 0,
                    },
                };
                let raw = old.as_ref().map(|old| &old.raw);
                batch.expect_unchanged(&LATE_ROOM_BY_DESTINATION, key, raw);
                batch.put(&LATE_ROOM_BY_DESTINATION, key, &row);
            }
            let mut servers: Vec<_> = parkings.iter().map(|parking| &parking.server).collect();
            servers.dedup();
            for (index, server) in (0..u16::MAX).zip(servers) {
                let name = server.to_string();
                let (position, row) = (Position::pending(index), DestinationRow { name });
                batch.put(&DESTINATION_BY_POSITION, &position, &row);
            }
            batch.wake(storage::Topic::Destinations);
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(error::internal("what a server lacks changes too fast"))
    }
}
