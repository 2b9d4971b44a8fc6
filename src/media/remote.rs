//! Files of other servers: fetched when somebody here asks for one, and kept like our own
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#content-repository)).

use std::time::Duration;

use bytes::Bytes;
use error::Result;
use federation::{Failure, Patience};
use http::{HeaderMap, Response, StatusCode, header};
use ruma::{
    ServerName,
    api::{
        IncomingResponse as _,
        federation::authenticated_media::{FileOrLocation, get_content},
    },
    http_headers::ContentDisposition,
};
use storage::{
    Batch, NameHash, ShortUserId, Topic,
    schema::{MEDIA_BY_HASH, MediaRow, MediaState, UploadedRow},
};
use tokio::io::AsyncWriteExt as _;

use crate::{
    Described, Media, Stored,
    files::FileId,
    not_there,
    turns::{Guest, SMALL, Size, Turn},
};

/// What may be around a file in an answer, in bytes.
const AROUND: usize = 64 << 10;

/// How long a file may take to come in, beside the time that is waited for its upload.
const PATIENCE: Duration = Duration::from_secs(120);

/// Stands for the user of a file that nobody here has uploaded.
const NOBODY: ShortUserId = ShortUserId([0; 8]);

/// A file as it came from another server.
struct Fetched {
    file: Bytes,
    described: Described,
}

impl Media {
    /// A file of another server: as it was kept, or fetched now.
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if its server does not have it, 504 `M_NOT_YET_UPLOADED` if it is yet to come, 413
    /// `M_TOO_LARGE`, 403 `M_FORBIDDEN` if we do not talk to the server about files, 502 `M_UNKNOWN` if it cannot
    /// be asked, 503 `M_UNKNOWN` if too much of it is asked for at once.
    pub(crate) async fn fetch(
        &self,
        server: &ServerName,
        media_id: &str,
        patience: Duration,
    ) -> Result<Stored> {
        let hash = self.0.storage.media_hash(server.as_str(), media_id);
        if let Some(stored) = self.find_fetched(hash).await? {
            return Ok(stored);
        }
        let fetching = &self.0.fetching;
        let guest = fetching.enter(server)?;
        let file = fetching.file(hash);
        let _file = file.lock().await;
        if let Some(stored) = self.find_fetched(hash).await? {
            return Ok(stored);
        }
        let (fetched, _turn) = self
            .fetch_in_turn(&guest, server, media_id, patience)
            .await?;
        let stored = self.keep_fetched(hash, media_id, fetched).await;
        fetching.forget(hash);
        stored
    }

