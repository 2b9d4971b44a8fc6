//! Filters of room events ([spec]): which events a client wants.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use pdu::canonical;
use ruma::{
    RoomId,
    api::client::filter::{RoomEventFilter, UrlFilter},
};

use crate::ReadEvent;

/// Whether a filter wants anything of a room.
pub fn wants_room(filter: &RoomEventFilter, room_id: &RoomId) -> bool {
    !filter.not_rooms.iter().any(|not| not == room_id)
        && filter
            .rooms
            .as_ref()
            .is_none_or(|rooms| rooms.iter().any(|wanted| wanted == room_id))
}

/// Whether a filter lets an event of a room that it wants through. Limits are its reader's business.
pub fn passes(filter: &RoomEventFilter, event: &ReadEvent) -> bool {
    let header = &event.row.header;
    let is_type = |pattern: &String| matches(pattern, &header.event_type);
    if filter.not_types.iter().any(is_type)
        || filter
            .types
            .as_ref()
            .is_some_and(|types| !types.iter().any(is_type))
    {
        return false;
    }
    let is_sender = |sender: &ruma::OwnedUserId| sender.as_str() == header.sender;
    if filter.not_senders.iter().any(is_sender)
        || filter
            .senders
            .as_ref()
            .is_some_and(|senders| !senders.iter().any(is_sender))
    {
        return false;
    }
    match filter.url_filter {
        None => true,
        Some(UrlFilter::EventsWithUrl) => has_url(event),
        Some(UrlFilter::EventsWithoutUrl) => !has_url(event),
    }
}

/// Whether a type is what a pattern says, in which `*` stands for anything.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = event_type.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether the content has a `url` that is a string.
pub fn has_url(event: &ReadEvent) -> bool {
    canonical::member(event.content(), "url").is_some_and(|url| canonical::string(url).is_some())
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, event_type, wanted) in [
            ("m.room.name", "m.room.name", true),
            ("m.room.name", "m.room.names", false),
            ("*", "anything", true),
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.rooms", false),
            ("*.name", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*oom*name", "m.room.name", true),
            ("m.*m.name*m.name", "m.room.name", false),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(
                matches(pattern, event_type),
                wanted,
                "{pattern} {event_type}"
            );
        }
    }
}
