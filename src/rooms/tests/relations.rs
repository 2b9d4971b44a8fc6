//! Relations against a naive model: random rooms, and for every event what the specification says is told with
//! it, and every page of what relates to it, read off the whole list of events.

use std::{collections::BTreeMap, sync::Arc};

use proptest::{prelude::*, test_runner::TestCaseError};
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId, api::Direction};
use serde_json::{Value, json, value::to_raw_value};
use storage::{
    Range, Storage,
    schema::{self, Place},
};

use super::{
    alice, block_on,
    people::{Seen, accounts, bob, ids, member, on_disk, redaction},
    public_room, rooms,
};
use crate::{
    Draft, EventForm, EventFormat, Group, PlaceToken, RECURSION_DEPTH, Related, Room, Rooms, Span,
    Viewer,
};

const KINDS: [(&str, &str); 5] = [
    ("m.room.message", ""),
    ("m.room.message", "m.thread"),
    ("m.room.message", "m.replace"),
    ("m.room.message", "m.reference"),
    ("m.reaction", "m.annotation"),
];

/// Something that is said, by Alice or Bob, in relation to an earlier event where it is one, or the redaction of
/// that event.
#[derive(Clone, Copy, Debug)]
struct Act {
    by_bob: bool,
    /// Of [`KINDS`]; none is a redaction.
    kind: Option<usize>,
    parent: prop::sample::Index,
    /// Senders choose it.
    time: u64,
    /// Whether an edit says what is new.
    whole: bool,
}

fn act() -> impl Strategy<Value = Act> {
    let kind = prop_oneof![9 => (0..KINDS.len()).prop_map(Some), 1 => Just(None)];
    let parent = any::<prop::sample::Index>();
    (
        any::<bool>(),
        kind,
        parent,
        0_u64..4,
        prop::bool::weighted(0.9),
    )
        .prop_map(|(by_bob, kind, parent, time, whole)| Act {
            by_bob,
            kind,
            parent,
            time,
            whole,
        })
}

/// What the model knows of one event.
#[derive(Clone, Debug)]
struct Known {
    id: OwnedEventId,
    sender: OwnedUserId,
    kind: usize,
    parent: Option<usize>,
    time: u64,
    whole: bool,
    redacted: bool,
}

impl Known {
    fn event_type(&self) -> &'static str {
        KINDS[self.kind].0
    }

    fn rel_type(&self) -> &'static str {
        KINDS[self.kind].1
    }
}

#[derive(Default)]
struct Naive(Vec<Known>);

impl Naive {
    /// Those that relate to an event, in order.
    fn related(&self, parent: usize) -> impl Iterator<Item = (usize, &Known)> {
        let all = self.0.iter().enumerate();
        all.filter(move |(_, event)| event.parent == Some(parent) && !event.redacted)
    }

    fn bundle(&self, at: usize, viewer: &Viewer) -> Value {
        let event = &self.0[at];
        let of = |rel_type: &'static str| {
            self.related(at)
                .map(|(_, event)| event)
                .filter(move |event| event.rel_type() == rel_type)
        };
        let mut told = serde_json::Map::new();
        let edit = of("m.replace")
            .filter(|edit| edit.sender == event.sender && edit.event_type() == event.event_type())
            .filter(|edit| edit.whole)
            .max_by_key(|edit| (edit.time, &edit.id));
        if let Some(edit) = edit.filter(|_| !event.redacted && event.rel_type() != "m.replace") {
            told.insert("m.replace".to_owned(), json!(edit.id));
        }
        if let Some(latest) = of("m.thread").last() {
            let own = |event: &Known| event.sender == viewer.user_id;
            let participated = own(event) || of("m.thread").any(own);
            let thread = json!([latest.id, of("m.thread").count(), participated]);
            told.insert("m.thread".to_owned(), thread);
        }
        let references: Vec<_> = of("m.reference").map(|event| &event.id).collect();
        if !references.is_empty() {
            told.insert("m.reference".to_owned(), json!(references));
        }
        Value::Object(told)
    }

    fn pages(&self, parent: usize, wanted: Related<'_>, direction: Direction) -> Vec<&str> {
        let mut found = BTreeMap::new();
        let mut level = vec![parent];
        for _ in 0..if wanted.recurse { RECURSION_DEPTH } else { 1 } {
            let related = level.iter().flat_map(|parent| self.related(*parent));
            let next: Vec<_> = related.collect();
            level = next.iter().map(|(at, _)| *at).collect();
            found.extend(next);
        }
        let wanted = |event: &&Known| {
            wanted
                .rel_type
                .is_none_or(|wanted| event.rel_type() == wanted)
                && wanted
                    .event_type
                    .is_none_or(|wanted| event.event_type() == wanted)
        };
        let events = found.into_values().filter(wanted);
        let mut ids: Vec<_> = events.map(|event| event.id.as_str()).collect();
        if direction == Direction::Backward {
            ids.reverse();
        }
        ids
    }
}

