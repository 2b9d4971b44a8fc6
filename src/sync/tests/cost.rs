//! What a sync costs: what changed, and for each room no more than a look at its tails.

use serde_json::json;
use storage::Cost;

use super::World;

/// What a poll costs that brings one message, in a world of so many rooms.
async fn cost(rooms: usize) -> (Cost, Cost) {
    let world = World::on_model(&["alice", "bob"]).await;
    let mut all = Vec::new();
    for _ in 0..rooms {
        let room = world.room(0, "shared").await;
        world.join(&room, 1).await;
        all.push(room);
    }
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let (_, token) = world.ask(&world.request(1, None, filter.clone())).await;
    let (_, token) = world
        .ask(&world.request(1, Some(token), filter.clone()))
        .await;

    let before = world.storage.cost();
    let (_, token) = world
        .ask(&world.request(1, Some(token), filter.clone()))
        .await;
    let idle = world.storage.cost() - before;
    world.say(&all[0], 0, "hello").await;
    let before = world.storage.cost();
    let (update, _) = world.ask(&world.request(1, Some(token), filter)).await;
    let one = world.storage.cost() - before;
    assert_eq!(update.joined.len(), 1);
    (idle, one)
}

#[tokio::test]
async fn a_poll_costs_the_same_whatever_rooms_there_are() {
    let (few_idle, few_one) = cost(2).await;
    let (many_idle, many_one) = cost(60).await;
    for (few, many) in [(few_idle, many_idle), (few_one, many_one)] {
        assert_eq!(few.round_trips, many.round_trips, "{few:?} {many:?}");
        assert_eq!(few.ranges, many.ranges, "{few:?} {many:?}");
        // The tails of the room and of its receipts.
        assert_eq!(many.keys - few.keys, 2 * 58, "{few:?} {many:?}");
    }
    assert!(few_idle.round_trips <= 1, "{few_idle:?}");
    assert!(few_one.round_trips <= 6, "{few_one:?}");
}

/// What it costs to be told of one message in a room of so many members, while one is in other rooms too.
async fn cost_of_a_message(members: usize) -> Cost {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    world.join(&room, 1).await;
    for _ in 0..5 {
        world.room(1, "shared").await;
    }
    for number in 0..members {
        // Members without an account: only the room knows them.
        let user = format!("@member{number}:a.example");
        let user: ruma::OwnedUserId = user.try_into().unwrap();
        let said = rooms::Said::default();
        world.rooms.join(&room, &user, said).await.unwrap();
    }
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let (_, token) = world.ask(&world.request(1, None, filter.clone())).await;
    world.say(&room, 0, "first").await;
    let (_, token) = world
        .ask(&world.request(1, Some(token), filter.clone()))
        .await;
    world.say(&room, 0, "second").await;
    let before = world.storage.cost();
    let (update, _) = world.ask(&world.request(1, Some(token), filter)).await;
    let cost = world.storage.cost() - before;
    assert_eq!(update.joined[0].timeline.events.len(), 1);
    assert!(update.joined[0].summary.is_none());
    assert!(update.joined[0].state.is_empty(), "who speaks is known");
    cost
}

#[tokio::test]
async fn a_message_costs_the_same_in_large_rooms() {
    let (small, large) = (cost_of_a_message(3).await, cost_of_a_message(300).await);
    assert_eq!(small.round_trips, large.round_trips);
    assert_eq!((small.keys, small.ranges), (large.keys, large.ranges));
    // The head counts the members, in more digits.
    assert!(
        large.bytes_read < small.bytes_read + 100,
        "{small:?} {large:?}"
    );
    // What changed; then the room's log beside what is unread there; then the event. Counting what is
    // unread takes lists of its own, beside the others.
    assert!(large.round_trips <= 6, "{large:?}");
    assert!(large.bytes_read < 2_000, "{large:?}");
}
