//! What people see of a room into which they are invited, or at which they knock, by the word of another
//! server ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state

use std::collections::BTreeSet;

use pdu::{Pdu, RoomRules};
use ruma::{OwnedServerName, RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{Rooms, format::stripped};

/// Events that are looked at, and bytes that are kept of them.
const EVENTS_MAX: usize = 50;
const BYTES_MAX: usize = 128 << 10;

/// What was told of a room, and how far it can be believed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Stripped events, as clients get them.
    pub(crate) stripped: Vec<String>,
    /// The create event is among them, and it is the room's.
    pub(crate) has_create: bool,
    /// Why something that was told was left out.
    pub(crate) fault: Option<String>,
}

/// A stripped event of an older server, which proves nothing.
#[derive(Deserialize)]
struct Unproven {
    #[serde(rename = "type")]
    event_type: String,
    state_key: String,
    sender: String,
    content: serde_json::Map<String, Value>,
}

impl Rooms {
    /// Looks at the events by which a server describes a room. Whole events must be of the room and signed;
    /// stripped ones, which older servers send, are believed only in versions before 12.
    pub(crate) async fn seen_of(
        &self,
        rules: &'static RoomRules,
        room_id: &RoomId,
        told: &[Box<RawValue>],
    ) -> error::Result<Seen> {
        let mut seen = Seen::default();
        if told.len() > EVENTS_MAX {
            seen.fault = Some(format!("there are more than {EVENTS_MAX} events"));
        }
        let (mut whole, mut unproven) = (Vec::new(), Vec::new());
        for one in told.iter().take(EVENTS_MAX) {
            match Pdu::parse(one.get().as_bytes(), rules) {
                Ok(_) => whole.push(one.clone()),
                Err(fault) => {
                    unproven.push(one);
                    seen.fault.get_or_insert(fault.to_string());
                }
            }
        }
        for checked in self.federation().check_pdus(rules, whole).await? {
            let fault = match checked {
                Ok(pdu) if pdu.room_id() == room_id => {
                    seen.has_create |= is_create(&pdu, rules);
                    seen.stripped.push(stripped(&pdu));
                    continue;
                }
                Ok(_) => "an event is of another room".to_owned(),
                Err(fault) => fault.to_string(),
            };
            seen.fault.get_or_insert(fault);
        }
        if !rules.room_id_is_create_event_id() {
            seen.stripped
                .extend(unproven.into_iter().filter_map(|one| stripped_again(one)));
        }
        let mut left = BYTES_MAX;
        seen.stripped.retain(|event| {
            let fits = event.len() <= left;
            left = left.saturating_sub(event.len());
            fits
        });
        Ok(seen)
    }
}

/// Whether it is the event that begins its room, in the version that it is said to have.
fn is_create(pdu: &Pdu, rules: &RoomRules) -> bool {
    let version = pdu::canonical::member(pdu.content_bytes(), "room_version");
    let version = version.and_then(pdu::canonical::string);
    pdu.is_state(&"m.room.create".into(), "")
        && version.as_deref().unwrap_or("1") == rules.version()
}

/// A stripped event, without whatever else was in it.
fn stripped_again(event: &RawValue) -> Option<String> {
    let event: Unproven = serde_json::from_str(event.get()).ok()?;
    UserId::parse(&event.sender).ok()?;
    let Unproven {
        event_type,
        state_key,
        sender,
        content,
    } = event;
    let event = json!({
        "type": event_type, "state_key": state_key, "sender": sender, "content": content,
    });
    Some(event.to_string())
}

/// The servers of those who have sent stripped events: they were in the room.
pub(crate) fn servers_of(stripped: &[String]) -> BTreeSet<OwnedServerName> {
    #[derive(Deserialize)]
    struct Sent {
        sender: String,
    }
    let senders = stripped.iter().filter_map(|event| {
        let sent: Sent = serde_json::from_str(event).ok()?;
        UserId::parse(sent.sender).ok()
    });
    senders
        .map(|sender| sender.server_name().to_owned())
        .collect()
}
