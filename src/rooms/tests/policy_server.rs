//! Rooms of which this server is the policy server: what is signed is written once and whole, or not at all.

use std::sync::Arc;

use pdu::PolicyServer;
use ruma::{OwnedEventId, OwnedUserId, RoomVersionId};
use serde_json::json;
use storage::{Faults, OnceKey, Storage, schema};

use super::{alice, public_room, rooms, state, text};
use crate::{
    Group, Incoming, Received, Room, Rooms,
    writer::{Submitted, Way},
};

/// A room that is looked after, in which nobody says `casino`.
async fn guarded(storage: Storage) -> (Rooms, Arc<Room>) {
    let rooms = rooms(storage);
    rooms.set_policy_server(&config::PolicyServer {
        enabled: true,
        refused_words: vec!["casino".to_owned()],
        ..config::PolicyServer::default()
    });
    let room_id = public_room(&rooms, &RoomVersionId::V11).await;
    let room = rooms.room(&room_id).await.unwrap();
    let key = rooms.federation().policy_key().await.unwrap();
    let key = key.verify_key().to_base64();
    let policy = json!({ "via": "example.org", "public_keys": { "ed25519": key } });
    let policy = state(&alice(), "m.room.policy", "", policy);
    rooms.send(&room, Group::one(policy)).await.unwrap();
    (rooms, room)
}

fn bob() -> OwnedUserId {
    "@bob:example.org".try_into().unwrap()
}

async fn member(rooms: &Rooms, room: &Arc<Room>, by: OwnedUserId, of: &OwnedUserId, what: &str) {
    let content = json!({ "membership": what });
    let draft = state(&by, "m.room.member", of.as_str(), content);
    rooms.send(room, Group::one(draft)).await.unwrap();
}

async fn said(rooms: &Rooms, room: &Room) -> u64 {
    let snapshot = rooms.snapshot().await.unwrap();
    let heads = snapshot
        .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
        .await;
    let head = heads.unwrap().remove(0).unwrap().value;
    head.totals.notify
}

async fn is_stored(rooms: &Rooms, event_id: &OwnedEventId) -> bool {
    let snapshot = rooms.snapshot().await.unwrap();
    let name = [rooms.storage().event_hash(event_id)];
    let rows = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &name).await;
    rows.unwrap()[0].is_some()
}

fn once(rooms: &Rooms, name: &str) -> OnceKey {
    let name = rooms.storage().hash("test", name);
    OnceKey { day: 1, name }
}

#[tokio::test]
async fn many_at_once_are_each_sent_once_whatever_the_storage_does() {
    for seed in 0..10 {
        let storage = Storage::model();
        let (rooms, room) = guarded(storage.clone()).await;
        storage.misbehave(Faults {
            seed,
            conflicts: 100,
            lost_replies: 50,
            lost_batches: 50,
            ..Faults::NONE
        });
        let mut tasks = Vec::new();
        for i in 0..40 {
            let (rooms, room) = (rooms.clone(), Arc::clone(&room));
            tasks.push(tokio::spawn(async move {
                let group = Group {
                    once: Some(once(&rooms, &(i / 2).to_string())),
                    ..Group::one(text(&alice(), &format!("message {i}")))
                };
                // Whoever is told that something failed sends it again.
                for _ in 0..50 {
                    if let Ok(ids) = rooms.send(&room, group.clone()).await {
                        return ids;
                    }
                }
                panic!("it cannot be sent")
            }));
        }
        let mut ids = Vec::new();
        for task in tasks {
            ids.push(task.await.unwrap());
        }
        storage.misbehave(Faults::NONE);
        for pair in ids.chunks(2) {
            assert_eq!(pair[0], pair[1], "a transaction acted twice");
        }
        assert_eq!(said(&rooms, &room).await, 20, "{seed}");
    }
}

#[tokio::test]
async fn what_has_no_transaction_is_not_sent_twice_either() {
    for seed in 0..20 {
        let storage = Storage::model();
        let (rooms, room) = guarded(storage.clone()).await;
        storage.misbehave(Faults {
            seed,
            lost_replies: 300,
            ..Faults::NONE
        });
        let sent = rooms.send(&room, Group::one(text(&alice(), "once"))).await;
        storage.misbehave(Faults::NONE);
        let sent = sent.unwrap();
        assert!(is_stored(&rooms, &sent[0]).await);
        assert_eq!(said(&rooms, &room).await, 1, "{seed}");
    }
}

#[tokio::test]
async fn what_is_not_let_through_leaves_nothing_behind() {
    let (rooms, room) = guarded(Storage::model()).await;
    let group = |body: &str| Group {
        once: Some(once(&rooms, "same")),
        ..Group::one(text(&alice(), body))
    };
    let refused = rooms.send(&room, group("casino")).await.unwrap_err();
    assert_eq!(refused.status(), 400);
    let before = said(&rooms, &room).await;
    let sent = rooms.send(&room, group("something else")).await.unwrap();
    assert_eq!(rooms.send(&room, group("casino")).await.unwrap(), sent);
    assert_eq!(said(&rooms, &room).await, before + 1);
}

