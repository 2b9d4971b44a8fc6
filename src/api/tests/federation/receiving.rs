//! Events that another server sends: what is taken, what is fetched for it, what is refused.

use std::sync::Arc;

use pdu::{Pdu, SigningKey};
use rooms::{Incoming, Received, Standing};
use ruma::{OwnedEventId, RoomVersionId, events::StateEventType};
use serde_json::{Value, json, value::RawValue};

use super::far::{FAR, World, raw};

const VERSIONS: [RoomVersionId; 4] = [
    RoomVersionId::V2,
    RoomVersionId::V6,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

fn id(event: &Pdu) -> OwnedEventId {
    event.event_id().to_owned()
}

fn ids(events: &[&Arc<Pdu>]) -> Vec<String> {
    events
        .iter()
        .map(|event| event.event_id().to_string())
        .collect()
}

#[tokio::test]
async fn what_is_sent_is_seen_once_however_often_it_is_sent() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let last = world.last.clone();
        let hello = world.message("hello", &[&last]);
        for _ in 0..3 {
            assert_eq!(world.send(&[&hello]).await, [Ok(())]);
        }
        let timeline = world.timeline().await;
        let seen = timeline.iter().filter(|seen| *seen == hello.event_id());
        assert_eq!(seen.count(), 1);
        assert_eq!(timeline[0], hello.event_id().as_str());
        assert_eq!(world.asked("/get_missing_events"), 0);
    }
}

#[tokio::test]
async fn a_transaction_that_is_repeated_is_answered_as_it_was() {
    use federation::Patience;
    use ruma::{ServerName, api::federation::transactions::send_transaction_message};
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let forged = forged(&mut world, &last);
    let other = world.message("another", &[&last]);
    let near = ServerName::parse(super::far::NEAR).unwrap();
    let mut answers = Vec::new();
    for events in [vec![raw(&forged)], vec![raw(&other)]] {
        let origin = FAR.try_into().unwrap();
        let now = world.clock.now();
        let mut question = send_transaction_message::v1::Request::new("same".into(), origin, now);
        question.pdus = events;
        answers.push(
            world
                .far
                .ask(&near, question, Patience::QUERY)
                .await
                .unwrap()
                .pdus,
        );
    }
    assert!(answers[0][forged.event_id()].is_err());
    assert_eq!(answers[0], answers[1], "the second was not looked at");
    assert!(!world.sees(&other).await);
}

#[tokio::test]
async fn what_lies_between_is_fetched_and_stands_before_it() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let last = world.last.clone();
        let one = world.message("one", &[&last]);
        let two = world.message("two", &[&id(&one)]);
        let three = world.message("three", &[&id(&two)]);
        assert_eq!(world.send(&[&three]).await, [Ok(())]);
        let timeline = world.timeline().await;
        assert_eq!(timeline[..3], ids(&[&three, &two, &one]));
        assert_eq!(world.asked("/state"), 0, "nothing else is asked for");
    }
}

