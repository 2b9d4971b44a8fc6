//! Events that relate to an event: edits, threads, references, reactions ([spec]).
//!
//! Each is a row under the event it relates to, at its own place in the timeline, whether that event is here
//! or not. What is told with an event (its *bundle*) is made of the latest of these rows.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use pdu::{EventNumber, canonical};
use ruma::{EventId, UserId, api::Direction};
use serde::Deserialize;
use serde_json::value::RawValue;
use storage::{
    Answers, Found, NameHash, Range, Reads, Rows, ShortRoomId, Slot, Snapshot, Stamped,
    schema::{self, AccountDataRow, Place, RelationRow, ThreadRow},
};

use crate::{Look, Page, PlaceToken, ReadEvent, Room, Rooms, Span, Viewer};

/// Rows under one event that are looked at for what is told with it: the latest.
const BUNDLED_MAX: usize = 500;
/// Edits of one event that are looked at for the latest one.
const EDITS_MAX: usize = 20;
/// Rows that one page of relations, or of threads, looks at.
const LOOKED_AT_MAX: usize = 2_000;
/// How far events are followed that relate to events that relate to the one that is asked for.
pub const RECURSION_DEPTH: u8 = 3;

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

/// A thread, as it is told with its root.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) latest: ReadEvent,
    pub(crate) count: u64,
    pub(crate) participated: bool,
}

