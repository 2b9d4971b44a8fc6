//! What a sync costs: what changed, and for each room no more than a look at its tails.

use std::sync::Arc;

use rooms::Room;
use serde_json::{Value, json};
use storage::Cost;

use super::{World, each};
use crate::Update;

/// What a poll costs that brings one message, in a world of so many rooms.
async fn cost(rooms: usize) -> (Cost, Cost) {
    let world = World::on_model(&["alice", "bob"]).await;
    let mut all = Vec::new();
    for _ in 0..rooms {
        let room = world.room(0, "shared").await;
        world.join(&room, 1).await;
        let name = json!({ "name": "so that it is not named after its members" });
        let set = world.set(&room, 0, "m.room.name", "", name);
        set.await.unwrap();
        all.push(room);
    }
    let filter = json!({ "room": { "state": { "lazy_load_members": true } } });
    let (_, token) = world.ask(&world.request(1, None, filter.clone())).await;
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
async fn who_knows_everything_is_told_so_without_a_look() {
    let world = World::on_model(&["alice", "bob"]).await;
    let room = world.room(0, "shared").await;
    world.join(&room, 1).await;
    let poll = async |token| {
        let before = world.storage.cost();
        let (update, token) = world.ask(&world.request(1, token, json!({}))).await;
        let cost = world.storage.cost() - before;
        (update, token, cost.round_trips)
    };
    let (_, token, _) = poll(None).await;
    let (_, token, looked) = poll(Some(token)).await;
    assert!(looked > 0, "it did not wait for the room before");
    for _ in 0..3 {
        let (update, again, looked) = poll(Some(token)).await;
        assert!(update.is_empty());
        assert_eq!((again, looked), (token, 0));
    }
    let other = world.room(0, "shared").await;
    world.say(&other, 0, "elsewhere").await;
    assert_eq!(poll(Some(token)).await.2, 0);
    world.say(&room, 0, "here").await;
    let (update, next, looked) = poll(Some(token)).await;
    assert_eq!(update.joined[0].timeline.events.len(), 1);
    assert!(looked > 0);
    assert_eq!(poll(Some(next)).await.2, 0, "it was told everything");
    let (update, ..) = poll(Some(token)).await;
    assert_eq!(update.joined[0].timeline.events.len(), 1, "it asks again");
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
    assert!(few_one.round_trips <= 3, "{few_one:?}");
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
        world.rooms.join(&room, &user, &[], said).await.unwrap();
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
    // What changed; then the room's log, beside what is unread there; then the event.
    assert!(large.round_trips <= 3, "{large:?}");
    assert!(large.bytes_read < 2_500, "{large:?}");
}

/// What it costs to be told of what happened in so many rooms, by `act`, after a first message in each.
async fn cost_of_news(
    rooms: usize,
    filter: Value,
    act: impl AsyncFn(&World, &Arc<Room>),
) -> (Cost, Update) {
    let world = World::on_model(&["alice", "bob", "carol"]).await;
    let mut all = Vec::new();
    for _ in 0..rooms {
        let room = world.room(0, "shared").await;
        world.join(&room, 2).await;
        world.join(&room, 1).await;
        let name = json!({ "name": "so that it is not named after its members" });
        let set = world.set(&room, 0, "m.room.name", "", name);
        set.await.unwrap();
        all.push(room);
    }
    let (_, token) = world.ask(&world.request(1, None, filter.clone())).await;
    for room in &all {
        world.say(room, 0, "first").await;
    }
    let request = world.request(1, Some(token), filter.clone());
    let (_, token) = world.ask(&request).await;
    for room in &all {
        act(&world, room).await;
    }
    let before = world.storage.cost();
    let (update, _) = world.ask(&world.request(1, Some(token), filter)).await;
    assert_eq!(update.joined.len(), rooms);
    (world.storage.cost() - before, update)
}

fn lazily() -> Value {
    json!({ "room": { "state": { "lazy_load_members": true } } })
}

/// Asserts that a poll costs no more than three round trips, for one room and for twenty. Gives what it told.
async fn assert_three(filter: Value, act: impl AsyncFn(&World, &Arc<Room>)) -> Update {
    let (one, _) = cost_of_news(1, filter.clone(), &act).await;
    let (many, update) = cost_of_news(20, filter, &act).await;
    assert_eq!(one.round_trips, many.round_trips);
    assert!(many.round_trips <= 3, "{one:?} {many:?}");
    update
}

#[tokio::test]
async fn messages_in_many_rooms_are_read_in_three_lists() {
    let act = async |world: &World, room: &Arc<Room>| {
        for text in ["one", "two", "three"] {
            world.say(room, 0, text).await;
        }
    };
    assert_three(json!({}), &act).await;
    assert_three(lazily(), act).await;
}

#[tokio::test]
async fn members_that_are_loaded_lazily_come_in_the_same_lists() {
    let act = async |world: &World, room: &Arc<Room>| {
        world.say(room, 2, "of whom the device does not know").await;
    };
    let mut filter = lazily();
    filter["room"]["timeline"] = json!({ "limit": 1 });
    let update = assert_three(filter, act).await;
    for joined in &update.joined {
        assert_eq!(each(&joined.state, "/state_key"), ["@carol:a.example"]);
    }
}

#[tokio::test]
async fn state_comes_in_the_same_lists() {
    let act = async |world: &World, room: &Arc<Room>| {
        for topic in ["one", "two"] {
            let topic = json!({ "topic": topic });
            let set = world.set(room, 0, "m.room.topic", "", topic);
            set.await.unwrap();
        }
        let name = json!({ "name": "named" });
        let set = world.set(room, 0, "m.room.name", "", name);
        set.await.unwrap();
        world.say(room, 0, "hello").await;
    };
    let update = assert_three(json!({}), &act).await;
    assert!(update.joined.iter().all(|joined| joined.summary.is_some()));
    assert_three(lazily(), act).await;
}

#[tokio::test]
async fn mentions_and_what_one_says_oneself_come_in_the_same_lists() {
    let act = async |world: &World, room: &Arc<Room>| {
        world.say(room, 0, "@bob:a.example").await;
        world.say(room, 1, "of my own").await;
        world.say(room, 2, "bob").await;
    };
    assert_three(lazily(), act).await;
}

#[tokio::test]
async fn who_comes_in_is_told_in_the_same_lists() {
    let act = async |world: &World, room: &Arc<Room>| {
        let guest: ruma::OwnedUserId = "@guest:a.example".try_into().unwrap();
        let said = rooms::Said::default();
        world.rooms.join(room, &guest, &[], said).await.unwrap();
    };
    let update = assert_three(json!({}), act).await;
    assert!(update.device_lists.changed.contains("@guest:a.example"));
    assert!(update.joined.iter().all(|joined| joined.summary.is_some()));
}
