//! Events that relate to an event: edits, threads, references, reactions ([spec]).
//!
//! Each is a row under the event it relates to, at its own place in the timeline, whether that event is here
//! or not. What is told with an event (its *bundle*) is made of the latest of these rows.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events

mod pages;

use std::collections::{BTreeSet, HashMap, HashSet};

use pdu::{EventNumber, canonical};
use ruma::{EventId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::{
    Answers, Found, NameHash, Range, Reads, Rows, ShortRoomId, Slot, Snapshot, Stamped, Storage,
    schema::{self, AccountDataRow, Place, RelationRow, ThreadRow},
};

pub use self::pages::{RECURSION_DEPTH, Related};
use crate::{Look, ReadEvent, Room, Rooms, Viewer};

/// Rows under one event that are looked at for what is told with it: the latest.
const BUNDLED_MAX: usize = 500;
/// Edits of one event that are looked at for the latest one.
const EDITS_MAX: usize = 20;
/// Rows under one event among which a reaction is looked for that was there already.
const REACTIONS_MAX: usize = 2_000;

/// What is told with an event.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    /// Its latest edit.
    pub(crate) edit: Option<ReadEvent>,
    /// The thread that begins with it.
    pub(crate) thread: Option<Thread>,
    /// The ids of the events that refer to it.
    pub(crate) references: Vec<String>,
}

impl Bundle {
    /// The events that are told with another one.
    pub(crate) fn events(&self) -> impl Iterator<Item = &ReadEvent> {
        let thread = self.thread.as_ref().map(|thread| &thread.latest);
        self.edit.iter().chain(thread)
    }
}

/// A thread, as it is told with its root.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) latest: ReadEvent,
    pub(crate) count: u64,
    pub(crate) participated: bool,
}

type RelationRows = Rows<(ShortRoomId, NameHash, Place), RelationRow>;

/// Where what relates to one event will be found.
type AskedUnder = (
    EventNumber,
    Slot<RelationRows>,
    Slot<Option<Found<ThreadRow>>>,
);

/// The latest rows under one event.
type RowsUnder = (EventNumber, Vec<(Place, RelationRow)>, Option<ThreadRow>);

/// Where what relates to some events will be found.
pub(crate) struct AskedRelated {
    events: Vec<AskedUnder>,
    ignored: Slot<Option<Found<Stamped<AccountDataRow>>>>,
}

/// The latest rows under some events.
pub(crate) struct RelatedRows {
    events: Vec<RowsUnder>,
    ignored: HashSet<String>,
}

impl AskedRelated {
    pub(crate) fn answer(&self, answers: &Answers) -> error::Result<RelatedRows> {
        let mut events = Vec::new();
        for (number, rows, thread) in &self.events {
            let rows = answers.rows(rows)?;
            if rows.is_empty() {
                continue;
            }
            let rows = rows
                .into_iter()
                .map(|((.., place), row)| (place, row.value));
            let thread = answers.one(thread)?.map(|row| row.value);
            events.push((*number, rows.collect(), thread));
        }
        let ignored = answers.one(&self.ignored)?;
        Ok(RelatedRows {
            events,
            ignored: ignored
                .map(|row| users::ignored_users(&row.value.value.json))
                .unwrap_or_default(),
        })
    }
}

impl Room {
    /// Asks for what relates to some events.
    pub(crate) fn ask_related(
        &self,
        rooms: &Rooms,
        reads: &mut Reads,
        viewer: &Viewer,
        events: &[ReadEvent],
    ) -> AskedRelated {
        let storage = rooms.storage();
        let events = events
            .iter()
            .map(|event| {
                let hash = storage.event_hash(&event.row.header.event_id);
                let latest = Range::prefix(&(self.short, hash))
                    .reverse()
                    .limit(BUNDLED_MAX);
                (
                    event.number,
                    reads.range(&schema::RELATION_BY_PARENT, &latest),
                    reads.get(&schema::THREAD_BY_ROOT, &(self.short, event.number)),
                )
            })
            .collect();
        let list = storage.type_hash("m.ignored_user_list");
        let list = (viewer.short, ShortRoomId::NONE, list);
        AskedRelated {
            events,
            ignored: reads.get(&schema::ACCOUNT_DATA_BY_USER, &list),
        }
    }

