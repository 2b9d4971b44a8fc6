//! `/sync`: what has happened since a token, for one device.

use std::time::{Duration, Instant};

use harness::encode;
use serde_json::json;

use crate::{bodies, ids, list, only, server};

#[tokio::test]
async fn the_first_sync_brings_each_room_with_its_state() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "The relay"}))
        .await;
    for n in 1..=30 {
        alice.say(&room, &n.to_string()).await;
    }
    let sync = bob.sync(None).await;
    let joined = sync.joined(&room);
    let said: Vec<_> = (21..=30).map(|n| n.to_string()).collect();
    assert_eq!(
        sync.said(&room),
        said,
        "ten events, unless a filter says otherwise"
    );
    assert_eq!(joined["timeline"]["limited"], true);
    assert_eq!(
        only(sync.state(&room), "m.room.name", "")["content"]["name"],
        "The relay"
    );
    only(sync.state(&room), "m.room.create", "");
    only(sync.state(&room), "m.room.member", &alice.id);
    only(sync.state(&room), "m.room.member", &bob.id);
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);
    for event in sync.timeline(&room).iter().chain(sync.state(&room)) {
        assert!(event.get("room_id").is_none(), "{event}");
        assert!(
            event["event_id"].is_string() && event["origin_server_ts"].is_i64(),
            "{event}"
        );
    }
    let before = encode(joined["timeline"]["prev_batch"].as_str().unwrap());
    let page = bob
        .get(&format!(
            "/rooms/{room}/messages?dir=b&limit=3&from={before}"
        ))
        .await
        .ok();
    assert_eq!(bodies(list(&page, "chunk")), ["20", "19", "18"]);
}

#[tokio::test]
async fn each_event_comes_once_and_in_order() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let mut since = bob.sync(None).await.next_batch();
    let mut seen = Vec::new();
    for n in 0..12 {
        for m in 0..n % 4 {
            alice.say(&room, &format!("{n}.{m}")).await;
        }
        let sync = bob.sync(Some(&since)).await;
        assert_ne!(sync.joined(&room)["timeline"]["limited"], true);
        assert!(sync.state(&room).is_empty());
        assert_eq!(
            sync.joined(&room).is_null(),
            n % 4 == 0,
            "a room without news is not there"
        );
        seen.extend(sync.said(&room).into_iter().map(str::to_owned));
        since = sync.next_batch();
    }
    let said: Vec<_> = (0..12)
        .flat_map(|n| (0..n % 4).map(move |m| format!("{n}.{m}")))
        .collect();
    assert_eq!(seen, said);
}

#[tokio::test]
async fn an_old_token_can_be_used_again() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let since = alice.sync(None).await.next_batch();
    alice.say(&room, "1").await;
    let once = alice.sync(Some(&since)).await;
    let again = alice.sync(Some(&since)).await;
    assert_eq!(ids(once.timeline(&room)), ids(again.timeline(&room)));
    alice.say(&room, "2").await;
    assert_eq!(alice.sync(Some(&since)).await.said(&room), ["1", "2"]);
    assert_eq!(
        alice.sync(Some(&once.next_batch())).await.said(&room),
        ["2"]
    );
}

#[tokio::test]
async fn a_waiting_sync_is_woken_and_an_idle_one_times_out() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();

    let begun = Instant::now();
    let idle = bob.sync_with(Some(&since), "timeout=300").await;
    assert!(
        begun.elapsed() >= Duration::from_millis(290),
        "{:?}",
        begun.elapsed()
    );
    assert!(idle.joined(&room).is_null());
    let since = idle.next_batch();

    let waiting = {
        let (bob, since) = (bob.clone(), since.clone());
        tokio::spawn(async move { bob.sync_with(Some(&since), "timeout=30000").await })
    };
    tokio::task::yield_now().await;
    let begun = Instant::now();
    alice.say(&room, "wake up").await;
    let woken = waiting.await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "woken by the message, not by the end of its time"
    );
    assert_eq!(woken.said(&room), ["wake up"]);
}

