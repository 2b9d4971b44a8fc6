//! Removals that take away all that somebody has said, by the words of
//! [MSC4293](https://github.com/matrix-org/matrix-spec-proposals/pull/4293).

use ruma::{OwnedEventId, OwnedUserId, RoomVersionId};
use serde_json::{Value, json};
use storage::{Faults, Storage};

use super::{
    alice,
    people::{Seen, accounts, bob, member, on_disk},
    public_room, rooms, state, text,
};
use crate::{Draft, REDACT_EVENTS};

fn carol() -> OwnedUserId {
    "@carol:example.org".try_into().unwrap()
}

fn removal(sender: &OwnedUserId, membership: &str, flag: Value) -> Draft {
    let content = json!({ "membership": membership, "reason": "spam", REDACT_EVENTS: flag });
    state(sender, "m.room.member", bob().as_str(), content)
}

/// What is left of an event: its content, and by what it was redacted.
async fn left(seen: &Seen<'_>, id: &OwnedEventId) -> (Value, Value) {
    let event = seen.event(id).await;
    let because = event["unsigned"]["redacted_because"]["event_id"].clone();
    (event["content"].clone(), because)
}

/// On a room with alice, bob and carol, who may kick and not redact.
async fn in_a_room(storage: Storage, version: &RoomVersionId, test: impl AsyncFnOnce(Seen<'_>)) {
    let viewers = accounts(&storage, &[alice(), bob(), carol()]).await;
    let rooms = rooms(storage);
    let room_id = public_room(&rooms, version).await;
    let room = rooms.room(&room_id).await.unwrap();
    let seen = Seen {
        rooms: &rooms,
        room: &room,
        viewer: &viewers[0],
    };
    for user in [bob(), carol()] {
        seen.send(member(&user, &user, "join")).await;
    }
    let mut users = json!({ carol().as_str(): 40 });
    if *version != RoomVersionId::V12 {
        users[alice().as_str()] = json!(100);
    }
    let levels =
        json!({ "users": users, "kick": 40, "redact": 40, "events": {"m.room.redaction": 45} });
    seen.send(state(&alice(), "m.room.power_levels", "", levels))
        .await;
    test(seen).await;
}

#[tokio::test]
async fn a_ban_takes_all_words_of_its_target_away_and_no_others() {
    for version in [RoomVersionId::V1, RoomVersionId::V11, RoomVersionId::V12] {
        let (_folder, on_disk) = on_disk();
        for storage in [Storage::model(), on_disk] {
            in_a_room(storage, &version, async |seen| {
                let mut said = Vec::new();
                let others = seen.send(text(&alice(), "hello")).await;
                // More than are looked at together.
                for n in 0..450 {
                    said.push(seen.send(text(&bob(), &n.to_string())).await);
                }
                let ban = seen.send(removal(&alice(), "ban", json!(true))).await;
                seen.rooms.work_off_due_jobs().await.unwrap();
                for id in &said {
                    assert_eq!(left(&seen, id).await, (json!({}), json!(ban)), "{version}");
                }
                assert_eq!(left(&seen, &others).await.0["body"], "hello");
                assert_eq!(left(&seen, &ban).await.1, Value::Null);
                let because = seen.event(&said[0]).await["unsigned"]["redacted_because"].clone();
                assert_eq!(because["content"]["reason"], "spam");
            })
            .await;
        }
    }
}

#[tokio::test]
async fn only_who_may_redact_can_ask_for_it_and_only_of_others() {
    in_a_room(Storage::model(), &RoomVersionId::V11, async |seen| {
        let said = seen.send(text(&bob(), "mine")).await;
        let stays = async || {
            seen.rooms.work_off_due_jobs().await.unwrap();
            assert_eq!(left(&seen, &said).await.0["body"], "mine");
        };
        seen.send(removal(&bob(), "leave", json!(true))).await;
        stays().await;
        seen.send(member(&bob(), &bob(), "join")).await;
        seen.send(removal(&carol(), "leave", json!(true))).await;
        stays().await;
        seen.send(member(&bob(), &bob(), "join")).await;
        seen.send(removal(&alice(), "leave", json!("true"))).await;
        stays().await;
        seen.send(removal(&alice(), "ban", json!(false))).await;
        stays().await;
    })
    .await;
}

#[tokio::test]
async fn who_came_back_keeps_what_is_there_still() {
    in_a_room(Storage::model(), &RoomVersionId::V11, async |seen| {
        let before = seen.send(text(&bob(), "before")).await;
        seen.send(removal(&alice(), "leave", json!(true))).await;
        // Before anybody gets to work on it.
        seen.send(member(&bob(), &bob(), "join")).await;
        let after = seen.send(text(&bob(), "after")).await;
        seen.rooms.work_off_due_jobs().await.unwrap();
        for (id, body) in [(before, "before"), (after, "after")] {
            assert_eq!(left(&seen, &id).await.0["body"], body);
        }
    })
    .await;
}

#[tokio::test]
async fn a_storage_that_fails_delays_it_only() {
    for seed in 0..20 {
        let storage = Storage::model();
        in_a_room(storage.clone(), &RoomVersionId::V11, async |seen| {
            let mut said = Vec::new();
            for n in 0..30 {
                said.push(seen.send(text(&bob(), &n.to_string())).await);
            }
            let ban = seen.send(removal(&alice(), "ban", json!(true))).await;
            storage.misbehave(Faults {
                seed,
                lost_replies: 300,
                lost_batches: 300,
                ..Faults::NONE
            });
            let _ = seen.rooms.work_off_due_jobs().await;
            storage.misbehave(Faults::NONE);
            seen.rooms
                .parts()
                .clock
                .advance(std::time::Duration::from_secs(60));
            seen.rooms.work_off_due_jobs().await.unwrap();
            for id in &said {
                assert_eq!(left(&seen, id).await, (json!({}), json!(ban)));
            }
        })
        .await;
    }
}
