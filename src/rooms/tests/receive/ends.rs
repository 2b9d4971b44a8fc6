//! Which events are the ends of the graph, and what becomes of rejected ones that are sent again.

use ruma::{OwnedEventId, RoomVersionId};
use serde_json::json;
use storage::{Storage, schema};

use super::{World, cases::message, person};
use crate::{Received, Standing};

/// The forward extremities of the room.
async fn ends(world: &World) -> Vec<String> {
    let snapshot = world.rooms.snapshot().await.unwrap();
    let keys = [world.room.short];
    let head = snapshot.multi_get(&schema::HEAD_BY_ROOM, &keys).await;
    let head = head.unwrap().remove(0).unwrap().value;
    let mut ends: Vec<_> = head
        .extremities
        .into_iter()
        .map(|one| one.event_id)
        .collect();
    ends.sort();
    ends
}

fn ids(ids: &[&OwnedEventId]) -> Vec<String> {
    let mut ids: Vec<_> = ids.iter().map(|id| id.to_string()).collect();
    ids.sort();
    ids
}

#[tokio::test]
async fn what_comes_after_its_followers_is_no_end() {
    for as_state in [true, false] {
        let mut world = World::new(Storage::model(), &RoomVersionId::V11).await;
        world.join(1).await;
        let latest = world.latest();
        // What only its server knows of: the room's name, then a message.
        let name = json!({ "name": "renamed" });
        let key = Some(String::new());
        let late = world.make(0, "m.room.name", key, &name, vec![latest], None);
        let late_id = late.event_id().to_owned();
        let message = message(&mut world, "later", late_id.clone());
        let mut state = world.state_ids();
        if as_state {
            // It is here as somebody's state.
            let received = world.take(&late, Standing::Outlier).await;
            assert_eq!(received, Received::Accepted);
            state.push(late_id);
        }
        let given = Standing::Live {
            state_before: Some(state),
        };
        assert_eq!(world.take(&message, given).await, Received::Accepted);
        let before = ends(&world).await;
        assert_eq!(before.len(), 2, "what it follows is not known yet");
        let live = Standing::Live { state_before: None };
        assert_eq!(world.take(&late, live.clone()).await, Received::Accepted);
        let end = message.event_id().to_owned();
        assert_eq!(ends(&world).await, ids(&[&end]));
        assert_eq!(world.take(&late, live).await, Received::Known);
        let timeline = world.timeline().await;
        assert!(timeline.iter().any(|pdu| pdu.event_id() == late.event_id()));
    }
}

#[tokio::test]
async fn ends_are_followed_through_what_was_not_accepted() {
    let mut world = World::new(Storage::model(), &RoomVersionId::V11).await;
    world.join(1).await;
    let first = world.latest();
    let said = message(&mut world, "said", first.clone());
    world.receive(said.clone()).await;
    let leave = json!({ "membership": "ban" });
    let key = Some(person(1).to_string());
    let ban = world.make(0, "m.room.member", key, &leave, vec![first], None);
    world.receive(ban.clone()).await;
    let (said, ban) = (said.event_id().to_owned(), ban.event_id().to_owned());
    assert_eq!(ends(&world).await, ids(&[&said, &ban]));
    // Allowed where it was said, but not any more.
    let soft_failed = message(&mut world, "too late", said.clone());
    let live = Standing::Live { state_before: None };
    let received = world.take(&soft_failed, live.clone()).await;
    assert!(matches!(received, Received::SoftFailed(_)), "{received:?}");
    assert_eq!(world.model.receive(&soft_failed), "soft-failed");
    let twice = message(&mut world, "again", soft_failed.event_id().to_owned());
    world.receive(twice.clone()).await;
    assert_eq!(ends(&world).await, ids(&[&said, &ban]));
    let prev = vec![twice.event_id().to_owned(), ban];
    let content = json!({ "msgtype": "m.text", "body": "after all of it" });
    let after = world.make(0, "m.room.message", None, &content, prev, None);
    world.receive(after.clone()).await;
    assert_eq!(ends(&world).await, ids(&[&after.event_id().to_owned()]));
    world.compare().await;
}

#[tokio::test]
async fn what_was_rejected_is_judged_again_when_it_is_sent_again() {
    for version in [RoomVersionId::V6, RoomVersionId::V12] {
        let mut world = World::new(Storage::model(), &version).await;
        let latest = world.latest();
        let content = json!({ "msgtype": "m.text", "body": "not heard yet" });
        let first = world.make(0, "m.room.message", None, &content, vec![latest], None);
        let join = json!({ "membership": "join" });
        let own = Some(person(1).to_string());
        let prev = vec![first.event_id().to_owned()];
        let join = world.make(1, "m.room.member", own, &join, prev, None);
        // Somebody says that the room was not public then.
        let public = ("m.room.join_rules".into(), String::new());
        let rules = world.model.current[&public];
        let rules = world.model.known(rules).pdu.event_id().to_owned();
        let mut state = world.state_ids();
        state.retain(|id| *id != rules);
        let given = Standing::Live {
            state_before: Some(state),
        };
        let received = world.take(&join, given).await;
        assert!(matches!(received, Received::Rejected(_)), "{received:?}");
        // What rests on it is rejected with it.
        assert_eq!(world.model.receive(&first), "accepted");
        assert_eq!(world.model.receive(&join), "accepted");
        let resting = message(&mut world, "here", join.event_id().to_owned());
        let live = Standing::Live { state_before: None };
        let received = world.take(&resting, live.clone()).await;
        assert!(matches!(received, Received::Rejected(_)), "{received:?}");
        let again = world.take(&resting, live.clone()).await;
        assert_eq!(again, Received::Known, "nothing has changed");
        // Both are sent again.
        assert_eq!(world.model.receive(&resting), "accepted");
        for event in [&first, &join, &resting] {
            assert_eq!(world.take(event, live.clone()).await, Received::Accepted);
            assert_eq!(world.take(event, live.clone()).await, Received::Known);
        }
        world.compare().await;
    }
}
