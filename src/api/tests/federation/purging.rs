//! A room of another server that is removed from ours, with all that our people did in it, and then is entered
//! again.

use std::{sync::Arc, time::Duration};

use config::Config;
use http::Method;
use rooms::Room;
use serde_json::{Value, json};
use storage::{Clock, Topic, schema};
use tempfile::TempDir;

use super::Network;
use crate::{
    Server,
    tests::{ALL, request},
};

const NEAR: &str = "near.example";
const FAR: &str = "far.example";
const V3: &str = "/_matrix/client/v3";

/// So often somebody asks whether what they wait for has come.
const POLLS_MAX: usize = 400;

/// Somebody at their client.
struct Person {
    server: Server,
    id: String,
    token: String,
}

impl Person {
    async fn new(server: &Server, name: &str) -> Self {
        let auth = json!({ "type": "m.login.dummy" });
        let body = json!({ "username": name, "password": "correct horse", "auth": auth });
        let mut person = Self {
            server: server.clone(),
            id: String::new(),
            token: String::new(),
        };
        let made = person.ok(Method::POST, "/register", body).await;
        person.id = made["user_id"].as_str().unwrap().to_owned();
        person.token = made["access_token"].as_str().unwrap().to_owned();
        person
    }

    /// The path is whole, or below `/_matrix/client/v3`.
    async fn ask(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let path = match path.starts_with("/_") {
            true => path.to_owned(),
            false => format!("{V3}{path}"),
        };
        let body = match method {
            Method::GET => String::new(),
            _ => body.to_string(),
        };
        let mut request = request(method, &path, body);
        if !self.token.is_empty() {
            let token = format!("Bearer {}", self.token).parse().unwrap();
            request.headers_mut().insert("authorization", token);
        }
        let answer = self.server.answer(ALL, request).await;
        let body = serde_json::from_slice(answer.body().whole()).unwrap();
        (answer.status().as_u16(), body)
    }

    async fn ok(&self, method: Method, path: &str, body: Value) -> Value {
        let asked = format!("{method} {path}");
        let (status, body) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{asked}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, Value::Null).await
    }

    async fn say(&self, room: &str, content: Value) -> String {
        let name = content["body"].as_str().unwrap().replace(' ', "-");
        let path = format!("/rooms/{room}/send/m.room.message/{name}");
        let sent = self.ok(Method::PUT, &path, content).await;
        sent["event_id"].as_str().unwrap().to_owned()
    }

    async fn join(&self, room: &str) -> (u16, Value) {
        let path = format!("/join/{room}?via={FAR}");
        self.ask(Method::POST, &path, json!({})).await
    }

    /// The bodies of the messages that they see.
    async fn messages(&self, room: &str) -> Vec<String> {
        let path = format!("/rooms/{room}/messages?dir=b&limit=100");
        let page = self.get(&path).await;
        let events = page["chunk"].as_array().unwrap().iter();
        let bodies = events.filter_map(|event| event["content"]["body"].as_str());
        bodies.map(ToOwned::to_owned).collect()
    }
}

/// Asks until it is so.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..POLLS_MAX {
        if is_so().await {
            return;
        }
        // Lets others go on.
        let _ = tokio::time::timeout(Duration::from_millis(20), std::future::pending::<()>()).await;
    }
    panic!("{what} does not come");
}

/// Two servers, a room of the far one, and people of ours in it, who did all that people do in rooms.
struct World {
    clock: Clock,
    near: Server,
    alice: Person,
    bob: Person,
    dora: Person,
    room_id: String,
    room: Arc<Room>,
    _folders: [TempDir; 2],
}

impl World {
    async fn new() -> Self {
        let network = Network::default();
        let clock = Clock::standing_at(1_700_000_000_000);
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let mut servers = Vec::new();
        for (name, folder) in [NEAR, FAR].into_iter().zip(&folders) {
            let mut config = Config::default();
            config.registration.enabled = true;
            config.registration.require_token = false;
            config.rate_limits.enabled = false;
            config.storage.data = folder.path().to_owned();
            let server = network.server(name, &clock, config).await;
            server.begin_work();
            servers.push(server);
        }
        let (far, near) = (servers.pop().unwrap(), servers.pop().unwrap());
        let alice = Person::new(&near, "alice").await;
        let admin = alice.id.as_str().try_into().unwrap();
        near.users.set_admin(admin, true).await.unwrap();
        let bob = Person::new(&near, "bob").await;
        let dora = Person::new(&far, "dora").await;
        let room = json!({ "preset": "public_chat", "room_version": "11" });
        let room = dora.ok(Method::POST, "/createRoom", room).await;
        let room_id = room["room_id"].as_str().unwrap().to_owned();
        for person in [&alice, &bob] {
            assert_eq!(person.join(&room_id).await.0, 200);
        }
        let id = room_id.as_str().try_into().unwrap();
        let room = near.rooms.find_room(id).await.unwrap().unwrap();
        Self {
            clock,
            near,
            alice,
            bob,
            dora,
            room_id,
            room,
            _folders: folders,
        }
    }

