//! What a room costs that everybody is in, beside one of a few people.
//!
//! `cargo bench --bench scale -- [MEMBERS [EVENTS]]` fills a folder with a room of 100,000 members and 1,000,000
//! events, or as many as are named, and with one of 100 members and 1,000 events, starts the real server on it,
//! and asks it the same of both. It prints, for each, the time to the answer and the server's processor time, and what
//! an event takes on the disk and the server in memory. The two rooms should cost the same, where the answer
//! does not hold all members.
//!
//! The server is the one that was built with this, or the binary that `CHAPAR_BINARY` names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

#[path = "../measure/fill.rs"]
mod fill;
#[path = "../measure/meter.rs"]
mod meter;
mod row;

use std::time::{Duration, Instant};

use harness::{OPEN, Server, User, encode};
use reqwest::Method;
use serde_json::json;

use self::{
    fill::{Filled, Size},
    meter::Meter,
    row::Row,
};

const CHAPAR: &str = env!("CARGO_BIN_EXE_chapar");

const LARGE: Size = Size {
    members: 100_000,
    events: 1_000_000,
};
const SMALL: Size = Size {
    members: 100,
    events: 1_000,
};
/// Members are not loaded but those who said something.
const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;
/// How often each room is asked the same.
const TIMES: usize = 100;
/// People who join each room while the clock runs.
const JOINERS: usize = 20;

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let large = Size {
        members: numbers.next().unwrap_or(LARGE.members),
        events: numbers.next().unwrap_or(LARGE.events),
    };
    let binary = std::env::var("CHAPAR_BINARY").unwrap_or_else(|_| CHAPAR.to_owned());
    let mut server = Server::start_with(&binary, OPEN).await;
    let people = People::register(&server).await;
    let mut rooms = Vec::new();
    for size in [SMALL, large] {
        let room = json!({ "preset": "public_chat", "name": "Everybody", "topic": "Everything" });
        let room = people.alice.create_room(room).await;
        people.bob.join(&room).await;
        rooms.push((room, size));
    }
    let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
    let mut spaces = Vec::new();
    for (room, _) in &rooms {
        let space = people.alice.create_room(space.clone()).await;
        let child = json!({ "via": ["localhost"] });
        people
            .alice
            .set_state(&space, "m.space.child", room, child)
            .await;
        spaces.push(space);
    }
    assert!(server.terminate().await.success());
    let mut filled = Vec::new();
    let folder = server.folder().join("data");
    for (room, size) in &rooms {
        let fill = || fill::fill(&folder, "localhost", room, *size);
        filled.push(tokio::task::block_in_place(fill));
    }
    server.restart().await;
    let meter = Meter::new(server.pid());
    // The index is made of what was filled in without it.
    let begun = Instant::now();
    for (room, size) in &rooms {
        let last = format!("Message {}", size.events - 1);
        while search(&people.alice, room, &last).await == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let indexed = begun.elapsed();
    let mut columns = Vec::new();
    for ((room, _), space) in rooms.iter().zip(&spaces) {
        columns.push(measure(&people, &meter, room, space).await);
    }
    report(&columns, &filled, &meter);
    println!("all was indexed in {:.1} s", indexed.as_secs_f64());
}

struct People {
    alice: User,
    bob: User,
    joiners: Vec<User>,
}

impl People {
    async fn register(server: &Server) -> Self {
        let mut joiners = Vec::new();
        for _ in 0..JOINERS {
            joiners.push(server.user("joiner").await);
        }
        Self {
            alice: server.user("alice").await,
            bob: server.user("bob").await,
            joiners,
        }
    }
}

/// Asks the same of one of the rooms.
async fn measure(people: &People, meter: &Meter, room: &str, space: &str) -> Vec<Row> {
    let People {
        alice,
        bob,
        joiners,
    } = people;
    let get = async |path: &str| {
        alice.get(path).await.ok();
    };
    let room_path = format!("/rooms/{}", encode(room));
    let mut rows = Vec::new();
    let sent = async |_| {
        alice.say(room, "salaam").await;
    };
    rows.push(Row::new(meter, "send", TIMES, sent).await);
    let joined = async |n: usize| joiners[n].join(room).await;
    rows.push(Row::new(meter, "join", JOINERS, joined).await);
    // As clients do: they ask for members when somebody opens the list of them.
    let lazily = format!("timeout=0&filter={}", encode(LAZY));
    let mut since = bob.sync_with(None, &lazily).await.next_batch();
    let synced = async |_| {
        let synced = bob.sync_with(Some(&since), &lazily).await;
        since = synced.next_batch();
        alice.say(room, "and?").await;
    };
    rows.push(Row::new(meter, "send and incremental sync", TIMES, synced).await);
    let mut from = String::new();
    let paged = async |_| {
        let path = format!("{room_path}/messages?dir=b&limit=50{from}");
        let page = alice.get(&path).await.ok();
        from = match page["end"].as_str() {
            Some(end) => format!("&from={}", encode(end)),
            None => String::new(),
        };
    };
    rows.push(Row::new(meter, "page of 50 messages", TIMES, paged).await);
    let name = format!("{room_path}/state/m.room.name/");
    rows.push(
        Row::new(meter, "one key of the state", TIMES, async |_| {
            get(&name).await
        })
        .await,
    );
    let named = async |n: usize| {
        let name = json!({ "name": format!("Everybody {n}") });
        alice.set_state(room, "m.room.name", "", name).await;
    };
    rows.push(Row::new(meter, "state event", TIMES, named).await);
    let hierarchy = format!("/_matrix/client/v1/rooms/{}/hierarchy", encode(space));
    let asked = async |_| {
        alice.ask(Method::GET, &hierarchy, None).await.ok();
    };
    rows.push(Row::new(meter, "hierarchy", TIMES, asked).await);
    let members = format!("{room_path}/joined_members");
    rows.push(
        Row::new(meter, "all joined members", 3, async |_| {
            get(&members).await
        })
        .await,
    );
    let invited = format!("{room_path}/members?membership=invite");
    rows.push(
        Row::new(meter, "who is invited", TIMES, async |_| {
            get(&invited).await
        })
        .await,
    );
    let found = async |n: usize| {
        search(alice, room, &format!("fox {n}")).await;
    };
    rows.push(Row::new(meter, "search", TIMES, found).await);
    rows
}

/// Searches a room for all of some words: how many messages hold them.
async fn search(user: &User, room: &str, words: &str) -> u64 {
    let events = json!({ "search_term": words, "filter": { "rooms": [room] } });
    let body = json!({ "search_categories": { "room_events": events } });
    let found = user.post("/search", body).await;
    if found.status == 503 {
        // It is being opened.
        return 0;
    }
    let found = found.ok();
    found["search_categories"]["room_events"]["count"]
        .as_u64()
        .unwrap()
}

fn report(columns: &[Vec<Row>], filled: &[Filled], meter: &Meter) {
    for (filled, name) in filled.iter().zip(["small", "large"]) {
        println!("{name}: {filled}");
    }
    println!("\n{:<28} {:>28} {:>28}", "", "small", "large");
    print!("{:<28}", "");
    for _ in columns {
        print!(" {:>10} {:>10} {:>6}", "ms", "CPU µs", "MiB");
    }
    println!();
    for (small, large) in columns[0].iter().zip(&columns[1]) {
        println!("{:<28} {small} {large}", small.what);
    }
    println!(
        "\nmemory of the server now: {} MiB, at most: {} MiB",
        meter.memory("VmRSS"),
        meter.memory("VmHWM")
    );
}
