//! Joins by an answer without most members, who are told later.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Request, Response};
use parking_lot::Mutex;
use rooms::{Incoming, Received, Standing};
use ruma::{OwnedEventId, OwnedUserId, UserId};
use serde_json::{Map, Value, json, value::RawValue};
use storage::{
    Batch, Faults, Topic,
    schema::{HEAD_BY_ROOM, Membership},
};

use super::{
    B, Person, World, name,
    played::{EVIL, EvilRoom},
};
use crate::{Parts, Server};

fn joined() -> Value {
    json!({ "membership": "join" })
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:{EVIL}")).unwrap()
}

/// Whether an event is what a path names.
fn is_named(event: &pdu::Pdu, id: &str) -> bool {
    id.ends_with(event.event_id().as_str().trim_start_matches('$'))
}

/// A room into which Bob came, while the server that let him in keeps the rest to itself.
struct Partial {
    world: World,
    server: Server,
    bob: Person,
    room: EvilRoom,
    /// Whether it tells the rest.
    tells: Arc<AtomicBool>,
    /// How often it was asked for keys of its people.
    keys_asked: Arc<AtomicUsize>,
    /// What it says is the latest event of the room.
    latest: Arc<Mutex<Option<OwnedEventId>>>,
    /// What it says is Bob's membership, each but the last once.
    known: Arc<Mutex<VecDeque<OwnedEventId>>>,
}

impl Partial {
    /// A room in which Dana and Dora are.
    async fn new(version: &str) -> Self {
        Self::of(version, |room| {
            let members: Vec<_> = ["dana", "dora"].map(user).into();
            for member in &members {
                room.put_by(member, "m.room.member", member.as_str(), &joined());
            }
            members
        })
        .await
    }

    /// A room of which members are left out, as this says.
    async fn of(version: &str, fill: impl FnOnce(&mut EvilRoom) -> Vec<OwnedUserId>) -> Self {
        let world = World::new();
        let server = world.server(B).await;
        let bob = Person::new(&server, "bob").await;
        let peer = world.network.peer(EVIL, &world.clock).await;
        let mut room = EvilRoom::new(&peer, version);
        let members = fill(&mut room);
        let members: Vec<&UserId> = members.iter().map(|one| &**one).collect();
        let tells = Arc::new(AtomicBool::new(false));
        let latest: Arc<Mutex<Option<OwnedEventId>>> = Arc::default();
        let told_latest = Arc::clone(&latest);
        let known: Arc<Mutex<VecDeque<OwnedEventId>>> = Arc::default();
        let told_known = Arc::clone(&known);
        let template = room.template("");
        let (some, whole) = (room.state_without(&members), room.whole_state());
        let (some, whole) = (some.to_string(), whole.to_string());
        let ids = room.whole_state_ids().to_string();
        let keys = String::from_utf8(peer.own_keys_answer()).unwrap();
        let events = room.events.clone();
        let open = Arc::clone(&tells);
        let keys_asked = Arc::new(AtomicUsize::new(0));
        let asked = Arc::clone(&keys_asked);
        world
            .network
            .play(&name(EVIL), move |request: Request<Bytes>| {
                let path = request.uri().path();
                let open = open.load(Ordering::SeqCst);
                let body = if path.contains("/make_join/") {
                    let (_, user) = path.rsplit_once('/').unwrap();
                    let user = user.replace("%40", "@").replace("%3A", ":");
                    let mut template = template.clone();
                    let event = &mut template["event"];
                    event["sender"] = json!(user);
                    event["state_key"] = json!(user);
                    if let Some(latest) = &*told_latest.lock() {
                        event["prev_events"] = json!([latest]);
                    }
                    let mut known = told_known.lock();
                    if let Some(first) = known.front() {
                        event["auth_events"]
                            .as_array_mut()
                            .unwrap()
                            .push(json!(first));
                    }
                    if known.len() > 1 {
                        known.pop_front();
                    }
                    template.to_string()
                } else if path.contains("/send_join/") {
                    assert_eq!(request.uri().query(), Some("omit_members=true"));
                    some.clone()
                } else if path.contains("/state_ids/") && open {
                    ids.clone()
                } else if path.contains("/state/") && open {
                    whole.clone()
                } else if path.ends_with("/user/keys/query") {
                    asked.fetch_add(1, Ordering::SeqCst);
                    let asked: Value = serde_json::from_slice(request.body()).unwrap();
                    let users = asked["device_keys"].as_object().unwrap().keys();
                    let devices = users.map(|user| (user.clone(), json!({})));
                    json!({ "device_keys": devices.collect::<Map<_, _>>() }).to_string()
                } else if path.contains("/key/") {
                    keys.clone()
                } else if let Some((_, id)) = path.split_once("/event/")
                    && let Some(event) = events.iter().find(|one| is_named(one, id))
                {
                    let pdu: Value = serde_json::from_slice(event.json()).unwrap();
                    json!({ "origin": EVIL, "origin_server_ts": 1, "pdus": [pdu] }).to_string()
                } else {
                    let refused = Response::builder().status(404);
                    return refused
                        .body("{\"errcode\":\"M_NOT_FOUND\"}".into())
                        .unwrap();
                };
                Response::new(body.into())
            });
        bob.join(room.room_id.as_str(), &[EVIL]).await.ok();
        Self {
            world,
            server,
            bob,
            room,
            tells,
            keys_asked,
            latest,
            known,
        }
    }