    /// All that leaves rows behind.
    async fn live(&self) {
        let (room, alice, bob) = (&self.room_id, &self.alice, &self.bob);
        let levels = json!({ "users": { self.dora.id.as_str(): 100, alice.id.as_str(): 100 } });
        let path = format!("/rooms/{room}/state/m.room.power_levels/");
        self.dora.ok(Method::PUT, &path, levels).await;
        until("the power", async || {
            let levels = alice.get(&path).await;
            levels["users"][alice.id.as_str()] == 100
        })
        .await;
        let put = async |who: &Person, path: String, body: Value| {
            who.ok(Method::PUT, &path, body).await;
        };
        let post = async |who: &Person, path: String, body: Value| {
            who.ok(Method::POST, &path, body).await;
        };
        let hello = alice
            .say(room, json!({ "msgtype": "m.text", "body": "ocarina" }))
            .await;
        let mentions = json!({ "user_ids": [bob.id] });
        let mention = json!({ "msgtype": "m.text", "body": "psst", "m.mentions": mentions });
        alice.say(room, mention).await;
        for n in 0..3 {
            let relation = json!({ "rel_type": "m.thread", "event_id": hello });
            let body =
                json!({ "msgtype": "m.text", "body": format!("t{n}"), "m.relates_to": relation });
            bob.say(room, body).await;
        }
        let relation = json!({ "rel_type": "m.annotation", "event_id": hello, "key": "!" });
        let path = format!("/rooms/{room}/send/m.reaction/1");
        put(bob, path, json!({ "m.relates_to": relation })).await;
        let gone = bob
            .say(room, json!({ "msgtype": "m.text", "body": "oops" }))
            .await;
        put(bob, format!("/rooms/{room}/redact/{gone}/2"), json!({})).await;
        for kind in ["m.read", "m.read.private"] {
            post(
                bob,
                format!("/rooms/{room}/receipt/{kind}/{hello}"),
                json!({}),
            )
            .await;
        }
        let body = json!({ "m.fully_read": hello });
        post(bob, format!("/rooms/{room}/read_markers"), body).await;
        let path = format!("/user/{}/rooms/{room}", alice.id);
        put(alice, format!("{path}/tags/u.tag"), json!({ "order": 0.5 })).await;
        put(
            alice,
            format!("{path}/account_data/a.type"),
            json!({ "a": 1 }),
        )
        .await;
        put(
            alice,
            "/directory/room/%23here:near.example".to_owned(),
            json!({ "room_id": room }),
        )
        .await;
        put(
            alice,
            format!("/directory/list/room/{room}"),
            json!({ "visibility": "public" }),
        )
        .await;
        let path = format!(
            "/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{hello}/subscription"
        );
        put(bob, path, json!({})).await;
        let path =
            format!("/rooms/{room}/send/m.room.message/later?org.matrix.msc4140.delay=100000");
        put(bob, path, json!({ "msgtype": "m.text", "body": "later" })).await;
        put(
            bob,
            format!("/rooms/{room}/typing/{}", bob.id),
            json!({ "typing": true, "timeout": 30000 }),
        )
        .await;
        let carol = Person::new(&self.near, "carol").await;
        post(
            alice,
            format!("/rooms/{room}/invite"),
            json!({ "user_id": carol.id }),
        )
        .await;
        self.dora
            .say(room, json!({ "msgtype": "m.text", "body": "all heard" }))
            .await;
        until("what was said", async || {
            alice
                .messages(room)
                .await
                .iter()
                .any(|it| it == "all heard")
        })
        .await;
        until("what was said there", async || {
            self.dora.messages(room).await.iter().any(|it| it == "t2")
        })
        .await;
    }

    async fn delete(&self, body: Value) -> (u16, Value) {
        let path = format!("/_synapse/admin/v1/rooms/{}", self.room_id);
        self.alice.ask(Method::DELETE, &path, body).await
    }

