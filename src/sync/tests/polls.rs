//! Waiting for something to happen.

use std::time::Duration;

use rooms::Typing;
use serde_json::json;
use storage::{Faults, SNAPSHOT_LIFE};
use tokio::sync::oneshot;

use super::{World, each};
use crate::{EphemeralCursor, Token};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn nothing_is_told_when_the_time_is_over_and_not_before() {
    let world = World::on_model(&["alice"]).await;
    world.room(0, "shared").await;
    let (_, token) = world.sync(0, None).await;
    let mut request = world.request(0, Some(token), json!({}));
    request.timeout = LONG;
    let start = tokio::time::Instant::now();
    let (update, next) = world.ask(&request).await;
    assert!(update.is_empty());
    assert_eq!(start.elapsed().as_secs(), LONG.as_secs());
    assert_eq!(next.position, token.position, "nothing happened");
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_capped() {
    let world = World::on_model(&["alice"]).await;
    let (_, token) = world.sync(0, None).await;
    let mut request = world.request(0, Some(token), json!({}));
    request.timeout = Duration::from_secs(1 << 40);
    let start = tokio::time::Instant::now();
    world.ask(&request).await;
    assert_eq!(start.elapsed(), crate::LONGEST_WAIT);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_server_ends_the_wait() {
    let world = World::on_model(&["alice"]).await;
    let (_, token) = world.sync(0, None).await;
    let mut request = world.request(0, Some(token), json!({}));
    request.timeout = LONG;
    let start = tokio::time::Instant::now();
    let (update, _) = world.syncs.sync(&request, async {}).await.unwrap();
    assert!(update.is_empty());
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn what_happens_ends_the_wait_and_what_does_not_concern_the_device_does_not() {
    let world = std::sync::Arc::new(World::on_model(&["alice", "bob"]).await);
    let room = world.room(0, "shared").await;
    let other = world.room(1, "shared").await;
    let (_, token) = world.sync(0, None).await;
    let filter = json!({ "room": {
        "timeline": { "not_senders": [world.id(1)] },
        "ephemeral": { "not_types": ["*"] },
    }});
    let mut request = world.request(0, Some(token), filter);
    request.timeout = LONG;
    let (started, begun) = oneshot::channel();
    let polling = tokio::spawn({
        let (world, request) = (world.clone(), request.clone());
        async move {
            started.send(()).unwrap();
            world.ask(&request).await
        }
    });
    begun.await.unwrap();
    tokio::task::yield_now().await;
    world.say(&other, 1, "not for her").await;
    world.join(&room, 1).await;
    // Their joining changed the summary, which she is told.
    let (update, token) = polling.await.unwrap();
    assert_eq!(update.joined.len(), 1);

    request.since = Some(token);
    let polling = tokio::spawn({
        let (world, request) = (world.clone(), request.clone());
        async move { world.ask(&request).await }
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    world.say(&room, 1, "she does not want to hear it").await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!polling.is_finished());
    let wanted = world.say(&room, 0, "this she wants").await;
    let (update, _) = polling.await.unwrap();
    let told = each(&update.joined[0].timeline.events, "/event_id");
    assert_eq!(told, [wanted.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_room_that_is_new_is_waited_for() {
    let world = std::sync::Arc::new(World::on_model(&["alice", "bob"]).await);
    let room = world.room(0, "shared").await;
    let (_, token) = world.sync(1, None).await;
    world.join(&room, 1).await;
    let (update, token) = world.sync(1, Some(token)).await;
    assert_eq!(update.joined.len(), 1);
    let mut request = world.request(1, Some(token), json!({}));
    request.timeout = LONG;
    let polling = tokio::spawn({
        let (world, request) = (world.clone(), request.clone());
        async move { world.ask(&request).await }
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let said = world.say(&room, 0, "welcome").await;
    let (update, _) = polling.await.unwrap();
    let told = each(&update.joined[0].timeline.events, "/event_id");
    assert_eq!(told, [said.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn a_wait_outlives_the_views_that_it_looked_at() {
    let world = std::sync::Arc::new(World::on_model(&["alice"]).await);
    let room = world.room(0, "shared").await;
    let (_, token) = world.sync(0, None).await;
    let mut request = world.request(0, Some(token), json!({}));
    request.timeout = LONG;
    let polling = tokio::spawn({
        let world = world.clone();
        async move { world.ask(&request).await }
    });
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    world.clock.advance(10 * SNAPSHOT_LIFE);
    let said = world.say(&room, 0, "still there?").await;
    let (update, _) = polling.await.unwrap();
    let told = each(&update.joined[0].timeline.events, "/event_id");
    assert_eq!(told, [said.as_str()]);
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_told_in_time_though_wake_ups_come_late_or_never() {
    for (lost_wakes, late_wakes) in [(1_000, 0), (0, 1_000), (400, 400)] {
        let faults = Faults {
            seed: 21,
            lost_wakes,
            late_wakes,
            ..Faults::NONE
        };
        let world = World::on_faulty_model(faults, &["alice", "bob"]).await;
        let world = std::sync::Arc::new(world);
        let room = world.room(0, "shared").await;
        world.join(&room, 1).await;
        let (_, mut token) = world.sync(1, None).await;
        for n in 0..20 {
            let mut request = world.request(1, Some(token), json!({}));
            request.timeout = LONG;
            let mut polling = tokio::spawn({
                let world = world.clone();
                async move { world.ask(&request).await }
            });
            let early = tokio::time::timeout(Duration::from_millis(617), &mut polling);
            assert!(early.await.is_err(), "nothing has happened");
            let said = world.say(&room, 0, &n.to_string()).await;
            let start = tokio::time::Instant::now();
            let (update, next) = polling.await.unwrap();
            let told = each(&update.joined[0].timeline.events, "/event_id");
            assert_eq!(told, [said.as_str()]);
            assert!(start.elapsed() <= Duration::from_millis(250));
            token = next;
        }
    }
}

#[tokio::test]
async fn who_types_is_told_once_and_anew_by_another_run_of_the_server() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    world.join(&room, 1).await;
    let (_, token) = world.sync(1, None).await;
    let typing: &Typing = world.rooms.typing();
    typing.set(&room, world.id(0), Some(Duration::from_secs(20)));
    let (update, next) = world.sync(1, Some(token)).await;
    let names = each(&update.joined[0].ephemeral, "/content/user_ids/0");
    assert_eq!(names, [world.id(0).as_str()]);
    assert!(world.sync(1, Some(next)).await.0.is_empty());
    let of_another_run = Token {
        ephemeral: EphemeralCursor { run: 0, serial: 77 },
        ..next
    };
    let (update, _) = world.sync(1, Some(of_another_run)).await;
    assert_eq!(each(&update.joined[0].ephemeral, "/type"), ["m.typing"]);
    typing.set(&room, world.id(0), None);
    let (update, _) = world.sync(1, Some(next)).await;
    let nobody = each(&update.joined[0].ephemeral, "/content/user_ids");
    assert_eq!(nobody, ["[]"]);
}

#[tokio::test]
async fn a_sync_begins_again_when_its_view_gets_too_old() {
    let world = World::on_model(&["alice", "bob"]).await;
    let mut rooms = Vec::new();
    for _ in 0..5 {
        let room = world.room(0, "shared").await;
        world.join(&room, 1).await;
        rooms.push(room);
    }
    let mut token = None;
    for n in 0..40 {
        let room = &rooms[n % rooms.len()];
        let said = world.say(room, 0, &n.to_string()).await;
        world.storage.misbehave(Faults {
            read_takes: Duration::from_millis(100),
            stalled_reads: 150,
            ..Faults::NONE
        });
        let (update, next) = world.sync(1, token).await;
        world.storage.misbehave(Faults::NONE);
        let news = update
            .joined
            .iter()
            .find(|joined| joined.room.short == room.short);
        let told = each(&news.unwrap().timeline.events, "/event_id");
        assert_eq!(told.last(), Some(&said.to_string()));
        assert_eq!(
            update.joined.len(),
            if token.is_none() { rooms.len() } else { 1 }
        );
        token = Some(next);
    }
}
