//! Single things that may happen to events of other servers.

use std::{sync::Arc, time::Duration};

use pdu::Pdu;
use ruma::{OwnedEventId, RoomVersionId, events::receipt::ReceiptThread};
use serde_json::json;
use storage::{
    Faults, Range, Storage,
    schema::{self, Membership, Place},
};

use super::{VERSIONS, World, person};
use crate::{
    Group, NewReceipt, REDACT_EVENTS, ReadUpTo, Received, Standing,
    tests::{alice, state, text},
    unread::tests as reader,
};

/// A message of somebody of afar.
pub(super) fn message(world: &mut World, body: &str, prev: OwnedEventId) -> Arc<Pdu> {
    let content = json!({ "msgtype": "m.text", "body": body });
    world.make(1, "m.room.message", None, &content, vec![prev], None)
}

#[tokio::test]
async fn an_event_without_a_fork_costs_few_round_trips() {
    let storage = Storage::model();
    let mut world = World::new(storage.clone(), &RoomVersionId::V11).await;
    world.join(1).await;
    let latest = world.latest();
    let event = message(&mut world, "hello", latest);
    let live = Standing::Live { state_before: None };
    let before = storage.cost();
    assert_eq!(world.take(&event, live.clone()).await, Received::Accepted);
    let message_cost = storage.cost() - before;
    assert!(message_cost.round_trips <= 3, "{message_cost:?}");
    assert_eq!(message_cost.commits, 1);

    let storage = Storage::model();
    let mut world = World::new(storage.clone(), &RoomVersionId::V11).await;
    world.join(1).await;
    let latest = world.latest();
    let leave = json!({ "membership": "leave" });
    let name = Some(person(1).to_string());
    let event = world.make(1, "m.room.member", name, &leave, vec![latest], None);
    let before = storage.cost();
    assert_eq!(world.take(&event, live).await, Received::Accepted);
    let state_cost = storage.cost() - before;
    // The tree's only node comes on top.
    assert!(state_cost.round_trips <= 4, "{state_cost:?}");
}

#[tokio::test]
async fn judging_begins_again_when_a_view_gets_too_old() {
    for seed in 1..=10 {
        let storage = Storage::model();
        let mut world = World::new(storage.clone(), &RoomVersionId::V11).await;
        world.join(1).await;
        let prev = vec![world.latest()];
        let topic = |n: u8| json!({ "topic": n.to_string() });
        let key = || Some(String::new());
        let fork: Vec<_> = (0..4)
            .map(|n| world.make(0, "m.room.topic", key(), &topic(n), prev.clone(), None))
            .collect();
        for event in &fork {
            world.model.receive(event);
            storage.misbehave(Faults {
                seed,
                read_takes: Duration::from_millis(300),
                stalled_reads: 150,
                ..Faults::NONE
            });
            let live = Standing::Live { state_before: None };
            assert_eq!(world.take(event, live).await, Received::Accepted);
            let sent = Group::one(text(&alice(), "our own"));
            let sent = world.rooms.send(&world.room, sent).await.unwrap();
            storage.misbehave(Faults::NONE);
            let timeline = world.timeline().await;
            let own = timeline.iter().find(|pdu| pdu.event_id() == sent[0]);
            assert_eq!(world.model.receive(own.unwrap()), "accepted");
        }
        world.compare().await;
    }
}

#[tokio::test]
async fn a_redaction_may_come_before_its_target() {
    for version in VERSIONS {
        let mut world = World::new(Storage::model(), &version).await;
        world.join(1).await;
        let before = world.latest();
        let target = message(&mut world, "oops", before.clone());
        let id = target.event_id().to_owned();
        let content = json!({ "redacts": id });
        let redaction = world.make(
            1,
            "m.room.redaction",
            None,
            &content,
            vec![before],
            Some(id),
        );
        let live = Standing::Live { state_before: None };
        assert_eq!(
            world.take(&redaction, live.clone()).await,
            Received::Accepted
        );
        assert_eq!(world.take(&target, live).await, Received::Accepted);
        let timeline = world.timeline().await;
        let stored = timeline
            .iter()
            .find(|pdu| pdu.event_id() == target.event_id());
        assert_eq!(stored.unwrap().content_bytes(), b"{}", "{version}");
    }
}