    /// The tables in which the room is named, by whichever of these names.
    fn naming(&self, names: &[Vec<u8>]) -> Vec<u8> {
        let rows = self.near.storage.rows_of_model().into_iter();
        let naming = rows.filter(|(key, value)| {
            let holds = |name: &Vec<u8>| {
                let found = |bytes: &[u8]| bytes.windows(name.len()).any(|part| part == name);
                found(key) || found(value)
            };
            key[0] != schema::ONCE_BY_DAY.info.id && names.iter().any(holds)
        });
        let mut tables: Vec<_> = naming.map(|(key, _)| key[0]).collect();
        tables.dedup();
        tables
    }

    /// The room's names, and those of its events, as they lie in storage.
    async fn names(&self) -> Vec<Vec<u8>> {
        let storage = &self.near.storage;
        let path = format!("/rooms/{}/messages?dir=b&limit=100", self.room_id);
        let page = self.alice.get(&path).await;
        let mut names = vec![
            self.room.short.0.to_vec(),
            self.room_id.clone().into_bytes(),
            storage.room_hash(&self.room_id).0.to_vec(),
            b"#here:near.example".to_vec(),
        ];
        for event in page["chunk"].as_array().unwrap() {
            let id = event["event_id"].as_str().unwrap();
            names.push(id.as_bytes().to_vec());
            names.push(storage.event_hash(id).0.to_vec());
        }
        names
    }
}

#[tokio::test]
async fn a_room_that_is_removed_is_as_if_it_had_never_been_known() {
    let world = World::new().await;
    world.live().await;
    let (room, alice, bob, dora) = (&world.room_id, &world.alice, &world.bob, &world.dora);
    let names = world.names().await;
    assert!(names.len() > 30);
    assert!(
        world.naming(&names).len() > 30,
        "{:?}",
        world.naming(&names)
    );
    let search = json!({ "search_categories": { "room_events": { "search_term": "ocarina" } } });
    let found = async |count: u64| {
        let found = alice.ok(Method::POST, "/search", search.clone()).await;
        found["search_categories"]["room_events"]["count"] == count
    };
    until("the word", async || found(1).await).await;
    alice.get("/sync").await;

    let (status, done) = world.delete(json!({})).await;
    assert_eq!(status, 200, "{done}");
    let mut kicked: Vec<_> = done["kicked_users"].as_array().unwrap().clone();
    kicked.sort_by_key(ToString::to_string);
    assert_eq!(
        json!(kicked),
        json!([alice.id, bob.id, "@carol:near.example"])
    );
    assert_eq!(done["failed_to_kick_users"], json!([]));
    assert_eq!(done["local_aliases"], json!([]));
    assert_eq!(done["new_room_id"], Value::Null);
    let left = world.naming(&names);
    assert_eq!(
        left,
        [
            schema::JOB_BY_ID.info.id,
            schema::STREAM_BY_POSITION.info.id
        ]
    );

    // Other servers heard that our people left, and ours see nothing of it.
    let path = format!("/rooms/{room}/joined_members");
    until("that all left", async || {
        let members = dora.get(&path).await;
        members["joined"].as_object().unwrap().len() == 1
    })
    .await;
    for person in [alice, bob] {
        let sync = person.get("/sync?full_state=true").await;
        assert_eq!(sync["rooms"]["join"][room], Value::Null, "{sync}");
        assert_eq!(sync["rooms"]["leave"][room], Value::Null, "{sync}");
        let path = format!("/rooms/{room}/messages?dir=b");
        assert_eq!(person.ask(Method::GET, &path, Value::Null).await.0, 403);
    }
    until("that the index forgets", async || found(0).await).await;
    let alias = alice.ask(
        Method::GET,
        "/directory/room/%23here:near.example",
        Value::Null,
    );
    assert_eq!(alias.await.0, 404);
    let listed = alice.get("/publicRooms").await;
    assert_eq!(listed["total_room_count_estimate"], 0);
    assert_eq!(world.delete(json!({})).await.0, 404);

    // It is entered as any room of another server.
    let (status, joined) = alice.join(room).await;
    assert_eq!(status, 200, "{joined}");
    alice
        .say(room, json!({ "msgtype": "m.text", "body": "again" }))
        .await;
    until("what is said again", async || {
        dora.messages(room).await.iter().any(|it| it == "again")
    })
    .await;
    dora.say(room, json!({ "msgtype": "m.text", "body": "welcome" }))
        .await;
    until("the answer", async || {
        alice.messages(room).await.iter().any(|it| it == "welcome")
    })
    .await;
    let seen = alice.messages(room).await;
    assert!(seen.iter().any(|it| it == "ocarina"), "{seen:?}");

    // What is looked for once more does not touch the room as it is now.
    world.clock.advance(Duration::from_secs(11 * 60));
    world.near.storage.wake(&[Topic::Jobs]);
    let short = [world.room.short.0.to_vec()];
    until("the end", async || {
        world.naming(&short) == [schema::STREAM_BY_POSITION.info.id]
    })
    .await;
    alice
        .say(room, json!({ "msgtype": "m.text", "body": "still" }))
        .await;
    assert!(alice.messages(room).await.iter().any(|it| it == "ocarina"));
}