#[tokio::test]
async fn whoever_is_thrown_out_while_it_is_signed_has_sent_nothing() {
    let (rooms, room) = guarded(Storage::model()).await;
    member(&rooms, &room, bob(), &bob(), "join").await;
    let group = Group {
        once: Some(once(&rooms, "late")),
        ..Group::one(text(&bob(), "so long"))
    };
    let writer = rooms.writer(&room);
    let submitted = writer.submit(&rooms, group.clone()).await.unwrap();
    let Submitted::ToSign(to_sign) = submitted else {
        panic!("{submitted:?}")
    };
    let event = to_sign.events[0].clone();
    let signed = rooms.fetch_policy_signature(&room, &to_sign.policy, &event);
    let signed = Arc::new(signed.await.unwrap());
    member(&rooms, &room, alice(), &bob(), "ban").await;
    let way = Way::Ours(Arc::new(group.clone()));
    let received = rooms.receive_one(&room, Incoming::live(signed), way).await;
    let received = received.unwrap();
    assert!(matches!(received, Received::SoftFailed(_)), "{received:?}");
    assert!(!is_stored(&rooms, &event.event_id().to_owned()).await);
    let refused = rooms.send(&room, group).await.unwrap_err();
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn an_event_that_was_signed_stands_beside_what_came_meanwhile() {
    let (rooms, room) = guarded(Storage::model()).await;
    let group = Group {
        once: Some(once(&rooms, "slow")),
        ..Group::one(state(
            &alice(),
            "m.room.topic",
            "",
            json!({ "topic": "slow" }),
        ))
    };
    let submitted = rooms.writer(&room).submit(&rooms, group.clone()).await;
    let Submitted::ToSign(to_sign) = submitted.unwrap() else {
        panic!("nothing is to be signed")
    };
    rooms
        .send(&room, Group::one(text(&alice(), "quick")))
        .await
        .unwrap();
    let ids = rooms.send_signed(&room, *to_sign).await.unwrap();
    assert!(is_stored(&rooms, &ids[0]).await);
    // A second request with the same transaction id is answered like the first.
    assert_eq!(rooms.send(&room, group).await.unwrap(), ids);
    let snapshot = rooms.snapshot().await.unwrap();
    let key = ("m.room.topic".into(), String::new());
    let keys = std::slice::from_ref(&key);
    let (head, found) = room.current_state(&rooms, &snapshot, keys).await.unwrap();
    assert_eq!(found[&key].pdu.event_id(), ids[0]);
    assert_eq!(head.extremities.len(), 2);
}

#[tokio::test]
async fn rows_of_a_group_come_with_it_and_several_drafts_come_in_order() {
    let (rooms, room) = guarded(Storage::model()).await;
    let user = storage::ShortUserId([3; 8]);
    let short = room.short;
    let group = Group {
        drafts: vec![text(&alice(), "one"), text(&alice(), "two")],
        more: Some(Arc::new(move |batch, ids| {
            assert_eq!(ids.len(), 2);
            batch.put(&schema::NOTICES_ROOM_BY_USER, &user, &short);
        })),
        ..Group::default()
    };
    let ids = rooms.send(&room, group).await.unwrap();
    assert_eq!(ids.len(), 2);
    let snapshot = rooms.snapshot().await.unwrap();
    let rows = snapshot
        .multi_get(&schema::NOTICES_ROOM_BY_USER, &[user])
        .await;
    assert_eq!(rows.unwrap()[0].as_ref().unwrap().value, short);
    let heads = snapshot.multi_get(&schema::HEAD_BY_ROOM, &[short]).await;
    let head = heads.unwrap().remove(0).unwrap().value;
    let ends: Vec<_> = head.extremities.iter().map(|end| &*end.event_id).collect();
    assert_eq!(ends, [ids[1].as_str()]);
    let policy = rooms.federation().policy_key().await.unwrap();
    let policy = PolicyServer {
        via: rooms.server_name().to_owned(),
        key: Some(policy.verify_key()),
    };
    let numbers = [head.extremities[0].number];
    let events = room.stored_events(&snapshot, &numbers).await.unwrap();
    assert!(policy.has_signed(&events[0].pdu, room.rules));
}

#[tokio::test]
async fn signing_costs_a_first_look_and_what_receiving_does() {
    let storage = Storage::model();
    let (rooms, room) = guarded(storage.clone()).await;
    let send = async |body: &str| {
        let before = storage.cost();
        let sent = rooms.send(&room, Group::one(text(&alice(), body)));
        sent.await.unwrap();
        storage.cost() - before
    };
    send("first").await;
    let second = send("second").await;
    assert!(second.round_trips <= 6, "{second:?}");
    assert_eq!(second.commits, 1);
}