    /// What is told with events, of what the viewer may see, and without people whom they ignore. One more
    /// round trip where there is any.
    pub(crate) async fn bundles(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
        related: RelatedRows,
    ) -> error::Result<HashMap<EventNumber, Bundle>> {
        let originals: HashMap<_, _> = events.iter().map(|event| (event.number, event)).collect();
        let mut parts = Vec::new();
        let mut wanted = BTreeSet::new();
        for (number, rows, thread) in &related.events {
            let Some(original) = originals.get(number) else {
                continue;
            };
            let part = Part::of(original, rows, thread.as_ref(), &related.ignored, viewer);
            wanted.extend(
                part.edits
                    .iter()
                    .chain(&part.references)
                    .chain(&part.latest),
            );
            parts.push((*number, part));
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        let read = self.read_events(snapshot, &wanted).await?;
        let read: Vec<_> = read.into_iter().flatten().collect();
        let visible = self.visible(snapshot, viewer, look, &read).await?;
        let seen: HashMap<_, _> = read
            .into_iter()
            .zip(visible)
            .filter(|(_, visible)| *visible)
            .map(|(event, _)| (event.number, event))
            .collect();
        Ok(parts
            .into_iter()
            .filter_map(|(number, part)| Some((number, part.bundle(&seen)?)))
            .collect())
    }

    /// Of some events, those that were edited, with the edit that counts, whoever may see it. Two round
    /// trips.
    pub async fn latest_edits(
        &self,
        storage: &Storage,
        snapshot: &Snapshot,
        events: &[ReadEvent],
    ) -> error::Result<HashMap<EventNumber, ReadEvent>> {
        let ranges: Vec<_> = events
            .iter()
            .map(|event| {
                let hash = storage.event_hash(&event.row.header.event_id);
                Range::prefix(&(self.short, hash))
                    .reverse()
                    .limit(BUNDLED_MAX)
            })
            .collect();
        let rows = snapshot
            .multi_range(&schema::RELATION_BY_PARENT, &ranges)
            .await?;
        let mut edits = Vec::new();
        for (event, rows) in events.iter().zip(rows) {
            let rows: Vec<_> = rows
                .into_iter()
                .map(|((.., place), row)| (place, row.value))
                .collect();
            let under: Vec<_> = edits_under(event, &rows).map(|row| row.number).collect();
            edits.push(under);
        }
        let wanted: Vec<_> = edits.iter().flatten().copied().collect();
        let read = self.read_events(snapshot, &wanted).await?;
        let read: HashMap<_, _> = read
            .into_iter()
            .flatten()
            .map(|event| (event.number, event))
            .collect();
        let all = events.iter().zip(edits);
        Ok(all
            .filter_map(|(event, under)| {
                let under = under.iter().filter_map(|number| read.get(number));
                let encrypted = event.row.header.event_type == "m.room.encrypted";
                Some((event.number, latest_edit(encrypted, under)?.clone()))
            })
            .collect())
    }

    /// Whether a relation may be sent.
    ///
    /// # Errors
    ///
    /// 400 `M_DUPLICATE_ANNOTATION` for the same reaction by the same user again, `M_UNKNOWN` for a thread
    /// that begins at an event which relates itself ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#relationship-types
    pub async fn check_relation(
        &self,
        rooms: &Rooms,
        sender: &UserId,
        event_type: &str,
        content: &[u8],
    ) -> error::Result<()> {
        let Some(relation) = Relates::of(content) else {
            return Ok(());
        };
        match (&*relation.rel_type, &relation.key) {
            ("m.annotation", Some(key)) => {
                let snapshot = rooms.snapshot().await?;
                let parent = rooms.storage().event_hash(&relation.event_id);
                let range = Range::prefix(&(self.short, parent)).limit(REACTIONS_MAX);
                let rows = snapshot
                    .multi_range(&schema::RELATION_BY_PARENT, &[range])
                    .await?;
                let same = |row: &RelationRow| {
                    row.rel_type == "m.annotation"
                        && row.event_type == event_type
                        && row.sender == sender.as_str()
                        && row.key.as_ref() == Some(key)
                };
                if rows.iter().flatten().any(|(_, row)| same(&row.value)) {
                    return Err(error::duplicate_annotation(
                        "You have reacted to this event in this way already",
                    ));
                }
            }
            ("m.thread", _) => {
                let Ok(root) = EventId::parse(&relation.event_id) else {
                    return Ok(());
                };
                let snapshot = rooms.snapshot().await?;
                let root = self.find_event(rooms, &snapshot, &root).await?;
                if root.is_some_and(|root| Relates::of(root.content()).is_some()) {
                    return Err(error::unknown(
                        http::StatusCode::BAD_REQUEST,
                        "A thread cannot begin at an event that relates to another one",
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// `m.relates_to` of a content, as far as it names a relation.
#[derive(Deserialize)]
struct Relates {
    rel_type: String,
    event_id: String,
    key: Option<String>,
}

impl Relates {
    /// Of a content in any form of JSON: clients do not write canonical JSON.
    fn of(content: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow, rename = "m.relates_to")]
            relates_to: &'a RawValue,
        }
        let content: Content<'_> = serde_json::from_slice(content).ok()?;
        serde_json::from_str(content.relates_to.get()).ok()
    }
}

/// The edits among the latest rows under an event that may count: by the same sender and of the same type.
/// Neither state nor edits are edited.
fn edits_under<'a>(
    original: &'a ReadEvent,
    rows: &'a [(Place, RelationRow)],
) -> impl Iterator<Item = &'a RelationRow> {
    let header = &original.row.header;
    let editable = header.state_key.is_none()
        && header.redacted_because.is_none()
        && Relates::of(original.content()).is_none_or(|relates| relates.rel_type != "m.replace");
    rows.iter()
        .map(|(_, row)| row)
        .filter(move |row| {
            editable
                && row.rel_type == "m.replace"
                && row.sender == header.sender
                && row.event_type == header.event_type
        })
        .take(EDITS_MAX)
}

/// The edit that counts.
fn latest_edit<'a>(
    encrypted: bool,
    edits: impl IntoIterator<Item = &'a ReadEvent>,
) -> Option<&'a ReadEvent> {
    edits
        .into_iter()
        // What is encrypted says what is new where nobody here can read it.
        .filter(|edit| encrypted || canonical::member(edit.content(), "m.new_content").is_some())
        .max_by_key(|edit| {
            let header = &edit.row.header;
            (header.origin_server_ts, header.event_id.clone())
        })
}

/// What may be told with one event, by number.
struct Part {
    encrypted: bool,
    edits: Vec<EventNumber>,
    references: Vec<EventNumber>,
    /// Replies of its thread, latest first.
    latest: Vec<EventNumber>,
    replies: u64,
    participated: bool,
}

impl Part {
    /// `rows` are the latest ones first.
    fn of(
        original: &ReadEvent,
        rows: &[(Place, RelationRow)],
        thread: Option<&ThreadRow>,
        ignored: &HashSet<String>,
        viewer: &Viewer,
    ) -> Self {
        let header = &original.row.header;
        let kept = |rel_type: &'static str| {
            rows.iter()
                .map(|(_, row)| row)
                .filter(move |row| row.rel_type == rel_type && !ignored.contains(&row.sender))
        };
        let edits = edits_under(original, rows).filter(|row| !ignored.contains(&row.sender));
        let by_viewer = |sender: &str| sender == viewer.user_id.as_str();
        let replies = kept("m.thread").count() as u64;
        let all = rows.len() < BUNDLED_MAX;
        Self {
            encrypted: header.event_type == "m.room.encrypted",
            edits: edits.map(|row| row.number).collect(),
            references: kept("m.reference").map(|row| row.number).collect(),
            latest: kept("m.thread")
                .take(EDITS_MAX)
                .map(|row| row.number)
                .collect(),
            replies: match thread {
                Some(thread) if !all => thread.count.max(replies),
                _ => replies,
            },
            participated: by_viewer(&header.sender)
                || kept("m.thread").any(|row| by_viewer(&row.sender)),
        }
    }

    /// The bundle, of what may be seen.
    fn bundle(self, seen: &HashMap<EventNumber, ReadEvent>) -> Option<Bundle> {
        let all = |numbers: &[EventNumber]| -> Vec<&ReadEvent> {
            numbers
                .iter()
                .filter_map(|number| seen.get(number))
                .collect()
        };
        let edit = latest_edit(self.encrypted, all(&self.edits)).cloned();
        let latest = all(&self.latest).into_iter().next().cloned();
        let mut references = all(&self.references);
        references.reverse();
        let bundle = Bundle {
            edit,
            thread: latest.map(|latest| Thread {
                latest,
                count: self.replies,
                participated: self.participated,
            }),
            references: references
                .into_iter()
                .map(|event| event.row.header.event_id.clone())
                .collect(),
        };
        let any = bundle.edit.is_some() || bundle.thread.is_some() || !bundle.references.is_empty();
        any.then_some(bundle)
    }
}