#[tokio::test]
async fn what_comes_late_of_somebody_removed_with_all_they_said_is_pruned() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V11).await;
    world.join(1).await;
    let latest = world.latest();
    let (late, found) = (
        message(&mut world, "late", latest.clone()),
        message(&mut world, "found", latest),
    );
    let content = json!({ "membership": "ban", REDACT_EVENTS: true });
    let ban = state(&alice(), "m.room.member", person(1).as_str(), content);
    world
        .rooms
        .send(&world.room, Group::one(ban))
        .await
        .unwrap();
    let live = Standing::Live { state_before: None };
    let taken = world.take(&late, live).await;
    assert!(matches!(taken, Received::SoftFailed(_)), "{taken:?}");
    let historic = Standing::Historic {
        place: Place { slot: 5, step: -1 },
        fills: None,
        state_before: None,
    };
    assert_eq!(world.take(&found, historic).await, Received::Accepted);
    let snapshot = world.rooms.snapshot().await.unwrap();
    for event in [late, found] {
        let name = world.rooms.storage().event_hash(event.event_id());
        let found = snapshot.multi_get(&schema::NUMBER_BY_EVENT, &[name]).await;
        let number = found.unwrap()[0].as_ref().unwrap().value.number.unwrap();
        let stored = world
            .room
            .stored_events(&snapshot, &[number])
            .await
            .unwrap();
        assert_eq!(stored[0].pdu.content_bytes(), b"{}");
        assert!(stored[0].header.redacted_because.is_some());
    }
}

#[tokio::test]
async fn what_was_only_somebodys_state_may_become_an_event() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V11).await;
    world.join(1).await;
    let latest = world.latest();
    let event = message(&mut world, "first an outlier", latest);
    assert_eq!(
        world.take(&event, Standing::Outlier).await,
        Received::Accepted
    );
    assert_eq!(world.take(&event, Standing::Outlier).await, Received::Known);
    world.compare().await;
    world.receive(event).await;
    world.compare().await;
}

