//! A Synapse on this machine.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use harness::{Authority, Gate, Server, free_port};
use tempfile::TempDir;

/// How long it may take until its first answer.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A running Synapse, reached by other servers through a gate. It is killed, by its process id, when this is
/// dropped.
pub(crate) struct Synapse {
    pub(crate) server: Server,
    pub(crate) gate: Gate,
    folder: TempDir,
    child: Child,
}

/// Where `run` puts it.
fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache");
    cache
        .unwrap_or_else(home)
        .join("chapar-tests/synapse/venv/bin/python")
}

fn settings(folder: &Path, name: u16, plain: u16, secure: u16) -> String {
    let folder = folder.display();
    format!(
        "
server_name: localhost:{name}
report_stats: false
signing_key_path: {folder}/signing.key
media_store_path: {folder}/media
log_config: {folder}/log.yaml
pid_file: {folder}/pid
macaroon_secret_key: secret
registration_shared_secret: secret
enable_registration: true
enable_registration_without_verification: true
suppress_key_server_warning: true
caches: {{ sync_response_cache_duration: 0s }}
trusted_key_servers: []
presence: {{ enabled: true }}
database: {{ name: sqlite3, args: {{ database: {folder}/homeserver.db }} }}
tls_certificate_path: {folder}/certificate.pem
tls_private_key_path: {folder}/key.pem
federation_custom_ca_list: [ {folder}/authority.pem ]
ip_range_blacklist: []
federation_ip_range_blacklist: []
federation: {{ max_short_retry_delay: 1s, max_long_retry_delay: 2s, destination_min_retry_interval: 1s, destination_max_retry_interval: 2s }}
listeners:
  - {{ port: {plain}, type: http, tls: false, bind_addresses: [ 127.0.0.1 ], resources: [ {{ names: [ client ] }} ] }}
  - {{ port: {secure}, type: http, tls: true, bind_addresses: [ 127.0.0.1 ], resources: [ {{ names: [ federation ] }} ] }}
rc_message: {{ per_second: 10000, burst_count: 10000 }}
rc_registration: {{ per_second: 10000, burst_count: 10000 }}
rc_login: {{ address: {{ per_second: 10000, burst_count: 10000 }}, account: {{ per_second: 10000, burst_count: 10000 }} }}
rc_joins: {{ local: {{ per_second: 10000, burst_count: 10000 }}, remote: {{ per_second: 10000, burst_count: 10000 }} }}
rc_joins_per_room: {{ per_second: 10000, burst_count: 10000 }}
rc_invites: {{ per_room: {{ per_second: 10000, burst_count: 10000 }}, per_user: {{ per_second: 10000, burst_count: 10000 }}, per_issuer: {{ per_second: 10000, burst_count: 10000 }} }}
rc_federation: {{ window_size: 1000, sleep_limit: 10000, sleep_delay: 1, reject_limit: 10000, concurrent: 50 }}
"
    )
}

const LOG: &str = "
version: 1
formatters: { plain: { format: '%(asctime)s %(levelname)s %(name)s %(message)s' } }
handlers: { out: { class: logging.StreamHandler, formatter: plain } }
root: { level: INFO, handlers: [ out ] }
";

impl Synapse {
    /// Starts one that believes whom `authority` vouches for, and waits for its first answer.
    pub(crate) async fn start(authority: &Authority) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("chapar-peer-")
            .tempdir()
            .unwrap();
        let (plain, secure) = (free_port(), free_port());
        let gate = Gate::to(secure).await;
        let own = authority.vouch();
        let settings = settings(folder.path(), gate.port(), plain, secure);
        for (name, text) in [
            ("authority.pem", authority.certificate()),
            ("certificate.pem", &own.certificate),
            ("key.pem", &own.key),
            ("log.yaml", LOG),
            ("homeserver.yaml", &settings),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let synapse = |more: &[&str]| {
            let mut command = Command::new(python());
            command.args(["-m", "synapse.app.homeserver", "-c"]);
            command
                .arg(folder.path().join("homeserver.yaml"))
                .args(more);
            let log = File::options()
                .create(true)
                .append(true)
                .open(folder.path().join("log.txt"))
                .unwrap();
            command.stdin(Stdio::null());
            command.stdout(log.try_clone().unwrap()).stderr(log);
            command
        };
        let made = synapse(&["--generate-keys"]).status();
        let made = made.expect("Synapse cannot be started: run tests/peers/run");
        assert!(made.success(), "Synapse has no key");
        let mut peer = Self {
            server: Server::of_peer(&format!("http://127.0.0.1:{plain}")),
            child: synapse(&[]).spawn().unwrap(),
            gate,
            folder,
        };
        peer.wait().await;
        peer
    }

    /// Its name.
    pub(crate) fn name(&self) -> String {
        format!("localhost:{}", self.gate.port())
    }

    async fn wait(&mut self) {
        let begun = Instant::now();
        while !self.server.is_up().await {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < START_LIMIT,
                "Synapse did not start ({ended:?}):\n{}",
                std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.path().join("log.txt"));
            let log = log.unwrap_or_default();
            let warnings: Vec<_> = log
                .lines()
                .filter(|line| line.contains(" WARNING ") || line.contains(" ERROR "))
                .collect();
            let last = warnings.len().saturating_sub(40);
            eprintln!(
                "what Synapse complained of:\n{}",
                warnings[last..].join("\n")
            );
        }
    }
}
