//! People do what comes to their mind in several rooms; then each finds exactly what they can read there.

use std::{collections::BTreeSet, sync::Arc};

use pdu::canonical;
use proptest::prelude::*;
use rooms::{Draft, Group, PlaceToken, Preset, ReadEvent, Room, Said, Span};
use ruma::{
    OwnedEventId,
    api::{Direction, client::filter::RoomEventFilter},
};
use serde_json::{json, value::to_raw_value};
use storage::schema::Place;

use super::{World, text};

const PEOPLE: usize = 3;
const ROOMS: usize = 3;
const VISIBILITIES: [&str; 4] = ["shared", "joined", "invited", "world_readable"];

/// Somebody does something in a room; what they may not do does not happen.
#[derive(Clone, Copy, Debug)]
struct Step {
    room: usize,
    person: usize,
    other: usize,
    what: u8,
    /// Of the messages that were sent there, counted from the latest.
    back: usize,
}

fn step() -> impl Strategy<Value = Step> {
    (0..ROOMS, 0..PEOPLE, 0..PEOPLE, 0..20_u8, 0..4_usize).prop_map(
        |(room, person, other, what, back)| Step {
            room,
            person,
            other,
            what,
            back,
        },
    )
}

async fn act(world: &World, room: &Arc<Room>, sent: &mut Vec<OwnedEventId>, step: Step) {
    let (own, theirs) = (world.id(step.person).clone(), world.id(step.other).clone());
    let said = Said::default();
    let rooms = &world.rooms;
    let earlier = sent
        .len()
        .checked_sub(step.back + 1)
        .map(|at| sent[at].clone());
    match (step.what, earlier) {
        (0..=6, _) => {
            let body = format!("needle number{}", sent.len() % 3);
            sent.extend(world.send(room, step.person, text(&body)).await);
        }
        (7..=8, Some(target)) => {
            let content = json!({
                "msgtype": "m.text", "body": "* straw", "m.new_content": text("the straw needle"),
                "m.relates_to": { "rel_type": "m.replace", "event_id": target },
            });
            sent.extend(world.send(room, step.person, content).await);
        }
        (9, Some(target)) => {
            let content = to_raw_value(&json!({ "redacts": target })).unwrap();
            let draft = Draft::message(own, "m.room.redaction", content);
            let _ = rooms.send(room, Group::one(draft)).await;
        }
        (10, _) => {
            let visibility = VISIBILITIES[step.back];
            let content = json!({ "history_visibility": visibility });
            let event_type = "m.room.history_visibility";
            let _ = world.set(room, step.person, event_type, "", content).await;
        }
        (11, _) => {
            let content = json!({ "topic": "A needle" });
            let _ = world
                .set(room, step.person, "m.room.topic", "", content)
                .await;
        }
        (12..=14, _) => drop(rooms.join(room, &own, &[], said).await),
        (15 | 16, _) => drop(rooms.leave(room, &own, said).await),
        (17, _) => drop(rooms.kick(room, &own, &theirs, said).await),
        _ => drop(rooms.invite(room, &own, &theirs, said).await),
    }
}

/// What somebody reads that has the word in it. What was edited after they left is not found by them.
async fn read(world: &World, person: usize, room: &Room) -> BTreeSet<String> {
    let viewer = &world.people[person];
    let snapshot = world.rooms.snapshot().await.unwrap();
    let look = room.look(&snapshot, viewer).await.unwrap();
    if look.root().is_err() {
        return BTreeSet::new();
    }
    let span = Span {
        from: PlaceToken(Place::END),
        to: None,
        direction: Direction::Backward,
        limit: 1_000,
    };
    let filter = RoomEventFilter::default();
    let page = room.timeline(&snapshot, viewer, &look, span, &filter, None);
    let page = page.await.unwrap();
    let storage = world.rooms.storage();
    let edits = room.latest_edits(storage, &snapshot, &page.events).await;
    let edits = edits.unwrap();
    let seen: BTreeSet<_> = page.events.iter().map(|event| event.number).collect();
    let mut read = BTreeSet::new();
    for event in &page.events {
        let string = |content: &[u8], key| {
            let value = canonical::member(content, key).and_then(canonical::string);
            value.map(std::borrow::Cow::into_owned)
        };
        let is_edit = canonical::member(event.content(), "m.relates_to").is_some();
        let edit: Option<&ReadEvent> = edits.get(&event.number);
        let new = edit.and_then(|edit| canonical::member(edit.content(), "m.new_content"));
        let body = string(new.unwrap_or(event.content()), "body");
        let says = body.or_else(|| string(event.content(), "topic"));
        let whole = edit.is_none_or(|edit| seen.contains(&edit.number));
        if !is_edit && whole && says.is_some_and(|says| says.contains("needle")) {
            read.insert(event.row.header.event_id.clone());
        }
    }
    read
}

async fn walk(steps: &[Step]) {
    let world = World::new(&["alice", "bob", "carol"]).await;
    let mut rooms = Vec::new();
    for (creator, visibility) in ["shared", "joined", "invited"].into_iter().enumerate() {
        rooms.push(world.room(creator, Preset::PublicChat, visibility).await);
    }
    let mut sent = vec![Vec::new(); ROOMS];
    for (number, step) in steps.iter().enumerate() {
        act(&world, &rooms[step.room], &mut sent[step.room], *step).await;
        // The index learns of it in pieces.
        if number % 9 == 0 {
            world.find(step.person, "needle", true, 3).await;
        }
    }
    for person in 0..PEOPLE {
        let mut expected = BTreeSet::new();
        for room in &rooms {
            if has_to_do_with(&world, person, room).await {
                expected.extend(read(&world, person, room).await);
            }
        }
        for by_rank in [true, false] {
            let found = world.find(person, "needle", by_rank, 4).await;
            let each: BTreeSet<_> = found.iter().cloned().collect();
            assert_eq!(each.len(), found.len(), "something was found twice");
            assert_eq!(each, expected, "of {person}");
        }
    }
}

/// Whether somebody was ever in a room, or invited: others find nothing there, though all may read it.
async fn has_to_do_with(world: &World, person: usize, room: &Room) -> bool {
    let snapshot = world.rooms.snapshot().await.unwrap();
    let own = world.rooms.rooms_of(&snapshot, world.people[person].short);
    own.await.unwrap().iter().any(|(own, _)| *own == room.short)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn everybody_finds_what_they_can_read(steps in prop::collection::vec(step(), 20..80)) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(walk(&steps));
    }
}
