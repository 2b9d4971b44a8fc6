//! The rules of each room version.

use std::ops::Deref;

use ruma::{
    RoomVersionId,
    room_version_rules::{EventIdFormatVersion, RoomIdFormatVersion, RoomVersionRules},
};

use crate::canonical::Numbers;

/// The rules of one room version: Ruma's, and the few besides that Ruma has no word for.
///
/// Get one by [`RoomRules::of`]; all of them are constants.
#[derive(Debug)]
pub struct RoomRules {
    version: &'static str,
    rules: RoomVersionRules,
    owned_state: bool,
}

impl Deref for RoomRules {
    type Target = RoomVersionRules;

    fn deref(&self) -> &RoomVersionRules {
        &self.rules
    }
}

const fn stable(version: &'static str, rules: RoomVersionRules) -> RoomRules {
    RoomRules {
        version,
        rules,
        owned_state: false,
    }
}

/// MSC3757: state keys that begin with a user's ID and `_` belong to that user.
const fn owned_state(version: &'static str, rules: RoomVersionRules) -> RoomRules {
    RoomRules {
        version,
        rules,
        owned_state: true,
    }
}

static ALL: [RoomRules; 14] = [
    stable("1", RoomVersionRules::V1),
    stable("2", RoomVersionRules::V2),
    stable("3", RoomVersionRules::V3),
    stable("4", RoomVersionRules::V4),
    stable("5", RoomVersionRules::V5),
    stable("6", RoomVersionRules::V6),
    stable("7", RoomVersionRules::V7),
    stable("8", RoomVersionRules::V8),
    stable("9", RoomVersionRules::V9),
    stable("10", RoomVersionRules::V10),
    stable("11", RoomVersionRules::V11),
    stable("12", RoomVersionRules::V12),
    owned_state("org.matrix.msc3757.10", RoomVersionRules::V10),
    owned_state("org.matrix.msc3757.11", RoomVersionRules::V11),
];

impl RoomRules {
    /// The rules of a room version; `None` if we do not know it.
    pub fn of(version: &RoomVersionId) -> Option<&'static Self> {
        Self::named(version.as_str())
    }

    /// The rules of the room version of that name; `None` if we do not know it.
    pub fn named(version: &str) -> Option<&'static Self> {
        ALL.iter().find(|rules| rules.version == version)
    }

    /// All room versions we know, stable ones first.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        ALL.iter()
    }

    /// The version's name, as in `m.room.create`'s `room_version`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The version as Ruma's type.
    pub fn version_id(&self) -> RoomVersionId {
        // Only the empty string and strings longer than 32 characters are no version, and ours are known.
        RoomVersionId::try_from(self.version).unwrap_or(RoomVersionId::V1)
    }

    /// Whether the version has a finished specification, so that new rooms may use it without notice.
    pub fn is_stable(&self) -> bool {
        !self.owned_state
    }

    /// Which numbers events may hold.
    pub fn numbers(&self) -> Numbers {
        if self.rules.authorization.strict_canonical_json {
            Numbers::Canonical
        } else {
            Numbers::Any
        }
    }

    /// Whether events carry their own ID (versions 1 and 2) instead of being named by their hash.
    pub fn has_event_id_field(&self) -> bool {
        self.rules.event_id_format == EventIdFormatVersion::V1
    }

    /// Whether the room is named by its `m.room.create` event (since version 12), which then has no
    /// `room_id` and is never among the `auth_events`.
    pub fn room_id_is_create_event_id(&self) -> bool {
        self.rules.room_id_format == RoomIdFormatVersion::V2
    }

    /// Whether the lengths of fields are counted in code points instead of bytes.
    ///
    /// NOTSPEC: all versions count bytes ([spec]). Synapse counts code points before version 11, so there are
    /// such events in rooms, and a server that drops them would not have what others follow.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
    pub fn counts_code_points(&self) -> bool {
        self.has_creator_field()
    }

    /// Whether `m.room.create` names the room's creator in its content (before version 11).
    pub fn has_creator_field(&self) -> bool {
        !self.rules.authorization.use_room_create_sender
    }

    /// MSC3757: whether state keys that begin with a user's ID and `_` belong to that user, and people
    /// with more power may set the state of others.
    pub fn has_owned_state(&self) -> bool {
        self.owned_state
    }
}
