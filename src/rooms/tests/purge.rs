//! Rooms that are removed, whatever happens meanwhile.

use std::sync::Arc;

use ruma::{OwnedUserId, RoomVersionId, room_alias_id};
use serde_json::json;
use storage::{
    Batch, Faults, ShortRoomId, ShortUserId, Storage,
    schema::{self, AccountRow},
};

use super::{
    alice,
    people::{accounts, bob, member, redaction},
    public_room, rooms, text,
};
use crate::{Group, Room, Rooms, Said};

/// Events of the room: more than are removed in one commit.
const EVENTS: usize = 250;

/// Gives somebody an account that whoever looks at all accounts finds.
async fn account(storage: &Storage, user: ShortUserId, user_id: &OwnedUserId) {
    let row = AccountRow {
        user_id: user_id.to_string(),
        password_hash: None,
        created_ts: 0,
        admin: false,
        guest: false,
        deactivated: false,
        erased: false,
        locked: false,
        suspended: false,
    };
    let mut batch = Batch::new();
    batch.put(&schema::ACCOUNT_BY_USER, &user, &row);
    storage.commit(batch).await.unwrap();
}

/// A public room with alice and bob, in which something was said.
async fn room_with_people(storage: &Storage) -> (Rooms, Arc<Room>) {
    let users = [alice(), bob()];
    for viewer in accounts(storage, &users).await {
        account(storage, viewer.short, &viewer.user_id).await;
    }
    let rooms = rooms(storage.clone());
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    let send = async |draft| {
        let sent = rooms.send(&room, Group::one(draft)).await;
        sent.unwrap().remove(0)
    };
    send(member(&bob(), &bob(), "join")).await;
    let first = send(text(&alice(), "hello")).await;
    send(redaction(&alice(), &first)).await;
    for n in 0..EVENTS {
        send(text(&bob(), &n.to_string())).await;
    }
    let alias = room_alias_id!("#room:example.org");
    rooms.create_alias(alias, &room, &alice()).await.unwrap();
    rooms.set_public(&room, true).await.unwrap();
    (rooms, room)
}

/// The tables of rows that name a room by its short id or its whole one, without answers to transaction ids.
fn naming(storage: &Storage, room: &Room) -> Vec<u8> {
    let (short, id) = (room.short.0, room.room_id.as_bytes());
    let holds = |bytes: &[u8]| {
        let mut found = bytes.windows(short.len()).any(|part| part == short);
        found |= bytes.windows(id.len()).any(|part| part == id);
        found
    };
    let rows = storage.rows_of_model().into_iter();
    let naming = rows.filter(|(key, value)| holds(key) || holds(value));
    let tables = naming.map(|(key, _)| key[0]);
    let mut tables: Vec<_> = tables
        .filter(|table| *table != schema::ONCE_BY_DAY.info.id)
        .collect();
    tables.dedup();
    tables
}

/// What is left until it was looked for what comes late: a job, and the word that the room is gone.
fn settled() -> Vec<u8> {
    vec![
        schema::JOB_BY_ID.info.id,
        schema::STREAM_BY_POSITION.info.id,
    ]
}

async fn is_left(storage: &Storage, room: &Room) -> bool {
    let snapshot = storage.snapshot(storage::Position::START).await.unwrap();
    let short = [room.short];
    let rows = snapshot.multi_get(&schema::ROOM_BY_SHORT_ID, &short);
    rows.await.unwrap()[0].is_some()
}

#[tokio::test]
async fn nothing_of_a_room_is_left_whenever_the_server_is_stopped() {
    for faulty in [false, true] {
        let storage = Storage::model();
        let (rooms_before, room) = room_with_people(&storage).await;
        let numbers = storage.rows_of_model().len();
        assert!(naming(&storage, &room).len() > 15, "{numbers}");
        rooms_before.purge(&room).await.unwrap();
        if faulty {
            storage.misbehave(Faults {
                seed: 7,
                conflicts: 100,
                lost_replies: 100,
                lost_batches: 100,
                ..Faults::NONE
            });
        }
        let mut starts = 0;
        while is_left(&storage, &room).await {
            starts += 1;
            assert!(starts < 500);
            // Another process, which knows nothing.
            let rooms = rooms(storage.clone());
            assert!(rooms.find_room(&room.room_id).await.unwrap().is_none());
            let refused = rooms.check_admitted(&room.room_id).await.unwrap_err();
            assert_eq!(refused.status(), 503);
            rooms.work_off_due_jobs().await.unwrap();
        }
        storage.misbehave(Faults::NONE);
        assert!(starts > 1, "it is worked off in several goes");
        assert_eq!(naming(&storage, &room), settled());
        let rooms = rooms(storage.clone());
        rooms.check_admitted(&room.room_id).await.unwrap();
        // What came late goes too.
        let mut batch = Batch::new();
        batch.put_stamped(&schema::RECEIPT_TAIL_BY_ROOM, &room.short, 0, ());
        storage.commit(batch).await.unwrap();
        rooms.work_off_due_jobs().await.unwrap();
        assert_eq!(naming(&storage, &room).len(), 3);
        rooms
            .parts()
            .clock
            .advance(std::time::Duration::from_secs(11 * 60));
        rooms.work_off_due_jobs().await.unwrap();
        assert_eq!(naming(&storage, &room), settled()[1..]);
    }
}

