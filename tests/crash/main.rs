//! Kills the server at random moments while many clients write. Afterwards every acknowledged event is there
//! exactly once, in the same order for all readers: by `/messages`, and by a `/sync` that went on all the while.
//! No one-time key was given out twice, and no message to a device was lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod encryption;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use harness::{Server, User, encode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How often the server is killed.
const KILLS: usize = 100;
/// Writers of each room.
const WRITERS: usize = 4;

/// Which events were acknowledged, by room: id and body.
type Said = BTreeMap<String, Vec<(String, String)>>;

/// Asks until the server answers: it is killed and started again meanwhile.
async fn ask(user: &User, method: &Method, path: &str, body: Option<&Value>) -> Value {
    loop {
        match user.try_ask(method.clone(), path, body).await {
            Ok(answer) => return answer.ok(),
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

/// Says one thing after the other until it is over. What was not answered is said again, with the same
/// transaction id.
async fn write(
    user: User,
    room: String,
    name: String,
    over: Arc<AtomicBool>,
    acknowledged: watch::Sender<usize>,
) -> (String, Vec<(String, String)>) {
    let mut said = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let body = format!("{name} {}", said.len());
        let content = json!({"msgtype": "m.text", "body": body});
        let transaction = format!("{name}-{}", said.len());
        let path = format!("/rooms/{room}/send/m.room.message/{transaction}");
        let answer = ask(&user, &Method::PUT, &path, Some(&content)).await;
        said.push((answer["event_id"].as_str().unwrap().to_owned(), body));
        acknowledged.send_modify(|count| *count += 1);
    }
    (room, said)
}

/// What a list of events says.
fn messages(events: &Value) -> impl Iterator<Item = (String, String)> {
    let events = events.as_array().into_iter().flatten();
    events
        .filter(|event| event["type"] == "m.room.message")
        .map(|event| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&event["event_id"]), text(&event["content"]["body"]))
        })
}

/// Syncs until a message with the body `end` came in every room.
async fn read(user: User, rooms: BTreeSet<String>) -> Said {
    let filter = encode(&json!({"room": {"timeline": {"limit": 1000}}}).to_string());
    let mut seen = Said::new();
    let mut since = String::new();
    let mut ended = BTreeSet::new();
    while ended != rooms {
        let path = format!("/sync?timeout=2000&filter={filter}{since}");
        let answer = ask(&user, &Method::GET, &path, None).await;
        for (room, update) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            let gap = update["timeline"]["limited"] == true && !since.is_empty();
            assert!(!gap, "a sync left something out");
            for (id, body) in messages(&update["timeline"]["events"]) {
                if body == "end" {
                    ended.insert(room.clone());
                }
                seen.entry(room.clone()).or_default().push((id, body));
            }
        }
        since = format!("&since={}", answer["next_batch"].as_str().unwrap());
    }
    seen
}

/// A room from its start, by pages.
async fn whole(user: &User, room: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!("/rooms/{room}/messages?dir=f&limit=100{from}");
        let page = ask(user, &Method::GET, &path, None).await;
        all.extend(messages(&page["chunk"]));
        match page["end"].as_str() {
            Some(end) => from = format!("&from={}", encode(end)),
            None => return all,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost_or_doubled() {
    let mut server = Server::start(env!("CARGO_BIN_EXE_chapar")).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let mut rooms = BTreeSet::new();
    for _ in 0..2 {
        rooms.insert(alice.room_with(&[&bob]).await);
    }
    let readers: Vec<_> = [&alice, &bob]
        .map(|user| tokio::spawn(read(user.clone(), rooms.clone())))
        .into();
    let over = Arc::new(AtomicBool::new(false));
    let encryption = encryption::begin(&server, &over).await;
    let (acknowledged, mut count) = watch::channel(0);
    let mut writers = Vec::new();
    for room in &rooms {
        for n in 0..WRITERS {
            let user = if n % 2 == 0 { &alice } else { &bob };
            let name = format!("{}-{n}", writers.len());
            let (user, room) = (user.clone(), room.clone());
            let (over, acknowledged) = (Arc::clone(&over), acknowledged.clone());
            writers.push(tokio::spawn(write(user, room, name, over, acknowledged)));
        }
    }
    // The moments are random by themselves: what the machine does between two answers. How many answers
    // are waited for differs from kill to kill.
    for kill in 0..KILLS {
        let until = *count.borrow() + kill * 7 % 23;
        count.wait_for(|count| *count >= until).await.unwrap();
        for _ in 0..kill * 31 % 57 {
            tokio::task::yield_now().await;
        }
        server.kill9();
        server.restart().await;
    }
    over.store(true, Ordering::Relaxed);
    let mut said = Said::new();
    for writer in writers {
        let (room, words) = writer.await.unwrap();
        said.entry(room).or_default().extend(words);
    }
    encryption.check().await;
    for room in &rooms {
        alice.say(room, "end").await;
    }
    let mut by_sync = Vec::new();
    for reader in readers {
        by_sync.push(reader.await.unwrap());
    }
    assert!(by_sync[0] == by_sync[1], "two readers saw different orders");
    for room in &rooms {
        let by_messages = whole(&alice, room).await;
        assert!(by_messages == whole(&bob, room).await);
        assert!(
            by_messages == by_sync[0][room],
            "/messages and /sync tell different stories"
        );
        let mut times: HashMap<_, usize> = HashMap::new();
        for words in &by_messages {
            *times.entry(words).or_default() += 1;
        }
        let mut bodies: HashMap<_, usize> = HashMap::new();
        for (_, body) in &by_messages {
            *bodies.entry(body).or_default() += 1;
        }
        assert!(
            bodies.values().all(|times| *times == 1),
            "something was said twice"
        );
        for words in &said[room] {
            assert_eq!(times.get(words), Some(&1), "lost or doubled: {words:?}");
        }
        assert!(said[room].len() > KILLS / 2, "hardly anything was said");
    }
}
