//! Another homeserver on this machine.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Authority, Gate, Server, dendrite, free_port, synapse};

/// How long it may take until its first answer.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Which one. `CHAPAR_PEER` names it, Synapse if it is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerKind {
    /// Synapse.
    Synapse,
    /// Dendrite.
    Dendrite,
}

impl PeerKind {
    fn wanted() -> Self {
        match std::env::var("CHAPAR_PEER").as_deref() {
            Ok("dendrite") => Self::Dendrite,
            Ok("synapse") | Err(_) => Self::Synapse,
            Ok(other) => panic!("no such peer: {other}"),
        }
    }
}

/// Where it listens: what is in its name is the way by which other servers reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) name: u16,
    pub(crate) plain: u16,
    pub(crate) secure: u16,
}

/// A running one, reached by other servers through a gate. It is killed, by its process id, when this is dropped.
#[derive(Debug)]
pub struct Peer {
    /// Which one it is.
    pub kind: PeerKind,
    /// Where its clients ask.
    pub server: Server,
    /// The way by which other servers reach it.
    pub gate: Gate,
    folder: TempDir,
    child: Child,
}

/// Where `run` puts them.
pub(crate) fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache");
    cache.unwrap_or_else(home).join("chapar-tests")
}

impl Peer {
    /// Starts one that believes whom `authority` vouches for, and waits for its first answer.
    pub async fn start(authority: &Authority) -> Self {
        let kind = PeerKind::wanted();
        let folder = tempfile::Builder::new()
            .prefix("chapar-peer-")
            .tempdir()
            .unwrap();
        let (plain, secure) = (free_port(), free_port());
        let gate = Gate::to(secure).await;
        let ports = Ports {
            name: gate.port(),
            plain,
            secure,
        };
        let own = authority.vouch_for(&["localhost"]);
        for (name, text) in [
            ("authority.pem", authority.certificate()),
            ("certificate.pem", &own.certificate),
            ("key.pem", &own.key),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut command = match kind {
            PeerKind::Synapse => synapse::command(folder.path(), ports),
            PeerKind::Dendrite => dendrite::command(folder.path(), ports),
        };
        let log = File::create(folder.path().join("log.txt")).unwrap();
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn();
        let mut peer = Self {
            kind,
            server: Server::of_peer(&format!("http://127.0.0.1:{plain}")),
            child: child.expect("the peer cannot be started: run tests/peers/run"),
            gate,
            folder,
        };
        peer.wait().await;
        peer
    }

    /// Its name.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.gate.port())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log.txt")).unwrap_or_default()
    }

    async fn wait(&mut self) {
        let begun = Instant::now();
        while !self.server.is_up().await {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < START_LIMIT,
                "the peer did not start ({ended:?}):\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[allow(clippy::print_stderr)]
impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let bad = [" WARNING ", " ERROR ", "level=warning", "level=error"];
            let complaints = log
                .lines()
                .filter(|line| bad.iter().any(|bad| line.contains(bad)));
            let complaints: Vec<_> = complaints.collect();
            let last = complaints.len().saturating_sub(40);
            eprintln!(
                "what the peer complained of:\n{}",
                complaints[last..].join("\n")
            );
        }
    }
}
