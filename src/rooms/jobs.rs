//! Works off what changes of people leave to be done in rooms: new names in member events, the leaving of
//! those whose accounts were closed, and word of new devices.
//!
//! Some go on side by side ([`under_way`]). Every step may be repeated: a member event that says what is there already
//! is not sent again. A job is done when its row is deleted on the condition that nobody has asked again meanwhile.

mod under_way;

use std::{sync::atomic::Ordering, time::Duration};

use http::StatusCode;
use ruma::{OwnedUserId, UserId};
use serde_json::json;
use storage::{
    Batch, CommitError, Found, NameHash, OnceKey, Range, ShortUserId, Topic,
    schema::{self, JobRow, Membership},
};
use users::job::{self, UserJob};

use self::under_way::UnderWay;
use crate::{
    Draft, Group, Rooms, Said,
    directory::LOOK_AGAIN,
    extremities::TIE_TOGETHER,
    guests::GUESTS_LEAVE,
    membership::json_content,
    partial::FILL,
    purge::PURGE,
    redact_all::REDACT_ALL,
    upgrade::{CARRY_OVER, UPGRADE},
    writer::{DROP_GENERATION, OldGeneration, drop_generation},
};

/// Jobs that are read together.
const JOBS_AT_ONCE: usize = 1_000;
/// Somebody may have left a job before anybody listened: look at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A job that failed is tried again after this time, doubled with each failure up to [`LATEST_RETRY`].
const FIRST_RETRY: u64 = 1_000;
const LATEST_RETRY: u64 = 60 * 60 * 1_000;

impl Rooms {
    /// Works off jobs until `stop` is done, some of them side by side.
    pub async fn work_off_jobs(&self, stop: impl Future<Output = ()>) {
        let subscription = self.storage().subscribe(&[Topic::Jobs]);
        let mut under_way = UnderWay::default();
        let mut look = true;
        tokio::pin!(stop);
        loop {
            if look && let Err(error) = self.find_due_jobs(&mut under_way).await {
                tracing::error!(%error, "jobs cannot be read");
            }
            under_way.begin(self);
            tokio::select! {
                _ = subscription.woken() => look = true,
                Some(done) = under_way.ended() => {
                    if let Err(error) = done {
                        tracing::error!(%error, "a job cannot be worked off");
                    }
                    look = under_way.wants_more();
                }
                () = tokio::time::sleep(LOOK_EVERY) => look = true,
                () = &mut stop => break,
            }
        }
        under_way.stop().await;
    }

    /// Works off every job that is due, and on a new day what is left of old ones.
    #[cfg(test)]
    pub(crate) async fn work_off_due_jobs(&self) -> error::Result<()> {
        let mut under_way = UnderWay::default();
        self.find_due_jobs(&mut under_way).await?;
        under_way.begin(self);
        while let Some(done) = under_way.ended().await {
            done?;
            if under_way.wants_more() {
                self.find_due_jobs(&mut under_way).await?;
            }
            under_way.begin(self);
        }
        Ok(())
    }

    /// Finds the jobs that are due, and on a new day takes away what is left of old ones.
    async fn find_due_jobs(&self, under_way: &mut UnderWay) -> error::Result<()> {
        let today = OnceKey::day_of(self.now());
        if self.0.swept_day.swap(today, Ordering::Relaxed) != today {
            self.storage().remove_old_once_keys(today).await?;
        }
        under_way.begin_to_add();
        let mut range = Range::prefix(&()).limit(JOBS_AT_ONCE);
        loop {
            let snapshot = self.snapshot().await?;
            let rows = snapshot.multi_range(&schema::JOB_BY_ID, &[range]).await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let last = rows.last().map(|(id, _)| *id);
            let more = rows.len() == JOBS_AT_ONCE;
            for (id, row) in rows {
                if row.value.not_before_ts > self.now() {
                    continue;
                }
                match row.value.kind.as_str() {
                    // It takes long, and is known to have begun.
                    FILL => self.fill_beside(id, &row),
                    _ => under_way.add(id, row),
                }
            }
            match last.filter(|_| more) {
                Some(last) => range = Range::prefix(&()).after(&last).limit(JOBS_AT_ONCE),
                None => return Ok(()),
            }
        }
    }

    async fn work_off(&self, id: NameHash, row: &Found<JobRow>) -> error::Result<()> {
        let done = match row.value.kind.as_str() {
            job::PROFILE => {
                self.repeat_profile(UserJob::from_row(&row.value)?.user)
                    .await
            }
            job::DEACTIVATE => {
                self.leave_everything(UserJob::from_row(&row.value)?.user)
                    .await
            }
            job::DEVICE_LIST => {
                self.tell_device_list(UserJob::from_row(&row.value)?.user)
                    .await
            }
            UPGRADE => self.finish_upgrade(&row.value).await,
            CARRY_OVER => self.carry_over(&row.value).await,
            GUESTS_LEAVE => self.let_guests_leave(&row.value).await,
            REDACT_ALL => self.redact_all(&row.value).await,
            LOOK_AGAIN => self.list_again(&row.value).await,
            TIE_TOGETHER => self.tie_together(&row.value).await,
            DROP_GENERATION => self.drop_old_generation(&row.value).await,
            PURGE => {
                return match self.purge_some(id, row).await {
                    Ok(()) => Ok(()),
                    failed => self.end_row(id, row, failed).await,
                };
            }
            _ => return Ok(()),
        };
        self.end_row(id, row, done).await
    }

