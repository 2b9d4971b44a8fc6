//! What other servers are told of rooms, and what they are not told.

use federation::{Failure, Patience};
use pdu::Pdu;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomVersionId, ServerName,
    api::{
        Direction,
        federation::{
            authorization::get_event_authorization,
            backfill::get_backfill,
            event::{
                get_event, get_event_by_timestamp, get_missing_events, get_room_state,
                get_room_state_ids,
            },
        },
    },
};
use serde_json::{Value, json, value::RawValue};

use super::far::{NEAR, World};

/// What the server answers to everything that can be asked of an event in a room: how often it refuses, with
/// which status.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    state: u16,
    state_ids: u16,
    event_auth: u16,
    event: u16,
    backfill: usize,
    missing: usize,
    nearest: u16,
}

fn near() -> &'static ServerName {
    NEAR.try_into().unwrap()
}

fn status<T>(answer: &Result<T, Failure>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(Failure::Refused(refusal)) => refusal.status.as_u16(),
        Err(other) => panic!("{other}"),
    }
}

impl World {
    async fn ask_all(&self, room: &OwnedRoomId, event: &EventId) -> Asked {
        let (far, patience) = (&self.far, Patience::QUERY);
        let (room, event) = (|| room.clone(), || event.to_owned());
        let question = get_room_state::v1::Request::new(event(), room());
        let state = status(&far.ask(near(), question, patience).await);
        let question = get_room_state_ids::v1::Request::new(event(), room());
        let state_ids = status(&far.ask(near(), question, patience).await);
        let question = get_event_authorization::v1::Request::new(room(), event());
        let event_auth = status(&far.ask(near(), question, patience).await);
        let question = get_event::v1::Request::new(event());
        let single = status(&far.ask(near(), question, patience).await);
        let question = get_backfill::v1::Request::new(room(), vec![event()], 10_u32.into());
        let backfill = far.ask(near(), question, patience).await;
        let question = get_missing_events::v1::Request::new(room(), Vec::new(), vec![event()]);
        let missing = far.ask(near(), question, patience).await;
        let now = self.clock.now();
        let question = get_event_by_timestamp::v1::Request::new(room(), now, Direction::Backward);
        Asked {
            state,
            state_ids,
            event_auth,
            event: single,
            backfill: backfill.map_or(0, |answer| answer.pdus.len()),
            missing: missing.map_or(0, |answer| answer.events.len()),
            nearest: status(&far.ask(near(), question, patience).await),
        }
    }

    async fn backfilled(&self, from: &EventId, limit: u32) -> Vec<Value> {
        let from = vec![from.to_owned()];
        let question = get_backfill::v1::Request::new(self.room.clone(), from, limit.into());
        let answer = self
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        values(&answer.pdus)
    }
}

fn values(raw: &[Box<RawValue>]) -> Vec<Value> {
    raw.iter()
        .map(|raw| serde_json::from_str(raw.get()).unwrap())
        .collect()
}

#[tokio::test]
async fn who_is_in_the_room_is_told_what_it_is_made_of() {
    for version in [RoomVersionId::V2, RoomVersionId::V6, RoomVersionId::V12] {
        let mut world = World::new(version).await;
        let said = world.say("hello").await;
        let more = world.say("and more").await;
        let asked = world.ask_all(&world.room, &more).await;
        let all = Asked {
            state: 200,
            state_ids: 200,
            event_auth: 200,
            event: 200,
            backfill: 8,
            missing: 7,
            nearest: 200,
        };
        assert_eq!(asked, all);
        let question = get_event::v1::Request::new(said.clone());
        let answer = world
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        let pdu = Pdu::parse(answer.pdu.get().as_bytes(), world.rules).unwrap();
        assert_eq!(pdu.event_id(), said);
        assert!(pdu::check_content_hash(&pdu), "as it was signed");
        let question = get_room_state_ids::v1::Request::new(said.clone(), world.room.clone());
        let answer = world
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        let mut told = answer.pdu_ids.clone();
        let mut expected: Vec<_> = world.state.values().cloned().collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
        let question = get_room_state::v1::Request::new(said.clone(), world.room.clone());
        let whole = world
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        assert_eq!(whole.pdus.len(), answer.pdu_ids.len());
        assert_eq!(whole.auth_chain.len(), answer.auth_chain_ids.len());
        let mut question =
            get_missing_events::v1::Request::new(world.room.clone(), vec![], vec![more]);
        question.limit = 1_u32.into();
        let missing = world
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        assert_eq!(values(&missing.events)[0]["content"]["body"], "hello");
    }
}

