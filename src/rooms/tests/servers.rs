//! Which servers are in a room of very many.

use ruma::RoomVersionId;
use storage::{
    Batch, Storage,
    schema::{self, ServerRow},
};

use super::{public_room, rooms};

#[tokio::test]
async fn all_servers_are_named_where_all_are_wanted_and_else_those_with_the_most_people() {
    let storage = Storage::model();
    let rooms = rooms(storage.clone());
    let room_id = public_room(&rooms, &RoomVersionId::V10).await;
    let room = rooms.room(&room_id).await.unwrap();
    let snapshot = rooms.snapshot().await.unwrap();
    let (head, _) = room
        .joined_of(&rooms, &snapshot, rooms.server_name())
        .await
        .unwrap();
    // More than are looked at where few are wanted.
    let others = 12_000;
    let mut batch = Batch::new();
    for number in 0..others {
        let name = format!("s{number}.example");
        let key = (room.short, head.generation, storage.server_hash(&name));
        let joined = if number == 7 { 100 } else { 2 };
        batch.put(&schema::SERVER_BY_ROOM, &key, &ServerRow { name, joined });
    }
    storage.commit(batch).await.unwrap();
    let snapshot = rooms.snapshot().await.unwrap();
    let all = room.servers(&rooms, &snapshot, 100_000).await.unwrap();
    assert_eq!(all.len(), others + 1);
    assert_eq!(all[0].name, "s7.example");
    let few = room.servers(&rooms, &snapshot, 5).await.unwrap();
    assert_eq!(few.len(), 5);
    assert!(few.iter().all(|row| row.joined >= 2));
}
