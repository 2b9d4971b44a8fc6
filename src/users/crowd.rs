//! How many accounts there may be, if the operator set a limit.

use std::sync::atomic::{AtomicU64, Ordering};

use error::Result;
use storage::{Position, Range, Storage, schema::ACCOUNT_BY_USER};

use crate::Settings;

/// How many accounts are counted together.
const TOGETHER: usize = 5_000;

/// The accounts that are not closed: counted at the start, and then kept up.
pub(crate) struct Crowd {
    open: AtomicU64,
    most: u64,
    contact: String,
}

impl Crowd {
    /// Counts, if there is a limit.
    pub(crate) async fn count(storage: &Storage, settings: &Settings) -> Result<Option<Self>> {
        let most = settings.registration.max_users.into();
        if most == 0 {
            return Ok(None);
        }
        let (mut open, mut last) = (0_u64, None);
        loop {
            let mut range = Range::prefix(&()).limit(TOGETHER);
            if let Some(last) = last {
                range = range.after(&last);
            }
            // A view of its own each: no view is to be held long.
            let snapshot = storage.snapshot(Position::START).await?;
            let rows = snapshot.multi_range(&ACCOUNT_BY_USER, &[range]).await?;
            let rows: Vec<_> = rows.into_iter().flatten().collect();
            let counted = rows.iter().filter(|(_, found)| !found.value.deactivated);
            open += counted.count() as u64;
            last = rows.last().map(|(user, _)| *user);
            if rows.len() < TOGETHER {
                break;
            }
        }
        Ok(Some(Self {
            open: open.into(),
            most,
            contact: settings.support.uri().unwrap_or_default(),
        }))
    }

    /// Whether there may be one more.
    ///
    /// # Errors
    ///
    /// 403 `M_RESOURCE_LIMIT_EXCEEDED`.
    pub(crate) fn check(&self) -> Result<()> {
        if self.open.load(Ordering::Relaxed) < self.most {
            return Ok(());
        }
        Err(error::resource_limit_exceeded(
            self.contact.as_str(),
            "This server has as many accounts as its operator allows",
        ))
    }

    /// There is one more.
    pub(crate) fn grow(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// There is one less.
    pub(crate) fn shrink(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}
