//! Tests of events that are sent later, on a clock of their own.

use std::{sync::Arc, time::Duration};

use ruma::RoomVersionId;
use serde_json::{Value, json, value::to_raw_value};
use storage::{
    OnceKey, Range, Storage,
    schema::{self, DelayedEventRow, DelayedOutcome},
};

use super::{
    alice,
    people::{Seen, accounts, bob, member},
    public_room, rooms, state,
};
use crate::{DelayAction, Delayed, Group, NewDelayedEvent, Room, Rooms, Viewer};

const MOST: usize = 10;

struct World {
    rooms: Rooms,
    room: Arc<Room>,
    viewers: Vec<Viewer>,
}

impl World {
    async fn new() -> Self {
        Self::on(Storage::model()).await
    }

    async fn on(storage: Storage) -> Self {
        let viewers = accounts(&storage, &[alice(), bob()]).await;
        let rooms = rooms(storage);
        let room_id = public_room(&rooms, &RoomVersionId::V11).await;
        let room = rooms.room(&room_id).await.unwrap();
        let join = member(&bob(), &bob(), "join");
        rooms.send(&room, Group::one(join)).await.unwrap();
        Self {
            rooms,
            room,
            viewers,
        }
    }

    fn later(&self, viewer: usize, body: &str, delay: u64) -> NewDelayedEvent<'_> {
        NewDelayedEvent {
            user: self.viewers[viewer].short,
            user_id: self.viewers[viewer].user_id.clone(),
            room_id: &self.room.room_id,
            event_type: "m.room.message".to_owned(),
            state_key: None,
            content: to_raw_value(&json!({ "body": body })).unwrap(),
            delay,
            once: None,
        }
    }

    async fn delay(&self, body: &str, delay: u64) -> String {
        let later = self.later(1, body, delay);
        self.rooms.delay(later, MOST).await.unwrap()
    }

    async fn act(&self, delay_id: &str, action: DelayAction) -> Delayed {
        let done = self.rooms.act_on_delayed(delay_id, None, action).await;
        done.unwrap()
    }

    async fn pass(&self, milliseconds: u64) -> Option<u64> {
        let clock = &self.rooms.parts().clock;
        clock.advance(Duration::from_millis(milliseconds));
        self.rooms.send_due_events().await.unwrap()
    }

    /// What was said in the room, in order.
    async fn said(&self) -> Vec<String> {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let ranges = [Range::prefix(&(self.room.short,))];
        let rows = snapshot.multi_range(&schema::EVENT_BY_PLACE, &ranges).await;
        let numbers: Vec<_> = rows.unwrap()[0]
            .iter()
            .map(|(_, row)| row.value.number)
            .collect();
        let events = self.room.read_events(&snapshot, &numbers).await.unwrap();
        let bodies = events.iter().flatten().map(|event| {
            let content: Value = serde_json::from_slice(event.content()).unwrap();
            content["body"].as_str().map(str::to_owned)
        });
        bodies.flatten().collect()
    }

    async fn row(&self, delay_id: &str) -> DelayedEventRow {
        let row = self
            .rooms
            .find_delayed_event(self.viewers[1].short, delay_id);
        row.await.unwrap().unwrap()
    }

    async fn outcome(&self, delay_id: &str) -> Option<DelayedOutcome> {
        self.row(delay_id).await.finalised.map(|done| done.outcome)
    }
}

#[tokio::test]
async fn an_event_is_sent_when_its_time_has_come_and_once() {
    let world = World::new().await;
    let start = world.rooms.now();
    let late = world.delay("late", 2_000).await;
    world.delay("early", 1_000).await;
    world.delay("between", 1_500).await;
    assert_eq!(world.pass(999).await, Some(start + 1_000));
    assert!(world.said().await.is_empty());
    assert_eq!(world.pass(600).await, Some(start + 2_000));
    assert_eq!(world.said().await, ["early", "between"]);
    // A server that comes up later sends what has become due meanwhile.
    let storage = world.rooms.storage().clone();
    let again = rooms(storage);
    again.parts().clock.advance(Duration::from_millis(10_000));
    assert_eq!(again.send_due_events().await.unwrap(), None);
    assert_eq!(world.said().await, ["early", "between", "late"]);
    assert_eq!(world.pass(10_000).await, None);
    assert_eq!(world.said().await.len(), 3);
    let row = world.row(&late).await;
    let Some(DelayedOutcome::Sent(event_id)) = row.finalised.map(|done| done.outcome) else {
        panic!("it was sent");
    };
    // Its sender is told which it was, and nobody else.
    for (viewer, shown) in [(0, json!(null)), (1, json!(late))] {
        let seen = Seen {
            rooms: &world.rooms,
            room: &world.room,
            viewer: &world.viewers[viewer],
        };
        let event = seen.event(&event_id.as_str().try_into().unwrap()).await;
        let unsigned = &event["unsigned"];
        assert_eq!(unsigned["org.matrix.msc4140.delay_id"], shown, "{event}");
        assert_eq!(unsigned.get("transaction_id"), None);
        assert_eq!(event["origin_server_ts"], start + 10_000);
    }
}

