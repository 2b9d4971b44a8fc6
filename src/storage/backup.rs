//! Backups: made while the server runs, restored into an empty folder.
//!
//! A backup is a folder with the database in it as it was at one moment, whole in itself, and beside it the
//! folders of files that its rows name. Files never change once they are written, so where both lie on one
//! disk they are shared and not copied: a backup that is to outlive the disk belongs on another.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use crate::{Engine, OpenError, Options, Storage, rocks::Rocks, wake::Wakeups};

/// Where in a backup the database lies. There is none until it is whole.
const DATABASE: &str = "database";

/// What the database in a backup is called until all is there.
const UNFINISHED_DATABASE: &str = "unfinished";

/// What the folder of a restore is called until it is whole.
const UNFINISHED: &str = "restoring";

/// What RocksDB writes last when it makes a database.
const CURRENT: &str = "CURRENT";

/// Keys and messages are nobody else's business.
const MODE: u32 = 0o700;

/// A backup that could not be made or restored. Each is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A backup, or something else, is there already.
    #[error("{0} is there already; a backup needs a folder of its own that is not there yet")]
    Exists(PathBuf),
    /// What is to be restored is no whole backup.
    #[error("there is no backup in {0}")]
    NoBackup(PathBuf),
    /// There is something where the backup is to be restored.
    #[error("the folder {0} is not empty; a backup is restored into an empty one only")]
    NotEmpty(PathBuf),
    /// An earlier restore ended in the middle.
    #[error("an earlier restore left {0} unfinished; remove it and try again")]
    Unfinished(PathBuf),
    /// A folder or a file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine failed.
    #[error("the storage engine cannot make the backup: {0}")]
    Engine(String),
    /// The restored database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Storage {
    /// Makes a backup of everything acknowledged by now, in the folder `folder`, which must not be there
    /// yet. `beside` then puts the folders of files into it that rows name ([`share_folder`]). Blocks while it
    /// does; commits go on meanwhile.
    ///
    /// # Errors
    ///
    /// See [`BackupError`]. What was begun is removed.
    pub fn backup(
        &self,
        folder: &Path,
        beside: impl FnOnce(&Path) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        let Engine::Rocks(rocks) = &self.0.engine else {
            return Err(BackupError::Engine("it lies in memory only".to_owned()));
        };
        if folder.exists() {
            return Err(BackupError::Exists(folder.to_owned()));
        }
        make_folder(folder)?;
        let fill = || {
            let (unfinished, database) = (folder.join(UNFINISHED_DATABASE), folder.join(DATABASE));
            rocks.copy_to(&unfinished).map_err(BackupError::Engine)?;
            // A file is there before its row is: after the rows, so that none of them lacks its file.
            beside(folder)?;
            sync(folder)?;
            fs::rename(&unfinished, &database).map_err(at(&database))?;
            sync(folder)
        };
        fill().inspect_err(|_| {
            // Where that fails too, the reason is what to tell.
            let _ = fs::remove_dir_all(folder);
        })
    }

    /// Brings the backup in `backup` back into `folder`, which must be empty or not there. The restored
    /// database goes on in another epoch, so that nobody takes positions of what is lost for its own.
    /// Blocks while it does. A restore that is interrupted leaves `folder` as it was.
    ///
    /// # Errors
    ///
    /// See [`BackupError`].
    pub fn restore(backup: &Path, folder: &Path, options: &Options) -> Result<(), BackupError> {
        let database = backup.join(DATABASE);
        if !database.join(CURRENT).is_file() {
            return Err(BackupError::NoBackup(backup.to_owned()));
        }
        if folder.exists() && !list(folder)?.is_empty() {
            return Err(BackupError::NotEmpty(folder.to_owned()));
        }
        let mut name = folder.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(UNFINISHED);
        let unfinished = folder.with_file_name(name);
        if unfinished.exists() {
            return Err(BackupError::Unfinished(unfinished));
        }
        make_folder(&unfinished)?;
        let fill = || {
            restore_into(&database, &unfinished, options)?;
            for beside in list(backup)? {
                if beside != database {
                    copy(&beside, &unfinished)?;
                }
            }
            sync(&unfinished)
        };
        fill().inspect_err(|_| {
            // Only a crash leaves it; where this fails too, the next restore says so.
            let _ = fs::remove_dir_all(&unfinished);
        })?;
        fs::rename(&unfinished, folder).map_err(at(folder))?;
        match folder.parent() {
            Some(parent) if parent != Path::new("") => sync(parent),
            _ => sync(Path::new(".")),
        }
    }
}

