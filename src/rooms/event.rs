//! Events in memory, and what their contents say to us.

use std::sync::Arc;

use pdu::{EventNumber, Pdu, RoomRules};
use ruma::{EventId, OwnedEventId, OwnedUserId, UserId};
use serde::Deserialize;
use storage::schema::{EventHeader, EventRow, Membership};

/// The types of events that the default push rules count.
const COUNTED: [&str; 5] = [
    "m.room.message",
    "m.room.encrypted",
    "m.call.invite",
    "org.matrix.msc3381.poll.start",
    "org.matrix.msc3381.poll.end",
];

/// An event of a room, in memory.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its number in the room.
    pub number: EventNumber,
    /// What is known of it without parsing.
    pub header: EventHeader,
    /// The event.
    pub pdu: Arc<Pdu>,
}

impl StoredEvent {
    /// Makes an event again of its row.
    pub(crate) fn from_row(
        number: EventNumber,
        row: EventRow,
        rules: &RoomRules,
        rejected: bool,
    ) -> error::Result<Self> {
        let event_id = EventId::parse(&row.header.event_id).map_err(error::internal)?;
        let pdu = Pdu::from_stored(event_id, row.json, rules, rejected).map_err(error::internal)?;
        Ok(Self {
            number,
            header: row.header,
            pdu: Arc::new(pdu),
        })
    }

    /// The row in which it is stored.
    pub(crate) fn row(&self) -> EventRow {
        EventRow {
            header: self.header.clone(),
            json: self.pdu.json().clone(),
        }
    }

    /// For a member event: what it says.
    pub(crate) fn member(&self) -> MemberContent {
        MemberContent::of(&self.pdu)
    }
}

/// What a member event says, read as leniently as the auth rules do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberContent {
    pub(crate) membership: Option<Membership>,
    pub(crate) displayname: Option<String>,
    pub(crate) avatar_url: Option<String>,
}

impl MemberContent {
    pub(crate) fn of(pdu: &Pdu) -> Self {
        #[derive(Deserialize)]
        struct Content {
            membership: Option<serde_json::Value>,
            displayname: Option<serde_json::Value>,
            avatar_url: Option<serde_json::Value>,
        }
        let text = |value: Option<serde_json::Value>| match value {
            Some(serde_json::Value::String(text)) => Some(text),
            _ => None,
        };
        let Ok(content) = serde_json::from_slice::<Content>(pdu.content_bytes()) else {
            return Self::default();
        };
        Self {
            membership: text(content.membership).as_deref().and_then(membership),
            displayname: text(content.displayname),
            avatar_url: text(content.avatar_url),
        }
    }
}

/// The membership of that name.
pub(crate) fn membership(name: &str) -> Option<Membership> {
    Some(match name {
        "join" => Membership::Join,
        "invite" => Membership::Invite,
        "knock" => Membership::Knock,
        "leave" => Membership::Leave,
        "ban" => Membership::Ban,
        _ => return None,
    })
}

/// What an event's content says about other events and people, as far as we act on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mentions {
    /// The event it relates to, and how.
    pub(crate) relation: Option<Relation>,
    /// The people it mentions, at most [`MENTIONS_MAX`]: those of `m.mentions`, or where it has none, those
    /// whom its body [names](named_in).
    pub(crate) users: Vec<OwnedUserId>,
    /// It mentions the whole room.
    pub(crate) room: bool,
    /// `msgtype`
    pub(crate) msgtype: Option<String>,
    /// Its `rel_type` is `m.replace`, whatever it relates to.
    pub(crate) edit: bool,
}

/// How an event relates to another.
#[derive(Clone, Debug)]
pub(crate) struct Relation {
    pub(crate) parent: OwnedEventId,
    pub(crate) rel_type: String,
    pub(crate) key: Option<String>,
}

/// So many people are notified of one event by name; the rest have to read it.
const MENTIONS_MAX: usize = 100;

