//! Changes of one user's data.
//!
//! A writer has no head row as a room has. It reads a snapshot, puts a batch together whose
//! preconditions name the rows that the change rests on, and commits; if something changed in the
//! meantime, or the reply was lost, it does so again from a new snapshot. So every change is written
//! as a loop whose body may run several times, even after it was written: whatever it draws (ids,
//! tokens) is drawn before the loop, and an own trace found in the snapshot means "done".
//!
//! The lock keeps changes of one user from getting in each other's way in this process. It is an
//! optimisation: the preconditions are what keeps the data right.

use error::Result;
use storage::{Batch, CommitError, Position, ShortUserId, Snapshot, Storage};
use tokio::sync::{Mutex, MutexGuard};

/// How often a change is tried before it is given up.
const MAX_ATTEMPTS: u32 = 32;

/// How many locks there are: users who share one wait for each other now and then.
const LOCKS: usize = 1024;

/// The locks of all users, a fixed number: short ids are random, so they spread evenly.
pub(crate) struct Locks(Vec<Mutex<()>>);

impl Default for Locks {
    fn default() -> Self {
        Self((0..LOCKS).map(|_| Mutex::new(())).collect())
    }
}

impl Locks {
    async fn lock(&self, user: ShortUserId) -> Option<MutexGuard<'_, ()>> {
        let [a, b, ..] = user.0;
        let index = usize::from(u16::from_be_bytes([a, b])) % LOCKS;
        match self.0.get(index) {
            Some(lock) => Some(lock.lock().await),
            None => None,
        }
    }
}

/// The one who changes a user's data. Never hold two at once: users may share a lock.
pub(crate) struct UserWriter<'a> {
    storage: &'a Storage,
    _lock: Option<MutexGuard<'a, ()>>,
    attempts: u32,
}

impl crate::Users {
    /// Waits until nobody else in this process changes `user`.
    pub(crate) async fn writer(&self, user: ShortUserId) -> UserWriter<'_> {
        UserWriter {
            storage: &self.0.storage,
            _lock: self.0.locks.lock(user).await,
            attempts: 0,
        }
    }

    /// A writer for what has no user yet, or several.
    pub(crate) fn unlocked_writer(&self) -> UserWriter<'_> {
        UserWriter {
            storage: &self.0.storage,
            _lock: None,
            attempts: 0,
        }
    }
}

impl UserWriter<'_> {
    /// A view to prepare the change from, at least as new as any commit acknowledged so far.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.storage.snapshot(Position::START).await?)
    }

    /// Writes the change. `None`: something changed since the snapshot, or it is not known whether it
    /// was written; read again and decide again.
    ///
    /// # Errors
    ///
    /// 413 if it does not fit into one batch; internal if storage fails or somebody else was always
    /// faster.
    pub(crate) async fn commit(&mut self, batch: Batch) -> Result<Option<Position>> {
        let written = self.storage.commit(batch).await;
        self.written(written)
    }

    fn written(&mut self, written: Result<Position, CommitError>) -> Result<Option<Position>> {
        match written {
            Ok(position) => Ok(Some(position)),
            Err(CommitError::TooLarge) => Err(error::too_large("This is too much at once")),
            Err(
                failure @ (CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld),
            ) => {
                self.attempts += 1;
                if self.attempts >= MAX_ATTEMPTS {
                    return Err(error::internal(failure));
                }
                tracing::trace!(%failure, self.attempts, "a change of a user is tried again");
                Ok(None)
            }
            Err(failure) => Err(failure.into()),
        }
    }

    /// Writes a change that has a once key; whether it is written, now or by an earlier request.
    ///
    /// # Errors
    ///
    /// Those of [`commit`](Self::commit).
    pub(crate) async fn commit_once(&mut self, batch: Batch) -> Result<bool> {
        match self.storage.commit(batch).await {
            Err(CommitError::Done(_)) => Ok(true),
            other => Ok(self.written(other)?.is_some()),
        }
    }
}