#[tokio::test]
async fn behind_a_longer_gap_the_state_is_asked_for_and_history_fills_it() {
    for version in [RoomVersionId::V6, RoomVersionId::V12] {
        let mut world = World::new(version).await;
        let sync = world.client(http::Method::GET, "/sync", &Value::Null).await;
        let since = sync["next_batch"].as_str().unwrap().to_owned();
        let mut prev = world.last.clone();
        let mut all = Vec::new();
        for n in 0..130 {
            let event = world.message(&n.to_string(), &[&prev]);
            prev = id(&event);
            all.push(event);
        }
        for event in &all {
            world.tell_state(event, &[]);
        }
        let latest = Arc::clone(&all[129]);
        assert_eq!(world.send(&[&latest]).await, [Ok(())]);
        // Five times twenty were told, and one more was fetched with the state before it.
        assert_eq!(world.asked("/get_missing_events"), 5);
        assert_eq!(world.asked("/state_ids"), 1);
        let path = format!("/sync?since={since}");
        let sync = world.client(http::Method::GET, &path, &Value::Null).await;
        let piece = &sync["rooms"]["join"][world.room.as_str()]["timeline"];
        assert_eq!(piece["limited"], true);
        // Nobody is asked before somebody reads there.
        assert_eq!(world.asked("/backfill"), 0);
        let mut from = String::new();
        let mut read: Vec<String> = Vec::new();
        loop {
            let page = world.get(&format!("/messages?dir=b&limit=40{from}")).await;
            let events = page["chunk"].as_array().unwrap().iter();
            read.extend(events.map(|event| event["event_id"].as_str().unwrap().to_owned()));
            let Some(end) = page["end"].as_str() else {
                break;
            };
            from = format!("&from={end}");
        }
        let expected: Vec<_> = all
            .iter()
            .rev()
            .map(|one| one.event_id().to_string())
            .collect();
        assert_eq!(read[..130], expected);
        assert_eq!(read.len(), 130 + world.state.len());
        assert_eq!(world.asked("/backfill"), 1);
    }
}

#[tokio::test]
async fn a_gap_right_before_what_is_new_makes_a_sync_limited() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let sync = world.client(http::Method::GET, "/sync", &Value::Null).await;
    let since = sync["next_batch"].as_str().unwrap().to_owned();
    let [first, second] = behind_a_hole(&mut world);
    let before = first.prev_events()[0].clone();
    let told = world.message("told", &[&id(&second)]);
    // Without the state before it, nothing of it is taken.
    assert_eq!(world.send(&[&told]).await, [Ok(())]);
    assert!(!world.sees(&second).await && !world.sees(&told).await);
    world.tell_state(&first, &[]);
    assert_eq!(world.send(&[&told]).await, [Ok(())]);
    assert!(world.sees(&told).await);
    let path = format!("/sync?since={since}");
    let sync = world.client(http::Method::GET, &path, &Value::Null).await;
    let piece = &sync["rooms"]["join"][world.room.as_str()]["timeline"];
    assert_eq!(piece["limited"], true);
    assert_eq!(piece["events"].as_array().unwrap().len(), 3);
    // What is missing is looked for from there, and shown when somebody has it.
    let from = piece["prev_batch"].as_str().unwrap();
    let path = format!("/messages?dir=b&limit=2&from={from}");
    let page = world.get(&path).await;
    assert_eq!(page["chunk"][0]["event_id"], last.as_str());
    world.tell(&before);
    let page = world.get(&path).await;
    assert_eq!(page["chunk"][0]["event_id"], before.as_str());
    assert_eq!(page["chunk"][1]["event_id"], last.as_str());
}

#[tokio::test]
async fn an_event_whose_parent_nobody_has_may_be_sent_again_after_it() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let parent = world.message("parent", &[&last]);
    let child = world.message("child", &[&id(&parent)]);
    world.withhold(&parent);
    assert_eq!(world.send(&[&child]).await, [Ok(())]);
    assert!(!world.sees(&child).await);
    assert_eq!(world.send(&[&parent]).await, [Ok(())]);
    assert_eq!(world.send(&[&child]).await, [Ok(())]);
    assert_eq!(world.timeline().await[..2], ids(&[&child, &parent]));
}

#[tokio::test]
async fn too_much_in_a_transaction_is_refused() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let event = world.message("hello", &[&last]);
    let many = vec![raw(&event); 51];
    let sent = json!({
        "origin": FAR,
        "origin_server_ts": 1,
        "pdus": many,
    });
    let mut asked = http::Request::put("/_matrix/federation/v1/send/many")
        .body(sent.to_string())
        .unwrap();
    let near = ruma::ServerName::parse(super::far::NEAR).unwrap();
    world.far.sign(&mut asked, &near).unwrap();
    let header = asked.headers()["authorization"].clone();
    let mut request =
        crate::tests::request(http::Method::PUT, asked.uri().path(), sent.to_string());
    request.headers_mut().insert("authorization", header);
    let answer = world.server.answer(crate::tests::ALL, request).await;
    assert_eq!(answer.status(), 400);
    assert!(!world.sees(&event).await);
}