    /// Fetches a file in the belief that it is small, and once more if it is not: most are, and many of them
    /// fit into memory.
    async fn fetch_in_turn<'a>(
        &self,
        guest: &Guest<'a>,
        server: &ServerName,
        media_id: &str,
        wait: Duration,
    ) -> Result<(Fetched, Turn<'a>)> {
        let largest = self.0.settings.max_upload_size.as_usize();
        let largest = largest.saturating_add(AROUND);
        let small = largest.min(SMALL);
        let mut turn = guest.turn(Size::Small).await?;
        let mut fetched = self.fetch_new(server, media_id, wait, small).await;
        if let Err(Failure::TooLarge(_)) = fetched
            && small < largest
        {
            drop(turn);
            turn = guest.turn(Size::Large).await?;
            fetched = self.fetch_new(server, media_id, wait, largest).await;
        }
        let fetched = fetched.map_err(|failure| self.refusal(server, failure))?;
        Ok((fetched, turn))
    }

    async fn find_fetched(&self, hash: NameHash) -> Result<Option<Stored>> {
        let snapshot = self.snapshot().await?;
        let found = snapshot.multi_get(&MEDIA_BY_HASH, &[hash]).await?;
        let row = found.into_iter().flatten().next();
        match row.map(|found| found.value.state) {
            Some(MediaState::Uploaded(uploaded)) => Ok(Some(Stored::of(hash, uploaded))),
            _ => Ok(None),
        }
    }

    async fn fetch_new(
        &self,
        server: &ServerName,
        media_id: &str,
        wait: Duration,
        bytes: usize,
    ) -> Result<Fetched, Failure> {
        let patience = Patience {
            time: Some(PATIENCE.saturating_add(wait)),
            bytes,
            ..Patience::QUERY
        };
        let mut question = get_content::v1::Request::new(media_id.to_owned());
        question.timeout_ms = wait;
        let federation = &self.0.federation;
        match federation.ask_raw(server, question, patience).await {
            Ok(answer) => self.unpacked(server, &answer, patience).await,
            // NOTSPEC: besides servers that do not know the endpoint, as the specification has it, some answer a
            // bare 400 or 404.
            Err(Failure::Refused(refusal))
                if refusal.is_unrecognized()
                    || refusal.status == StatusCode::BAD_REQUEST
                        && refusal.errcode().is_empty() =>
            {
                let path = format!(
                    "/_matrix/media/v3/download/{server}/{media_id}?allow_remote=false&timeout_ms={}",
                    wait.as_millis()
                );
                let answer = federation.get_unsigned(server, &path, patience).await?;
                Ok(plain(&answer))
            }
            Err(failure) => Err(failure),
        }
    }

    /// The file in an answer of several parts, or where the answer says that it is.
    async fn unpacked(
        &self,
        server: &ServerName,
        answer: &Response<Bytes>,
        patience: Patience,
    ) -> Result<Fetched, Failure> {
        let mut whole = Response::new(&answer.body()[..]);
        *whole.headers_mut() = answer.headers().clone();
        let parts = get_content::v1::Response::try_from_http_response_inner(whole)
            .map_err(|fault| Failure::BadAnswer(fault.to_string()))?;
        match parts.content {
            FileOrLocation::File(content) => Ok(Fetched {
                file: content.file.into(),
                described: Described::shortened(
                    content.content_type,
                    content.content_disposition.and_then(|it| it.filename),
                ),
            }),
            FileOrLocation::Location(url) => {
                let found = self.0.federation.get_from_web(server, &url, patience);
                Ok(plain(&found.await?))
            }
            _ => Err(Failure::BadAnswer("it holds no file".to_owned())),
        }
    }

    async fn keep_fetched(
        &self,
        hash: NameHash,
        media_id: &str,
        fetched: Fetched,
    ) -> Result<Stored> {
        let length = fetched.file.len() as u64;
        if length > self.max_upload_size() {
            return Err(too_large());
        }
        let mut file = FileId::default();
        self.0.random.fill(&mut file);
        let mut draft = self.0.files.create(hash, file).await?;
        draft
            .write_all(&fetched.file)
            .await
            .map_err(error::internal)?;
        draft.flush().await.map_err(error::internal)?;
        self.0.files.keep(draft).await?;
        let now = self.now();
        let uploaded = UploadedRow {
            file,
            length,
            content_type: fetched.described.content_type,
            filename: fetched.described.filename,
            uploaded_ts: now,
        };
        let row = MediaRow {
            media_id: media_id.to_owned(),
            user: NOBODY,
            created_ts: now,
            state: MediaState::Uploaded(uploaded.clone()),
        };
        let mut batch = Batch::new();
        batch.expect_absent(&MEDIA_BY_HASH, &hash);
        batch.put(&MEDIA_BY_HASH, &hash, &row);
        batch.wake(Topic::Media(hash));
        if !self.commit(batch).await? {
            // Another process was faster, or it is not known: what is there counts.
            let kept = self.find_fetched(hash).await?;
            return kept.ok_or_else(crate::gave_up);
        }
        if let Err(failure) = self.0.files.settle(hash, file).await {
            tracing::warn!(%failure, "a file stays where it came in until the next start");
        }
        Ok(Stored::of(hash, uploaded))
    }

    fn refusal(&self, server: &ServerName, failure: Failure) -> error::Error {
        match failure {
            Failure::Forbidden(_) => {
                error::forbidden(format!("This server takes no files from {server}"))
            }
            Failure::Refused(refusal) if refusal.errcode() == "M_NOT_YET_UPLOADED" => {
                error::not_yet_uploaded("This file was not uploaded yet")
            }
            Failure::Refused(refusal) if refusal.status == StatusCode::NOT_FOUND => not_there(),
            Failure::Refused(refusal) if refusal.errcode() == "M_TOO_LARGE" => too_large(),
            failure => {
                tracing::info!(%server, %failure, "a file could not be fetched");
                error::unknown(
                    StatusCode::BAD_GATEWAY,
                    format!("The file could not be fetched from {server}"),
                )
            }
        }
    }
}

fn too_large() -> error::Error {
    error::too_large("This file is larger than those that this server takes")
}

/// The file that an answer is.
fn plain(answer: &Response<Bytes>) -> Fetched {
    let headers: &HeaderMap = answer.headers();
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok());
    let disposition = headers.get(header::CONTENT_DISPOSITION);
    let disposition = disposition.and_then(|it| ContentDisposition::try_from(it.as_bytes()).ok());
    Fetched {
        file: answer.body().clone(),
        described: Described::shortened(
            kind.map(str::to_owned),
            disposition.and_then(|it| it.filename),
        ),
    }
}
