//! Files on the disk.
//!
//! A file comes in under `arriving/`, by a name that says for which row it is, is synced, and then its
//! row is written; only after that it is moved to its place under `files/`. So what lies under
//! `arriving/` when the server starts can be told apart by its row: it is moved if it was acknowledged
//! or could have been, and removed if not. A reader looks in both places.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use error::Result;
use storage::{
    BackupError, NameHash,
    schema::{MEDIA_BY_HASH, MediaState},
    share_folder,
};
use tokio::task::spawn_blocking;

use crate::Media;

/// How many arrivals are looked up at once.
const CHUNK: usize = 500;

/// A file's name on the disk: random, so that it says nothing and is never used again.
pub(crate) type FileId = [u8; 16];

/// The folder.
pub(crate) struct Files {
    root: PathBuf,
    sync: bool,
}

impl Files {
    pub(crate) fn new(root: PathBuf, sync: bool) -> Self {
        Self { root, sync }
    }

    /// Where a file lies while it comes in.
    pub(crate) fn arriving(&self, media: NameHash, file: FileId) -> PathBuf {
        let name = format!("{}-{}", hex(&media.0), hex(&file));
        self.root.join("arriving").join(name)
    }

    /// Where a file lies in the end.
    pub(crate) fn settled(&self, file: FileId) -> PathBuf {
        let name = hex(&file);
        let (folder, rest) = name.split_at(2);
        self.root.join("files").join(folder).join(rest)
    }

    /// Where a picture made of a file is kept.
    pub(crate) fn thumbnail(&self, file: FileId, name: &str) -> PathBuf {
        let all = hex(&file);
        let (folder, rest) = all.split_at(2);
        let folder = self.root.join("thumbnails").join(folder);
        folder.join(format!("{rest}-{name}"))
    }

    /// Makes an empty file that is about to come in.
    pub(crate) async fn create(&self, media: NameHash, file: FileId) -> Result<tokio::fs::File> {
        let (path, sync) = (self.arriving(media, file), self.sync);
        let made = in_background(move || {
            make_folder_of(&path, sync)?;
            let mut options = fs::OpenOptions::new();
            options.write(true).create_new(true).mode(0o600).open(path)
        });
        Ok(tokio::fs::File::from_std(made.await?))
    }

    /// Makes sure that a file that has come in stays.
    pub(crate) async fn keep(&self, file: tokio::fs::File) -> Result<()> {
        if !self.sync {
            return Ok(());
        }
        let folder = self.root.join("arriving");
        let file = file.into_std().await;
        in_background(move || {
            file.sync_all()?;
            sync_folder(&folder)
        })
        .await
    }

    /// Moves a file to its place; it is found where it lay, too.
    pub(crate) async fn settle(&self, media: NameHash, file: FileId) -> Result<()> {
        let (from, to) = (self.arriving(media, file), self.settled(file));
        let sync = self.sync;
        in_background(move || {
            make_folder_of(&to, sync)?;
            fs::rename(from, to)
        })
        .await
    }

    /// Opens a file for reading.
    pub(crate) async fn open(&self, media: NameHash, file: FileId) -> Result<fs::File> {
        let (settled, arriving) = (self.settled(file), self.arriving(media, file));
        in_background(move || {
            // It may be moved between the first look and the second.
            for path in [&settled, &arriving, &settled] {
                match fs::File::open(path) {
                    Err(failure) if failure.kind() == ErrorKind::NotFound => {}
                    opened => return opened,
                }
            }
            let missing = format!("the file {} is missing", settled.display());
            Err(io::Error::new(ErrorKind::NotFound, missing))
        })
        .await
    }

    /// The content of a small file, if it is there.
    pub(crate) async fn find(&self, path: PathBuf) -> Result<Option<Vec<u8>>> {
        in_background(move || match fs::read(path) {
            Ok(content) => Ok(Some(content)),
            Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        })
        .await
    }

    /// Writes a small file, whole or not at all.
    pub(crate) fn write(&self, path: &Path, draft: &str, content: &[u8]) -> io::Result<()> {
        let draft = self.root.join("arriving").join(draft);
        make_folder_of(&draft, self.sync)?;
        make_folder_of(path, self.sync)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(content)?;
        if self.sync {
            file.sync_all()?;
        }
        fs::rename(draft, path)
    }

    /// Puts all files into a folder of a backup, in the order in which a file moves on: one on its way is met
    /// at one end or the other.
    pub(crate) fn share(&self, to: &Path) -> std::result::Result<(), BackupError> {
        for name in ["arriving", "files", "thumbnails"] {
            share_folder(&self.root.join(name), &to.join(name))?;
        }
        Ok(())
    }

    async fn arrivals(&self) -> Result<Vec<PathBuf>> {
        let folder = self.root.join("arriving");
        in_background(move || match fs::read_dir(folder) {
            Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
            Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(failure) => Err(failure),
        })
        .await
    }
}

impl Media {
    /// Moves what has come in and was not moved, and removes what never came in whole.
    pub(crate) async fn settle_arrivals(&self) -> Result<()> {
        let arrivals = self.0.files.arrivals().await?;
        for chunk in arrivals.chunks(CHUNK) {
            let named: Vec<_> = chunk
                .iter()
                .filter_map(|path| Some((path, named(path.file_name()?)?)))
                .collect();
            let hashes: Vec<NameHash> = named.iter().map(|(_, (media, _))| *media).collect();
            let snapshot = self.snapshot().await?;
            let rows = snapshot.multi_get(&MEDIA_BY_HASH, &hashes).await?;
            let mut acknowledged = Vec::new();
            for ((path, (media, file)), row) in named.into_iter().zip(rows) {
                if let Some(row) = row
                    && let MediaState::Uploaded(uploaded) = row.value.state
                    && uploaded.file == file
                {
                    self.0.files.settle(media, file).await?;
                    acknowledged.push(path);
                }
            }
            let others = chunk.iter().filter(|path| !acknowledged.contains(path));
            for path in others.cloned().collect::<Vec<_>>() {
                in_background(move || fs::remove_file(path)).await?;
            }
        }
        if !arrivals.is_empty() {
            let files = arrivals.len();
            tracing::info!(files, "tidied up what was uploaded when the server ended");
        }
        Ok(())
    }
}

/// Runs what waits for the disk beside the tasks.
pub(crate) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = spawn_blocking(work).await.map_err(error::internal)?;
    done.map_err(|failure| error::internal(failure).context("the folder of files"))
}

/// Makes the folder that a file is to lie in, for nobody else to look into.
fn make_folder_of(path: &Path, sync: bool) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) if sync => match folder.parent() {
            Some(parent) => sync_folder(parent),
            None => Ok(()),
        },
        Err(failure) if failure.kind() == ErrorKind::NotFound => {
            make_folder_of(folder, sync)?;
            make_folder_of(path, sync)
        }
        Err(failure) if failure.kind() != ErrorKind::AlreadyExists => Err(failure),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// The row and the file that a name under `arriving/` is of.
fn named(name: &OsStr) -> Option<(NameHash, FileId)> {
    let (media, file) = name.to_str()?.split_once('-')?;
    Some((NameHash(unhex(media)?), unhex(file)?))
}

fn hex(bytes: &[u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(text, 16).ok()?;
    let bytes = number.to_be_bytes();
    (hex(&bytes) == text).then_some(bytes)
}