#[tokio::test]
async fn a_gap_is_marked_and_can_be_filled_exactly() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.say(&room, "before").await;
    let since = bob.sync(None).await.next_batch();
    for n in 1..=5 {
        alice.say(&room, &n.to_string()).await;
    }
    alice
        .set_state(&room, "m.room.topic", "", json!({"topic": "in the gap"}))
        .await;
    for n in 6..=30 {
        alice.say(&room, &n.to_string()).await;
    }
    let sync = bob.sync(Some(&since)).await;
    let timeline = &sync.joined(&room)["timeline"];
    assert_eq!(timeline["limited"], true);
    assert_eq!(sync.timeline(&room).len(), 10);
    assert_eq!(
        only(sync.state(&room), "m.room.topic", "")["content"]["topic"],
        "in the gap"
    );
    assert_eq!(sync.state(&room).len(), 1, "only what changed in the gap");

    let (from, to) = (
        encode(timeline["prev_batch"].as_str().unwrap()),
        encode(&since),
    );
    let gap = bob
        .get(&format!(
            "/rooms/{room}/messages?dir=b&limit=100&from={from}&to={to}"
        ))
        .await
        .ok();
    let mut said = bodies(list(&gap, "chunk"));
    said.reverse();
    said.extend(sync.said(&room));
    assert_eq!(said, (1..=30).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn state_stands_at_the_start_of_the_timeline() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "first"}))
        .await;
    for n in 0..10 {
        alice.say(&room, &n.to_string()).await;
    }
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "second"}))
        .await;
    let sync = alice.sync(None).await;
    let names = |events: &[serde_json::Value]| -> Vec<String> {
        let names = events.iter().filter(|e| e["type"] == "m.room.name");
        names
            .map(|e| e["content"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(sync.timeline(&room)), ["second"]);
    assert_eq!(
        names(sync.state(&room)),
        ["first"],
        "the state before the timeline's first event"
    );

    let after = alice
        .sync_with(None, "timeout=0&use_state_after=true")
        .await;
    let state = list(&after.joined(&room)["state_after"], "events");
    assert_eq!(
        names(state),
        ["second"],
        "the state after the timeline's last event"
    );
    assert!(after.joined(&room).get("state").is_none());
}

#[tokio::test]
async fn an_invitation_shows_what_the_room_is() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({"name": "The relay", "invite": []}))
        .await;
    let since = bob.sync(None).await.next_batch();
    alice
        .to_room(&room, "invite", json!({"user_id": bob.id}))
        .await
        .ok();
    for sync in [bob.sync(Some(&since)).await, bob.sync(None).await] {
        let state = list(&sync.invited(&room)["invite_state"], "events");
        assert_eq!(
            only(state, "m.room.name", "")["content"]["name"],
            "The relay"
        );
        only(state, "m.room.create", "");
        only(state, "m.room.join_rules", "");
        let own = only(state, "m.room.member", &bob.id);
        assert_eq!(own["content"]["membership"], "invite");
        assert_eq!(own["sender"], alice.id);
        for event in state {
            let keys: Vec<_> = event
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            assert!(
                keys.contains(&"sender") && keys.contains(&"content"),
                "{keys:?}"
            );
        }
        assert!(sync.joined(&room).is_null());
    }
    let since = bob.sync(None).await.next_batch();
    assert!(bob.sync(Some(&since)).await.invited(&room).is_null());
    bob.to_room(&room, "leave", json!({})).await.ok();
    let declined = bob.sync(Some(&since)).await;
    assert!(declined.left(&room).is_object(), "{:?}", declined.body);
    assert!(bob.sync(None).await.invited(&room).is_null());
}

#[tokio::test]
async fn a_room_just_joined_comes_whole() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "The relay"}))
        .await;
    for n in 1..=30 {
        alice.say(&room, &n.to_string()).await;
    }
    let since = bob.sync(None).await.next_batch();
    bob.join(&room).await;
    let sync = bob.sync(Some(&since)).await;
    assert_eq!(
        only(sync.state(&room), "m.room.name", "")["content"]["name"],
        "The relay"
    );
    only(sync.state(&room), "m.room.create", "");
    assert_eq!(sync.joined(&room)["timeline"]["limited"], true);
    let last = sync.timeline(&room).last().unwrap();
    assert_eq!(last["state_key"], bob.id);
    let next = bob.sync(Some(&sync.next_batch())).await;
    assert!(next.joined(&room).is_null());
}

#[tokio::test]
async fn a_room_left_is_told_of_once_with_what_came_until_then() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();
    alice.say(&room, "last words").await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice.say(&room, "he is gone").await;
    let sync = bob.sync(Some(&since)).await;
    let timeline = list(&sync.left(&room)["timeline"], "events");
    assert_eq!(bodies(timeline), ["last words"]);
    assert_eq!(timeline.last().unwrap()["state_key"], bob.id);
    assert!(sync.joined(&room).is_null());
    let next = bob.sync(Some(&sync.next_batch())).await;
    assert!(next.left(&room).is_null());
    assert!(bob.sync(None).await.left(&room).is_null());

    let filter = encode(&json!({"room": {"include_leave": true}}).to_string());
    let all = bob
        .sync_with(None, &format!("timeout=0&filter={filter}"))
        .await;
    let timeline = list(&all.left(&room)["timeline"], "events");
    assert_eq!(bodies(timeline), ["last words"]);
    bob.to_room(&room, "forget", json!({})).await.ok();
    let all = bob
        .sync_with(None, &format!("timeout=0&filter={filter}"))
        .await;
    assert!(all.left(&room).is_null());
}

