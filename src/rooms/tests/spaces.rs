//! Tests of walking through spaces: what it reads, and that it ends.

use ruma::{OwnedRoomId, RoomVersionId};
use serde_json::json;
use storage::Storage;

use super::{
    alice,
    people::{accounts, bob},
    rooms, state,
};
use crate::{Group, HierarchyQuery, NewRoomRequest, Preset, Rooms, Viewer};

const ALL: HierarchyQuery = HierarchyQuery {
    suggested_only: false,
    max_depth: 100,
    limit: 100,
};

async fn room(rooms: &Rooms, room_type: Option<&str>, preset: Preset) -> OwnedRoomId {
    let mut creation_content = serde_json::Map::new();
    if let Some(room_type) = room_type {
        creation_content.insert("type".to_owned(), json!(room_type));
    }
    let new = NewRoomRequest {
        creator: alice(),
        version: RoomVersionId::V11,
        creation_content,
        preset,
        public: false,
        initial_state: Vec::new(),
        invite: Vec::new(),
        is_direct: false,
        name: None,
        topic: None,
        alias: None,
        power_level_content_override: None,
        notices_of: None,
    };
    rooms.create(new).await.unwrap()
}

async fn space(rooms: &Rooms) -> OwnedRoomId {
    room(rooms, Some("m.space"), Preset::PublicChat).await
}

async fn link(rooms: &Rooms, space: &OwnedRoomId, child: &OwnedRoomId, order: &str) {
    let content = json!({ "via": ["example.org"], "order": order });
    let draft = state(&alice(), "m.space.child", child.as_str(), content);
    let space = rooms.room(space).await.unwrap();
    rooms.send(&space, Group::one(draft)).await.unwrap();
}

async fn everything(
    rooms: &Rooms,
    viewer: &Viewer,
    space: &OwnedRoomId,
    limit: usize,
) -> Vec<OwnedRoomId> {
    let (mut found, mut from) = (Vec::new(), None);
    for _ in 0..1_000 {
        let query = HierarchyQuery { limit, ..ALL };
        let page = rooms.hierarchy(viewer, space, query, from.as_deref()).await;
        let page = page.unwrap();
        assert!(page.rooms.len() <= limit);
        found.extend(page.rooms.into_iter().map(|one| one.room_id));
        match page.next {
            Some(next) => from = Some(next),
            None => return found,
        }
    }
    panic!("pages without end");
}

/// A space with three spaces in it, each with as many rooms.
async fn tree(rooms: &Rooms, each: usize) -> (OwnedRoomId, Vec<OwnedRoomId>) {
    let root = space(rooms).await;
    let mut all = vec![root.clone()];
    for order in ["a", "b", "c"] {
        let inner = space(rooms).await;
        link(rooms, &root, &inner, order).await;
        all.push(inner.clone());
        for n in 0..each {
            let leaf = room(rooms, None, Preset::PublicChat).await;
            link(rooms, &inner, &leaf, &format!("{n:04}")).await;
            all.push(leaf);
        }
    }
    (root, all)
}

#[tokio::test]
async fn a_level_costs_the_same_however_many_rooms_are_in_it() {
    for each in [2, 12] {
        let storage = Storage::model();
        let viewers = accounts(&storage, &[alice(), bob()]).await;
        let warm = rooms(storage.clone());
        let (root, all) = tree(&warm, each).await;
        everything(&warm, &viewers[0], &root, 100).await;
        for viewer in &viewers {
            let before = storage.cost();
            let found = everything(&warm, viewer, &root, 100).await;
            assert_eq!(found, all);
            let cost = storage.cost() - before;
            // Three levels: the space, the spaces in it, their rooms, which have no children.
            assert_eq!(cost.round_trips, 4 + 4 + 2, "{cost:?}");
        }
        // A server that has not seen these rooms yet: their names and rows are to be read as well.
        let cold = rooms(storage.clone());
        let before = storage.cost();
        everything(&cold, &viewers[1], &root, 100).await;
        assert_eq!((storage.cost() - before).round_trips, 3 * 2 + 4 + 4 + 2);
    }
}

#[tokio::test]
async fn pages_of_any_size_hold_the_same_rooms_in_the_same_order() {
    let storage = Storage::model();
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let (root, all) = tree(&rooms, 3).await;
    // Around in a circle, and to a room that is elsewhere already.
    link(&rooms, &all[1], &root, "x").await;
    link(&rooms, &all[5], &all[1], "x").await;
    link(&rooms, &all[5], &all[2], "x").await;
    for limit in 1..=all.len() + 1 {
        assert_eq!(everything(&rooms, &viewers[0], &root, limit).await, all);
    }
}

#[tokio::test]
async fn rooms_that_are_not_there_for_somebody_end_a_page_early_and_not_the_walk() {
    let storage = Storage::model();
    let viewers = accounts(&storage, &[alice(), bob()]).await;
    let rooms = rooms(storage);
    let root = space(&rooms).await;
    let hidden = room(&rooms, None, Preset::PrivateChat).await;
    link(&rooms, &root, &hidden, "0").await;
    for n in 0..1_500 {
        // Rooms that nobody here has ever heard of.
        let child = format!("!unknown{n}:example.org").try_into().unwrap();
        link(&rooms, &root, &child, &format!("{n:04}")).await;
    }
    let last = room(&rooms, None, Preset::PublicChat).await;
    link(&rooms, &root, &last, "~").await;
    let first = rooms
        .hierarchy(&viewers[1], &root, ALL, None)
        .await
        .unwrap();
    assert_eq!(first.rooms.len(), 1);
    assert!(first.next.is_some(), "it goes on");
    let found = everything(&rooms, &viewers[1], &root, 100).await;
    assert_eq!(found, [root.clone(), last.clone()]);
    let found = everything(&rooms, &viewers[0], &root, 100).await;
    assert_eq!(found, [root, hidden, last]);
}
