//! Rooms with a policy server: what it is asked, and what becomes of events that it does not sign.

mod serving;

use std::{sync::Arc, time::Duration};

use federation::Patience;
use http::Method;
use pdu::{Pdu, PolicyServer};
use ruma::{
    OwnedEventId, OwnedUserId, RoomVersionId, ServerName, api::federation::event::get_event,
};
use serde_json::{Value, json};
use storage::{Position, Range, schema};

use super::far::{FAR, NEAR, Policy, World, policy_key, policy_of, raw};

const VERSIONS: [RoomVersionId; 4] = [
    RoomVersionId::V2,
    RoomVersionId::V6,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// The seed of the policy server's key.
const SEED: u8 = 7;

/// A room of ours of which the played server is the policy server.
async fn guarded(version: RoomVersionId) -> World {
    let mut world = World::new(version).await;
    world.policy(Policy::Signs(SEED));
    world.set("m.room.policy", &policy_of(SEED)).await;
    assert_eq!(world.asked_to_sign(), 0, "what names it is not for it");
    world
}

fn spam() -> Policy {
    let spam = json!({ "errcode": "M_FORBIDDEN", "error": "This looks like spam" });
    Policy::Says(400, spam)
}

impl World {
    /// An event as our server tells it others.
    async fn told_by_us(&self, event_id: &OwnedEventId) -> Pdu {
        let near = ServerName::parse(NEAR).unwrap();
        let question = get_event::v1::Request::new(event_id.clone());
        let answer = self.far.ask(&near, question, Patience::QUERY).await;
        Pdu::parse(answer.unwrap().pdu.get().as_bytes(), self.rules).unwrap()
    }

    /// Whether our server has the policy server's signature of an event.
    async fn is_signed(&self, event_id: &OwnedEventId) -> bool {
        let policy = PolicyServer::of(policy_of(SEED).to_string().as_bytes()).unwrap();
        policy.has_signed(&self.told_by_us(event_id).await, self.rules)
    }

    /// What Alice is answered who says something in a transaction.
    async fn try_to_say(&self, body: &str, transaction: &str) -> Value {
        let path = format!("/rooms/{}/send/m.room.message/{transaction}", self.room);
        let body = json!({ "msgtype": "m.text", "body": body });
        self.client(Method::PUT, &path, &body).await
    }

    /// An event of the played server's people with the signature of a policy server.
    fn signed_by_policy(&self, event: &Pdu, seed: u8) -> Arc<Pdu> {
        let signature = event.policy_signature(self.rules, &policy_key(seed));
        let via = ServerName::parse(FAR).unwrap();
        let signed = event.with_policy_signature(self.rules, &via, &signature);
        Arc::new(signed.unwrap())
    }
}

#[tokio::test]
async fn what_is_sent_is_signed_before_anybody_sees_it() {
    for version in VERSIONS {
        let mut world = guarded(version).await;
        let said = world.say("hello").await;
        assert_eq!(world.asked_to_sign(), 1);
        assert!(world.is_signed(&said).await);
        // State, people, redactions: all the same.
        world
            .set("m.room.name", &json!({ "name": "Guarded" }))
            .await;
        let name = world.last.clone();
        assert!(world.is_signed(&name).await);
        let profile = json!({ "membership": "join", "displayname": "Al" });
        let path = format!("/rooms/{}/state/m.room.member/@alice:{NEAR}", world.room);
        let renamed = world.client(Method::PUT, &path, &profile).await;
        let renamed = renamed["event_id"].as_str().unwrap().try_into().unwrap();
        assert!(world.is_signed(&renamed).await);
        let path = format!("/rooms/{}/redact/{said}/r1", world.room);
        let redacted = world.client(Method::PUT, &path, &json!({})).await;
        let redacted = redacted["event_id"].as_str().unwrap().try_into().unwrap();
        assert!(world.is_signed(&redacted).await);
        assert_eq!(world.asked_to_sign(), 4);
        // What is there already becomes no event.
        world
            .set("m.room.name", &json!({ "name": "Guarded" }))
            .await;
        assert_eq!(world.asked_to_sign(), 4);
        // And a room may always name another one, or none.
        world.set("m.room.policy", &json!({})).await;
        world.say("free").await;
        assert_eq!(world.asked_to_sign(), 4);
    }
}

#[tokio::test]
async fn a_refusal_is_passed_on_and_nothing_is_sent() {
    let mut world = guarded(RoomVersionId::V12).await;
    world.policy(spam());
    let before = world.timeline().await;
    let refused = world.try_to_say("buy", "same").await;
    assert_eq!(
        refused,
        json!({ "errcode": "M_FORBIDDEN", "error": "This looks like spam" })
    );
    let path = format!("/rooms/{}/state/m.room.topic/", world.room);
    let refused = world
        .client(Method::PUT, &path, &json!({ "topic": "buy" }))
        .await;
    assert_eq!(refused["error"], "This looks like spam");
    assert_eq!(world.timeline().await, before);
    // Whoever tries it again later has it sent then.
    world.policy(Policy::Signs(SEED));
    let sent = world.try_to_say("buy", "same").await;
    assert_eq!(world.timeline().await[0], sent["event_id"]);
    // A wrong signature is none.
    world.policy(Policy::Signs(SEED + 1));
    let refused = world.try_to_say("hello", "other").await;
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    world.policy(Policy::Says(200, json!({})));
    let refused = world.try_to_say("hello", "another").await;
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    world.policy(Policy::None);
    let refused = world.try_to_say("hello", "one-more").await;
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    assert_eq!(world.timeline().await[0], sent["event_id"]);
    world.look().await;
}

#[tokio::test]
async fn while_it_is_away_nothing_is_sent_and_then_all_goes_on() {
    let mut world = guarded(RoomVersionId::V11).await;
    let far = ServerName::parse(FAR).unwrap();
    world.network.take_away(&far);
    let refused = world.try_to_say("hello", "a").await;
    assert_eq!(refused["errcode"], "M_UNKNOWN");
    let asked = world.asked_to_sign();
    // Who has just waited for it in vain tells the others.
    world.try_to_say("hello", "b").await;
    assert_eq!(world.asked_to_sign(), asked);
    world.network.bring_back(&far);
    world.clock.advance(Duration::from_secs(16));
    let sent = world.try_to_say("hello", "a").await;
    assert!(sent["event_id"].is_string(), "{sent}");
    world.network.take_away(&far);
    world.set("m.room.policy", &json!({})).await;
    world.say("free").await;
}

#[tokio::test]
async fn a_transaction_is_sent_once_however_often_it_is_asked_for() {
    let world = guarded(RoomVersionId::V12).await;
    let (one, two) = tokio::join!(
        world.try_to_say("hello", "same"),
        world.try_to_say("hello", "same")
    );
    assert_eq!(one, two);
    let asked = world.asked_to_sign();
    assert_eq!(world.try_to_say("hello", "same").await, one);
    assert_eq!(world.asked_to_sign(), asked);
    let timeline = world.timeline().await;
    let sent = timeline.iter().filter(|id| one["event_id"] == id.as_str());
    assert_eq!(sent.count(), 1);
}

#[tokio::test]
async fn what_others_say_meanwhile_stands_beside_it() {
    let mut world = guarded(RoomVersionId::V12).await;
    let (one, two) = tokio::join!(world.try_to_say("one", "x1"), world.try_to_say("two", "x2"));
    let id = |answer: &Value| -> OwnedEventId {
        let id = answer["event_id"].as_str();
        id.unwrap_or_else(|| panic!("{answer}")).try_into().unwrap()
    };
    let (one, two) = (id(&one), id(&two));
    assert_ne!(one, two);
    let timeline = world.timeline().await;
    assert!(timeline[..2].contains(&one.to_string()));
    assert!(timeline[..2].contains(&two.to_string()));
    let three = world.say("three").await;
    let prev = world.told_by_us(&three).await.prev_events().to_vec();
    let first = world.told_by_us(&one).await.prev_events().to_vec();
    let second = world.told_by_us(&two).await.prev_events().to_vec();
    if first == second {
        assert!(prev.contains(&one) && prev.contains(&two));
    } else {
        assert!(first == [two.clone()] || second == [one.clone()]);
    }
    // The device that sent one of them knows its own.
    let sync = world.client(Method::GET, "/sync", &Value::Null).await;
    let events = &sync["rooms"]["join"][world.room.as_str()]["timeline"]["events"];
    let own = events.as_array().unwrap().iter();
    let own = own.filter(|event| event["event_id"] == one.as_str());
    let transactions: Vec<_> = own
        .map(|event| event["unsigned"]["transaction_id"].clone())
        .collect();
    assert_eq!(transactions, [json!("x1")]);
}

#[tokio::test]
async fn it_counts_only_while_somebody_of_it_is_there() {
    let mut world = guarded(RoomVersionId::V11).await;
    world.say("looked at").await;
    assert_eq!(world.asked_to_sign(), 1);
    let bob: OwnedUserId = world.bob.clone();
    let leave = world.member(&bob, "leave");
    let leave = world.signed_by_policy(&leave, SEED);
    assert_eq!(world.send(&[&leave]).await, [Ok(())]);
    world.look().await;
    world.say("free").await;
    assert_eq!(world.asked_to_sign(), 1);
    // What is no key is a key all the same, with which nobody has signed.
    let join = world.member(&bob, "join");
    assert_eq!(world.send(&[&join]).await, [Ok(())]);
    world.look().await;
    let odd = json!({ "via": FAR, "public_keys": { "ed25519": "odd" } });
    world.set("m.room.policy", &odd).await;
    let refused = world.try_to_say("hello", "x").await;
    assert_eq!(refused["errcode"], "M_UNKNOWN", "{refused}");
    let invalid = json!({ "via": FAR, "public_keys": {} });
    world.set("m.room.policy", &invalid).await;
    world.say("free again").await;
}

#[tokio::test]
async fn events_of_others_are_looked_at_when_they_come() {
    for version in VERSIONS {
        let mut world = guarded(version).await;
        let last = world.last.clone();
        let bare = world.message("bare", &[&last]);
        let good = world.signed_by_policy(&bare, SEED);
        assert_eq!(world.send(&[&good]).await, [Ok(())]);
        assert!(world.sees(&good).await);
        assert_eq!(world.asked_to_sign(), 0, "it has signed it");
        // Whoever did not ask is asked for; whose signature is of a key of before, too.
        let good = good.event_id().to_owned();
        let bare = world.message("not asked", &[&good]);
        assert_eq!(world.send(&[&bare]).await, [Ok(())]);
        assert!(world.sees(&bare).await);
        let bare = bare.event_id().to_owned();
        assert!(world.is_signed(&bare).await, "it is passed on with it");
        let old = world.message("with an old key", &[&bare]);
        let old = world.signed_by_policy(&old, SEED + 1);
        assert_eq!(world.send(&[&old]).await, [Ok(())]);
        assert!(world.sees(&old).await);
        assert!(world.is_signed(&old.event_id().to_owned()).await);
        assert_eq!(world.asked_to_sign(), 2);
    }
}

#[tokio::test]
async fn what_it_does_not_recommend_is_out_of_sight() {
    let mut world = guarded(RoomVersionId::V12).await;
    world.policy(spam());
    let last = world.last.clone();
    let bob = world.bob.clone();
    let unwanted = world.message("buy", &[&last]);
    let content = json!({ "topic": "buy" });
    let topic = world.draft(&bob, "m.room.topic", Some(""), &content, &[&last]);
    let topic = world.sign(&topic);
    assert_eq!(world.send(&[&unwanted, &topic]).await, [Ok(()), Ok(())]);
    assert!(!world.sees(&unwanted).await);
    assert!(!world.sees(&topic).await);
    let asked = world.asked_to_sign();
    assert_eq!(asked, 1, "the topic is not Bob's to set");
    // It is decided once.
    assert_eq!(world.send(&[&unwanted]).await, [Ok(())]);
    assert_eq!(world.asked_to_sign(), asked);
    // Nothing of ours follows it; what follows it of others is judged by itself.
    world.policy(Policy::Signs(SEED));
    let said = world.say("hello").await;
    let prev = world.told_by_us(&said).await.prev_events().to_vec();
    assert_eq!(prev, [last]);
    let unwanted = unwanted.event_id().to_owned();
    let after = world.message("after", &[&unwanted]);
    let after = world.signed_by_policy(&after, SEED);
    assert_eq!(world.send(&[&after]).await, [Ok(())]);
    assert!(world.sees(&after).await);
    assert!(!world.timeline().await.contains(&unwanted.to_string()));
}

#[tokio::test]
async fn what_it_cannot_be_asked_about_is_out_of_sight() {
    let mut world = guarded(RoomVersionId::V11).await;
    let name = ServerName::parse("third.example").unwrap();
    let third = world.another_server("third.example").await;
    world.look().await;
    let asked = world.asked_to_sign();
    assert_eq!(asked, 1, "the join of one more was shown to it");
    let last = world.last.clone();
    let content = json!({ "msgtype": "m.text", "body": "hello" });
    let draft = world.draft(&third, "m.room.message", None, &content, &[&last]);
    let peer = world.network.peer("third.example", &world.clock).await;
    let key = peer.signing_keys().current();
    let event = Arc::new(draft.sign(world.rules, &key, &name).unwrap());
    let far = ServerName::parse(FAR).unwrap();
    let raw = vec![raw(&event)];
    let mut question =
        ruma::api::federation::transactions::send_transaction_message::v1::Request::new(
            "t1".into(),
            name,
            world.clock.now(),
        );
    question.pdus = raw;
    world.network.take_away(&far);
    let near = ServerName::parse(NEAR).unwrap();
    let answer = peer.ask(&near, question, Patience::QUERY).await.unwrap();
    assert_eq!(answer.pdus[event.event_id()], Ok(()));
    world.server.rooms.nothing_waits().await;
    assert!(!world.sees(&event).await);
    world.network.bring_back(&far);
}

#[tokio::test]
async fn a_policy_is_not_for_it_and_old_events_are_not_either() {
    let mut world = World::new(RoomVersionId::V11).await;
    // What lies in the past is history when it is found.
    let mut prev = world.last.clone();
    let mut all = Vec::new();
    for n in 0..3 {
        let event = world.message(&n.to_string(), &[&prev]);
        prev = event.event_id().to_owned();
        all.push(event);
    }
    assert_eq!(world.send(&[&all[0], &all[1], &all[2]]).await.len(), 3);
    world.policy(Policy::Signs(SEED));
    world.look().await;
    world.set("m.room.policy", &policy_of(SEED)).await;
    assert_eq!(world.timeline().await[1], prev.as_str());
    assert_eq!(world.asked_to_sign(), 0);
    // Somebody else with the power for it names none.
    let levels = world.get("/state/m.room.power_levels").await;
    let mut levels = levels.clone();
    levels["users"][world.bob.as_str()] = json!(100);
    world.set("m.room.power_levels", &levels).await;
    let asked = world.asked_to_sign();
    world.policy(spam());
    let (bob, last) = (world.bob.clone(), world.last.clone());
    let draft = world.draft(&bob, "m.room.policy", Some(""), &json!({}), &[&last]);
    let none = world.sign(&draft);
    assert_eq!(world.send(&[&none]).await, [Ok(())]);
    assert!(world.sees(&none).await);
    assert_eq!(world.asked_to_sign(), asked);
    world.look().await;
    world.say("free").await;
}

#[tokio::test]
async fn whoever_waits_for_it_holds_up_no_news_of_devices() {
    let world = guarded(RoomVersionId::V11).await;
    world.network.hush(FAR.try_into().unwrap());
    let asked = world.asked_to_sign();
    let me = world
        .client(Method::GET, "/account/whoami", &Value::Null)
        .await;
    let path = format!("/profile/@alice:{NEAR}/displayname");
    let name = json!({ "displayname": "Al" });
    assert_eq!(world.client(Method::PUT, &path, &name).await, json!({}));
    // The job that tells the room does not get an answer.
    while world.asked_to_sign() == asked {
        tokio::task::yield_now().await;
    }
    let news = || {
        let snapshot = world.server.storage.snapshot(Position::START);
        async {
            let all = [Range::prefix(&())];
            let snapshot = snapshot.await.unwrap();
            let rows = snapshot.multi_range(&schema::DEVICE_NEWS_BY_DESTINATION, &all);
            let rows = rows.await.unwrap().remove(0).into_iter();
            rows.map(|(_, row)| row.value.position).collect::<Vec<_>>()
        }
    };
    let before = news().await;
    let path = format!("/devices/{}", me["device_id"].as_str().unwrap());
    let name = json!({ "display_name": "Phone" });
    assert_eq!(world.client(Method::PUT, &path, &name).await, json!({}));
    let mut tries = 0;
    while news().await == before {
        tries += 1;
        assert!(tries < 10_000, "it waits behind the other one");
        tokio::task::yield_now().await;
    }
}
