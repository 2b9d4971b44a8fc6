//! Push rules: what of all that happens a user wants to be told of ([spec]). They are the account data
//! `m.push_rules`; until a user changes them, nothing is stored and the specification's defaults hold.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules

use error::Result;
use ruma::{UserId, push::Ruleset};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;
use storage::{
    Reads, ShortUserId, Snapshot,
    schema::{ACCOUNT_BY_USER, ACCOUNT_DATA_BY_USER},
};

use crate::{AccountData, Users, account::no_account, account_data::account_data_key};

/// The type of the account data.
pub(crate) const TYPE: &str = "m.push_rules";

/// Its content.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) global: Ruleset,
}

/// A user's rules.
pub(crate) struct Stored {
    pub(crate) rules: Ruleset,
}

impl Users {
    /// The push rules that hold for a user.
    ///
    /// # Errors
    ///
    /// 404 if there is no such user.
    pub async fn push_rules(&self, user: ShortUserId) -> Result<Ruleset> {
        let snapshot = self.snapshot().await?;
        Ok(self.stored_push_rules(&snapshot, user).await?.rules)
    }

    pub(crate) async fn stored_push_rules(
        &self,
        snapshot: &Snapshot,
        user: ShortUserId,
    ) -> Result<Stored> {
        let key = account_data_key(&self.0.storage, user, None, TYPE);
        let mut reads = Reads::new();
        let row = reads.get(&ACCOUNT_DATA_BY_USER, &key);
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let answers = snapshot.read(&reads).await?;
        let row = answers.one(&row)?;
        let account = answers.one(&account)?.ok_or_else(no_account)?;
        let user_id =
            <&UserId>::try_from(account.value.user_id.as_str()).map_err(error::internal)?;
        let defaults = Ruleset::server_default(user_id);
        let rules = match &row {
            Some(found) => {
                let json = &found.value.value.json;
                let mut content: Content = serde_json::from_str(json).map_err(error::internal)?;
                // Defaults that came with a newer specification, and those whose wording changed.
                content.global.update_with_server_default(defaults);
                content.global
            }
            None => defaults,
        };
        Ok(Stored { rules })
    }

    pub(crate) async fn push_rules_data(&self, user: ShortUserId) -> Result<AccountData> {
        let global = self.push_rules(user).await?;
        Ok(AccountData {
            event_type: TYPE.to_owned(),
            content: to_raw_value(&Content { global }).map_err(error::internal)?,
        })
    }
}