#[tokio::test]
async fn who_is_kicked_is_told_by_whom() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();
    let kick = json!({"user_id": bob.id, "reason": "rude"});
    alice.to_room(&room, "kick", kick).await.ok();
    let sync = bob.sync(Some(&since)).await;
    let timeline = list(&sync.left(&room)["timeline"], "events");
    assert_eq!(timeline.len(), 1);
    assert_eq!(timeline[0]["sender"], alice.id);
    assert_eq!(timeline[0]["content"]["reason"], "rude");
}

#[tokio::test]
async fn who_left_and_came_back_between_two_syncs_is_in_the_room() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "while away"}))
        .await;
    bob.join(&room).await;
    let sync = bob.sync(Some(&since)).await;
    assert!(sync.left(&room).is_null());
    let known: Vec<_> = sync
        .state(&room)
        .iter()
        .chain(sync.timeline(&room))
        .collect();
    assert!(
        known.iter().any(|e| e["type"] == "m.room.name"),
        "{known:?}"
    );
    bob.say(&room, "back").await;
    let next = bob.sync(Some(&sync.next_batch())).await;
    assert_eq!(next.said(&room), ["back"]);
}

#[tokio::test]
async fn the_full_state_can_be_asked_for_again() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let since = alice.sync(None).await.next_batch();
    let sync = alice
        .sync_with(Some(&since), "timeout=30000&full_state=true")
        .await;
    only(sync.state(&room), "m.room.create", "");
    only(sync.state(&room), "m.room.member", &alice.id);
}

#[tokio::test]
async fn a_nameless_room_is_called_by_its_heroes() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&bob]).await;
    alice
        .to_room(&room, "invite", json!({"user_id": carol.id}))
        .await
        .ok();
    let sync = alice.sync(None).await;
    let summary = &sync.joined(&room)["summary"];
    assert_eq!(summary["m.joined_member_count"], 2);
    assert_eq!(summary["m.invited_member_count"], 1);
    let mut heroes: Vec<_> = list(summary, "m.heroes")
        .iter()
        .map(|h| h.as_str().unwrap())
        .collect();
    heroes.sort();
    assert_eq!(heroes, [&bob.id, &carol.id]);
    carol.join(&room).await;
    let next = alice.sync(Some(&sync.next_batch())).await;
    assert_eq!(next.joined(&room)["summary"]["m.joined_member_count"], 3);
}

#[tokio::test]
async fn every_device_is_told_by_its_own_token() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let identifier = json!({"type": "m.id.user", "user": alice.name()});
    let password = format!("{}-password", alice.name());
    let body = json!({"type": "m.login.password", "identifier": identifier, "password": password});
    let tablet = server.user_of(&server.post("/login", body).await.ok());
    let (phones, tablets) = (
        alice.sync(None).await.next_batch(),
        tablet.sync(None).await.next_batch(),
    );
    alice.say(&room, "1").await;
    assert_eq!(alice.sync(Some(&phones)).await.said(&room), ["1"]);
    tablet.say(&room, "2").await;
    assert_eq!(tablet.sync(Some(&tablets)).await.said(&room), ["1", "2"]);
    assert_eq!(alice.sync(Some(&phones)).await.said(&room), ["1", "2"]);
}

#[tokio::test]
async fn wrong_questions_are_refused() {
    let server = server().await;
    let alice = server.user("alice").await;
    for query in [
        "since=nonsense",
        "since=",
        "timeout=soon",
        "filter=987654321",
        "filter=%7B",
        "full_state=maybe",
    ] {
        let refused = alice.get(&format!("/sync?{query}")).await;
        if query == "since=" {
            assert!([200, 400].contains(&refused.status), "{refused}");
            continue;
        }
        assert!([400, 404].contains(&refused.status), "{refused}");
        assert!(
            refused.body["errcode"].is_string() && refused.body["error"].is_string(),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_room_that_is_new_to_a_device_goes_on_from_nothing_it_has() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let since = bob.sync(None).await.next_batch();
    bob.join(&room).await;
    let own = bob.room_with(&[]).await;
    let sync = bob.sync(Some(&since)).await;
    let limited = |room: &str| sync.joined(room)["timeline"]["limited"].clone();
    assert_eq!(limited(&room), true);
    assert_eq!(limited(&own), false);
}
