//! Presence, on a clock that is moved by hand.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ruma::{RoomVersionId, presence::PresenceState};
use serde_json::{Value, json};
use storage::{NameHash, Storage, Topic};

use super::{
    PresenceNews,
    people::{ACTIVE_FOR, IDLE_AFTER, OFFLINE_AFTER},
};
use crate::{
    Room, Rooms, Viewer,
    tests::rooms,
    unread::tests::{person, room_of},
};

struct World {
    rooms: Rooms,
    room: Arc<Room>,
    bob: Viewer,
    carol: Viewer,
}

const ONLINE: PresenceState = PresenceState::Online;
const UNAVAILABLE: PresenceState = PresenceState::Unavailable;
const OFFLINE: PresenceState = PresenceState::Offline;

async fn world() -> World {
    let rooms = rooms(Storage::model());
    let (bob, carol) = (person(&rooms, "bob").await, person(&rooms, "carol").await);
    let room = room_of(&rooms, &RoomVersionId::V11, &[&bob, &carol]).await;
    World {
        rooms,
        room,
        bob,
        carol,
    }
}

impl World {
    async fn later(&self, milliseconds: u64) {
        let clock = &self.rooms.parts().clock;
        clock.advance(Duration::from_millis(milliseconds));
        self.rooms.look_at_presence().await.unwrap();
    }

    /// What changed in the room after a serial: user and content, without when they were active.
    fn news(&self, serial: Option<u64>) -> Vec<(String, Value)> {
        let rooms = BTreeSet::from([self.room.short]);
        let wanted = PresenceNews {
            rooms: &rooms,
            serial,
            new_rooms: BTreeSet::new(),
            newcomers: BTreeSet::new(),
        };
        let events = self.rooms.presence_news(&wanted).unwrap();
        let parse = |event: Box<serde_json::value::RawValue>| {
            let mut event: Value = serde_json::from_str(event.get()).unwrap();
            assert_eq!(event["type"], "m.presence");
            let content = event["content"].as_object_mut().unwrap();
            content.remove("last_active_ago");
            let sender = event["sender"].as_str().unwrap().to_owned();
            (sender, event["content"].take())
        };
        events.into_iter().map(parse).collect()
    }

    fn now(&self) -> u64 {
        self.rooms.serials().latest()
    }

    async fn bob_is(&self) -> (PresenceState, bool) {
        let now = self
            .rooms
            .presence_of(&self.carol, &self.bob.user_id)
            .await
            .unwrap();
        (now.presence, now.currently_active)
    }
}

#[tokio::test]
async fn who_waits_for_news_is_online_until_they_do_nothing_and_then_go() {
    let world = world().await;
    assert_eq!(world.bob_is().await, (OFFLINE, false));
    let waits = world
        .rooms
        .storage()
        .subscribe(&[Topic::Room(world.room.short)]);
    let polling = world.rooms.polling(&world.bob, ONLINE).await.unwrap();
    assert_eq!(waits.take().len(), 1);
    assert_eq!(world.bob_is().await, (ONLINE, true));
    let bob = world.bob.user_id.to_string();
    let active = json!({ "presence": "online", "currently_active": true });
    assert_eq!(world.news(Some(0)), [(bob.clone(), active.clone())]);
    assert_eq!(world.news(None), [(bob.clone(), active.clone())]);

    let known = world.now();
    world.later(ACTIVE_FOR - 1).await;
    assert_eq!(world.news(Some(known)), []);
    world.rooms.is_active(&world.bob).await;
    world.later(ACTIVE_FOR - 1).await;
    assert_eq!(world.news(Some(known)), [], "they go on being active");
    world.later(1).await;
    let inactive = json!({ "presence": "online", "currently_active": false });
    assert_eq!(world.news(Some(known)), [(bob.clone(), inactive)]);
    world.later(IDLE_AFTER - ACTIVE_FOR).await;
    assert_eq!(world.bob_is().await, (UNAVAILABLE, false));

    let known = world.now();
    world.rooms.is_active(&world.bob).await;
    assert_eq!(world.news(Some(known)), [(bob.clone(), active)]);
    drop(polling);
    world.later(OFFLINE_AFTER - 1).await;
    assert_eq!(world.bob_is().await, (ONLINE, true));
    world.later(1).await;
    let offline = json!({ "presence": "offline" });
    assert_eq!(world.news(Some(known)), [(bob, offline)]);
    assert_eq!(
        world.news(None),
        [],
        "to who comes anew the offline are not told"
    );
}

#[tokio::test]
async fn who_polls_on_does_not_become_active_by_it() {
    let world = world().await;
    for _ in 0..IDLE_AFTER / 10_000 {
        drop(world.rooms.polling(&world.bob, ONLINE).await.unwrap());
        world.later(10_000).await;
    }
    assert_eq!(world.bob_is().await, (UNAVAILABLE, false));
}

