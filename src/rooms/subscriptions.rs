//! Subscriptions to threads ([MSC4306]), and their changes in order ([MSC4308]).
//!
//! [MSC4306]: https://github.com/matrix-org/matrix-spec-proposals/pull/4306
//! [MSC4308]: https://github.com/matrix-org/matrix-spec-proposals/pull/4308

use std::sync::Arc;

use storage::{
    Batch, CommitError, Found, Range, Reads, ShortUserId, Snapshot,
    schema::{self, Place, Subscription, SubscriptionRef, SubscriptionRow},
};

use crate::{ReadEvent, Room, Rooms};

/// Tries to change a subscription, while others of the same user change under our hands.
const TRIES_MAX: usize = 20;

/// What came of a wish to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// The user is subscribed.
    Yes,
    /// They ended their subscription after the event for which their client would subscribe them.
    EndedSince,
}

/// A subscription that changed.
#[derive(Clone, Debug)]
pub struct SubscriptionChange {
    /// The room.
    pub room: Arc<Room>,
    /// How the user stands to the thread since, and which thread it is.
    pub row: SubscriptionRow,
}

/// Changes of subscriptions, the latest first.
#[derive(Clone, Debug)]
pub struct SubscriptionChanges {
    /// The changes.
    pub changes: Vec<SubscriptionChange>,
    /// The stamp up to which there may be more.
    pub next: Option<u64>,
}

impl Rooms {
    /// How a user stands to a thread, if they ever were subscribed to it. One round trip.
    pub async fn find_subscription(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
        room: &Room,
        root: &ReadEvent,
    ) -> error::Result<Option<Subscription>> {
        let key = (user, room.short, root.number);
        let rows = snapshot
            .multi_get(&schema::SUBSCRIPTION_BY_USER, &[key])
            .await?;
        let row = rows.into_iter().flatten().next();
        Ok(row.map(|row| row.value.subscription))
    }

    /// Subscribes a user to a thread: by a choice of theirs, or for the event at a place, by which their
    /// client found that it concerns them.
    pub async fn subscribe(
        &self,
        user: ShortUserId,
        room: &Room,
        root: &ReadEvent,
        cause: Option<Place>,
    ) -> error::Result<Subscribed> {
        let change = |now: Option<Subscription>| match (now, cause) {
            (Some(Subscription::Ended(end)), Some(cause)) if cause <= end => {
                Err(Subscribed::EndedSince)
            }
            (Some(Subscription::Manual), _) | (Some(Subscription::Automatic), Some(_)) => Ok(None),
            (_, Some(_)) => Ok(Some(Subscription::Automatic)),
            (_, None) => Ok(Some(Subscription::Manual)),
        };
        self.change_subscription(user, room, root, change).await
    }

    /// Ends a user's subscription to a thread, if they have one.
    pub async fn unsubscribe(
        &self,
        user: ShortUserId,
        room: &Room,
        root: &ReadEvent,
        end: Place,
    ) -> error::Result<()> {
        let change = |now: Option<Subscription>| match now {
            Some(Subscription::Manual | Subscription::Automatic) => {
                Ok(Some(Subscription::Ended(end)))
            }
            Some(Subscription::Ended(_)) | None => Ok(None),
        };
        self.change_subscription(user, room, root, change).await?;
        Ok(())
    }

    /// Writes what `change` makes of a subscription: nothing if there is nothing to change.
    async fn change_subscription(
        &self,
        user: ShortUserId,
        room: &Room,
        root: &ReadEvent,
        change: impl Fn(Option<Subscription>) -> Result<Option<Subscription>, Subscribed>,
    ) -> error::Result<Subscribed> {
        let key = (user, room.short, root.number);
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let mut reads = Reads::new();
            let row = reads.get(&schema::SUBSCRIPTION_BY_USER, &key);
            let last = Range::prefix(&(user,)).reverse().limit(1);
            let last = reads.range(&schema::SUBSCRIPTION_BY_STAMP, &last);
            let answers = snapshot.read(&reads).await?;
            let row: Option<Found<SubscriptionRow>> = answers.one(&row)?;
            let new = match change(row.as_ref().map(|row| row.value.subscription)) {
                Ok(Some(new)) => new,
                Ok(None) => return Ok(Subscribed::Yes),
                Err(not) => return Ok(not),
            };
            let last = answers.rows(&last)?;
            let after = last
                .first()
                .map_or(0, |((_, stamp), _)| stamp.saturating_add(1));
            let stamp = self.unique_time().max(after);
            let mut batch = Batch::new();
            let raw = row.as_ref().map(|row| &row.raw);
            batch.expect_unchanged(&schema::SUBSCRIPTION_BY_USER, &key, raw);
            batch.expect_absent(&schema::SUBSCRIPTION_BY_STAMP, &(user, stamp));
            if let Some(row) = &row {
                batch.delete(&schema::SUBSCRIPTION_BY_STAMP, &(user, row.value.stamp));
            }
            let thread = SubscriptionRef {
                room: room.short,
                root: root.number,
            };
            batch.put(&schema::SUBSCRIPTION_BY_STAMP, &(user, stamp), &thread);
            let row = SubscriptionRow {
                root: root.row.header.event_id.clone(),
                stamp,
                subscription: new,
            };
            batch.put(&schema::SUBSCRIPTION_BY_USER, &key, &row);
            match self.storage().commit(batch).await {
                Ok(_) => return Ok(Subscribed::Yes),
                Err(CommitError::Conflict(_) | CommitError::Unknown) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(error::internal("a user's subscriptions change too fast"))
    }

    /// The latest changes of a user's subscriptions, up to one stamp and after another. Two round trips.
    pub async fn subscription_changes(
        &self,
        user: ShortUserId,
        up_to: Option<u64>,
        after: Option<u64>,
        limit: usize,
    ) -> error::Result<SubscriptionChanges> {
        let snapshot = self.snapshot().await?;
        let mut range = Range::prefix(&(user,));
        if let Some(up_to) = up_to {
            range = range.up_to(&(user, up_to));
        }
        if let Some(after) = after {
            range = range.after(&(user, after));
        }
        let ranges = [range.reverse().limit(limit)];
        let rows = snapshot
            .multi_range(&schema::SUBSCRIPTION_BY_STAMP, &ranges)
            .await?;
        let threads: Vec<_> = rows.into_iter().flatten().collect();
        let last = threads.last().filter(|_| threads.len() == limit);
        let next = last.and_then(|((_, stamp), _)| stamp.checked_sub(1));
        let keys: Vec<_> = threads
            .iter()
            .map(|(_, thread)| (user, thread.value.room, thread.value.root))
            .collect();
        let rows = snapshot
            .multi_get(&schema::SUBSCRIPTION_BY_USER, &keys)
            .await?;
        let shorts: Vec<_> = keys.iter().map(|(_, room, _)| *room).collect();
        let rooms = self.by_short(&snapshot, &shorts).await?;
        let changes = rooms.into_iter().zip(rows).filter_map(|(room, row)| {
            let row = row?.value;
            Some(SubscriptionChange { room, row })
        });
        Ok(SubscriptionChanges {
            changes: changes.collect(),
            next,
        })
    }
}
