//! Sending one transaction to one server, and what comes of it.

use std::time::Duration;

use federation::{Failure, Patience};
use http::StatusCode;
use ruma::ServerName;
use storage::{
    Batch, CommitError, NameHash, Snapshot,
    schema::{DESTINATION_BY_POSITION, LATE_ROOM_BY_DESTINATION, LateRoomRow},
};

use crate::{
    Outbox,
    edus::Ephemeral,
    lanes::{PDUS_MAX, Parking, Queued},
    transaction::{EDUS_MAX, ToldRoom, Transaction},
};

/// How long a server has to take a transaction in.
const PATIENCE: Patience = Patience {
    time: Some(Duration::from_secs(60)),
    bytes: 1 << 20,
    despite_back_off: false,
};
/// A server that takes longer is slow: it shares with others such a part of what is sent at once.
const SLOW: Duration = Duration::from_secs(10);
/// How long to wait after a server has refused a transaction, doubled with each refusal; in milliseconds.
const FIRST_PAUSE: u64 = 1_000;
const LONGEST_PAUSE: u64 = 60 * 60 * 1_000;
/// How long to wait when something of ours failed.
const OWN_PAUSE: u64 = 5_000;

/// What was taken out of a lane to be sent.
struct Taken {
    hash: NameHash,
    late: bool,
    durable: bool,
    failures: u32,
    most: usize,
    queued: Vec<Queued>,
    ephemeral: Ephemeral,
}

/// What became of a transaction.
enum Outcome {
    /// The server has it.
    Sent,
    /// The server does not like what is in it.
    Disliked(String),
    /// The server did not take it.
    Failed(Failure),
}

impl Outbox {
    /// Sends a transaction to a server that was [due](Outbox::due), and gives its lane back.
    pub(crate) async fn send_one(&self, server: &ServerName) {
        let sending = self.try_to_send(server);
        tokio::pin!(sending);
        let (sent, slow) = tokio::select! {
            sent = &mut sending => (sent, false),
            () = tokio::time::sleep(SLOW) => {
                self.0.lanes.lock().is_slow(server);
                self.0.ready.notify_one();
                (sending.await, true)
            }
        };
        let not_before = match sent {
            Ok(not_before) => not_before,
            Err(error) => {
                tracing::error!(%error, %server, "what a server is to be told cannot be read");
                self.now().saturating_add(OWN_PAUSE)
            }
        };
        self.0.lanes.lock().done(server, not_before, slow);
        self.0.ready.notify_one();
    }

    /// When the next transaction may be sent, in milliseconds since 1970.
    async fn try_to_send(&self, server: &ServerName) -> error::Result<u64> {
        if let Some(until) = self.0.parts.federation.backing_off(server) {
            self.be_late(server).await?;
            return Ok(until);
        }
        let Some((taken, transaction)) = self.next_transaction(server).await? else {
            return Ok(0);
        };
        if transaction.is_empty() {
            self.sent(server, &taken, &transaction).await?;
            return Ok(0);
        }
        let outcome = self.post(server, &transaction).await;
        match outcome {
            Outcome::Sent => {
                self.sent(server, &taken, &transaction).await?;
                Ok(0)
            }
            Outcome::Disliked(why) => self.disliked(server, taken, &transaction, &why).await,
            Outcome::Failed(failure) => {
                self.put_back(server, taken.ephemeral);
                self.failed(server, &failure).await
            }
        }
    }

    /// What is to be sent next; none if nothing is left.
    async fn next_transaction(
        &self,
        server: &ServerName,
    ) -> error::Result<Option<(Taken, Transaction)>> {
        let Some(mut taken) = self.take(server) else {
            return Ok(None);
        };
        let mut transaction = Transaction::default();
        let snapshot = self.rooms().snapshot().await?;
        let alone = taken.most == 1;
        let edus = match taken.most {
            PDUS_MAX => EDUS_MAX,
            most => most,
        };
        if taken.durable || taken.late {
            self.add_durable(&snapshot, taken.hash, &mut transaction, edus)
                .await?;
        }
        let durable = !transaction.edus.is_empty();
        let room = edus.saturating_sub(transaction.edus.len());
        let with_events = taken.late || !taken.queued.is_empty();
        let (ephemeral, more) = self.take_ephemeral(server, room, with_events);
        taken.ephemeral = ephemeral;
        transaction.edus.extend(more);
        // Whatever makes a server fail, messages to devices do not wait behind it.
        let first = durable && taken.failures > 0;
        if first || (alone && !transaction.edus.is_empty()) {
            taken.queued.clear();
            return Ok(Some((taken, transaction)));
        }
        let events: Vec<_> = taken.queued.iter().map(|it| (it.room, it.number)).collect();
        self.add_events(&snapshot, server, &mut transaction, &events)
            .await?;
        if taken.durable || taken.late {
            let most = taken.most.saturating_sub(events.len());
            self.add_late(server, taken.hash, &mut transaction, most)
                .await?;
        }
        if transaction.is_empty() && transaction.does_nothing() {
            self.nothing_left(server, &snapshot).await?;
            if taken.queued.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some((taken, transaction)))
    }