#[tokio::test]
async fn it_can_be_sent_cancelled_and_restarted_until_it_is_done_with() {
    let world = World::new().await;
    use DelayAction::{Cancel, Restart, Send};
    let [sent, gone, again] = [
        world.delay("sent", 1_000).await,
        world.delay("gone", 1_000).await,
        world.delay("again", 1_000).await,
    ];
    assert_eq!(world.act(&sent, Send).await, Delayed::Done);
    assert_eq!(world.act(&gone, Cancel).await, Delayed::Done);
    world.pass(900).await;
    assert_eq!(world.act(&again, Restart).await, Delayed::Done);
    world.pass(900).await;
    assert_eq!(world.said().await, ["sent"]);
    for (delay_id, action, wanted) in [
        (&sent, Send, Delayed::Done),
        (&sent, Cancel, Delayed::Conflict),
        (&sent, Restart, Delayed::Conflict),
        (&gone, Cancel, Delayed::Done),
        (&gone, Send, Delayed::Conflict),
        (&gone, Restart, Delayed::Conflict),
        (&"unknown".to_owned(), Send, Delayed::Unknown),
    ] {
        assert_eq!(world.act(delay_id, action).await, wanted, "{action:?}");
    }
    // Nobody else's, if it matters whose it is.
    let other = Some(world.viewers[0].short);
    let act = world.rooms.act_on_delayed(&again, other, Cancel);
    assert_eq!(act.await.unwrap(), Delayed::Unknown);
    assert_eq!(world.pass(100).await, None);
    assert_eq!(world.said().await, ["sent", "again"]);
    assert_eq!(world.outcome(&gone).await, Some(DelayedOutcome::Cancelled));
    let waiting = world.rooms.delayed_events(world.viewers[1].short).await;
    assert!(waiting.unwrap().is_empty());
}

#[tokio::test]
async fn what_may_not_be_sent_stays_until_its_time_and_then_says_why() {
    let world = World::new().await;
    let delay_id = world.delay("forbidden", 1_000).await;
    let leave = member(&bob(), &bob(), "leave");
    world
        .rooms
        .send(&world.room, Group::one(leave))
        .await
        .unwrap();
    let send = world
        .rooms
        .act_on_delayed(&delay_id, None, DelayAction::Send);
    assert_eq!(send.await.unwrap_err().status(), 403);
    assert_eq!(world.outcome(&delay_id).await, None);
    world.pass(1_000).await;
    let Some(DelayedOutcome::Failed { errcode, .. }) = world.outcome(&delay_id).await else {
        panic!("it failed");
    };
    assert_eq!(errcode, "M_FORBIDDEN");
    assert_eq!(
        world.act(&delay_id, DelayAction::Cancel).await,
        Delayed::Done
    );
    assert!(world.said().await.is_empty());
}

#[tokio::test]
async fn state_that_is_there_already_is_done_with_too() {
    let world = World::new().await;
    let content = json!({ "topic": "same" });
    let set = || state(&alice(), "m.room.topic", "", content.clone());
    let later = |state_key: &str| NewDelayedEvent {
        event_type: "m.room.topic".to_owned(),
        state_key: Some(state_key.to_owned()),
        content: to_raw_value(&content).unwrap(),
        ..world.later(0, "", 1_000)
    };
    let delay_id = world.rooms.delay(later(""), MOST).await.unwrap();
    let sent = world
        .rooms
        .send(&world.room, Group::one(set()))
        .await
        .unwrap();
    assert_eq!(world.pass(1_000).await, None);
    let row = world
        .rooms
        .find_delayed_event(world.viewers[0].short, &delay_id);
    let done = row.await.unwrap().unwrap().finalised.unwrap();
    assert_eq!(done.outcome, DelayedOutcome::Sent(sent[0].to_string()));
}

#[tokio::test]
async fn so_many_wait_and_so_many_are_remembered() {
    let world = World::new().await;
    for _ in 0..MOST {
        world.delay("waits", 5_000).await;
    }
    world.pass(2_000).await;
    let refused = world.rooms.delay(world.later(1, "more", 1_000), MOST).await;
    let refused = refused.unwrap_err().into_response();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "3");
    world
        .rooms
        .delay(world.later(0, "of another", 1_000), MOST)
        .await
        .unwrap();
    world.pass(10_000).await;
    // Done with, they make room; and the oldest of them are forgotten.
    let mut ids = Vec::new();
    for n in 0..130 {
        ids.push(world.delay(&n.to_string(), 1).await);
        world.pass(1).await;
    }
    let user = world.viewers[1].short;
    let find = async |id: &str| world.rooms.find_delayed_event(user, id).await.unwrap();
    assert!(find(&ids[20]).await.is_none());
    assert!(find(&ids[40]).await.is_some());
    world.pass(8 * 24 * 60 * 60 * 1_000).await;
    world.delay("last", 1).await;
    assert!(find(&ids[129]).await.is_none());
}

#[tokio::test]
async fn the_same_transaction_is_left_once() {
    let world = World::new().await;
    let name = world.rooms.storage().hash("test", "transaction");
    let once = Some(OnceKey { day: 1, name });
    let later = |body| NewDelayedEvent {
        once,
        ..world.later(1, body, 1_000)
    };
    let first = world.rooms.delay(later("one"), MOST).await.unwrap();
    let second = world.rooms.delay(later("two"), MOST).await.unwrap();
    assert_eq!(first, second);
    world.pass(1_000).await;
    assert_eq!(world.said().await, ["one"]);
}

#[tokio::test]
async fn who_acts_at_the_same_moment_agrees_on_what_became_of_it() {
    let world = World::new().await;
    let mut sent = 0;
    for n in 0..30 {
        let delay_id = world.delay(&n.to_string(), 1_000).await;
        let (cancelled, sending, _) = tokio::join!(
            world.act(&delay_id, DelayAction::Cancel),
            world.act(&delay_id, DelayAction::Send),
            world.act(&delay_id, DelayAction::Restart),
        );
        let outcome = world.outcome(&delay_id).await;
        let was_sent = matches!(outcome, Some(DelayedOutcome::Sent(_)));
        assert_eq!(was_sent, sending == Delayed::Done, "{outcome:?}");
        assert_eq!(was_sent, cancelled != Delayed::Done, "{outcome:?}");
        sent += usize::from(was_sent);
        assert_eq!(world.said().await.len(), sent);
    }
}