#[tokio::test]
async fn holes_in_the_timeline_are_known_and_filled() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V12).await;
    let bob = reader::person(&world.rooms, "bob").await;
    let join = json!({ "membership": "join" });
    let join = state(&bob.user_id, "m.room.member", bob.user_id.as_str(), join);
    world
        .rooms
        .send(&world.room, Group::one(join))
        .await
        .unwrap();
    world.join(1).await;
    let latest = world.latest();
    let one = message(&mut world, "one", latest);
    let two = message(&mut world, "two", one.event_id().to_owned());
    let three = message(&mut world, "three", two.event_id().to_owned());
    let missing = world
        .take(&three, Standing::Live { state_before: None })
        .await;
    let prev = vec![two.event_id().to_owned()];
    assert_eq!(
        missing,
        Received::Missing {
            auth: Vec::new(),
            prev
        }
    );

    let state = world.state_ids();
    let given = Standing::Live {
        state_before: Some(state.clone()),
    };
    assert_eq!(world.take(&three, given).await, Received::Accepted);
    let gaps = async |world: &World| {
        let snapshot = world.rooms.snapshot().await.unwrap();
        let range = Range::prefix(&(world.room.short,));
        let rows = snapshot
            .multi_range(&schema::GAP_BY_PLACE, &[range])
            .await
            .unwrap()
            .remove(0);
        rows.into_iter()
            .map(|((_, place), row)| (place, row.value.missing))
            .collect::<Vec<_>>()
    };
    let hole = gaps(&world).await;
    assert_eq!(hole.len(), 1);
    assert_eq!(hole[0].1, [two.event_id().to_string()]);
    let mut fills = hole[0].0;
    for (event, still_missing) in [(&two, vec![one.event_id().to_string()]), (&one, Vec::new())] {
        let place = Place {
            step: fills.step - 1,
            ..fills
        };
        let historic = Standing::Historic {
            place,
            fills: Some(fills),
            state_before: Some(state.clone()),
        };
        fills = place;
        assert_eq!(world.take(event, historic).await, Received::Accepted);
        let left = gaps(&world).await;
        let left: Vec<_> = left.into_iter().flat_map(|(_, missing)| missing).collect();
        assert_eq!(left, still_missing);
    }
    let timeline = world.timeline().await;
    let ids: Vec<_> = timeline.iter().rev().map(|pdu| pdu.event_id()).collect();
    assert_eq!(ids[..3], [three.event_id(), two.event_id(), one.event_id()]);

    // History does not count, and who has read some of it has not read what came after.
    let unread = async |event: &Pdu| {
        let receipt = NewReceipt {
            kind: schema::ReceiptKind::Read,
            event_id: event.event_id().to_owned(),
            thread: ReceiptThread::Unthreaded,
        };
        let wish = ReadUpTo {
            receipts: vec![receipt],
            fully_read: None,
        };
        let (rooms, room) = (&world.rooms, &world.room);
        rooms.read_up_to(room, &bob, &wish).await.unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let unread = rooms.unread(&snapshot, &bob, &[Arc::clone(room)]).await;
        unread.unwrap()[0].whole().notifications
    };
    for (event, expected) in [(&one, 1), (&two, 1), (&three, 0)] {
        assert_eq!(unread(event).await, expected);
    }
}

#[tokio::test]
async fn a_change_too_large_for_one_commit_makes_a_new_generation_of_tables() {
    for faults in [
        Faults::default(),
        Faults {
            seed: 3,
            conflicts: 100,
            ..Faults::default()
        },
    ] {
        let mut world = World::new(Storage::model_with(faults), &RoomVersionId::V11).await;
        world.join(1).await;
        let (latest, mut ids) = (world.latest(), world.state_ids());
        // What a server tells whose part of the room we were cut off from: many people came there.
        for n in 10..50 {
            let name = person(n).to_string();
            let content = json!({ "membership": "join" });
            let prev = vec![latest.clone()];
            let join = world.make(n, "m.room.member", Some(name), &content, prev, None);
            assert_eq!(
                world.take(&join, Standing::Outlier).await,
                Received::Accepted
            );
            ids.push(join.event_id().to_owned());
        }
        let unknown = message(&mut world, "not for us", latest);
        let event = message(&mut world, "after the cut", unknown.event_id().to_owned());
        let given = Standing::Live {
            state_before: Some(ids),
        };
        assert_eq!(world.take(&event, given).await, Received::Accepted);

        let snapshot = world.rooms.snapshot().await.unwrap();
        let head = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[world.room.short])
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .value;
        assert_eq!((head.generation, head.joined), (1, 42));
        world.check_tables().await;
        world
            .rooms
            .send(&world.room, Group::one(text(&alice(), "welcome")))
            .await
            .unwrap();
        let topic = state(&alice(), "m.room.topic", "", json!({ "topic": "many" }));
        world
            .rooms
            .send(&world.room, Group::one(topic))
            .await
            .unwrap();
        while world.jobs().await > 0 {
            world.rooms.work_off_due_jobs().await.unwrap();
        }
        world.check_tables().await;
        let snapshot = world.rooms.snapshot().await.unwrap();
        let range = Range::prefix(&(world.room.short, 0));
        let old = snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &[range])
            .await
            .unwrap();
        assert!(old[0].is_empty(), "the old generation is gone");
    }
}

