//! Several servers in one process, which talk to each other through a network in memory.

mod classes;
mod conversation;
mod far;
mod flooding;
mod hostile;
mod keys;
mod media;
mod membership;
mod policy;
mod proof;
mod purging;
mod queries;
mod receiving;
mod serving;
mod simulation;
mod telling;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;
use config::Config;
use federation::{Broken, Federation, Limits, Transport};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use pdu::SigningKey;
use ruma::{OwnedServerName, ServerName};
use serde_json::{Value, json};
use storage::{Clock, Random, Storage};

use super::{ALL, parts};
use crate::{Parts, Server};

/// A network in memory. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Network(Arc<Mutex<Hosts>>);

#[derive(Default)]
struct Hosts {
    hosts: BTreeMap<OwnedServerName, Host>,
    away: BTreeSet<OwnedServerName>,
    /// What was asked of whom, as method and path.
    asked: Vec<(OwnedServerName, String)>,
}

/// Who answers.
#[derive(Clone)]
enum Host {
    /// One of ours.
    Server(Server),
    /// One that a test plays.
    Played(Player),
    /// One that takes everything and never answers.
    Silent,
}

/// What a played server answers.
type Player = Arc<dyn Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync>;

impl Network {
    /// A server of that name on this network, with storage of its own. Its clock is the one given.
    pub(crate) async fn server(&self, name: &str, clock: &Clock, mut config: Config) -> Server {
        let name = ServerName::parse(name).unwrap();
        config.server.name = Some(name.clone());
        let parts = Parts {
            storage: Storage::model_on(clock.clone(), storage::Faults::NONE),
            clock: clock.clone(),
            random: Random::seeded(name.as_bytes().iter().map(|byte| u64::from(*byte)).sum()),
            transport: Arc::new(self.clone()),
            ..parts(config)
        };
        self.open(parts).await
    }

    /// A server with these parts, of which the name is that in its settings.
    pub(crate) async fn open(&self, parts: Parts) -> Server {
        let name = parts.config.server.name.clone().unwrap();
        let server = Server::open(parts).await.unwrap();
        let host = Host::Server(server.clone());
        self.0.lock().hosts.insert(name, host);
        server
    }

    /// A server that a test plays.
    pub(crate) fn play(
        &self,
        name: &ServerName,
        answer: impl Fn(Request<Bytes>) -> Response<Bytes> + Send + Sync + 'static,
    ) {
        let host = Host::Played(Arc::new(answer));
        self.0.lock().hosts.insert(name.to_owned(), host);
    }

    /// A server that says who it is and nothing else; what it wants to ask is signed by what is returned.
    pub(crate) async fn peer(&self, name: &str, clock: &Clock) -> Federation {
        let name = ServerName::parse(name).unwrap();
        let peer = Federation::open(federation::Parts {
            transport: Arc::new(self.clone()),
            ..federation::Parts::alone(&Storage::model(), &name, clock, &Random::seeded(5))
        });
        let peer = peer.await.unwrap();
        let played = peer.clone();
        self.play(&name, move |request| {
            let known = request.uri().path() == "/_matrix/key/v2/server";
            let body = if known {
                played.own_keys_answer().into()
            } else {
                Bytes::from_static(
                    b"{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"There is nothing here\"}",
                )
            };
            let status = if known { 200 } else { 404 };
            Response::builder().status(status).body(body).unwrap()
        });
        peer
    }

    /// A server that never answers.
    pub(crate) fn hush(&self, name: &ServerName) {
        self.0.lock().hosts.insert(name.to_owned(), Host::Silent);
    }

    /// Nobody reaches this server any more.
    pub(crate) fn take_away(&self, name: &ServerName) {
        self.0.lock().away.insert(name.to_owned());
    }

    /// It is reached again.
    pub(crate) fn bring_back(&self, name: &ServerName) {
        self.0.lock().away.remove(name);
    }

    /// What was asked of a server so far, as method and path.
    pub(crate) fn asked_of(&self, name: &ServerName) -> Vec<String> {
        let hosts = self.0.lock();
        let of = hosts.asked.iter().filter(|(asked, _)| asked == name);
        of.map(|(_, what)| what.clone()).collect()
    }

    fn host(&self, name: &ServerName, request: &Request<Bytes>) -> Result<Host, Broken> {
        let mut hosts = self.0.lock();
        let what = format!("{} {}", request.method(), request.uri().path());
        hosts.asked.push((name.to_owned(), what));
        if hosts.away.contains(name) {
            return Err(Broken::Unreachable("it is away".to_owned()));
        }
        let host = hosts.hosts.get(name).cloned();
        host.ok_or_else(|| Broken::Unreachable("there is no such server".to_owned()))
    }

    async fn bring(
        &self,
        to: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, Broken> {
        let answer = match self.host(to, &request)? {
            Host::Silent => std::future::pending().await,
            Host::Played(answer) => answer(request),
            Host::Server(server) => {
                let request = request.map(|body| {
                    Full::new(body)
                        .map_err(|never| match never {})
                        .boxed_unsync()
                });
                let answer = server.answer(ALL, request).await;
                let (head, body) = answer.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                Response::from_parts(head, body)
            }
        };
        if answer.body().len() > limits.bytes {
            return Err(Broken::TooLarge(limits.bytes));
        }
        Ok(answer)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}

impl Transport for Network {
    fn send<'a>(
        &'a self,
        to: &'a ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> BoxFuture<'a, Result<Response<Bytes>, Broken>> {
        Box::pin(self.bring(to, request, limits))
    }
}

/// A key of a person; its seed tells it from others.
fn signing_key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32], "x").unwrap()
}

/// A cross-signing key of a person, signed by another one.
fn cross_signing_key(user: &str, usage: &str, key: &SigningKey, by: &SigningKey) -> Value {
    let public = key.verify_key().to_base64();
    let keys = json!({ format!("ed25519:{public}"): public });
    let mut said = json!({ "user_id": user, "usage": [usage], "keys": keys });
    // Plain ASCII with sorted keys is canonical as it is.
    let signature = by.sign_base64(said.to_string().as_bytes());
    let name = format!("ed25519:{}", by.verify_key().to_base64());
    said["signatures"] = json!({ user: { name: signature } });
    said
}
