//! Where the next page of results begins: `next_batch`.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use storage::{NameHash, ShortRoomId};

use crate::hits::Order;

/// Longer than any token.
const LENGTH_MAX: usize = 200;

/// A place in the order of results, of all of them or of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextBatch {
    pub(crate) after: Order,
    pub(crate) by_rank: bool,
    pub(crate) group: Option<Group>,
}

/// Results that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Group {
    /// Those in a room.
    Room(ShortRoomId),
    /// Those by a sender, by the hash of their id.
    Sender(NameHash),
}

impl fmt::Display for NextBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = postcard::to_allocvec(self).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// A text that is no such token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoNextBatch;

impl FromStr for NextBatch {
    type Err = NoNextBatch;

    fn from_str(text: &str) -> Result<Self, NoNextBatch> {
        if text.len() > LENGTH_MAX {
            return Err(NoNextBatch);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoNextBatch)?;
        match postcard::take_from_bytes(&bytes) {
            Ok((token, [])) => Ok(token),
            _ => Err(NoNextBatch),
        }
    }
}
