//! The process under test.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Answer, Authority, Gate, User};

/// Settings under which anyone may register, and nothing slows a test down.
pub const OPEN: &str = include_str!("open.toml");

/// How long a server may take until its first answer.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where requests go; shared by the server and its users.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) base: Arc<str>,
    http: reqwest::Client,
}

impl Client {
    fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .unwrap();
        Self {
            base: base.into(),
            http,
        }
    }

    /// One request; an error where no whole answer came (the server is down, or went down meanwhile).
    pub(crate) async fn try_ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, reqwest::Error> {
        let asked = format!("{method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Answer::read(asked, request.send().await?).await
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<&Value>,
    ) -> Answer {
        match self.try_ask(method.clone(), path, token, body).await {
            Ok(answer) => answer,
            Err(error) => panic!("{method} {path}: no answer: {error:?}"),
        }
    }
}

/// A running server with a folder of its own. It is killed, by its process id, when this is dropped.
#[derive(Debug)]
pub struct Server {
    client: Client,
    /// Empty where the server is a peer that somebody else started.
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    binary: PathBuf,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
    /// The way by which other servers reach it, if any do.
    gate: Option<Gate>,
}

impl Server {
    /// Starts `binary` with open registration on an empty folder, and waits for its first answer.
    pub async fn start(binary: &str) -> Self {
        match std::env::var("CHAPAR_TEST_PEER") {
            Ok(base) => Self::of_peer(&base),
            Err(_) => Self::start_with(binary, OPEN).await,
        }
    }

    /// A server that somebody else started, such as `http://127.0.0.1:8008`.
    pub fn of_peer(base: &str) -> Self {
        Self {
            client: Client::new(base),
            process: None,
        }
    }

    /// Starts `binary` with these settings (TOML) on an empty folder, and waits for its first answer.
    pub async fn start_with(binary: &str, settings: &str) -> Self {
        Self::start_in(binary, settings, folder(), free_port(), None).await
    }

    /// Starts `binary` with these settings beside open registration, so that other servers reach it: by TLS,
    /// through a [`Gate`] whose port is in its name, `localhost:PORT`. It believes whom `authority` vouches for.
    pub async fn start_federating(binary: &str, authority: &Authority, settings: &str) -> Self {
        let (folder, port, secure) = (folder(), free_port(), free_port());
        let gate = Gate::to(secure).await;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let own = authority.vouch_for(&["localhost"]);
        for (name, text) in [
            ("authority.pem", authority.certificate()),
            ("certificate.pem", &own.certificate),
            ("key.pem", &own.key),
        ] {
            std::fs::write(at(name), text).unwrap();
        }
        let settings = format!(
            "{OPEN}
[server]
name = \"localhost:{name}\"

[[listeners]]
address = \"127.0.0.1:{port}\"

[[listeners]]
address = \"127.0.0.1:{secure}\"
tls_certificate = \"{certificate}\"
tls_key = \"{key}\"

[federation]
extra_ca_file = \"{authority}\"
allow_private_addresses = true

{settings}",
            name = gate.port(),
            certificate = at("certificate.pem"),
            key = at("key.pem"),
            authority = at("authority.pem"),
        );
        Self::start_in(binary, &settings, folder, port, Some(gate)).await
    }

    async fn start_in(
        binary: &str,
        settings: &str,
        folder: TempDir,
        port: u16,
        gate: Option<Gate>,
    ) -> Self {
        std::fs::write(folder.path().join("chapar.toml"), settings).unwrap();
        let process = Process {
            binary: binary.into(),
            port,
            folder,
            child: None,
            gate,
        };
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        let mut server = Self {
            client,
            process: Some(process),
        };
        server.restart().await;
        server
    }

    /// Whether it answers.
    pub async fn is_up(&self) -> bool {
        let path = "/_matrix/client/versions";
        let answer = self.client.try_ask(Method::GET, path, None, None).await;
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The address, as `http://127.0.0.1:PORT`.
    pub fn base(&self) -> &str {
        &self.client.base
    }

    /// The way by which other servers reach it.
    pub fn gate(&self) -> &Gate {
        let gate = self.own().gate.as_ref();
        gate.expect("other servers do not reach this one")
    }

    /// Its name, if other servers reach it.
    pub fn name(&self) -> String {
        format!("localhost:{}", self.gate().port())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.own().child.as_ref().expect("the server is down").id()
    }

    /// The folder with `chapar.toml`, `data/`, `stdout.txt` and `log.txt`.
    pub fn folder(&self) -> &Path {
        self.own().folder.path()
    }

    /// What the server has printed since its first start.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.folder().join("stdout.txt")).unwrap()
    }

