//! A server that a test plays, and a room of ours that its people are in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use config::Config;
use federation::{Federation, Patience};
use http::{Method, Request, Response};
use parking_lot::Mutex;
use pdu::{Draft, Pdu, RoomRules, SigningKey};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, ServerName,
    UInt, UserId,
    api::federation::transactions::send_transaction_message,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use storage::Clock;

use super::Network;
use crate::{
    Parts, Server,
    tests::{ALL, json as body_of, request},
};

/// The played server.
pub(super) const FAR: &str = "far.example";
/// Ours.
pub(super) const NEAR: &str = "near.example";

/// What the played server has to tell.
#[derive(Default)]
pub(super) struct Told {
    events: HashMap<String, Arc<Pdu>>,
    /// Of which it says that it does not know them.
    withheld: BTreeSet<String>,
    /// What it says of the state before events: ids of the state, and of the auth chain.
    states: HashMap<String, Vec<String>>,
    /// What it answers to paths that begin so, before all else.
    overrides: Vec<(String, Value)>,
    /// To what it answers that it knows nothing.
    refused: Vec<String>,
    /// What it does as a policy server.
    pub(super) policy: Policy,
}

/// What the played server does as a policy server.
#[derive(Clone, Default)]
pub(super) enum Policy {
    /// It is none.
    #[default]
    None,
    /// It signs with the key of this seed.
    Signs(u8),
    /// It answers this, with this status.
    Says(u16, Value),
}

/// The key of a policy server that was made of this seed.
pub(super) fn policy_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], pdu::POLICY_KEY_NAME).unwrap()
}

/// What a room says that names the played server.
pub(super) fn policy_of(seed: u8) -> Value {
    let key = policy_key(seed).verify_key().to_base64();
    json!({ "via": FAR, "public_keys": { "ed25519": key } })
}

/// A room of ours in which Bob of the played server is.
pub(super) struct World {
    pub(super) network: Network,
    pub(super) clock: Clock,
    pub(super) server: Server,
    pub(super) far: Federation,
    pub(super) told: Arc<Mutex<Told>>,
    pub(super) rules: &'static RoomRules,
    pub(super) room: OwnedRoomId,
    pub(super) alice: String,
    pub(super) bob: OwnedUserId,
    /// The ids of the state, as it was last.
    pub(super) state: BTreeMap<(StateEventType, String), OwnedEventId>,
    /// The latest event of ours, or that was sent.
    pub(super) last: OwnedEventId,
    depth: u64,
    transactions: u64,
}

impl World {
    pub(super) async fn new(version: RoomVersionId) -> Self {
        let network = Network::default();
        let clock = Clock::standing_at(1_700_000_000_000);
        let mut config = Config::default();
        config.registration.enabled = true;
        config.registration.require_token = false;
        config.rate_limits.enabled = false;
        let server = network.server(NEAR, &clock, config).await;
        let far = network.peer(FAR, &clock).await;
        let told: Arc<Mutex<Told>> = Arc::default();
        let (playing, answering) = (far.clone(), Arc::clone(&told));
        let name = ServerName::parse(FAR).unwrap();
        let rules = RoomRules::of(&version).unwrap();
        network.play(&name, move |request| {
            let told = answering.lock();
            match request.uri().path() {
                "/_matrix/policy/v1/sign" => told.policy.answer(rules, &request),
                _ => answer(&playing, &told, &request),
            }
        });
        let mut world = Self {
            network,
            clock,
            server,
            far,
            told,
            rules,
            room: "!not:yet".try_into().unwrap(),
            alice: String::new(),
            bob: format!("@bob:{FAR}").try_into().unwrap(),
            state: BTreeMap::new(),
            last: "$not_yet".try_into().unwrap(),
            depth: 100,
            transactions: 0,
        };
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": "alice", "password": "correct horse", "auth": auth });
        let alice = world.client(Method::POST, "/register", &body).await;
        world.alice = alice["access_token"].as_str().unwrap().to_owned();
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room = world.client(Method::POST, "/createRoom", &body).await;
        world.room = room["room_id"].as_str().unwrap().try_into().unwrap();
        world.look().await;
        let bob = world.bob.clone();
        let join = world.member(&bob, "join");
        assert_eq!(world.send(&[&join]).await, [Ok(())]);
        world.look().await;
        world
    }

    /// Our server is stopped, and started on what it has stored.
    pub(super) async fn start_again(&mut self) {
        let Self {
            network, server, ..
        } = &*self;
        let parts = Parts {
            config: server.config.clone(),
            storage: server.storage.clone(),
            clock: server.clock.clone(),
            random: server.random.clone(),
            transport: Arc::new(network.clone()),
        };
        self.server = self.network.open(parts).await;
    }

