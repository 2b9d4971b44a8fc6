//! What is done to a delayed event: it is sent, cancelled, or waits anew.

use std::sync::Arc;

use ruma::{OwnedEventId, RoomId, UserId};
use serde_json::value::RawValue;
use storage::{
    Batch, CommitError, Found, NameHash, ShortUserId, Topic,
    schema::{self, DelayedEventRow, DelayedOutcome, FinalisedRow, Sent},
};

use super::{TRIES_MAX, mark};
use crate::{Draft, Group, MoreRows, Rooms};

/// What is to be done to a delayed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DelayAction {
    /// It is sent now.
    Send,
    /// It is never sent.
    Cancel,
    /// It is sent after its whole delay, counted from now.
    Restart,
}

/// What came of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delayed {
    /// It is done, or was done before.
    Done,
    /// Something else was done before.
    Conflict,
    /// There is no such event.
    Unknown,
}

impl Rooms {
    /// Acts on a delayed event; on one of `owner` only, if one is named.
    ///
    /// # Errors
    ///
    /// For [`DelayAction::Send`] as [`Rooms::send`]; the event waits on then.
    pub async fn act_on_delayed(
        &self,
        delay_id: &str,
        owner: Option<ShortUserId>,
        action: DelayAction,
    ) -> error::Result<Delayed> {
        for _ in 0..TRIES_MAX {
            let snapshot = self.snapshot().await?;
            let row = self.find_delayed(&snapshot, delay_id).await?;
            let own =
                |row: &Found<DelayedEventRow>| owner.is_none_or(|user| row.value.user == user);
            let Some(row) = row.filter(own) else {
                return Ok(Delayed::Unknown);
            };
            if let Some(done) = &row.value.finalised {
                let sent = matches!(done.outcome, DelayedOutcome::Sent(_));
                let same = match action {
                    DelayAction::Send => sent,
                    DelayAction::Cancel => !sent,
                    DelayAction::Restart => false,
                };
                return Ok(if same {
                    Delayed::Done
                } else {
                    Delayed::Conflict
                });
            }
            let done = match action {
                DelayAction::Send => self.send_delayed(&row).await?,
                DelayAction::Cancel => {
                    let cancelled = self.finalised(&row.value, DelayedOutcome::Cancelled);
                    self.change_delayed(&row, &cancelled).await?
                }
                DelayAction::Restart => {
                    let now = self.now();
                    let restarted = DelayedEventRow {
                        since_ts: now,
                        due_ts: now.saturating_add(row.value.delay),
                        ..row.value.clone()
                    };
                    self.change_delayed(&row, &restarted).await?
                }
            };
            if done {
                return Ok(Delayed::Done);
            }
        }
        Err(error::internal("a delayed event changes too fast"))
    }

    /// Sends a delayed event. Whether it was; not if it has changed meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`]; 403 `M_USER_SUSPENDED` or `M_FORBIDDEN` if its sender may not send any more.
    pub(super) async fn send_delayed(&self, row: &Found<DelayedEventRow>) -> error::Result<bool> {
        let event = &row.value;
        self.check_may_send(event.user).await?;
        let room_id = RoomId::parse(&event.room_id).map_err(error::internal)?;
        let room = self.room(&room_id).await?;
        let sender = UserId::parse(&event.user_id).map_err(error::internal)?;
        let content = RawValue::from_string(event.content.clone()).map_err(error::internal)?;
        let draft = Draft {
            state_key: event.state_key.clone(),
            sent: Some(Sent {
                device: mark(self.storage(), &event.user_id),
                transaction_id: event.delay_id.clone(),
            }),
            ..Draft::message(sender, event.event_type.as_str(), content)
        };
        let mut group = Group::one(draft);
        group.more = Some(self.sent_rows(row));
        let sent = self.send(&room, group).await;
        let snapshot = self.snapshot().await?;
        let now = self.find_delayed(&snapshot, &event.delay_id).await?;
        match (sent, now) {
            // It says what was there already, and became no event.
            (Ok(ids), Some(now)) if now.raw == row.raw => {
                let id = ids.first().map_or(String::new(), ToString::to_string);
                let sent = self.finalised(event, DelayedOutcome::Sent(id));
                self.change_delayed(row, &sent).await
            }
            (Ok(_), _) => Ok(true),
            (Err(error), Some(now)) if now.raw == row.raw => Err(error),
            (Err(_), _) => Ok(false),
        }
    }

    /// That a delayed event was sent, for the commit of the event.
    fn sent_rows(&self, row: &Found<DelayedEventRow>) -> MoreRows {
        let (row, id) = (row.clone(), self.delay_hash(&row.value.delay_id));
        let rooms = self.clone();
        Arc::new(move |batch: &mut Batch, ids: &[OwnedEventId]| {
            let event_id = ids.first().map_or(String::new(), ToString::to_string);
            let sent = rooms.finalised(&row.value, DelayedOutcome::Sent(event_id));
            put_change(batch, id, &row, &sent);
        })
    }

    pub(super) fn finalised(
        &self,
        event: &DelayedEventRow,
        outcome: DelayedOutcome,
    ) -> DelayedEventRow {
        let ts = self.now();
        DelayedEventRow {
            finalised: Some(FinalisedRow { ts, outcome }),
            ..event.clone()
        }
    }

    /// Writes what becomes of a delayed event, unless it has changed meanwhile: whether it was written.
    pub(super) async fn change_delayed(
        &self,
        row: &Found<DelayedEventRow>,
        new: &DelayedEventRow,
    ) -> error::Result<bool> {
        let mut batch = Batch::new();
        put_change(&mut batch, self.delay_hash(&new.delay_id), row, new);
        match self.storage().commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::Unknown) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whose account was closed, locked or suspended since does not speak any more.
    async fn check_may_send(&self, user: ShortUserId) -> error::Result<()> {
        let snapshot = self.snapshot().await?;
        let rows = snapshot
            .multi_get(&schema::ACCOUNT_BY_USER, &[user])
            .await?;
        match rows.into_iter().flatten().next().map(|row| row.value) {
            Some(account) if account.deactivated || account.locked => {
                Err(error::forbidden("Your account is closed or locked"))
            }
            Some(account) if account.suspended => {
                Err(error::user_suspended("Your account is suspended"))
            }
            _ => Ok(()),
        }
    }
}

/// Puts a change of a delayed event into a batch, on the condition that it is as it was read.
fn put_change(
    batch: &mut Batch,
    id: NameHash,
    old: &Found<DelayedEventRow>,
    new: &DelayedEventRow,
) {
    batch.expect_equals(&schema::DELAYED_EVENT_BY_ID, &id, &old.raw);
    batch.put(&schema::DELAYED_EVENT_BY_ID, &id, new);
    batch.delete(&schema::DELAYED_EVENT_BY_TIME, &(old.value.due_ts, id));
    if new.finalised.is_none() {
        batch.put(&schema::DELAYED_EVENT_BY_TIME, &(new.due_ts, id), &());
        batch.wake(Topic::DelayedEvents);
    }
}