    /// The other servers that hear of what happens in the room now.
    async fn servers(&self) -> Vec<String> {
        let rooms = &self.server.rooms;
        let room = rooms.find_room(&self.room.room_id).await.unwrap().unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        let heads = snapshot.multi_get(&HEAD_BY_ROOM, &[room.short]).await;
        let root = heads.unwrap().remove(0).unwrap().value.root;
        let servers = rooms.servers_at(&snapshot, &room, &[root]).await.unwrap();
        servers[0].iter().map(ToString::to_string).collect()
    }

    /// What the room knows of somebody now.
    async fn member(&self, user: &UserId) -> Option<(Membership, OwnedEventId)> {
        let rooms = &self.server.rooms;
        let room = rooms.find_room(&self.room.room_id).await.unwrap().unwrap();
        let snapshot = rooms.snapshot().await.unwrap();
        room.member(rooms, &snapshot, user).await.unwrap()
    }

    async fn membership(&self, user: &UserId) -> Option<Membership> {
        self.member(user).await.map(|(membership, _)| membership)
    }

    /// Whether we hear of somebody's devices.
    async fn shares(&self, user: &UserId) -> bool {
        let rooms = &self.server.rooms;
        let snapshot = rooms.snapshot().await.unwrap();
        let known = rooms.known_devices(&snapshot, &[user.to_owned()]).await;
        known.unwrap()[0].shared
    }

    /// How often the other server is asked when Bob twice wants to know somebody's keys.
    async fn asked_twice(&self, user: &UserId) -> usize {
        let before = self.keys_asked.load(Ordering::SeqCst);
        for _ in 0..2 {
            let body = json!({ "device_keys": { user.as_str(): [] } });
            self.bob.post("/keys/query", body).await.ok();
        }
        self.keys_asked.load(Ordering::SeqCst) - before
    }

    /// The event by which Bob came in.
    async fn join_of_bob(&self) -> OwnedEventId {
        self.member(&self.bob.user_id).await.unwrap().1
    }

    async fn live(&self, pdu: &pdu::Pdu) -> Received {
        let standing = Standing::Live { state_before: None };
        self.receive(pdu, standing).await
    }

    fn path(&self, rest: &str) -> String {
        format!("/rooms/{}/{rest}", self.room.room_id)
    }

    async fn state(&self) -> Vec<String> {
        let state = self.bob.get(&self.path("state")).await.ok();
        let events = state.as_array().unwrap().iter();
        let mut keys: Vec<_> = events
            .map(|one| {
                format!(
                    "{} {}",
                    one["type"].as_str().unwrap(),
                    one["state_key"].as_str().unwrap()
                )
            })
            .collect();
        keys.sort();
        keys
    }

