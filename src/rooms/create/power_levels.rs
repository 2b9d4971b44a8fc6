//! The power levels that a new room begins with.

use pdu::RoomRules;
use ruma::OwnedUserId;
use serde_json::{Map, Value, json};

use super::NewRoomRequest;

/// What an administrator has.
const ADMIN: i64 = 100;

/// The content of `m.room.power_levels`: what clients and other servers expect of a new room, changed
/// by the preset and by what the client asked for.
///
/// # Errors
///
/// 400 `M_BAD_JSON` if the override takes the creator's power away where only the event gives it.
pub(super) fn power_levels(
    rules: &RoomRules,
    request: &NewRoomRequest,
    admins: &[OwnedUserId],
) -> error::Result<Map<String, Value>> {
    // Since version 12 creators have more power than the event can say, and must not be in it.
    let creators_stand_above = rules.room_id_is_create_event_id();
    let mut users = Map::new();
    if !creators_stand_above {
        users.extend(
            std::iter::once(&request.creator)
                .chain(admins)
                .map(|user| (user.to_string(), json!(ADMIN))),
        );
    }
    let tombstone = if creators_stand_above { 150 } else { ADMIN };
    let invite = match request.preset {
        super::Preset::PublicChat => 50,
        // Everybody may bring people in whom they want to talk to.
        super::Preset::PrivateChat | super::Preset::TrustedPrivateChat => 0,
    };
    let mut content = json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.encryption": ADMIN,
            "m.room.history_visibility": ADMIN,
            "m.room.name": 50,
            "m.room.power_levels": ADMIN,
            "m.room.server_acl": ADMIN,
            "m.room.tombstone": tombstone,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
        "historical": ADMIN,
    });
    let Some(content) = content.as_object_mut() else {
        return Err(error::internal("power levels are not an object"));
    };
    if let Some(overrides) = &request.power_level_content_override {
        let users = overrides.get("users").and_then(Value::as_object);
        if !creators_stand_above
            && users.is_some_and(|users| !users.contains_key(request.creator.as_str()))
        {
            return Err(error::bad_json(
                "power_level_content_override: users must contain the room's creator",
            ));
        }
        content.extend(overrides.clone());
    }
    Ok(std::mem::take(content))
}