/// Puts a folder of files that never change, and the folders in it, to where `to` says: shared where both lie
/// on one disk, else copied. What is moved away meanwhile is left out; there may be no such folder.
///
/// # Errors
///
/// A [`BackupError::File`].
pub fn share_folder(folder: &Path, to: &Path) -> Result<(), BackupError> {
    let files = match list(folder) {
        Err(BackupError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(());
        }
        files => files?,
    };
    make_folder(to)?;
    for file in files {
        let Some(name) = file.file_name() else {
            continue;
        };
        let shared = to.join(name);
        if file.is_dir() {
            share_folder(&file, &shared)?;
        } else if fs::hard_link(&file, &shared).is_err() {
            match copy(&file, to) {
                Err(BackupError::File { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                copied => copied?,
            }
        }
    }
    sync(to)
}

/// Copies a database into an empty folder and lets it go on in another epoch.
fn restore_into(database: &Path, folder: &Path, options: &Options) -> Result<(), BackupError> {
    for file in list(database)? {
        copy(&file, folder)?;
    }
    let (rocks, meta) = Rocks::open(folder, options, &Wakeups::default().into())?;
    // Seconds, so that two restores of one backup do not continue in the same epoch.
    let seconds = u64::from(options.clock.now().get()) / 1_000;
    let epoch = u32::try_from(seconds)
        .unwrap_or(u32::MAX)
        .max(meta.epoch.saturating_add(1));
    rocks
        .begin_epoch(&meta, epoch)
        .map_err(BackupError::Engine)?;
    drop(rocks);
    sync(folder)
}

/// Puts the path beside what went wrong there.
fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

fn make_folder(folder: &Path) -> Result<(), BackupError> {
    let made = DirBuilder::new().recursive(true).mode(MODE).create(folder);
    made.map_err(at(folder))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let entries = fs::read_dir(folder).map_err(at(folder))?;
    entries
        .map(|entry| Ok(entry.map_err(at(folder))?.path()))
        .collect()
}

/// Copies a file or a folder to the disk, not only into memory.
fn copy(file: &Path, to: &Path) -> Result<(), BackupError> {
    let Some(name) = file.file_name() else {
        return Ok(());
    };
    let copied = to.join(name);
    if file.is_dir() {
        make_folder(&copied)?;
        for inner in list(file)? {
            copy(&inner, &copied)?;
        }
        return sync(&copied);
    }
    fs::copy(file, &copied).map_err(at(file))?;
    let written = File::open(&copied).and_then(|written| written.sync_all());
    written.map_err(at(&copied))
}

/// Brings the names in a folder to the disk.
fn sync(folder: &Path) -> Result<(), BackupError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at(folder))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use super::*;
    use crate::{Batch, Clock, Position, schema::FILTER_BY_USER};

    fn options() -> Options {
        Options {
            clock: Clock::standing_at(1_800_000_000_000),
            ..Options::default()
        }
    }

    fn open(folder: &Path) -> Storage {
        Storage::open(folder, &options()).unwrap()
    }

    fn nothing(_: &Path) -> Result<(), BackupError> {
        Ok(())
    }

    async fn put(storage: &Storage, number: u8) -> Position {
        let key = (crate::ShortUserId([number; 8]), storage.filter_hash("x"));
        let mut batch = Batch::new();
        batch.put(&FILTER_BY_USER, &key, &format!("row {number}"));
        storage.commit(batch).await.unwrap()
    }

    async fn has(storage: &Storage, number: u8) -> bool {
        let key = (crate::ShortUserId([number; 8]), storage.filter_hash("x"));
        let snapshot = storage.snapshot(Position::START).await.unwrap();
        snapshot.multi_get(&FILTER_BY_USER, &[key]).await.unwrap()[0].is_some()
    }

    #[tokio::test]
    async fn what_was_there_at_the_backup_is_there_after_the_restore_in_another_epoch() {
        let folder = TempDir::new().unwrap();
        let (data, backup) = (folder.path().join("data"), folder.path().join("a/backup"));
        let storage = open(&data);
        put(&storage, 1).await;
        storage.backup(&backup, nothing).unwrap();
        assert_eq!(
            fs::metadata(&backup).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let lost = put(&storage, 2).await;
        drop(storage);

        for restored in ["one", "two"] {
            let restored = folder.path().join(restored);
            Storage::restore(&backup, &restored, &options()).unwrap();
            let storage = open(&restored);
            assert!(has(&storage, 1).await);
            assert!(!has(&storage, 2).await);
            assert_eq!(storage.epoch(), 1_800_000_000);
            assert!(
                put(&storage, 3).await > lost,
                "later than anything of before"
            );
        }
        assert!(has(&open(&data), 2).await, "the original is as it was");
    }

    #[tokio::test]
    async fn a_backup_of_a_restored_database_goes_on_in_a_later_epoch() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        open(&path("data"))
            .backup(&path("backup"), nothing)
            .unwrap();
        Storage::restore(&path("backup"), &path("first"), &options()).unwrap();
        open(&path("first"))
            .backup(&path("again"), nothing)
            .unwrap();
        Storage::restore(&path("again"), &path("second"), &options()).unwrap();
        assert_eq!(open(&path("second")).epoch(), 1_800_000_001);
    }

    #[tokio::test]
    async fn commits_go_on_while_a_backup_is_made() {
        let folder = TempDir::new().unwrap();
        let storage = open(&folder.path().join("data"));
        let writing = tokio::spawn({
            let storage = storage.clone();
            async move {
                for number in 0..100 {
                    put(&storage, number).await;
                }
            }
        });
        for number in 0..5 {
            let (storage, backup) = (storage.clone(), folder.path().join(number.to_string()));
            tokio::task::spawn_blocking(move || storage.backup(&backup, nothing))
                .await
                .unwrap()
                .unwrap();
        }
        writing.await.unwrap();
        let restored = folder.path().join("restored");
        Storage::restore(&folder.path().join("4"), &restored, &options()).unwrap();
        let restored = open(&restored);
        let mut there = Vec::new();
        for number in 0..100 {
            there.push(has(&restored, number).await);
        }
        assert!(
            there.is_sorted_by(|a, b| a >= b),
            "a moment, no holes: {there:?}"
        );
    }

    #[test]
    fn nothing_is_written_over() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let storage = open(&path("data"));
        storage.backup(&path("backup"), nothing).unwrap();
        let again = storage.backup(&path("backup"), nothing).unwrap_err();
        assert!(matches!(again, BackupError::Exists(_)), "{again}");
        let onto = Storage::restore(&path("backup"), &path("data"), &options()).unwrap_err();
        assert!(matches!(onto, BackupError::NotEmpty(_)), "{onto}");
        let none = Storage::restore(&path("data"), &path("new"), &options()).unwrap_err();
        assert!(matches!(none, BackupError::NoBackup(_)), "{none}");
        fs::create_dir(path("new.restoring")).unwrap();
        let left = Storage::restore(&path("backup"), &path("new"), &options()).unwrap_err();
        assert!(matches!(left, BackupError::Unfinished(_)), "{left}");
        assert!(!path("new").exists());
        fs::create_dir(path("empty")).unwrap();
        Storage::restore(&path("backup"), &path("empty"), &options()).unwrap();
        let memory = Storage::model()
            .backup(&path("memory"), nothing)
            .unwrap_err();
        assert!(matches!(memory, BackupError::Engine(_)), "{memory}");
    }

    #[test]
    fn a_backup_of_another_server_is_not_taken() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        open(&path("data"))
            .backup(&path("backup"), nothing)
            .unwrap();
        let other = Options {
            server_name: Some("example.org".to_owned()),
            ..options()
        };
        let refused = Storage::restore(&path("backup"), &path("new"), &other).unwrap_err();
        assert!(refused.to_string().contains("example.org"), "{refused}");
        assert!(!path("new").exists() && !path("new.restoring").exists());
    }

    #[tokio::test]
    async fn folders_of_files_come_with_the_rows_whichever_disk_they_lie_on() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let storage = open(&path("data"));
        fs::create_dir_all(path("data/files/ab")).unwrap();
        fs::write(path("data/files/ab/one"), "one").unwrap();
        let share = |backup: &Path| {
            share_folder(&path("data/files"), &backup.join("files"))?;
            share_folder(&path("data/none"), &backup.join("none"))
        };
        storage.backup(&path("backup"), share).unwrap();
        fs::remove_file(path("data/files/ab/one")).unwrap();
        Storage::restore(&path("backup"), &path("new"), &options()).unwrap();
        let read = |name: &str| fs::read_to_string(path(name)).unwrap();
        assert_eq!(read("new/files/ab/one"), "one");
        // The restored file is one of its own.
        fs::write(path("new/files/ab/one"), "two").unwrap();
        assert_eq!(read("backup/files/ab/one"), "one");
        assert!(!path("new/none").exists() && !path("new/unfinished").exists());
        open(&path("new"));
    }

    #[test]
    fn a_backup_without_its_files_is_none() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let storage = open(&path("data"));
        let no_files = |_: &Path| Err(BackupError::Engine("no files".to_owned()));
        assert!(storage.backup(&path("backup"), no_files).is_err());
        assert!(!path("backup").exists());
        // As a crash leaves it.
        storage.backup(&path("backup"), nothing).unwrap();
        fs::rename(path("backup/database"), path("backup/unfinished")).unwrap();
        let none = Storage::restore(&path("backup"), &path("new"), &options()).unwrap_err();
        assert!(matches!(none, BackupError::NoBackup(_)), "{none}");
    }
}