#[tokio::test]
async fn who_is_denied_by_the_rooms_list_is_heard_no_more() {
    let mut world = World::new(RoomVersionId::V11).await;
    let acl = json!({ "allow": ["*"], "deny": ["FAR.Example"] });
    world.set("m.room.server_acl", &acl).await;
    let last = world.last.clone();
    let event = world.message("hello", &[&last]);
    let taken = world.send(&[&event]).await;
    assert!(
        taken[0].as_ref().unwrap_err().contains("m.room.server_acl"),
        "{taken:?}"
    );
    assert!(!world.sees(&event).await);
}

#[tokio::test]
async fn of_a_room_that_is_not_here_nothing_is_told() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let bob = world.bob.clone();
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let mut draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
    draft.room_id = Some("!elsewhere:far.example".try_into().unwrap());
    let event = world.sign(&draft);
    assert_eq!(world.send(&[&event]).await, []);
}

/// A message in Bob's name with a key that is not his server's.
fn forged(world: &mut World, prev: &OwnedEventId) -> Arc<Pdu> {
    let bob = world.bob.clone();
    let content = json!({ "msgtype": "m.text", "body": "forged" });
    let draft = world.draft(&bob, "m.room.message", None, &content, &[prev]);
    let name = world.key().key_id().key_name().to_string();
    let key = SigningKey::from_seed(&[77; 32], &name).unwrap();
    Arc::new(draft.sign(world.rules, &key, bob.server_name()).unwrap())
}

#[tokio::test]
async fn forged_events_are_dropped_and_changed_ones_redacted() {
    for version in VERSIONS {
        let mut world = World::new(version).await;
        let last = world.last.clone();
        let forged = forged(&mut world, &last);
        let taken = world.send(&[&forged]).await;
        assert!(taken[0].is_err());
        assert!(!world.sees(&forged).await);
        // Somebody on the way has changed what was said: its signature covers the redacted form only.
        let honest = world.message("honest", &[&last]);
        let changed = String::from_utf8(honest.json().to_vec()).unwrap();
        let changed = changed.replace("honest", "changed");
        let changed = RawValue::from_string(changed).unwrap();
        let answer = world.send_raw(vec![changed]).await;
        assert_eq!(answer.pdus.values().collect::<Vec<_>>(), [&Ok(())]);
        let id = answer.pdus.keys().next().unwrap();
        let seen = world.get(&format!("/event/{id}")).await;
        assert_eq!(seen["content"], json!({}), "{seen}");
    }
}

#[tokio::test]
async fn what_no_honest_server_sends_is_dropped() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let honest = world.message("honest", &[&last]);
    let text = String::from_utf8(honest.json().to_vec()).unwrap();
    for (wrong, named) in [
        (text.replace("\"depth\":", "\"depth\":-"), true),
        (text.replace("\"m.text\"", "1.5"), false),
        (text.replace("honest", &"x".repeat(70_000)), true),
        (text.replace("\"sender\":\"@bob", "\"sender\":\"bob"), true),
        (
            text.replace("\"prev_events\":[", "\"prev_events\":[1,"),
            true,
        ),
        (
            text.replace("\"content\":{", "\"content\":7,\"x\":{"),
            false,
        ),
        (json!({ "room_id": world.room }).to_string(), false),
    ] {
        let answer = world
            .send_raw(vec![RawValue::from_string(wrong).unwrap()])
            .await;
        // Who sent it is told what is wrong wherever it can be named.
        assert_eq!(answer.pdus.len(), usize::from(named), "{:?}", answer.pdus);
        assert!(
            answer.pdus.values().all(Result::is_err),
            "{:?}",
            answer.pdus
        );
    }
    assert_eq!(world.timeline().await[0], last.as_str());
    // `unsigned` is nobody's word, and not kept.
    let said = text.replacen(
        '{',
        "{\"unsigned\":{\"transaction_id\":\"x\",\"age\":7},",
        1,
    );
    world
        .send_raw(vec![RawValue::from_string(said).unwrap()])
        .await;
    let seen = world.get(&format!("/event/{}", honest.event_id())).await;
    assert_eq!(seen["content"]["body"], "honest");
    assert_eq!(seen["unsigned"]["transaction_id"], Value::Null);
}

