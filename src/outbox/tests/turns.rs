//! Whose turn it is, where there are more servers than may be sent to at once, and more than have lanes.

use pdu::EventNumber;
use storage::{NameHash, Position, ShortRoomId, schema::Place};

use super::*;
use crate::lanes::{Lanes, Put, Queued};

fn names(kind: &str, range: std::ops::Range<usize>) -> Vec<OwnedServerName> {
    let names = range.map(|number| ServerName::parse(format!("{kind}{number}.example")));
    names.map(Result::unwrap).collect()
}

/// Puts an event into the lane of a server; what becomes of it.
fn try_put(lanes: &mut Lanes, server: &ServerName, number: u16) -> Put {
    let event = Queued {
        after: Position::START,
        room: ShortRoomId::NONE,
        number: EventNumber(number.into()),
        place: Place::live(number.into()),
        ts: NOW,
    };
    let position = Position::pending(number);
    lanes.put(server, NameHash::NONE, event, position, || false)
}

fn put(lanes: &mut Lanes, server: &ServerName, number: u16) {
    assert_eq!(try_put(lanes, server, number), Put::Done);
}

#[test]
fn what_is_said_in_a_late_room_is_written_down_again_once_somebody_works_off_its_row() {
    let mut lanes = Lanes::default();
    let (server, room) = (server_name!("late.example"), ShortRoomId::NONE);
    put(&mut lanes, server, 1);
    assert!(lanes.make_late(server).is_some());
    assert_eq!(try_put(&mut lanes, server, 2), Put::Park);
    // The row is there, and holds for what follows.
    let turn = lanes.turn();
    lanes.parked(server, room, turn);
    put(&mut lanes, server, 3);
    assert!(lanes.take_on(server, &[room]));
    assert_eq!(try_put(&mut lanes, server, 4), Put::Park);
    // It is worked off before whoever wrote it notes that it is there.
    let turn = lanes.turn();
    assert!(lanes.take_on(server, &[room]));
    lanes.parked(server, room, turn);
    assert_eq!(try_put(&mut lanes, server, 5), Put::Park);
    // The same, and the lane is another one when it is noted.
    let turn = lanes.turn();
    lanes.drop_first(server, usize::MAX);
    assert!(lanes.take_on(server, &[]));
    lanes.done(server, 0, false);
    assert!(lanes.get_mut(server).is_none());
    put(&mut lanes, server, 6);
    assert!(lanes.make_late(server).is_some());
    lanes.parked(server, room, turn);
    assert_eq!(try_put(&mut lanes, server, 7), Put::Park);
}

#[test]
fn servers_that_do_not_answer_in_time_hold_up_each_other_alone() {
    let mut lanes = Lanes::default();
    let slow = names("slow", 0..300);
    for server in &slow {
        put(&mut lanes, server, 1);
    }
    let mut sending = lanes.take_due(NOW, usize::MAX);
    assert_eq!(sending.len(), 128);
    put(&mut lanes, server_name!("quick.example"), 1);
    assert!(lanes.take_due(NOW, usize::MAX).is_empty());
    assert_eq!(lanes.next_due(), None);
    // Those who turn out to be slow make room.
    for server in &sending {
        lanes.is_slow(server);
    }
    let more = lanes.take_due(NOW, usize::MAX);
    assert_eq!(more.len(), 128);
    for server in &more {
        lanes.is_slow(server);
    }
    sending.extend(more);
    let last = lanes.take_due(NOW, usize::MAX);
    assert_eq!(last.len(), 45);
    assert_eq!(last[44].as_str(), "quick.example");
    for server in sending.iter().chain(&last) {
        let slow = server.as_str() != "quick.example";
        if slow {
            lanes.is_slow(server);
        }
        lanes.drop_first(server, 1);
        lanes.done(server, 0, slow);
    }
    // From then on they have a part of all turns.
    for server in &slow {
        put(&mut lanes, server, 2);
    }
    put(&mut lanes, server_name!("quick.example"), 2);
    let due = lanes.take_due(NOW, usize::MAX);
    assert_eq!(due[0].as_str(), "quick.example");
    assert_eq!(due.len(), 1 + 32);
    // Who answers in time is slow no more.
    for server in &due[1..] {
        lanes.drop_first(server, 1);
        lanes.done(server, 0, false);
        put(&mut lanes, server, 3);
    }
    assert_eq!(lanes.take_due(NOW, usize::MAX).len(), 32 + 32);
}

#[tokio::test]
async fn however_many_are_away_new_servers_are_told_and_nobody_is_forgotten() {
    let world = World::new(&["alice"]).await;
    let room = world.room(0).await;
    let away = names("away", 0..5);
    world.far_member(&room, "@b:b.example", "join").await;
    for server in &away {
        let user = format!("@u:{server}");
        world.far_member(&room, &user, "join").await;
        world.network.mood(server.as_str(), Mood::Away);
    }
    world.say(&room, "text 0").await;
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), texts(0..1));
    // There is no place for one more.
    world.outbox.0.lanes.lock().most = 3;
    world.say(&room, "text 1").await;
    world.send_all().await;
    assert_eq!(world.network.bodies("b.example"), texts(0..2));
    world.far_member(&room, "@c:c.example", "join").await;
    world.say(&room, "text 2").await;
    world.send_all().await;
    assert_eq!(world.network.bodies("c.example"), ["text 2"]);
    for server in &away {
        world.network.mood(server.as_str(), Mood::Good);
    }
    for _ in 0..4 {
        world.wait();
        world.send_all().await;
    }
    for server in &away {
        let mut bodies = world.network.bodies(server.as_str());
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies, texts(0..3), "{server}");
    }
    for table in [
        world.count(&schema::LATE_ROOM_BY_DESTINATION).await,
        world.count(&schema::DESTINATION_BY_POSITION).await,
    ] {
        assert_eq!(table, 0);
    }
}
