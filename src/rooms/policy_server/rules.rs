//! What this server lets through where it is a room's policy server.

use pdu::Pdu;
use ruma::{RoomId, events::TimelineEventType};
use serde_json::Value;
use storage::schema::Membership;

use crate::{event::MemberContent, fold};

/// Kinds of messages that are files.
const MEDIA: [&str; 4] = ["m.image", "m.video", "m.audio", "m.file"];
/// What texts begin with that are no words: the ids of events and of files.
const NO_WORDS: [&str; 2] = ["$", "mxc://"];

/// What an operator lets through, ready to be asked.
#[derive(Clone, Debug)]
pub(crate) struct PolicyRules {
    settings: config::PolicyServer,
    /// The words that are not let through, [`spaced`].
    words: Vec<String>,
}

impl PolicyRules {
    /// Those of the settings; none if this server is no policy server.
    pub(crate) fn of(settings: &config::PolicyServer) -> Option<Self> {
        let words = settings.refused_words.iter().map(|word| spaced(word));
        let words = words.collect();
        settings.enabled.then(|| Self {
            words,
            settings: settings.clone(),
        })
    }

    /// Whether this server is a policy server for a room, if somebody of it is there.
    pub(crate) fn serves(&self, room_id: &RoomId) -> bool {
        let rooms = &self.settings.rooms;
        rooms.is_empty() || rooms.iter().any(|pattern| pattern.is(room_id.as_str()))
    }

    /// Why an event is not let through, for who sends it; none if it is.
    pub(crate) fn refusal(&self, pdu: &Pdu) -> Option<&'static str> {
        let settings = &self.settings;
        if leaves(pdu) {
            return None;
        }
        let (sender, event_type) = (pdu.sender(), pdu.event_type().to_string());
        let servers = &settings.refused_servers;
        if servers
            .iter()
            .any(|one| one.is_server(sender.server_name()))
        {
            return Some("This room's policy does not let your server through");
        }
        let users = &settings.refused_users;
        if users.iter().any(|one| one.is(sender.as_str())) {
            return Some("This room's policy does not let you through");
        }
        let types = &settings.refused_types;
        if types.iter().any(|one| one.is(&event_type)) {
            return Some("This room's policy does not let events of this type through");
        }
        let content = pdu.content_bytes();
        let longest = settings.max_content.as_usize();
        if longest > 0 && content.len() > longest {
            return Some("This room's policy does not let events through that are so long");
        }
        if settings.media && self.words.is_empty() {
            return None;
        }
        let Ok(content) = serde_json::from_slice(content) else {
            return Some("This room's policy server cannot read this event");
        };
        if !settings.media && is_media(&event_type, &content) {
            return Some("This room's policy does not let files through");
        }
        let encrypted = *pdu.event_type() == TimelineEventType::RoomEncrypted;
        if !encrypted && self.has_refused_word(&content) {
            return Some("This room's policy does not let these words through");
        }
        None
    }

    /// Whether a text within the content holds words that are not let through.
    fn has_refused_word(&self, content: &Value) -> bool {
        let mut next = vec![content];
        while let Some(value) = next.pop() {
            match value {
                Value::String(text) if !NO_WORDS.iter().any(|one| text.starts_with(one)) => {
                    let text = spaced(text);
                    if self.words.iter().any(|word| text.contains(word)) {
                        return true;
                    }
                }
                Value::Array(values) => next.extend(values),
                Value::Object(members) => next.extend(members.values()),
                _ => {}
            }
        }
        false
    }
}

/// Whether somebody leaves by themselves.
fn leaves(pdu: &Pdu) -> bool {
    *pdu.event_type() == TimelineEventType::RoomMember
        && pdu.state_key() == Some(pdu.sender().as_str())
        && MemberContent::of(pdu).membership == Some(Membership::Leave)
}

/// Whether an event is a file, or edits one into its place.
fn is_media(event_type: &str, content: &Value) -> bool {
    let is_file = |content: &Value| {
        let kind = content.get("msgtype").and_then(Value::as_str);
        let message = event_type == "m.room.message";
        kind.is_some_and(|kind| MEDIA.contains(&kind))
            || message && (content.get("url").is_some() || content.get("file").is_some())
    };
    event_type == "m.sticker"
        || is_file(content)
        || content.get("m.new_content").is_some_and(is_file)
}

