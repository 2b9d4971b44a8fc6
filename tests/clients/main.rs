//! Unmodified clients talk through the real server, which is killed in the middle and started again. `setup`
//! beside this file installs them; where they are missing, the tests fail.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use harness::{
    Server,
    clients::{node, python, talk},
};

/// Runs a client against a server of its own.
async fn talk_alone(mut client: Command) {
    let mut server = Server::start(env!("CARGO_BIN_EXE_chapar")).await;
    client.arg(server.base());
    talk(client, &mut server).await;
}

#[tokio::test]
async fn two_people_talk_through_matrix_nio_while_the_server_is_killed() {
    talk_alone(python("talk_nio.py")).await;
}

#[tokio::test]
async fn two_people_talk_through_matrix_js_sdk_while_the_server_is_killed() {
    talk_alone(node("talk_js_sdk.mjs")).await;
}

#[tokio::test]
async fn four_devices_talk_encrypted_through_matrix_js_sdk_while_the_server_is_killed() {
    talk_alone(node("encrypt_js_sdk.mjs")).await;
}
