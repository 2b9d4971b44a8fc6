//! Opening a database: what an operator can choose, what can go wrong, what is stored about itself.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    Clock, Random,
    key::Key,
    schema::META_BY_NUMBER,
    value::{Value, ValueError},
};

/// The format of the disk that this version writes. Higher ones it does not open.
pub const FORMAT: u32 = 1;

/// How a database is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the server. It is stored at the first start and must be the same ever after; `None`
    /// takes the stored one, or `localhost` at a first start.
    pub server_name: Option<String>,
    /// How many bytes of memory may hold blocks that were read from the disk.
    pub block_cache: usize,
    /// How many bytes of memory the engine may use in all: the block cache, and writes on their way to
    /// the disk.
    pub memory_budget: usize,
    /// Whether a write is on the disk before it is acknowledged. Without, a power failure loses the last
    /// moments; a crash of the process does not.
    pub sync: bool,
    /// Whether the engine counts what it does, for [`Storage::log_syncs`](crate::Storage::log_syncs).
    pub statistics: bool,
    /// Tells how old a snapshot is.
    pub clock: Clock,
    /// Where the key of the keyed hashes comes from at the first start.
    pub random: Random,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            server_name: None,
            block_cache: 128 << 20,
            memory_budget: 256 << 20,
            sync: true,
            statistics: false,
            clock: Clock::system(),
            random: Random::from_system(),
        }
    }
}

/// A database that could not be opened. Each is a sentence for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle in this one, has it open.
    #[error(
        "the database in {path} is in use by another process; only one server may use a folder at a time"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A later version of the server has written it.
    #[error(
        "the database in {path} was written by a later version ({found}); this version reads up to \
         format {FORMAT}: start the later version, or restore a backup made by this one"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// What was found that this version does not know.
        found: String,
    },
    /// Its files are not what was written.
    #[error(
        "the database in {path} is damaged ({reason}); nothing was changed: check the disk, then \
         restore a backup into an empty folder"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It belongs to a server of another name.
    #[error(
        "the database in {path} belongs to the server {stored}, not to {asked}; a server's name cannot \
         be changed"
    )]
    ServerName {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        stored: String,
        /// As whom it was to be opened.
        asked: String,
    },
    /// The folder cannot be made or read.
    #[error("the folder {path} cannot be used: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine failed in another way.
    #[error("the database in {path} cannot be opened: {reason}")]
    Engine {
        /// The folder.
        path: PathBuf,
        /// What the engine says.
        reason: String,
    },
}

/// What the storage keeps about itself, a row each in `META_BY_NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// The format of the disk.
    pub(crate) format: u32,
    /// The history that positions belong to.
    pub(crate) epoch: u32,
    /// The key of all keyed hashes.
    pub(crate) hash_key: [u8; 32],
    /// Whose database this is.
    pub(crate) server_name: String,
}

/// The rows of [`Meta`]; the numbers are the disk format.
const META_FORMAT: u16 = 1;
const META_EPOCH: u16 = 2;
const META_HASH_KEY: u16 = 3;
const META_SERVER_NAME: u16 = 4;

impl Meta {
    /// What a first start stores.
    pub(crate) fn first(server_name: Option<&str>, random: &Random) -> Self {
        let mut hash_key = [0; 32];
        random.fill(&mut hash_key);
        Self {
            format: FORMAT,
            epoch: 1,
            hash_key,
            server_name: server_name.unwrap_or("localhost").to_owned(),
        }
    }

    /// The keys of the rows, in the order in which [`Self::read`] takes them.
    pub(crate) fn keys() -> [Vec<u8>; 4] {
        [META_FORMAT, META_EPOCH, META_HASH_KEY, META_SERVER_NAME].map(meta_key)
    }

    /// The rows that hold this.
    pub(crate) fn rows(&self) -> [(Vec<u8>, Vec<u8>); 4] {
        let values = [
            self.format.to_be_bytes().to_vec(),
            self.epoch.to_be_bytes().to_vec(),
            self.hash_key.to_vec(),
            self.server_name.clone().into_bytes(),
        ];
        let [k0, k1, k2, k3] = Self::keys();
        let [v0, v1, v2, v3] = values.map(|value| value.encode());
        [(k0, v0), (k1, v1), (k2, v2), (k3, v3)]
    }

    /// Reads the rows; `None` if there are none at all.
    ///
    /// # Errors
    ///
    /// Some rows are missing, or are not what was written.
    pub(crate) fn read(rows: [Option<bytes::Bytes>; 4]) -> Result<Option<Self>, MetaError> {
        if rows.iter().all(Option::is_none) {
            return Ok(None);
        }
        let [format, epoch, hash_key, server_name] = rows;
        let format = number(format.as_ref())?;
        if format > FORMAT {
            return Err(MetaError::Newer(format));
        }
        Ok(Some(Self {
            format,
            epoch: number(epoch.as_ref())?,
            hash_key: bytes_of(hash_key.as_ref())?
                .try_into()
                .map_err(|_| DAMAGED)?,
            server_name: String::from_utf8(bytes_of(server_name.as_ref())?).map_err(|_| DAMAGED)?,
        }))
    }

    /// Checks that this is the database of the server `asked`.
    pub(crate) fn belongs_to(&self, path: &Path, asked: Option<&str>) -> Result<(), OpenError> {
        match asked {
            Some(asked) if asked != self.server_name => Err(OpenError::ServerName {
                path: path.to_owned(),
                stored: self.server_name.clone(),
                asked: asked.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

/// [`Meta`] that cannot be read.
#[derive(Debug)]
pub(crate) enum MetaError {
    /// A format that this version does not know.
    Newer(u32),
    /// A row that is not what was written.
    Damaged(ValueError),
}

impl MetaError {
    /// The same, for the operator.
    pub(crate) fn into_open_error(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer(format) => OpenError::Newer {
                path,
                found: format!("format {format}"),
            },
            Self::Damaged(error) => OpenError::Damaged {
                path,
                reason: format!("what it says about itself cannot be read: {error}"),
            },
        }
    }
}

const DAMAGED: MetaError = MetaError::Damaged(ValueError::Damaged("not of its form"));

fn meta_key(number: u16) -> Vec<u8> {
    [&[META_BY_NUMBER.info.id], Key::encode(&number).as_slice()].concat()
}

fn bytes_of(row: Option<&bytes::Bytes>) -> Result<Vec<u8>, MetaError> {
    let row = row.ok_or(MetaError::Damaged(ValueError::Damaged("a row is missing")))?;
    Value::decode(row).map_err(MetaError::Damaged)
}

fn number(row: Option<&bytes::Bytes>) -> Result<u32, MetaError> {
    bytes_of(row)?
        .try_into()
        .map(u32::from_be_bytes)
        .map_err(|_| DAMAGED)
}
