//! Servers that come and go, a storage that misbehaves, and kills between any two steps: nothing is lost, and
//! what is told of a room comes in its order.

use super::*;

const SERVERS: [&str; 3] = ["b.example", "c.example", "d.example"];

/// A small source of numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

async fn walk(seed: u64) {
    let mut world = World::new(&["alice"]).await;
    let rooms = [world.room(0).await, world.room(0).await];
    for room in &rooms {
        for server in SERVERS {
            world
                .far_member(room, &format!("@u:{server}"), "join")
                .await;
        }
    }
    let mut dice = Dice(seed);
    let mut said: [Vec<String>; 2] = [Vec::new(), Vec::new()];
    let mut came = BTreeSet::new();
    for step in 0..60 {
        let server = SERVERS[dice.roll(3) as usize];
        world.storage.misbehave(Faults::NONE);
        match dice.roll(11) {
            0..5 => {
                let room = dice.roll(2) as usize;
                let text = format!("room {room} text {step}");
                world.say(&rooms[room], &text).await;
                said[room].push(text);
            }
            5 => world.network.mood(server, Mood::Away),
            6 => world.network.mood(server, Mood::Mute),
            7 => world.network.mood(server, Mood::Good),
            8 => world.clock.advance(Duration::from_secs(1 << dice.roll(8))),
            9 => {
                let user = format!("@u{step}:e.example");
                let room = &rooms[dice.roll(2) as usize];
                world.far_join_through_us(room, &user).await;
                came.insert(user);
            }
            _ => world.restart(seed ^ step),
        }
        world.storage.misbehave(Faults {
            conflicts: 100,
            lost_replies: 100,
            lost_batches: 100,
            ..Faults::NONE
        });
        // Some of the steps that would follow, and then perhaps a kill.
        let _ = world.outbox.look().await;
        let (due, _) = world.outbox.due(dice.roll(4) as usize);
        for server in due {
            match dice.roll(4) {
                // It is killed while it sends.
                0 => world.restart(seed.wrapping_add(step)),
                _ => world.outbox.send_one(&server).await,
            }
        }
    }
    world.storage.misbehave(Faults::NONE);
    for server in SERVERS {
        world.network.mood(server, Mood::Good);
    }
    for _ in 0..4 {
        world.wait();
        world.send_all().await;
    }
    for server in SERVERS {
        let pdus = world.network.all(server, "pdus").into_iter();
        let told: BTreeSet<_> = pdus
            .filter(|pdu| pdu["type"] == "m.room.member")
            .filter_map(|pdu| pdu["sender"].as_str().map(ToOwned::to_owned))
            .collect();
        assert_eq!(told, came, "{server}, seed {seed}");
        let bodies = world.network.bodies(server);
        for (room, said) in said.iter().enumerate() {
            let mut seen = BTreeSet::new();
            let of_room = format!("room {room} ");
            let told = bodies.iter().filter(|body| body.starts_with(&of_room));
            let first: Vec<_> = told.filter(|body| seen.insert((*body).clone())).collect();
            assert_eq!(
                first,
                said.iter().collect::<Vec<_>>(),
                "{server}, seed {seed}"
            );
        }
    }
    let late = world.count(&schema::LATE_ROOM_BY_DESTINATION).await;
    let left = world.count(&schema::DESTINATION_BY_POSITION).await;
    assert_eq!((late, left), (0, 0), "seed {seed}");
}

#[tokio::test]
async fn whatever_fails_nothing_is_lost_and_rooms_keep_their_order() {
    for seed in 0..60 {
        walk(seed).await;
    }
}
