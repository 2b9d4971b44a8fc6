//! People do what comes to their mind in several rooms; devices sync now and then, each in its own way,
//! and must know exactly what happened: nothing lost, nothing twice.

use std::{sync::Arc, time::Duration};

use rooms::{Room, Said};
use serde_json::json;
use storage::Faults;

use super::{
    World,
    device::{Ask, Device},
};

/// A generator of numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn index(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll(sides as u64)).unwrap()
    }
}

/// Somebody does something; what they may not do does not happen.
async fn act(world: &World, rooms: &[Arc<Room>], dice: &mut Dice, step: u64) {
    let (person, other) = (dice.index(3), dice.index(3));
    let room = &rooms[dice.index(rooms.len())];
    let (own, theirs) = (world.id(person).clone(), world.id(other).clone());
    let said = Said::default();
    let text = step.to_string();
    let _ = match dice.roll(20) {
        0..=8 => world.try_say(room, person, &text).await.map(drop),
        9 => {
            let content = json!({ "name": text });
            let named = world.set(room, person, "m.room.name", "", content);
            named.await.map(drop)
        }
        10 => {
            let content = json!({ "topic": text });
            world
                .set(room, person, "m.room.topic", "", content)
                .await
                .map(drop)
        }
        11 => {
            let content = json!({ "membership": "join", "displayname": text });
            let renamed = world.set(room, person, "m.room.member", own.as_str(), content);
            renamed.await.map(drop)
        }
        12..=14 => world.rooms.join(room, &own, &[], said).await,
        15 | 16 => world.rooms.leave(room, &own, said).await,
        17 => world.rooms.kick(room, &own, &theirs, said).await,
        18 => world.rooms.invite(room, &own, &theirs, said).await,
        _ => match world.rooms.ban(room, &own, &theirs, said.clone()).await {
            Ok(()) if dice.roll(2) == 0 => world.rooms.unban(room, &own, &theirs, said).await,
            done => done,
        },
    };
}

async fn walk(world: World, seed: u64, steps: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let rooms = [
        world.room(0, "shared").await,
        world.room(1, "joined").await,
        world.room(2, "shared").await,
    ];
    let mut devices: Vec<_> = (0..6)
        .map(|number| Device::new(number % 3, number))
        .collect();
    for step in 0..steps {
        act(&world, &rooms, &mut dice, step).await;
        if dice.roll(3) > 0 {
            continue;
        }
        let device = dice.index(devices.len());
        let ask = Ask {
            limit: dice.roll(6),
            after: dice.roll(3) == 0,
            full_state: dice.roll(12) == 0,
        };
        devices[device].sync(&world, &rooms, ask).await;
    }
    for device in &mut devices {
        let ask = Ask {
            limit: 5,
            after: false,
            full_state: false,
        };
        device.sync(&world, &rooms, ask).await;
    }
}

#[tokio::test]
async fn devices_know_what_happened() {
    for seed in 1..=40 {
        println_seed(seed);
        let world = World::on_model(&["alice", "bob", "carol"]).await;
        walk(world, seed, 120).await;
    }
}

#[tokio::test]
async fn devices_know_what_happened_though_storage_refuses_and_loses() {
    for seed in 201..=205 {
        let faults = Faults {
            seed,
            conflicts: 100,
            lost_replies: 50,
            lost_batches: 50,
            lost_wakes: 200,
            late_wakes: 200,
            read_takes: Duration::from_millis(10),
            ..Faults::NONE
        };
        let world = World::on_faulty_model(faults, &["alice", "bob", "carol"]).await;
        walk(world, seed, 100).await;
    }
}

#[tokio::test]
async fn devices_know_what_happened_on_the_disk() {
    for seed in 101..=102 {
        let world = World::on_rocks(&["alice", "bob", "carol"]).await;
        walk(world, seed, 80).await;
    }
}

/// Which walk failed is seen in what the test wrote.
#[allow(clippy::print_stdout)]
fn println_seed(seed: u64) {
    println!("seed {seed}");
}