#[tokio::test]
async fn many_ends_of_the_graph_are_tied_together_unseen() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V11).await;
    let bob = reader::person(&world.rooms, "bob").await;
    let join = json!({ "membership": "join" });
    let join = state(&bob.user_id, "m.room.member", bob.user_id.as_str(), join);
    let (rooms, room) = (world.rooms.clone(), Arc::clone(&world.room));
    world.join(1).await;
    let latest = world.latest();
    rooms.send(&room, Group::one(join)).await.unwrap();
    let ends = async |world: &World| {
        let snapshot = world.rooms.snapshot().await.unwrap();
        let (head, _) = world
            .room
            .current_numbers(&world.rooms, &snapshot, &[])
            .await
            .unwrap();
        head.extremities.len()
    };
    let live = Standing::Live { state_before: None };
    for n in 0..9 {
        let event = message(&mut world, &n.to_string(), latest.clone());
        assert_eq!(world.take(&event, live.clone()).await, Received::Accepted);
    }
    assert_eq!((ends(&world).await, world.jobs().await), (10, 0));
    let event = message(&mut world, "one too many", latest);
    assert_eq!(world.take(&event, live).await, Received::Accepted);
    assert_eq!((ends(&world).await, world.jobs().await), (11, 1));
    world.rooms.work_off_due_jobs().await.unwrap();
    assert_eq!((ends(&world).await, world.jobs().await), (1, 0));
    let timeline = world.timeline().await;
    let tying = timeline.last().unwrap();
    assert_eq!(tying.event_type().to_string(), "org.matrix.dummy_event");
    assert_eq!(tying.prev_events().len(), 11);
    // Nobody is shown it.
    let snapshot = rooms.snapshot().await.unwrap();
    let look = room.look(&snapshot, &bob).await.unwrap();
    let mut events = Vec::new();
    for event in [event.event_id(), tying.event_id()] {
        events.extend(room.find_event(&rooms, &snapshot, event).await.unwrap());
    }
    let seen = room.visible(&snapshot, &bob, &look, &events).await;
    assert_eq!(seen.unwrap(), [true, false]);
}

impl World {
    /// How many jobs are left.
    async fn jobs(&self) -> usize {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let jobs = snapshot
            .multi_range(&schema::JOB_BY_ID, &[Range::prefix(&())])
            .await
            .unwrap();
        jobs[0].len()
    }

    /// The flat tables hold what the tree holds.
    async fn check_tables(&self) {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let head = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[self.room.short])
            .await
            .unwrap()
            .remove(0)
            .unwrap()
            .value;
        let mut tree = self.room.whole_state(&snapshot, head.root).await.unwrap();
        tree.sort_unstable();
        let prefix = (self.room.short, head.generation);
        let flat = snapshot
            .multi_range(&schema::STATE_BY_ROOM, &[Range::prefix(&prefix)])
            .await
            .unwrap()
            .remove(0);
        let mut flat: Vec<_> = flat.into_iter().map(|(_, row)| row.value).collect();
        flat.sort_unstable();
        assert_eq!(flat, tree);
        let joined = Range::prefix(&(self.room.short, head.generation, Membership::Join as u8));
        let members = snapshot
            .multi_range(&schema::MEMBER_BY_ROOM, &[joined])
            .await
            .unwrap()
            .remove(0);
        assert_eq!(members.len() as u64, head.joined);
        let servers = snapshot
            .multi_range(&schema::SERVER_BY_ROOM, &[Range::prefix(&prefix)])
            .await
            .unwrap()
            .remove(0);
        let of_servers: u64 = servers.iter().map(|(_, row)| row.value.joined).sum();
        assert_eq!(of_servers, head.joined);
        let ever = snapshot
            .multi_range(&schema::MEMBER_BY_SERVER, &[Range::prefix(&prefix)])
            .await
            .unwrap()
            .remove(0);
        assert!(ever.len() as u64 >= head.joined);
    }
}