#[tokio::test]
async fn what_rests_on_a_rejected_event_is_rejected() {
    for told in [true, false] {
        let mut world = World::new(RoomVersionId::V11).await;
        let (last, bob) = (world.last.clone(), world.bob.clone());
        let users = json!({ "users": {} });
        let levels = world.draft(&bob, "m.room.power_levels", Some(""), &users, &[&last]);
        let rejected = world.sign(&levels);
        assert_eq!(world.send(&[&rejected]).await, [Ok(())]);
        let own = (StateEventType::RoomPowerLevels, String::new());
        let true_levels = world.state.insert(own.clone(), id(&rejected)).unwrap();
        // It is allowed by what it follows, but names the rejected event.
        let outlier = world.member(&bob, "join");
        world.state.insert(own, true_levels);
        let member = (StateEventType::RoomMember, bob.to_string());
        let true_member = world.state.insert(member.clone(), id(&outlier)).unwrap();
        let resting = world.message("resting", &[&last]);
        world.state.insert(member, true_member);
        let sound = world.message("sound", &[&id(&resting)]);
        if !told {
            world.answer_with("/event_auth", json!({ "auth_chain": [] }));
        }
        assert_eq!(world.send(&[&resting, &sound]).await, [Ok(()), Ok(())]);
        for hidden in [&rejected, &outlier, &resting] {
            assert!(!world.sees(hidden).await);
        }
        assert!(world.sees(&sound).await);
    }
}

#[tokio::test]
async fn events_of_another_room_count_for_nothing() {
    for version in [RoomVersionId::V6, RoomVersionId::V11] {
        let mut world = World::new(version).await;
        let last = world.last.clone();
        let body = json!({ "preset": "public_chat", "room_version": world.rules.version() });
        let other = world.client(http::Method::POST, "/createRoom", &body).await;
        let path = format!("/rooms/{}/state", other["room_id"].as_str().unwrap());
        let state = world.client(http::Method::GET, &path, &Value::Null).await;
        let find = |kind: &str| {
            let mut events = state.as_array().unwrap().iter();
            let event = events.find(|event| event["type"] == kind).unwrap();
            OwnedEventId::try_from(event["event_id"].as_str().unwrap()).unwrap()
        };
        let bob = world.bob.clone();
        let content = json!({ "msgtype": "m.text", "body": "across" });
        // As what it follows.
        let theirs = find("m.room.power_levels");
        let across = world.message("across", &[&theirs]);
        // As what allows it.
        let mut draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
        let levels = world.state[&(StateEventType::RoomPowerLevels, String::new())].clone();
        draft.auth_events.retain(|id| *id != levels);
        draft.auth_events.push(theirs);
        let allowed = world.sign(&draft);
        // A create event of another room.
        let mut draft = world.draft(&bob, "m.room.message", None, &content, &[&last]);
        let create = world.state[&(StateEventType::RoomCreate, String::new())].clone();
        draft.auth_events.retain(|id| *id != create);
        draft.auth_events.push(find("m.room.create"));
        let created = world.sign(&draft);
        world.send(&[&across, &allowed, &created]).await;
        for hidden in [&across, &allowed, &created] {
            assert!(!world.sees(hidden).await);
        }
        assert_eq!(world.timeline().await[0], last.as_str());
    }
}

