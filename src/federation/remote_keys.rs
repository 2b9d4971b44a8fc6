//! The keys of other servers: from memory, from storage, from the servers themselves, from notaries.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use error::Result;
use futures_util::{StreamExt as _, stream};
use pdu::{PublicKey, VerifyKey};
use quick_cache::sync::Cache;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName,
    ServerSigningKeyId, UInt, api::federation::discovery::get_server_keys,
};
use tokio::{
    sync::{Mutex, Semaphore},
    time::timeout,
};

use crate::{
    Failure, Federation, Patience,
    keys_answer::{self, KeysAnswer},
};

mod notaries;
mod stored;
#[cfg(test)]
mod tests;
mod vouch;

/// How many servers' keys are kept in memory.
const SERVERS_IN_MEMORY: usize = 20_000;

/// A server is not asked for its keys again before this.
const PAUSE: Duration = Duration::from_secs(10);

/// For longer no answer about keys is believed
/// ([spec](https://spec.matrix.org/v1.19/server-server-api/#publishing-keys)).
const LONGEST_VALIDITY: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How many servers are asked at the same time.
const AT_ONCE: usize = 64;

/// How many servers are asked for one list of signatures, at most: those first by which the most is signed.
const SERVERS_MAX: usize = 20_000;

/// How long servers are asked for one list of signatures, however many they are, and then notaries. What is not
/// known by then is not known.
const TIME_FOR_ALL: Duration = Duration::from_secs(120);

/// How many servers' keys are looked up in storage together.
const LOOKED_UP_AT_ONCE: usize = 2_000;

/// How long a server may take to name its keys.
const PATIENCE: Patience = Patience {
    time: Some(Duration::from_secs(15)),
    bytes: keys_answer::MAX_BYTES,
    despite_back_off: false,
};

/// A key of a server, and how far it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RemoteKey {
    /// The key.
    pub(crate) key: VerifyKey,
    /// Until when it may be used, in milliseconds since 1970.
    pub(crate) valid_until: u64,
    /// Whether it is for events of the past only.
    pub(crate) expired: bool,
}

impl RemoteKey {
    /// As it is needed for events.
    pub(crate) fn public(self) -> PublicKey {
        PublicKey {
            key: self.key,
            valid_until: MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.valid_until)),
        }
    }
}

/// The keys of one server.
pub(crate) type KeysOf = HashMap<OwnedServerSigningKeyId, RemoteKey>;

/// The keys of several.
pub(crate) type KeysOfServers = HashMap<OwnedServerName, Arc<KeysOf>>;

/// A signature for which a key is needed.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Whose.
    pub(crate) server: OwnedServerName,
    /// One of these keys.
    pub(crate) key_ids: Vec<OwnedServerSigningKeyId>,
    /// When it must have been valid, in milliseconds since 1970.
    pub(crate) at: u64,
    /// Of what.
    pub(crate) of: SignatureOf,
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureOf {
    /// An event, perhaps an old one: a key that the server has given up is as good as one can get.
    Event,
    /// What is said now.
    Request,
}

impl Wanted {
    fn is_met(&self, keys: &KeysOfServers) -> bool {
        let Some(keys) = keys.get(&self.server) else {
            return false;
        };
        let mut found = self.key_ids.iter().filter_map(|id| keys.get(id));
        found.any(|key| match self.of {
            SignatureOf::Event => key.expired || key.valid_until >= self.at,
            SignatureOf::Request => !key.expired && key.valid_until >= self.at,
        })
    }
}

/// What is known of the keys of other servers.
pub(crate) struct RemoteKeys {
    known: Cache<OwnedServerName, Arc<KeysOf>>,
    /// When a server was last asked, and its turn: who comes while it is asked waits for what it says.
    asked: Cache<OwnedServerName, Arc<Turn>>,
    /// For how many servers others ask us, as a notary, at the same time.
    vouching: Semaphore,
}

/// When somebody was last asked for the keys of a server, in milliseconds since 1970. Whoever asks holds it.
#[derive(Default)]
struct Turn {
    /// The server itself.
    own: Mutex<Option<u64>>,
    /// Notaries.
    notaries: Arc<Mutex<Option<u64>>>,
}

/// Whether somebody who was last asked then may be asked again by one who came at `came`.
fn is_rested(last: Option<u64>, pause: Duration, came: u64) -> bool {
    let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    last.is_none_or(|last| last.saturating_add(pause) <= came)
}

/// Whether nobody was asked, so that nobody need rest.
fn was_not_asked<T>(answer: &Result<T, Failure>) -> bool {
    matches!(answer, Err(Failure::BackingOff(_) | Failure::Forbidden(_)))
}

impl RemoteKeys {
    pub(crate) fn new() -> Self {
        Self {
            known: Cache::new(SERVERS_IN_MEMORY),
            asked: Cache::new(SERVERS_IN_MEMORY),
            vouching: Semaphore::new(AT_ONCE),
        }
    }

