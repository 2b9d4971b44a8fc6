//! A file on its way in.

use std::{fmt, fs, path::PathBuf};

use error::Result;
use storage::{
    Batch, NameHash, ShortUserId, Topic,
    schema::{
        MEDIA_BY_HASH, MEDIA_BYTES_BY_USER, MediaRow, MediaState, PENDING_MEDIA_BY_USER,
        UploadedRow,
    },
};
use tokio::io::{AsyncWriteExt as _, BufWriter};

use crate::{MAX_ATTEMPTS, Media, check_id, files::FileId, gave_up, is_pending, not_there};

/// Letters in an id: 144 bits, so that nobody guesses one.
pub(crate) const ID_LETTERS: usize = 24;

/// The longest content type, in bytes.
const LONGEST_TYPE: usize = 255;

/// The longest file name, in bytes: that of common file systems, and some more.
const LONGEST_NAME: usize = 1024;

/// How much is put together before it is written to the disk.
const BUFFER: usize = 256 << 10;

/// What its sender says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// `Content-Type`
    pub content_type: Option<String>,
    /// Its name.
    pub filename: Option<String>,
}

impl Described {
    /// What another server says of a file, as far as it may be written down.
    pub(crate) fn shortened(content_type: Option<String>, filename: Option<String>) -> Self {
        let fits = |text: Option<String>, limit| text.filter(|text| text.len() <= limit);
        Self {
            content_type: fits(content_type, LONGEST_TYPE),
            filename: fits(filename, LONGEST_NAME),
        }
    }

    /// Checks what may be written down.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` if something is too long.
    fn check(&self) -> Result<()> {
        let longer = |text: &Option<String>, limit| text.as_ref().is_some_and(|t| t.len() > limit);
        if longer(&self.content_type, LONGEST_TYPE) {
            return Err(error::invalid_param(format!(
                "A `Content-Type` has at most {LONGEST_TYPE} bytes"
            )));
        }
        if longer(&self.filename, LONGEST_NAME) {
            return Err(error::invalid_param(format!(
                "`filename` has at most {LONGEST_NAME} bytes"
            )));
        }
        Ok(())
    }
}

/// A file on its way in. Given up when it is dropped before [`Upload::finish`].
pub struct Upload {
    media: Media,
    user: ShortUserId,
    media_id: String,
    hash: NameHash,
    /// Whether the id was given out before.
    was_created: bool,
    described: Described,
    file: FileId,
    draft: Option<BufWriter<tokio::fs::File>>,
    length: u64,
    /// How much more the user may upload in all.
    allowance: u64,
    /// Removed when the upload is given up.
    discard: Option<PathBuf>,
}

impl Media {
    /// Begins to take in a file of `user`, under a new id or one given out by [`Media::create`].
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for what cannot be an id, a type or a name. For an id: 404 if it was not
    /// given out or has ended, 403 if to somebody else, 409 `M_CANNOT_OVERWRITE_MEDIA` if it has a file.
    pub async fn begin_upload(
        &self,
        user: ShortUserId,
        created: Option<&str>,
        described: Described,
    ) -> Result<Upload> {
        described.check()?;
        let media_id = match created {
            Some(media_id) => {
                check_id(media_id)?;
                media_id.to_owned()
            }
            None => self.0.random.letters(ID_LETTERS),
        };
        let hash = self.hash(&media_id);
        let snapshot = self.snapshot().await?;
        let mut reads = storage::Reads::new();
        let row = reads.get(&MEDIA_BY_HASH, &hash);
        let bytes = reads.get(&MEDIA_BYTES_BY_USER, &user);
        let answers = snapshot.read(&reads).await?;
        if created.is_some() {
            let row = answers.one(&row)?.map(|found| found.value);
            self.check_awaited(row.as_ref(), user)?;
        }
        let used = answers.one(&bytes)?.map_or(0, |found| found.value.0);
        let allowance = match self.0.settings.max_bytes_per_user.get() {
            0 => u64::MAX,
            most => most.saturating_sub(u64::try_from(used).unwrap_or(0)),
        };
        let mut file = FileId::default();
        self.0.random.fill(&mut file);
        let draft = self.0.files.create(hash, file).await?;
        Ok(Upload {
            media: self.clone(),
            user,
            media_id,
            hash,
            was_created: created.is_some(),
            described,
            file,
            draft: Some(BufWriter::with_capacity(BUFFER, draft)),
            length: 0,
            allowance,
            discard: Some(self.0.files.arriving(hash, file)),
        })
    }

