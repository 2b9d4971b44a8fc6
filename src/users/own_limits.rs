//! Limits that an operator sets for one user, instead of the usual ones.

use std::{fmt, str::FromStr};

use config::{NoRate, Rate};
use error::Result;
use ruma::UserId;
use storage::{
    Batch,
    schema::{LIMIT_BY_USER, LimitRow},
};

use crate::Users;

/// How often a user may do things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnLimits {
    /// As often as others.
    #[default]
    Usual,
    /// Messages as often as this, all else as others.
    Messages(Rate),
    /// Anything, as often as they like.
    None,
}

impl OwnLimits {
    pub(crate) fn of_row(row: &LimitRow) -> Result<Self> {
        match &row.message {
            Some(rate) => rate.parse().map(Self::Messages).map_err(error::internal),
            None => Ok(Self::None),
        }
    }
}

/// `default`, `none` or a rate like `10, then 12/min`.
impl FromStr for OwnLimits {
    type Err = NoRate;

    fn from_str(text: &str) -> Result<Self, NoRate> {
        match text {
            "default" => Ok(Self::Usual),
            "none" => Ok(Self::None),
            rate => rate.parse().map(Self::Messages),
        }
    }
}

impl fmt::Display for OwnLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usual => f.write_str("default"),
            Self::None => f.write_str("none"),
            Self::Messages(rate) => rate.fmt(f),
        }
    }
}

impl Users {
    /// The limits of a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    pub async fn own_limits(&self, user_id: &UserId) -> Result<OwnLimits> {
        let user = self.account_or_404(user_id).await?.user;
        let found = self
            .snapshot()
            .await?
            .multi_get(&LIMIT_BY_USER, &[user])
            .await?;
        let found = found.into_iter().flatten().next();
        found.map_or(Ok(OwnLimits::Usual), |found| {
            OwnLimits::of_row(&found.value)
        })
    }

    /// Sets the limits of a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    pub async fn set_own_limits(&self, user_id: &UserId, limits: OwnLimits) -> Result<()> {
        let user = self.account_or_404(user_id).await?.user;
        let message = match limits {
            OwnLimits::Messages(rate) => Some(rate.to_string()),
            OwnLimits::Usual | OwnLimits::None => None,
        };
        let mut writer = self.writer(user).await;
        loop {
            let mut batch = Batch::new();
            match limits {
                OwnLimits::Usual => batch.delete(&LIMIT_BY_USER, &user),
                OwnLimits::Messages(_) | OwnLimits::None => {
                    let message = message.clone();
                    batch.put(&LIMIT_BY_USER, &user, &LimitRow { message });
                }
            }
            if writer.commit(batch).await?.is_some() {
                break;
            }
        }
        self.forget_requesters_of(user).await
    }
}
