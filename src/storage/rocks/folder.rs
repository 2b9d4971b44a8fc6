//! The folder of a database: whose it is, and whether it can be opened.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use rocksdb::{DB, ErrorKind};

use super::{RocksError, families, wal};
use crate::OpenError;

/// Names the database that is in force; RocksDB writes it last when it makes one.
const CURRENT: &str = "CURRENT";

/// Held by who uses the folder. RocksDB has a lock too, but takes it only after it could matter here.
const LOCK: &str = "chapar.lock";

/// Makes the folder if there is none, and takes it for ourselves.
pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let folder_error = |source| OpenError::Folder {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(folder_error)?;
    let file = File::create(path.join(LOCK)).map_err(folder_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(folder_error(source)),
    }
}

/// Checks what RocksDB would not notice, or would notice only after it changed something.
pub(super) fn check(path: &Path) -> Result<(), OpenError> {
    if !path.join(CURRENT).exists() {
        return check_new(path);
    }
    let found = DB::list_cf(&rocksdb::Options::default(), path)
        .map_err(|error| open_error(path, &error.into()))?;
    if let Some(unknown) = found.iter().find(|name| !families::is_known(name)) {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            found: format!("table family {unknown:?}"),
        });
    }
    for log in files(path, "log")? {
        let bytes = fs::read(&log).map_err(|source| OpenError::Folder {
            path: log.clone(),
            source,
        })?;
        if let Err(offset) = wal::check(&bytes) {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                reason: format!(
                    "the log {} has a damaged record at byte {offset}, with good ones after it",
                    log.display()
                ),
            });
        }
    }
    Ok(())
}

/// A folder without a database must not hold the remains of one.
fn check_new(path: &Path) -> Result<(), OpenError> {
    if files(path, "sst")?.is_empty() {
        return Ok(());
    }
    Err(OpenError::Damaged {
        path: path.to_owned(),
        reason: format!("there are data files, but no file {CURRENT}"),
    })
}

fn files(path: &Path, extension: &str) -> Result<Vec<std::path::PathBuf>, OpenError> {
    let list = || -> io::Result<Vec<_>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path)? {
            let file = entry?.path();
            if file.extension().is_some_and(|found| found == extension) {
                files.push(file);
            }
        }
        Ok(files)
    };
    list().map_err(|source| OpenError::Folder {
        path: path.to_owned(),
        source,
    })
}

/// What RocksDB says, in the operator's words.
pub(super) fn open_error(path: &Path, error: &RocksError) -> OpenError {
    let path = path.to_owned();
    let reason = error.to_string();
    let RocksError::Engine(error) = error else {
        return OpenError::Engine { path, reason };
    };
    match error.kind() {
        ErrorKind::Corruption => OpenError::Damaged { path, reason },
        ErrorKind::IOError if reason.contains("lock") || reason.contains("LOCK") => {
            OpenError::InUse { path }
        }
        ErrorKind::IOError if reason.contains("No such file") => {
            OpenError::Damaged { path, reason }
        }
        _ => OpenError::Engine { path, reason },
    }
}