#[tokio::test]
async fn the_device_that_is_most_there_counts() {
    let world = world().await;
    let phone = Viewer {
        device: NameHash([1; 16]),
        ..world.bob.clone()
    };
    let _desk = world.rooms.polling(&world.bob, UNAVAILABLE).await.unwrap();
    assert_eq!(world.bob_is().await.0, UNAVAILABLE);
    let on_phone = world.rooms.polling(&phone, ONLINE).await.unwrap();
    assert_eq!(world.bob_is().await.0, ONLINE);
    drop(on_phone);
    world.later(OFFLINE_AFTER).await;
    assert_eq!(world.bob_is().await.0, UNAVAILABLE);
}

#[tokio::test]
async fn what_people_say_outlives_the_process_and_strangers_do_not_see_it() {
    let world = world().await;
    let rooms = &world.rooms;
    let say = |text: Option<&str>| rooms.set_presence(&world.bob, ONLINE, text.map(str::to_owned));
    say(Some("at lunch")).await.unwrap();
    let bob = world.bob.user_id.to_string();
    let content =
        json!({ "presence": "online", "currently_active": true, "status_msg": "at lunch" });
    assert_eq!(world.news(Some(0)), [(bob, content)]);
    let long = say(Some(&"x".repeat(5_000))).await;
    assert_eq!(long.unwrap_err().status(), 400);

    let again = crate::tests::rooms(rooms.storage().clone());
    let seen = again
        .presence_of(&world.carol, &world.bob.user_id)
        .await
        .unwrap();
    assert_eq!(seen.presence, OFFLINE);
    assert_eq!(seen.status_msg.as_deref(), Some("at lunch"));
    assert_eq!(seen.last_active_ago, Some(0));

    let eve = person(rooms, "eve").await;
    let refused = rooms.presence_of(&eve, &world.bob.user_id).await;
    assert_eq!(refused.unwrap_err().status(), 403);
    let own = rooms.presence_of(&eve, &eve.user_id).await.unwrap();
    assert_eq!(own.presence, OFFLINE);

    say(None).await.unwrap();
    let seen = rooms
        .presence_of(&world.carol, &world.bob.user_id)
        .await
        .unwrap();
    assert_eq!(seen.status_msg, None);
}

#[tokio::test]
async fn newcomers_and_new_rooms_are_told_of_though_nothing_changed() {
    let world = world().await;
    let _polling = world.rooms.polling(&world.bob, ONLINE).await.unwrap();
    let known = world.now();
    let (none, here) = (BTreeSet::new(), BTreeSet::from([world.room.short]));
    let news = |new_rooms: &BTreeSet<_>, newcomers: BTreeSet<_>| {
        let wanted = PresenceNews {
            rooms: &here,
            serial: Some(known),
            new_rooms: new_rooms.clone(),
            newcomers,
        };
        world.rooms.presence_news(&wanted).unwrap().len()
    };
    assert_eq!(news(&none, BTreeSet::new()), 0);
    assert_eq!(news(&here, BTreeSet::new()), 1);
    let snapshot = world.rooms.snapshot().await.unwrap();
    let eve = person(&world.rooms, "eve").await;
    let members = [&world.bob, &eve].map(|who| (world.room.short, 0, &*who.user_id));
    let found = world
        .rooms
        .present_members(&snapshot, &members)
        .await
        .unwrap();
    assert_eq!(found, BTreeSet::from([world.bob.short]));
    assert_eq!(news(&none, found), 1);
}

#[tokio::test]
async fn who_is_long_gone_is_forgotten() {
    let world = world().await;
    drop(world.rooms.polling(&world.bob, ONLINE).await.unwrap());
    for _ in 0..30 {
        world.later(60 * 60 * 1000).await;
    }
    assert!(
        !world
            .rooms
            .presence()
            .0
            .lock()
            .people
            .knows(world.bob.short)
    );
    assert_eq!(world.news(Some(0)), []);
    let next = world.rooms.look_at_presence().await.unwrap();
    assert_eq!(next, None, "nobody to wait for");
}

#[tokio::test]
async fn where_it_is_off_everybody_is_offline() {
    let world = world().await;
    world.rooms.set_presence_enabled(false);
    let said = world
        .rooms
        .set_presence(&world.bob, ONLINE, Some("here".to_owned()));
    said.await.unwrap();
    assert!(
        world
            .rooms
            .polling(&world.bob, ONLINE)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(world.bob_is().await, (OFFLINE, false));
    assert_eq!(world.news(None), []);
}
