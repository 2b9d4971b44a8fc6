//! Tests of writing rooms, on the model engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

mod cost;
mod delayed;
mod directory;
mod jobs;
mod nearest;
pub(crate) mod people;
mod policy_server;
mod purge;
mod reading;
mod receive;
mod redact_all;
mod relations;
mod restricted;
mod servers;
mod spaces;
mod visibility;

use std::sync::Arc;

use federation::Federation;
use futures_util::FutureExt as _;
use pdu::RoomRules;
use ruma::{OwnedRoomId, OwnedUserId, RoomVersionId, server_name};
use serde_json::{Value, json, value::to_raw_value};
use storage::{Clock, OnceKey, Random, Range, Storage, schema};

use crate::{Draft, Group, Parts, Rooms};

/// Rooms of `example.org` on a storage, at a standing clock.
pub(crate) fn rooms(storage: Storage) -> Rooms {
    let clock = Clock::standing_at(1_700_000_000_000);
    let name = server_name!("example.org");
    // What it keeps lies elsewhere, so that it is not among what is counted. Storage in memory never waits.
    let alone = federation::Parts::alone(&Storage::model(), name, &clock, &Random::seeded(2));
    let federation = Federation::open(alone).now_or_never().unwrap().unwrap();
    Rooms::new(Parts {
        storage,
        server_name: name.to_owned(),
        federation,
        clock,
        random: Random::seeded(1),
    })
}

/// Waits for something, in a runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(future)
}

pub(crate) fn alice() -> OwnedUserId {
    "@alice:example.org".try_into().unwrap()
}

pub(crate) fn state(sender: &OwnedUserId, event_type: &str, key: &str, content: Value) -> Draft {
    Draft::state(
        sender.clone(),
        event_type,
        key,
        to_raw_value(&content).unwrap(),
    )
}

pub(crate) fn text(sender: &OwnedUserId, body: &str) -> Draft {
    let content = to_raw_value(&json!({ "msgtype": "m.text", "body": body })).unwrap();
    Draft::message(sender.clone(), "m.room.message", content)
}

/// The first events of a public room.
pub(crate) async fn public_room(rooms: &Rooms, version: &RoomVersionId) -> OwnedRoomId {
    let alice = alice();
    let rules = RoomRules::of(version).unwrap();
    let v12 = rules.room_id_is_create_event_id();
    let create = json!({ "room_version": version, "creator": alice });
    let power = if v12 {
        json!({})
    } else {
        json!({ "users": { alice.as_str(): 100 } })
    };
    let drafts = vec![
        state(&alice, "m.room.create", "", create),
        state(
            &alice,
            "m.room.member",
            alice.as_str(),
            json!({ "membership": "join" }),
        ),
        state(&alice, "m.room.power_levels", "", power),
        state(
            &alice,
            "m.room.join_rules",
            "",
            json!({ "join_rule": "public" }),
        ),
    ];
    rooms
        .send_first(
            rooms.new_room(rules, false).unwrap(),
            Group {
                drafts,
                ..Group::default()
            },
        )
        .await
        .unwrap()
}

#[tokio::test]
async fn a_room_of_every_version_takes_messages() {
    for rules in RoomRules::all() {
        let rooms = rooms(Storage::model());
        let room_id = public_room(&rooms, &rules.version_id()).await;
        let room = rooms.room(&room_id).await.unwrap();
        let first = rooms
            .send(&room, Group::one(text(&alice(), "one")))
            .await
            .unwrap();
        let second = rooms
            .send(&room, Group::one(text(&alice(), "two")))
            .await
            .unwrap();
        assert_ne!(first, second);
        let snapshot = rooms.snapshot().await.unwrap();
        let range = Range::prefix(&(room.short,));
        let timeline = snapshot
            .multi_range(&schema::EVENT_BY_PLACE, &[range])
            .await
            .unwrap()
            .remove(0);
        assert_eq!(timeline.len(), 6, "version {}", rules.version());
        assert_eq!(timeline[5].1.value.totals.notify, 2);
    }
}

#[tokio::test]
async fn many_at_once_are_each_stored_once_and_in_one_chain() {
    let rooms = rooms(Storage::model());
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    let mut tasks = Vec::new();
    for i in 0..200 {
        let (rooms, room) = (rooms.clone(), Arc::clone(&room));
        tasks.push(tokio::spawn(async move {
            let name = rooms.storage().hash("test", format!("{}", i / 2));
            let once = Some(OnceKey { day: 1, name });
            let drafts = vec![text(&alice(), &format!("message {i}"))];
            rooms
                .send(
                    &room,
                    Group {
                        drafts,
                        once,
                        ..Group::default()
                    },
                )
                .await
                .unwrap()
                .remove(0)
        }));
    }
    let mut ids = Vec::new();
    for task in tasks {
        ids.push(task.await.unwrap());
    }
    for pair in ids.chunks(2) {
        assert_eq!(pair[0], pair[1], "a transaction acted twice");
    }
    let snapshot = rooms.snapshot().await.unwrap();
    let head = snapshot
        .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
        .await
        .unwrap()
        .remove(0);
    let head = head.unwrap().value;
    assert_eq!(head.extremities.len(), 1);
    assert_eq!(head.next_slot, 105);
    assert_eq!(head.totals.notify, 100);
}

#[tokio::test]
async fn people_who_are_not_in_the_room_cannot_send() {
    let rooms = rooms(Storage::model());
    let room_id = public_room(&rooms, &RoomVersionId::V12).await;
    let room = rooms.room(&room_id).await.unwrap();
    let bob: OwnedUserId = "@bob:example.org".try_into().unwrap();
    let error = rooms
        .send(&room, Group::one(text(&bob, "hi")))
        .await
        .unwrap_err();
    assert_eq!(error.status(), 403);
    let join = state(
        &bob,
        "m.room.member",
        bob.as_str(),
        json!({ "membership": "join" }),
    );
    let joined = rooms.send(&room, Group::one(join.clone())).await.unwrap();
    assert_eq!(
        rooms.send(&room, Group::one(join)).await.unwrap(),
        joined,
        "the same state again"
    );
    rooms
        .send(&room, Group::one(text(&bob, "hi")))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_tree_holds_the_state_at_every_event() {
    let rooms = rooms(Storage::model());
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    let name = state(&alice(), "m.room.name", "", json!({ "name": "one" }));
    rooms.send(&room, Group::one(name)).await.unwrap();
    let snapshot = rooms.snapshot().await.unwrap();
    let head = snapshot
        .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
        .await
        .unwrap()
        .remove(0);
    let last = head.unwrap().value.extremities[0].number;
    let roots = snapshot
        .multi_get(&schema::ROOTS_BY_EVENT, &[(room.short, last)])
        .await
        .unwrap();
    let roots = roots[0].as_ref().unwrap().value;
    assert_eq!(
        room.whole_state(&snapshot, roots.before)
            .await
            .unwrap()
            .len(),
        4
    );
    assert_eq!(
        room.whole_state(&snapshot, roots.after)
            .await
            .unwrap()
            .len(),
        5
    );
    let key = ("m.room.name".into(), String::new());
    let both = [roots.before, roots.after];
    let found = room
        .find_state(&snapshot, &both, std::slice::from_ref(&key))
        .await
        .unwrap();
    assert_eq!(found.get(&(roots.before, key.clone())), None);
    assert_eq!(found.get(&(roots.after, key)), Some(&last));
}
