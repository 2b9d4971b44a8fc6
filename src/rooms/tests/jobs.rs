//! Jobs: all that are due are done, however many there are for later.

use ruma::RoomVersionId;
use storage::{Batch, NameHash, Range, ShortRoomId, Storage, schema};

use super::{public_room, rooms};
use crate::directory::LOOK_AGAIN;

fn id(number: u16) -> NameHash {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    NameHash(id)
}

/// Leaves jobs to look at a room.
async fn put(storage: &Storage, room: ShortRoomId, numbers: std::ops::Range<u16>, from: u64) {
    let mut batch = Batch::new();
    for number in numbers {
        let job = schema::JobRow {
            kind: LOOK_AGAIN.to_owned(),
            body: postcard::to_allocvec(&room).unwrap(),
            not_before_ts: from,
            attempts: 0,
        };
        batch.put(&schema::JOB_BY_ID, &id(number), &job);
    }
    storage.commit(batch).await.unwrap();
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
    let snapshot = rooms.snapshot().await.unwrap();
    let all = Range::prefix(&());
    let rows = snapshot.multi_range(&schema::JOB_BY_ID, &[all]).await;
    let left = rows.unwrap().remove(0);
    assert_eq!(left.len(), 1_500);
    assert!(
        left.iter()
            .all(|(_, row)| row.value.not_before_ts == u64::MAX)
    );
}