    fn take(&self, server: &ServerName) -> Option<Taken> {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.get_mut(server)?;
        let late = lane.late.is_some();
        let queued = lane.queue.iter().take(lane.most).filter(|_| !late);
        Some(Taken {
            hash: lane.hash,
            late,
            durable: lane.durable || !lane.left.is_empty(),
            failures: lane.failures,
            most: lane.most,
            queued: queued.copied().collect(),
            ephemeral: Ephemeral::default(),
        })
    }

    fn take_ephemeral(
        &self,
        server: &ServerName,
        most: usize,
        with_events: bool,
    ) -> (Ephemeral, Vec<Box<serde_json::value::RawValue>>) {
        let mut lanes = self.0.lanes.lock();
        let lane = lanes.get_mut(server);
        lane.map(|lane| lane.ephemeral.take(most, with_events))
            .unwrap_or_default()
    }

    fn put_back(&self, server: &ServerName, ephemeral: Ephemeral) {
        if let Some(lane) = self.0.lanes.lock().get_mut(server) {
            lane.ephemeral.put_back(ephemeral);
        }
    }

    async fn post(&self, server: &ServerName, transaction: &Transaction) -> Outcome {
        let request = self.request(transaction);
        let federation = &self.0.parts.federation;
        let failure = match federation.ask_raw(server, request, PATIENCE).await {
            Ok(_) => return Outcome::Sent,
            Err(failure) => failure,
        };
        if let Failure::Refused(refusal) = &failure
            && matches!(
                refusal.status,
                StatusCode::BAD_REQUEST
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            )
        {
            return Outcome::Disliked(refusal.to_string());
        }
        Outcome::Failed(failure)
    }

    /// The server has it: what was kept for that is not needed any more.
    async fn sent(
        &self,
        server: &ServerName,
        taken: &Taken,
        transaction: &Transaction,
    ) -> error::Result<()> {
        if !transaction.does_nothing() {
            self.write_told(taken.hash, transaction).await?;
        }
        let mut lanes = self.0.lanes.lock();
        if let Some(lane) = lanes.get_mut(server) {
            let same = lane.queue.iter().zip(&taken.queued);
            let count = same.take_while(|(one, other)| one == other).count();
            lane.failures = 0;
            lane.most = lane.most.saturating_mul(2).min(PDUS_MAX);
            lanes.drop_first(server, count);
        }
        Ok(())
    }

