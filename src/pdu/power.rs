//! Power levels.

use std::fmt;

use ruma::{OwnedUserId, UserId};

use crate::{
    auth::AuthError,
    canonical::members::{self, elements, find},
    event::Pdu,
    version::RoomRules,
};

/// How much a user may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PowerLevel {
    /// A level.
    Level(i64),
    /// More than any level: creators of rooms since version 12.
    Infinite,
}

impl From<i64> for PowerLevel {
    fn from(level: i64) -> Self {
        Self::Level(level)
    }
}

impl fmt::Display for PowerLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Level(level) => level.fmt(f),
            Self::Infinite => f.write_str("infinite"),
        }
    }
}

/// The levels that `m.room.power_levels` names directly in its content, with their defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedLevel {
    /// `ban`: to ban and unban. 50.
    Ban,
    /// `events_default`: to send an event that is no state event. 0.
    EventsDefault,
    /// `invite`: to invite. 0.
    Invite,
    /// `kick`: to remove others. 50.
    Kick,
    /// `redact`: to redact events of others. 50.
    Redact,
    /// `state_default`: to send a state event. 50.
    StateDefault,
    /// `users_default`: what users have who are not listed. 0.
    UsersDefault,
}

impl NamedLevel {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ban,
        Self::EventsDefault,
        Self::Invite,
        Self::Kick,
        Self::Redact,
        Self::StateDefault,
        Self::UsersDefault,
    ];

    /// Its key in the content.
    pub fn key(self) -> &'static str {
        match self {
            Self::Ban => "ban",
            Self::EventsDefault => "events_default",
            Self::Invite => "invite",
            Self::Kick => "kick",
            Self::Redact => "redact",
            Self::StateDefault => "state_default",
            Self::UsersDefault => "users_default",
        }
    }

    /// The level where the content does not say.
    pub fn default_level(self) -> i64 {
        match self {
            Self::EventsDefault | Self::Invite | Self::UsersDefault => 0,
            Self::Ban | Self::Kick | Self::Redact | Self::StateDefault => 50,
        }
    }
}

/// Who may do what in a room: the `m.room.power_levels` event of its state, if it has one, and its
/// `m.room.create` event.
///
/// Reads from the events' JSON what it is asked for and keeps nothing, so that it costs nothing to make.
/// Each answer is an error when the value asked for is not a level that the room version allows.
#[derive(Clone, Copy, Debug)]
pub struct PowerLevels<'a> {
    rules: &'a RoomRules,
    create: &'a Pdu,
    content: Option<&'a [u8]>,
}

impl<'a> PowerLevels<'a> {
    /// The power levels of a room with these events in its state.
    pub fn new(rules: &'a RoomRules, create: &'a Pdu, power_levels: Option<&'a Pdu>) -> Self {
        Self {
            rules,
            create,
            content: power_levels.map(Pdu::content_bytes),
        }
    }

    /// The level of a user.
    ///
    /// # Errors
    ///
    /// If the user's level is malformed.
    pub fn user(&self, user: &UserId) -> Result<PowerLevel, AuthError> {
        let privileged = self.rules.authorization.explicitly_privilege_room_creators;
        if privileged && is_creator(self.create, user, self.rules) {
            return Ok(PowerLevel::Infinite);
        }
        let Some(content) = self.content else {
            let creator = is_creator(self.create, user, self.rules);
            return Ok(PowerLevel::Level(if creator { 100 } else { 0 }));
        };
        let listed = match find(content, "users").and_then(|users| find(users, user.as_str())) {
            Some(value) => read_level(value, self.rules)
                .ok_or_else(|| AuthError::new(format!("the power level of {user} is malformed")))?,
            None => None,
        };
        match listed {
            Some(level) => Ok(level.into()),
            None => Ok(self.named(NamedLevel::UsersDefault)?.into()),
        }
    }

    /// Those who may have a level of their own: the room's creators, and whom the content names.
    pub fn named_users(&self) -> Vec<OwnedUserId> {
        let creators = self.create.content_member("additional_creators");
        let creators = elements(creators.unwrap_or_default()).filter_map(members::string);
        let listed = self.content.and_then(|content| find(content, "users"));
        let listed = members::members(listed.unwrap_or_default());
        let listed = listed.filter_map(|member| member.key_text());
        std::iter::once(self.create.sender().to_owned())
            .chain(
                creators
                    .chain(listed)
                    .filter_map(|user| UserId::parse(user).ok()),
            )
            .collect()
    }

