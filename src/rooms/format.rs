//! Events as clients get them, written from header and span without parsing.

use serde_json::json;

use crate::StoredEvent;

/// A state event as somebody sees it who is not in the room: type, state key, sender, content
/// (client-server API, *Stripped state*).
///
pub(crate) fn stripped(event: &StoredEvent) -> String {
    let header = &event.header;
    let content = event.pdu.content();
    json!({
        "type": header.event_type,
        "state_key": header.state_key,
        "sender": header.sender,
        "content": content,
    })
    .to_string()
}
