//! Ids that are given out for files that are yet to come ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create

use std::time::Duration;

use error::Result;
use storage::{
    Batch, ShortUserId,
    schema::{MEDIA_BY_HASH, MediaRow, MediaState, PENDING_MEDIA_BY_USER},
};

use crate::{MAX_ATTEMPTS, Media, gave_up, upload::ID_LETTERS};

/// An id for a file that is yet to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The id.
    pub media_id: String,
    /// When it ends, in milliseconds since 1970.
    pub expires_ts: u64,
}

impl Media {
    /// Gives out an id to which `user` may upload a file later.
    ///
    /// # Errors
    ///
    /// 429 `M_LIMIT_EXCEEDED` when the user holds too many already.
    pub async fn create(&self, user: ShortUserId) -> Result<Created> {
        let media_id = self.0.random.letters(ID_LETTERS);
        let hash = self.hash(&media_id);
        let lifetime = u64::try_from(self.0.settings.pending_lifetime.as_millis());
        for _ in 0..MAX_ATTEMPTS {
            let snapshot = self.snapshot().await?;
            let found = snapshot.multi_get(&PENDING_MEDIA_BY_USER, &[user]).await?;
            let found = found.into_iter().flatten().next();
            let raw = found.as_ref().map(|found| found.raw.clone());
            let mut pending = found.map(|found| found.value).unwrap_or_default();
            let now = self.now();
            let mut batch = Batch::new();
            batch.expect_unchanged(&PENDING_MEDIA_BY_USER, &user, raw.as_ref());
            if let Some((_, expires_ts)) = pending.list.iter().find(|(id, _)| *id == hash) {
                // An earlier try that was written although nobody could tell.
                let expires_ts = *expires_ts;
                return Ok(Created {
                    media_id,
                    expires_ts,
                });
            }
            pending.list.retain(|(id, expires_ts)| {
                let stays = *expires_ts > now;
                if !stays {
                    batch.delete(&MEDIA_BY_HASH, id);
                }
                stays
            });
            if pending.list.len() >= self.0.settings.max_pending_uploads as usize {
                let first = pending.list.iter().map(|(_, expires_ts)| *expires_ts).min();
                let wait = first.unwrap_or(now).saturating_sub(now);
                return Err(error::limit_exceeded(
                    Some(Duration::from_millis(wait)),
                    "You hold too many ids of files that you have not uploaded yet",
                ));
            }
            let expires_ts = now.saturating_add(lifetime.unwrap_or(u64::MAX));
            pending.list.push((hash, expires_ts));
            let row = MediaRow {
                media_id: media_id.clone(),
                user,
                created_ts: now,
                state: MediaState::Pending { expires_ts },
            };
            batch.expect_absent(&MEDIA_BY_HASH, &hash);
            batch.put(&MEDIA_BY_HASH, &hash, &row);
            batch.put(&PENDING_MEDIA_BY_USER, &user, &pending);
            if self.commit(batch).await? {
                return Ok(Created {
                    media_id,
                    expires_ts,
                });
            }
        }
        Err(gave_up())
    }
}
