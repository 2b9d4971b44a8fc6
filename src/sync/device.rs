//! What a device is told of itself: messages from other devices, and how many keys it has left.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use storage::{
    Answers, Found, NameHash, Position, Range, Reads, Rows, ShortUserId, Slot, Stamped,
    schema::{KEY_COUNTS_BY_DEVICE, KeyCountsRow, MESSAGE_BY_DEVICE},
};

use crate::Request;

/// Messages that a device is told at once.
const MESSAGES_MAX: usize = 100;
/// The algorithm whose count clients look for even if there is no such key.
const ALWAYS_COUNTED: &str = "signed_curve25519";

/// What a device is told of itself.
#[derive(Clone, Debug, Default)]
pub struct OfDevice {
    /// Messages from other devices.
    pub messages: Vec<Box<RawValue>>,
    /// One-time keys that it has left, by algorithm.
    pub one_time_keys: BTreeMap<String, u32>,
    /// Algorithms whose fallback key was not given out.
    pub unused_fallback_keys: Vec<String>,
    /// The numbers of keys changed.
    pub keys_changed: bool,
    /// Up to where messages were told; none told, none here.
    pub(crate) told: Option<Position>,
}

/// Where that will be found.
pub(crate) struct Asked {
    since: Option<Position>,
    messages: Slot<Rows<(ShortUserId, NameHash, Position), String>>,
    counts: Slot<Option<Found<Stamped<KeyCountsRow>>>>,
}

impl Asked {
    pub(crate) fn ask(reads: &mut Reads, request: &Request) -> Option<Self> {
        let key = (request.viewer.short, request.device?);
        // From the cursor on: before it lies what was removed.
        let told = request
            .since
            .map_or(Position::START, |since| since.to_device);
        let messages = Range::prefix(&key)
            .after(&(key.0, key.1, told))
            .limit(MESSAGES_MAX);
        Some(Self {
            since: request.position(),
            messages: reads.range(&MESSAGE_BY_DEVICE, &messages),
            counts: reads.get(&KEY_COUNTS_BY_DEVICE, &key),
        })
    }

    pub(crate) fn answer(&self, answers: &Answers) -> error::Result<OfDevice> {
        let rows = answers.rows(&self.messages)?;
        let told = rows.last().map(|((.., position), _)| *position);
        let messages = rows
            .into_iter()
            .map(|(_, row)| RawValue::from_string(row.value).map_err(error::internal))
            .collect::<error::Result<_>>()?;
        let counts = answers.one(&self.counts)?.map(|row| row.value);
        let later = |counts: &Stamped<KeyCountsRow>| {
            self.since.is_some_and(|since| counts.position > since)
        };
        let keys_changed = counts.as_ref().is_some_and(later);
        let counts = counts.map(|counts| counts.value).unwrap_or_default();
        let mut one_time_keys = counts.one_time;
        one_time_keys.entry(ALWAYS_COUNTED.to_owned()).or_default();
        Ok(OfDevice {
            messages,
            one_time_keys,
            unused_fallback_keys: counts.unused_fallback.into_iter().collect(),
            keys_changed,
            told,
        })
    }
}

impl OfDevice {
    /// Whether no more messages wait than it holds.
    pub(crate) fn has_all_messages(&self) -> bool {
        self.messages.len() < MESSAGES_MAX
    }

    /// What is told again if nothing happens.
    pub(crate) fn without_messages(&self) -> Self {
        Self {
            one_time_keys: self.one_time_keys.clone(),
            unused_fallback_keys: self.unused_fallback_keys.clone(),
            ..Self::default()
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty() && !self.keys_changed
    }
}
