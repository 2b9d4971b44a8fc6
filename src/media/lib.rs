//! The content repository: files that people upload, and smaller pictures made of them ([spec]).
//!
//! What is known of a file is a row of storage, the file itself lies in the data folder
//! ([`files`](self)). A file is on the disk, whole, before its row is written; a row is written before
//! anybody is told of it. Files are taken in and given out piece by piece and are never in memory as a
//! whole, save pictures while a smaller one is made of them (`thumbnail.rs`, `picture.rs`).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#content-repository

mod files;
mod find;
mod pending;
mod picture;
mod remote;
#[cfg(test)]
mod tests;
mod thumbnail;
mod turns;
mod upload;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use error::Result;
use federation::Federation;
use ruma::OwnedServerName;
use storage::{
    BackupError, Batch, Clock, CommitError, NameHash, Position, Random, Snapshot, Storage,
    schema::MediaRow,
};

use self::{files::Files, thumbnail::Workshop, turns::Fetching};
pub use self::{
    find::Stored,
    pending::Created,
    thumbnail::{Thumbnail, Wanted},
    upload::{Described, Upload},
};

/// The folder for files, in the data folder and in backups.
pub const FOLDER: &str = "media";

/// How often a change is tried before it is given up.
const MAX_ATTEMPTS: u32 = 32;

/// The longest media id of anybody, in bytes.
const LONGEST_ID: usize = 255;

/// What a content repository is put together from.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where rows are stored.
    pub storage: Storage,
    /// This server: what stands before the slash of its files' ids.
    pub server_name: OwnedServerName,
    /// What it has to do with others, of whom files are fetched.
    pub federation: Federation,
    /// The time.
    pub clock: Clock,
    /// Randomness.
    pub random: Random,
    /// The folder for files; made when the first one comes.
    pub folder: PathBuf,
    /// Whether a file is on the disk before it is acknowledged.
    pub sync: bool,
    /// What the operator has set.
    pub settings: config::Media,
}

/// The content repository. Clones are the same one.
#[derive(Clone)]
pub struct Media(Arc<Inner>);

struct Inner {
    storage: Storage,
    server_name: OwnedServerName,
    federation: Federation,
    clock: Clock,
    random: Random,
    settings: config::Media,
    files: Files,
    fetching: Fetching,
    workshop: Workshop,
}

impl Media {
    /// Opens it, and tidies up what a crash has left of files that were coming in.
    ///
    /// # Errors
    ///
    /// Storage or the folder cannot be read.
    pub async fn open(parts: Parts) -> Result<Self> {
        let media = Self(Arc::new(Inner {
            storage: parts.storage,
            server_name: parts.server_name,
            federation: parts.federation,
            fetching: Fetching::default(),
            clock: parts.clock,
            random: parts.random,
            settings: parts.settings,
            files: Files::new(parts.folder, parts.sync),
            workshop: Workshop::default(),
        }));
        media.settle_arrivals().await?;
        Ok(media)
    }

    /// Puts the files into a backup that holds the rows already. Blocks while it does.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written.
    pub fn back_up(&self, backup: &Path) -> std::result::Result<(), BackupError> {
        self.0.files.share(&backup.join(FOLDER))
    }

    /// The longest file, in bytes.
    pub fn max_upload_size(&self) -> u64 {
        self.0.settings.max_upload_size.get()
    }

    /// The URI of a file of this server.
    pub fn uri(&self, media_id: &str) -> ruma::OwnedMxcUri {
        format!("mxc://{}/{media_id}", self.0.server_name).into()
    }

    fn hash(&self, media_id: &str) -> NameHash {
        let server_name = self.0.server_name.as_str();
        self.0.storage.media_hash(server_name, media_id)
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        self.0.clock.now().get().into()
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.0.storage.snapshot(Position::START).await?)
    }

    /// Writes a change. `false`: something changed since it was prepared, or it is not known whether it
    /// was written; read again and decide again.
    async fn commit(&self, batch: Batch) -> Result<bool> {
        match self.0.storage.commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::Unknown | CommitError::TooOld) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }
}

impl fmt::Debug for Media {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Media")
            .field("server_name", &self.0.server_name)
            .finish_non_exhaustive()
    }
}

/// Checks the [grammar] of a media id: what passes cannot lead out of a folder.
///
/// # Errors
///
/// 400 `M_INVALID_PARAM`.
///
/// [grammar]: https://spec.matrix.org/v1.19/client-server-api/#content-repo-security-considerations
fn check_id(media_id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=LONGEST_ID).contains(&media_id.len()) && media_id.bytes().all(plain) {
        return Ok(());
    }
    Err(error::invalid_param(
        "A media id has letters, digits, `_` and `-` only, at most 255 of them",
    ))
}

fn not_there() -> error::Error {
    error::not_found("There is no such file")
}

/// What anybody who never could change it finds.
fn gave_up() -> error::Error {
    error::internal("somebody else always changed it first")
}

/// Whether an id still waits for its file.
fn is_pending(row: &MediaRow, now: u64) -> bool {
    matches!(row.state, storage::schema::MediaState::Pending { expires_ts } if expires_ts > now)
}
