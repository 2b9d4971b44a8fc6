//! Account data that changed for a user.

use std::collections::{BTreeMap, BTreeSet};

use storage::{
    NameHash, Position, Range, ShortRoomId, ShortUserId, Snapshot, Stamped,
    schema::{ACCOUNT_DATA_BY_USER, AccountDataRow},
};

use crate::Reading;

/// Rows of account data by room; global ones by none.
pub(crate) type Rows = BTreeMap<ShortRoomId, Vec<AccountDataRow>>;

/// Account data that changed.
#[derive(Debug)]
pub(crate) enum AccountData {
    /// Which.
    Changed(BTreeSet<(ShortRoomId, NameHash)>),
    /// All there is, or what is newer than a position.
    Found(Rows),
}

impl AccountData {
    /// All of it that changed after a position. One round trip.
    pub(crate) async fn find(
        snapshot: &Snapshot,
        user: ShortUserId,
        since: Option<Position>,
    ) -> error::Result<Self> {
        let range = Range::prefix(&(user,));
        let rows = snapshot
            .multi_range(&ACCOUNT_DATA_BY_USER, &[range])
            .await?;
        let later = |row: &Stamped<AccountDataRow>| match since {
            Some(since) => row.position > since,
            None => !users::says_nothing(&row.value),
        };
        let mut found = Rows::new();
        for ((_, room, _), row) in rows.into_iter().flatten() {
            if later(&row.value) {
                found.entry(room).or_default().push(row.value.value);
            }
        }
        Ok(Self::Found(found))
    }

    /// The rooms in which some changed.
    pub(crate) fn rooms(&self) -> BTreeSet<ShortRoomId> {
        match self {
            Self::Changed(keys) => keys.iter().map(|(room, _)| *room).collect(),
            Self::Found(rows) => rows.keys().copied().collect(),
        }
    }
}

impl Reading<'_> {
    /// Account data that changed; push rules as they hold, at first too. One round trip.
    pub(crate) async fn account_data(&self, data: AccountData) -> error::Result<Rows> {
        let user = self.viewer().short;
        let mut data = match data {
            AccountData::Found(rows) => rows,
            AccountData::Changed(keys) => {
                let keys: Vec<_> = keys
                    .into_iter()
                    .map(|(room, kind)| (user, room, kind))
                    .collect();
                let rows = self.snapshot.multi_get(&ACCOUNT_DATA_BY_USER, &keys);
                let rows = rows.await?;
                let mut data = Rows::new();
                for ((_, room, _), row) in keys.into_iter().zip(rows) {
                    let row = row.map(|row| row.value.value);
                    data.entry(room).or_default().extend(row);
                }
                data
            }
        };
        let global = data.entry(ShortRoomId::NONE).or_default();
        let is_rules = |row: &AccountDataRow| row.event_type == users::PUSH_RULES;
        if self.since().is_none() || global.iter().any(is_rules) {
            let rules = self.syncs.0.users.push_rules_data(user).await?;
            global.retain(|row| !is_rules(row));
            global.push(AccountDataRow {
                event_type: rules.event_type,
                json: rules.content.get().to_owned(),
            });
        }
        Ok(data)
    }
}
