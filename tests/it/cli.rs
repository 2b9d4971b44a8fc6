//! The commands beside the server: they do the same whether one runs on the folder or not.

use std::{
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use harness::{OPEN, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::CHAPAR;

/// Runs `chapar ARGUMENTS` without a server's folder and without variables of ours.
fn chapar(arguments: &[&str]) -> Output {
    let mut command = Command::new(CHAPAR);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHAPAR_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// What a command that succeeded has printed.
#[track_caller]
fn printed(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    assert_eq!(stderr, "");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a command that failed has said.
#[track_caller]
fn complained(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The password that `chapar user` has made.
#[track_caller]
fn password(printed: &str) -> String {
    let line = printed
        .lines()
        .find_map(|line| line.strip_prefix("password: "));
    line.expect(printed).to_owned()
}

fn login(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    })
}

fn write(folder: &TempDir, text: &str) -> String {
    let path = folder.path().join("chapar.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_example_checks_out_and_a_wrong_key_is_named_with_the_nearest() {
    let folder = TempDir::new().unwrap();
    let example = printed(&chapar(&["config"]));
    assert!(example.contains("#default_room_version = \"12\""));
    let file = write(&folder, &example);
    assert_eq!(
        printed(&chapar(&["config", "check", &file])),
        format!("{file}: good\n")
    );
    let file = write(
        &folder,
        "[limits]\nmax_request_bodi = \"2 MiB\"\n[log]\nfilter = \"x=y=z\"\n",
    );
    let said = complained(&chapar(&["config", "check", &file]));
    assert_eq!(
        said,
        format!(
            "chapar: {file}:2: unknown key `limits.max_request_bodi`; the nearest known one is \
             `limits.max_request_body`\n"
        )
    );
    let file = write(&folder, "[log]\nfilter = \"rooms=loud\"\n");
    assert!(complained(&chapar(&["config", "check", &file])).contains("log.filter"));
}

#[test]
fn a_server_does_not_start_with_settings_that_are_wrong() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "[server]\nnmae = \"example.org\"\n");
    let said = complained(&chapar(&["serve", "--config", &file]));
    assert!(
        said.contains("`server.nmae`") && said.contains("`server.name`"),
        "{said}"
    );
    let mut command = Command::new(CHAPAR);
    command
        .arg("serve")
        .env("CHAPAR_SERVER__NMAE", "example.org")
        .current_dir(folder.path());
    let said = complained(&command.output().unwrap());
    assert!(
        said.contains("CHAPAR_SERVER__NMAE") && said.contains("`server.name`"),
        "{said}"
    );
    assert!(!folder.path().join("data").exists(), "nothing was made");
}

#[test]
fn the_version_is_printed() {
    assert_eq!(
        printed(&chapar(&["version"])),
        format!("chapar {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_command_without_a_folder_makes_none() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("nowhere");
    let said = complained(&chapar(&["user", "list", "--data", data.to_str().unwrap()]));
    assert!(said.contains("there is no folder"), "{said}");
    assert!(!data.exists());
}

/// Accounts, from making to closing, by commands to whoever looks after the folder.
async fn look_after_accounts(server: &mut Server, running: bool) {
    if !running {
        assert!(server.terminate().await.success());
    }
    let name = if running { "running" } else { "down" };
    let id = format!("@{name}:localhost");
    let made = printed(&server.command(&["user", "create", name]));
    assert!(made.starts_with(&format!("{id} created\n")), "{made}");
    let again = complained(&server.command(&["user", "create", name]));
    assert!(again.contains("taken") || again.contains("use"), "{again}");
    let reset = printed(&server.command(&["user", "reset-password", &id]));
    assert_ne!(password(&made), password(&reset));
    printed(&server.command(&["user", "make-admin", name]));
    let list = printed(&server.command(&["user", "list"]));
    assert!(
        list.lines().any(|line| line == format!("{id} admin")),
        "{list}"
    );
    let unknown = complained(&server.command(&["user", "make-admin", "nobody"]));
    assert!(unknown.contains("nobody"), "{unknown}");

    if !running {
        server.restart().await;
    }
    server
        .post("/login", login(name, &password(&made)))
        .await
        .refused(403, "M_FORBIDDEN");
    let user = server.user_of(
        &server
            .post("/login", login(name, &password(&reset)))
            .await
            .ok(),
    );
    user.get("/account/whoami").await.ok();

    if !running {
        assert!(server.terminate().await.success());
    }
    printed(&server.command(&["user", "reset-password", name]));
    printed(&server.command(&["user", "deactivate", name]));
    let list = printed(&server.command(&["user", "list", "--json"]));
    let accounts: Vec<Value> = list
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let account = accounts
        .iter()
        .find(|account| account["user_id"] == *id)
        .unwrap();
    assert_eq!(account["deactivated"], true);
    if !running {
        server.restart().await;
    }
    user.get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn accounts_are_looked_after_while_the_server_runs() {
    let mut server = Server::start_with(CHAPAR, OPEN).await;
    look_after_accounts(&mut server, true).await;
}

#[tokio::test]
async fn accounts_are_looked_after_while_the_server_is_down() {
    let mut server = Server::start_with(CHAPAR, OPEN).await;
    look_after_accounts(&mut server, false).await;
}

#[tokio::test]
async fn a_password_can_be_given_in_a_file() {
    let server = Server::start_with(CHAPAR, OPEN).await;
    let file = server.folder().join("password");
    std::fs::File::create(&file)
        .unwrap()
        .write_all("correct horse\nnot this\n".as_bytes())
        .unwrap();
    let file = file.to_str().unwrap();
    let made = printed(&server.command(&["user", "create", "alice", "--password-file", file]));
    assert_eq!(made, "@alice:localhost created\n");
    server
        .post("/login", login("alice", "correct horse"))
        .await
        .ok();
}

#[tokio::test]
async fn the_control_socket_is_for_the_servers_own_user_and_goes_with_the_server() {
    let mut server = Server::start_with(CHAPAR, OPEN).await;
    let data = server.folder().join("data");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("control.sock")), 0o600);
    assert_eq!(mode(&data), 0o700);
    assert!(server.terminate().await.success());
    assert!(!data.join("control.sock").exists());
}

#[tokio::test]
async fn a_command_finds_its_way_past_the_socket_of_a_server_that_was_killed() {
    let mut server = Server::start_with(CHAPAR, OPEN).await;
    server.kill9();
    assert!(server.folder().join("data/control.sock").exists());
    printed(&server.command(&["user", "create", "alice"]));
    server.restart().await;
    assert!(printed(&server.command(&["user", "list"])).contains("@alice:localhost"));
}

#[tokio::test]
async fn the_first_start_prints_an_address_and_a_token_for_one_account() {
    let mut server = Server::start_with(CHAPAR, "").await;
    let said = server.stdout();
    let address = format!("Address to put into a client: {}", server.base());
    assert!(said.lines().any(|line| line == address), "{said}");
    let prefix = "Registration token for the first account, good for one: ";
    let token = said
        .lines()
        .find_map(|line| line.strip_prefix(prefix))
        .expect("a token")
        .to_owned();

    let register = |name: &str, auth: Value| json!({"username": name, "password": "correct horse", "auth": auth});
    let dummy = register("alice", json!({"type": "m.login.dummy"}));
    let refused = server.post("/register", dummy).await;
    assert!([401, 403].contains(&refused.status), "{refused}");
    let with_token = |name: &str, session: &Value| {
        let auth =
            json!({"type": "m.login.registration_token", "token": token, "session": session});
        register(name, auth)
    };
    let session = |challenge: &harness::Answer| challenge.body["session"].clone();
    let first = server.post("/register", json!({"username": "alice"})).await;
    assert_eq!(first.status, 401, "{first}");
    let alice = server
        .post("/register", with_token("alice", &session(&first)))
        .await
        .ok();
    assert_eq!(alice["user_id"], "@alice:localhost");

    let second = server.post("/register", json!({"username": "bob"})).await;
    let bob = server
        .post("/register", with_token("bob", &session(&second)))
        .await;
    assert!([401, 403].contains(&bob.status), "used twice: {bob}");
    assert!(server.terminate().await.success());
    server.restart().await;
    let printed_again = server
        .stdout()
        .lines()
        .filter(|line| line.starts_with(prefix))
        .count();
    assert_eq!(printed_again, 1, "{}", server.stdout());
}

/// Backs up with the server running or down, changes something, restores, and finds what was there.
async fn back_up_and_restore(running: bool) {
    let mut server = Server::start_with(CHAPAR, OPEN).await;
    let alice = server.user("alice").await;
    if !running {
        assert!(server.terminate().await.success());
    }
    let backup = server.folder().join("backup");
    let backup = backup.to_str().unwrap();
    printed(&server.command(&["backup", backup]));
    let again = complained(&server.command(&["backup", backup]));
    assert!(again.contains("already"), "{again}");
    if !running {
        server.restart().await;
    }
    let bob = server.user("bob").await;
    let onto = complained(&server.command(&["restore", backup]));
    assert!(onto.contains("not empty"), "{onto}");
    assert!(server.terminate().await.success());

    let data = server.folder().join("data");
    std::fs::rename(&data, server.folder().join("lost")).unwrap();
    let said = printed(&server.command(&["restore", backup]));
    assert!(said.starts_with("restored into "), "{said}");
    server.restart().await;
    alice.get("/account/whoami").await.ok();
    bob.get("/account/whoami")
        .await
        .refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_backup_made_while_the_server_runs_restores() {
    back_up_and_restore(true).await;
}

#[tokio::test]
async fn a_backup_made_while_the_server_is_down_restores() {
    back_up_and_restore(false).await;
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let nothing = folder.path().join("nothing");
    let arguments = [
        "restore",
        nothing.to_str().unwrap(),
        "--data",
        data.to_str().unwrap(),
    ];
    assert!(complained(&chapar(&arguments)).contains("no backup"));
    assert!(!data.exists());
}
