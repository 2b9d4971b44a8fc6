//! The directory shows a room as it is, whoever changes it while somebody publishes it, on storage that refuses
//! and loses.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomVersionId};
use serde_json::json;
use storage::{Faults, Range, Storage, schema};

use super::{alice, people::member, public_room, rooms, state};
use crate::{DirectoryQuery, Group};

#[tokio::test]
async fn a_room_is_listed_as_it_is_whoever_changes_it_meanwhile() {
    for seed in 0..20 {
        let rooms = rooms(Storage::model_with(Faults {
            seed,
            conflicts: 100,
            lost_replies: 50,
            lost_batches: 50,
            ..Faults::NONE
        }));
        let room_id = public_room(&rooms, &RoomVersionId::V11).await;
        let room = rooms.room(&room_id).await.unwrap();
        let mut tasks = Vec::new();
        for i in 0..12 {
            let (rooms, room) = (rooms.clone(), Arc::clone(&room));
            tasks.push(tokio::spawn(async move {
                let user: OwnedUserId = format!("@u{i}:example.org").try_into().unwrap();
                let draft = match i % 3 {
                    0 => state(
                        &alice(),
                        "m.room.name",
                        "",
                        json!({ "name": i.to_string() }),
                    ),
                    1 => member(&user, &user, "join"),
                    _ => return rooms.set_public(&room, i % 6 == 2).await.unwrap(),
                };
                rooms.send(&room, Group::one(draft)).await.unwrap();
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let public = rooms.is_public(&room).await.unwrap();
        let query = DirectoryQuery {
            limit: 10,
            ..DirectoryQuery::default()
        };
        let page = rooms.public_rooms(&query).await.unwrap();
        assert_eq!(page.rooms.len(), usize::from(public), "seed {seed}");
        assert_eq!(page.total, u64::from(public), "seed {seed}");
        if public {
            let written = page.rooms[0].1.clone();
            rooms.set_public(&room, true).await.unwrap();
            let anew = rooms.public_rooms(&query).await.unwrap();
            assert_eq!(written, anew.rooms[0].1, "seed {seed}");
            assert_eq!(written.joined, 5);
        }
        let snapshot = rooms.snapshot().await.unwrap();
        let all = [Range::prefix(&())];
        let index = snapshot
            .multi_range(&schema::ROOM_BY_SIZE, &all)
            .await
            .unwrap();
        assert_eq!(index[0].len(), usize::from(public));
    }
}
