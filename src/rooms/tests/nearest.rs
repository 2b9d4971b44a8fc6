//! Tests of finding the event nearest to a time.

use std::sync::Arc;

use ruma::{OwnedEventId, RoomVersionId, api::Direction};
use storage::Storage;

use super::{
    alice,
    people::{Seen, accounts, bob, member, visibility},
    public_room, rooms, text,
};
use crate::{Draft, Group, Room, Rooms, Viewer};

use Direction::{Backward, Forward};

/// Messages that are sent together, in one commit.
const AT_ONCE: usize = 250;

async fn room_of(storage: Storage) -> (Rooms, Arc<Room>, Vec<Viewer>) {
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    (rooms, room, viewers)
}

impl Seen<'_> {
    async fn say_at(&self, time: u64) -> OwnedEventId {
        self.send(Draft {
            origin_server_ts: Some(time),
            ..text(&alice(), "said")
        })
        .await
    }

    async fn nearest(&self, time: u64, direction: Direction) -> Option<String> {
        let (snapshot, look) = self.look().await;
        let found = self
            .room
            .nearest_in_time(&snapshot, self.viewer, &look, time, direction)
            .await;
        found.unwrap().map(|event| event.row.header.event_id)
    }
}

#[tokio::test]
async fn the_next_event_in_a_direction_whenever_it_came() {
    let storage = Storage::model();
    let (rooms, room, viewers) = room_of(storage.clone()).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    let later = rooms.now() + 1_000;
    let first = seen.say_at(later).await;
    let twin = seen.say_at(later).await;
    let last = seen.say_at(later + 1_000).await;
    // An application service brings in what happened long before the room was made.
    let old = seen.say_at(5).await;
    let cases = [
        (later, Forward, Some(&first)),
        (later, Backward, Some(&twin)),
        (later + 1, Backward, Some(&twin)),
        (later + 1, Forward, Some(&last)),
        (later + 1_001, Forward, None),
        (u64::MAX, Backward, Some(&last)),
        (u64::MAX, Forward, None),
        (0, Forward, Some(&old)),
        (4, Backward, None),
        (5, Backward, Some(&old)),
        (6, Backward, Some(&old)),
    ];
    for (time, direction, wanted) in cases {
        let found = seen.nearest(time, direction).await;
        let wanted = wanted.map(|id| id.as_str());
        assert_eq!(found.as_deref(), wanted, "{time} {direction:?}");
    }
    let (snapshot, look) = seen.look().await;
    let before = storage.cost();
    let found = room.nearest_in_time(&snapshot, &viewers[0], &look, later, Backward);
    assert!(found.await.unwrap().is_some());
    assert_eq!((storage.cost() - before).round_trips, 2);
}

#[tokio::test]
async fn who_was_not_there_is_shown_their_own_coming_and_going() {
    let (rooms, room, viewers) = room_of(Storage::model()).await;
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[1],
    };
    let many = async || {
        for _ in 0..10 {
            let draft = || Draft {
                origin_server_ts: Some(rooms.unique_time()),
                ..text(&alice(), "unseen")
            };
            let drafts = (0..AT_ONCE).map(|_| draft()).collect();
            let group = Group {
                drafts,
                ..Group::default()
            };
            rooms.send(&room, group).await.unwrap();
        }
    };
    let at = |draft: Draft| Draft {
        origin_server_ts: Some(rooms.unique_time()),
        ..draft
    };
    seen.send(at(visibility("joined"))).await;
    let start = rooms.unique_time();
    many().await;
    let joined = seen.send(at(member(&bob(), &bob(), "join"))).await;
    assert_eq!(
        seen.nearest(start, Forward).await.as_deref(),
        Some(joined.as_str())
    );
    let heard = seen.say_at(rooms.unique_time()).await;
    let left = seen.send(at(member(&bob(), &bob(), "leave"))).await;
    many().await;
    let now = rooms.unique_time();
    assert_eq!(
        seen.nearest(now, Backward).await.as_deref(),
        Some(left.as_str())
    );
    assert_eq!(seen.nearest(now, Forward).await, None);
    let (snapshot, look) = seen.look().await;
    let event = room.find_event(&rooms, &snapshot, &left).await.unwrap();
    let before = event.unwrap().row.header.origin_server_ts - 1;
    let found = room.nearest_in_time(&snapshot, &viewers[1], &look, before, Backward);
    assert_eq!(
        found.await.unwrap().unwrap().row.header.event_id,
        heard.as_str()
    );
}