/// What follows an event of which nobody has what came before: the state there is told by its server.
fn behind_a_hole(world: &mut World) -> [Arc<Pdu>; 2] {
    let last = world.last.clone();
    let before = world.message("before", &[&last]);
    world.withhold(&before);
    let first = world.message("first", &[&id(&before)]);
    let second = world.message("second", &[&id(&first)]);
    let told = serde_json::from_slice::<Value>(second.json()).unwrap();
    world.answer_with("/get_missing_events", json!({ "events": [told] }));
    [first, second]
}

#[tokio::test]
async fn a_lie_about_the_state_gives_nobody_power() {
    for forged in [true, false] {
        let mut world = World::new(RoomVersionId::V11).await;
        let (last, bob) = (world.last.clone(), world.bob.clone());
        let [first, second] = behind_a_hole(&mut world);
        let own = (StateEventType::RoomPowerLevels, String::new());
        let true_levels = if forged {
            let users = json!({ "users": { bob.as_str(): 100 } });
            let draft = world.draft(&bob, "m.room.power_levels", Some(""), &users, &[&last]);
            let levels = world.sign(&draft);
            world.tell_state(&first, &[&levels]);
            world.state.insert(own.clone(), id(&levels)).unwrap()
        } else {
            // Without any, everybody may set state.
            let true_levels = world.state.remove(&own).unwrap();
            world.tell_state(&first, &[]);
            true_levels
        };
        let name = json!({ "name": "mine" });
        let draft = world.draft(&bob, "m.room.name", Some(""), &name, &[&id(&second)]);
        let name = world.sign(&draft);
        world.state.insert(own, true_levels);
        world.send(&[&name]).await;
        assert_eq!(world.asked("/state_ids"), 1);
        assert!(!world.sees(&name).await);
        assert!(world.sees(&second).await);
        let levels = world.get("/state/m.room.power_levels/").await;
        assert_eq!(levels["users"][bob.as_str()], Value::Null, "{levels}");
        assert_eq!(world.get("/state/m.room.name/").await["name"], Value::Null);
    }
}

#[tokio::test]
async fn somebody_else_is_asked_where_one_does_not_answer() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    // Carol of another server is in the room, and her server has what Bob's has not.
    let carol = world.another_server("other.example").await;
    let lost = world.message("lost", &[&last]);
    let found = world.message("found", &[&id(&lost)]);
    world.refuse("/get_missing_events");
    assert_eq!(world.send(&[&found]).await, [Ok(())]);
    assert!(world.sees(&found).await && world.sees(&lost).await);
    assert_eq!(carol.server_name(), "other.example");
}

#[tokio::test]
async fn what_waited_when_the_server_stopped_is_gone_on_with() {
    use storage::{Batch, Position, schema};
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let lost = world.message("lost", &[&last]);
    let found = world.message("found", &[&id(&lost)]);
    let room = world.server.rooms.room(&world.room).await.unwrap();
    let row = schema::WaitingPduRow {
        origin: FAR.to_owned(),
        json: raw(&found).get().to_owned(),
    };
    let mut batch = Batch::new();
    let key = (room.short, Position::pending(0));
    batch.put(&schema::WAITING_PDU_BY_ROOM, &key, &row);
    world.server.storage.commit(batch).await.unwrap();
    assert!(!world.sees(&found).await);
    world.start_again().await;
    world.server.rooms.nothing_waits().await;
    assert!(world.sees(&found).await && world.sees(&lost).await);
}

#[tokio::test]
async fn who_may_redact_does_so_before_the_event_is_here() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let secret = world.message("secret", &[&last]);
    let path = format!("/rooms/{}/redact/{}/1", world.room, secret.event_id());
    let redacted = world.client(http::Method::PUT, &path, &json!({})).await;
    assert!(redacted["event_id"].is_string(), "{redacted}");
    assert_eq!(world.send(&[&secret]).await, [Ok(())]);
    let seen = world.get(&format!("/event/{}", secret.event_id())).await;
    assert_eq!(seen["content"], json!({}), "{seen}");
}