    fn turn(&self, server: &ServerName) -> Arc<Turn> {
        let new = || Ok::<_, std::convert::Infallible>(Arc::default());
        match self.asked.get_or_insert_with(server, new) {
            Ok(turn) => turn,
            Err(never) => match never {},
        }
    }
}

impl fmt::Debug for RemoteKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteKeys({})", self.known.len())
    }
}

/// Whether servers that did not answer lately are asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// No: there are notaries.
    IfReachable,
    /// Yes: the server has just spoken.
    InAnyCase,
}

impl Federation {
    /// Keys for all of these, as far as they can be had in time: what is lacking is fetched from the servers
    /// themselves, then from notaries. A list that names servers without end is looked at as far as that goes.
    ///
    /// # Errors
    ///
    /// Storage fails. That no key can be had is none.
    pub(crate) async fn fetch_keys(
        &self,
        wanted: &[Wanted],
        asking: Asking,
    ) -> Result<KeysOfServers> {
        let mut found = KeysOfServers::new();
        let theirs: Vec<&Wanted> = wanted
            .iter()
            .filter(|wanted| wanted.server != *self.server_name())
            .collect();
        self.load_keys(&theirs, &mut found).await?;
        let lacking = |found: &KeysOfServers| -> Vec<&Wanted> {
            let lacking = theirs.iter().filter(|wanted| !wanted.is_met(found));
            lacking.copied().collect()
        };
        let missing = lacking(&found);
        if missing.is_empty() {
            return Ok(found);
        }
        let servers = most_wanted(&missing);
        let asked = stream::iter(servers)
            .map(|server| self.ask_for_keys(server, asking))
            .buffer_unordered(AT_ONCE);
        if timeout(TIME_FOR_ALL, asked.collect::<()>()).await.is_err() {
            tracing::warn!("not all servers that signed something could be asked for their keys");
        }
        self.load_keys(&missing, &mut found).await?;
        let missing = lacking(&found);
        if missing.is_empty() || self.settings().notaries.is_empty() {
            return Ok(found);
        }
        if timeout(TIME_FOR_ALL, self.ask_notaries(&missing))
            .await
            .is_err()
        {
            tracing::warn!("notaries could not be asked for all keys that are missing");
        }
        self.load_keys(&missing, &mut found).await?;
        Ok(found)
    }

    /// Whether one of the keys of ours that have this id made a signature.
    pub(crate) fn own_key(&self, key_id: &ServerSigningKeyId) -> Option<RemoteKey> {
        let current = self.signing_keys().current();
        if current.key_id() == key_id {
            return Some(RemoteKey {
                key: current.verify_key(),
                valid_until: u64::MAX,
                expired: false,
            });
        }
        let old = self.signing_keys().old();
        let old = old.iter().find(|old| old.key_id == *key_id)?;
        Some(RemoteKey {
            key: old.key,
            valid_until: old.expired_ts.get().into(),
            expired: true,
        })
    }

    /// Asks a server for its keys and stores what it says, unless it was asked just now.
    async fn ask_for_keys(&self, server: OwnedServerName, asking: Asking) {
        let turn = self.0.remote_keys.turn(&server);
        let came = self.now();
        let mut last = turn.own.lock().await;
        if !is_rested(*last, PAUSE, came) {
            return;
        }
        let patience = match asking {
            Asking::IfReachable => PATIENCE,
            Asking::InAnyCase => PATIENCE.despite_back_off(),
        };
        let answer = self
            .ask_raw(&server, get_server_keys::v2::Request::new(), patience)
            .await;
        if !was_not_asked(&answer) {
            *last = Some(self.now());
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(%server, %failure, "a server does not tell its keys");
                return;
            }
        };
        match KeysAnswer::read_of(answer.body(), &server) {
            Ok(said) => {
                let stored = self.store_keys(&said, Some(answer.body())).await;
                if let Err(error) = stored {
                    tracing::error!(%server, %error, "the keys of a server cannot be stored");
                }
            }
            Err(fault) => {
                tracing::warn!(%server, %fault, "what a server says of its keys is not believed");
            }
        }
    }
}

fn servers_of(wanted: &[&Wanted]) -> Vec<OwnedServerName> {
    let mut servers: Vec<_> = wanted.iter().map(|wanted| wanted.server.clone()).collect();
    servers.sort();
    servers.dedup();
    servers
}

/// The servers of these by which the most is signed, as many as are asked.
fn most_wanted(wanted: &[&Wanted]) -> Vec<OwnedServerName> {
    let mut counts: BTreeMap<&OwnedServerName, usize> = BTreeMap::new();
    for wanted in wanted {
        *counts.entry(&wanted.server).or_default() += 1;
    }
    let mut servers: Vec<_> = counts.into_iter().collect();
    servers.sort_by_key(|(_, count)| Reverse(*count));
    let servers = servers.into_iter().take(SERVERS_MAX);
    servers.map(|(server, _)| server.clone()).collect()
}
