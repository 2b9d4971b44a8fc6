//! Events as clients get them, written from header and span without parsing ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-event-format

use std::collections::{BTreeSet, HashMap};

use pdu::EventNumber;
use serde_json::{Map, Value, json, value::RawValue};
use storage::{
    Snapshot,
    schema::{EventRow, Membership},
};

use crate::{Look, ReadEvent, Room, Rooms, Viewer, read::content_of};

/// In which form events are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFormat {
    /// `ClientEvent`, with `room_id`.
    #[default]
    Client,
    /// Without `room_id`: for answers that name the room once.
    WithoutRoomId,
    /// As servers exchange it, with `unsigned` (`event_format: federation` in filters).
    Federation,
}

impl Room {
    /// Events as clients get them, in their order. One round trip for events that replace state or were
    /// redacted, and the state tree where the viewer's membership at an event is not the current one.
    pub async fn client_events(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
        format: EventFormat,
    ) -> error::Result<Vec<Box<RawValue>>> {
        let others: BTreeSet<_> = events
            .iter()
            .flat_map(|event| {
                let header = &event.row.header;
                [header.replaces_state, header.redacted_because]
            })
            .flatten()
            .collect();
        let others: Vec<_> = others.into_iter().collect();
        let read = self.read_events(snapshot, &others).await?;
        let others: HashMap<_, _> = others
            .into_iter()
            .zip(read)
            .filter_map(|(number, event)| Some((number, event?)))
            .collect();
        let roots: BTreeSet<_> = events
            .iter()
            .filter(|event| !is_current(look, event))
            .map(|event| event.roots.after)
            .collect();
        // Who never had to do with the room has no membership in any state of it.
        let memberships = match look.row {
            Some(_) => self.memberships_at(snapshot, &roots, viewer).await?,
            None => HashMap::new(),
        };
        let writer = Writer {
            room: self,
            viewer,
            others: &others,
            now: rooms.now(),
            format,
        };
        events
            .iter()
            .map(|event| {
                let membership = if is_current(look, event) {
                    look.membership()
                } else {
                    memberships.get(&event.roots.after).copied()
                };
                writer.write(event, membership)
            })
            .collect()
    }
}

/// Whether the viewer's membership at the event is the one that they have now.
fn is_current(look: &Look, event: &ReadEvent) -> bool {
    event.roots.after == look.head.root
        || match (&look.row, event.row.header.place) {
            (Some(row), Some(place)) => row.place.is_some_and(|own| own <= place),
            _ => false,
        }
}

struct Writer<'a> {
    room: &'a Room,
    viewer: &'a Viewer,
    others: &'a HashMap<EventNumber, ReadEvent>,
    now: u64,
    format: EventFormat,
}

impl Writer<'_> {
    fn write(
        &self,
        event: &ReadEvent,
        membership: Option<Membership>,
    ) -> error::Result<Box<RawValue>> {
        let unsigned = self.unsigned(event, membership);
        let text = match self.format {
            EventFormat::Federation => federation_form(&event.row, unsigned)?,
            EventFormat::Client | EventFormat::WithoutRoomId => {
                self.client_form(&event.row, Some(unsigned))?
            }
        };
        RawValue::from_string(text).map_err(error::internal)
    }

    fn client_form(&self, row: &EventRow, unsigned: Option<Value>) -> error::Result<String> {
        let header = &row.header;
        let quote = |text: &str| serde_json::to_string(text).map_err(error::internal);
        let mut json = String::with_capacity(content_of(row).len() + 512);
        json.push_str("{\"type\":");
        json.push_str(&quote(&header.event_type)?);
        json.push_str(",\"event_id\":");
        json.push_str(&quote(&header.event_id)?);
        json.push_str(",\"sender\":");
        json.push_str(&quote(&header.sender)?);
        if self.format == EventFormat::Client {
            json.push_str(",\"room_id\":");
            json.push_str(&quote(self.room.room_id.as_str())?);
        }
        json.push_str(",\"origin_server_ts\":");
        json.push_str(&header.origin_server_ts.to_string());
        if let Some(state_key) = &header.state_key {
            json.push_str(",\"state_key\":");
            json.push_str(&quote(state_key)?);
        }
        if let Some(redacts) = &header.redacts {
            json.push_str(",\"redacts\":");
            json.push_str(&quote(redacts)?);
        }
        json.push_str(",\"content\":");
        match &header.redacts {
            Some(redacts) => json.push_str(&content_with_redacts(row, redacts)?),
            None => json.push_str(std::str::from_utf8(content_of(row)).map_err(error::internal)?),
        }
        if let Some(unsigned) = unsigned {
            json.push_str(",\"unsigned\":");
            json.push_str(&unsigned.to_string());
        }
        json.push('}');
        Ok(json)
    }

    /// What this server adds to an event for this viewer.
    fn unsigned(&self, event: &ReadEvent, membership: Option<Membership>) -> Value {
        let header = &event.row.header;
        let mut unsigned = Map::new();
        let age = i64::try_from(self.now).unwrap_or(i64::MAX)
            - i64::try_from(header.origin_server_ts).unwrap_or(i64::MAX);
        unsigned.insert("age".to_owned(), json!(age));
        if let Some(sent) = &header.sent
            && sent.device == self.viewer.device
        {
            unsigned.insert("transaction_id".to_owned(), json!(sent.transaction_id));
        }
        let before = header
            .replaces_state
            .and_then(|number| self.others.get(&number));
        if let Some(before) = before {
            let content = serde_json::from_slice::<Value>(before.content());
            unsigned.insert("prev_content".to_owned(), content.unwrap_or_default());
            let id = &before.row.header.event_id;
            unsigned.insert("replaces_state".to_owned(), json!(id));
        }
        let because = header
            .redacted_because
            .and_then(|number| self.others.get(&number));
        if let Some(because) = because
            && let Ok(text) = self.client_form(&because.row, None)
            && let Ok(value) = serde_json::from_str::<Value>(&text)
        {
            unsigned.insert("redacted_because".to_owned(), value);
        }
        let membership = membership.map_or("leave", Membership::as_str);
        unsigned.insert("membership".to_owned(), json!(membership));
        Value::Object(unsigned)
    }
}

/// A redaction names its target in its content since version 11, before that beside it; clients get both.
fn content_with_redacts(row: &EventRow, redacts: &str) -> error::Result<String> {
    let content = serde_json::from_slice::<Value>(content_of(row)).map_err(error::internal)?;
    let Value::Object(mut content) = content else {
        return Err(error::internal("an event's content is not an object"));
    };
    if row.header.event_type == "m.room.redaction" {
        content.insert("redacts".to_owned(), json!(redacts));
    }
    Ok(Value::Object(content).to_string())
}

fn federation_form(row: &EventRow, unsigned: Value) -> error::Result<String> {
    let json = serde_json::from_slice::<Value>(&row.json).map_err(error::internal)?;
    let Value::Object(mut json) = json else {
        return Err(error::internal("an event is not an object"));
    };
    json.insert("event_id".to_owned(), json!(row.header.event_id));
    json.insert("unsigned".to_owned(), unsigned);
    Ok(Value::Object(json).to_string())
}
