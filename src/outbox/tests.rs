//! The outbox on the model engine, at a standing clock, over a network in memory.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod devices;
mod outages;
mod random_walks;
mod rooms_and_servers;
mod turns;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use federation::{Broken, Federation, Limits, Transport};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use parking_lot::Mutex;
use pdu::{Pdu, SigningKey};
use rooms::{
    Draft, Group, Incoming, NewRoomRequest, Preset, Received, Room, Rooms, Said, Standing, Viewer,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, OwnedUserId, RoomVersionId,
    ServerName, UInt, server_name,
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use storage::{Clock, Faults, Random, Storage, schema};
use users::{NewAccount, Settings, Users};

use crate::{Outbox, Parts};

const NOW: u64 = 1_800_000_000_000;

/// What a server in the test does with transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Mood {
    #[default]
    Good,
    /// It cannot be reached.
    Away,
    /// It takes them, and its answers are lost.
    Mute,
    /// It refuses those with an event whose body contains this.
    Picky(String),
}

/// Other servers, which keep what they are sent.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<Servers>>);

#[derive(Default)]
struct Servers {
    moods: BTreeMap<OwnedServerName, Mood>,
    transactions: Vec<(OwnedServerName, Value)>,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Network {
    fn mood(&self, server: &str, mood: Mood) {
        let server = ServerName::parse(server).unwrap();
        self.0.lock().moods.insert(server, mood);
    }

    /// The transactions that a server took.
    fn taken(&self, server: &str) -> Vec<Value> {
        let servers = self.0.lock();
        let of = servers.transactions.iter().filter(|(to, _)| to == server);
        of.map(|(_, transaction)| transaction.clone()).collect()
    }

    /// Members of what it was sent, in order.
    fn all(&self, server: &str, kind: &str) -> Vec<Value> {
        let members =
            |transaction: Value| transaction[kind].as_array().cloned().unwrap_or_default();
        self.taken(server).into_iter().flat_map(members).collect()
    }

    /// The bodies of the messages that a server was sent, in order.
    fn bodies(&self, server: &str) -> Vec<String> {
        let pdus = self.all(server, "pdus");
        let bodies = pdus
            .iter()
            .filter_map(|pdu| pdu["content"]["body"].as_str());
        bodies.map(ToOwned::to_owned).collect()
    }

    /// The contents of the EDUs of a type that a server was sent, in order.
    fn edus(&self, server: &str, edu_type: &str) -> Vec<Value> {
        let edus = self.all(server, "edus").into_iter();
        let edus = edus.filter(|edu| edu["edu_type"] == edu_type);
        edus.map(|edu| edu["content"].clone()).collect()
    }

    fn bring(&self, to: &ServerName, request: &Request<Bytes>) -> Result<Response<Bytes>, Broken> {
        let mut servers = self.0.lock();
        let mood = servers.moods.get(to).cloned().unwrap_or_default();
        let unreachable = || Err(Broken::Unreachable("it is away".to_owned()));
        if mood == Mood::Away {
            return unreachable();
        }
        let path = request.uri().path();
        if path == "/_matrix/key/v2/server" {
            return Ok(Response::new(keys_of(to).into()));
        }
        let mut body: Value = serde_json::from_slice(request.body()).unwrap();
        if path.starts_with("/_matrix/federation/v2/invite/") {
            let signature = json!({ "ed25519:1": "A".repeat(86) });
            body["event"]["signatures"][to.as_str()] = signature;
            let taken = json!({ "event": body["event"] });
            return Ok(Response::new(Bytes::from(taken.to_string())));
        }
        assert!(path.starts_with("/_matrix/federation/v1/send/"));
        let (pdus, edus) = (body["pdus"].as_array().unwrap(), body["edus"].as_array());
        assert!(pdus.len() <= 50 && edus.is_none_or(|edus| edus.len() <= 100));
        if let Mood::Picky(word) = &mood
            && body.to_string().contains(word)
        {
            let refusal = Bytes::from_static(b"{\"errcode\":\"M_BAD_JSON\",\"error\":\"no\"}");
            return Ok(Response::builder().status(400).body(refusal).unwrap());
        }
        servers.transactions.push((to.to_owned(), body));
        match mood {
            Mood::Mute => unreachable(),
            _ => Ok(Response::new(Bytes::from_static(b"{\"pdus\":{}}"))),
        }
    }
}

/// The key with which all servers of the network sign.
fn far_key() -> SigningKey {
    SigningKey::from_seed(&[2; 32], "far").unwrap()
}

/// What a server says of its key.
fn keys_of(server: &ServerName) -> String {
    let key = far_key();
    let mut keys = json!({
        "server_name": server, "old_verify_keys": {},
        "verify_keys": { key.key_id().as_str(): { "key": key.verify_key().to_base64() } },
        "valid_until_ts": NOW + 7 * 24 * 60 * 60 * 1_000,
    });
    let signature = key.sign_base64(keys.to_string().as_bytes());
    keys["signatures"] = json!({ server.as_str(): { key.key_id().as_str(): signature } });
    keys.to_string()
}

impl Transport for Network {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        async move { self.bring(to, &request) }.boxed()
    }
}

