//! A server of ours as the policy server of rooms.

use federation::{Failure, Federation, Patience};
use http::Method;
use pdu::{Pdu, PolicyServer};
use ruma::{OwnedServerName, ServerName, api::federation::policy::sign_event};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Server,
    tests::federation::membership::{A, B, Person, World, ask, name},
};

/// The policy server.
const P: &str = "p.example";

/// A room of Alice's at A, in which Pat of P and Bob of B are, and for which P is the policy server.
struct Guarded {
    world: World,
    p: Server,
    alice: Person,
    bob: Person,
    room: String,
}

fn strict(config: &mut config::Config) {
    config.policy_server.enabled = true;
    config.policy_server.refused_words = vec!["casino".to_owned()];
    config.policy_server.media = false;
}

impl Guarded {
    async fn new(version: &str) -> Self {
        let world = World::new();
        let (a, b) = (world.server(A).await, world.server(B).await);
        let p = world.server_with(P, strict).await;
        let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
        let pat = Person::new(&p, "pat").await;
        let room = json!({ "preset": "public_chat", "room_version": version });
        let room = alice.create(room).await;
        pat.join(&room, &[A]).await.ok();
        let guarded = Self {
            world,
            p,
            alice,
            bob,
            room,
        };
        let key = guarded.well_known().await;
        let policy = json!({ "via": P, "public_keys": key["public_keys"] });
        guarded
            .alice
            .set(&guarded.room, "m.room.policy", policy)
            .await;
        guarded
    }

    async fn well_known(&self) -> Value {
        let path = "/.well-known/matrix/policy_server";
        ask(&self.p, "", Method::GET, path, &json!({})).await.ok()
    }

    async fn say(
        &self,
        person: &Person,
        body: &str,
    ) -> crate::tests::federation::membership::Answer {
        let transaction = body.replace(' ', "-");
        let path = format!("/rooms/{}/send/m.room.message/{transaction}", self.room);
        let content = json!({ "msgtype": "m.text", "body": body });
        person.put(&path, content).await
    }

    fn asked(&self) -> usize {
        let asked = self.world.network.asked_of(&name(P));
        let sign = "POST /_matrix/policy/v1/sign";
        asked.iter().filter(|what| *what == sign).count()
    }
}

