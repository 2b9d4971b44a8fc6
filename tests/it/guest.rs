//! Guests (client-server API, *Guest access*).

use harness::{OPEN, Server, User, encode};
use serde_json::json;

use crate::{CHAPAR, list};

async fn server() -> Server {
    let settings = OPEN.replace("[registration]", "[registration]\nguests = true");
    Server::start_with(CHAPAR, &settings).await
}

async fn guest(server: &Server) -> User {
    let body = json!({"initial_device_display_name": "a guest's"});
    let made = server.post("/register?kind=guest", body).await.ok();
    server.user_of(&made)
}

#[tokio::test]
async fn may_call_what_the_specification_lists_and_nothing_else() {
    let server = server().await;
    let (alice, guest) = (server.user("alice").await, guest(&server).await);
    assert_eq!(guest.get("/account/whoami").await.ok()["is_guest"], true);
    let own = |path: &str| format!("/profile/{}/{path}", guest.id);
    guest
        .put(&own("displayname"), json!({"displayname": "Guest"}))
        .await
        .ok();
    guest
        .put(&own("avatar_url"), json!({"avatar_url": "mxc://x/y"}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest.delete(&own("displayname"), json!({})).await.ok();
    guest
        .delete(&own("avatar_url"), json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    assert_eq!(list(&guest.get("/devices").await.ok(), "devices").len(), 1);
    let device = format!("/devices/{}", guest.device);
    guest
        .put(&device, json!({"display_name": "new"}))
        .await
        .ok();
    assert_eq!(guest.get(&device).await.ok()["display_name"], "new");
    guest.sync(None).await;
    guest
        .post("/keys/query", json!({"device_keys": {}}))
        .await
        .ok();

    let room = alice.room_with(&[]).await;
    for refused in [
        guest.post("/createRoom", json!({})).await,
        guest
            .to_room(&room, "invite", json!({"user_id": alice.id}))
            .await,
        guest
            .to_room(&room, "upgrade", json!({"new_version": "12"}))
            .await,
        guest.get("/joined_rooms").await,
        guest.get("/pushrules/").await,
        guest
            .put(
                &format!("/user/{}/account_data/org.example", guest.id),
                json!({}),
            )
            .await,
        guest.delete(&device, json!({})).await,
        guest
            .post(
                "/account/password",
                json!({"new_password": "a new password"}),
            )
            .await,
        guest.post("/account/deactivate", json!({})).await,
    ] {
        refused.refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    }
}

#[tokio::test]
async fn join_rooms_that_let_them_in_and_leave_when_these_no_longer_do() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (guest, invited) = (guest(&server).await, guest(&server).await);
    let room = alice.room_with(&[&bob]).await;
    let join = format!("/join/{room}");
    guest
        .post(&join, json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest
        .to_room(&room, "join", json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    let access = |value: &str| json!({"guest_access": value});
    alice
        .set_state(&room, "m.room.guest_access", "", access("can_join"))
        .await;
    guest.join(&room).await;
    guest.say(&room, "salaam").await;
    alice
        .to_room(&room, "invite", json!({"user_id": invited.id}))
        .await
        .ok();
    let since = alice.sync(None).await.next_batch();
    alice
        .set_state(&room, "m.room.guest_access", "", access("forbidden"))
        .await;
    let gone = alice
        .sync_until(&since, |sync| {
            let mut events = sync.timeline(&room).iter();
            events.any(|event| event["state_key"] == guest.id.as_str())
        })
        .await;
    let left = gone
        .timeline(&room)
        .iter()
        .find(|event| event["state_key"] == guest.id.as_str());
    let left = left.unwrap();
    assert_eq!(
        (&left["content"]["membership"], &left["sender"]),
        (&json!("leave"), &json!(guest.id))
    );
    let member = |user: &User| user.id.clone();
    let bobs = alice
        .state(&room, "m.room.member", &member(&bob))
        .await
        .ok();
    assert_eq!(bobs["membership"], "join", "who is no guest stays");
    invited
        .post(&join, json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
    guest
        .post(&join, json!({}))
        .await
        .refused(403, "M_GUEST_ACCESS_FORBIDDEN");
}

#[tokio::test]
async fn look_into_rooms_that_the_world_may_read() {
    let server = server().await;
    let (alice, guest) = (server.user("alice").await, guest(&server).await);
    let shut = alice.room_with(&[]).await;
    let visibility = json!({"history_visibility": "world_readable"});
    let state = json!([{"type": "m.room.history_visibility", "content": visibility}]);
    let name = format!("peek-{}", alice.name());
    let open = alice
        .create_room(json!({"initial_state": state, "name": "Open", "room_alias_name": name}))
        .await;
    let said = alice.say(&open, "hello, world").await;
    let said = encode(&said);
    for path in [
        "messages?dir=b",
        "state",
        "state/m.room.name",
        "members",
        &format!("event/{said}"),
        &format!("context/{said}"),
    ] {
        let seen = guest.get(&format!("/rooms/{open}/{path}")).await;
        assert_eq!(seen.status, 200, "{seen}");
        if !path.contains(&said) {
            guest
                .get(&format!("/rooms/{shut}/{path}"))
                .await
                .refused(403, "M_FORBIDDEN");
        }
    }
    let bob = server.user("bob").await;
    let aliases = bob.get(&format!("/rooms/{open}/aliases")).await.ok();
    assert_eq!(list(&aliases, "aliases").len(), 1);
    guest
        .put(
            &format!("/rooms/{open}/send/m.room.message/1"),
            json!({"body": "x", "msgtype": "m.text"}),
        )
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn become_users_with_a_password_under_the_same_name() {
    let server = server().await;
    let guest = guest(&server).await;
    let body = |name: &str, token: &str| {
        json!({
            "username": name, "password": "a long password", "guest_access_token": token,
            "auth": {"type": "m.login.dummy"},
        })
    };
    server
        .post("/register", body("another", &guest.token))
        .await
        .refused(403, "M_FORBIDDEN");
    server
        .post("/register", body(guest.name(), "nonsense"))
        .await
        .refused(403, "M_FORBIDDEN");
    let made = server
        .post("/register", body(guest.name(), &guest.token))
        .await
        .ok();
    let user = server.user_of(&made);
    assert_eq!(user.id, guest.id);
    user.create_room(json!({})).await;
    guest.create_room(json!({})).await;
    assert_ne!(guest.get("/account/whoami").await.ok()["is_guest"], true);
    server
        .post("/register", body(guest.name(), &guest.token))
        .await
        .refused(403, "M_FORBIDDEN");
    let login = json!({
        "type": "m.login.password", "password": "a long password",
        "identifier": {"type": "m.id.user", "user": guest.name()},
    });
    server.post("/login", login).await.ok();
}
