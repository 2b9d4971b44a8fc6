//! History visibility against a naive model: random rooms, and at every moment what each rule of the
//! specification says, read off the whole list of events.

use std::sync::Arc;

use proptest::{prelude::*, test_runner::TestCaseError};
use ruma::{
    RoomVersionId,
    api::{Direction, client::filter::RoomEventFilter},
};
use serde_json::json;
use storage::{Storage, schema::Place};

use super::{
    alice, block_on,
    people::{Seen, accounts, bob, ids, member, on_disk, visibility},
    public_room, rooms, state, text,
};
use crate::{Draft, EventFormat, Group, PlaceToken, Room, Rooms, Span, Viewer};

const VISIBILITIES: [&str; 4] = ["world_readable", "shared", "invited", "joined"];

/// Something that happens in a room which Alice made and Bob comes to, or not.
#[derive(Clone, Copy, Debug)]
enum Act {
    Say,
    Visibility(usize),
    Topic(u8),
    Bob(&'static str),
    ToBob(&'static str),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => Just(Act::Say),
        3 => (0..VISIBILITIES.len()).prop_map(Act::Visibility),
        1 => any::<u8>().prop_map(Act::Topic),
        2 => Just(Act::Bob("join")),
        2 => Just(Act::Bob("leave")),
        2 => prop::sample::select(vec!["invite", "leave", "ban"]).prop_map(Act::ToBob),
    ]
}

impl Act {
    fn draft(self) -> Draft {
        let (alice, bob) = (alice(), bob());
        match self {
            Self::Say => text(&alice, "hello"),
            Self::Visibility(which) => visibility(VISIBILITIES[which]),
            Self::Topic(topic) => state(&alice, "m.room.topic", "", json!({ "topic": topic })),
            Self::Bob(membership) => member(&bob, &bob, membership),
            Self::ToBob(membership) => member(&alice, &bob, membership),
        }
    }
}

/// What the model knows of one event.
#[derive(Clone, Debug)]
struct Known {
    id: String,
    /// Whether this is Bob's own member event.
    own: bool,
    visibility: [&'static str; 2],
    membership: [Option<&'static str>; 2],
}

/// The room as the model sees it: nothing but the list of its events.
#[derive(Default)]
struct Naive {
    events: Vec<Known>,
}

impl Naive {
    fn add(&mut self, id: String, act: Option<Act>) {
        let last = self.events.last();
        let (visibility, membership) = last.map_or(("shared", None), |last| {
            (last.visibility[1], last.membership[1])
        });
        let after = match act {
            Some(Act::Visibility(which)) => VISIBILITIES[which],
            _ => visibility,
        };
        let (own, now) = match act {
            Some(Act::Bob(now) | Act::ToBob(now)) => (true, Some(now)),
            _ => (false, membership),
        };
        self.events.push(Known {
            id,
            own,
            visibility: [visibility, after],
            membership: [membership, now],
        });
    }

    /// The five rules.
    fn visible(&self, at: usize) -> bool {
        let event = &self.events[at];
        let had = |membership: &str| {
            event.membership[1] == Some(membership)
                || (event.own && event.membership[0] == Some(membership))
        };
        let was = |visibility: &str| event.visibility.contains(&visibility);
        let joined_later = self.events[at..]
            .iter()
            .any(|later| later.membership[1] == Some("join"));
        was("world_readable")
            || had("join")
            || (was("shared") && joined_later)
            || (had("invite") && was("invited"))
    }

    fn membership(&self) -> Option<&'static str> {
        self.events.last().and_then(|last| last.membership[1])
    }

    fn world_readable(&self) -> bool {
        self.events.last().map(|last| last.visibility[1]) == Some("world_readable")
    }

    /// Up to which event Bob may read the timeline; none: nothing of it.
    fn end(&self) -> Option<usize> {
        if self.membership() == Some("join") || self.world_readable() {
            return self.events.len().checked_sub(1);
        }
        self.events
            .iter()
            .rposition(|event| event.membership[0] == Some("join") && event.own)
    }

    fn timeline(&self) -> Option<Vec<&str>> {
        let end = self.end()?;
        let all = (0..=end).filter(|at| self.visible(*at));
        Some(all.map(|at| self.events[at].id.as_str()).collect())
    }
}

/// Every event by itself: whether Bob may see it, and his membership there.
async fn single_events_are_as_the_rules_say(
    rooms: &Rooms,
    room: &Arc<Room>,
    viewer: &Viewer,
    naive: &Naive,
) -> Result<(), TestCaseError> {
    let seen = Seen {
        rooms,
        room,
        viewer,
    };
    let (snapshot, look) = seen.look().await;
    let mut events = Vec::new();
    for known in &naive.events {
        let id = known.id.as_str().try_into().unwrap();
        let event = room.find_event(rooms, &snapshot, id).await.unwrap();
        events.push(event.unwrap());
    }
    let visible = room.visible(&snapshot, viewer, &look, &events).await;
    let wanted: Vec<_> = (0..events.len()).map(|at| naive.visible(at)).collect();
    prop_assert_eq!(visible.unwrap(), wanted);
    let written = seen
        .written(&snapshot, &look, &events, EventFormat::Client)
        .await;
    for (event, known) in written.iter().zip(&naive.events) {
        let membership = known.membership[1].unwrap_or("leave");
        prop_assert_eq!(&event["unsigned"]["membership"], membership);
    }
    Ok(())
}

/// The whole timeline in pages, in both directions.
async fn pages_hold_what_is_visible(
    rooms: &Rooms,
    room: &Arc<Room>,
    viewer: &Viewer,
    naive: &Naive,
    limit: usize,
) -> Result<(), TestCaseError> {
    let seen = Seen {
        rooms,
        room,
        viewer,
    };
    let wanted = naive.timeline();
    for direction in [Direction::Backward, Direction::Forward] {
        let mut read = Vec::new();
        let mut from = match direction {
            Direction::Backward => PlaceToken(Place::END),
            Direction::Forward => PlaceToken(Place::START),
        };
        loop {
            let span = Span {
                from,
                to: None,
                direction,
                limit,
            };
            let page = match seen.page(span, &RoomEventFilter::default()).await {
                Ok(page) => page,
                Err(error) => {
                    prop_assert_eq!(error.status(), 403);
                    prop_assert!(wanted.is_none());
                    break;
                }
            };
            prop_assert!(wanted.is_some(), "a stranger reads");
            prop_assert!(page.events.len() <= limit);
            read.extend(ids(&page.events).into_iter().map(ToOwned::to_owned));
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        if direction == Direction::Backward {
            read.reverse();
        }
        prop_assert_eq!(
            &read,
            wanted.as_deref().unwrap_or_default(),
            "{:?}",
            direction
        );
    }
    Ok(())
}

async fn check(storage: Storage, acts: &[Act], limit: usize) -> Result<(), TestCaseError> {
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    let mut naive = Naive::default();
    let creator = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    let whole = Span {
        from: PlaceToken(Place::START),
        to: None,
        direction: Direction::Forward,
        limit: 100,
    };
    let first = creator.page(whole, &RoomEventFilter::default()).await;
    for id in ids(&first.unwrap().events) {
        naive.add(id.to_owned(), None);
    }
    for (turn, act) in acts.iter().enumerate() {
        // What the room's rules do not allow does not happen.
        let Ok(sent) = rooms.send(&room, Group::one(act.draft())).await else {
            continue;
        };
        if naive.events.iter().any(|known| sent[0] == known.id) {
            continue;
        }
        naive.add(sent[0].to_string(), Some(*act));
        if turn % 4 == 0 || turn + 1 == acts.len() {
            let bob = &viewers[1];
            single_events_are_as_the_rules_say(&rooms, &room, bob, &naive).await?;
            pages_hold_what_is_visible(&rooms, &room, bob, &naive, limit).await?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn history_visibility_is_what_the_rules_say(
        acts in prop::collection::vec(act(), 1..32), limit in 1usize..7,
    ) {
        block_on(check(Storage::model(), &acts, limit))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn history_visibility_is_what_the_rules_say_on_disk(
        acts in prop::collection::vec(act(), 8..32), limit in 1usize..7,
    ) {
        let (_folder, storage) = on_disk();
        block_on(check(storage, &acts, limit))?;
    }
}