    /// What a client of Alice's is answered.
    pub(super) async fn client(&self, method: Method, path: &str, body: &Value) -> Value {
        self.client_at(method, &format!("/_matrix/client/v3{path}"), body)
            .await
    }

    pub(super) async fn client_at(&self, method: Method, path: &str, body: &Value) -> Value {
        let body = if method == Method::GET {
            String::new()
        } else {
            body.to_string()
        };
        let mut request = request(method, path, body);
        let token = format!("Bearer {}", self.alice).parse().unwrap();
        request.headers_mut().insert("authorization", token);
        let answer = self.server.answer(ALL, request).await;
        body_of(&answer)
    }

    pub(super) async fn get(&self, path: &str) -> Value {
        let path = format!("/rooms/{}{path}", self.room);
        self.client(Method::GET, &path, &Value::Null).await
    }

    /// Looks what the state is, and which event the last.
    pub(super) async fn look(&mut self) {
        let state = self.get("/state").await;
        self.state = state
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                let key = (StateEventType::from(text("type")), text("state_key"));
                (key, text("event_id").try_into().unwrap())
            })
            .collect();
        let last = self.timeline().await.remove(0);
        self.last = last.try_into().unwrap();
    }

    /// The ids of the timeline as Alice may see it, the latest first.
    pub(super) async fn timeline(&self) -> Vec<String> {
        let page = self.get("/messages?dir=b&limit=100").await;
        let ids = page["chunk"].as_array().unwrap().iter();
        ids.map(|event| event["event_id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether Alice may see an event.
    pub(super) async fn sees(&self, event: &Pdu) -> bool {
        let answer = self.get(&format!("/event/{}", event.event_id())).await;
        answer["event_id"] == event.event_id().as_str()
    }

    /// Says something as Alice.
    pub(super) async fn say(&mut self, body: &str) -> OwnedEventId {
        self.transactions += 1;
        let path = format!(
            "/rooms/{}/send/m.room.message/{}",
            self.room, self.transactions
        );
        let body = json!({ "msgtype": "m.text", "body": body });
        let sent = self.client(Method::PUT, &path, &body).await;
        self.last = sent["event_id"].as_str().unwrap().try_into().unwrap();
        self.last.clone()
    }

    /// Sets state as Alice.
    pub(super) async fn set(&mut self, event_type: &str, content: &Value) {
        let path = format!("/rooms/{}/state/{event_type}/", self.room);
        let sent = self.client(Method::PUT, &path, content).await;
        assert!(sent["event_id"].is_string(), "{sent}");
        self.look().await;
    }

    pub(super) fn key(&self) -> Arc<SigningKey> {
        self.far.signing_keys().current()
    }

    /// The event of a draft, signed by the played server, which can tell it.
    pub(super) fn sign(&self, draft: &Draft) -> Arc<Pdu> {
        let server = draft.sender.server_name().to_owned();
        let pdu = draft.sign(self.rules, &self.key(), &server).unwrap();
        let pdu = Arc::new(pdu);
        self.remember(&pdu);
        pdu
    }

    /// The played server can tell an event.
    pub(super) fn remember(&self, pdu: &Arc<Pdu>) {
        let id = pdu.event_id().to_string();
        self.told.lock().events.insert(id, Arc::clone(pdu));
    }

    /// A draft in the state as it was last, after these events.
    pub(super) fn draft(
        &mut self,
        sender: &UserId,
        event_type: &str,
        state_key: Option<&str>,
        content: &Value,
        prev: &[&OwnedEventId],
    ) -> Draft {
        let kind: TimelineEventType = event_type.into();
        let content = to_raw_value(content).unwrap();
        let types = pdu::auth_types(&kind, sender, state_key, &content, self.rules);
        let auth_events = types.iter().filter_map(|key| self.state.get(key)).cloned();
        self.depth += 1;
        Draft {
            room_id: Some(self.room.clone()),
            sender: sender.to_owned(),
            event_type: kind,
            state_key: state_key.map(ToOwned::to_owned),
            auth_events: auth_events.collect(),
            content,
            prev_events: prev.iter().map(|id| (*id).clone()).collect(),
            depth: self.depth,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(
                1_700_000_000_000 + self.depth,
            )),
            redacts: None,
            reference_hashes: BTreeMap::new(),
        }
    }

    /// A message of Bob's after some events.
    pub(super) fn message(&mut self, body: &str, prev: &[&OwnedEventId]) -> Arc<Pdu> {
        let bob = self.bob.clone();
        let content = json!({ "msgtype": "m.text", "body": body });
        let draft = self.draft(&bob, "m.room.message", None, &content, prev);
        self.sign(&draft)
    }

    /// A member event about oneself, after the last event.
    pub(super) fn member(&mut self, user: &UserId, membership: &str) -> Arc<Pdu> {
        let last = self.last.clone();
        let content = json!({ "membership": membership });
        let draft = self.draft(
            user,
            "m.room.member",
            Some(user.as_str()),
            &content,
            &[&last],
        );
        self.sign(&draft)
    }

    /// Sends events in a transaction, and waits until all that was fetched for them is there: what is answered
    /// for each.
    pub(super) async fn send(&mut self, events: &[&Arc<Pdu>]) -> Vec<Result<(), String>> {
        let raw = events.iter().map(|event| raw(event)).collect();
        let answer = self.send_raw(raw).await;
        self.server.rooms.nothing_waits().await;
        let taken = |event: &&Arc<Pdu>| answer.pdus.get(event.event_id()).cloned();
        events.iter().filter_map(taken).collect()
    }

    pub(super) async fn send_raw(
        &mut self,
        pdus: Vec<Box<RawValue>>,
    ) -> send_transaction_message::v1::Response {
        self.transactions += 1;
        let id = format!("t{}", self.transactions);
        let mut question = send_transaction_message::v1::Request::new(
            id.into(),
            FAR.try_into().unwrap(),
            self.clock.now(),
        );
        question.pdus = pdus;
        let near = ServerName::parse(NEAR).unwrap();
        self.far
            .ask(&near, question, Patience::QUERY)
            .await
            .unwrap()
    }

    /// What the played server says of the state before an event: that of ours, with these instead.
    pub(super) fn tell_state(&self, before: &Pdu, instead: &[&Arc<Pdu>]) {
        let mut state = self.state.clone();
        for event in instead {
            let (kind, key) = event.state_slot().unwrap();
            state.insert((kind, key.to_owned()), event.event_id().to_owned());
        }
        let ids = state.values().map(ToString::to_string).collect();
        self.told
            .lock()
            .states
            .insert(before.event_id().to_string(), ids);
    }

    /// The played server says that it does not know an event.
    pub(super) fn withhold(&self, event: &Pdu) {
        self.told
            .lock()
            .withheld
            .insert(event.event_id().to_string());
    }

    /// It tells it again.
    pub(super) fn tell(&self, event: &OwnedEventId) {
        self.told.lock().withheld.remove(event.as_str());
    }

    /// To paths that begin so it answers that it knows nothing.
    pub(super) fn refuse(&self, path: &str) {
        self.told.lock().refused.push(path.to_owned());
    }

    /// Somebody of one more played server comes into the room, which tells all that there is.
    pub(super) async fn another_server(&mut self, name: &str) -> OwnedUserId {
        let peer = self.network.peer(name, &self.clock).await;
        let user: OwnedUserId = format!("@carol:{name}").try_into().unwrap();
        let last = self.last.clone();
        let content = json!({ "membership": "join" });
        let draft = self.draft(
            &user,
            "m.room.member",
            Some(user.as_str()),
            &content,
            &[&last],
        );
        let key = peer.signing_keys().current();
        let join = draft.sign(self.rules, &key, user.server_name()).unwrap();
        let told = Arc::clone(&self.told);
        self.network.play(user.server_name(), move |request| {
            let mut told = told.lock();
            let refused = std::mem::take(&mut told.refused);
            let answer = answer(&peer, &told, &request);
            told.refused = refused;
            answer
        });
        assert_eq!(self.send(&[&Arc::new(join)]).await, [Ok(())]);
        user
    }

    /// To paths that begin so it answers this.
    pub(super) fn answer_with(&self, path: &str, answer: Value) {
        let answer = (path.to_owned(), answer);
        self.told.lock().overrides.insert(0, answer);
    }

    /// How often the played server was asked to sign something.
    pub(super) fn asked_to_sign(&self) -> usize {
        let asked = self.network.asked_of(FAR.try_into().unwrap());
        let asked = asked.iter();
        asked
            .filter(|what| *what == "POST /_matrix/policy/v1/sign")
            .count()
    }

    /// What the played server does from now on as a policy server.
    pub(super) fn policy(&self, policy: Policy) {
        self.told.lock().policy = policy;
    }

    /// How often the played server was asked for a path that begins so.
    pub(super) fn asked(&self, path: &str) -> usize {
        let far = ServerName::parse(FAR).unwrap();
        let asked = self.network.asked_of(&far);
        let path = format!("/_matrix/federation/v1{path}");
        asked.iter().filter(|what| what.contains(&path)).count()
    }
}

/// An event as it is sent.
pub(super) fn raw(event: &Pdu) -> Box<RawValue> {
    RawValue::from_string(String::from_utf8(event.json().to_vec()).unwrap()).unwrap()
}

fn answer(far: &Federation, told: &Told, request: &Request<Bytes>) -> Response<Bytes> {
    let respond = |status: u16, body: Bytes| Response::builder().status(status).body(body).unwrap();
    let path = percent_decoded(request.uri().path());
    if path == "/_matrix/key/v2/server" {
        return respond(200, far.own_keys_answer().into());
    }
    let path = path
        .strip_prefix("/_matrix/federation/v1")
        .unwrap_or_default();
    let refused = told
        .refused
        .iter()
        .any(|prefix| path.starts_with(prefix.as_str()));
    let found = told
        .overrides
        .iter()
        .find(|(prefix, _)| path.starts_with(prefix.as_str()));
    let answer = match found {
        Some((_, answer)) => Some(answer.clone()),
        None if refused => None,
        None => told.answer(path, request),
    };
    match answer {
        Some(answer) => respond(200, answer.to_string().into()),
        None => {
            let body = json!({ "errcode": "M_NOT_FOUND", "error": "I do not know that" });
            respond(404, body.to_string().into())
        }
    }
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

impl Policy {
    fn answer(&self, rules: &RoomRules, request: &Request<Bytes>) -> Response<Bytes> {
        let (status, answer) = match self {
            Self::None => (404, json!({ "errcode": "M_UNRECOGNIZED", "error": "No" })),
            Self::Says(status, answer) => (*status, answer.clone()),
            Self::Signs(seed) => {
                let pdu = Pdu::parse(request.body(), rules).unwrap();
                let signature = pdu.policy_signature(rules, &policy_key(*seed));
                (200, json!({ FAR: { "ed25519:policy_server": signature } }))
            }
        };
        let body = Bytes::from(answer.to_string());
        Response::builder().status(status).body(body).unwrap()
    }
}

impl Told {
    fn answer(&self, path: &str, request: &Request<Bytes>) -> Option<Value> {
        let (what, rest) = path.strip_prefix('/')?.split_once('/')?;
        let query = percent_decoded(request.uri().query().unwrap_or_default());
        let query: Vec<_> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let of = |key: &'static str| {
            let pairs = query.iter().filter(move |(name, _)| *name == key);
            pairs.map(|(_, value)| *value)
        };
        let framed =
            |pdus: Vec<Value>| json!({ "origin": FAR, "origin_server_ts": 1, "pdus": pdus });
        match what {
            "event" => Some(framed(vec![self.event(rest)?])),
            "event_auth" => {
                let (_, id) = rest.split_once('/')?;
                Some(json!({ "auth_chain": self.chain(&[id.to_owned()]) }))
            }
            "state_ids" => {
                let state = self.states.get(of("event_id").next()?)?;
                let chain = self.chain_ids(state);
                Some(json!({ "pdu_ids": state, "auth_chain_ids": chain }))
            }
            "backfill" => {
                let from: Vec<_> = of("v").map(ToOwned::to_owned).collect();
                Some(framed(self.before(&from, 100)))
            }
            "get_missing_events" => {
                let body: Value = serde_json::from_slice(request.body()).unwrap();
                let latest = body["latest_events"].as_array()?.iter();
                let latest = latest.filter_map(|id| self.events.get(id.as_str()?));
                let prev = latest.flat_map(|event| event.prev_events());
                let prev: Vec<_> = prev.map(ToString::to_string).collect();
                Some(json!({ "events": self.before(&prev, 20) }))
            }
            _ => None,
        }
    }

    fn known(&self, id: &str) -> Option<&Arc<Pdu>> {
        self.events.get(id).filter(|_| !self.withheld.contains(id))
    }

    fn event(&self, id: &str) -> Option<Value> {
        Some(serde_json::from_slice(self.known(id)?.json()).unwrap())
    }

    fn chain_ids(&self, ids: &[String]) -> BTreeSet<String> {
        let mut chain = BTreeSet::new();
        let mut next = ids.to_vec();
        while let Some(id) = next.pop() {
            let auth = self
                .events
                .get(&id)
                .map(|event| event.auth_events().to_vec());
            for id in auth.unwrap_or_default() {
                if chain.insert(id.to_string()) {
                    next.push(id.to_string());
                }
            }
        }
        chain
    }

    fn chain(&self, ids: &[String]) -> Vec<Value> {
        let ids = self.chain_ids(ids);
        ids.iter().filter_map(|id| self.event(id)).collect()
    }

    /// Events and those before them, as far as it tells them.
    fn before(&self, from: &[String], limit: usize) -> Vec<Value> {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = from.to_vec();
        let mut events = Vec::new();
        while let Some(id) = next.pop() {
            let Some(event) = self.known(&id).filter(|_| seen.insert(id)) else {
                continue;
            };
            events.push(serde_json::from_slice(event.json()).unwrap());
            next.extend(event.prev_events().iter().map(ToString::to_string));
        }
        events.truncate(limit);
        events
    }
}