#[tokio::test]
async fn a_room_for_which_nobody_answers_is_in_nobodys_way() {
    let mut world = World::new(RoomVersionId::V11).await;
    let last = world.last.clone();
    let lost = world.message("lost", &[&last]);
    world.withhold(&lost);
    let mut waiting = Vec::new();
    for n in 0..30 {
        waiting.push(world.message(&n.to_string(), &[&id(&lost)]));
    }
    let sound = world.message("sound", &[&last]);
    let mut all: Vec<_> = waiting.iter().collect();
    all.push(&sound);
    let taken = world.send(&all).await;
    assert!(taken.iter().all(Result::is_ok));
    assert!(world.sees(&sound).await);
}

#[tokio::test]
async fn an_event_of_a_time_is_found_in_a_hole_and_read_around() {
    for as_outlier in [false, true] {
        is_found_in_a_hole(as_outlier).await;
    }
}

/// Whether the event is here as an outlier already: of what a join follows the state after it is needed.
async fn is_found_in_a_hole(as_outlier: bool) {
    let mut world = World::new(RoomVersionId::V11).await;
    let mut prev = world.last.clone();
    let mut all = Vec::new();
    for n in 0..130 {
        let event = world.message(&n.to_string(), &[&prev]);
        world.tell_state(&event, &[]);
        prev = id(&event);
        all.push(event);
    }
    let latest = Arc::clone(&all[129]);
    assert_eq!(world.send(&[&latest]).await, [Ok(())]);
    let wanted = Arc::clone(&all[5]);
    if as_outlier {
        let rooms = &world.server.rooms;
        let room = rooms.find_room(&world.room).await.unwrap().unwrap();
        let incoming = Incoming {
            pdu: Arc::clone(&wanted),
            standing: Standing::Outlier,
        };
        let kept = rooms.receive(&room, incoming).await.unwrap();
        assert_eq!(kept, Received::Accepted);
    }
    let time = u64::from(wanted.origin_server_ts().get());
    let told = json!({ "event_id": wanted.event_id(), "origin_server_ts": time });
    world.answer_with("/timestamp_to_event", told);
    let path = format!(
        "/_matrix/client/v1/rooms/{}/timestamp_to_event?dir=b&ts={time}",
        world.room
    );
    let found = world
        .client_at(http::Method::GET, &path, &Value::Null)
        .await;
    assert_eq!(found["event_id"], wanted.event_id().as_str(), "{found}");
    assert_eq!(world.asked("/backfill"), 0);
    let around = world
        .get(&format!("/context/{}?limit=0", wanted.event_id()))
        .await;
    let start = around["start"].as_str().unwrap();
    let page = world
        .get(&format!("/messages?dir=b&limit=5&from={start}"))
        .await;
    let ids = page["chunk"].as_array().unwrap().iter();
    let ids: Vec<_> = ids
        .map(|event| event["event_id"].as_str().unwrap())
        .collect();
    let expected: Vec<_> = all[..5]
        .iter()
        .rev()
        .map(|event| event.event_id().as_str())
        .collect();
    assert_eq!(ids, expected);
    // The hole on the other side is filled from its end, and meets what was found.
    let mut from = String::new();
    let mut read: Vec<String> = Vec::new();
    loop {
        let page = world.get(&format!("/messages?dir=b&limit=50{from}")).await;
        let events = page["chunk"].as_array().unwrap().iter();
        read.extend(events.map(|event| event["event_id"].as_str().unwrap().to_owned()));
        let Some(end) = page["end"].as_str() else {
            break;
        };
        from = format!("&from={end}");
    }
    let expected: Vec<_> = all
        .iter()
        .rev()
        .map(|one| one.event_id().to_string())
        .collect();
    assert_eq!(read[..130], expected);
}
