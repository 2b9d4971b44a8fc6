//! The rules of `m.room.power_levels`.

use std::{
    borrow::{Borrow, Cow},
    collections::BTreeMap,
};

use ruma::{UserId, events::StateEventType};

use super::{AuthError, State, refuse};
use crate::{
    canonical::members::{find, members},
    event::Pdu,
    power::{NamedLevel, PowerLevel, is_creator, read_level},
    version::RoomRules,
};

pub(super) fn check<P, F>(
    pdu: &Pdu,
    state: &State<'_, F, P>,
    sender_level: PowerLevel,
) -> Result<(), AuthError>
where
    F: Fn(&StateEventType, &str) -> Option<P>,
    P: Borrow<Pdu>,
{
    let rules = state.rules;
    let new = pdu.content_bytes();
    if rules.authorization.integer_power_levels {
        check_integers(new, rules)?;
    }
    check_users(new, state)?;
    let Some(current) = state.power_levels_event().map(Pdu::content_bytes) else {
        return Ok(());
    };

    for name in NamedLevel::ALL {
        // NOTSPEC: a level that is added or removed was or will be at its default, which we do not look
        // at, as Synapse does not; otherwise its rooms would part from ours.
        let change = Change {
            old: named(current, name, rules)?,
            new: named(new, name, rules)?,
        };
        if change.changes()
            && (change.old_exceeds(sender_level) || change.new_exceeds(sender_level))
        {
            return refuse(format!("changing `{}` needs more power", name.key()));
        }
    }
    let mut maps = vec!["events"];
    if rules.authorization.limit_notifications_power_levels {
        maps.push("notifications");
    }
    for field in maps {
        for (key, change) in changes(field, current, new, rules)? {
            if change.old_exceeds(sender_level) || change.new_exceeds(sender_level) {
                return refuse(format!("changing `{key}` in `{field}` needs more power"));
            }
        }
    }
    for (key, change) in changes("users", current, new, rules)? {
        let own = pdu.sender() == key.as_ref();
        let equal = change
            .old
            .is_some_and(|old| PowerLevel::from(old) >= sender_level);
        if (!own && equal) || change.old_exceeds(sender_level) || change.new_exceeds(sender_level) {
            return refuse(format!(
                "changing the power level of {key} needs more power"
            ));
        }
    }
    Ok(())
}

/// One level before and after; `None` where it is not set.
#[derive(Clone, Copy, Default)]
struct Change {
    old: Option<i64>,
    new: Option<i64>,
}

impl Change {
    fn changes(self) -> bool {
        self.old != self.new
    }

    fn old_exceeds(self, level: PowerLevel) -> bool {
        self.old.is_some_and(|old| PowerLevel::from(old) > level)
    }

    fn new_exceeds(self, level: PowerLevel) -> bool {
        self.new.is_some_and(|new| PowerLevel::from(new) > level)
    }
}

/// Since version 10 all levels must be integers, and all maps of levels objects of integers.
fn check_integers(content: &[u8], rules: &RoomRules) -> Result<(), AuthError> {
    for name in NamedLevel::ALL {
        named(content, name, rules)?;
    }
    for field in ["events", "notifications"] {
        levels(field, content, rules)?;
    }
    Ok(())
}

/// What `m.room.power_levels` must hold in every version if a client of ours sends it: integers. Versions
/// before 10 let other servers write them in other ways ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroompower_levels
///
/// # Errors
///
/// Says which level is none.
pub fn check_own_power_levels(content: &[u8]) -> Result<(), AuthError> {
    let Some(strict) = RoomRules::named("10") else {
        return Ok(());
    };
    check_integers(content, strict)?;
    levels("users", content, strict).map(drop)
}

/// `users` must be an object of levels by user ID, since version 12 without the room's creators.
fn check_users<P, F>(content: &[u8], state: &State<'_, F, P>) -> Result<(), AuthError> {
    let rules = state.rules;
    for (key, _) in levels("users", content, rules)? {
        let Ok(user) = <&UserId>::try_from(key.as_ref()) else {
            let reason = "`users` must be an object of power levels by user ID";
            return Err(AuthError::malformed(reason));
        };
        if rules.authorization.explicitly_privilege_room_creators
            && is_creator(state.create, user, rules)
        {
            return Err(AuthError::malformed(format!(
                "{user} is a creator of the room and cannot have a power level"
            )));
        }
    }
    Ok(())
}

fn named(content: &[u8], name: NamedLevel, rules: &RoomRules) -> Result<Option<i64>, AuthError> {
    let Some(value) = find(content, name.key()) else {
        return Ok(None);
    };
    read_level(value, rules)
        .ok_or_else(|| AuthError::malformed(format!("`{}` must be an integer", name.key())))
}

/// The levels of a map by key; none if the map is not there.
fn levels<'a>(
    field: &'static str,
    content: &'a [u8],
    rules: &RoomRules,
) -> Result<BTreeMap<Cow<'a, str>, Option<i64>>, AuthError> {
    let Some(map) = find(content, field) else {
        return Ok(BTreeMap::new());
    };
    let error = || AuthError::malformed(format!("`{field}` must be an object of integers"));
    if map.first() != Some(&b'{') {
        return Err(error());
    }
    members(map)
        .map(|member| {
            let key = member.key_text().ok_or_else(error)?;
            Ok((key, read_level(member.value, rules).ok_or_else(error)?))
        })
        .collect()
}

/// The entries of a map of levels that change.
fn changes<'a>(
    field: &'static str,
    current: &'a [u8],
    new: &'a [u8],
    rules: &RoomRules,
) -> Result<BTreeMap<Cow<'a, str>, Change>, AuthError> {
    let mut changes: BTreeMap<Cow<'a, str>, Change> = BTreeMap::new();
    for (key, old) in levels(field, current, rules)? {
        changes.entry(key).or_default().old = old;
    }
    for (key, new) in levels(field, new, rules)? {
        changes.entry(key).or_default().new = new;
    }
    changes.retain(|_, change| change.changes());
    Ok(changes)
}
