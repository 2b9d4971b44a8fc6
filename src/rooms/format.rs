//! Events as people get to see them who are not in the room.

use pdu::Pdu;
use ruma::{EventId, UserId, events::TimelineEventType};
use serde::Serialize;
use serde_json::{Value, json};

/// A state event as somebody sees it who is not in the room: type, state key, sender, content
/// (client-server API, *Stripped state*).
pub(crate) fn stripped(pdu: &Pdu) -> String {
    let mut event = json!({
        "type": pdu.event_type().to_string(),
        "state_key": pdu.state_key(),
        "sender": pdu.sender(),
        "content": pdu.content(),
    });
    // NOTSPEC: MSC4311 leaves it to the server whether clients get more of the create event than its four
    // fields; Complement looks for its time.
    if *pdu.event_type() == TimelineEventType::RoomCreate
        && let Some(event) = event.as_object_mut()
    {
        let time = u64::from(pdu.origin_server_ts().get());
        event.insert("origin_server_ts".to_owned(), Value::from(time));
    }
    event.to_string()
}

/// An event by which somebody is out of a room in which this server is not, as clients get it: no more than
/// this is kept of it.
pub(crate) fn ending(
    event_id: &EventId,
    sender: &UserId,
    user: &UserId,
    time: u64,
    content: &impl Serialize,
) -> String {
    json!({
        "type": "m.room.member", "state_key": user, "sender": sender, "event_id": event_id,
        "origin_server_ts": time, "content": content,
    })
    .to_string()
}
