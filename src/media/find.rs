//! A file on its way out.

use std::{fs::File, future::Future, time::Duration};

use error::Result;
use ruma::ServerName;
use storage::{
    NameHash, Topic,
    schema::{MEDIA_BY_HASH, MediaRow, MediaState, UploadedRow},
};

use crate::{Described, Media, check_id, files::FileId, is_pending, not_there};

/// The longest that anybody waits for a file that is yet to come.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What its sender said of it.
    pub described: Described,
    /// Its length in bytes.
    pub length: u64,
    pub(crate) hash: NameHash,
    pub(crate) file: FileId,
}

impl Stored {
    /// What a row says of a file.
    pub(crate) fn of(hash: NameHash, uploaded: UploadedRow) -> Self {
        Self {
            described: Described {
                content_type: uploaded.content_type,
                filename: uploaded.filename,
            },
            length: uploaded.length,
            hash,
            file: uploaded.file,
        }
    }
}

impl Media {
    /// Finds a file, one of another server too; waits for it up to `patience`, but not beyond `stop`, if its id was given out and it
    /// has not come yet.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for what is no id, 404 if there is no such file, 504 `M_NOT_YET_UPLOADED`
    /// if it has not come in time.
    pub async fn find(
        &self,
        server_name: &ServerName,
        media_id: &str,
        patience: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<Stored> {
        check_id(media_id)?;
        if server_name != self.0.server_name {
            return tokio::select! {
                stored = self.fetch(server_name, media_id, patience.min(LONGEST_WAIT)) => stored,
                () = stop => Err(error::not_yet_uploaded("This server is about to stop")),
            };
        }
        let hash = self.hash(media_id);
        if let Some(stored) = self.look(hash).await? {
            return Ok(stored);
        }
        let subscription = self.0.storage.subscribe(&[Topic::Media(hash)]);
        let end = tokio::time::sleep(patience.min(LONGEST_WAIT));
        tokio::pin!(end, stop);
        loop {
            if let Some(stored) = self.look(hash).await? {
                return Ok(stored);
            }
            let over = tokio::select! {
                _ = subscription.woken() => false,
                () = &mut end => true,
                () = &mut stop => true,
            };
            if over {
                return Err(error::not_yet_uploaded("This file was not uploaded yet"));
            }
        }
    }

    /// The file, if it has come.
    ///
    /// # Errors
    ///
    /// 404 if none is to come.
    async fn look(&self, hash: NameHash) -> Result<Option<Stored>> {
        let snapshot = self.snapshot().await?;
        let found = snapshot.multi_get(&MEDIA_BY_HASH, &[hash]).await?;
        let row: MediaRow = match found.into_iter().flatten().next() {
            Some(found) => found.value,
            None => return Err(not_there()),
        };
        if is_pending(&row, self.now()) {
            return Ok(None);
        }
        match row.state {
            MediaState::Pending { .. } => Err(not_there()),
            MediaState::Uploaded(uploaded) => Ok(Some(Stored::of(hash, uploaded))),
        }
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// It is missing on the disk.
    pub async fn open_file(&self, stored: &Stored) -> Result<File> {
        self.0.files.open(stored.hash, stored.file).await
    }
}
