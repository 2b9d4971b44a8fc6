//! Search: what was said in rooms, and who is in them.
//!
//! One index of tantivy's in a folder of its own. A [follower](follower) of the stream keeps it true, and
//! saves how far it has come in the index's own commits: an index that is missing, damaged, of another form
//! or of another database is built anew from the stream, and nobody has to do anything. It holds keys and
//! folded words ([`fields`], [`words`]); whatever is shown is read from storage, where it is also decided who
//! may see it ([`find_messages`], [`find_people`]).
//!
//! A question waits until the index holds what was stored before it was asked, for a while: that is also when
//! the follower makes haste. Nobody asking, it works off what has come in now and then, many events at once.

mod fields;
mod find_messages;
mod find_people;
mod follower;
mod hits;
mod index;
mod messages;
mod people;
#[cfg(test)]
mod tests;
mod token;
mod words;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::RwLock;
use rooms::Rooms;
use storage::{Position, Storage};
use tantivy::TantivyError;
use tokio::{
    sync::{Notify, watch},
    task::spawn_blocking,
};
use users::Users;

use self::index::Index;
pub use self::{
    fields::Kind,
    find_messages::{Found, FoundEvent, FoundRoom, MessageQuery},
    find_people::{FoundPeople, FoundPerson, PeopleQuery},
    token::{Group, NextBatch, NoNextBatch},
};

/// How long a question waits for the index to hold what was stored before it.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How many different words may be searched for at once.
const WORDS_MAX: usize = 50;

/// What can be searched, and how; clones share it.
#[derive(Clone)]
pub struct Search(Arc<Inner>);

/// What a search is built on.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where all is that can be found.
    pub storage: Storage,
    /// The people.
    pub users: Users,
    /// The rooms.
    pub rooms: Rooms,
    /// The folder of the index. Whatever else is in it may be thrown away.
    pub folder: PathBuf,
}

struct Inner {
    parts: Parts,
    /// None until it is open.
    index: RwLock<Option<Arc<Index>>>,
    /// Up to where somebody wants the index to hold the stream.
    wanted: watch::Sender<Position>,
    /// Up to where it does.
    reached: watch::Sender<Position>,
    /// The index was found to be damaged.
    damaged: Notify,
}

/// What goes wrong with the index.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It, or the disk.
    #[error("the search index: {0}")]
    Index(#[from] TantivyError),
    /// Its files are not what was written.
    #[error("the search index is damaged")]
    Damaged,
    /// The rest of the server.
    #[error(transparent)]
    Server(#[from] error::Error),
}

impl Failure {
    /// Whether the index is to be built anew. What a question does wrong is no fault of its files, nor is
    /// that somebody still has them open.
    fn is_damage(&self) -> bool {
        match self {
            Self::Damaged => true,
            Self::Index(failure) => !matches!(
                failure,
                TantivyError::LockFailure(..)
                    | TantivyError::InvalidArgument(_)
                    | TantivyError::SchemaError(_)
                    | TantivyError::FieldNotFound(_)
            ),
            Self::Server(_) => false,
        }
    }
}

impl From<storage::ReadError> for Failure {
    fn from(failure: storage::ReadError) -> Self {
        Self::Server(failure.into())
    }
}

/// Does something with the index that may take a while. It panics where files are damaged that it relies on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TantivyError> + Send + 'static,
) -> Result<T, Failure> {
    match spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::Damaged),
    }
}

impl Search {
    /// A search over what `parts` name. Its index is opened, and kept true, by [`Search::follow`].
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            index: RwLock::new(None),
            wanted: watch::Sender::new(Position::START),
            reached: watch::Sender::new(Position::START),
            damaged: Notify::new(),
        }))
    }

    fn storage(&self) -> &Storage {
        &self.0.parts.storage
    }

    fn rooms(&self) -> &Rooms {
        &self.0.parts.rooms
    }

    /// Waits until the index holds all that is stored now, but not forever.
    async fn wait(&self) -> error::Result<()> {
        let now = self.rooms().snapshot().await?.position();
        let mut reached = self.0.reached.subscribe();
        if *reached.borrow() >= now {
            return Ok(());
        }
        self.0.wanted.send_if_modified(|wanted| {
            let more = now > *wanted;
            *wanted = now.max(*wanted);
            more
        });
        let there = reached.wait_for(|reached| *reached >= now);
        if tokio::time::timeout(LONGEST_WAIT, there).await.is_err() {
            tracing::warn!("a search did not wait for the index, which lags behind");
        }
        Ok(())
    }

    /// Asks the index something.
    ///
    /// # Errors
    ///
    /// 503 while it is being opened; internal, if it cannot answer.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Index) -> Result<T, TantivyError> + Send + 'static,
    ) -> error::Result<T> {
        let index = self.0.index.read().clone();
        let index = index.ok_or_else(|| error::too_busy("the search index is not open"))?;
        let answer = blocking(move || question(&index)).await;
        answer.map_err(|failure| {
            if failure.is_damage() {
                self.0.damaged.notify_one();
            }
            error::internal(failure)
        })
    }
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Search({})", self.0.parts.folder.display())
    }
}
