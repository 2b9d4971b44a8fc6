//! The tables of what operators and moderators do about people.

use serde::{Deserialize, Serialize};

use crate::{ShortUserId, table::tables, value::records};

tables! { MODERATION_TABLES:
    /// How often a user may do things, if not as often as others. Users write it.
    150 LIMIT_BY_USER Point: ShortUserId => LimitRow;
}

/// How often a user may do things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitRow {
    /// How often they may send messages, as in the settings; if none, nothing of theirs is limited.
    pub message: Option<String>,
}

records!(LimitRow);
