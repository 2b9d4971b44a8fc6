//! What a change of a user leaves to be done in rooms.
//!
//! A job is left in the batch of the change that asks for it. There is one row a kind and user: asking
//! again replaces it, and whoever works a job off reads what holds now. It is done when its row is
//! deleted on the condition that it [`Equals`](storage::batch::Precondition::Equals) what was read, so
//! that what is asked meanwhile is not lost.

use serde::{Deserialize, Serialize};
use storage::{Batch, NameHash, ShortUserId, Topic, schema::JobRow};

use crate::Users;

/// The user's profile changed: their member events in joined rooms have to follow.
pub const PROFILE: &str = "profile";
/// The user's account was closed: they leave all their rooms, and what is left of their devices goes.
pub const DEACTIVATE: &str = "deactivate";
/// The user's devices or their keys changed: those who share an encrypted room have to hear of it.
pub const DEVICE_LIST: &str = "device list";

/// The body of these jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserJob {
    /// Whose.
    pub user: ShortUserId,
    /// Tells one asking from the next.
    pub asked: [u8; 8],
}

impl UserJob {
    /// Reads the body of a job.
    ///
    /// # Errors
    ///
    /// Internal, if it is not the body of one of these.
    pub fn from_row(row: &JobRow) -> error::Result<Self> {
        postcard::from_bytes(&row.body).map_err(error::internal)
    }
}

impl Users {
    /// The key of the job of a kind for a user.
    pub fn job_id(&self, kind: &str, user: ShortUserId) -> NameHash {
        self.0
            .storage
            .hash("user job", [kind.as_bytes(), &[0], &user.0].concat())
    }
}

/// Leaves a job of `kind` for `user`.
pub(crate) fn leave(batch: &mut Batch, users: &Users, kind: &str, user: ShortUserId) {
    let mut asked = [0; 8];
    users.0.random.fill(&mut asked);
    let row = JobRow {
        kind: kind.to_owned(),
        // Plain data into a vector has no way to fail.
        body: postcard::to_allocvec(&UserJob { user, asked }).unwrap_or_default(),
        not_before_ts: 0,
        attempts: 0,
    };
    batch.put(&storage::schema::JOB_BY_ID, &users.job_id(kind, user), &row);
    batch.wake(Topic::Jobs);
}
