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
    assert!(few_idle.round_trips <= 2, "{few_idle:?}");
    assert!(few_one.round_trips <= 11, "{few_one:?}");
}
