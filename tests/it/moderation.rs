//! Locking and suspending accounts (<https://spec.matrix.org/v1.19/client-server-api/#account-moderation>),
//! what administrators see of people (<https://spec.matrix.org/v1.19/client-server-api/#server-administration>),
//! and the limits of accounts.

use harness::{OPEN, Server, User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CHAPAR, server};

async fn admin(server: &Server) -> User {
    let root = server.user("root").await;
    run(server, &["user", "make-admin", root.name()]);
    root
}

fn run(server: &Server, arguments: &[&str]) -> String {
    let done = server.command(arguments);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    String::from_utf8(done.stdout).unwrap()
}

fn path(what: &str, id: &str) -> String {
    format!("/_matrix/client/v1/admin/{what}/{id}")
}

#[tokio::test]
async fn who_is_locked_may_only_log_out() {
    let server = server().await;
    let root = admin(&server).await;
    let alice = server.user("alice").await;
    let room = alice.create_room(json!({})).await;
    let lock = async |locked: bool| {
        let body = json!({ "locked": locked });
        root.ask(Method::PUT, &path("lock", &alice.id), Some(&body))
            .await
            .ok()
    };
    assert_eq!(lock(true).await, json!({"locked": true}));
    let told = root
        .ask(Method::GET, &path("lock", &alice.id), None)
        .await
        .ok();
    assert_eq!(told, json!({"locked": true}));
    let message = json!({"msgtype": "m.text", "body": "hi"});
    for answer in [
        alice.get("/sync").await,
        alice.get("/account/whoami").await,
        // A path that only ends as that of a logout does.
        alice
            .put(
                &format!("/rooms/{room}/send/m.room.message/logout"),
                message,
            )
            .await,
        alice.get("/publicRooms").await,
    ] {
        let body = answer.refused(401, "M_USER_LOCKED");
        assert_eq!(body["soft_logout"], true, "{body}");
    }
    let login = json!({
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.name()},
        "password": format!("{}-password", alice.name()),
    });
    server
        .post("/login", login.clone())
        .await
        .refused(401, "M_USER_LOCKED");
    lock(false).await;
    alice.get("/account/whoami").await.ok();
    let other = server.user_of(&server.post("/login", login).await.ok());
    lock(true).await;
    other.post("/logout", json!({})).await.ok();
    other.get("/sync").await.refused(401, "M_UNKNOWN_TOKEN");
    alice.post("/logout/all", json!({})).await.ok();
    alice.get("/sync").await.refused(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn who_is_suspended_reads_and_leaves() {
    let server = server().await;
    let root = admin(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = bob.room_with(&[&alice]).await;
    let [public, invited] = [bob.room_with(&[]).await, bob.room_with(&[]).await];
    bob.to_room(&invited, "invite", json!({"user_id": alice.id}))
        .await
        .ok();
    let bobs = bob.say(&room, "hello").await;
    let [first, second] = [alice.say(&room, "one").await, alice.say(&room, "two").await];
    let body = json!({"suspended": true});
    let suspended = root
        .ask(Method::PUT, &path("suspend", &alice.id), Some(&body))
        .await
        .ok();
    assert_eq!(suspended, body);

    let text = json!({"msgtype": "m.text", "body": "hi"});
    let redact = |event: &str| json!({ "redacts": event });
    let redacted = |event: &str| format!("/rooms/{room}/redact/{}/r", encode(event));
    let send = |kind: &str, txn: &str| format!("/rooms/{room}/send/{kind}/{txn}");
    for answer in [
        alice.post(&format!("/join/{public}"), json!({})).await,
        alice
            .post(&format!("/rooms/{public}/join"), json!({}))
            .await,
        alice
            .post(&format!("/rooms/{invited}/join"), json!({}))
            .await,
        alice.post(&format!("/knock/{public}"), json!({})).await,
        alice
            .to_room(&room, "invite", json!({"user_id": "@a:elsewhere.example"}))
            .await,
        alice
            .to_room(&room, "kick", json!({"user_id": bob.id}))
            .await,
        alice.put(&send("m.room.message", "1"), text.clone()).await,
        alice
            .put(&send("m.room.redaction", "2"), redact(&bobs))
            .await,
        alice.put(&send("m.room.redaction", "3"), json!({})).await,
        alice
            .put(&send("m.room.redaction", "4"), redact("$nothing"))
            .await,
        alice.put(&redacted(&bobs), json!({})).await,
        alice
            .try_set_state(&room, "m.room.topic", "", json!({"topic": "x"}))
            .await,
        alice.post("/createRoom", json!({})).await,
        alice
            .put(
                &format!("/profile/{}/displayname", alice.id),
                json!({"displayname": "x"}),
            )
            .await,
        alice
            .put(
                &format!("/rooms/{room}/typing/{}", alice.id),
                json!({"typing": true}),
            )
            .await,
        alice
            .ask(Method::POST, "/_matrix/media/v3/upload", Some(&json!({})))
            .await,
        alice
            .post(&format!("/users/{}/report", bob.id), json!({"reason": "x"}))
            .await,
    ] {
        answer.refused(403, "M_USER_SUSPENDED");
    }
    alice.put(&redacted(&first), json!({})).await.ok();
    alice
        .put(&send("m.room.redaction", "5"), redact(&second))
        .await
        .ok();
    alice
        .get(&format!("/rooms/{room}/messages?dir=b"))
        .await
        .ok();
    alice
        .post(
            &format!("/rooms/{room}/receipt/m.read/{}", encode(&bobs)),
            json!({}),
        )
        .await
        .ok();
    alice.to_room(&room, "leave", json!({})).await.ok();
    alice.to_room(&invited, "leave", json!({})).await.ok();
    let login = json!({
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": alice.name()},
        "password": format!("{}-password", alice.name()),
    });
    let other = server.user_of(&server.post("/login", login).await.ok());
    let refused = other.post(&format!("/join/{public}"), json!({})).await;
    refused.refused(403, "M_USER_SUSPENDED");
    run(&server, &["user", "unsuspend", &alice.id]);
    other.join(&public).await;
}

#[tokio::test]
async fn administrators_alone_lock_and_suspend_and_not_each_other() {
    let server = server().await;
    let (root, second) = (admin(&server).await, admin(&server).await);
    let alice = server.user("alice").await;
    let closed = server.user("closed").await;
    run(&server, &["user", "deactivate", closed.name()]);
    let nobody = alice.id.replace(alice.name(), "nobody");
    for (what, field) in [("lock", "locked"), ("suspend", "suspended")] {
        let body = json!({ field: true });
        let put =
            async |user: &User, id: &str| user.ask(Method::PUT, &path(what, id), Some(&body)).await;
        let get = async |user: &User, id: &str| user.ask(Method::GET, &path(what, id), None).await;
        for id in [&alice.id, &nobody, "@a:elsewhere.example"] {
            put(&alice, id).await.refused(403, "M_FORBIDDEN");
            get(&alice, id).await.refused(403, "M_FORBIDDEN");
        }
        for id in [&nobody, &closed.id] {
            put(&root, id).await.refused(404, "M_NOT_FOUND");
            get(&root, id).await.refused(404, "M_NOT_FOUND");
        }
        put(&root, "@a:elsewhere.example")
            .await
            .refused(400, "M_INVALID_PARAM");
        get(&root, "@a:elsewhere.example")
            .await
            .refused(400, "M_INVALID_PARAM");
        put(&root, &second.id).await.refused(403, "M_FORBIDDEN");
        get(&root, &second.id).await.refused(403, "M_FORBIDDEN");
        put(&root, &root.id).await.refused(403, "M_FORBIDDEN");
        assert_eq!(get(&root, &root.id).await.ok(), json!({ field: false }));
        assert_eq!(get(&root, &alice.id).await.ok(), json!({ field: false }));
        for wrong in [json!({}), json!({ field: 1 }), json!({ field: "true" })] {
            let answer = root
                .ask(Method::PUT, &path(what, &alice.id), Some(&wrong))
                .await;
            assert_eq!(answer.status, 400, "{answer}");
        }
    }
    let moderation = json!({"lock": true, "suspend": true});
    let of = async |user: &User| user.get("/capabilities").await.ok()["capabilities"].clone();
    assert_eq!(of(&root).await["m.account_moderation"], moderation);
    assert_eq!(of(&alice).await["m.account_moderation"], Value::Null);
}

#[tokio::test]
async fn operators_lock_and_suspend_by_commands() {
    let server = server().await;
    let alice = server.user("alice").await;
    let listed = || {
        let list = run(&server, &["user", "list"]);
        list.lines()
            .find(|line| line.starts_with(&alice.id))
            .unwrap()
            .to_owned()
    };
    for (command, mark) in [
        ("lock", " locked"),
        ("suspend", " locked suspended"),
        ("unlock", " suspended"),
        ("unsuspend", ""),
    ] {
        assert!(run(&server, &["user", command, alice.name()]).starts_with(&alice.id));
        assert_eq!(listed(), format!("{}{mark}", alice.id));
    }
    for command in ["lock", "unlock", "suspend", "unsuspend"] {
        assert!(
            !server
                .command(&["user", command, "nobody"])
                .status
                .success()
        );
    }
    alice.get("/account/whoami").await.ok();
}

#[tokio::test]
async fn people_and_administrators_see_where_somebody_was() {
    let server = server().await;
    let root = admin(&server).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    alice.get("/account/whoami").await.ok();
    let whois = |id: &str| format!("/admin/whois/{id}");
    for user in [&alice, &root] {
        let told = user.get(&whois(&alice.id)).await.ok();
        assert_eq!(told["user_id"], alice.id);
        let connection = &told["devices"][&alice.device]["sessions"][0]["connections"][0];
        assert_eq!(connection["ip"], "127.0.0.1", "{told}");
        assert!(connection["last_seen"].as_u64().unwrap() > 1_600_000_000_000);
    }
    bob.get(&whois(&alice.id)).await.refused(403, "M_FORBIDDEN");
    bob.get(&whois("@a:elsewhere.example"))
        .await
        .refused(403, "M_FORBIDDEN");
    root.get(&whois("@a:elsewhere.example"))
        .await
        .refused(400, "M_INVALID_PARAM");
    let nobody = alice.id.replace(alice.name(), "nobody");
    root.get(&whois(&nobody)).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn a_full_server_says_whom_to_turn_to() {
    let settings = OPEN.replace(
        "[registration]",
        "[registration]\nguests = true\nmax_users = 2",
    );
    let settings = format!(
        "{settings}\n[limits]\nmax_rooms_of_user = 2\n[support]\nemail = \"help@example.org\"\n"
    );
    let mut server = Server::start_with(CHAPAR, &settings).await;
    let alice = server.user("alice").await;
    server.user("bob").await;
    let contact = "mailto:help@example.org";
    let full = async |server: &Server| {
        let body = json!({"username": "carol", "password": "x", "auth": {"type": "m.login.dummy"}});
        let refused = server.post("/register", body).await;
        let body = refused.refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
        assert_eq!(body["admin_contact"], contact);
        let refused = server.post("/register?kind=guest", json!({})).await;
        refused.refused(403, "M_RESOURCE_LIMIT_EXCEEDED");
    };
    full(&server).await;
    server.terminate().await;
    server.restart().await;
    full(&server).await;
    run(&server, &["user", "create", "carol"]);
    run(&server, &["user", "deactivate", "carol"]);
    full(&server).await;
    let [first, _] = [
        alice.create_room(json!({})).await,
        alice.create_room(json!({})).await,
    ];
    let refused = alice.post("/createRoom", json!({})).await;
    let body = refused.refused(403, "M_USER_LIMIT_EXCEEDED");
    assert_eq!(body["info_uri"], contact);
    alice.to_room(&first, "leave", json!({})).await.ok();
    alice.create_room(json!({})).await;
    run(&server, &["user", "deactivate", alice.name()]);
    server.user("dave").await;
    full(&server).await;
}
