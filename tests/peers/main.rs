//! Chapar and another live homeserver share rooms, both ways: what one says, makes and takes back the other sees, and
//! in the end both hold the same state. `run` beside this file installs the other one; where it is missing, the tests
//! fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod people;
mod policy;
mod rooms;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use harness::{Authority, Peer, PeerKind, Server, User, encode};
use serde_json::Value;

/// How long something that happened on one server may take until the other shows it.
const LIMIT: Duration = Duration::from_secs(60);

/// A Chapar and another homeserver, with somebody on each.
struct Two {
    chapar: Server,
    peer: Peer,
    alice: User,
    bob: User,
}

impl Two {
    async fn start() -> Self {
        Self::start_with("").await
    }

    /// With other settings of Chapar.
    async fn start_with(settings: &str) -> Self {
        let authority = Authority::new();
        let binary = env!("CARGO_BIN_EXE_chapar");
        let (chapar, peer) = tokio::join!(
            Server::start_federating(binary, &authority, settings),
            Peer::start(&authority)
        );
        let alice = chapar.user("alice").await;
        let bob = peer.server.user("bob").await;
        Self {
            chapar,
            peer,
            alice,
            bob,
        }
    }

    /// Lets nothing through from one to the other.
    fn cut(&self) {
        self.chapar.gate().close();
        self.peer.gate.close();
    }

    fn join_again(&self) {
        self.chapar.gate().open();
        self.peer.gate.open();
    }

    /// Those of some room versions that both know.
    fn versions<'a>(&self, of: &[&'a str]) -> Vec<&'a str> {
        let newest = match self.peer.kind {
            PeerKind::Synapse => 12,
            PeerKind::Dendrite => 11,
        };
        let known = |version: &&&str| version.parse::<u32>().unwrap() <= newest;
        of.iter().filter(known).copied().collect()
    }

    /// The servers' names, as where to come in.
    fn name_of(&self, user: &User) -> String {
        if user.id == self.alice.id {
            self.chapar.name()
        } else {
            self.peer.name()
        }
    }

    /// Where a person's server answers clients.
    fn base_of(&self, user: &User) -> &str {
        if user.id == self.alice.id {
            self.chapar.base()
        } else {
            self.peer.server.base()
        }
    }
}

/// Waits until `look` finds something.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Comes into a room of the other server.
async fn join(user: &User, room: &str, via: &str) {
    let path = format!("/join/{}?via={via}&server_name={via}", encode(room));
    user.post(&path, serde_json::json!({})).await.ok();
}

/// The ids of the events of a room's state, by type and state key.
async fn state(user: &User, room: &str) -> BTreeMap<(String, String), String> {
    let events = user.get(&format!("/rooms/{room}/state")).await;
    assert_eq!(events.status, 200, "{events:?}");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    let events = events.body.as_array().unwrap().iter();
    events
        .map(|event| {
            let key = (text(event, "type"), text(event, "state_key"));
            (key, text(event, "event_id"))
        })
        .collect()
}

/// Waits until both hold the same state of a room, event by event.
async fn same_state(two: &Two, room: &str) -> BTreeMap<(String, String), String> {
    until("the same state on both sides", async || {
        let (here, there) = (state(&two.alice, room).await, state(&two.bob, room).await);
        (here == there).then_some(here)
    })
    .await
}

/// What was said in a room, as somebody sees it, in no order: from the end back, as clients read.
async fn said(user: &User, room: &str) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let mut from = String::new();
    loop {
        let path = format!("/rooms/{room}/messages?dir=b&limit=100{from}");
        let page = user.get(&path).await.ok();
        let events = page["chunk"].as_array().unwrap();
        let messages = events
            .iter()
            .filter(|event| event["type"] == "m.room.message");
        all.extend(messages.map(|event| {
            let id = event["event_id"].as_str().unwrap().to_owned();
            let body = event["content"]["body"].as_str().unwrap_or_default();
            (id, body.to_owned())
        }));
        match page["end"].as_str().filter(|_| !events.is_empty()) {
            Some(end) => from = format!("&from={}", encode(end)),
            None => return all,
        }
    }
}

/// Waits until somebody sees these messages.
async fn sees(user: &User, room: &str, wanted: &BTreeSet<(String, String)>) {
    let mut lacking = 0;
    let seen = async || {
        let seen = said(user, room).await;
        let left = wanted.difference(&seen).count();
        if left != lacking {
            eprintln!("{} lacks {left} messages", user.id);
            lacking = left;
        }
        (left == 0).then_some(())
    };
    until("messages of the other side", seen).await;
}
