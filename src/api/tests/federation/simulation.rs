//! Three servers over a network that delays, repeats, drops and reorders what they send each other, and cuts
//! them apart: when it is whole again, all agree.
//!
//! A seed names everything that happens. Some are run with the other tests; more with
//! `CHAPAR_SIMULATION_SEEDS=0..1000`, and one that failed with `CHAPAR_SIMULATION_SEEDS=7..8`.

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range as Seeds,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use config::{ByteCount, Config};
use federation::{Broken, Limits, Patience, Transport};
use futures_util::future::BoxFuture;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, ServerName,
    api::federation::transactions::send_transaction_message,
};
use serde_json::{Value, json, value::RawValue};
use storage::{
    Clock, Faults, Position, Random, Range, Storage,
    schema::{self, Membership},
};

use super::Network;
use crate::{
    Parts, Server,
    tests::{ALL, json as body_of, parts, request},
};

/// The servers, each with one person of the name of its first letter.
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
/// The seeds that are run with all other tests.
const FEW: Seeds<u64> = 0..6;
/// What happens until the network is whole again.
const STEPS: usize = 60;
/// Rounds of messages after that, until all agree.
const ROUNDS: usize = 3;

/// Where transactions go, and how the ids of those begin that the test sends.
const SEND: &str = "/_matrix/federation/v1/send/";
const LETTER: &str = "letter";

/// The way of one server to the others.
#[derive(Clone)]
struct Line {
    from: OwnedServerName,
    network: Network,
    weather: Arc<Mutex<Weather>>,
}

/// How the network is at the moment.
struct Weather {
    /// Pairs of servers that do not reach each other.
    cut: BTreeSet<(OwnedServerName, OwnedServerName)>,
    /// Of so many requests in a hundred nothing becomes, before or after they came.
    lost: u32,
    random: StdRng,
}

impl Weather {
    fn is_cut(&self, one: &ServerName, other: &ServerName) -> bool {
        let pair = |one: &ServerName, other: &ServerName| (one.to_owned(), other.to_owned());
        self.cut.contains(&pair(one, other)) || self.cut.contains(&pair(other, one))
    }

    fn loses(&mut self) -> bool {
        self.lost > 0 && self.random.random_range(0..100) < self.lost
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.from)
    }
}

impl Transport for Line {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        let gone = || Broken::Unreachable("lost on the way".to_owned());
        // What servers send by themselves has tests of its own: here each event is brought by hand.
        let path = request.uri().path();
        let own = path.starts_with(SEND) && !path.starts_with(&format!("{SEND}{LETTER}"));
        if own {
            let taken = Response::new(Bytes::from_static(b"{\"pdus\":{}}"));
            return Box::pin(async { Ok(taken) });
        }
        let (lost, answer_lost) = {
            let mut weather = self.weather.lock();
            let lost = weather.is_cut(&self.from, to) || weather.loses();
            (lost, weather.loses())
        };
        Box::pin(async move {
            if lost {
                return Err(gone());
            }
            let answer = self.network.bring(to, request, limits).await;
            if answer_lost { Err(gone()) } else { answer }
        })
    }
}

/// An event on its way.
#[derive(Clone)]
struct Letter {
    from: usize,
    to: usize,
    event: Box<RawValue>,
}

struct World {
    clock: Clock,
    weather: Arc<Mutex<Weather>>,
    servers: Vec<Server>,
    tokens: Vec<String>,
    room: OwnedRoomId,
    letters: Vec<Letter>,
    /// Up to where the streams of the servers were read.
    read: Vec<Position>,
    random: StdRng,
    transactions: u64,
}

impl World {
    async fn new(seed: u64) -> Self {
        let network = Network::default();
        let clock = Clock::standing_at(1_700_000_000_000);
        let weather = Arc::new(Mutex::new(Weather {
            cut: BTreeSet::new(),
            lost: 0,
            random: StdRng::seed_from_u64(seed ^ 0xd1ce),
        }));
        let mut servers = Vec::new();
        for (index, name) in NAMES.iter().enumerate() {
            let name = ServerName::parse(name).unwrap();
            let mut config = Config::default();
            config.server.name = Some(name.clone());
            config.registration.enabled = true;
            config.registration.require_token = false;
            config.rate_limits.enabled = false;
            // Nobody is to be kept from guessing them.
            config.passwords.memory = ByteCount::kib(8);
            config.passwords.passes = 1;
            let line = Line {
                from: name,
                network: network.clone(),
                weather: Arc::clone(&weather),
            };
            let parts = Parts {
                storage: Storage::model_on(clock.clone(), Faults::NONE),
                clock: clock.clone(),
                random: Random::seeded(seed * 10 + index as u64),
                transport: Arc::new(line),
                ..parts(config)
            };
            servers.push(network.open(parts).await);
        }
        let mut world = Self {
            clock,
            weather,
            servers,
            tokens: Vec::new(),
            room: "!not:yet".try_into().unwrap(),
            letters: Vec::new(),
            read: vec![Position::START; NAMES.len()],
            random: StdRng::seed_from_u64(seed),
            transactions: 0,
        };
        world.come_together().await;
        world
    }

