//! What of a room's events is in the index: the text that each says now, the latest edit in its place.
//!
//! NOTSPEC: encrypted rooms are not left out as a whole. What in them is not encrypted is found: names, topics,
//! and what was said before. Synapse does so too.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use pdu::{EventNumber, canonical};
use rooms::{ReadEvent, Room, Rooms};
use serde::Deserialize;
use storage::{
    NameHash, Position, Snapshot,
    schema::{self, StreamRecord, Visibility},
};
use tantivy::Term;

use crate::{
    fields::{Fields, Kind, Message, message_key},
    index::Change,
};

/// Which key of its content is searched in an event.
pub(crate) fn kind_of(event: &ReadEvent) -> Option<Kind> {
    let header = &event.row.header;
    let kind = Kind::ALL
        .into_iter()
        .find(|kind| kind.event_type() == header.event_type)?;
    // A message is no state, the others are.
    (header.state_key.is_some() == (kind != Kind::Body)).then_some(kind)
}

/// What an event says, in the words of its latest edit if it was edited; `None` if it says nothing that is
/// searched.
pub(crate) fn text_of(event: &ReadEvent, edit: Option<&ReadEvent>) -> Option<String> {
    let kind = kind_of(event)?;
    let content = match edit {
        Some(edit) => canonical::member(edit.content(), "m.new_content")?,
        None => event.content(),
    };
    let text = |key| canonical::member(content, key).and_then(canonical::string);
    match kind {
        Kind::Body => text("body").map(Cow::into_owned),
        Kind::Name => text("name").map(Cow::into_owned),
        Kind::Topic => {
            let mut texts: Vec<_> = text("topic").map(Cow::into_owned).into_iter().collect();
            texts.extend(plain_topics(content));
            texts.dedup();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
    }
}

/// The plain text of `m.topic`.
fn plain_topics(content: &[u8]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Topic {
        #[serde(rename = "m.text")]
        texts: Vec<Text>,
    }
    #[derive(Deserialize)]
    struct Text {
        body: String,
        mimetype: Option<String>,
    }
    let topic = canonical::member(content, "m.topic");
    let Some(Ok(topic)) = topic.map(serde_json::from_slice::<Topic>) else {
        return Vec::new();
    };
    let plain = |text: &Text| {
        let mimetype = text.mimetype.as_deref();
        mimetype.is_none_or(|mimetype| mimetype == "text/plain")
    };
    let texts = topic.texts.into_iter().filter(plain);
    texts.map(|text| text.body).collect()
}

/// The id of the event that this one is an edit of.
fn edits(event: &ReadEvent) -> Option<Cow<'_, str>> {
    if event.row.header.state_key.is_some() {
        return None;
    }
    let relation = canonical::member(event.content(), "m.relates_to")?;
    let rel_type = canonical::string(canonical::member(relation, "rel_type")?)?;
    let event_id = canonical::string(canonical::member(relation, "event_id")?)?;
    (rel_type == "m.replace").then_some(event_id)
}

/// Which messages of a room say something else since some events.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// New ones, and those that were edited or redacted.
    pub(crate) messages: BTreeSet<EventNumber>,
    /// Those that were redacted: what they were an edit of is not to be seen any more.
    pub(crate) redacted: Vec<EventNumber>,
}

/// Finds out which messages some records of the stream touch. Two round trips.
pub(crate) async fn touched(
    rooms: &Rooms,
    snapshot: &Snapshot,
    room: &Room,
    records: &[(Position, StreamRecord)],
) -> error::Result<Touched> {
    let placed = records.iter().filter(|(_, record)| record.place.is_some());
    let numbers: Vec<_> = placed.map(|(_, record)| record.number).collect();
    let events = room.read_events(snapshot, &numbers).await?;
    let mut touched = Touched::default();
    let (mut names, mut redacts) = (Vec::new(), Vec::new());
    let mut follow = |event_id: &str, redacted: bool| {
        names.push(rooms.storage().event_hash(event_id));
        redacts.push(redacted);
    };
    for event in events.iter().flatten() {
        let header = &event.row.header;
        if header.event_type == "m.room.redaction" {
            if let Some(target) = &header.redacts {
                follow(target, true);
            }
        } else if header.redacted_because.is_some() {
            touched.messages.insert(event.number);
            touched.redacted.push(event.number);
        } else if kind_of(event).is_some() {
            match edits(event) {
                Some(original) => follow(&original, false),
                None => {
                    touched.messages.insert(event.number);
                }
            }
        }
    }
    let found = numbers_of(snapshot, room, &names).await?;
    for (number, redacted) in found.into_iter().zip(redacts) {
        let Some(number) = number else { continue };
        touched.messages.insert(number);
        if redacted {
            touched.redacted.push(number);
        }
    }
    Ok(touched)
}

/// The numbers of events of a room, by the hashes of their ids.
async fn numbers_of(
    snapshot: &Snapshot,
    room: &Room,
    names: &[NameHash],
) -> error::Result<Vec<Option<EventNumber>>> {
    let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, names).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let found = row.filter(|row| row.value.room == room.short)?;
            found.value.number
        })
        .collect())
}

/// What changes in the index for some messages, and which edits it tells of then.
#[derive(Default)]
pub(crate) struct Written {
    pub(crate) changes: Vec<Change>,
    /// Message by edit.
    pub(crate) edits: HashMap<EventNumber, EventNumber>,
    /// How long the texts are, in bytes.
    pub(crate) bytes: usize,
}

/// Writes messages anew, as they are now. Three round trips.
pub(crate) async fn write(
    rooms: &Rooms,
    fields: &Fields,
    snapshot: &Snapshot,
    room: &Arc<Room>,
    numbers: &BTreeSet<EventNumber>,
) -> error::Result<Written> {
    let numbers: Vec<_> = numbers.iter().copied().collect();
    let storage = rooms.storage();
    let events = room.read_events(snapshot, &numbers).await?;
    let events: Vec<_> = events
        .into_iter()
        .flatten()
        .filter(|event| kind_of(event).is_some() && edits(event).is_none())
        .collect();
    let latest = room.latest_edits(storage, snapshot, &events).await?;
    let mut written = Written::default();
    for number in &numbers {
        let key = message_key(room.short, *number);
        let term = Term::from_field_bytes(fields.key, &key);
        written.changes.push(Change::Remove(term));
    }
    for event in &events {
        let edit = latest.get(&event.number);
        let header = &event.row.header;
        let (Some(kind), Some(text)) = (kind_of(event), text_of(event, edit)) else {
            continue;
        };
        let Some(place) = header.place else { continue };
        if let Some(edit) = edit {
            written.edits.insert(edit.number, event.number);
        }
        written.bytes += text.len();
        let shared = std::iter::once(event).chain(edit).all(|event| {
            let visibility = event.row.header.visibility;
            matches!(visibility, Visibility::WorldReadable | Visibility::Shared)
        });
        let message = Message {
            room: room.short,
            number: event.number,
            said: edit.map_or(event.number, |edit| edit.number),
            kind,
            sender: storage.user_hash(&header.sender),
            url: rooms::event_filter::has_url(event),
            shared,
            time: header.origin_server_ts.min(header.received_ts),
            place,
            text: &text,
        };
        let document = fields.message(&message);
        written.changes.push(Change::Add(document));
    }
    Ok(written)
}