    /// A level that the content names directly, or its default.
    ///
    /// # Errors
    ///
    /// If it is malformed.
    pub fn named(&self, name: NamedLevel) -> Result<i64, AuthError> {
        let Some(value) = self.content.and_then(|content| find(content, name.key())) else {
            return Ok(name.default_level());
        };
        let level = read_level(value, self.rules).ok_or_else(|| {
            AuthError::new(format!("the power level `{}` is malformed", name.key()))
        })?;
        Ok(level.unwrap_or(name.default_level()))
    }

    /// The level needed to send an event of a type, as a state event or not. Without an
    /// `m.room.power_levels` event the defaults are those of an empty one.
    ///
    /// # Errors
    ///
    /// If it is malformed.
    pub fn to_send(&self, event_type: &str, is_state: bool) -> Result<i64, AuthError> {
        let listed = self
            .content
            .and_then(|content| find(content, "events"))
            .and_then(|events| find(events, event_type));
        if let Some(value) = listed {
            let level = read_level(value, self.rules).ok_or_else(|| {
                AuthError::new(format!("the power level to send {event_type} is malformed"))
            })?;
            if let Some(level) = level {
                return Ok(level);
            }
        }
        self.named(if is_state {
            NamedLevel::StateDefault
        } else {
            NamedLevel::EventsDefault
        })
    }

    /// The level needed to notify by a key of `notifications`, such as `room` for `@room`. 50 unless set.
    ///
    /// # Errors
    ///
    /// If it is malformed.
    pub fn to_notify(&self, key: &str) -> Result<i64, AuthError> {
        let listed = self
            .content
            .and_then(|content| find(content, "notifications"))
            .and_then(|notifications| find(notifications, key));
        let Some(value) = listed else { return Ok(50) };
        let level = read_level(value, self.rules).ok_or_else(|| {
            AuthError::new(format!("the power level to notify by `{key}` is malformed"))
        })?;
        Ok(level.unwrap_or(50))
    }

    /// Whether a user has at least a named level.
    ///
    /// # Errors
    ///
    /// If one of the two is malformed.
    pub fn has(&self, user: &UserId, name: NamedLevel) -> Result<bool, AuthError> {
        Ok(self.user(user)? >= self.named(name)?.into())
    }
}

/// Whether a user is a creator of the room: the sender of its `m.room.create` event (up to version 10
/// the `creator` it names), and since version 12 its `additional_creators`.
pub fn is_creator(create: &Pdu, user: &UserId, rules: &RoomRules) -> bool {
    let auth = &rules.authorization;
    is_first_creator(create, user.as_str(), rules)
        || (auth.additional_room_creators
            && elements(
                create
                    .content_member("additional_creators")
                    .unwrap_or_default(),
            )
            .filter_map(members::string)
            .any(|creator| creator == user.as_str()))
}

/// Whether a user is the one creator that versions before 12 know.
pub(crate) fn is_first_creator(create: &Pdu, user: &str, rules: &RoomRules) -> bool {
    if rules.authorization.use_room_create_sender {
        create.sender() == user
    } else {
        create.content_string("creator").as_deref() == Some(user)
    }
}

/// A level as a room version lets it be written: `Some(None)` for one that counts as not there, `None`
/// for what is no level.
///
/// Since version 10 an integer. Before also a fraction, which is cut off, and a string of an integer with
/// zeros, a sign or spaces in front
/// ([spec](https://spec.matrix.org/v1.19/rooms/v1/#mroompower_levels-events-accept-values-as-strings)).
/// What exceeds 64 bits is the largest level there is.
///
/// NOTSPEC: `null` before version 10 counts as not there, as in Synapse.
pub(crate) fn read_level(value: &[u8], rules: &RoomRules) -> Option<Option<i64>> {
    if rules.authorization.integer_power_levels {
        return members::integer(value).map(Some);
    }
    match value.first()? {
        b'n' => Some(None),
        b'"' => {
            let text = members::string(value)?;
            let text = text.trim();
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
            let valid = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            valid.then(|| Some(saturating_integer(text)))
        }
        b'-' | b'0'..=b'9' => {
            let text = std::str::from_utf8(value).ok()?;
            if text.contains(['.', 'e', 'E']) {
                // Casts cut the fraction off and saturate.
                return text.parse::<f64>().ok().map(|level| Some(level as i64));
            }
            Some(Some(saturating_integer(text)))
        }
        _ => None,
    }
}

fn saturating_integer(text: &str) -> i64 {
    let limit = if text.starts_with('-') {
        i64::MIN
    } else {
        i64::MAX
    };
    text.parse().unwrap_or(limit)
}