    /// Everybody gets an account, and comes into one room.
    async fn come_together(&mut self) {
        for (server, name) in NAMES.iter().enumerate() {
            let auth = json!({ "type": "m.login.dummy" });
            let name = name.chars().next().unwrap().to_string();
            let body = json!({ "username": name, "password": "correct horse", "auth": auth });
            let registered = self.ask(server, Method::POST, "/register", &body).await;
            let token = registered["access_token"].as_str().unwrap().to_owned();
            self.tokens.push(token);
        }
        let version = ["6", "10", "11", "12"][self.random.random_range(0..4)];
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room = self.ask(0, Method::POST, "/createRoom", &body).await;
        self.room = room["room_id"].as_str().unwrap().try_into().unwrap();
        for server in 1..NAMES.len() {
            let path = format!("/join/{}?via={}", self.room, NAMES[0]);
            let joined = self.ask(server, Method::POST, &path, &json!({})).await;
            assert_eq!(joined["room_id"], self.room.as_str(), "{joined}");
            self.collect().await;
            self.deliver_all().await;
        }
    }

    async fn ask(&self, server: usize, method: Method, path: &str, body: &Value) -> Value {
        let path = format!("/_matrix/client/v3{path}");
        let mut request = request(method, &path, body.to_string());
        if let Some(token) = self.tokens.get(server) {
            let token = format!("Bearer {token}").parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        let answer = self.servers[server].answer(ALL, request).await;
        body_of(&answer)
    }

    fn person(server: usize) -> String {
        format!("@{}:{}", &NAMES[server][..1], NAMES[server])
    }

    /// Somebody does something, which the rules may not allow.
    async fn act(&mut self, server: usize) {
        self.transactions += 1;
        let n = self.transactions;
        let other = Self::person(self.random.random_range(0..NAMES.len()));
        // Who was put out cannot be told what they do not know yet: two at least stay.
        let last = Self::person(NAMES.len() - 1);
        let room = self.room.clone();
        let state = |kind: &str| format!("/rooms/{room}/state/{kind}/");
        let member = |what: &str| format!("/rooms/{room}/{what}");
        let (method, path, body) = match self.random.random_range(0..14) {
            0 | 1 => (
                Method::PUT,
                state("m.room.topic"),
                json!({ "topic": n.to_string() }),
            ),
            2 => (
                Method::PUT,
                state("m.room.name"),
                json!({ "name": n.to_string() }),
            ),
            3 => {
                let level = [0, 50, 100][self.random.random_range(0..3)];
                let mut users = json!({ other: level });
                if self.room.server_name().is_some() {
                    users[Self::person(0)] = json!(100);
                }
                (
                    Method::PUT,
                    state("m.room.power_levels"),
                    json!({ "users": users }),
                )
            }
            4 => (Method::POST, member("kick"), json!({ "user_id": last })),
            5 => (Method::POST, member("ban"), json!({ "user_id": last })),
            6 => (Method::POST, member("unban"), json!({ "user_id": last })),
            7 => {
                let rule = ["public", "invite"][self.random.random_range(0..2)];
                (
                    Method::PUT,
                    state("m.room.join_rules"),
                    json!({ "join_rule": rule }),
                )
            }
            8 => (Method::POST, member("invite"), json!({ "user_id": other })),
            _ => {
                let path = format!("/rooms/{room}/send/m.room.message/{n}");
                let body = json!({ "msgtype": "m.text", "body": n.to_string() });
                (Method::PUT, path, body)
            }
        };
        self.ask(server, method, &path, &body).await;
    }

    /// Takes what the servers made since the last time, to be brought to the others.
    async fn collect(&mut self) {
        for from in 0..self.servers.len() {
            let server = self.servers[from].clone();
            let snapshot = server.rooms.snapshot().await.unwrap();
            let ranges = [Range::prefix(&()).after(&self.read[from])];
            let rows = snapshot.multi_range(&schema::STREAM_BY_POSITION, &ranges);
            for (position, row) in rows.await.unwrap().remove(0) {
                self.read[from] = position;
                let record = row.value;
                if !record.local || record.historic {
                    continue;
                }
                let keys = [(record.room, record.number)];
                let rows = snapshot.multi_get(&schema::EVENT_BY_NUMBER, &keys);
                let row = rows.await.unwrap().remove(0).unwrap().value;
                let event = String::from_utf8(row.json.to_vec()).unwrap();
                let event = RawValue::from_string(event).unwrap();
                for to in (0..self.servers.len()).filter(|to| *to != from) {
                    let event = event.clone();
                    self.letters.push(Letter { from, to, event });
                }
            }
        }
    }

    /// Brings a letter to where it goes.
    async fn deliver(&mut self, letter: Letter) {
        self.transactions += 1;
        let id = format!("{LETTER}{}", self.transactions);
        let origin = ServerName::parse(NAMES[letter.from]).unwrap();
        let now = self.clock.now();
        let mut question = send_transaction_message::v1::Request::new(id.into(), origin, now);
        question.pdus = vec![letter.event.clone()];
        let to = ServerName::parse(NAMES[letter.to]).unwrap();
        let federation = &self.servers[letter.from].federation;
        let patience = Patience::QUERY.despite_back_off();
        let came = federation.ask(&to, question, patience).await.is_ok();
        self.servers[letter.to].rooms.nothing_waits().await;
        // Who sent it is told that it was lost, and tries again; but some have too much to send, and leave it to
        // what comes later that the others ask.
        let kept = letter.event.get().contains("\"state_key\"") || self.random.random_bool(0.5);
        if !came && kept {
            self.letters.push(letter);
        }
    }

    async fn deliver_all(&mut self) {
        while !self.letters.is_empty() {
            let letter = self.letters.remove(0);
            self.deliver(letter).await;
        }
    }

    async fn step(&mut self) {
        self.clock
            .advance(Duration::from_millis(self.random.random_range(1..2_000)));
        match self.random.random_range(0..10) {
            0..=4 => {
                let server = self.random.random_range(0..self.servers.len());
                self.act(server).await;
                self.collect().await;
            }
            5 => {
                let all = self.random.random_range(0..NAMES.len());
                let pair = (NAMES[all], NAMES[(all + 1) % NAMES.len()]);
                let pair = (
                    ServerName::parse(pair.0).unwrap(),
                    ServerName::parse(pair.1).unwrap(),
                );
                let mut weather = self.weather.lock();
                if !weather.cut.remove(&pair) {
                    weather.cut.insert(pair);
                }
            }
            6 if !self.letters.is_empty() => {
                // Told again later.
                let again = self.random.random_range(0..self.letters.len());
                let letter = self.letters[again].clone();
                self.letters.push(letter);
            }
            _ if !self.letters.is_empty() => {
                let any = self.random.random_range(0..self.letters.len());
                let letter = self.letters.remove(any);
                self.deliver(letter).await;
            }
            _ => {}
        }
    }

    /// The network is whole, and everybody who may says something in turn.
    async fn heal(&mut self) {
        {
            let mut weather = self.weather.lock();
            weather.cut.clear();
            weather.lost = 0;
        }
        self.deliver_all().await;
        for _ in 0..ROUNDS {
            for server in 0..self.servers.len() {
                // Those who were left alone are asked again by now.
                self.clock.advance(Duration::from_secs(24 * 60 * 60));
                self.transactions += 1;
                let path = format!(
                    "/rooms/{}/send/m.room.message/{}",
                    self.room, self.transactions
                );
                let body = json!({ "msgtype": "m.text", "body": "at last" });
                self.ask(server, Method::PUT, &path, &body).await;
                self.collect().await;
                self.deliver_all().await;
            }
        }
        for server in 0..self.servers.len() {
            self.read_back(server).await;
        }
    }

    /// Reads all that there is, as a client does: holes are filled by that.
    async fn read_back(&self, server: usize) {
        let mut from = String::new();
        loop {
            let path = format!("/rooms/{}/messages?dir=b&limit=100{from}", self.room);
            let page = self.ask(server, Method::GET, &path, &Value::Null).await;
            let Some(end) = page["end"].as_str() else {
                break;
            };
            from = format!("&from={end}");
        }
    }

    /// What a server thinks of the room: its state, and the events it has put into the graph.
    async fn opinion(&self, server: usize) -> Opinion {
        let rooms = &self.servers[server].rooms;
        let room = rooms.room(&self.room).await.unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let keys = [room.short];
        let head = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &keys)
            .await
            .unwrap();
        let head = head.into_iter().next().flatten().unwrap().value;
        let numbers = room.whole_state(&snapshot, head.root).await.unwrap();
        let events = room.read_state_events(&snapshot, &numbers).await.unwrap();
        let own = Self::person(server);
        let mut about = events.iter().filter(|event| {
            event.row.header.event_type == "m.room.member"
                && event.row.header.state_key.as_deref() == Some(own.as_str())
        });
        let out = about.find(|event| rooms::membership_of(event) != Some(Membership::Join));
        let out = out.map(|event| event.row.header.event_id.clone());
        let state = events.iter().map(|event| {
            let header = &event.row.header;
            let key = (header.event_type.clone(), header.state_key.clone().unwrap());
            (key, header.event_id.clone())
        });
        let ends: BTreeSet<_> = head
            .extremities
            .iter()
            .map(|one| one.event_id.clone())
            .collect();
        let graph = self.behind(server, &ends).await;
        Opinion {
            state: state.collect(),
            graph,
            ends,
            out,
        }
    }