    pub(crate) async fn write_told(
        &self,
        server: NameHash,
        transaction: &Transaction,
    ) -> error::Result<()> {
        let mut batch = Batch::new();
        transaction.told(&mut batch, server);
        for one in &transaction.devices {
            one.done(&mut batch, server);
        }
        for room in &transaction.rooms {
            room.done(&mut batch, server);
        }
        match self.storage().commit(batch).await {
            Ok(_) | Err(CommitError::Unknown) => return Ok(()),
            Err(CommitError::Conflict(_) | CommitError::TooOld) => {}
            Err(failure) => return Err(failure.into()),
        }
        // There is more to be told of some of it: each for itself.
        let mut batches = Vec::new();
        let mut batch = Batch::new();
        transaction.told(&mut batch, server);
        batches.push(batch);
        for one in &transaction.devices {
            let mut batch = Batch::new();
            one.done(&mut batch, server);
            batches.push(batch);
        }
        for room in &transaction.rooms {
            batches.push(self.room_told(server, room).await?);
        }
        for batch in batches {
            match self.storage().commit(batch).await {
                Ok(_) | Err(CommitError::Unknown | CommitError::Conflict(_)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    /// Puts into a batch that a server was told of a room, up to where it was.
    async fn room_told(&self, server: NameHash, told: &ToldRoom) -> error::Result<Batch> {
        let key = (server, told.room);
        let snapshot = self.rooms().snapshot().await?;
        let now = snapshot
            .multi_get(&LATE_ROOM_BY_DESTINATION, &[key])
            .await?;
        let mut batch = Batch::new();
        match now.into_iter().flatten().next() {
            Some(now) if now.raw != told.row.raw => {
                let row = LateRoomRow {
                    from: told.next.max(now.value.from),
                    again: now.value.again.wrapping_add(1),
                };
                batch.expect_equals(&LATE_ROOM_BY_DESTINATION, &key, &now.raw);
                batch.put(&LATE_ROOM_BY_DESTINATION, &key, &row);
            }
            _ => told.done(&mut batch, server),
        }
        Ok(batch)
    }

    /// The server does not like what is in it: with less it finds out what that is, which is then given up.
    async fn disliked(
        &self,
        server: &ServerName,
        taken: Taken,
        transaction: &Transaction,
        why: &str,
    ) -> error::Result<u64> {
        let size = transaction.pdus.len() + transaction.edus.len();
        if size <= 1 || taken.most <= 1 {
            tracing::warn!(%server, why, "a server refuses something for good, which is given up");
            self.sent(server, &taken, transaction).await?;
            return Ok(0);
        }
        self.put_back(server, taken.ephemeral);
        let mut lanes = self.0.lanes.lock();
        if let Some(lane) = lanes.get_mut(server) {
            lane.most = (taken.most / 2).max(1);
        }
        Ok(0)
    }

    /// The server did not take it: what waits is written down, and it is tried again later.
    async fn failed(&self, server: &ServerName, failure: &Failure) -> error::Result<u64> {
        let failures = {
            let mut lanes = self.0.lanes.lock();
            let lane = lanes.get_mut(server);
            lane.map_or(1, |lane| {
                lane.failures = lane.failures.saturating_add(1);
                lane.failures
            })
        };
        tracing::debug!(%server, %failure, failures, "a server did not take a transaction");
        self.be_late(server).await?;
        let pause = FIRST_PAUSE
            .saturating_mul(1 << failures.saturating_sub(1).min(20))
            .min(LONGEST_PAUSE);
        let mut spread = [0];
        self.0.parts.random.fill(&mut spread);
        let pause = pause + pause / 1_024 * u64::from(spread[0]);
        let until = self.0.parts.federation.backing_off(server);
        Ok(until.unwrap_or_else(|| self.now().saturating_add(pause)))
    }

    /// Writes down what waits in a lane.
    async fn be_late(&self, server: &ServerName) -> error::Result<()> {
        let (hash, queued) = {
            let mut lanes = self.0.lanes.lock();
            let Some(queued) = lanes.make_late(server) else {
                return Ok(());
            };
            (self.storage().server_hash(server), queued)
        };
        let parkings = queued.into_iter().map(|event| Parking {
            server: server.to_owned(),
            hash,
            room: event.room,
            from: event.place,
        });
        self.park(parkings.collect(), &[server.to_owned()]).await
    }

    /// Nothing was left for a server in a view: the rows that said so go.
    async fn nothing_left(&self, server: &ServerName, snapshot: &Snapshot) -> error::Result<()> {
        let seen = snapshot.position();
        let gone: Vec<_> = {
            let mut lanes = self.0.lanes.lock();
            let Some(lane) = lanes.get_mut(server) else {
                return Ok(());
            };
            let left = std::mem::take(&mut lane.left);
            let (gone, kept) = left.into_iter().partition(|position| *position <= seen);
            lane.left = kept;
            lane.durable = !lane.left.is_empty();
            gone
        };
        if gone.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for position in &gone {
            batch.delete(&DESTINATION_BY_POSITION, position);
        }
        let removed = self.storage().commit(batch).await;
        if removed.is_err()
            && let Some(lane) = self.0.lanes.lock().get_mut(server)
        {
            lane.left.extend(gone);
            lane.left.sort_unstable();
        }
        match removed {
            Ok(_) | Err(CommitError::Unknown | CommitError::Conflict(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl ToldRoom {
    /// Puts into a batch that this was told: there is no more to tell, if there was not since, or that begins
    /// later.
    pub(crate) fn done(&self, batch: &mut Batch, server: NameHash) {
        let key = (server, self.room);
        batch.expect_equals(&LATE_ROOM_BY_DESTINATION, &key, &self.row.raw);
        if self.more {
            let row = LateRoomRow {
                from: self.next,
                again: self.row.value.again.wrapping_add(1),
            };
            batch.put(&LATE_ROOM_BY_DESTINATION, &key, &row);
        } else {
            batch.delete(&LATE_ROOM_BY_DESTINATION, &key);
        }
    }
}
