//! Unmodified clients talk through the real server, which is killed in the middle and started again. `setup`
//! beside this file installs them; where they are missing, the tests fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use harness::Server;

/// Where `setup` puts the clients.
fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is not set")).join(".cache");
    cache.unwrap_or_else(home).join("chapar-tests")
}

/// Where the scripts are.
fn scripts() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"))
}

/// Runs a client against a server of its own, which is killed and started again when it asks for that.
async fn talk(mut client: Command) {
    let mut server = Server::start(env!("CARGO_BIN_EXE_chapar")).await;
    client
        .arg(server.base())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
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

#[tokio::test]
async fn two_people_talk_through_matrix_nio_while_the_server_is_killed() {
    let mut nio = Command::new(cache().join("nio/venv/bin/python"));
    nio.arg(scripts().join("talk_nio.py"));
    talk(nio).await;
}

/// A script on the Node that `setup` installed.
fn node(script: &str) -> Command {
    let js = cache().join("js");
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let mut node = Command::new(js.join(format!("node_modules/node-linux-{arch}/bin/node")));
    node.current_dir(js).arg(scripts().join(script));
    node
}

#[tokio::test]
async fn two_people_talk_through_matrix_js_sdk_while_the_server_is_killed() {
    talk(node("talk_js_sdk.mjs")).await;
}

#[tokio::test]
async fn four_devices_talk_encrypted_through_matrix_js_sdk_while_the_server_is_killed() {
    talk(node("encrypt_js_sdk.mjs")).await;
}
