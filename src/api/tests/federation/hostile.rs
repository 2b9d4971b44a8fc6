//! What hostile servers send: too deep, in circles, from behind what is here, to bring people back.

use std::{collections::BTreeSet, sync::Arc};

use http::Method;
use pdu::{
    Draft, Pdu,
    canonical::{MAX_NESTING, Numbers, Value as Canonical},
};
use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};
use serde_json::{Value, json, value::RawValue};

use super::far::{World, raw};

fn id(event: &Pdu) -> OwnedEventId {
    event.event_id().to_owned()
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

#[tokio::test]
async fn an_event_that_is_too_deep_fails_alone() {
    let mut world = World::new(RoomVersionId::V11).await;
    let (last, bob) = (world.last.clone(), world.bob.clone());
    // The event and its content are levels themselves.
    let deepest = serde_json::from_str::<Value>(&nested(MAX_NESTING - 2)).unwrap();
    let content = json!({ "msgtype": "m.text", "body": "deep", "deep": deepest });
    let draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
    let deep = world.sign(&draft);
    let sound = world.message("sound", &[&last]);
    let text = String::from_utf8(sound.json().to_vec()).unwrap();
    for levels in [MAX_NESTING - 1, 1_000] {
        let wrong = text.replace("\"sound\"", &nested(levels));
        let wrong = RawValue::from_string(wrong).unwrap();
        let answer = world.send_raw(vec![wrong, raw(&sound), raw(&deep)]).await;
        assert_eq!(answer.pdus.len(), 2, "nobody can tell its id");
        assert!(answer.pdus.values().all(Result::is_ok));
        assert!(world.sees(&sound).await && world.sees(&deep).await);
    }
}

impl World {
    /// An event of a version in which servers choose ids, with one of those; its hash is wrong.
    fn with_id(&self, draft: &Draft, event_id: &OwnedEventId) -> Arc<Pdu> {
        let made = draft
            .sign(self.rules, &self.key(), draft.sender.server_name())
            .unwrap();
        let mut event: Value = serde_json::from_slice(made.json()).unwrap();
        event["event_id"] = json!(event_id);
        let text = event.to_string();
        let pruned = Pdu::parse(text.as_bytes(), self.rules).unwrap();
        let pruned = pruned.redacted(self.rules).unwrap();
        let mut signed: Value = serde_json::from_slice(pruned.json()).unwrap();
        signed.as_object_mut().unwrap().remove("signatures");
        signed.as_object_mut().unwrap().remove("unsigned");
        let signed = signed.to_string();
        let signed = Canonical::parse(signed.as_bytes(), Numbers::Any).unwrap();
        let signature = self.key().sign_base64(&signed.to_canonical());
        let (server, key) = (draft.sender.server_name(), self.key());
        event["signatures"][server.as_str()] = json!({ key.key_id().as_str(): signature });
        let event = Pdu::parse(event.to_string().as_bytes(), self.rules).unwrap();
        let event = Arc::new(event);
        self.remember(&event);
        event
    }
}

#[tokio::test]
async fn events_in_a_circle_are_none() {
    let mut world = World::new(RoomVersionId::V2).await;
    let (last, bob) = (world.last.clone(), world.bob.clone());
    let chosen = |name: &str| OwnedEventId::try_from(format!("${name}:far.example")).unwrap();
    let content = json!({ "msgtype": "m.text", "body": "round and round" });
    let mut all = Vec::new();
    for (own, prev) in [("one", "two"), ("two", "one"), ("self", "self")] {
        let prev = chosen(prev);
        let draft = world.draft(&bob, "m.room.message", None, &content, &[&prev, &last]);
        all.push(world.with_id(&draft, &chosen(own)));
    }
    // In what allows them, too.
    for (own, auth) in [("three", "four"), ("four", "three")] {
        let member = (StateEventType::RoomMember, bob.to_string());
        let joined = world.state.insert(member.clone(), chosen(auth)).unwrap();
        let content = json!({ "membership": "join" });
        let key = Some(bob.as_str());
        let draft = world.draft(&bob, "m.room.member", key, &content, &[&last]);
        world.state.insert(member, joined);
        all.push(world.with_id(&draft, &chosen(own)));
    }
    world.send(&all.iter().collect::<Vec<_>>()).await;
    for event in &all {
        assert!(!world.sees(event).await, "{}", event.event_id());
    }
    // With an id of its own choice that leads nowhere it is an event as any other.
    let draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
    let sound = world.with_id(&draft, &chosen("sound"));
    assert_eq!(world.send(&[&sound]).await, [Ok(())]);
    assert!(world.sees(&sound).await);
}

#[tokio::test]
async fn what_is_told_from_behind_what_is_here_changes_nothing() {
    let mut world = World::new(RoomVersionId::V11).await;
    let before = world.timeline().await;
    let last = world.last.clone();
    let lost = world.message("lost", &[&last]);
    let found = world.message("found", &[&id(&lost)]);
    // All that we have made, besides what was asked for.
    let mut told = vec![serde_json::from_slice::<Value>(lost.json()).unwrap()];
    for id in world.state.values() {
        let event = world.server.rooms.serve_event(world.far.server_name(), id);
        told.push(serde_json::from_slice(&event.await.unwrap()).unwrap());
    }
    world.answer_with("/get_missing_events", json!({ "events": told }));
    assert_eq!(world.send(&[&found]).await, [Ok(())]);
    let after = world.timeline().await;
    assert_eq!(
        after[..2],
        [found.event_id().as_str(), lost.event_id().as_str()]
    );
    assert_eq!(after[2..], before[..after.len() - 2]);
    assert_eq!(world.asked("/state"), 0);
    let next = world.say("next").await;
    let event = world
        .server
        .rooms
        .serve_event(world.far.server_name(), &next);
    let event: Value = serde_json::from_slice(&event.await.unwrap()).unwrap();
    assert_eq!(event["prev_events"], json!([found.event_id()]));
}

/// The members of the room, by what they are.
async fn members(world: &World, membership: &str) -> BTreeSet<String> {
    let path = format!("/members?membership={membership}");
    let members = world.get(&path).await;
    let members = members["chunk"].as_array().unwrap().iter();
    members
        .map(|event| event["state_key"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_fork_from_before_brings_nobody_back() {
    for version in [
        RoomVersionId::V2,
        RoomVersionId::V6,
        RoomVersionId::V10,
        RoomVersionId::V11,
        RoomVersionId::V12,
    ] {
        let mut world = World::new(version.clone()).await;
        let carol = world.another_server("other.example").await;
        world.look().await;
        let early = world.last.clone();
        // What Bob's server still has from when both were in the room.
        let bob = world.bob.clone();
        let said = world.message("from before", &[&early]);
        let rejoin = world.draft(
            &bob,
            "m.room.member",
            Some(bob.as_str()),
            &json!({ "membership": "join", "displayname": "Bob again" }),
            &[&early],
        );
        let rejoin = world.sign(&rejoin);
        for user in [&carol, &bob] {
            let path = format!("/rooms/{}/ban", world.room);
            let body = json!({ "user_id": user });
            let banned = world.client(Method::POST, &path, &body).await;
            assert_eq!(banned, json!({}), "{version}");
        }
        let out = BTreeSet::from([carol.to_string(), bob.to_string()]);
        assert_eq!(members(&world, "ban").await, out, "{version}");
        world.send(&[&said, &rejoin]).await;
        assert_eq!(members(&world, "ban").await, out, "{version}");
        // Nor does what we say next, which ties the ends together.
        world.say("who is here?").await;
        assert_eq!(members(&world, "ban").await, out, "{version}");
        assert!(!world.sees(&said).await, "{version}");
    }
}

#[tokio::test]
async fn a_state_that_is_told_brings_nobody_back() {
    let mut world = World::new(RoomVersionId::V11).await;
    let carol = world.another_server("other.example").await;
    world.look().await;
    let carols = (StateEventType::RoomMember, carol.to_string());
    let joined = world.state[&carols].clone();
    let path = format!("/rooms/{}/ban", world.room);
    let body = json!({ "user_id": carol });
    world.client(Method::POST, &path, &body).await;
    world.look().await;
    let banned = world.state.insert(carols.clone(), joined.clone()).unwrap();
    assert_ne!(banned, joined);
    // Bob's server says that she was never banned, where nobody else knows.
    let last = world.last.clone();
    let before = world.message("before", &[&last]);
    world.withhold(&before);
    let first = world.message("first", &[&id(&before)]);
    let second = world.message("second", &[&id(&first)]);
    let told = serde_json::from_slice::<Value>(second.json()).unwrap();
    world.answer_with("/get_missing_events", json!({ "events": [told] }));
    world.tell_state(&first, &[]);
    let third = world.message("third", &[&id(&second)]);
    world.send(&[&third]).await;
    assert_eq!(world.asked("/state_ids"), 1);
    assert!(world.sees(&third).await);
    let out = BTreeSet::from([carol.to_string()]);
    assert_eq!(members(&world, "ban").await, out);
}

#[tokio::test]
async fn a_depth_that_has_come_as_far_as_it_can_stays_there() {
    const DEEPEST: u64 = (1 << 53) - 1;
    for version in [RoomVersionId::V2, RoomVersionId::V11, RoomVersionId::V12] {
        let mut world = World::new(version.clone()).await;
        let (last, bob) = (world.last.clone(), world.bob.clone());
        let content = json!({ "msgtype": "m.text", "body": "from far below" });
        let mut draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
        draft.depth = DEEPEST;
        let deep = world.sign(&draft);
        assert_eq!(world.send(&[&deep]).await, [Ok(())]);
        assert!(world.sees(&deep).await);
        // We go on, and what we say is an event for others as well.
        let mut before = id(&deep);
        for body in ["one", "two"] {
            let said = world.say(body).await;
            let far = world.far.server_name();
            let event = world.server.rooms.serve_event(far, &said).await.unwrap();
            let event = Pdu::parse(&event, world.rules).unwrap();
            assert_eq!(event.event_id(), said, "{version}");
            assert_eq!(event.depth(), DEEPEST, "{version}");
            assert_eq!(event.prev_events(), [before], "{version}");
            before = said;
        }
        let answer = world.message("and back", &[&before]);
        assert_eq!(world.send(&[&answer]).await, [Ok(())]);
        assert!(world.sees(&answer).await, "{version}");
    }
}
