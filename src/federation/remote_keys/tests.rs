//! Asking for keys: who is asked, how often, and how long.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use parking_lot::Mutex;
use ruma::server_name;
use serde_json::{json, value::RawValue};
use storage::{Clock, Random, Storage};
use tokio::{sync::Semaphore, time::Instant};

use super::*;
use crate::{Broken, Limits, Parts, Transport, keys_answer};

fn far() -> &'static ServerName {
    server_name!("far.example")
}

fn notary() -> &'static ServerName {
    server_name!("notary.example")
}

/// A network with one server, one notary that knows it, and many that never answer.
struct Net {
    far: Federation,
    notary: Federation,
    state: Mutex<State>,
    /// The notary answers as often as this says.
    open: Semaphore,
}

struct State {
    /// The far server can be reached.
    far_answers: bool,
    /// The notary knows what it is asked about.
    knows: bool,
    /// The notary signs what it passes on.
    signs: bool,
    /// Who was asked for what.
    asked: Vec<(OwnedServerName, String)>,
}

impl Net {
    fn asked(&self, server: &ServerName, path: &str) -> usize {
        let state = self.state.lock();
        let asked = state.asked.iter();
        asked
            .filter(|(to, what)| to == server && what == path)
            .count()
    }

    /// What the notary says of the far server.
    fn passed_on(&self) -> Bytes {
        let state = self.state.lock();
        let mut keys = self.far.own_keys_answer();
        if state.signs {
            let key = self.notary.signing_keys().current();
            keys = keys_answer::sign_too(&keys, notary(), &key).unwrap();
        }
        let keys = RawValue::from_string(String::from_utf8(keys).unwrap()).unwrap();
        let keys: Vec<_> = state.knows.then_some(keys).into_iter().collect();
        json!({ "server_keys": keys }).to_string().into()
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

impl Transport for Net {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        _: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        Box::pin(async move {
            let path = request.uri().path().to_owned();
            let asked = (to.to_owned(), path.clone());
            self.state.lock().asked.push(asked);
            let answers = self.state.lock().far_answers;
            let body = match path.as_str() {
                _ if to == far() && !answers => {
                    return Err(Broken::Unreachable("it is away".to_owned()));
                }
                "/_matrix/key/v2/server" if to == far() => self.far.own_keys_answer().into(),
                "/_matrix/key/v2/server" if to == notary() => self.notary.own_keys_answer().into(),
                "/_matrix/key/v2/query" => {
                    self.open.acquire().await.unwrap().forget();
                    self.passed_on()
                }
                _ => std::future::pending().await,
            };
            Ok(Response::new(body))
        })
    }
}

struct World {
    clock: Clock,
    net: Arc<Net>,
    us: Federation,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::standing_at(1_700_000_000_000);
        let alone = |name: &ServerName, seed| {
            Parts::alone(&Storage::model(), name, &clock, &Random::seeded(seed))
        };
        let net = Arc::new(Net {
            far: Federation::open(alone(far(), 1)).await.unwrap(),
            notary: Federation::open(alone(notary(), 2)).await.unwrap(),
            state: Mutex::new(State {
                far_answers: false,
                knows: true,
                signs: true,
                asked: Vec::new(),
            }),
            open: Semaphore::new(0),
        });
        let transport: Arc<dyn Transport> = Arc::<Net>::clone(&net);
        let mut parts = alone(server_name!("us.example"), 3);
        parts.transport = transport;
        parts.settings.notaries = vec![notary().to_owned()];
        let us = Federation::open(parts).await.unwrap();
        Self { clock, net, us }
    }

    /// A signature of the far server's.
    fn wanted(&self) -> Wanted {
        Wanted {
            server: far().to_owned(),
            key_ids: vec![self.net.far.signing_keys().current().key_id().to_owned()],
            at: self.us.now(),
            of: SignatureOf::Event,
        }
    }

    /// Whether the key of the far server's can be had.
    async fn finds(&self) -> bool {
        let wanted = self.wanted();
        let wanted = std::slice::from_ref(&wanted);
        let keys = self.us.fetch_keys(wanted, Asking::IfReachable).await;
        wanted[0].is_met(&keys.unwrap())
    }

    fn queries(&self) -> usize {
        self.net.asked(notary(), "/_matrix/key/v2/query")
    }
}

#[tokio::test]
async fn who_comes_while_a_notary_is_asked_waits_for_what_it_says() {
    let world = World::new().await;
    let opened = async {
        // Both have come by then.
        while world.queries() == 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        world.net.open.add_permits(1);
    };
    let (one, other, ()) = tokio::join!(world.finds(), world.finds(), opened);
    assert!(one && other, "{one} {other}");
    assert_eq!(world.queries(), 1);
}

#[tokio::test]
async fn notaries_are_asked_again_after_a_pause_however_often_somebody_comes() {
    let world = World::new().await;
    world.net.open.add_permits(10);
    world.net.state.lock().knows = false;
    assert!(!world.finds().await);
    world.net.state.lock().knows = true;
    for _ in 0..2 {
        world.clock.advance(Duration::from_secs(25));
        assert!(!world.finds().await);
        assert_eq!(world.queries(), 1);
    }
    world.clock.advance(Duration::from_secs(25));
    assert!(world.finds().await);
    assert_eq!(world.queries(), 2);
}

#[tokio::test]
async fn a_notary_must_sign_what_it_passes_on() {
    let world = World::new().await;
    world.net.open.add_permits(10);
    world.net.state.lock().signs = false;
    assert!(!world.finds().await);
    assert_eq!(world.queries(), 1);
    world.net.state.lock().signs = true;
    world.clock.advance(Duration::from_secs(61));
    assert!(world.finds().await);
}

#[tokio::test]
async fn a_server_that_was_left_alone_is_asked_when_it_speaks() {
    let world = World::new().await;
    world.net.state.lock().knows = false;
    world.net.open.add_permits(10);
    assert!(!world.finds().await);
    world.net.state.lock().far_answers = true;
    world.clock.advance(Duration::from_secs(11));
    // Its first failure is forgotten by then; it fails again, and is left alone.
    world.us.failed(far(), world.us.now()).await;
    assert!(!world.finds().await);
    let wanted = world.wanted();
    let keys = world
        .us
        .fetch_keys(std::slice::from_ref(&wanted), Asking::InAnyCase);
    assert!(wanted.is_met(&keys.await.unwrap()));
}

#[tokio::test]
async fn servers_without_end_keep_nobody_waiting_without_end() {
    let world = World::new().await;
    world.net.state.lock().far_answers = true;
    let mut wanted: Vec<_> = (0..2_000)
        .map(|number| Wanted {
            server: ServerName::parse(format!("a{number}.example")).unwrap(),
            ..world.wanted()
        })
        .collect();
    wanted.extend([world.wanted(), world.wanted()]);
    tokio::time::pause();
    let began = Instant::now();
    let keys = world.us.fetch_keys(&wanted, Asking::IfReachable);
    let keys = keys.await.unwrap();
    // The servers themselves, and then the notary.
    let time = began.elapsed();
    assert!(
        time <= 2 * TIME_FOR_ALL + Duration::from_secs(1),
        "{time:?}"
    );
    assert!(world.wanted().is_met(&keys));
    assert_eq!(keys.len(), 1);
}