/// A server without HTTP, a few people on it, and others around it.
struct World {
    storage: Storage,
    clock: Clock,
    network: Network,
    federation: Federation,
    users: Users,
    rooms: Rooms,
    outbox: Outbox,
    people: Vec<Viewer>,
    key: SigningKey,
}

impl World {
    async fn new(names: &[&str]) -> Self {
        let clock = Clock::standing_at(NOW);
        let storage = Storage::model_on(clock.clone(), Faults::NONE);
        let (network, random) = (Network::default(), Random::seeded(1));
        let name = server_name!("a.example");
        let federation = Federation::open(federation::Parts {
            transport: Arc::new(network.clone()),
            ..federation::Parts::alone(&storage, name, &clock, &random)
        });
        let federation = federation.await.unwrap();
        let users = Users::open(&storage, &federation, &clock, &random, Settings::default());
        let users = users.await.unwrap();
        let rooms = Rooms::new(rooms::Parts {
            storage: storage.clone(),
            server_name: name.to_owned(),
            federation: federation.clone(),
            clock: clock.clone(),
            random: random.clone(),
        });
        let mut people = Vec::new();
        for name in names {
            let new = NewAccount {
                username: name,
                ..NewAccount::default()
            };
            let account = users.create(new).await.unwrap();
            people.push(Viewer {
                device: storage.user_device_hash(account.user_id.as_str(), "ONE"),
                user_id: account.user_id,
                short: account.user,
            });
        }
        let mut world = Self {
            outbox: Outbox::new(Parts {
                storage: storage.clone(),
                users: users.clone(),
                rooms: rooms.clone(),
                federation: federation.clone(),
                clock: clock.clone(),
                random,
            }),
            storage,
            clock,
            network,
            federation,
            users,
            rooms,
            people,
            key: far_key(),
        };
        world.restart(1);
        world
    }

    /// The process is killed, and there is a new one.
    fn restart(&mut self, seed: u64) {
        self.outbox = Outbox::new(Parts {
            storage: self.storage.clone(),
            users: self.users.clone(),
            rooms: self.rooms.clone(),
            federation: self.federation.clone(),
            clock: self.clock.clone(),
            random: Random::seeded(seed),
        });
    }

    /// Reads on and sends until nothing is due.
    async fn send_all(&self) {
        loop {
            self.outbox.look().await.unwrap();
            let (due, _) = self.outbox.due(100);
            if due.is_empty() {
                return;
            }
            for server in due {
                self.outbox.send_one(&server).await;
            }
        }
    }

    fn id(&self, person: usize) -> &OwnedUserId {
        &self.people[person].user_id
    }

    async fn room(&self, creator: usize) -> Arc<Room> {
        let request = NewRoomRequest {
            creator: self.id(creator).clone(),
            version: RoomVersionId::V11,
            creation_content: Map::new(),
            preset: Preset::PublicChat,
            public: false,
            initial_state: Vec::new(),
            invite: Vec::new(),
            is_direct: false,
            name: None,
            topic: None,
            alias: None,
            power_level_content_override: None,
            notices_of: None,
        };
        let room_id = self.rooms.create(request).await.unwrap();
        self.rooms.room(&room_id).await.unwrap()
    }

    async fn say(&self, room: &Arc<Room>, text: &str) -> OwnedEventId {
        let content = to_raw_value(&json!({ "msgtype": "m.text", "body": text })).unwrap();
        let draft = Draft::message(self.id(0).clone(), "m.room.message", content);
        let ids = self.rooms.send(room, Group::one(draft)).await.unwrap();
        ids[0].clone()
    }

