//! The real binary on a free port and an empty folder, spoken to in raw JSON. One file per endpoint group,
//! as in `src/api`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod account;
mod appservice;
mod backup;
mod cli;
mod config;
mod context;
mod delayed_events;
mod device;
mod directory;
mod discovery;
mod federation;
mod filter;
mod guest;
mod invite;
mod keys;
mod knock;
mod media;
mod membership;
mod message;
mod moderation;
mod mutual_rooms;
mod old_sync;
mod peeking;
mod presence;
mod profile;
mod push;
mod rate_limit;
mod read_marker;
mod receipt;
mod redact;
mod relations;
mod report;
mod room;
mod search;
mod server_notices;
mod session;
mod space;
mod start;
mod state;
mod sync;
mod sync_filter;
mod tag;
mod threads;
mod to_device;
mod typing;
mod unread;
mod upgrade;
mod user_directory;
mod visibility;

use harness::{Server, User};
use serde_json::{Value, json};

/// The binary under test.
const CHAPAR: &str = env!("CARGO_BIN_EXE_chapar");

/// A server with open registration.
async fn server() -> Server {
    Server::start(CHAPAR).await
}

/// Another device of the same person; with this id, if any.
async fn another_device(server: &Server, user: &User, device: Option<&str>) -> User {
    let identifier = json!({"type": "m.id.user", "user": user.name()});
    let password = format!("{}-password", user.name());
    let mut body =
        json!({"type": "m.login.password", "identifier": identifier, "password": password});
    if let Some(device) = device {
        body["device_id"] = json!(device);
    }
    server.user_of(&server.post("/login", body).await.ok())
}

/// The event's ids, in order.
fn ids(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .map(|e| e["event_id"].as_str().unwrap())
        .collect()
}

/// The events' message bodies, in order, without the events that have none.
fn bodies(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|e| e["content"]["body"].as_str())
        .collect()
}

/// A list in an answer.
#[track_caller]
fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {answer}"))
}

/// The only event of this type (and state key) in a list.
#[track_caller]
fn only<'a>(events: &'a [Value], event_type: &str, key: &str) -> &'a Value {
    let fits = |e: &&Value| e["type"] == event_type && e["state_key"] == key;
    let found: Vec<_> = events.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "events {event_type} {key:?} in {events:?}");
    found[0]
}