#[tokio::test]
async fn who_is_at_it_when_a_room_goes_is_told_that_it_is_gone() {
    let storage = Storage::model();
    let (rooms, room) = room_with_people(&storage).await;
    rooms.purge(&room).await.unwrap();
    let said = rooms.send(&room, Group::one(text(&bob(), "late"))).await;
    assert_eq!(said.unwrap_err().status(), 404);
    let alias = room_alias_id!("#late:example.org");
    let made = rooms.create_alias(alias, &room, &alice()).await;
    assert_eq!(made.unwrap_err().status(), 503);
    let bob = bob();
    let joined = rooms.join_anywhere(&room.room_id, &bob, &[], Said::default());
    assert_eq!(joined.await.unwrap_err().status(), 503);
    // Begun a second time it changes nothing.
    rooms.purge(&room).await.unwrap();
    while is_left(&storage, &room).await {
        rooms.work_off_due_jobs().await.unwrap();
    }
    assert_eq!(naming(&storage, &room), settled());
    let (snapshot, short) = (rooms.snapshot().await.unwrap(), [room.short]);
    let gone = rooms.find_by_short(&snapshot, &short).await.unwrap();
    assert!(gone[0].is_none());
}

#[tokio::test]
async fn other_rooms_stay_as_they_are() {
    let storage = Storage::model();
    let (rooms, room) = room_with_people(&storage).await;
    let other = public_room(&rooms, &RoomVersionId::V11).await;
    let other = rooms.room(&other).await.unwrap();
    let draft = text(&alice(), "still here");
    rooms.send(&other, Group::one(draft)).await.unwrap();
    let of = |short: ShortRoomId| {
        let rows = storage.rows_of_model().into_iter();
        let own = rows.filter(|(key, value)| {
            let holds = |bytes: &[u8]| bytes.windows(8).any(|part| part == short.0);
            holds(key) || holds(value)
        });
        own.collect::<Vec<_>>()
    };
    let before = of(other.short);
    rooms.purge(&room).await.unwrap();
    while is_left(&storage, &room).await {
        rooms.work_off_due_jobs().await.unwrap();
    }
    assert_eq!(of(other.short), before);
}

#[tokio::test]
async fn nobody_comes_into_a_room_that_is_blocked() {
    let storage = Storage::model();
    let (rooms, room) = room_with_people(&storage).await;
    let (id, carol) = (
        &room.room_id,
        OwnedUserId::try_from("@carol:example.org").unwrap(),
    );
    rooms.block(id, &alice()).await.unwrap();
    assert_eq!(
        rooms.find_block(id).await.unwrap().unwrap().by,
        alice().as_str()
    );
    let said = Said::default;
    let refused = |result: error::Result<()>| assert_eq!(result.unwrap_err().status(), 403);
    refused(rooms.join_anywhere(id, &carol, &[], said()).await);
    refused(rooms.join(&room, &carol, &[], said()).await);
    refused(rooms.invite(&room, &alice(), &carol, said()).await);
    refused(rooms.knock(id, &carol, &[], said()).await);
    let alias = room_alias_id!("#other:example.org");
    refused(rooms.create_alias(alias, &room, &alice()).await);
    // Those who are in it go on, and may leave.
    let draft = text(&bob(), json!("still here").as_str().unwrap());
    rooms.send(&room, Group::one(draft)).await.unwrap();
    rooms.leave(&room, &bob(), said()).await.unwrap();
    refused(rooms.join(&room, &bob(), &[], said()).await);
    rooms.unblock(id).await.unwrap();
    rooms.join(&room, &bob(), &[], said()).await.unwrap();
}
