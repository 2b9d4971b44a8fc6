//! The Unix socket: a line of JSON to ask, a line of JSON to answer, and that was it.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{Answer, Command};
use crate::Shutdown;

/// Its name in the data folder.
const NAME: &str = "control.sock";

/// Only the server's own user may connect.
const MODE: u32 = 0o600;

/// The longest question: a password, a path, and what is around them.
const LONGEST_QUESTION: u64 = 64 << 10;

/// The longest answer: a page of accounts.
const LONGEST_ANSWER: u64 = 16 << 20;

/// How long a question may take to come in.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many ask at once; more wait.
const AT_ONCE: usize = 8;

/// How long to rest when the system has no more file descriptors.
const REST: Duration = Duration::from_millis(100);

/// The server's end of the socket. Its file goes when this goes.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// Why a command was not carried out, in the server's words or the system's.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The server says so.
    #[error("{0}")]
    Server(String),
    /// The socket is there, but talking through it failed.
    #[error("cannot talk to the running server through {path}: {source}")]
    Connection {
        /// The socket.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl Socket {
    /// Opens the socket in a data folder. The caller holds the folder's lock, so a file that is
    /// there was left by a server that died.
    ///
    /// # Errors
    ///
    /// The file cannot be made, or its path is longer than the system allows (some 100 bytes).
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(NAME);
        // Made under another name and closed to others, before anybody knows of it.
        let fresh = folder.join(format!("{NAME}.new"));
        for left in [&path, &fresh] {
            match fs::remove_file(left) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(MODE))?;
        fs::rename(&fresh, &path)?;
        Ok(Self { listener, path })
    }

    /// Answers until `shutdown` begins, and then what has been asked already. `perform` carries a
    /// command out.
    pub async fn serve<F, R>(self, shutdown: Shutdown, perform: F)
    where
        F: Fn(Command) -> R + Clone + Send + 'static,
        R: Future<Output = Answer> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let mut talks = JoinSet::new();
        loop {
            let accepted = async {
                let permit = room.clone().acquire_owned().await;
                (self.listener.accept().await, permit)
            };
            tokio::select! {
                () = shutdown.begun() => break,
                Some(_ended) = talks.join_next() => {}
                (accepted, permit) = accepted => match accepted {
                    Ok((stream, _)) => {
                        let perform = perform.clone();
                        talks.spawn(async move {
                            let _permit = permit;
                            if let Err(error) = talk(stream, perform).await {
                                tracing::warn!(%error, "a talk through the control socket broke off");
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the control socket accepts nobody");
                        tokio::time::sleep(REST).await;
                    }
                }
            }
        }
        while talks.join_next().await.is_some() {}
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Where that fails, the next server removes it.
        let _ = fs::remove_file(&self.path);
    }
}

async fn talk<F, R>(stream: UnixStream, perform: F) -> io::Result<()>
where
    F: Fn(Command) -> R,
    R: Future<Output = Answer>,
{
    let mut stream = BufReader::new(stream);
    let question = timeout(PATIENCE, line(&mut stream, LONGEST_QUESTION))
        .await
        .map_err(|_| io::Error::from(ErrorKind::TimedOut))??;
    let answer = match serde_json::from_slice(&question) {
        Ok(command) => perform(command).await,
        Err(error) => Answer::Refused(format!(
            "This server does not know that command ({error}); is it of another version?"
        )),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.shutdown().await
}

/// A line without its end. A line that does not end within `longest` bytes is an error.
async fn line(stream: &mut BufReader<UnixStream>, longest: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    stream.take(longest).read_until(b'\n', &mut line).await?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ => Err(ErrorKind::UnexpectedEof.into()),
    }
}

/// Asks the server that runs on a data folder. `None` if none does.
///
/// # Errors
///
/// The server refuses, or cannot be talked to.
pub async fn ask(folder: &Path, command: &Command) -> Result<Option<Answer>, Refused> {
    let path = folder.join(NAME);
    let stream = match UnixStream::connect(&path).await {
        Ok(stream) => stream,
        // No file, or one that a dead server left.
        Err(error)
            if [ErrorKind::NotFound, ErrorKind::ConnectionRefused].contains(&error.kind()) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(Refused::Connection { path, source }),
    };
    match converse(stream, command).await {
        Ok(Answer::Refused(why)) => Err(Refused::Server(why)),
        Ok(answer) => Ok(Some(answer)),
        Err(source) => Err(Refused::Connection { path, source }),
    }
}

async fn converse(stream: UnixStream, command: &Command) -> io::Result<Answer> {
    let mut stream = BufReader::new(stream);
    let mut question = serde_json::to_vec(command)?;
    question.push(b'\n');
    stream.write_all(&question).await?;
    stream.flush().await?;
    Ok(serde_json::from_slice(
        &line(&mut stream, LONGEST_ANSWER).await?,
    )?)
}
