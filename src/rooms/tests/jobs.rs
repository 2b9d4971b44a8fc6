//! Jobs: all that are due are done, however many there are for later.

use ruma::RoomVersionId;
use storage::{Batch, NameHash, Range, ShortRoomId, Storage, schema};

use super::{public_room, rooms};
use crate::{Rooms, directory::LOOK_AGAIN, extremities::TIE_TOGETHER, guests::GUESTS_LEAVE};

fn id(number: u16) -> NameHash {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    NameHash(id)
}

fn job(kind: &str, room: ShortRoomId, from: u64) -> schema::JobRow {
    schema::JobRow {
        kind: kind.to_owned(),
        body: postcard::to_allocvec(&room).unwrap(),
        not_before_ts: from,
        attempts: 0,
    }
}

/// Leaves jobs to look at a room.
async fn put(storage: &Storage, room: ShortRoomId, numbers: std::ops::Range<u16>, from: u64) {
    let mut batch = Batch::new();
    let job = job(LOOK_AGAIN, room, from);
    for number in numbers {
        batch.put(&schema::JOB_BY_ID, &id(number), &job);
    }
    storage.commit(batch).await.unwrap();
}

async fn jobs_left(rooms: &Rooms) -> Vec<(NameHash, storage::Found<schema::JobRow>)> {
    let snapshot = rooms.snapshot().await.unwrap();
    let all = Range::prefix(&());
    let rows = snapshot.multi_range(&schema::JOB_BY_ID, &[all]).await;
    rows.unwrap().remove(0)
}

#[tokio::test]
async fn those_for_later_hide_none_that_is_due_and_more_than_are_in_memory_are_done() {
    let storage = Storage::model();
    let rooms = rooms(storage.clone());
    let room = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room).await.unwrap().short;
    put(&storage, room, 0..1_500, u64::MAX).await;
    put(&storage, room, 1_500..2_700, 0).await;
    rooms.work_off_due_jobs().await.unwrap();
    let left = jobs_left(&rooms).await;
    assert_eq!(left.len(), 1_500);
    assert!(
        left.iter()
            .all(|(_, row)| row.value.not_before_ts == u64::MAX)
    );
}

#[tokio::test]
async fn what_is_left_to_do_in_a_room_that_is_gone_is_done() {
    let storage = Storage::model();
    let rooms = rooms(storage.clone());
    let mut batch = Batch::new();
    for (number, kind) in (0..).zip([LOOK_AGAIN, TIE_TOGETHER, GUESTS_LEAVE]) {
        let job = job(kind, ShortRoomId([9; 8]), 0);
        batch.put(&schema::JOB_BY_ID, &id(number), &job);
    }
    storage.commit(batch).await.unwrap();
    rooms.work_off_due_jobs().await.unwrap();
    assert!(jobs_left(&rooms).await.is_empty());
}