    /// Takes a job away that is done, or leaves one that failed for later.
    pub(crate) async fn end_row(
        &self,
        id: NameHash,
        row: &Found<JobRow>,
        done: error::Result<()>,
    ) -> error::Result<()> {
        let mut batch = Batch::new();
        batch.expect_equals(&schema::JOB_BY_ID, &id, &row.raw);
        match done {
            Ok(()) => batch.delete(&schema::JOB_BY_ID, &id),
            Err(error) => {
                tracing::warn!(%error, kind = row.value.kind, "a job failed and is tried again");
                let attempts = row.value.attempts.saturating_add(1);
                let wait = FIRST_RETRY
                    .saturating_mul(1 << attempts.min(20))
                    .min(LATEST_RETRY);
                let later = JobRow {
                    attempts,
                    not_before_ts: self.now().saturating_add(wait),
                    ..row.value.clone()
                };
                batch.put(&schema::JOB_BY_ID, &id, &later);
            }
        }
        match self.storage().commit(batch).await {
            // A conflict: it was asked for again, and is still there.
            Ok(_) | Err(CommitError::Conflict(_) | CommitError::Unknown) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the flat tables away that a room has no more use for.
    async fn drop_old_generation(&self, row: &JobRow) -> error::Result<()> {
        let old: OldGeneration = postcard::from_bytes(&row.body).map_err(error::internal)?;
        let mut batch = Batch::new();
        drop_generation(&mut batch, old.room, old.generation);
        self.storage().commit(batch).await?;
        Ok(())
    }

    /// Repeats a user's profile in the rooms they are in.
    async fn repeat_profile(&self, user: ShortUserId) -> error::Result<()> {
        let Some(user_id) = self.user_id(user).await? else {
            return Ok(());
        };
        let snapshot = self.snapshot().await?;
        let users = std::slice::from_ref(&user_id);
        let mut profiles = self.profiles(&snapshot, users).await?;
        let mut content = profiles.remove(&user_id).unwrap_or_default();
        content.insert("membership".to_owned(), json!("join"));
        let mut failed = Ok(());
        for room_id in self.joined_rooms(user).await? {
            let Some(room) = self.find_room(&room_id).await? else {
                continue;
            };
            let content = json_content(content.clone())?;
            let draft = Draft::state(user_id.clone(), "m.room.member", user_id.as_str(), content);
            // A room whose policy server does not answer keeps nobody from the others.
            let sent = unless_forbidden(self.send(&room, Group::one(draft)).await);
            failed = failed.and(sent);
        }
        failed
    }

    /// Lets a user leave every room, decline every invite and take back every knock.
    async fn leave_everything(&self, user: ShortUserId) -> error::Result<()> {
        let Some(user_id) = self.user_id(user).await? else {
            return Ok(());
        };
        let snapshot = self.snapshot().await?;
        let in_them: Vec<_> = self
            .rooms_of(&snapshot, user)
            .await?
            .into_iter()
            .filter(|(_, row)| {
                matches!(
                    row.value.membership,
                    Membership::Join | Membership::Invite | Membership::Knock
                )
            })
            .map(|(room, _)| room)
            .collect();
        let mut failed = Ok(());
        for room in self.by_short(&snapshot, &in_them).await? {
            let left = unless_forbidden(self.leave(&room, &user_id, Said::default()).await);
            failed = failed.and(left);
        }
        failed
    }

    pub(crate) async fn user_id(&self, user: ShortUserId) -> error::Result<Option<OwnedUserId>> {
        let snapshot = self.snapshot().await?;
        let account = snapshot
            .multi_get(&schema::ACCOUNT_BY_USER, &[user])
            .await?
            .pop()
            .flatten();
        account
            .map(|row| UserId::parse(&row.value.user_id).map_err(error::internal))
            .transpose()
    }
}

/// Whether this server does a job of this kind by itself, without waiting for another one.
fn is_own(kind: &str) -> bool {
    matches!(
        kind,
        job::DEVICE_LIST | CARRY_OVER | LOOK_AGAIN | DROP_GENERATION | PURGE
    )
}

/// Whether the same may go well later: something is broken, away, or asked too often.
pub(crate) fn may_pass(error: &error::Error) -> bool {
    error.status().is_server_error() || error.status() == StatusCode::TOO_MANY_REQUESTS
}

/// What a room's rules do not allow now, they will not allow later either: there is nothing left to do.
pub(crate) fn unless_forbidden<T>(result: error::Result<T>) -> error::Result<()> {
    match result {
        Err(error) if may_pass(&error) => Err(error),
        _ => Ok(()),
    }
}
