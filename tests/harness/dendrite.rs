//! Dendrite as the peer.

use std::{fs, path::Path, process::Command};

use crate::peer::{Ports, cache};

/// Its key, the same in each test: nobody beyond this machine sees it.
const KEY: &str = "-----BEGIN MATRIX PRIVATE KEY-----
Key-ID: ed25519:test

dGVzdCBrZXkgb2YgYSBwZWVyIG9mIENoYXBhciAuLi4=
-----END MATRIX PRIVATE KEY-----
";

fn settings(ports: Ports) -> String {
    let name = ports.name;
    let database = |name: &str| format!("{{ connection_string: 'file:{name}.db' }}");
    let [
        app,
        federation,
        keys,
        media,
        mscs,
        relay,
        rooms,
        sync,
        accounts,
    ] = [
        "app",
        "federation",
        "keys",
        "media",
        "mscs",
        "relay",
        "rooms",
        "sync",
        "accounts",
    ]
    .map(database);
    format!(
        "
version: 2
global:
  server_name: localhost:{name}
  private_key: key.pem.matrix
  jetstream: {{ storage_path: ., in_memory: true }}
  presence: {{ enable_inbound: true, enable_outbound: true }}
app_service_api: {{ database: {app} }}
client_api: {{ registration_disabled: false, rate_limiting: {{ enabled: false }} }}
federation_api:
  database: {federation}
  send_max_retries: 30
  deny_networks: []
  allow_networks: [ '0.0.0.0/0' ]
key_server: {{ database: {keys} }}
media_api: {{ base_path: media, database: {media} }}
mscs: {{ database: {mscs} }}
relay_api: {{ database: {relay} }}
room_server: {{ database: {rooms} }}
sync_api: {{ database: {sync}, search: {{ enabled: false }} }}
user_api: {{ account_database: {accounts} }}
logging: [ {{ type: std, level: info }} ]
"
    )
}

/// What starts it in a folder that holds its certificate, and that of who vouches for other servers.
pub(crate) fn command(folder: &Path, ports: Ports) -> Command {
    fs::write(folder.join("key.pem.matrix"), KEY).unwrap();
    fs::write(folder.join("dendrite.yaml"), settings(ports)).unwrap();
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut command = Command::new(cache().join("dendrite/dendrite"));
    command
        .current_dir(folder)
        .env("SSL_CERT_FILE", folder.join("authority.pem"))
        .args([
            "--config",
            "dendrite.yaml",
            "--really-enable-open-registration",
        ])
        .args(["--http-bind-address", &address(ports.plain)])
        .args(["--https-bind-address", &address(ports.secure)])
        .args(["--tls-cert", "certificate.pem", "--tls-key", "key.pem"]);
    command
}
