//! Servers that do not answer, or do not like what they get.

use storage::schema::{DESTINATION_BY_POSITION, LATE_ROOM_BY_DESTINATION};

use super::*;
use crate::transaction::Transaction;

#[tokio::test]
async fn a_server_that_comes_back_gets_what_it_missed_in_order_and_nobody_waits_for_it() {
    let world = World::new(&["alice"]).await;
    let (one, two) = (world.room(0).await, world.room(0).await);
    for room in [&one, &two] {
        world.far_member(room, "@b:b.example", "join").await;
        world.far_member(room, "@c:c.example", "join").await;
    }
    world.network.mood("b.example", Mood::Away);
    for n in 0..20 {
        world.say(&one, &format!("text {n}")).await;
        world.say(&two, &format!("other {n}")).await;
        world.send_all().await;
    }
    assert_eq!(world.network.bodies("c.example").len(), 40);
    assert!(world.network.bodies("b.example").is_empty());
    assert_eq!(
        world.count(&LATE_ROOM_BY_DESTINATION).await,
        2,
        "rooms, not events"
    );
    world.network.mood("b.example", Mood::Good);
    world.send_all().await;
    assert!(
        world.network.bodies("b.example").is_empty(),
        "it is left alone"
    );
    world.wait();
    world.send_all().await;
    let bodies = world.network.bodies("b.example");
    let of = |name: &str| -> Vec<_> {
        let bodies = bodies.iter().filter(|body| body.starts_with(name));
        bodies.cloned().collect()
    };
    assert_eq!(of("text"), texts(0..20));
    assert_eq!(of("other").len(), 20);
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
    assert_eq!(world.count(&DESTINATION_BY_POSITION).await, 0);
    world.say(&one, "text 20").await;
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example").last().unwrap(), "text 20");
}

#[tokio::test]
async fn a_room_that_lags_while_others_are_told_loses_nothing() {
    let world = World::new(&["alice"]).await;
    let (one, two) = (world.room(0).await, world.room(0).await);
    for room in [&one, &two] {
        world.far_member(room, "@b:b.example", "join").await;
    }
    world.network.mood("b.example", Mood::Away);
    world.say(&one, "of one").await;
    world.send_all().await;
    let server = ServerName::parse("b.example").unwrap();
    let hash = world.storage.server_hash(&server);
    let rooms = world.outbox.take_on(&server, hash).await.unwrap();
    assert_eq!(rooms, [one.short]);
    // The other one lags from now on.
    world.say(&two, "before").await;
    world.outbox.look().await.unwrap();
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 2);
    let mut transaction = Transaction::default();
    let added = world
        .outbox
        .add_rooms(&server, hash, &rooms, &mut transaction, 50);
    added.await.unwrap();
    world.say(&two, "after").await;
    world.outbox.look().await.unwrap();
    // The server has what was added.
    world.outbox.write_told(hash, &transaction).await.unwrap();
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), ["before", "after"]);
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
}

#[tokio::test]
async fn after_a_long_outage_the_latest_events_are_told_alone() {
    for (said, told) in [(120, 0..120), (1_100, 1_099..1_100)] {
        let world = World::new(&["alice"]).await;
        let room = world.room(0).await;
        world.far_member(&room, "@b:b.example", "join").await;
        world.network.mood("b.example", Mood::Away);
        for text in texts(0..said) {
            world.say(&room, &text).await;
            if text == "text 0" {
                world.send_all().await;
            }
        }
        world.send_all().await;
        world.network.mood("b.example", Mood::Good);
        world.wait();
        world.send_all().await;
        assert_eq!(world.network.bodies("b.example"), texts(told));
        assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
    }
}

#[tokio::test]
async fn a_server_that_speaks_is_sent_to_at_once() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.network.mood("b.example", Mood::Away);
    world.say(&room, "text 0").await;
    world.send_all().await;
    world.network.mood("b.example", Mood::Good);
    world.send_all().await;
    assert!(world.network.bodies("b.example").is_empty());
    let server = server_name!("b.example");
    world.federation.answered(server).await;
    world.outbox.heard_from(server);
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), ["text 0"]);
}

#[tokio::test]
async fn who_was_kicked_during_an_outage_hears_of_the_kick_and_of_nothing_else() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.network.mood("b.example", Mood::Away);
    world.say(&room, "before").await;
    world.send_all().await;
    world.kick(&room, "@b:b.example").await;
    world.say(&room, "after").await;
    world.send_all().await;
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.send_all().await;
    let pdus = world.network.all("b.example", "pdus");
    assert_eq!(pdus.len(), 1, "{pdus:?}");
    assert_eq!(pdus[0]["content"]["membership"], "leave");
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
}

#[tokio::test]
async fn who_came_in_through_us_during_an_outage_is_told_of_and_nobody_else() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.far_member(&room, "@d:d.example", "join").await;
    world.network.mood("b.example", Mood::Away);
    world.far_join_through_us(&room, "@c:c.example").await;
    world.send_all().await;
    // Of these others tell.
    world.far_member(&room, "@e:e.example", "join").await;
    world.send_all().await;
    world.network.mood("b.example", Mood::Good);
    world.wait();
    world.send_all().await;
    for server in ["b.example", "d.example"] {
        let pdus = world.network.all(server, "pdus");
        let senders: Vec<_> = pdus.iter().map(|pdu| &pdu["sender"]).collect();
        assert_eq!(senders, ["@c:c.example"], "{server}");
    }
    assert!(world.network.all("c.example", "pdus").is_empty());
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
}

#[tokio::test]
async fn what_a_server_refuses_for_good_is_given_up_alone() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world
        .network
        .mood("b.example", Mood::Picky("text 17".to_owned()));
    for text in texts(0..40) {
        world.say(&room, &text).await;
    }
    world.send_all().await;
    let mut expected = texts(0..40);
    expected.remove(17);
    assert_eq!(world.network.bodies("b.example"), expected);
}

#[tokio::test]
async fn what_a_late_server_refuses_for_good_is_given_up_alone() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    world.far_member(&room, "@b:b.example", "join").await;
    world.network.mood("b.example", Mood::Away);
    for text in texts(0..40) {
        world.say(&room, &text).await;
        world.send_all().await;
    }
    world
        .network
        .mood("b.example", Mood::Picky("text 17".to_owned()));
    world.wait();
    world.send_all().await;
    let mut expected = texts(0..40);
    expected.remove(17);
    assert_eq!(world.network.bodies("b.example"), expected);
}

#[tokio::test]
async fn a_lane_with_too_much_in_it_is_written_down() {
    let world = World::new(&["alice"]).await;
    let rooms = [world.room(0).await, world.room(0).await];
    for room in &rooms {
        world.far_member(room, "@b:b.example", "join").await;
    }
    for n in 0..300 {
        for room in &rooms {
            world.say(room, &format!("text {n}")).await;
        }
    }
    world.outbox.look().await.unwrap();
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 2);
    world.send_all().await;
    let mut bodies = world.network.bodies("b.example");
    assert_eq!(
        bodies.len(),
        600,
        "a server that is slow is told everything"
    );
    let mut twice = [texts(0..300), texts(0..300)].concat();
    bodies.sort();
    twice.sort();
    assert_eq!(bodies, twice);
    assert_eq!(world.count(&LATE_ROOM_BY_DESTINATION).await, 0);
}
