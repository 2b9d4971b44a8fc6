//! Server notices (<https://spec.matrix.org/v1.19/client-server-api/#server-notices>), sent by administrators
//! as with Synapse (<https://element-hq.github.io/synapse/latest/admin_api/server_notices.html>).

use harness::{Answer, OPEN, Server, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CHAPAR, list, only};

const PATH: &str = "/_synapse/admin/v1/send_server_notice";

async fn server() -> (Server, User, User) {
    let settings = format!("{OPEN}\n[server_notices]\nuser = \"_server\"\nroom_name = \"News\"\n");
    let server = Server::start_with(CHAPAR, &settings).await;
    let (root, alice) = (server.user("root").await, server.user("alice").await);
    let made = server.command(&["user", "make-admin", root.name()]);
    assert!(made.status.success());
    (server, root, alice)
}

async fn notice(from: &User, to: &str, txn: Option<&str>) -> Answer {
    let content = json!({"msgtype": "m.text", "body": "hello"});
    let body = json!({"user_id": to, "content": content});
    match txn {
        None => from.ask(Method::POST, PATH, Some(&body)).await,
        Some(txn) => {
            from.ask(Method::PUT, &format!("{PATH}/{txn}"), Some(&body))
                .await
        }
    }
}

/// The only room that somebody is invited to.
async fn invited(user: &User) -> String {
    let sync = user.sync(None).await;
    let invites = sync.body["rooms"]["invite"].as_object().unwrap();
    assert_eq!(invites.len(), 1, "{invites:?}");
    invites.keys().next().unwrap().clone()
}

#[tokio::test]
async fn the_server_talks_to_people_in_a_room_of_their_own() {
    let (server, root, alice) = server().await;
    let first = notice(&root, &alice.id, None).await.ok()["event_id"].clone();
    let room = invited(&alice).await;
    let sync = alice.sync(None).await;
    let state = list(&sync.invited(&room)["invite_state"], "events");
    let speaker = alice.id.replace(alice.name(), "_server");
    assert!(
        state.iter().all(|event| event["sender"] == speaker),
        "{state:?}"
    );
    assert_eq!(only(state, "m.room.name", "")["content"]["name"], "News");

    let rejected = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM";
    alice
        .to_room(&room, "leave", json!({}))
        .await
        .refused(403, rejected);
    let leave = json!({"membership": "leave"});
    let state = alice
        .try_set_state(&room, "m.room.member", &alice.id, leave)
        .await;
    state.refused(403, rejected);

    alice.join(&room).await;
    let sync = alice.sync(None).await;
    let said = sync
        .timeline(&room)
        .iter()
        .find(|event| event["event_id"] == first)
        .unwrap();
    assert_eq!(
        (&said["sender"], &said["content"]["body"]),
        (&json!(speaker), &json!("hello"))
    );
    let tags = alice
        .get(&format!("/user/{}/rooms/{room}/tags", alice.id))
        .await
        .ok();
    assert_eq!(tags["tags"], json!({"m.server_notice": {}}));
    let name = alice.state(&room, "m.room.member", &speaker).await.ok();
    assert_eq!(name["displayname"], "Server notices");
    let answer = json!({"msgtype": "m.text", "body": "who are you?"});
    let answer = alice
        .put(&format!("/rooms/{room}/send/m.room.message/1"), answer)
        .await;
    answer.refused(403, "M_FORBIDDEN");

    // Who was in it may leave it, and is invited to it again.
    alice.to_room(&room, "leave", json!({})).await.ok();
    notice(&root, &alice.id, None).await.ok();
    assert_eq!(invited(&alice).await, room);
    let twice = [
        notice(&root, &alice.id, Some("1")).await.ok(),
        notice(&root, &alice.id, Some("1")).await.ok(),
        notice(&root, &alice.id, Some("2")).await.ok(),
    ];
    assert_eq!(twice[0], twice[1]);
    assert_ne!(twice[0], twice[2]);
    assert_eq!(invited(&alice).await, room);

    // Nobody takes the server's name.
    let taken = json!({"username": "_server", "password": "x", "auth": {"type": "m.login.dummy"}});
    let status = server.post("/register", taken).await.status;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn nobody_can_close_their_ears_to_the_server() {
    let (_server, root, alice) = server().await;
    let speaker = alice.id.replace(alice.name(), "_server");
    let data = |name: &str| format!("/user/{}/account_data/{name}", alice.id);
    let block = json!({"default_action": "block"});
    alice
        .put(&data("m.invite_permission_config"), block)
        .await
        .ok();
    let ignore = json!({"ignored_users": {speaker: {}}});
    alice.put(&data("m.ignored_user_list"), ignore).await.ok();
    notice(&root, &alice.id, None).await.ok();
    invited(&alice).await;
}

#[tokio::test]
async fn first_notices_at_the_same_time_make_one_room() {
    let (_server, root, alice) = server().await;
    let (one, two) = tokio::join!(
        notice(&root, &alice.id, None),
        notice(&root, &alice.id, None),
    );
    assert_ne!(one.ok(), two.ok());
    invited(&alice).await;
}

#[tokio::test]
async fn only_administrators_send_notices_and_only_to_people_here() {
    let (server, root, alice) = server().await;
    for body in [
        None,
        Some(json!({})),
        Some(json!({"user_id": alice.id, "content": {}})),
    ] {
        let refused = alice.ask(Method::POST, PATH, body.as_ref()).await;
        refused.refused(403, "M_FORBIDDEN");
    }
    let nobody = alice.id.replace(alice.name(), "nobody");
    notice(&root, &nobody, None)
        .await
        .refused(404, "M_NOT_FOUND");
    notice(&root, "@a:elsewhere.example", None)
        .await
        .refused(400, "M_INVALID_PARAM");
    for (body, errcode) in [
        (json!({"content": {}}), "M_MISSING_PARAM"),
        (json!({"user_id": alice.id}), "M_MISSING_PARAM"),
        (json!({"user_id": alice.id, "content": []}), "M_BAD_JSON"),
        (json!({"user_id": "alice", "content": {}}), "M_BAD_JSON"),
        (
            json!({"user_id": alice.id, "content": {}, "type": 7}),
            "M_BAD_JSON",
        ),
    ] {
        let refused = root.ask(Method::POST, PATH, Some(&body)).await;
        refused.refused(400, errcode);
    }
    assert_eq!(alice.sync(None).await.body["rooms"]["invite"], Value::Null);
    let taken = json!({"username": "_server", "password": "x", "auth": {"type": "m.login.dummy"}});
    server
        .post("/register", taken)
        .await
        .refused(400, "M_EXCLUSIVE");

    let silent = crate::server().await;
    let root = silent.user("root").await;
    silent.command(&["user", "make-admin", root.name()]);
    notice(&root, &root.id, None)
        .await
        .refused(400, "M_UNKNOWN");
}