    /// Takes an event that comes from afar.
    async fn receive(&self, pdu: &pdu::Pdu, standing: Standing) -> Received {
        let room = self.server.rooms.find_room(&self.room.room_id).await;
        let room = room.unwrap().unwrap();
        let pdu = Arc::new(pdu.clone());
        let incoming = Incoming { pdu, standing };
        let received = self.server.rooms.receive(&room, incoming);
        received.await.unwrap()
    }

    /// Lets the rest be told, and waits for it.
    async fn fill(&self) -> Value {
        self.fill_for(&self.bob).await
    }

    /// Lets the rest be told, and wakes who asks for it.
    async fn let_tell(&self) {
        self.tells.store(true, Ordering::SeqCst);
        self.world.clock.advance(Duration::from_secs(10));
        let mut batch = Batch::new();
        batch.wake(Topic::Jobs);
        self.server.storage.commit(batch).await.unwrap();
    }

    /// Another process takes over what the first one has stored.
    async fn restart(&mut self) {
        let parts = Parts {
            transport: Arc::new(self.world.network.clone()),
            ..(**self.server).clone()
        };
        self.server = self.world.network.open(parts).await;
        self.bob.server = self.server.clone();
    }

    async fn fill_for(&self, person: &Person) -> Value {
        self.let_tell().await;
        person.get(&self.path("joined_members")).await.ok()
    }
}

#[tokio::test]
async fn a_room_is_used_before_all_of_it_is_known() {
    for version in ["6", "11", "12"] {
        let partial = Partial::new(version).await;
        let bob = &partial.bob;
        let said = json!({ "msgtype": "m.text", "body": "here already" });
        bob.put(&partial.path("send/m.room.message/1"), said)
            .await
            .ok();
        assert_eq!(partial.membership(&user("dana")).await, None, "{version}");
        let dana = format!("m.room.member {}", user("dana"));
        let one = format!("state/m.room.member/{}", user("dana"));
        for waits in ["members", "joined_members", "state", &one] {
            let answer = bob.get(&partial.path(waits)).now_or_never();
            assert!(answer.is_none(), "{version}: {waits}");
        }
        bob.get(&partial.path("state/m.room.name/")).await.ok();
        let members = partial.fill().await;
        for member in [user("dana"), user("dora"), user("eve"), bob.user_id.clone()] {
            assert!(
                members["joined"][member.as_str()].is_object(),
                "{version}: {members}"
            );
        }
        assert!(partial.state().await.contains(&dana), "{version}");
        let members = bob.get(&partial.path("members")).await.ok();
        assert_eq!(members["chunk"].as_array().unwrap().len(), 4, "{version}");
    }
}

#[tokio::test]
async fn what_allows_an_event_is_asked_for_and_not_all_that_allows_this() {
    let partial = Partial::new("11").await;
    let dana = user("dana");
    let said = json!({ "msgtype": "m.text", "body": "from somebody who is not known" });
    let said = partial.room.make_by(&dana, "m.room.message", None, &said);
    let said = partial.room.after(&said, &partial.join_of_bob().await);
    let raw = String::from_utf8(said.json().to_vec()).unwrap();
    let raw = RawValue::from_string(raw).unwrap();
    let (rooms, evil) = (&partial.server.rooms, name(EVIL));
    let taken = rooms.receive_pdus(&evil, &partial.room.room_id, vec![raw]);
    taken.await.unwrap();
    rooms.nothing_waits().await;
    assert_eq!(partial.membership(&dana).await, Some(Membership::Join));
    let asked = partial.world.network.asked_of(&name(EVIL));
    assert!(
        asked.iter().any(|path| path.contains("/event/")),
        "{asked:?}"
    );
    let chain = asked.iter().find(|path| path.contains("/event_auth/"));
    assert_eq!(chain, None);
}

