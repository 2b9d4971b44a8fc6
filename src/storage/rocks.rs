//! The RocksDB engine: one process, one folder.
//!
//! One thread commits ([`commit`]); everybody else reads, each from a snapshot of their own ([`read`]).

mod commit;
mod families;
mod folder;
mod read;
mod wal;

use std::{fmt, fs::File, path::Path, sync::Arc, thread::JoinHandle};

use bytes::Bytes;
use rocksdb::{DB, WriteBatch, WriteOptions, checkpoint::Checkpoint};

pub(crate) use self::read::View;
use self::{
    commit::{Committer, Queue},
    families::{Families, Tuning},
};
use crate::{
    Batch, CommitError, Options, Stamp,
    open::{Meta, OpenError},
    wake::Wakeups,
};

/// A failure of the engine.
#[derive(Debug, thiserror::Error)]
enum RocksError {
    #[error(transparent)]
    Engine(#[from] rocksdb::Error),
    /// Cannot happen: all families are opened or made at the start.
    #[error("a family of tables is missing")]
    NoFamily,
}

/// An open RocksDB.
pub(crate) struct Rocks {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    committer: Option<JoinHandle<()>>,
    tuning: Tuning,
}

/// What the committing thread and the readers share.
struct Shared {
    db: Arc<DB>,
    families: Families,
    /// Held as long as anyone uses the database; dropped after it.
    _lock: File,
}

impl Rocks {
    /// Opens the database in `path`, making it if there is none.
    pub(crate) fn open(
        path: &Path,
        options: &Options,
        wakeups: &Arc<Wakeups>,
    ) -> Result<(Self, Meta), OpenError> {
        let lock = folder::lock(path)?;
        folder::check(path)?;
        let tuning = Tuning::new(options);
        let db = DB::open_cf_descriptors(tuning.database(), path, tuning.descriptors())
            .map_err(|error| folder::open_error(path, &error.into()))?;
        let shared = Arc::new(Shared {
            db: Arc::new(db),
            families: Families::default(),
            _lock: lock,
        });
        let meta = shared.meta(path, options)?;
        meta.belongs_to(path, options.server_name.as_deref())?;

        let queue = Arc::new(Queue::default());
        let committer = Committer::new(
            Arc::clone(&shared),
            Arc::clone(&queue),
            Arc::clone(wakeups),
            meta.epoch,
            options.sync,
        );
        let committer = std::thread::Builder::new()
            .name("commit".to_owned())
            .spawn(move || committer.run())
            .map_err(|source| OpenError::Folder {
                path: path.to_owned(),
                source,
            })?;
        let rocks = Self {
            shared,
            queue,
            committer: Some(committer),
            tuning,
        };
        Ok((rocks, meta))
    }

    /// One consistent view of everything that is acknowledged.
    pub(crate) fn snapshot(&self) -> View {
        View::new(Arc::clone(&self.shared))
    }

    /// Has the batch written by the committing thread, which wakes its topics too: a caller that stops
    /// waiting changes nothing.
    pub(crate) async fn commit(&self, batch: Arc<Batch>) -> Result<Stamp, CommitError> {
        self.queue.commit(batch).await
    }

    /// Writes a database of its own, with all that is acknowledged by now, into a folder that is not there
    /// yet; it appears when it is whole.
    pub(crate) fn copy_to(&self, folder: &Path) -> Result<(), String> {
        Checkpoint::new(&self.shared.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(folder))
            .map_err(|error| error.to_string())
    }

    /// Stores that the history goes on in another epoch from the next start on.
    pub(crate) fn begin_epoch(&self, meta: &Meta, epoch: u32) -> Result<(), String> {
        let meta = Meta {
            epoch,
            ..meta.clone()
        };
        self.shared
            .put_meta(&meta)
            .map_err(|error| error.to_string())
    }

    /// How often the log was brought to the disk since the start; `None` if nothing is counted.
    pub(crate) fn log_syncs(&self) -> Option<u64> {
        self.tuning.log_syncs()
    }
}

impl Drop for Rocks {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the committing thread panicked");
        }
    }
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rocks")
            .field(&self.shared.db.path())
            .finish()
    }
}

impl Shared {
    /// What is stored about the database, stored now if this is its first start.
    fn meta(&self, path: &Path, options: &Options) -> Result<Meta, OpenError> {
        let engine = |error: RocksError| folder::open_error(path, &error);
        let rows = self.meta_rows().map_err(engine)?;
        let stored = Meta::read(rows).map_err(|error| error.into_open_error(path))?;
        if let Some(meta) = stored {
            return Ok(meta);
        }
        if self.db.latest_sequence_number() != 0 {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                reason: "it holds data, but nothing about itself".to_owned(),
            });
        }
        let meta = Meta::first(options.server_name.as_deref(), &options.random);
        self.put_meta(&meta).map_err(engine)?;
        Ok(meta)
    }

    fn meta_rows(&self) -> Result<[Option<Bytes>; 4], RocksError> {
        let mut rows = [const { None }; 4];
        for (row, key) in rows.iter_mut().zip(Meta::keys()) {
            let family = self.families.of_key(&self.db, &key)?;
            *row = self.db.get_cf(family, &key)?.map(Bytes::from);
        }
        Ok(rows)
    }

    fn put_meta(&self, meta: &Meta) -> Result<(), RocksError> {
        let mut batch = WriteBatch::default();
        for (key, value) in meta.rows() {
            batch.put_cf(self.families.of_key(&self.db, &key)?, key, value);
        }
        let mut write = WriteOptions::default();
        write.set_sync(true);
        Ok(self.db.write_opt(batch, &write)?)
    }
}
