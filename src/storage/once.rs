//! Removing what was kept so that nothing is done twice, once nobody may ask for it again.

use crate::{Batch, NameHash, OnceKey, Position, Range, Storage, schema::ONCE_BY_DAY};

/// The first day of a calendar. What the model engine keeps for itself lies before it.
const FIRST_DAY: u32 = 1;

impl Storage {
    /// Removes the once keys of the days before those that count on `today` ([`OnceKey::day`]): one commit
    /// and one round trip a day that has any, and one round trip more.
    ///
    /// # Errors
    ///
    /// The engine fails; what was begun is gone on with the next time.
    pub async fn remove_old_once_keys(&self, today: u32) -> error::Result<()> {
        let name = NameHash([0; 16]);
        let [_, (first_kept, _)] = OnceKey { day: today, name }.keys();
        loop {
            let snapshot = self.snapshot(Position::START).await?;
            let old = Range::prefix(&())
                .from(&(FIRST_DAY, name))
                .before(&(first_kept, name))
                .limit(1);
            let rows = snapshot.multi_range(&ONCE_BY_DAY, &[old]).await?;
            let Some(((day, _), _)) = rows.into_iter().flatten().next() else {
                return Ok(());
            };
            let mut batch = Batch::new();
            // A range a day slows nobody down.
            batch.delete_prefix(&ONCE_BY_DAY, &(day,));
            self.commit(batch).await?;
        }
    }
}
