//! Receipts and read markers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::sync::Arc;

use ruma::{OwnedEventId, RoomVersionId, events::receipt::ReceiptThread};
use serde_json::{Value, json};
use storage::{
    Position, Storage, Topic,
    schema::{self, ReceiptKind},
};

use crate::{
    NewReceipt, ReadUpTo, Room, Rooms, Viewer,
    tests::{alice, rooms},
    unread::tests::{person, room_of, send},
};

struct World {
    rooms: Rooms,
    room: Arc<Room>,
    bob: Viewer,
    carol: Viewer,
}

async fn world() -> World {
    let rooms = rooms(Storage::model());
    let (bob, carol) = (person(&rooms, "bob").await, person(&rooms, "carol").await);
    let room = room_of(&rooms, &RoomVersionId::V11, &[&bob, &carol]).await;
    World {
        rooms,
        room,
        bob,
        carol,
    }
}

const READ: ReceiptKind = ReceiptKind::Read;
const PRIVATE: ReceiptKind = ReceiptKind::ReadPrivate;

impl World {
    async fn message(&self, thread: Option<&OwnedEventId>) -> OwnedEventId {
        let mut content = json!({ "msgtype": "m.text", "body": "hi" });
        if let Some(root) = thread {
            content["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": root });
        }
        send(
            &self.rooms,
            &self.room,
            &alice(),
            "m.room.message",
            &content,
        )
        .await
    }

    async fn read(
        &self,
        who: &Viewer,
        kind: ReceiptKind,
        event_id: &OwnedEventId,
        thread: ReceiptThread,
    ) -> error::Result<()> {
        let wish = ReadUpTo {
            receipts: vec![NewReceipt {
                kind,
                event_id: event_id.clone(),
                thread,
            }],
            fully_read: None,
        };
        self.rooms.read_up_to(&self.room, who, &wish).await
    }

    /// `m.receipt` without the times.
    async fn seen(&self, by: &Viewer, since: Option<Position>) -> Value {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let asked = [(Arc::clone(&self.room), since)];
        let content = self
            .rooms
            .receipts(&snapshot, by, &asked)
            .await
            .unwrap()
            .remove(0);
        let mut content: Value = match content {
            Some(content) => serde_json::from_str(content.get()).unwrap(),
            None => return json!({}),
        };
        for event in content.as_object_mut().unwrap().values_mut() {
            for users in event.as_object_mut().unwrap().values_mut() {
                for receipt in users.as_object_mut().unwrap().values_mut() {
                    let ts = receipt.as_object_mut().unwrap().remove("ts");
                    assert_eq!(ts, Some(json!(1_700_000_000_000_u64)));
                }
            }
        }
        content
    }

    async fn now(&self) -> Position {
        self.rooms.snapshot().await.unwrap().position()
    }

    async fn fully_read(&self, who: &Viewer, event_id: &OwnedEventId) -> Value {
        let wish = ReadUpTo {
            receipts: Vec::new(),
            fully_read: Some(event_id.clone()),
        };
        self.rooms.read_up_to(&self.room, who, &wish).await.unwrap();
        let storage = self.rooms.storage();
        let key = (
            who.short,
            self.room.short,
            storage.type_hash("m.fully_read"),
        );
        let snapshot = self.rooms.snapshot().await.unwrap();
        let row = snapshot
            .multi_get(&schema::ACCOUNT_DATA_BY_USER, &[key])
            .await;
        let row = row.unwrap().remove(0).unwrap().value.value;
        serde_json::from_str(&row.json).unwrap()
    }
}

#[tokio::test]
async fn receipts_go_on_and_never_back() {
    let world = world().await;
    let (first, second) = (world.message(None).await, world.message(None).await);
    let storage = world.rooms.storage();
    let waits = storage.subscribe(&[Topic::Room(world.room.short), Topic::User(world.bob.short)]);
    world
        .read(&world.bob, READ, &second, ReceiptThread::Unthreaded)
        .await
        .unwrap();
    assert_eq!(waits.take().len(), 2);
    let since = world.now().await;
    let expected = json!({ second.as_str(): { "m.read": { "@bob:example.org": {} } } });
    assert_eq!(world.seen(&world.carol, None).await, expected);
    for behind in [&first, &second] {
        world
            .read(&world.bob, READ, behind, ReceiptThread::Unthreaded)
            .await
            .unwrap();
    }
    assert!(waits.take().is_empty());
    assert_eq!(world.now().await, since, "nothing was written");
    assert_eq!(world.seen(&world.carol, Some(since)).await, json!({}));

    let third = world.message(None).await;
    world
        .read(&world.bob, READ, &third, ReceiptThread::Unthreaded)
        .await
        .unwrap();
    let expected = json!({ third.as_str(): { "m.read": { "@bob:example.org": {} } } });
    assert_eq!(world.seen(&world.carol, Some(since)).await, expected);
    assert_eq!(world.seen(&world.carol, None).await, expected);
    assert_eq!(world.seen(&world.bob, None).await, expected);
}

#[tokio::test]
async fn private_receipts_are_their_owners() {
    let world = world().await;
    let first = world.message(None).await;
    let since = world.now().await;
    let waits = world
        .rooms
        .storage()
        .subscribe(&[Topic::Room(world.room.short)]);
    world
        .read(&world.bob, PRIVATE, &first, ReceiptThread::Main)
        .await
        .unwrap();
    assert!(waits.take().is_empty(), "nobody else is to learn of it");
    for since in [None, Some(since)] {
        assert_eq!(world.seen(&world.carol, since).await, json!({}));
        let receipt = json!({ "@bob:example.org": { "thread_id": "main" } });
        let expected = json!({ first.as_str(): { "m.read.private": receipt } });
        assert_eq!(world.seen(&world.bob, since).await, expected);
    }
}