/// Which related events are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Related<'a> {
    /// Related in this way.
    pub rel_type: Option<&'a str>,
    /// Of this type.
    pub event_type: Option<&'a str>,
    /// Those too that relate to events that relate.
    pub recurse: bool,
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

    /// A page of the events that relate to an event, as the viewer may see them.
    ///
    /// # Errors
    ///
    /// 404 if the viewer may not see that event.
    pub async fn related(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        parent: &EventId,
        wanted: Related<'_>,
        span: Span,
    ) -> error::Result<Page> {
        let none = || error::not_found("There is no such event here, or you may not see it");
        let found = self.find_event(rooms, snapshot, parent).await?;
        let found = found.ok_or_else(none)?;
        let alone = std::slice::from_ref(&found);
        if self.visible(snapshot, viewer, look, alone).await? != [true] {
            return Err(none());
        }
        let mut rows = self
            .related_rows(rooms, snapshot, parent.as_str(), wanted, span)
            .await?;
        rows.retain(|(_, row)| {
            wanted.rel_type.is_none_or(|wanted| row.rel_type == wanted)
                && wanted
                    .event_type
                    .is_none_or(|wanted| row.event_type == wanted)
        });
        let numbers: Vec<_> = rows
            .iter()
            .map(|(place, row)| (*place, row.number))
            .collect();
        self.page_of(snapshot, (viewer, look), &numbers, span).await
    }

    /// The rows under an event, and under those, in the direction of a span and within it.
    async fn related_rows(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        parent: &str,
        wanted: Related<'_>,
        span: Span,
    ) -> error::Result<Vec<(Place, RelationRow)>> {
        let (low, high) = match span.direction {
            Direction::Backward => (span.to.map(|to| to.0), Some(span.from.0)),
            Direction::Forward => (Some(span.from.0), span.to.map(|to| to.0)),
        };
        let (low, high) = (low.unwrap_or(Place::START), high.unwrap_or(Place::END));
        let depth = if wanted.recurse { RECURSION_DEPTH } else { 1 };
        let mut parents = vec![rooms.storage().event_hash(parent)];
        let mut all: BTreeMap<Place, RelationRow> = BTreeMap::new();
        for level in 1..=depth {
            let ranges: Vec<_> = parents
                .iter()
                .map(|parent| {
                    let range = Range::prefix(&(self.short, *parent)).limit(LOOKED_AT_MAX);
                    // Of what lies outside, something within may depend when it is followed.
                    let range = if wanted.recurse {
                        range
                    } else {
                        range
                            .after(&(self.short, *parent, low))
                            .up_to(&(self.short, *parent, high))
                    };
                    match span.direction {
                        Direction::Backward => range.reverse(),
                        Direction::Forward => range,
                    }
                })
                .collect();
            let rows = snapshot
                .multi_range(&schema::RELATION_BY_PARENT, &ranges)
                .await?;
            let mut new = Vec::new();
            for ((.., place), row) in rows.into_iter().flatten() {
                if all.len() < LOOKED_AT_MAX && all.insert(place, row.value.clone()).is_none() {
                    new.push(row.value.number);
                }
            }
            if level == depth || new.is_empty() {
                break;
            }
            let events = self.read_events(snapshot, &new).await?;
            parents = events
                .into_iter()
                .flatten()
                .map(|event| rooms.storage().event_hash(&event.row.header.event_id))
                .collect();
        }
        let within = all
            .into_iter()
            .filter(|(place, _)| *place > low && *place <= high);
        Ok(match span.direction {
            Direction::Backward => within.rev().collect(),
            Direction::Forward => within.collect(),
        })
    }

    /// A page of threads, those with the latest replies first: their roots, as the viewer may see them.
    pub async fn threads(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        only_participated: bool,
        span: Span,
    ) -> error::Result<Page> {
        let range = Range::prefix(&(self.short,))
            .up_to(&(self.short, span.from.0))
            .reverse()
            .limit(LOOKED_AT_MAX);
        let rows = snapshot
            .multi_range(&schema::THREAD_BY_PLACE, &[range])
            .await?;
        let mut roots: Vec<_> = rows
            .into_iter()
            .flatten()
            .map(|((_, place), row)| (place, row.value))
            .collect();
        if only_participated {
            let numbers: Vec<_> = roots.iter().map(|(_, root)| *root).collect();
            let own = self.participated(rooms, snapshot, viewer, &numbers).await?;
            roots.retain(|(_, root)| own.contains(root));
        }
        self.page_of(snapshot, (viewer, look), &roots, span).await
    }

    /// Those of some threads in which the viewer has said something.
    async fn participated(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        roots: &[EventNumber],
    ) -> error::Result<HashSet<EventNumber>> {
        let user = rooms.storage().user_hash(&viewer.user_id);
        let keys: Vec<_> = roots.iter().map(|root| (self.short, *root, user)).collect();
        let rows = snapshot
            .multi_get(&schema::PARTICIPANT_BY_THREAD, &keys)
            .await?;
        Ok(roots
            .iter()
            .zip(rows)
            .filter(|(_, row)| row.is_some())
            .map(|(root, _)| *root)
            .collect())
    }

    /// A page of events at places, in their order.
    async fn page_of(
        &self,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        placed: &[(Place, EventNumber)],
        span: Span,
    ) -> error::Result<Page> {
        let mut page = Page {
            events: Vec::new(),
            next: None,
            gap: None,
        };
        let mut last = None;
        // What may not be seen makes room for more.
        for some in placed.chunks(span.limit.max(1)) {
            let numbers: Vec<_> = some.iter().map(|(_, number)| *number).collect();
            let read = self.read_events(snapshot, &numbers).await?;
            let (places, read): (Vec<_>, Vec<_>) = some
                .iter()
                .zip(read)
                .filter_map(|((place, _), event)| Some((*place, event?)))
                .unzip();
            let visible = self.visible(snapshot, viewer, look, &read).await?;
            for ((place, event), visible) in places.into_iter().zip(read).zip(visible) {
                if !visible {
                    continue;
                }
                if page.events.len() == span.limit {
                    page.next = last.map(|last| match span.direction {
                        Direction::Backward => PlaceToken::before(last),
                        Direction::Forward => PlaceToken(last),
                    });
                    return Ok(page);
                }
                last = Some(place);
                page.events.push(event);
            }
        }
        Ok(page)
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
        snapshot: &Snapshot,
        sender: &UserId,
        event_type: &str,
        content: &[u8],
    ) -> error::Result<()> {
        let Some(relation) = Relates::of(content) else {
            return Ok(());
        };
        match (&*relation.rel_type, &relation.key) {
            ("m.annotation", Some(key)) => {
                let parent = rooms.storage().event_hash(&relation.event_id);
                let range = Range::prefix(&(self.short, parent)).limit(LOOKED_AT_MAX);
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
                let root = self.find_event(rooms, snapshot, &root).await?;
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

/// What may be told with one event, by number.
struct Part {
    original: ReadEvent,
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
        let relates = Relates::of(original.content());
        // Neither state nor edits are edited.
        let editable = header.state_key.is_none()
            && header.redacted_because.is_none()
            && relates.is_none_or(|relates| relates.rel_type != "m.replace");
        let edits = kept("m.replace").filter(|row| {
            editable && row.sender == header.sender && row.event_type == header.event_type
        });
        let by_viewer = |sender: &str| sender == viewer.user_id.as_str();
        let replies = kept("m.thread").count() as u64;
        let all = rows.len() < BUNDLED_MAX;
        Self {
            original: original.clone(),
            edits: edits.take(EDITS_MAX).map(|row| row.number).collect(),
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
        let encrypted = self.original.row.header.event_type == "m.room.encrypted";
        let edit = all(&self.edits)
            .into_iter()
            // What is encrypted says what is new where nobody here can read it.
            .filter(|edit| {
                encrypted || canonical::member(edit.content(), "m.new_content").is_some()
            })
            .max_by_key(|edit| {
                let header = &edit.row.header;
                (header.origin_server_ts, header.event_id.clone())
            })
            .cloned();
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
