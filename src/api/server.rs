//! The one value that everything hangs off.

use std::{fmt, ops::Deref, sync::Arc};

use config::Config;
use storage::{Clock, Random, Storage};
use tokio_util::task::TaskTracker;

use crate::{
    Shutdown,
    router::{Conflict, Router},
};

/// A server: its settings, its storage, its people and rooms, its clock. There is no other global
/// state, so several live in one process and do not know of each other. Clones are the same server.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

/// What a server is put together from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What the operator has set.
    pub config: Config,
    /// Where everything is stored.
    pub storage: Storage,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
}

/// What one finds by looking at a [`Server`].
pub struct Inner {
    parts: Parts,
    /// The word that the server is about to stop.
    pub shutdown: Shutdown,
    pub(crate) router: Router,
    /// Requests that change something and go on even when the client has gone away.
    pub(crate) tasks: TaskTracker,
}

impl Server {
    /// Puts a server together.
    ///
    /// # Errors
    ///
    /// Two routes of the table ask for the same path.
    pub fn new(parts: Parts) -> Result<Self, Conflict> {
        Ok(Self(Arc::new(Inner {
            parts,
            shutdown: Shutdown::default(),
            router: Router::new(crate::routes())?,
            tasks: TaskTracker::new(),
        })))
    }
}

impl Deref for Server {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