#[tokio::test]
async fn people_are_put_into_another_room_and_kept_out_of_the_old_one() {
    let world = World::new().await;
    let (room, alice, bob, dora) = (&world.room_id, &world.alice, &world.bob, &world.dora);
    let alias = "/directory/room/%23here:near.example";
    alice
        .ok(Method::PUT, alias, json!({ "room_id": room }))
        .await;
    let (status, refused) = world.delete(json!({ "new_room_user_id": dora.id })).await;
    assert_eq!(
        (status, &refused["errcode"]),
        (400, &json!("M_INVALID_PARAM"))
    );
    let nobody = json!({ "new_room_user_id": "@nobody:near.example" });
    assert_eq!(world.delete(nobody).await.0, 400);
    let path = format!("/_synapse/admin/v1/rooms/{room}");
    assert_eq!(bob.ask(Method::DELETE, &path, json!({})).await.0, 403);
    for wrong in [json!({ "block": 1 }), json!({ "purge": "no" }), json!([])] {
        assert_eq!(world.delete(wrong).await.0, 400);
    }

    let body = json!({
        "new_room_user_id": alice.id, "room_name": "Elsewhere", "message": "Because.",
        "block": true, "purge": false,
    });
    let (status, done) = world.delete(body).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["local_aliases"], json!(["#here:near.example"]));
    let new_room = done["new_room_id"].as_str().unwrap();
    assert_eq!(alice.get(alias).await["room_id"], new_room);
    assert_eq!(bob.messages(new_room).await, ["Because."]);
    let path = format!("/rooms/{new_room}/state/m.room.name");
    assert_eq!(bob.get(&path).await["name"], "Elsewhere");
    let path = format!("/rooms/{new_room}/send/m.room.message/1");
    let said = bob.ask(Method::PUT, &path, json!({ "body": "why" })).await;
    assert_eq!(said.0, 403);

    // Nothing is removed, and nobody comes back: by themselves, invited here, or from there.
    assert!(!world.naming(&[world.room.short.0.to_vec()]).is_empty());
    assert_eq!(bob.join(room).await.0, 403);
    let path = format!("/rooms/{room}/invite");
    let invited = dora
        .ask(Method::POST, &path, json!({ "user_id": bob.id }))
        .await;
    assert_ne!(invited.0, 200, "{}", invited.1);

    // The block outlives the room.
    let (status, done) = world.delete(json!({})).await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["kicked_users"], json!([]));
    let (status, refused) = bob.join(room).await;
    assert_eq!((status, &refused["errcode"]), (403, &json!("M_FORBIDDEN")));
    let unknown = format!("/_synapse/admin/v1/rooms/!unknown:{FAR}");
    let blocked = alice
        .ask(Method::DELETE, &unknown, json!({ "block": true }))
        .await;
    assert_eq!(blocked.0, 200, "{}", blocked.1);

    // It is seen who blocked it, and it can be taken back.
    let path = format!("/_synapse/admin/v1/rooms/{room}/block");
    let own = json!({ "block": true, "user_id": alice.id });
    assert_eq!(alice.get(&path).await, own);
    assert_eq!(bob.ask(Method::GET, &path, json!({})).await.0, 403);
    let lift = json!({ "block": false });
    assert_eq!(bob.ask(Method::PUT, &path, lift.clone()).await.0, 403);
    for wrong in [json!({}), json!({ "block": "no" })] {
        assert_eq!(alice.ask(Method::PUT, &path, wrong).await.0, 400);
    }
    alice.ok(Method::PUT, &path, lift.clone()).await;
    assert_eq!(alice.get(&path).await, lift);
    assert_eq!(bob.join(room).await.0, 200);
    alice.ok(Method::PUT, &path, json!({ "block": true })).await;
    assert_eq!(alice.get(&path).await, own);
}
