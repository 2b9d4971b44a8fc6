//! What it costs to come into a room of another server, and to receive what is said there.
//!
//! `cargo bench --bench federation -- [MEMBERS…]` lets a Chapar hold rooms of 1,000, 10,000 and 100,000 members, or of
//! as many as are named, and lets somebody of a second server come into each. It prints the time until the join is
//! answered, until the first sync shows the room, and until all members are there, with the second server's processor
//! time, memory, and what it wrote to the disk. Then 10,000 messages are said in one room, and as many in
//! 1,000 rooms, and it prints what the second server took to receive them.
//!
//! The second server is a Chapar too; with `BENCH_RECEIVER=peer` it is the one that `CHAPAR_PEER` names, as
//! `tests/peers/run` installs it. `CHAPAR_BINARY` names another binary than the one that was built with this.
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

use std::{
    fs,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use harness::{Authority, Peer, Server, User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use self::{fill::Size, meter::Meter};

const CHAPAR: &str = env!("CARGO_BIN_EXE_chapar");
const MEMBERS: [usize; 3] = [1_000, 10_000, 100_000];
/// Messages that are received.
const MESSAGES: usize = 10_000;
/// Rooms in which they are said, at most.
const ROOMS: usize = 1_000;
/// Requests that are under way at once.
const AT_ONCE: usize = 16;
/// How long something may take until the other server shows it.
const LIMIT: Duration = Duration::from_secs(1_200);
/// How often one looks.
const PAUSE: Duration = Duration::from_millis(20);
/// Members are not loaded but those who said something.
const LAZY: &str = r#"{"room":{"state":{"lazy_load_members":true}}}"#;

/// Bytes that a process had written to the disk.
fn bytes_written(pid: u32) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = counts
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

/// The server that receives.
enum Receiver {
    Chapar(Server),
    Peer(Peer),
}

impl Receiver {
    async fn start(binary: &str, authority: &Authority) -> Self {
        match std::env::var("BENCH_RECEIVER").as_deref() {
            Ok("peer") => Self::Peer(Peer::start(authority).await),
            _ => Self::Chapar(Server::start_federating(binary, authority, "").await),
        }
    }

    fn server(&self) -> &Server {
        match self {
            Self::Chapar(server) => server,
            Self::Peer(peer) => &peer.server,
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Chapar(server) => server.pid(),
            Self::Peer(peer) => peer.pid(),
        }
    }
}

#[tokio::main]
async fn main() {
    // `cargo bench` adds `--bench`.
    let sizes = std::env::args().filter_map(|argument| argument.parse().ok());
    let mut sizes: Vec<usize> = sizes.collect();
    if sizes.is_empty() {
        sizes = MEMBERS.to_vec();
    }
    let binary = std::env::var("CHAPAR_BINARY").unwrap_or_else(|_| CHAPAR.to_owned());
    let authority = Authority::new();
    let mut resident = Server::start_federating(&binary, &authority, "").await;
    let alice = resident.user("alice").await;
    let mut rooms = Vec::new();
    for members in &sizes {
        rooms.push((public_room(&alice).await, *members));
    }
    assert!(resident.terminate().await.success());
    let (folder, name) = (resident.folder().join("data"), resident.name());
    for (room, members) in &rooms {
        let size = Size {
            members: *members,
            events: 0,
        };
        let fill = || fill::fill(&folder, &name, room, size);
        println!("{}", tokio::task::block_in_place(fill));
    }
    resident.restart().await;
    for (room, members) in &rooms {
        // Each on an empty server, so that memory and what is written are of this room alone.
        let receiver = Receiver::start(&binary, &authority).await;
        join(&receiver, &name, room, *members).await;
    }
    for rooms in [1, ROOMS] {
        let receiver = Receiver::start(&binary, &authority).await;
        receive(&receiver, &alice, &name, rooms).await;
    }
}

async fn public_room(alice: &User) -> String {
    alice
        .create_room(json!({ "preset": "public_chat", "room_version": "11" }))
        .await
}

/// Somebody of the receiver comes into a room.
async fn come_in(bob: &User, room: &str, via: &str) {
    let path = format!("/join/{}?via={via}&server_name={via}", encode(room));
    bob.post(&path, json!({})).await.ok();
}

async fn join(receiver: &Receiver, via: &str, room: &str, members: usize) {
    let bob = receiver.server().user("bob").await;
    let (meter, pid) = (Meter::new(receiver.pid()), receiver.pid());
    let (cpu, written, begun) = (meter.cpu(), bytes_written(pid), Instant::now());
    come_in(&bob, room, via).await;
    let joined = begun.elapsed();
    let path = format!("/sync?filter={}", encode(LAZY));
    let shown = |sync: &Value| sync["rooms"]["join"][room]["timeline"].is_object();
    while !shown(&bob.get(&path).await.ok()) {
        tokio::time::sleep(PAUSE).await;
    }
    let (synced, cpu_synced) = (begun.elapsed(), meter.cpu() - cpu);
    let path = format!("/rooms/{}/joined_members", encode(room));
    loop {
        // A server may take longer for that than a client waits.
        if let Ok(all) = bob.try_ask(Method::GET, &path, None).await
            && let Some(known) = all.body["joined"].as_object()
            && known.len() >= members
        {
            break;
        }
        assert!(begun.elapsed() < LIMIT, "not all members came");
        tokio::time::sleep(PAUSE).await;
    }
    println!(
        "join of {members} members: answered in {:.2} s, synced in {:.2} s ({:.2} s CPU), whole in {:.2} s ({:.2} s CPU), \
         {} MiB at most, {} MiB written",
        joined.as_secs_f64(),
        synced.as_secs_f64(),
        cpu_synced.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        (meter.cpu() - cpu).as_secs_f64(),
        meter.memory("VmHWM"),
        (bytes_written(pid) - written) >> 20,
    );
}

/// The receiver receives messages that Alice says in so many rooms.
async fn receive(receiver: &Receiver, alice: &User, via: &str, rooms: usize) {
    let bob = receiver.server().user("bob").await;
    let rooms = stream::iter(0..rooms).map(async |_| {
        let room = public_room(alice).await;
        come_in(&bob, &room, via).await;
        room
    });
    let rooms: Vec<_> = rooms.buffer_unordered(AT_ONCE).collect().await;
    let (meter, pid) = (Meter::new(receiver.pid()), receiver.pid());
    let (cpu, written, begun) = (meter.cpu(), bytes_written(pid), Instant::now());
    let each = MESSAGES / rooms.len();
    let said = stream::iter(&rooms).map(async |room| {
        for _ in 0..each {
            alice.say(room, "salaam").await;
        }
        (room, alice.say(room, "the last one").await)
    });
    let last: Vec<_> = said.buffer_unordered(AT_ONCE).collect().await;
    let sent = begun.elapsed();
    for (room, event) in &last {
        let path = format!("/rooms/{}/event/{}", encode(room), encode(event));
        while bob.get(&path).await.status != 200 {
            assert!(begun.elapsed() < LIMIT, "not all messages came");
            tokio::time::sleep(PAUSE).await;
        }
    }
    println!(
        "{MESSAGES} messages in {} rooms: said in {:.1} s, received in {:.1} s ({:.2} s CPU), {} MiB at most, {} MiB written",
        rooms.len(),
        sent.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        (meter.cpu() - cpu).as_secs_f64(),
        meter.memory("VmHWM"),
        (bytes_written(pid) - written) >> 20,
    );
}
