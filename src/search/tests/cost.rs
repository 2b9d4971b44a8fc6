//! What a search costs: the same in a long room as in a short one, and among many as among few.

use rooms::Preset;
use storage::Cost;

use super::{World, text};

/// The cost of a search, once the index has caught up.
async fn cost_of(world: &World, search: impl AsyncFn()) -> Cost {
    search().await;
    let before = world.rooms.storage().cost();
    search().await;
    world.rooms.storage().cost() - before
}

#[tokio::test]
async fn a_page_of_messages_costs_as_much_in_a_long_room() {
    let mut round_trips = Vec::new();
    for length in [15, 300] {
        let world = World::new(&["alice"]).await;
        let room = world.room(0, Preset::PrivateChat, "shared").await;
        for number in 0..length {
            let body = format!("needle {number}");
            world.send(&room, 0, text(&body)).await.unwrap();
        }
        // One of them only is on the page.
        let cost = cost_of(&world, async || {
            assert_eq!(world.find(0, "needle 7", false, 10).await.len(), 1);
        });
        round_trips.push(cost.await.round_trips);
    }
    assert_eq!(round_trips[0], round_trips[1]);
    assert!(round_trips[0] <= 8, "{round_trips:?}");
}

#[tokio::test]
async fn people_cost_as_much_among_many() {
    let mut round_trips = Vec::new();
    for others in [2, 60] {
        let names: Vec<_> = (0..others)
            .map(|number| format!("someone{number}"))
            .collect();
        let names: Vec<_> = std::iter::once("zoe")
            .chain(names.iter().map(String::as_str))
            .collect();
        let world = World::new(&names).await;
        let room = world.room(1, Preset::PublicChat, "shared").await;
        for person in (0..names.len()).filter(|person| *person != 1) {
            world.join(&room, person).await;
        }
        let cost = cost_of(&world, async || {
            assert_eq!(world.find_people(1, "zo").await.len(), 1);
        });
        round_trips.push(cost.await.round_trips);
    }
    assert_eq!(round_trips[0], round_trips[1]);
    assert!(round_trips[0] <= 4, "{round_trips:?}");
}