#[tokio::test]
async fn who_speaks_meanwhile_is_known_by_what_allows_it() {
    let mut partial = Partial::new("11").await;
    let dana = user("dana");
    let own = (("m.room.member").to_owned(), dana.to_string());
    let own = partial.room.state[&own].clone();
    let joined = partial.room.events.iter().find(|pdu| pdu.event_id() == own);
    let joined = Arc::clone(joined.unwrap());
    let outlier = partial.receive(&joined, Standing::Outlier).await;
    assert_eq!(outlier, Received::Accepted);
    let said = json!({ "msgtype": "m.text", "body": "me too" });
    let mut said = partial.room.make_by(&dana, "m.room.message", None, &said);
    // It follows Bob's join, which is what the room has here.
    let join = partial.join_of_bob().await;
    said = partial.room.after(&said, &join);
    assert_eq!(partial.live(&said).await, Received::Accepted);
    assert_eq!(partial.membership(&dana).await, Some(Membership::Join));
    assert!(partial.shares(&dana).await && !partial.shares(&user("dora")).await);
    assert_eq!(partial.asked_twice(&user("dora")).await, 2);
    assert_eq!(partial.asked_twice(&dana).await, 1);
    // Somebody who was never there is not let in by it.
    let mallory = user("mallory");
    let forged = json!({ "msgtype": "m.text", "body": "and me" });
    let forged = partial
        .room
        .make_by(&mallory, "m.room.message", None, &forged);
    let forged = partial.room.after(&forged, &join);
    let refused = partial.live(&forged).await;
    assert!(matches!(refused, Received::Rejected(_)), "{refused:?}");
    // What changes meanwhile counts more than what was before.
    let renamed = json!({ "name": "Since then" });
    let renamed = partial.room.make("m.room.name", "", &renamed);
    let renamed = partial.room.after(&renamed, said.event_id());
    assert_eq!(partial.live(&renamed).await, Received::Accepted);
    partial
        .room
        .put("m.room.topic", "", &json!({ "topic": "never told" }));
    partial.fill().await;
    assert!(partial.shares(&user("dora")).await);
    assert_eq!(partial.asked_twice(&user("dora")).await, 1);
    // What was said of Dana's devices since she is known to be here still holds.
    assert_eq!(partial.asked_twice(&dana).await, 0);
    let name = partial
        .bob
        .get(&partial.path("state/m.room.name/"))
        .await
        .ok();
    assert_eq!(name["name"], "Since then");
    let state = partial.state().await;
    assert!(
        state.contains(&format!("m.room.member {}", user("dora"))),
        "{state:?}"
    );
}

/// What happened in a room while not all its members were known, and what of it counts when they are: it had a
/// moderator, Mia, who left before Bob came, and of whom nothing was told.
struct Misjudged {
    partial: Partial,
    /// Mia throws Dana out and sets the topic: taken in, and wrongly.
    kick: pdu::Pdu,
    topic: pdu::Pdu,
    /// Dana names the room and throws Zoe out, who had just come: refused, and wrongly.
    named: pdu::Pdu,
    out: pdu::Pdu,
    /// Zoe comes again, and Eve goes on after all this.
    said: pdu::Pdu,
}

/// A room with a moderator who left before Bob came, and the event by which she once came.
async fn with_former_moderator() -> (Partial, OwnedEventId) {
    let (mia, dana) = (user("mia"), user("dana"));
    let mut stale = None;
    let partial = Partial::of("11", |room| {
        let levels = json!({ "users": {
            "@eve:evil.example": 100, mia.as_str(): 100, dana.as_str(): 50,
        } });
        room.put("m.room.power_levels", "", &levels);
        room.put_by(&dana, "m.room.member", dana.as_str(), &joined());
        room.put_by(&mia, "m.room.member", mia.as_str(), &joined());
        stale = room.events.last().map(|pdu| pdu.event_id().to_owned());
        let left = json!({ "membership": "leave" });
        room.put_by(&mia, "m.room.member", mia.as_str(), &left);
        // The last event before Bob's join.
        room.put("m.room.topic", "", &json!({ "topic": "before" }));
        vec![mia.clone(), dana.clone()]
    });
    (partial.await, stale.unwrap())
}