impl Mentions {
    pub(crate) fn of(pdu: &Pdu) -> Self {
        Self::of_content(pdu.content_bytes())
    }

    pub(crate) fn of_content(content: &[u8]) -> Self {
        use serde_json::Value;
        let Ok(Value::Object(content)) = serde_json::from_slice(content) else {
            return Self::default();
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
        let relation = content.get("m.relates_to").and_then(|relates| {
            Some(Relation {
                parent: EventId::parse(relates.get("event_id")?.as_str()?).ok()?,
                rel_type: text(relates.get("rel_type"))?,
                key: text(relates.get("key")),
            })
        });
        let mentions = content.get("m.mentions");
        let users = match mentions {
            Some(mentions) => mentions
                .get("user_ids")
                .and_then(|users| users.as_array())
                .into_iter()
                .flatten()
                .filter_map(|user| OwnedUserId::try_from(user.as_str()?).ok())
                .take(MENTIONS_MAX)
                .collect(),
            None => {
                let body = content.get("body").and_then(Value::as_str);
                body.map_or_else(Vec::new, named_in)
            }
        };
        let room = mentions
            .and_then(|mentions| mentions.get("room")?.as_bool())
            .unwrap_or(false);
        Self {
            relation,
            users,
            room,
            msgtype: text(content.get("msgtype")),
            edit: content
                .get("m.relates_to")
                .and_then(|relates| relates.get("rel_type"))
                .is_some_and(|rel_type| rel_type == "m.replace"),
        }
    }

    /// Whether the default push rules (`.m.rule.message`, `.m.rule.encrypted`, `.m.rule.call`, MSC3930's
    /// for polls, their one-to-one forms) count it as a notification for everyone but its sender. As push rules do, this
    /// takes no notice of the case of letters, nor of whether the event is state.
    pub(crate) fn counts(&self, event_type: &str) -> bool {
        !self.edit
            && !self.is_silent(event_type)
            && COUNTED
                .iter()
                .any(|counted| event_type.eq_ignore_ascii_case(counted))
    }

    /// Whether `.m.rule.suppress_notices` or `.m.rule.member_event` keep every other rule from it.
    pub(crate) fn is_silent(&self, event_type: &str) -> bool {
        let notice = |msgtype: &str| msgtype.eq_ignore_ascii_case("m.notice");
        self.msgtype.as_deref().is_some_and(notice)
            || event_type.eq_ignore_ascii_case("m.room.member")
    }
}

/// The people whose whole id a text holds, at most [`MENTIONS_MAX`].
///
/// NOTSPEC: since v1.17 (MSC4210) only `m.mentions` mentions somebody. Bots, bridges and old clients do not
/// write it, and Complement expects that an id in the body notifies as it did before.
pub(crate) fn named_in(text: &str) -> Vec<OwnedUserId> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._=/+-:[]".contains(c);
    let ids = text.split('@').skip(1).filter_map(|after| {
        let end = after.find(|c| !is_part(c)).unwrap_or(after.len());
        let id = after.get(..end)?.trim_end_matches(['.', ':', '-', '/']);
        id.contains(':')
            .then(|| UserId::parse(format!("@{id}")).ok())?
    });
    ids.take(MENTIONS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::named_in;

    #[test]
    fn ids_are_found_in_a_text() {
        for (text, ids) in [
            ("Hello @bob:example.org!", vec!["@bob:example.org"]),
            (
                "@a:b.c: and (@d:[::1]:80), @e.f:g.",
                vec!["@a:b.c", "@d:[::1]:80", "@e.f:g"],
            ),
            ("سلام @bob:example.org؟", vec!["@bob:example.org"]),
            ("mail bob@example.org, @bob, @: @:x, @bob: x", vec!["@:x"]),
            ("", vec![]),
        ] {
            assert_eq!(named_in(text), ids, "{text}");
        }
    }
}
