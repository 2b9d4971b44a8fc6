//! An upgrade that is finished by its job, on storage that refuses and loses.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ruma::RoomVersionId;
use serde_json::json;
use storage::{Faults, Range, Storage, schema};

use super::{UPGRADE, UpgradeRequest};
use crate::{
    Group,
    tests::{alice, people::member, public_room, rooms, state},
};

#[tokio::test]
async fn what_is_done_again_adds_nothing() {
    for seed in 0..10 {
        let rooms = rooms(Storage::model_with(Faults {
            seed,
            conflicts: 50,
            lost_replies: 50,
            lost_batches: 50,
            ..Faults::NONE
        }));
        let old = public_room(&rooms, &RoomVersionId::V10).await;
        let old = rooms.room(&old).await.unwrap();
        for i in 0..3 {
            let user = format!("@banned{i}:example.org").try_into().unwrap();
            let ban = Group::one(member(&alice(), &user, "ban"));
            rooms.send(&old, ban).await.unwrap();
        }
        let name = state(&alice(), "m.room.name", "", json!({ "name": "one" }));
        rooms.send(&old, Group::one(name)).await.unwrap();
        let request = UpgradeRequest {
            user: alice(),
            version: RoomVersionId::V11,
            additional_creators: Vec::new(),
        };
        let new = rooms.upgrade(&old, request).await.unwrap();
        let new = rooms.room(&new).await.unwrap();

        let snapshot = rooms.snapshot().await.unwrap();
        let heads = [old.short, new.short];
        let before = snapshot.multi_get(&schema::HEAD_BY_ROOM, &heads).await;
        let before: Vec<_> = before
            .unwrap()
            .into_iter()
            .map(|row| row.unwrap().value)
            .collect();
        let upgrade = super::Upgrade {
            old: old.room_id.to_string(),
            new: new.room_id.to_string(),
            user: alice().to_string(),
            levels: None,
        };
        rooms.go_on(&upgrade).await.unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let after = snapshot.multi_get(&schema::HEAD_BY_ROOM, &heads).await;
        let after: Vec<_> = after
            .unwrap()
            .into_iter()
            .map(|row| row.unwrap().value)
            .collect();
        assert_eq!(before, after, "seed {seed}");
        let tombstone = rooms
            .current_content(&old, &"m.room.tombstone".into(), "")
            .await;
        let tombstone = String::from_utf8(tombstone.unwrap().unwrap()).unwrap();
        assert!(tombstone.contains(new.room_id.as_str()), "{tombstone}");
        let jobs = snapshot
            .multi_range(&schema::JOB_BY_ID, &[Range::prefix(&())])
            .await;
        let jobs = jobs.unwrap().remove(0);
        assert!(
            jobs.iter().all(|(_, job)| job.value.kind != UPGRADE),
            "seed {seed}"
        );
    }
}
