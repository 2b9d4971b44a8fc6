//! What a user keeps of a room when it is replaced by another ([room upgrades]): tags, that it is a direct
//! chat, push rules.
//!
//! [room upgrades]: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades

use error::Result;
use ruma::{
    OwnedRoomId, RoomId, UserId,
    push::{
        ConditionalPushRule, EventMatchConditionData, PushCondition, Ruleset, SimplePushRule,
        SimplePushRuleInit,
    },
};
use serde_json::Value;
use storage::{
    Batch, CommitError, Position, Reads, ShortRoomId, ShortUserId, Storage,
    schema::{ACCOUNT_BY_USER, ACCOUNT_DATA_BY_USER, AccountDataRow, UserChange},
};

use crate::{account_data::account_data_key, change, push_rules};

/// The account data that is carried over as it is.
const TAGS: &str = "m.tag";
/// The rooms that are direct chats, by the other person.
const DIRECT: &str = "m.direct";

/// Tries to write, while the user's data changes under our hands.
const TRIES_MAX: usize = 32;

/// A room, by both of its names.
#[derive(Clone, Debug)]
pub struct NamedRoom {
    /// Its short id.
    pub short: ShortRoomId,
    /// Its id.
    pub room_id: OwnedRoomId,
}

/// Carries over what a user keeps of room `from` to room `to`, without touching what they have said of that
/// one already. Doing it twice does no harm.
///
/// # Errors
///
/// Storage fails.
pub async fn carry_over(
    storage: &Storage,
    user: ShortUserId,
    from: &NamedRoom,
    to: &NamedRoom,
) -> Result<()> {
    let key =
        |room: Option<ShortRoomId>, event_type| account_data_key(storage, user, room, event_type);
    let keys = [
        key(Some(from.short), TAGS),
        key(Some(to.short), TAGS),
        key(None, DIRECT),
        key(None, push_rules::TYPE),
    ];
    for _ in 0..TRIES_MAX {
        let snapshot = storage.snapshot(Position::START).await?;
        let mut reads = Reads::new();
        let rows = reads.get_all(&ACCOUNT_DATA_BY_USER, &keys);
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let answers = snapshot.read(&reads).await?;
        let Some(account) = answers.one(&account)? else {
            return Ok(());
        };
        let user_id =
            <&UserId>::try_from(account.value.user_id.as_str()).map_err(error::internal)?;
        let rows = answers.all(&rows)?;
        let json = |row: &Option<storage::Found<storage::Stamped<AccountDataRow>>>| {
            row.as_ref().map(|row| row.value.value.json.clone())
        };
        let [old_tags, new_tags, direct, rules] = rows.as_slice() else {
            return Err(error::internal("four keys have four answers"));
        };
        let changed = [
            (1, TAGS, json(old_tags).filter(|_| new_tags.is_none())),
            (
                2,
                DIRECT,
                json(direct).and_then(|json| with_direct(&json, from, to)),
            ),
            (
                3,
                push_rules::TYPE,
                match rules {
                    Some(row) => {
                        let rules = push_rules::ruleset(user_id, &row.value.value)?;
                        with_rules(rules, from, to)
                            .map(|rules| push_rules::to_json(&rules))
                            .transpose()?
                    }
                    None => None,
                },
            ),
        ];
        let mut batch = Batch::new();
        let mut changes = Vec::new();
        for (at, event_type, json) in changed {
            let (Some(json), Some(key), Some(row)) = (json, keys.get(at), rows.get(at)) else {
                continue;
            };
            let raw = row.as_ref().map(|row| &row.raw);
            batch.expect_unchanged(&ACCOUNT_DATA_BY_USER, key, raw);
            let index = u16::try_from(changes.len()).unwrap_or(u16::MAX);
            let event_type = event_type.to_owned();
            let row = AccountDataRow { event_type, json };
            batch.put_stamped(&ACCOUNT_DATA_BY_USER, key, index, row);
            changes.push(UserChange::AccountData(key.1, key.2));
        }
        if changes.is_empty() {
            return Ok(());
        }
        change::tell(&mut batch, user, changes);
        match storage.commit(batch).await {
            Ok(_) => return Ok(()),
            Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(error::internal("a user's account data changes too fast"))
}

/// The direct chats with the new room beside the old one; nothing if that changes nothing.
fn with_direct(json: &str, from: &NamedRoom, to: &NamedRoom) -> Option<String> {
    let mut direct: serde_json::Map<String, Value> = serde_json::from_str(json).ok()?;
    let mut changed = false;
    for rooms in direct.values_mut().filter_map(Value::as_array_mut) {
        let has = |room: &RoomId| {
            rooms
                .iter()
                .any(|other| other.as_str() == Some(room.as_str()))
        };
        if has(&from.room_id) && !has(&to.room_id) {
            rooms.push(Value::from(to.room_id.as_str()));
            changed = true;
        }
    }
    changed.then(|| Value::Object(direct).to_string())
}

/// The rules with those for the new room that there are for the old one; nothing if that changes nothing.
fn with_rules(mut rules: Ruleset, from: &NamedRoom, to: &NamedRoom) -> Option<Ruleset> {
    let mut changed = false;
    let of_room = |room: &RoomId, rules: &Ruleset| {
        let mut rules = rules.room.iter();
        rules.find(|rule| rule.rule_id == room).cloned()
    };
    if let Some(rule) = of_room(&from.room_id, &rules)
        && of_room(&to.room_id, &rules).is_none()
    {
        changed |= rules.room.insert(SimplePushRule::from(SimplePushRuleInit {
            actions: rule.actions,
            default: false,
            enabled: rule.enabled,
            rule_id: to.room_id.clone(),
        }));
    }
    for list in [&mut rules.override_, &mut rules.underride] {
        let copies: Vec<_> = list
            .iter()
            .filter_map(|rule| copy(rule, from, to))
            .collect();
        for rule in copies {
            let there = list.iter().any(|other| other.rule_id == rule.rule_id);
            if !there {
                // The user's own rules stand before those of the specification.
                list.shift_insert(0, rule);
                changed = true;
            }
        }
    }
    changed.then_some(rules)
}

/// The rule of a user's own that says of the new room what this one says of the old one.
fn copy(
    rule: &ConditionalPushRule,
    from: &NamedRoom,
    to: &NamedRoom,
) -> Option<ConditionalPushRule> {
    if rule.default {
        return None;
    }
    let mut copy = rule.clone();
    let mut named = false;
    for condition in &mut copy.conditions {
        if let PushCondition::EventMatch(data) = condition
            && data.key == "room_id"
            && data.pattern == from.room_id.as_str()
        {
            *data = EventMatchConditionData::new("room_id".to_owned(), to.room_id.to_string());
            named = true;
        }
    }
    copy.rule_id = rule
        .rule_id
        .replace(from.room_id.as_str(), to.room_id.as_str());
    // A rule of another name than the room's would be there twice under one name.
    if copy.rule_id == rule.rule_id {
        copy.rule_id = format!("{}_{}", rule.rule_id, to.room_id);
    }
    named.then_some(copy)
}
