//! The queue of delayed events: each is sent when its time has come.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use storage::{
    Batch, CommitError, Found, NameHash, Range, Topic,
    schema::{self, DelayedEventRow, DelayedOutcome},
};

use crate::{Rooms, jobs::may_pass};

/// Events that are taken out of the queue together, and rooms into which they are sent side by side.
const AT_ONCE: usize = 200;
const ROOMS_AT_ONCE: usize = 20;
/// An event may have been left before anybody listened: look at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// When something of ours failed, it is tried again after this time, in milliseconds.
const RETRY: u64 = 5_000;

impl Rooms {
    /// Sends delayed events, each when its time has come, until `stop` is done.
    pub async fn send_delayed_events(&self, stop: impl Future<Output = ()>) {
        let subscription = self.storage().subscribe(&[Topic::DelayedEvents]);
        tokio::pin!(stop);
        loop {
            let next = match self.send_due_events().await {
                Ok(next) => next,
                Err(error) => {
                    tracing::error!(%error, "delayed events cannot be sent");
                    Some(self.now().saturating_add(RETRY))
                }
            };
            let wait = next.map_or(LOOK_EVERY, |next| {
                Duration::from_millis(next.saturating_sub(self.now())).min(LOOK_EVERY)
            });
            tokio::select! {
                _ = subscription.woken() => {}
                () = tokio::time::sleep(wait) => {}
                () = &mut stop => return,
            }
        }
    }

    /// Sends every delayed event whose time has come, those of one room in order. When the next one is due.
    pub(crate) async fn send_due_events(&self) -> error::Result<Option<u64>> {
        loop {
            let snapshot = self.snapshot().await?;
            let ranges = [Range::prefix(&()).limit(AT_ONCE)];
            let rows = snapshot.multi_range(&schema::DELAYED_EVENT_BY_TIME, &ranges);
            let keys = rows.await?.into_iter().flatten().map(|(key, _)| key);
            let now = self.now();
            let (due, later): (Vec<_>, Vec<_>) = keys.partition(|(due, _)| *due <= now);
            if due.is_empty() {
                return Ok(later.first().map(|(due, _)| *due));
            }
            let ids: Vec<_> = due.iter().map(|(_, id)| *id).collect();
            let rows = snapshot.multi_get(&schema::DELAYED_EVENT_BY_ID, &ids);
            let mut by_room = BTreeMap::<_, Vec<_>>::new();
            for (key, row) in due.into_iter().zip(rows.await?) {
                match row {
                    Some(row) if row.value.finalised.is_none() && row.value.due_ts == key.0 => {
                        let room = row.value.room_id.clone();
                        by_room.entry(room).or_default().push(row);
                    }
                    _ => self.leave_queue(key).await?,
                }
            }
            stream::iter(by_room.into_values())
                .for_each_concurrent(ROOMS_AT_ONCE, async |rows| {
                    for row in rows {
                        self.send_due(&row).await;
                    }
                })
                .await;
        }
    }

    /// Sends an event whose time has come, or keeps why it could not be.
    async fn send_due(&self, row: &Found<DelayedEventRow>) {
        let done = match self.send_delayed(row).await {
            Ok(_) => return,
            Err(error) => match (error.kind(), error.message()) {
                (Some(kind), Some(message)) if !may_pass(&error) => {
                    let failed = DelayedOutcome::Failed {
                        errcode: kind.errcode().to_string(),
                        error: message.to_owned(),
                    };
                    let failed = self.finalised(&row.value, failed);
                    self.change_delayed(row, &failed).await
                }
                _ => {
                    tracing::error!(%error, "a delayed event could not be sent and is tried again");
                    let later = DelayedEventRow {
                        due_ts: self.now().saturating_add(RETRY),
                        ..row.value.clone()
                    };
                    self.change_delayed(row, &later).await
                }
            },
        };
        if let Err(error) = done {
            tracing::error!(%error, "what became of a delayed event cannot be stored");
        }
    }

    /// Takes a key out of the queue under which nothing waits.
    async fn leave_queue(&self, key: (u64, NameHash)) -> error::Result<()> {
        let mut batch = Batch::new();
        batch.delete(&schema::DELAYED_EVENT_BY_TIME, &key);
        match self.storage().commit(batch).await {
            Ok(_) | Err(CommitError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