    /// What the server has logged since its first start.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log.txt")).unwrap()
    }

    /// Kills the server with signal 9.
    pub fn kill9(&mut self) {
        let mut child = self
            .own_mut()
            .child
            .take()
            .expect("the server is down already");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks the server to stop (signal 15) and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut child = self
            .own_mut()
            .child
            .take()
            .expect("the server is down already");
        let kill = Command::new("kill")
            .arg("-TERM")
            .arg(child.id().to_string())
            .status()
            .unwrap();
        assert!(kill.success(), "kill -TERM");
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if begun.elapsed() > START_LIMIT {
                child.kill().unwrap();
                panic!(
                    "the server did not stop on SIGTERM; its log:\n{}",
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the server again on the folder and the port it had, and waits until it answers.
    pub async fn restart(&mut self) {
        let child = self.own().spawn();
        self.own_mut().child = Some(child);
        let begun = Instant::now();
        loop {
            if self.is_up().await {
                return;
            }
            let exited = self
                .own_mut()
                .child
                .as_mut()
                .and_then(|c| c.try_wait().unwrap());
            let late = begun.elapsed() > START_LIMIT;
            if exited.is_some() || late {
                panic!(
                    "the server did not start ({exited:?}); its output:\n{}{}",
                    self.stdout(),
                    self.log()
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Runs `chapar ARGUMENTS --config … --data …` beside the server; its status, stdout and stderr.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        let own = self.own();
        let mut command = Command::new(&own.binary);
        command
            .args(arguments)
            .arg("--config")
            .arg(own.folder.path().join("chapar.toml"));
        command
            .arg("--data")
            .arg(own.folder.path().join("data"))
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// One request without a token; the path is whole (`/_matrix/…`).
    pub async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        self.client.ask(method, path, None, body).await
    }

    /// `GET` without a token, the path below `/_matrix/client/v3`.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, &format!("{}{path}", User::PREFIX), None)
            .await
    }

    /// `POST` without a token, the path below `/_matrix/client/v3`.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(
            Method::POST,
            &format!("{}{path}", User::PREFIX),
            Some(&body),
        )
        .await
    }

    /// Registers `name` (made unique, so that a peer can be used again), with password `NAME-password`.
    pub async fn user(&self, name: &str) -> User {
        let name = unique(name);
        let password = format!("{name}-password");
        let auth = json!({"type": "m.login.dummy"});
        let body = json!({"username": name, "password": password, "auth": auth});
        User::of(
            self.client.clone(),
            &self.post("/register", body).await.ok(),
        )
    }

    /// The user of this answer to a registration or a login.
    pub fn user_of(&self, answer: &Value) -> User {
        User::of(self.client.clone(), answer)
    }

    fn own(&self) -> &Process {
        self.process
            .as_ref()
            .expect("a peer is not ours to look into, kill or restart")
    }

    fn own_mut(&mut self) -> &mut Process {
        self.process
            .as_mut()
            .expect("a peer is not ours to look into, kill or restart")
    }
}

impl Process {
    fn spawn(&self) -> Child {
        let at = |name: &str| self.folder.path().join(name);
        let append = |name: &str| -> File {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(at(name))
                .unwrap()
        };
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(at("chapar.toml"))
            .arg("--data")
            .arg(at("data"));
        if self.gate.is_none() {
            command
                .arg("--listen")
                .arg(format!("127.0.0.1:{}", self.port));
        }
        command
            .stdin(Stdio::null())
            .stdout(append("stdout.txt"))
            .stderr(append("log.txt"));
        command.spawn().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(own) = &mut self.process else { return };
        if let Some(mut child) = own.child.take() {
            // It may have ended by itself, which is what the log below will tell.
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            print_end_of(&own.folder.path().join("log.txt"));
        }
    }
}

/// The last lines of a failed test's log, beside its message.
#[allow(clippy::print_stderr)]
fn print_end_of(log: &Path) {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    eprintln!(
        "--- end of the server's log\n{}",
        lines[lines.len().saturating_sub(30)..].join("\n")
    );
}

fn folder() -> TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("chapar-test-").tempdir().unwrap()
}

/// A port below those that the kernel gives to outgoing connections, so that it is still free after a
/// restart. Each test process begins at a place of its own.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 210) as u16 * 100;
    for _ in 0..20_000 {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 21_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 10000 and 31000");
}

/// A name that no other test and no earlier run has used.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    format!(
        "{name}-{:x}-{:x}-{:x}",
        now & 0xffff_ffff,
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}