/// The words of a text, folded, each between spaces.
fn spaced(text: &str) -> String {
    let mut spaced = String::with_capacity(text.len().saturating_add(2));
    spaced.push(' ');
    for letter in fold(text).chars() {
        if letter.is_alphanumeric() {
            spaced.push(letter);
        } else if !spaced.ends_with(' ') {
            spaced.push(' ');
        }
    }
    if !spaced.ends_with(' ') {
        spaced.push(' ');
    }
    spaced
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::collections::BTreeMap;

    use config::Config;
    use pdu::{Draft, RoomRules, SigningKey};
    use ruma::{MilliSecondsSinceUnixEpoch, UInt, UserId};
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn rules(settings: &str) -> PolicyRules {
        let text = format!("[policy_server]\nenabled = true\n{settings}");
        PolicyRules::of(&Config::from_toml(&text).unwrap().policy_server).unwrap()
    }

    fn event(sender: &str, event_type: &str, state_key: Option<&str>, content: &Value) -> Pdu {
        let sender = UserId::parse(sender).unwrap();
        let draft = Draft {
            room_id: Some("!room:a.example".try_into().unwrap()),
            event_type: event_type.into(),
            state_key: state_key.map(ToOwned::to_owned),
            content: to_raw_value(content).unwrap(),
            prev_events: vec!["$before".try_into().unwrap()],
            auth_events: Vec::new(),
            depth: 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::from(1_u32)),
            redacts: None,
            reference_hashes: BTreeMap::new(),
            sender: sender.clone(),
        };
        let key = SigningKey::from_seed(&[1; 32], "1").unwrap();
        let rules = RoomRules::named("11").unwrap();
        draft.sign(rules, &key, sender.server_name()).unwrap()
    }

    fn says(body: &str) -> Pdu {
        let content = json!({ "msgtype": "m.text", "body": body });
        event("@u:a.example", "m.room.message", None, &content)
    }

    #[test]
    fn it_is_one_only_if_it_is_asked_to_be() {
        assert!(PolicyRules::of(&config::PolicyServer::default()).is_none());
        let open = rules("");
        assert!(open.serves("!any:where.example".try_into().unwrap()));
        assert_eq!(open.refusal(&says("anything")), None);
        let some = rules(r#"rooms = ["!a*:a.example"]"#);
        assert!(some.serves("!abc:a.example".try_into().unwrap()));
        assert!(!some.serves("!bc:a.example".try_into().unwrap()));
    }

    #[test]
    fn servers_people_types_and_lengths_are_refused() {
        let text = json!({ "msgtype": "m.text", "body": "x" });
        let by = |sender: &str| event(sender, "m.room.message", None, &text);
        let servers = rules(r#"refused_servers = ["*.evil.example"]"#);
        assert!(servers.refusal(&by("@u:A.evil.example:8448")).is_some());
        assert!(servers.refusal(&by("@u:evil.example")).is_none());
        let users = rules(r#"refused_users = ["@spam*:*"]"#);
        assert!(users.refusal(&by("@spam7:b.example")).is_some());
        assert!(users.refusal(&by("@u:spam.example")).is_none());
        let types = rules(r#"refused_types = ["m.poll.*", "m.room.encrypted"]"#);
        let of = |kind: &str| event("@u:a.example", kind, None, &json!({}));
        assert!(types.refusal(&of("m.poll.start")).is_some());
        assert!(types.refusal(&of("m.room.encrypted")).is_some());
        assert!(types.refusal(&of("m.room.message")).is_none());
        let long = rules("max_content = 40");
        assert!(long.refusal(&says(&"x".repeat(50))).is_some());
        assert!(long.refusal(&says("x")).is_none());
    }

    #[test]
    fn words_are_found_whole_however_they_are_written() {
        let words = rules(r#"refused_words = ["casino", "free money", "کازینو"]"#);
        for refused in [
            "CASINO!",
            "a (casíno)",
            "free, money",
            "Free\nMoney",
            "به كازينو بیا",
        ] {
            assert!(words.refusal(&says(refused)).is_some(), "{refused}");
        }
        for fine in ["casinos", "free the money", "money free", "casi no", ""] {
            assert!(words.refusal(&says(fine)).is_none(), "{fine}");
        }
        let nested = json!({
            "msgtype": "m.text", "body": "* fine",
            "m.new_content": { "msgtype": "m.text", "formatted_body": "<b>casino</b>" },
        });
        let edit = event("@u:a.example", "m.room.message", None, &nested);
        assert!(words.refusal(&edit).is_some());
        let id = json!({ "m.relates_to": { "event_id": "$casino", "key": "x" } });
        let reaction = event("@u:a.example", "m.reaction", None, &id);
        assert!(words.refusal(&reaction).is_none());
        let sealed = json!({ "ciphertext": "casino" });
        let sealed = event("@u:a.example", "m.room.encrypted", None, &sealed);
        assert!(words.refusal(&sealed).is_none());
    }

    #[test]
    fn files_are_refused_where_they_are_not_wanted() {
        let plain = rules("media = false");
        let open = rules("refused_words = [\"x\"]");
        let picture = json!({ "msgtype": "m.image", "body": "a", "url": "mxc://a/b" });
        let edited = json!({ "msgtype": "m.text", "body": "a", "m.new_content": picture });
        let odd = json!({ "msgtype": "org.example", "body": "a", "file": {} });
        for content in [&picture, &edited, &odd] {
            let file = event("@u:a.example", "m.room.message", None, content);
            assert!(plain.refusal(&file).is_some(), "{content}");
            assert!(open.refusal(&file).is_none(), "{content}");
        }
        let sticker = event("@u:a.example", "m.sticker", None, &json!({ "body": "a" }));
        assert!(plain.refusal(&sticker).is_some());
        assert!(plain.refusal(&says("words")).is_none());
    }

    #[test]
    fn nobody_is_kept_from_leaving() {
        let strict = rules("refused_types = [\"*\"]\nrefused_users = [\"*\"]");
        let member = |sender: &str, of: &str, membership: &str| {
            let content = json!({ "membership": membership });
            event(sender, "m.room.member", Some(of), &content)
        };
        let (one, other) = ("@u:a.example", "@v:a.example");
        assert_eq!(strict.refusal(&member(one, one, "leave")), None);
        assert!(strict.refusal(&member(one, one, "join")).is_some());
        assert!(strict.refusal(&member(one, other, "leave")).is_some());
    }
}