#[tokio::test]
async fn it_signs_what_it_lets_through_and_says_why_not() {
    for version in ["2", "6", "11", "12"] {
        let guarded = Guarded::new(version).await;
        let Guarded {
            alice, bob, room, ..
        } = &guarded;
        guarded.say(alice, "good morning").await.ok();
        let refused = guarded.say(alice, "come to my CASINO!").await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.body["errcode"], "M_FORBIDDEN");
        let path = format!("/rooms/{room}/send/m.room.message/p");
        let picture = json!({ "msgtype": "m.image", "body": "a", "url": "mxc://a.example/b" });
        alice.put(&path, picture).await.refused(400, "M_FORBIDDEN");
        // Whoever joins through another server is looked at as well.
        let before = guarded.asked();
        bob.join(room, &[A]).await.ok();
        assert_eq!(guarded.asked(), before + 1, "{version}");
        let path = format!(
            "/rooms/{room}/state/m.room.member/{}?format=event",
            bob.user_id
        );
        let join = bob.get(&path).await.ok()["event_id"]
            .as_str()
            .unwrap()
            .to_owned();
        let key = guarded.well_known().await["public_keys"].clone();
        let content = json!({ "via": P, "public_keys": key }).to_string();
        let policy = PolicyServer::of(content.as_bytes()).unwrap();
        for server in [&bob.server, &alice.server] {
            let join = stored(server, room, &join).await;
            let rules = pdu::RoomRules::named(version).unwrap();
            assert!(policy.has_signed(&join, rules), "{version}");
        }
        guarded.say(bob, "hello").await.ok();
        guarded.say(bob, "casino").await.refused(400, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn whom_it_does_not_let_through_does_not_come_in_and_may_always_leave() {
    let guarded = Guarded::new("12").await;
    let Guarded {
        alice, bob, room, ..
    } = &guarded;
    let path = format!("/profile/{}/displayname", bob.user_id);
    let called = json!({ "displayname": "Casino 777" });
    bob.put(&path, called).await.ok();
    bob.join(room, &[A]).await.refused(400, "M_FORBIDDEN");
    assert_ne!(alice.membership(room, bob).await, "join");
    let called = json!({ "displayname": "Bob" });
    bob.put(&path, called).await.ok();
    bob.join(room, &[A]).await.ok();
    let said = json!({ "reason": "casino" });
    let path = format!("/rooms/{room}/leave");
    bob.post(&path, said).await.ok();
}

#[tokio::test]
async fn its_own_people_are_looked_at_without_asking_anybody() {
    let guarded = Guarded::new("12").await;
    let (p, room) = (&guarded.p, &guarded.room);
    let paula = Person::new(p, "paula").await;
    paula.join(room, &[]).await.ok();
    // What the room says of its policy server has not come here yet, as nothing is delivered in this test.
    let key = guarded.well_known().await["public_keys"].clone();
    let own = paula.create(json!({ "preset": "private_chat" })).await;
    let policy = json!({ "via": P, "public_keys": key });
    paula.set(&own, "m.room.policy", policy).await;
    let before = guarded.asked();
    let path = |n: u32| format!("/rooms/{own}/send/m.room.message/{n}");
    let text = |body: &str| json!({ "msgtype": "m.text", "body": body });
    paula.put(&path(1), text("fine")).await.ok();
    let refused = paula.put(&path(2), text("casino")).await;
    refused.refused(400, "M_FORBIDDEN");
    paula.put(&path(1), text("fine")).await.ok();
    assert_eq!(guarded.asked(), before);
    let page = paula
        .get(&format!("/rooms/{own}/messages?dir=b&limit=1"))
        .await
        .ok();
    let id = page["chunk"][0]["event_id"].as_str().unwrap().to_owned();
    let pdu = stored(p, &own, &id).await;
    let content = json!({ "via": P, "public_keys": key }).to_string();
    let policy = PolicyServer::of(content.as_bytes()).unwrap();
    assert!(policy.has_signed(&pdu, pdu::RoomRules::named("12").unwrap()));
    // A room that is made with a policy server, and one that is upgraded, has one.
    let initial = json!([{ "type": "m.room.policy", "content": { "via": P, "public_keys": key } }]);
    let made = paula
        .create(json!({ "preset": "private_chat", "initial_state": initial, "invite": [guarded.alice.user_id] }))
        .await;
    let path = format!("/rooms/{made}/send/m.room.message/1");
    paula
        .put(&path, text("casino"))
        .await
        .refused(400, "M_FORBIDDEN");
    let upgrade = json!({ "new_version": "11" });
    paula
        .post(&format!("/rooms/{made}/upgrade"), upgrade)
        .await
        .ok();
}

async fn stored(server: &Server, room: &str, event_id: &str) -> Pdu {
    let room = server.rooms.find_room(room.try_into().unwrap()).await;
    let room = room.unwrap().unwrap();
    let snapshot = server.rooms.snapshot().await.unwrap();
    let name = server.storage.event_hash(event_id);
    let names = [name];
    let found = snapshot.multi_get(&storage::schema::NUMBER_BY_EVENT, &names);
    let found = found.await.unwrap();
    let number = found[0].as_ref().unwrap().value.number.unwrap();
    let keys = [(room.short, number)];
    let rows = snapshot.multi_get(&storage::schema::EVENT_BY_NUMBER, &keys);
    let json = rows.await.unwrap()[0].as_ref().unwrap().value.json.clone();
    let id = event_id.try_into().unwrap();
    Pdu::from_stored(id, json, room.rules, false).unwrap()
}

async fn sign(
    asking: &Federation,
    event: Box<RawValue>,
) -> Result<sign_event::v1::Response, (u16, String)> {
    let question = sign_event::v1::Request::new(event);
    let p: OwnedServerName = ServerName::parse(P).unwrap();
    let answer = asking.ask(&p, question, Patience::QUERY).await;
    answer.map_err(|failure| match failure {
        Failure::Refused(refusal) => (refusal.status.as_u16(), refusal.errcode().to_owned()),
        other => panic!("{other}"),
    })
}

fn as_raw(value: &Value) -> Box<RawValue> {
    RawValue::from_string(value.to_string()).unwrap()
}

#[tokio::test]
async fn it_signs_nothing_that_it_should_not() {
    let guarded = Guarded::new("11").await;
    let Guarded { alice, room, .. } = &guarded;
    let a = &alice.server.federation;
    let page = guarded.say(alice, "fine").await.ok();
    let pdu = stored(&alice.server, room, page["event_id"].as_str().unwrap()).await;
    let good: Value = serde_json::from_slice(pdu.json()).unwrap();
    let key = guarded.well_known().await["public_keys"].clone();
    let content = json!({ "via": P, "public_keys": key }).to_string();
    let policy = PolicyServer::of(content.as_bytes()).unwrap();
    assert!(policy.has_signed(&pdu, pdu::RoomRules::named("11").unwrap()));
    // Asked again, it says the same.
    let answer = sign(a, as_raw(&good)).await.unwrap();
    let theirs = good["signatures"][P]["ed25519:policy_server"].as_str();
    assert_eq!(answer.ed25519_signature(&name(P)), theirs);
    let refused = async |change: &dyn Fn(&mut Value)| {
        let mut event = good.clone();
        change(&mut event);
        sign(a, as_raw(&event)).await.unwrap_err()
    };
    let forbidden = (400, "M_FORBIDDEN".to_owned());
    let bad = (400, "M_BAD_JSON".to_owned());
    let unknown = (404, "M_NOT_FOUND".to_owned());
    let forged = refused(&|event| event["content"]["body"] = json!("other")).await;
    assert_eq!(forged, forbidden, "the hash is of another content");
    let unsigned = refused(&|event| event["signatures"] = json!({})).await;
    assert_eq!(unsigned, forbidden);
    let early = refused(&|event| event["origin_server_ts"] = json!(7)).await;
    assert_eq!(early, forbidden, "the signature is of another time");
    let formless = refused(&|event| event["depth"] = json!("deep")).await;
    assert_eq!(formless, bad);
    let elsewhere = refused(&|event| event["room_id"] = json!("!other:a.example")).await;
    assert_eq!(elsewhere, unknown);
    let nowhere = refused(&|event| drop(event.as_object_mut().unwrap().remove("room_id"))).await;
    assert_eq!(nowhere, bad);
    // Who names it, it does not sign.
    let state = alice.get(&format!("/rooms/{room}/state")).await.ok();
    let named = state.as_array().unwrap().iter();
    let named = named.filter(|event| event["type"] == "m.room.policy");
    let mut named = named.map(|event| event["event_id"].as_str().unwrap());
    let named = stored(&alice.server, room, named.next().unwrap()).await;
    let named = serde_json::from_slice(named.json()).unwrap();
    assert_eq!(sign(a, as_raw(&named)).await.unwrap_err(), forbidden);
    // Whose access is denied gets nothing signed, nor does anybody for rooms that P is not in.
    let own = alice.create(json!({})).await;
    let path = format!("/rooms/{own}/send/m.room.message/1");
    let said = json!({ "msgtype": "m.text", "body": "x" });
    let said = alice.put(&path, said).await.ok();
    let said = stored(&alice.server, &own, said["event_id"].as_str().unwrap()).await;
    let said = serde_json::from_slice(said.json()).unwrap();
    assert_eq!(sign(a, as_raw(&said)).await.unwrap_err(), unknown);
}

#[tokio::test]
async fn a_server_that_is_none_says_so() {
    let world = World::new();
    let (a, p) = (world.server(A).await, world.server(P).await);
    let path = "/.well-known/matrix/policy_server";
    let answer = ask(&p, "", Method::GET, path, &json!({})).await;
    answer.refused(404, "M_NOT_FOUND");
    let refused = sign(&a.federation, as_raw(&json!({ "room_id": "!a:b" }))).await;
    assert_eq!(refused.unwrap_err(), (404, "M_UNRECOGNIZED".to_owned()));
    // Rooms that name it all the same are open: something else may answer under its name.
    let pat = Person::new(&p, "pat").await;
    let room = pat.create(json!({})).await;
    let key = json!({ "ed25519": "6yhHGKhCiXTSEN2ksjV7kX_N6rBQZ3Xb-M7LlC6NS-s" });
    let policy = json!({ "via": P, "public_keys": key });
    pat.set(&room, "m.room.policy", policy).await;
    pat.set(&room, "m.room.name", json!({ "name": "open" }))
        .await;
}

#[tokio::test]
async fn a_room_that_denies_a_server_has_nothing_signed_for_it() {
    let world = World::new();
    let (a, p) = (world.server(A).await, world.server_with(P, strict).await);
    let (alice, pat) = (Person::new(&a, "alice").await, Person::new(&p, "pat").await);
    let room = pat
        .create(json!({ "preset": "public_chat", "room_version": "11" }))
        .await;
    alice.join(&room, &[P]).await.ok();
    let path = format!("/rooms/{room}/send/m.room.message/1");
    let said = json!({ "msgtype": "m.text", "body": "x" });
    let said = alice.put(&path, said).await.ok();
    let said = stored(&a, &room, said["event_id"].as_str().unwrap()).await;
    let said: Value = serde_json::from_slice(said.json()).unwrap();
    sign(&a.federation, as_raw(&said)).await.unwrap();
    let denied = json!({ "allow": ["*"], "deny": [A] });
    pat.set(&room, "m.room.server_acl", denied).await;
    let refused = sign(&a.federation, as_raw(&said)).await.unwrap_err();
    assert_eq!(refused, (403, "M_FORBIDDEN".to_owned()));
}