fn draft(act: Act, parent: Option<&Known>, now: u64) -> Draft {
    let sender = if act.by_bob { bob() } else { alice() };
    let Some(kind) = act.kind else {
        let target = parent.expect("something to redact");
        return redaction(&target.sender, &target.id);
    };
    let (event_type, rel_type) = KINDS[if parent.is_some() { kind } else { 0 }];
    let mut content = json!({ "msgtype": "m.text", "body": "salaam" });
    if let Some(parent) = parent {
        content["m.relates_to"] =
            json!({ "rel_type": rel_type, "event_id": parent.id, "key": "👍" });
        if act.whole && rel_type == "m.replace" {
            content["m.new_content"] = json!({ "msgtype": "m.text", "body": "khodahafez" });
        }
    }
    Draft {
        origin_server_ts: Some(now + act.time),
        ..Draft::message(sender, event_type, to_raw_value(&content).unwrap())
    }
}

/// A bundle as the client gets it, as far as the model tells it.
fn told(event: &Value) -> Value {
    let mut told = serde_json::Map::new();
    let relations = &event["unsigned"]["m.relations"];
    if let Some(edit) = relations.get("m.replace") {
        told.insert("m.replace".to_owned(), edit["event_id"].clone());
    }
    if let Some(thread) = relations.get("m.thread") {
        let latest = &thread["latest_event"]["event_id"];
        let thread = json!([latest, thread["count"], thread["current_user_participated"]]);
        told.insert("m.thread".to_owned(), thread);
    }
    if let Some(references) = relations["m.reference"]["chunk"].as_array() {
        let ids: Vec<_> = references.iter().map(|event| &event["event_id"]).collect();
        told.insert("m.reference".to_owned(), json!(ids));
    }
    Value::Object(told)
}

async fn bundles_are_as_the_rules_say(seen: &Seen<'_>, naive: &Naive) -> Result<(), TestCaseError> {
    let (snapshot, look) = seen.look().await;
    let form = EventForm {
        format: EventFormat::Client,
        timeline: true,
    };
    for (at, known) in naive.0.iter().enumerate() {
        let found = seen.room.find_event(seen.rooms, &snapshot, &known.id).await;
        let found = [found.unwrap().expect("an event of the room")];
        let written = seen
            .room
            .client_events(seen.rooms, &snapshot, seen.viewer, &look, &found, form)
            .await
            .unwrap();
        let event: Value = serde_json::from_str(written[0].get()).unwrap();
        prop_assert_eq!(told(&event), naive.bundle(at, seen.viewer), "{}", at);
    }
    Ok(())
}

async fn pages_hold_what_relates(
    seen: &Seen<'_>,
    naive: &Naive,
    limit: usize,
) -> Result<(), TestCaseError> {
    let (snapshot, look) = seen.look().await;
    let filters = [
        (None, None),
        (Some("m.thread"), None),
        (Some("m.annotation"), Some("m.reaction")),
    ];
    for (at, known) in naive.0.iter().enumerate() {
        for (which, direction) in [Direction::Forward, Direction::Backward]
            .into_iter()
            .enumerate()
        {
            let (rel_type, event_type) = filters[(at + which) % filters.len()];
            let wanted = Related {
                rel_type,
                event_type,
                recurse: (at / 2) % 2 == 0,
            };
            let mut from = match direction {
                Direction::Forward => PlaceToken(Place::START),
                Direction::Backward => PlaceToken(Place::END),
            };
            let mut found = Vec::new();
            loop {
                let span = Span {
                    from,
                    to: None,
                    direction,
                    limit,
                };
                let viewing = (seen.viewer, &look);
                let page = seen
                    .room
                    .related(seen.rooms, &snapshot, viewing, &known.id, wanted, span)
                    .await
                    .unwrap();
                prop_assert!(page.events.len() <= limit);
                found.extend(ids(&page.events).into_iter().map(str::to_owned));
                match page.next {
                    Some(next) => from = next,
                    None => break,
                }
            }
            prop_assert_eq!(
                found,
                naive.pages(at, wanted, direction),
                "{} {:?}",
                at,
                wanted
            );
        }
    }
    Ok(())
}

