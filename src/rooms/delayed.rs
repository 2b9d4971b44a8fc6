//! Events that are sent later ([MSC4140]): left with the server, restarted, cancelled, sent at last.
//!
//! A delayed event is a row, and while it waits a key in a queue by time. What becomes of it is written on
//! the condition that the row is as it was read, in the commit of the event itself where it is sent: it is
//! sent once, whatever crashes and whoever else acts on it. The room's rules judge it when it is sent.
//!
//! [MSC4140]: https://github.com/matrix-org/matrix-spec-proposals/pull/4140

mod act;
mod queue;

use std::collections::BTreeSet;

use ruma::{OwnedUserId, RoomId};
use serde_json::value::RawValue;
use storage::{
    Batch, CommitError, Found, NameHash, OnceKey, Reads, ShortUserId, Snapshot, Storage, Topic,
    schema::{self, DelayedEventRow, DelayedEventsRow, EventHeader},
};

pub use self::act::{DelayAction, Delayed};
use crate::{Rooms, Viewer};

/// Letters of a delay id, six bits each: whoever knows it may act on the event.
const DELAY_ID_LETTERS: usize = 32;
/// Events of one user that are remembered after they were done with, and how long, in milliseconds.
const FINALISED_MAX: usize = 100;
const FINALISED_AGE: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Tries to store one, while others of the same user change under our hands.
const TRIES_MAX: usize = 20;

/// An event that somebody wants to be sent later.
#[derive(Clone, Debug)]
pub struct NewDelayedEvent<'a> {
    /// Whose.
    pub user: ShortUserId,
    /// Their user id.
    pub user_id: OwnedUserId,
    /// Into which room.
    pub room_id: &'a RoomId,
    /// Its type.
    pub event_type: String,
    /// Its state key, if it is a state event.
    pub state_key: Option<String>,
    /// Its content: a JSON object.
    pub content: Box<RawValue>,
    /// By how much it is to be delayed, in milliseconds.
    pub delay: u64,
    /// Makes this the only time that it is left; a second time gets the first one's id.
    pub once: Option<OnceKey>,
}

/// The delay id of an event, for its sender.
pub(crate) fn delay_id<'a>(
    storage: &Storage,
    viewer: &Viewer,
    header: &'a EventHeader,
) -> Option<&'a str> {
    let sent = header.sent.as_ref()?;
    let own = header.sender == viewer.user_id.as_str() && sent.device != viewer.device;
    (own && sent.device == mark(storage, viewer.user_id.as_str()))
        .then_some(sent.transaction_id.as_str())
}

/// What stands in the place of a device where an event was delayed.
fn mark(storage: &Storage, user_id: &str) -> NameHash {
    storage.user_device_hash(user_id, "")
}

impl Rooms {
    fn delay_hash(&self, delay_id: &str) -> NameHash {
        self.storage().hash("delayed event", delay_id)
    }

    /// Takes in an event to be sent later. Its delay id. Two round trips.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` if `most` events of this user wait already, with the time of the next one.
    pub async fn delay(&self, new: NewDelayedEvent<'_>, most: usize) -> error::Result<String> {
        let now = self.now();
        let row = DelayedEventRow {
            delay_id: self.parts().random.letters(DELAY_ID_LETTERS),
            user: new.user,
            user_id: new.user_id.to_string(),
            room_id: new.room_id.to_string(),
            event_type: new.event_type,
            state_key: new.state_key,
            content: new.content.get().to_owned(),
            delay: new.delay,
            since_ts: now,
            due_ts: now.saturating_add(new.delay),
            finalised: None,
        };
        let id = self.delay_hash(&row.delay_id);
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            if let Some(delay_id) = self.delayed_before(&snapshot, new.once).await? {
                return Ok(delay_id);
            }
            let (list, mut events) = self.delayed_of(&snapshot, new.user).await?;
            if events.iter().any(|event| event.delay_id == row.delay_id) {
                // The reply to the try before was lost.
                return Ok(row.delay_id);
            }
            let waiting = events.iter().filter(|event| event.finalised.is_none());
            let due: BTreeSet<_> = waiting.map(|event| event.due_ts).collect();
            let count = events.iter().filter(|event| event.finalised.is_none());
            if count.count() >= most {
                let next = due.first().map_or(0, |next| next.saturating_sub(now));
                let wait = std::time::Duration::from_millis(next);
                return Err(error::limit_exceeded(
                    Some(wait),
                    format!("At most {most} events of one person may wait to be sent"),
                ));
            }
            let mut batch = Batch::new();
            forget(&mut events, now);
            let mut kept: Vec<_> = events
                .iter()
                .map(|event| self.delay_hash(&event.delay_id))
                .collect();
            let known = list.iter().flat_map(|list| &list.value.events);
            for gone in known.filter(|id| !kept.contains(id)) {
                batch.delete(&schema::DELAYED_EVENT_BY_ID, gone);
            }
            kept.push(id);
            let raw = list.as_ref().map(|list| &list.raw);
            batch.expect_unchanged(&schema::DELAYED_EVENTS_BY_USER, &new.user, raw);
            let list = DelayedEventsRow { events: kept };
            batch.put(&schema::DELAYED_EVENTS_BY_USER, &new.user, &list);
            batch.put(&schema::DELAYED_EVENT_BY_ID, &id, &row);
            batch.put(&schema::DELAYED_EVENT_BY_TIME, &(row.due_ts, id), &());
            if let Some(once) = new.once {
                batch.once(once, row.delay_id.clone().into_bytes());
            }
            batch.wake(Topic::DelayedEvents);
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(row.delay_id),
                Err(CommitError::Done(answer)) => {
                    return String::from_utf8(answer).map_err(error::internal);
                }
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a user's delayed events change too fast"))
    }

