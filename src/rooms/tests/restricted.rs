//! Who vouches for those who may join because of another room.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomVersionId};
use serde_json::{Value, json};
use storage::Storage;

use super::{
    alice,
    people::{accounts, bob, member},
    public_room, rooms, state,
};
use crate::{Group, Room, Rooms, Said};

/// More people who came and went than are looked at.
const GONE: usize = 1_100;

async fn set(rooms: &Rooms, room: &Arc<Room>, event_type: &str, content: Value) {
    let draft = state(&alice(), event_type, "", content);
    rooms.send(room, Group::one(draft)).await.unwrap();
}

/// Who vouches for Bob in a room of Alice's with these power levels, which many have left.
async fn voucher(version: &RoomVersionId, levels: Value) -> error::Result<OwnedUserId> {
    let storage = Storage::model();
    let rooms = rooms(storage.clone());
    accounts(&storage, &[alice(), bob()]).await;
    let club = public_room(&rooms, &RoomVersionId::V10).await;
    let room_id = public_room(&rooms, version).await;
    let (club, room) = (
        rooms.room(&club).await.unwrap(),
        rooms.room(&room_id).await.unwrap(),
    );
    let people: Vec<OwnedUserId> = (0..GONE)
        .map(|n| format!("@p{n}:example.org").try_into().unwrap())
        .collect();
    for membership in ["join", "leave"] {
        for people in people.chunks(250) {
            let drafts = people.iter().map(|one| member(one, one, membership));
            let group = Group {
                drafts: drafts.collect(),
                ..Group::default()
            };
            rooms.send(&room, group).await.unwrap();
        }
    }
    set(&rooms, &room, "m.room.power_levels", levels).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": club.room_id }]);
    let rule = json!({ "join_rule": "restricted", "allow": allow });
    set(&rooms, &room, "m.room.join_rules", rule).await;
    rooms
        .join(&club, &bob(), &[], Said::default())
        .await
        .unwrap();
    rooms.join(&room, &bob(), &[], Said::default()).await?;
    let member = "m.room.member".into();
    let content = rooms
        .current_content(&room, &member, bob().as_str())
        .await
        .unwrap();
    let content: Value = serde_json::from_slice(&content.unwrap()).unwrap();
    let voucher = content["join_authorised_via_users_server"].as_str();
    Ok(voucher.unwrap().try_into().unwrap())
}

#[tokio::test]
async fn the_one_with_the_power_is_found_however_many_there_were() {
    let gone = "@p1:example.org";
    let levels = json!({ "invite": 50, "users": { alice().as_str(): 100, gone: 100 } });
    let found = voucher(&RoomVersionId::V11, levels).await.unwrap();
    assert_eq!(found, alice());
    let levels = json!({ "invite": 50, "users": { gone: 100 } });
    let found = voucher(&RoomVersionId::V12, levels).await.unwrap();
    assert_eq!(found, alice());
}

#[tokio::test]
async fn nobody_vouches_without_the_power() {
    let levels = json!({ "invite": 100, "users": { alice().as_str(): 50 } });
    let refused = voucher(&RoomVersionId::V11, levels).await.unwrap_err();
    assert_eq!(refused.status(), 400);
}
