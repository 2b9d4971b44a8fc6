//! What a send costs: the same in a room of ten people and of ten thousand.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomVersionId};
use serde_json::json;
use storage::{Cost, Storage};

use super::{alice, public_room, rooms, state, text};
use crate::{Group, Room, Rooms};

/// People who join together, in one commit.
const JOINS_AT_ONCE: usize = 250;

async fn room_of(rooms: &Rooms, members: usize) -> Arc<Room> {
    let room_id = public_room(rooms, &RoomVersionId::V12).await;
    let room = rooms.room(&room_id).await.unwrap();
    let people: Vec<OwnedUserId> = (1..members)
        .map(|n| format!("@p{n}:example.org").try_into().unwrap())
        .collect();
    for people in people.chunks(JOINS_AT_ONCE) {
        let drafts = people
            .iter()
            .map(|person| {
                let join = json!({ "membership": "join" });
                state(person, "m.room.member", person.as_str(), join)
            })
            .collect();
        let group = Group {
            drafts,
            ..Group::default()
        };
        rooms.send(&room, group).await.unwrap();
    }
    room
}

/// What one message costs a writer that knows the room and one that does not.
async fn cost(members: usize) -> (Cost, Cost) {
    let storage = Storage::model();
    let warm_rooms = rooms(storage.clone());
    let room = room_of(&warm_rooms, members).await;
    let one = |body: &str| Group::one(text(&alice(), body));
    warm_rooms.send(&room, one("first")).await.unwrap();

    let before = storage.cost();
    warm_rooms.send(&room, one("warm")).await.unwrap();
    let warm = storage.cost() - before;

    let cold_rooms = rooms(storage.clone());
    let before = storage.cost();
    cold_rooms.send(&room, one("cold")).await.unwrap();
    (warm, storage.cost() - before)
}

#[tokio::test]
async fn a_send_costs_the_same_whatever_the_members() {
    let (small_warm, small_cold) = cost(10).await;
    let (large_warm, large_cold) = cost(10_000).await;
    for (small, large, round_trips) in [(small_warm, large_warm, 1), (small_cold, large_cold, 2)] {
        assert_eq!(small.round_trips, round_trips, "{small:?}");
        assert_eq!(large.round_trips, round_trips, "{large:?}");
        assert_eq!(small.commits, 1);
        assert_eq!(large.commits, 1);
        let rows = |cost: &Cost| (cost.keys, cost.ranges, cost.rows_written);
        assert_eq!(rows(&small), rows(&large), "{small:?} {large:?}");
        // Larger numbers are a byte or two longer.
        for (few, many) in [
            (small.bytes_read, large.bytes_read),
            (small.bytes_written, large.bytes_written),
        ] {
            assert!(many <= few + 32, "{small:?} {large:?}");
        }
    }
}