#[tokio::test]
async fn nobody_is_told_of_a_room_they_are_not_in() {
    let mut world = World::new(RoomVersionId::V11).await;
    let body = json!({ "preset": "private_chat", "room_version": "11" });
    let other = world.client(http::Method::POST, "/createRoom", &body).await;
    let other: OwnedRoomId = other["room_id"].as_str().unwrap().try_into().unwrap();
    let path = format!("/rooms/{other}/send/m.room.message/secret");
    let secret = json!({ "msgtype": "m.text", "body": "secret" });
    let secret = world.client(http::Method::PUT, &path, &secret).await;
    let secret: OwnedEventId = secret["event_id"].as_str().unwrap().try_into().unwrap();
    let refused = Asked {
        state: 403,
        state_ids: 403,
        event_auth: 403,
        event: 403,
        backfill: 0,
        missing: 0,
        nearest: 403,
    };
    assert_eq!(world.ask_all(&other, &secret).await, refused);
    let nowhere: OwnedRoomId = "!nowhere:near.example".try_into().unwrap();
    let unknown: OwnedEventId = "$Pq2QGqr1KJcvTyCqWSyVa5eEbBKkzSJiUyR2FkR1Ujw"
        .try_into()
        .unwrap();
    let same = world.ask_all(&nowhere, &unknown).await;
    assert_eq!(
        same,
        Asked {
            event: 404,
            ..refused
        },
        "whether a room exists is not told"
    );
    // Through a room that they are in.
    let across = world.ask_all(&world.room, &secret).await;
    let expected = Asked {
        state: 404,
        state_ids: 404,
        event_auth: 404,
        event: 403,
        backfill: 0,
        missing: 0,
        nearest: 200,
    };
    assert_eq!(across, expected);
    // Who has left is told no more.
    let bob = world.bob.clone();
    let leave = world.member(&bob, "leave");
    assert_eq!(world.send(&[&leave]).await, [Ok(())]);
    let last = world.say("without him").await;
    let gone = world.ask_all(&world.room, &last).await;
    assert_eq!(
        gone,
        Asked {
            state: 403,
            ..refused_all()
        }
    );
}

fn refused_all() -> Asked {
    Asked {
        state: 403,
        state_ids: 403,
        event_auth: 403,
        event: 403,
        backfill: 0,
        missing: 0,
        nearest: 403,
    }
}

#[tokio::test]
async fn who_is_denied_by_the_rooms_list_is_told_nothing() {
    let mut world = World::new(RoomVersionId::V11).await;
    let said = world.say("hello").await;
    let acl = json!({ "allow": ["*"], "deny": ["*.EXAMPLE"] });
    world.set("m.room.server_acl", &acl).await;
    assert_eq!(world.ask_all(&world.room, &said).await, refused_all());
}

#[tokio::test]
async fn what_a_server_may_not_see_it_gets_redacted() {
    for visibility in ["shared", "invited", "joined"] {
        let mut world = World::new(RoomVersionId::V11).await;
        let content = json!({ "history_visibility": visibility });
        world.set("m.room.history_visibility", &content).await;
        let (bob, here) = (world.bob.clone(), world.say("while he is here").await);
        let leave = world.member(&bob, "leave");
        assert_eq!(world.send(&[&leave]).await, [Ok(())]);
        world.look().await;
        let away = world.say("while he is away").await;
        let join = world.member(&bob, "join");
        assert_eq!(world.send(&[&join]).await, [Ok(())]);
        world.look().await;
        let again = world.say("when he is back").await;
        let told = world.backfilled(&again, 5).await;
        let body = |id: &OwnedEventId| {
            let mut told = told.iter();
            let event = told.find(|event| is(event, id, world.rules)).unwrap();
            event["content"]["body"].as_str().map(ToOwned::to_owned)
        };
        assert!(body(&here).is_some() && body(&again).is_some());
        let open = visibility == "shared";
        assert_eq!(body(&away).is_some(), open, "{visibility}");
        let asked = world.ask_all(&world.room, &away).await;
        let status = if open { 200 } else { 403 };
        assert_eq!(
            [asked.state, asked.state_ids, asked.event_auth],
            [status; 3]
        );
        assert_eq!(asked.event, 200, "redacted it holds the graph together");
        // By its time it is not found either.
        let time = world.get(&format!("/event/{away}")).await["origin_server_ts"].clone();
        let time = ruma::MilliSecondsSinceUnixEpoch(time.as_u64().unwrap().try_into().unwrap());
        let question =
            get_event_by_timestamp::v1::Request::new(world.room.clone(), time, Direction::Forward);
        let found = world.far.ask(near(), question, Patience::QUERY).await;
        let found = found.ok().map(|found| found.event_id);
        assert!(open || found != Some(away));
    }
}

fn is(event: &Value, id: &EventId, rules: &pdu::RoomRules) -> bool {
    let text = event.to_string();
    Pdu::parse(text.as_bytes(), rules).unwrap().event_id() == id
}