#[tokio::test]
async fn threads_have_receipts_of_their_own_and_unthreaded_ones_stand() {
    let world = world().await;
    let root = world.message(None).await;
    let other = world.message(None).await;
    let answer = world.message(Some(&root)).await;
    let thread = ReceiptThread::Thread(root.clone());
    for (event, thread) in [
        (&answer, ReceiptThread::Main),
        (&other, thread.clone()),
        (&other, ReceiptThread::Thread(other.clone())),
        (
            &other,
            ReceiptThread::Thread("$unknown".try_into().unwrap()),
        ),
        (&other, serde_json::from_value(json!("nonsense")).unwrap()),
    ] {
        let refused = world
            .read(&world.bob, READ, event, thread.clone())
            .await
            .unwrap_err();
        assert_eq!(refused.status(), 400, "{thread:?}");
    }
    for (event, thread) in [
        (&root, thread.clone()),
        (&answer, thread.clone()),
        (&answer, ReceiptThread::Unthreaded),
        (&root, ReceiptThread::Main),
        (&other, ReceiptThread::Main),
    ] {
        world.read(&world.bob, READ, event, thread).await.unwrap();
    }
    let expected = json!({
        answer.as_str(): { "m.read": { "@bob:example.org": {} } },
        other.as_str(): { "m.read": { "@bob:example.org": { "thread_id": "main" } } },
    });
    assert_eq!(world.seen(&world.carol, None).await, expected, "MSC4102");
}

#[tokio::test]
async fn what_relates_to_an_event_of_a_thread_belongs_to_it() {
    let world = world().await;
    let root = world.message(None).await;
    let answer = world.message(Some(&root)).await;
    let related = |event: &OwnedEventId| json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event, "key": "x" } });
    let mut last = answer;
    for _ in 0..4 {
        let (rooms, room) = (&world.rooms, &world.room);
        last = send(rooms, room, &alice(), "m.reaction", &related(&last)).await;
    }
    let thread = ReceiptThread::Thread(root.clone());
    world
        .read(&world.bob, READ, &last, thread.clone())
        .await
        .unwrap();
    let main = world
        .read(&world.bob, READ, &last, ReceiptThread::Main)
        .await;
    assert_eq!(main.unwrap_err().status(), 400);
    // What relates to the root otherwise is in the main timeline, and may be read with the thread; what
    // relates to that too, but not for ever.
    let mut last = root;
    for hops in 1..=4 {
        let (rooms, room) = (&world.rooms, &world.room);
        last = send(rooms, room, &alice(), "m.reaction", &related(&last)).await;
        let main = world.read(&world.bob, READ, &last, ReceiptThread::Main);
        main.await.unwrap();
        let thread = world.read(&world.bob, READ, &last, thread.clone()).await;
        assert_eq!(thread.is_ok(), hops <= 3, "{hops}");
    }
}

#[tokio::test]
async fn the_marker_goes_on_and_never_back() {
    let world = world().await;
    let (first, second) = (world.message(None).await, world.message(None).await);
    let marked = |event: &OwnedEventId| json!({ "event_id": event });
    assert_eq!(world.fully_read(&world.bob, &first).await, marked(&first));
    assert_eq!(world.fully_read(&world.bob, &second).await, marked(&second));
    assert_eq!(world.fully_read(&world.bob, &first).await, marked(&second));
}

#[tokio::test]
async fn strangers_and_unknown_events_are_refused() {
    let world = world().await;
    let event = world.message(None).await;
    let eve = person(&world.rooms, "eve").await;
    let refused = world
        .read(&eve, READ, &event, ReceiptThread::Unthreaded)
        .await;
    assert_eq!(refused.unwrap_err().status(), 403);
    let unknown: OwnedEventId = "$unknown".try_into().unwrap();
    let refused = world
        .read(&world.bob, READ, &unknown, ReceiptThread::Unthreaded)
        .await;
    assert_eq!(refused.unwrap_err().status(), 404);
    let elsewhere = room_of(&world.rooms, &RoomVersionId::V11, &[]).await;
    let content = json!({ "msgtype": "m.text", "body": "hi" });
    let there = send(
        &world.rooms,
        &elsewhere,
        &alice(),
        "m.room.message",
        &content,
    )
    .await;
    let refused = world
        .read(&world.bob, READ, &there, ReceiptThread::Unthreaded)
        .await;
    assert_eq!(refused.unwrap_err().status(), 404);
}

#[tokio::test]
async fn two_kinds_in_one_request_are_stored_together() {
    let world = world().await;
    let (first, second) = (world.message(None).await, world.message(None).await);
    let receipt = |kind, event_id: &OwnedEventId| NewReceipt {
        kind,
        event_id: event_id.clone(),
        thread: ReceiptThread::Unthreaded,
    };
    let wish = ReadUpTo {
        receipts: vec![receipt(PRIVATE, &second), receipt(READ, &first)],
        fully_read: Some(second.clone()),
    };
    world
        .rooms
        .read_up_to(&world.room, &world.bob, &wish)
        .await
        .unwrap();
    let snapshot = world.rooms.snapshot().await.unwrap();
    let rooms = [Arc::clone(&world.room)];
    let unread = world
        .rooms
        .unread(&snapshot, &world.bob, &rooms)
        .await
        .unwrap();
    assert_eq!(unread[0].main.notifications, 0, "the one further on counts");
    let expected = json!({
        first.as_str(): { "m.read": { "@bob:example.org": {} } },
        second.as_str(): { "m.read.private": { "@bob:example.org": {} } },
    });
    assert_eq!(world.seen(&world.bob, None).await, expected);
}