    async fn set(&self, room: &Arc<Room>, event_type: &str, key: &str, content: Value) {
        let content = to_raw_value(&content).unwrap();
        let draft = Draft::state(self.id(0).clone(), event_type, key, content);
        self.rooms.send(room, Group::one(draft)).await.unwrap();
    }

    /// Somebody elsewhere comes into a room, or leaves it.
    async fn far_member(&self, room: &Arc<Room>, user: &str, membership: &str) {
        let user = OwnedUserId::try_from(user).unwrap();
        let pdu = self.far_event(room, &user, membership).await;
        let incoming = Incoming {
            pdu: Arc::new(pdu),
            standing: Standing::Live { state_before: None },
        };
        let received = self.rooms.receive(room, incoming).await.unwrap();
        assert_eq!(received, Received::Accepted);
    }

    /// Somebody elsewhere comes into a room through us.
    async fn far_join_through_us(&self, room: &Arc<Room>, user: &str) {
        let user = OwnedUserId::try_from(user).unwrap();
        let pdu = self.far_event(room, &user, "join").await;
        let raw = RawValue::from_string(String::from_utf8(pdu.json().to_vec()).unwrap()).unwrap();
        let (server, id) = (user.server_name(), pdu.event_id());
        let join = schema::Membership::Join;
        let taken = self
            .rooms
            .take_member(server, &room.room_id, id, &raw, join);
        taken.await.unwrap();
    }

    async fn far_event(&self, room: &Room, user: &OwnedUserId, membership: &str) -> Pdu {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let heads = snapshot
            .multi_get(&schema::HEAD_BY_ROOM, &[room.short])
            .await;
        let head = heads.unwrap().pop().flatten().unwrap().value;
        let content = to_raw_value(&json!({ "membership": membership })).unwrap();
        let kind = "m.room.member".into();
        let types = pdu::auth_types(&kind, user, Some(user.as_str()), &content, room.rules);
        let types: Vec<_> = types.into_iter().collect();
        let found = room
            .find_state(&snapshot, &[head.root], &types)
            .await
            .unwrap();
        let numbers: BTreeSet<_> = found.into_values().collect();
        let numbers: Vec<_> = numbers.into_iter().collect();
        let events = room.read_state(&snapshot, &numbers).await.unwrap();
        let ids = events.into_iter().flatten();
        let ids = ids.map(|event| OwnedEventId::try_from(event.row.header.event_id).unwrap());
        let prev = head.extremities.iter();
        let draft = pdu::Draft {
            room_id: Some(room.room_id.clone()),
            event_type: kind,
            state_key: Some(user.to_string()),
            content,
            prev_events: prev
                .map(|one| OwnedEventId::try_from(one.event_id.as_str()).unwrap())
                .collect(),
            auth_events: ids.collect(),
            depth: head.next_slot + 1,
            origin_server_ts: MilliSecondsSinceUnixEpoch(UInt::new_saturating(NOW)),
            redacts: None,
            reference_hashes: BTreeMap::new(),
            sender: user.clone(),
        };
        draft
            .sign(room.rules, &self.key, user.server_name())
            .unwrap()
    }

    async fn count<K: storage::Key, V: storage::Value>(&self, table: &storage::Table<K, V>) -> usize
    where
        (): storage::KeyPrefix<K>,
    {
        let snapshot = self.rooms.snapshot().await.unwrap();
        let rows = snapshot
            .multi_range(table, &[storage::Range::prefix(&())])
            .await;
        rows.unwrap().remove(0).len()
    }

    /// Time goes by until everybody who is left alone may be asked again.
    fn wait(&self) {
        self.clock.advance(Duration::from_secs(24 * 60 * 60));
    }

    async fn kick(&self, room: &Arc<Room>, user: &str) {
        let content = json!({ "membership": "leave" });
        self.set(room, "m.room.member", user, content).await;
    }

    async fn join(&self, room: &Arc<Room>, person: usize) {
        let said = Said::default();
        self.rooms
            .join(room, self.id(person), &[], said)
            .await
            .unwrap();
    }
}

/// Texts that tell messages apart.
fn texts(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("text {n}")).collect()
}
