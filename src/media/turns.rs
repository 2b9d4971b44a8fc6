//! Whose turn it is to fetch a file of another server: a few of one server's, more of all, so that servers which
//! keep us waiting hold up nobody but those who want their files.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use error::Result;
use http::StatusCode;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use storage::NameHash;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// How many files are fetched from one server at a time.
const OF_ONE_SERVER: usize = 2;
/// How many files are fetched at a time that turn out to be small: each is in memory until it has come in whole.
const SMALL_AT_ONCE: usize = 32;
/// How many larger ones are.
const LARGE_AT_ONCE: usize = 4;
/// How long an answer with a small file is, at most, in bytes.
pub(crate) const SMALL: usize = 8 << 20;

/// How many wait for files of one server, and of all; what more want is refused.
const WAITING_OF_ONE: usize = 100;
const WAITING: usize = 5_000;
/// How long somebody waits for their turn.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many files are known to be fetched right now; who asks for one of them waits for it.
const FILES: usize = 4_096;

/// Who fetches what.
pub(crate) struct Fetching {
    small: Semaphore,
    large: Semaphore,
    servers: Mutex<Servers>,
    files: Cache<NameHash, Arc<tokio::sync::Mutex<()>>>,
}

/// How many there are who want files of other servers.
#[derive(Default)]
struct Servers {
    waiting: usize,
    by_name: HashMap<OwnedServerName, Share>,
}

/// What one server has of it.
struct Share {
    waiting: usize,
    turns: Arc<Semaphore>,
}

/// Somebody who wants a file of a server.
pub(crate) struct Guest<'a> {
    fetching: &'a Fetching,
    server: OwnedServerName,
    turns: Arc<Semaphore>,
}

/// A turn to fetch a file, for as long as the file is in memory.
pub(crate) struct Turn<'a> {
    _of_server: OwnedSemaphorePermit,
    _of_all: SemaphorePermit<'a>,
}

/// How large a file is believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

impl Default for Fetching {
    fn default() -> Self {
        Self {
            small: Semaphore::new(SMALL_AT_ONCE),
            large: Semaphore::new(LARGE_AT_ONCE),
            servers: Mutex::default(),
            files: Cache::new(FILES),
        }
    }
}

impl Fetching {
    /// Lets somebody wait for a file of a server.
    ///
    /// # Errors
    ///
    /// 503 `M_UNKNOWN` if too many do.
    pub(crate) fn enter(&self, server: &ServerName) -> Result<Guest<'_>> {
        let mut servers = self.servers.lock();
        let of_one = servers.by_name.get(server).map_or(0, |share| share.waiting);
        if servers.waiting >= WAITING || of_one >= WAITING_OF_ONE {
            return Err(too_many(server));
        }
        servers.waiting += 1;
        let share = servers.by_name.entry(server.to_owned());
        let share = share.or_insert_with(|| Share {
            waiting: 0,
            turns: Arc::new(Semaphore::new(OF_ONE_SERVER)),
        });
        share.waiting += 1;
        Ok(Guest {
            fetching: self,
            server: server.to_owned(),
            turns: Arc::clone(&share.turns),
        })
    }

    /// What whoever fetches a file holds, so that others wait for it.
    pub(crate) fn file(&self, hash: NameHash) -> Arc<tokio::sync::Mutex<()>> {
        let new = || Ok::<_, Infallible>(Arc::default());
        match self.files.get_or_insert_with(&hash, new) {
            Ok(file) => file,
            Err(never) => match never {},
        }
    }

    /// A file has been fetched.
    pub(crate) fn forget(&self, hash: NameHash) {
        self.files.remove(&hash);
    }
}

impl<'a> Guest<'a> {
    /// Waits until a file of that size may be fetched.
    ///
    /// # Errors
    ///
    /// 503 `M_UNKNOWN` if it does not come to that for long.
    pub(crate) async fn turn(&self, size: Size) -> Result<Turn<'a>> {
        let fetching = self.fetching;
        let all = match size {
            Size::Small => &fetching.small,
            Size::Large => &fetching.large,
        };
        let turns = async {
            let of_server = Arc::clone(&self.turns).acquire_owned().await;
            Ok(Turn {
                _of_server: of_server.map_err(error::internal)?,
                _of_all: all.acquire().await.map_err(error::internal)?,
            })
        };
        let turn = tokio::time::timeout(PATIENCE, turns).await;
        turn.unwrap_or_else(|_| Err(too_many(&self.server)))
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut servers = self.fetching.servers.lock();
        servers.waiting = servers.waiting.saturating_sub(1);
        if let Some(share) = servers.by_name.get_mut(&self.server) {
            share.waiting = share.waiting.saturating_sub(1);
            if share.waiting == 0 {
                servers.by_name.remove(&self.server);
            }
        }
    }
}

fn too_many(server: &ServerName) -> error::Error {
    error::unknown(
        StatusCode::SERVICE_UNAVAILABLE,
        format!("Too many files of {server} are asked for at once; try again later"),
    )
}