    /// The delay id that was given out under a once key.
    pub async fn delayed_once(&self, once: OnceKey) -> error::Result<Option<String>> {
        self.delayed_before(&self.snapshot().await?, Some(once))
            .await
    }

    async fn delayed_before(
        &self,
        snapshot: &Snapshot,
        once: Option<OnceKey>,
    ) -> error::Result<Option<String>> {
        let keys = once.map_or(Vec::new(), |once| once.keys().to_vec());
        let rows = snapshot.multi_get(&schema::ONCE_BY_DAY, &keys).await?;
        let answer = rows.into_iter().flatten().next();
        let answer = answer.map(|row| String::from_utf8(row.value.value.answer));
        answer.transpose().map_err(error::internal)
    }

    /// A user's events that wait to be sent, the next one first. Two round trips.
    pub async fn delayed_events(&self, user: ShortUserId) -> error::Result<Vec<DelayedEventRow>> {
        let (_, events) = self.delayed_of(&self.snapshot().await?, user).await?;
        let waiting = events.into_iter().filter(|event| event.finalised.is_none());
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|event| event.due_ts);
        Ok(waiting)
    }

    /// One of a user's delayed events, one that was done with lately too.
    pub async fn find_delayed_event(
        &self,
        user: ShortUserId,
        delay_id: &str,
    ) -> error::Result<Option<DelayedEventRow>> {
        let snapshot = self.snapshot().await?;
        let row = self.find_delayed(&snapshot, delay_id).await?;
        Ok(row.map(|row| row.value).filter(|row| row.user == user))
    }

    async fn find_delayed(
        &self,
        snapshot: &Snapshot,
        delay_id: &str,
    ) -> error::Result<Option<Found<DelayedEventRow>>> {
        let mut reads = Reads::new();
        let row = reads.get(&schema::DELAYED_EVENT_BY_ID, &self.delay_hash(delay_id));
        Ok(snapshot.read(&reads).await?.one(&row)?)
    }

    /// A user's list, and the events in it.
    async fn delayed_of(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
    ) -> error::Result<(Option<Found<DelayedEventsRow>>, Vec<DelayedEventRow>)> {
        let mut reads = Reads::new();
        let list = reads.get(&schema::DELAYED_EVENTS_BY_USER, &user);
        let list = snapshot.read(&reads).await?.one(&list)?;
        let ids = list.iter().flat_map(|list| list.value.events.clone());
        let ids: Vec<_> = ids.collect();
        let rows = snapshot
            .multi_get(&schema::DELAYED_EVENT_BY_ID, &ids)
            .await?;
        let events = rows.into_iter().flatten().map(|row| row.value);
        Ok((list, events.collect()))
    }
}

/// Leaves out events that were done with too long ago, or too many later ones ago.
fn forget(events: &mut Vec<DelayedEventRow>, now: u64) {
    let done = |event: &DelayedEventRow| event.finalised.as_ref().map(|done| done.ts);
    events.sort_by_key(|event| std::cmp::Reverse(done(event).unwrap_or(u64::MAX)));
    let mut kept = 0;
    events.retain(|event| {
        let Some(ts) = done(event) else { return true };
        kept += 1;
        kept <= FINALISED_MAX && ts.saturating_add(FINALISED_AGE) > now
    });
}
