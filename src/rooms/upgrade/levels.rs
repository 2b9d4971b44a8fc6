//! Power levels of upgraded rooms.

use std::collections::BTreeSet;

use pdu::RoomRules;
use serde_json::{Map, Value, json};

use super::{UpgradeRequest, content_of};
use crate::StoredEvent;

/// What somebody has who may do everything.
const ADMIN: i64 = 100;
/// `state_default`, `ban`, `kick` and `redact` where nothing is said.
const MODERATOR: i64 = 50;

/// The levels that stand beside each other in the event.
const PLAIN: [&str; 7] = [
    "ban",
    "kick",
    "redact",
    "invite",
    "events_default",
    "state_default",
    "users_default",
];

/// The power levels of a new room.
pub(super) struct Levels {
    /// Those that it has in the end.
    pub(super) levels: Map<String, Value>,
    /// Those that it begins with, where the one who upgrades needs more power to set it up.
    pub(super) raised: Option<Map<String, Value>>,
}

/// The power levels of the new room, by those of the old one. Where creators stand above all levels, they are
/// not named; where they do not, those of the old room get what an administrator has.
pub(super) fn of_new(
    rules: &RoomRules,
    create: &StoredEvent,
    old: Option<&StoredEvent>,
    request: &UpgradeRequest,
) -> Levels {
    let mut levels = old.map(content_of).unwrap_or_default();
    as_numbers(&mut levels);
    let user = request.user.as_str();
    let old_creators = creators(create);
    let users = levels.entry("users").or_insert_with(|| json!({}));
    if !users.is_object() {
        *users = json!({});
    }
    let Some(users) = users.as_object_mut() else {
        return Levels {
            levels,
            raised: None,
        };
    };
    if rules.room_id_is_create_event_id() {
        users.remove(user);
        for creator in &request.additional_creators {
            users.remove(creator.as_str());
        }
        return Levels {
            levels,
            raised: None,
        };
    }
    if old.is_none() || create_stands_above(create) {
        for creator in old_creators {
            let level = users.get(&creator).and_then(Value::as_i64);
            users.insert(creator, json!(level.unwrap_or(ADMIN).max(ADMIN)));
        }
    }
    let has = users.get(user).and_then(Value::as_i64);
    let has = has.or_else(|| levels.get("users_default")?.as_i64());
    let needed = highest_needed(&levels);
    let raised = (has.unwrap_or(0) < needed).then(|| {
        let mut raised = levels.clone();
        if let Some(users) = raised.get_mut("users").and_then(Value::as_object_mut) {
            users.insert(user.to_owned(), json!(needed));
        }
        raised
    });
    Levels { levels, raised }
}

/// Who created a room: the sender of its first event, and whom that names besides.
fn creators(create: &StoredEvent) -> BTreeSet<String> {
    let content = content_of(create);
    let named = content.get("additional_creators").and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    named
        .map(ToOwned::to_owned)
        .chain([create.header.sender.clone()])
        .collect()
}

/// Whether the room is of a version in which creators have more power than any level.
fn create_stands_above(create: &StoredEvent) -> bool {
    let content = content_of(create);
    let version = content.get("room_version").and_then(Value::as_str);
    let rules = version.and_then(RoomRules::named);
    rules.is_some_and(RoomRules::room_id_is_create_event_id)
}

/// The greatest level that anything takes.
fn highest_needed(levels: &Map<String, Value>) -> i64 {
    let plain = PLAIN.iter().filter(|name| **name != "users_default");
    let plain = plain.filter_map(|name| levels.get(*name)?.as_i64());
    let events = levels.get("events").and_then(Value::as_object);
    let events = events.into_iter().flat_map(Map::values);
    plain
        .chain(events.filter_map(Value::as_i64))
        .fold(MODERATOR, i64::max)
}

/// Old versions allow levels that are written as text or with fractions; newer ones do not.
fn as_numbers(levels: &mut Map<String, Value>) {
    let number = |value: &mut Value| {
        let read = match &*value {
            Value::String(text) => text.trim().parse().ok(),
            // Beyond its whole part no level is compared.
            #[allow(clippy::cast_possible_truncation)]
            Value::Number(number) => number.as_i64().or_else(|| Some(number.as_f64()? as i64)),
            _ => None,
        };
        if let Some(read) = read {
            let read: i64 = read;
            *value = json!(read);
        }
    };
    for name in PLAIN {
        levels.get_mut(name).map(number);
    }
    for name in ["users", "events", "notifications"] {
        let inner = levels.get_mut(name).and_then(Value::as_object_mut);
        inner.into_iter().flat_map(Map::values_mut).for_each(number);
    }
}

/// The levels of the old room in which only its moderators can still talk and invite: at least 50, and more
/// than everybody has. Nothing if that is so already.
pub(super) fn closed(mut levels: Map<String, Value>) -> Option<Map<String, Value>> {
    let read = |levels: &Map<String, Value>, name| {
        let mut copy = levels.clone();
        as_numbers(&mut copy);
        copy.get(name).and_then(Value::as_i64).unwrap_or(0)
    };
    let least = read(&levels, "users_default")
        .saturating_add(1)
        .max(MODERATOR);
    let mut changed = false;
    for name in ["events_default", "invite"] {
        if read(&levels, name) < least {
            levels.insert(name.to_owned(), json!(least));
            changed = true;
        }
    }
    changed.then_some(levels)
}