    /// Whether this id waits for a file of this user.
    fn check_awaited(&self, row: Option<&MediaRow>, user: ShortUserId) -> Result<()> {
        let row = row.ok_or_else(not_there)?;
        if row.user != user {
            return Err(error::forbidden("This id was given out to somebody else"));
        }
        if matches!(row.state, MediaState::Uploaded(_)) {
            return Err(error::cannot_overwrite_media(
                "There is a file under this id already",
            ));
        }
        if !is_pending(row, self.now()) {
            return Err(not_there());
        }
        Ok(())
    }
}

impl Upload {
    /// Takes in the next piece.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` when the user has uploaded as much as they may.
    pub async fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.length = self.length.saturating_add(piece.len() as u64);
        if self.length > self.allowance {
            return Err(error::forbidden(
                "You have uploaded as much as one may on this server",
            ));
        }
        match &mut self.draft {
            Some(draft) => draft.write_all(piece).await.map_err(error::internal),
            None => Err(error::internal("an upload goes on after its end")),
        }
    }

    /// Makes it a file of the repository, once nothing can lose it; gives its id.
    ///
    /// # Errors
    ///
    /// Those of [`Media::begin_upload`], for what happened meanwhile.
    pub async fn finish(mut self) -> Result<String> {
        let media = self.media.clone();
        if let Some(mut draft) = self.draft.take() {
            draft.flush().await.map_err(error::internal)?;
            media.0.files.keep(draft.into_inner()).await?;
        }
        let mut written = false;
        for _ in 0..MAX_ATTEMPTS {
            written = match self.prepare().await? {
                None => true,
                Some(batch) => {
                    // Should storage fail now, the next start tells by the row whether the file counts.
                    let discard = self.discard.take();
                    let written = media.commit(batch).await?;
                    self.discard = discard;
                    written
                }
            };
            if written {
                break;
            }
        }
        if !written {
            return Err(gave_up());
        }
        self.discard = None;
        if let Err(failure) = media.0.files.settle(self.hash, self.file).await {
            tracing::warn!(%failure, "a file stays where it came in until the next start");
        }
        Ok(self.media_id.clone())
    }

    fn is_of(&self, row: &MediaRow) -> bool {
        matches!(&row.state, MediaState::Uploaded(uploaded) if uploaded.file == self.file)
    }

    /// What is to be written; nothing if an earlier try has written it.
    async fn prepare(&self) -> Result<Option<Batch>> {
        let media = &self.media;
        let snapshot = media.snapshot().await?;
        let mut reads = storage::Reads::new();
        let row = reads.get(&MEDIA_BY_HASH, &self.hash);
        let pending = reads.get(&PENDING_MEDIA_BY_USER, &self.user);
        let answers = snapshot.read(&reads).await?;
        let row = answers.one(&row)?;
        if row.as_ref().is_some_and(|found| self.is_of(&found.value)) {
            return Ok(None);
        }
        let now = media.now();
        let mut batch = Batch::new();
        let raw = row.as_ref().map(|found| &found.raw);
        batch.expect_unchanged(&MEDIA_BY_HASH, &self.hash, raw);
        let mut created_ts = now;
        if self.was_created {
            let row = row.as_ref().map(|found| &found.value);
            media.check_awaited(row, self.user)?;
            created_ts = row.map_or(now, |row| row.created_ts);
            if let Some(mut pending) = answers.one(&pending)? {
                batch.expect_equals(&PENDING_MEDIA_BY_USER, &self.user, &pending.raw);
                pending.value.list.retain(|(id, _)| *id != self.hash);
                batch.put(&PENDING_MEDIA_BY_USER, &self.user, &pending.value);
            }
        }
        let uploaded = UploadedRow {
            file: self.file,
            length: self.length,
            content_type: self.described.content_type.clone(),
            filename: self.described.filename.clone(),
            uploaded_ts: now,
        };
        let row = MediaRow {
            media_id: self.media_id.clone(),
            user: self.user,
            created_ts,
            state: MediaState::Uploaded(uploaded),
        };
        batch.put(&MEDIA_BY_HASH, &self.hash, &row);
        let length = i64::try_from(self.length).unwrap_or(i64::MAX);
        batch.add(&MEDIA_BYTES_BY_USER, &self.user, length);
        batch.wake(Topic::Media(self.hash));
        Ok(Some(batch))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(path) = self.discard.take()
            && let Err(failure) = fs::remove_file(path)
        {
            tracing::warn!(%failure, "a file that did not come in whole is removed at the next start");
        }
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