    /// Whether a server has an event of the room, accepted or not.
    async fn has(&self, server: usize, event_id: &str) -> bool {
        let rooms = &self.servers[server].rooms;
        let room = rooms.room(&self.room).await.unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let event_id = EventId::parse(event_id).unwrap();
        let number = room.find_number(rooms, &snapshot, &event_id).await;
        number.unwrap().is_some()
    }

    /// The events to which one comes from some by their prev events, as far as a server has them.
    async fn behind(&self, server: usize, ends: &BTreeSet<String>) -> BTreeSet<String> {
        let rooms = &self.servers[server].rooms;
        let name = ServerName::parse(NAMES[server]).unwrap();
        let mut seen = BTreeSet::new();
        let mut next: Vec<OwnedEventId> = ends
            .iter()
            .map(|id| id.as_str().try_into().unwrap())
            .collect();
        while let Some(id) = next.pop() {
            // Whoever is in the room is told.
            let Ok(event) = rooms.serve_event(&name, &id).await else {
                continue;
            };
            if !seen.insert(id.to_string()) {
                continue;
            }
            let room = rooms.room(&self.room).await.unwrap();
            let event = pdu::Pdu::parse(&event, room.rules).unwrap();
            next.extend(event.prev_events().iter().cloned());
        }
        seen
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Opinion {
    state: BTreeMap<(String, String), String>,
    graph: BTreeSet<String>,
    ends: BTreeSet<String>,
    /// By what its person is out, as far as it knows.
    out: Option<String>,
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    world.weather.lock().lost = 10;
    for _ in 0..STEPS {
        world.step().await;
    }
    world.heal().await;
    let expected = world.opinion(0).await;
    for (other, name) in NAMES.iter().enumerate().skip(1) {
        let member = ("m.room.member".to_owned(), World::person(other));
        let path = format!("/rooms/{}/state/m.room.member/{}", world.room, member.1);
        let content = world.ask(0, Method::GET, &path, &Value::Null).await;
        if content["membership"] != "join" {
            assert_ne!(other, 1, "nobody puts them out");
            continue;
        }
        let opinion = world.opinion(other).await;
        if let Some(out) = &opinion.out {
            // The others have undone that since: where levels were raised beside it, the algorithm puts those
            // first. Who is out is not told; nor does it count that somebody leaves who was just put out.
            assert_ne!(other, 1, "nobody puts them out");
            assert!(world.has(0, out).await, "{name} is out by {out}");
            continue;
        }
        if opinion != expected {
            world.report(seed).await;
        }
        assert_eq!(opinion.ends, expected.ends, "the ends at {name}");
        assert_eq!(opinion.state, expected.state, "the state at {name}");
        assert_eq!(opinion.graph, expected.graph, "the events at {name}");
    }
}

fn seeds() -> Seeds<u64> {
    let wanted = std::env::var("CHAPAR_SIMULATION_SEEDS").ok();
    let wanted = wanted.and_then(|wanted| {
        let (from, to) = wanted.split_once("..")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    wanted.unwrap_or(FEW)
}

#[test]
fn servers_that_were_cut_apart_agree_when_they_are_joined_again() {
    let mut failed = Vec::new();
    for seed in seeds() {
        // What the servers go on doing ends with their runtime.
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().unwrap();
        let run = AssertUnwindSafe(|| runtime.block_on(run(seed)));
        // The other seeds are to be seen too.
        if catch_unwind(run).is_err() {
            failed.push(seed);
        }
    }
    assert!(
        failed.is_empty(),
        "again with CHAPAR_SIMULATION_SEEDS=N..N+1, where N is one of {failed:?}"
    );
}
