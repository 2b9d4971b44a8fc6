//! Unmodified clients, which `tests/clients/setup` installs, driven by the scripts beside it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Server;

/// Where the clients are.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache");
    cache.unwrap_or_else(home).join("chapar-tests")
}

/// Where the scripts are.
fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../clients"))
}

/// A script on the Python into which matrix-nio was installed.
pub fn python(script: &str) -> Command {
    let mut python = Command::new(cache().join("nio/venv/bin/python"));
    python.arg(scripts().join(script));
    python
}

/// A script on the Node that came with matrix-js-sdk.
pub fn node(script: &str) -> Command {
    let js = cache().join("js");
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let mut node = Command::new(js.join(format!("node_modules/node-linux-{arch}/bin/node")));
    node.current_dir(js).arg(scripts().join(script));
    node
}

/// Runs a client that was told where the servers are. The server is killed and started again when the client
/// asks for that, which it has to do once; and it has to say that all messages came, each once.
pub async fn talk(mut client: Command, server: &mut Server) {
    client.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut running = client
        .spawn()
        .expect("the client cannot be started: run tests/clients/setup");
    let mut stdin = running.stdin.take().unwrap();
    let mut kills = 0;
    let mut said = String::new();
    for line in BufReader::new(running.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == "kill" {
            server.kill9();
            server.restart().await;
            kills += 1;
            writeln!(stdin, "up").unwrap();
        }
        said.push_str(&line);
        said.push('\n');
    }
    let status = running.wait().unwrap();
    assert!(
        status.success(),
        "{status}; it said:\n{said}\nthe server's log:\n{}",
        server.log()
    );
    assert_eq!(kills, 1, "{said}");
    assert!(said.contains(" messages, each once"), "{said}");
}