impl Misjudged {
    async fn new() -> Self {
        let (mut partial, stale) = with_former_moderator().await;
        let (mia, dana) = (user("mia"), user("dana"));
        let now = partial.room.state.clone();
        for pdu in partial.room.events.clone() {
            if [&mia, &dana].iter().any(|user| pdu.sender() == **user) && *pdu.event_id() != stale {
                continue;
            }
            partial.receive(&pdu, Standing::Outlier).await;
        }
        let of_dana = now[&("m.room.member".to_owned(), dana.to_string())].clone();
        let own = partial.room.events.iter();
        let own = own.clone().find(|pdu| *pdu.event_id() == of_dana).cloned();
        partial.receive(&own.unwrap(), Standing::Outlier).await;
        // Mia names the event by which she once came, and not that by which she left.
        let of_mia = ("m.room.member".to_owned(), mia.to_string());
        partial.room.state.insert(of_mia.clone(), stale);
        let zoe = user("zoe");
        let come = partial
            .room
            .make_by(&zoe, "m.room.member", Some(zoe.as_str()), &joined());
        let come = partial.room.after(&come, &partial.join_of_bob().await);
        let of_zoe = ("m.room.member".to_owned(), zoe.to_string());
        let come_id = come.event_id().to_owned();
        partial.room.state.insert(of_zoe, come_id);
        let room = &partial.room;
        let leave = json!({ "membership": "leave" });
        let kick = room.make_by(&mia, "m.room.member", Some(dana.as_str()), &leave);
        let kick = room.after(&kick, come.event_id());
        let topic = json!({ "topic": "by nobody" });
        let topic = room.make_by(&mia, "m.room.topic", Some(""), &topic);
        let topic = room.after(&topic, kick.event_id());
        let named = json!({ "name": "By Dana" });
        let named = room.make_by(&dana, "m.room.name", Some(""), &named);
        let named = room.after(&named, topic.event_id());
        let out = room.make_by(&dana, "m.room.member", Some(zoe.as_str()), &leave);
        let out = room.after(&out, named.event_id());
        let again = json!({ "membership": "join", "displayname": "Zoe" });
        let again = room.make_by(&zoe, "m.room.member", Some(zoe.as_str()), &again);
        let again = room.after(&again, out.event_id());
        let said = json!({ "msgtype": "m.text", "body": "and on" });
        let said = room.make_by(&super::played::eve(), "m.room.message", None, &said);
        let said = room.after(&said, again.event_id());
        for (event, accepted) in [
            (&come, true),
            (&kick, true),
            (&topic, true),
            (&named, false),
            (&out, false),
            (&again, true),
            (&said, true),
        ] {
            let received = partial.live(event).await;
            assert_eq!(received == Received::Accepted, accepted, "{received:?}");
        }
        assert_eq!(partial.asked_twice(&zoe).await, 1);
        let told = Self {
            partial,
            kick,
            topic,
            named,
            out,
            said,
        };
        assert!(told.shows(&told.kick).await && !told.shows(&told.named).await);
        told
    }

    async fn shows(&self, event: &pdu::Pdu) -> bool {
        let path = format!("event/{}", event.event_id());
        self.partial.bob.get(&self.partial.path(&path)).await.status == 200
    }

    /// All of it, once the members are known.
    async fn check(&self, members: Value) {
        let (partial, joined) = (&self.partial, &members["joined"]);
        assert!(joined[user("dana").as_str()].is_object(), "{members}");
        assert!(!joined[user("mia").as_str()].is_object(), "{members}");
        for (event, is_shown) in [
            (&self.kick, false),
            (&self.topic, false),
            (&self.named, true),
            (&self.out, true),
            (&self.said, true),
        ] {
            assert_eq!(self.shows(event).await, is_shown, "{event:?}");
        }
        let content = async |path: &str| partial.bob.get(&partial.path(path)).await.ok();
        assert_eq!(content("state/m.room.topic/").await["topic"], "before");
        assert_eq!(content("state/m.room.name/").await["name"], "By Dana");
        // Zoe was out of the room for a while: what was said of her devices before that may be old.
        assert_eq!(partial.asked_twice(&user("zoe")).await, 1);
        // It is the latest that people see, as they have not seen it before.
        let page = content("messages?dir=b&limit=3").await;
        let chunk = page["chunk"].as_array().unwrap();
        let named = json!(self.named.event_id());
        assert!(chunk.iter().any(|one| one["event_id"] == named), "{page}");
        let page = content("messages?dir=b&limit=100").await;
        let chunk = page["chunk"].as_array().unwrap().iter();
        let times = chunk.filter(|one| one["event_id"] == named).count();
        assert_eq!(times, 1, "{page}");
        // The room goes on from what everybody else goes on from.
        let body = json!({ "msgtype": "m.text", "body": "" });
        let path = partial.path("send/m.room.message/2");
        partial.bob.put(&path, body).await.ok();
    }
}

