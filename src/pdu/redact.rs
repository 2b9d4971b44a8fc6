//! What a redaction leaves of an event.

use ruma::room_version_rules::RedactionRules;

use crate::{
    canonical::members::{find, members},
    version::RoomRules,
};

/// What a redaction leaves of an event.
pub(crate) fn redacted_json(json: &[u8], rules: &RoomRules) -> Vec<u8> {
    write_redacted(json, rules, true)
}

/// What the signatures of an event sign: what a redaction leaves of it, but the signatures.
pub(crate) fn signed_json(json: &[u8], rules: &RoomRules) -> Vec<u8> {
    write_redacted(json, rules, false)
}

fn write_redacted(json: &[u8], rules: &RoomRules, signatures: bool) -> Vec<u8> {
    let rules = &rules.redaction;
    let event_type = find(json, "type").and_then(unquoted).unwrap_or_default();
    let mut out = Vec::with_capacity(json.len().min(2048));
    out.push(b'{');
    for member in members(json) {
        let keep = match member.key {
            b"signatures" => signatures,
            b"origin" | b"membership" | b"prev_state" => rules.keep_origin_membership_prev_state,
            b"auth_events" | b"content" | b"depth" | b"event_id" | b"hashes"
            | b"origin_server_ts" | b"prev_events" | b"room_id" | b"sender" | b"state_key"
            | b"type" => true,
            _ => false,
        };
        if !keep {
            continue;
        }
        if out.len() > 1 {
            out.push(b',');
        }
        if member.key == b"content" {
            out.extend_from_slice(b"\"content\":");
            write_content(event_type, member.value, rules, &mut out);
        } else {
            out.extend_from_slice(json.get(member.whole).unwrap_or_default());
        }
    }
    out.push(b'}');
    out
}

/// The inside of a string, which is the string itself for every type that has rules of its own.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    value.strip_prefix(b"\"")?.strip_suffix(b"\"")
}

/// Writes what a redaction leaves of the content of an event of a type.
pub(crate) fn write_content(
    event_type: &[u8],
    content: &[u8],
    rules: &RedactionRules,
    out: &mut Vec<u8>,
) {
    if event_type == b"m.room.create" && rules.keep_room_create_content {
        out.extend_from_slice(content);
        return;
    }
    out.push(b'{');
    let start = out.len();
    for member in members(content) {
        let signed_only = event_type == b"m.room.member"
            && member.key == b"third_party_invite"
            && rules.keep_room_member_third_party_invite_signed
            && member.value.first() == Some(&b'{');
        if !signed_only && !keeps(event_type, member.key, rules) {
            continue;
        }
        if out.len() > start {
            out.push(b',');
        }
        if signed_only {
            out.extend_from_slice(b"\"third_party_invite\":{");
            if let Some(signed) = find(member.value, "signed") {
                out.extend_from_slice(b"\"signed\":");
                out.extend_from_slice(signed);
            }
            out.push(b'}');
        } else {
            out.extend_from_slice(content.get(member.whole).unwrap_or_default());
        }
    }
    out.push(b'}');
}

/// Whether a redaction leaves a key of the content of an event of a type.
fn keeps(event_type: &[u8], key: &[u8], rules: &RedactionRules) -> bool {
    match event_type {
        b"m.room.member" => match key {
            b"membership" => true,
            b"join_authorised_via_users_server" => {
                rules.keep_room_member_join_authorised_via_users_server
            }
            _ => false,
        },
        b"m.room.create" => key == b"creator",
        b"m.room.join_rules" => match key {
            b"join_rule" => true,
            b"allow" => rules.keep_room_join_rules_allow,
            _ => false,
        },
        b"m.room.power_levels" => match key {
            b"ban" | b"events" | b"events_default" | b"kick" | b"redact" | b"state_default"
            | b"users" | b"users_default" => true,
            b"invite" => rules.keep_room_power_levels_invite,
            _ => false,
        },
        b"m.room.history_visibility" => key == b"history_visibility",
        b"m.room.aliases" => key == b"aliases" && rules.keep_room_aliases_aliases,
        b"m.room.redaction" => key == b"redacts" && rules.keep_room_redaction_redacts,
        _ => false,
    }
}
