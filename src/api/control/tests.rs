//! The socket between two ends, without a server behind it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    task::JoinHandle,
};

use super::*;
use crate::Shutdown;

/// Answers with the names it is asked about.
async fn echo(command: Command) -> Answer {
    match command {
        Command::MakeAdmin { user } if user == "nobody" => Answer::Refused("No such user".into()),
        Command::MakeAdmin { user } => Answer::User(user),
        _ => Answer::Refused("Not here".into()),
    }
}

fn serve(folder: &Path, shutdown: &Shutdown) -> JoinHandle<()> {
    let socket = Socket::open(folder).unwrap();
    tokio::spawn(socket.serve(shutdown.clone(), echo))
}

fn make_admin(user: &str) -> Command {
    Command::MakeAdmin {
        user: user.to_owned(),
    }
}

#[tokio::test]
async fn commands_are_answered_until_the_server_stops() {
    let folder = TempDir::new().unwrap();
    assert!(
        ask(folder.path(), &make_admin("alice"))
            .await
            .unwrap()
            .is_none()
    );
    let shutdown = Shutdown::default();
    let served = serve(folder.path(), &shutdown);
    for name in ["alice", "bob"] {
        let answer = ask(folder.path(), &make_admin(name)).await.unwrap();
        assert_eq!(answer, Some(Answer::User(name.to_owned())));
    }
    let refused = ask(folder.path(), &make_admin("nobody")).await.unwrap_err();
    assert_eq!(refused.to_string(), "No such user");
    shutdown.begin();
    served.await.unwrap();
    assert!(!folder.path().join("control.sock").exists());
    assert!(
        ask(folder.path(), &make_admin("alice"))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn only_the_servers_own_user_may_connect() {
    let folder = TempDir::new().unwrap();
    let _socket = Socket::open(folder.path()).unwrap();
    let mode = std::fs::metadata(folder.path().join("control.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_socket_that_a_dead_server_left_is_nobody() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    assert!(
        ask(folder.path(), &make_admin("alice"))
            .await
            .unwrap()
            .is_none()
    );
    let shutdown = Shutdown::default();
    let served = serve(folder.path(), &shutdown);
    assert!(
        ask(folder.path(), &make_admin("alice"))
            .await
            .unwrap()
            .is_some()
    );
    shutdown.begin();
    served.await.unwrap();
}

#[tokio::test]
async fn what_is_no_command_is_refused_and_what_never_ends_is_cut_off() {
    let folder = TempDir::new().unwrap();
    let shutdown = Shutdown::default();
    let served = serve(folder.path(), &shutdown);
    let speak = async |words: &[u8]| {
        let mut stream = UnixStream::connect(folder.path().join("control.sock"))
            .await
            .unwrap();
        // The server may have hung up before all was said.
        let _ = stream.write_all(words).await;
        let _ = stream.shutdown().await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        heard
    };
    for words in [
        "{}\n",
        "[]\n",
        "nonsense\n",
        "{\"command\":\"fly\"}\n",
        "\n",
    ] {
        let heard: Answer = serde_json::from_slice(&speak(words.as_bytes()).await).unwrap();
        assert!(matches!(heard, Answer::Refused(_)), "{words}");
    }
    assert!(speak(b"{\"command\":").await.is_empty());
    assert!(speak(&vec![b'x'; 100_000]).await.is_empty());
    shutdown.begin();
    served.await.unwrap();
}

/// What a command of a server in memory is answered.
async fn performed(server: &crate::Server, command: Command) -> Answer {
    perform(server.clone(), command).await
}

fn create(localpart: &str) -> Command {
    Command::CreateUser {
        localpart: localpart.into(),
        password: "long enough".into(),
        admin: false,
    }
}

#[track_caller]
fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refused(why) => why,
        answer => panic!("not refused: {answer:?}"),
    }
}

#[tokio::test]
async fn accounts_are_made_found_by_either_name_and_closed() {
    let server = crate::tests::server().await;
    let alice = || Answer::User("@alice:localhost".into());
    assert_eq!(performed(&server, create("alice")).await, alice());
    refusal(performed(&server, create("alice")).await);
    refusal(performed(&server, create("no spaces")).await);
    assert_eq!(performed(&server, make_admin("alice")).await, alice());
    assert_eq!(
        performed(&server, make_admin("@alice:localhost")).await,
        alice()
    );
    for (name, why) in [
        ("bob", "@bob:localhost"),
        ("@bob:localhost", "@bob:localhost"),
        ("@alice:example.org", "another server"),
        ("@alice", "not a user ID"),
    ] {
        let refused = refusal(performed(&server, make_admin(name)).await);
        assert!(refused.contains(why), "{name}: {refused}");
    }
    let reset = |password: &str| Command::ResetPassword {
        user: "alice".into(),
        password: password.into(),
    };
    refusal(performed(&server, reset("x")).await);
    assert_eq!(performed(&server, reset("another long one")).await, alice());
    let deactivate = Command::Deactivate {
        user: "alice".into(),
    };
    assert_eq!(performed(&server, deactivate).await, alice());
    refusal(performed(&server, make_admin("alice")).await);
    let Answer::Users { users, next } = performed(&server, Command::ListUsers { from: None }).await
    else {
        panic!("no list")
    };
    assert_eq!(next, None);
    assert_eq!(users.len(), 1);
    assert!(users[0].deactivated && !users[0].admin && users[0].user_id == "@alice:localhost");
}

#[tokio::test]
async fn a_place_in_the_list_is_taken_up_again() {
    let server = crate::tests::server().await;
    for name in ["alice", "bob"] {
        performed(&server, create(name)).await;
    }
    let page = async |from: Option<&str>| {
        performed(
            &server,
            Command::ListUsers {
                from: from.map(str::to_owned),
            },
        )
        .await
    };
    let Answer::Users { users, .. } = page(Some("0000000000000000")).await else {
        panic!()
    };
    assert_eq!(users.len(), 2);
    let Answer::Users { users, .. } = page(Some("ffffffffffffffff")).await else {
        panic!()
    };
    assert_eq!(users.len(), 0);
    assert!(refusal(page(Some("nonsense")).await).contains("place"));
}

#[test]
fn every_command_and_answer_survives_the_way() {
    let commands = [
        Command::CreateUser {
            localpart: "a".into(),
            password: "b\n\"".into(),
            admin: true,
        },
        Command::ResetPassword {
            user: "@a:b".into(),
            password: "ü".into(),
        },
        make_admin("a"),
        Command::Deactivate { user: "a".into() },
        Command::ListUsers { from: None },
        Command::Backup {
            folder: "/x".into(),
        },
    ];
    for command in commands {
        let line = serde_json::to_string(&command).unwrap();
        assert!(!line.contains('\n'));
        let back: Command = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&back).unwrap(), line);
    }
    let account = Account {
        user_id: "@a:b".into(),
        created_ts: 1,
        admin: false,
        deactivated: true,
        locked: false,
        suspended: true,
    };
    let answers = [
        Answer::User("@a:b".into()),
        Answer::Users {
            users: vec![account],
            next: Some("x".into()),
        },
        Answer::Done {},
        Answer::Refused("no".into()),
    ];
    for answer in answers {
        let line = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&line).unwrap(), answer);
    }
}
