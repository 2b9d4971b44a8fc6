//! The tables of the content repository. The files themselves lie in the data folder.

use serde::{Deserialize, Serialize};

use crate::{NameHash, ShortUserId, Sum, table::tables, value::records};

tables! { MEDIA_TABLES:
    /// An uploaded file, or an id given out for one, by the hash of server name and media id. The content repository writes it.
    120 MEDIA_BY_HASH Point: NameHash => MediaRow;
    /// The ids given out to a user that have no file yet.
    121 PENDING_MEDIA_BY_USER Hot: ShortUserId => PendingMediaRow;
    /// How many bytes a user has uploaded.
    122 MEDIA_BYTES_BY_USER Sum: ShortUserId => Sum;
}

/// An uploaded file, or an id given out for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaRow {
    /// The id, as it stands in the `mxc:` URI.
    pub media_id: String,
    /// Who uploads.
    pub user: ShortUserId,
    /// When the id was given out, in milliseconds since 1970.
    pub created_ts: u64,
    /// What was uploaded, or until when that may be done.
    pub state: MediaState,
}

/// Whether a file is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaState {
    /// Not before somebody uploads it.
    Pending {
        /// When the id ends, in milliseconds since 1970.
        expires_ts: u64,
    },
    /// It is.
    Uploaded(UploadedRow),
}

/// What is known of an uploaded file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadedRow {
    /// Names the file on the disk.
    pub file: [u8; 16],
    /// Its length in bytes.
    pub length: u64,
    /// What its sender says it is.
    pub content_type: Option<String>,
    /// What its sender calls it.
    pub filename: Option<String>,
    /// When it came, in milliseconds since 1970.
    pub uploaded_ts: u64,
}

/// The ids given out to a user that have no file yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingMediaRow {
    /// Each with when it ends, in milliseconds since 1970.
    pub list: Vec<(NameHash, u64)>,
}

records!(MediaRow, PendingMediaRow);
