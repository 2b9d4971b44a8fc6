//! Synapse as the peer.

use std::{fs, path::Path, process::Command};

use crate::peer::{Ports, cache};

fn settings(folder: &Path, ports: Ports) -> String {
    let folder = folder.display();
    let Ports {
        name,
        plain,
        secure,
    } = ports;
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

/// What starts it in a folder that holds its certificate, and that of who vouches for other servers.
pub(crate) fn command(folder: &Path, ports: Ports) -> Command {
    fs::write(folder.join("log.yaml"), LOG).unwrap();
    let config = folder.join("homeserver.yaml");
    fs::write(&config, settings(folder, ports)).unwrap();
    let synapse = || {
        let mut command = Command::new(cache().join("synapse/venv/bin/python"));
        command.args(["-m", "synapse.app.homeserver", "-c"]);
        command.arg(&config);
        command
    };
    let made = synapse().arg("--generate-keys").output();
    let made = made.expect("Synapse cannot be started: run tests/peers/run");
    assert!(made.status.success(), "Synapse has no key: {made:?}");
    synapse()
}