#[tokio::test]
async fn what_was_judged_without_members_is_judged_again_with_them() {
    let told = Misjudged::new().await;
    told.check(told.partial.fill().await).await;
}

/// What the first process has to get as far as it can. If that is less than it could, it is stopped where it is.
const A_WHILE: Duration = Duration::from_millis(200);

/// A runtime of one thread, with which all that runs on it ends.
fn process() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn the_rest_is_told_whenever_the_server_is_stopped() {
    let mut stops = 0;
    loop {
        let first = process();
        let mut told = first.block_on(Misjudged::new());
        let whole = first.block_on(async {
            let (server, room) = (&told.partial.server, &told.partial.room);
            // One commit wakes who asks.
            server.storage.misbehave(Faults {
                stops_after: Some(1 + stops),
                ..Faults::NONE
            });
            told.partial.let_tell().await;
            let whole = server.rooms.await_whole_state(&room.room_id);
            tokio::time::timeout(A_WHILE, whole).await.is_ok()
        });
        drop(first);
        process().block_on(async {
            told.partial.server.storage.misbehave(Faults::NONE);
            told.partial.restart().await;
            told.check(told.partial.fill().await).await;
        });
        if whole {
            break;
        }
        stops += 1;
    }
    assert!(stops >= 4, "it takes several commits: {stops}");
}

#[tokio::test]
async fn who_comes_back_is_heard_by_servers_whose_people_are_left_out_again() {
    let partial = Partial::of("11", |_| vec![user("eve")]).await;
    assert_eq!(partial.servers().await, [EVIL]);
    partial.fill().await;
    assert_eq!(partial.servers().await, [EVIL]);
    partial.tells.store(false, Ordering::SeqCst);
    let room = partial.room.room_id.as_str();
    partial.bob.leave(room).await.ok();
    partial.bob.join(room, &[EVIL]).await.ok();
    assert_eq!(partial.membership(&user("eve")).await, None);
    assert_eq!(partial.servers().await, [EVIL]);
}

#[tokio::test]
async fn a_server_that_has_not_heard_of_a_leave_is_asked_again() {
    let partial = Partial::new("11").await;
    partial.fill().await;
    let room = partial.room.room_id.as_str();
    let join = partial.join_of_bob().await;
    partial.bob.leave(room).await.ok();
    let (_, leave) = partial.member(&partial.bob.user_id).await.unwrap();
    *partial.latest.lock() = Some(leave.clone());
    *partial.known.lock() = [join.clone(), join, leave].into();
    partial.bob.join(room, &[EVIL]).await.ok();
    let asked = partial.world.network.asked_of(&name(EVIL));
    let asked = asked.iter().filter(|what| what.contains("/make_join/"));
    assert_eq!(asked.count(), 1 + 3);
}

#[tokio::test]
async fn who_leaves_before_all_is_known_comes_back_to_the_same_room() {
    for goes_on in [true, false] {
        let partial = Partial::new("11").await;
        who_comes_back(partial, goes_on).await;
    }
}

async fn who_comes_back(partial: Partial, goes_on: bool) {
    let bob = &partial.bob;
    let room = partial.room.room_id.as_str();
    bob.leave(room).await.ok();
    if goes_on {
        // Word of it has come to those who let people in.
        let (left, leave) = partial.member(&bob.user_id).await.unwrap();
        assert_eq!(left, Membership::Leave);
        *partial.latest.lock() = Some(leave);
    }
    assert_eq!(bob.get(&partial.path("joined_members")).await.status, 403);
    let carol = Person::new(&partial.server, "carol").await;
    carol.join(room, &[EVIL]).await.ok();
    let members = partial.fill_for(&carol).await;
    for member in [
        user("dana"),
        user("dora"),
        user("eve"),
        carol.user_id.clone(),
    ] {
        assert!(members["joined"][member.as_str()].is_object(), "{members}");
    }
    assert!(
        !members["joined"][bob.user_id.as_str()].is_object(),
        "{members}"
    );
}