/// The rows of threads know how many replies are left, and those without are no threads.
async fn threads_are_counted(
    rooms: &Rooms,
    room: &Room,
    naive: &Naive,
) -> Result<(), TestCaseError> {
    let mut expected = BTreeMap::new();
    for (at, event) in naive.0.iter().enumerate() {
        let replies = naive
            .related(at)
            .filter(|(_, one)| one.rel_type() == "m.thread");
        let replies = replies.count() as u64;
        if replies > 0 {
            expected.insert(event.id.clone(), replies);
        }
    }
    let snapshot = rooms.snapshot().await.unwrap();
    let all = Range::prefix(&(room.short,));
    let listed = snapshot.multi_range(&schema::THREAD_BY_PLACE, &[all]).await;
    let listed = listed.unwrap().remove(0);
    let roots: Vec<_> = listed.iter().map(|(_, row)| row.value).collect();
    let keys: Vec<_> = roots.iter().map(|root| (room.short, *root)).collect();
    let rows = snapshot
        .multi_get(&schema::THREAD_BY_ROOT, &keys)
        .await
        .unwrap();
    let events = room.stored_events(&snapshot, &roots).await.unwrap();
    let counts = rows.into_iter().map(|row| row.unwrap().value.count);
    let ids = events.iter().map(|event| event.pdu.event_id().to_owned());
    let counted: BTreeMap<_, _> = ids.zip(counts).collect();
    prop_assert_eq!(listed.len(), counted.len(), "each thread is listed once");
    prop_assert_eq!(counted, expected);
    Ok(())
}

async fn check(storage: Storage, acts: &[Act], limit: usize) -> Result<(), TestCaseError> {
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    send(&rooms, &room, member(&bob(), &bob(), "join")).await;
    let mut naive = Naive::default();
    for act in acts {
        let related = act.kind.is_none_or(|kind| kind > 0);
        let parent = (related && !naive.0.is_empty()).then(|| act.parent.index(naive.0.len()));
        if parent.is_none() && act.kind.is_none() {
            continue;
        }
        let known = parent.map(|parent| &naive.0[parent]);
        let draft = draft(*act, known, rooms.now());
        let sender = draft.sender.clone();
        let id = send(&rooms, &room, draft).await;
        match (act.kind, parent) {
            (None, Some(target)) => naive.0[target].redacted = true,
            (kind, parent) => naive.0.push(Known {
                id,
                sender,
                kind: parent.and(kind).unwrap_or_default(),
                parent,
                time: act.time,
                whole: act.whole,
                redacted: false,
            }),
        }
    }
    threads_are_counted(&rooms, &room, &naive).await?;
    for viewer in &viewers {
        let seen = Seen {
            rooms: &rooms,
            room: &room,
            viewer,
        };
        bundles_are_as_the_rules_say(&seen, &naive).await?;
        pages_hold_what_relates(&seen, &naive, limit).await?;
    }
    Ok(())
}

async fn send(rooms: &Rooms, room: &Arc<Room>, draft: Draft) -> OwnedEventId {
    rooms.send(room, Group::one(draft)).await.unwrap().remove(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_is_told_with_events_is_what_the_rules_say(
        acts in prop::collection::vec(act(), 1..32), limit in 1usize..5,
    ) {
        block_on(check(Storage::model(), &acts, limit))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn what_is_told_with_events_is_what_the_rules_say_on_disk(
        acts in prop::collection::vec(act(), 8..32), limit in 1usize..5,
    ) {
        let (_folder, storage) = on_disk();
        block_on(check(storage, &acts, limit))?;
    }
}
