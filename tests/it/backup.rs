//! Backups of the keys of encrypted rooms
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups)).

use harness::User;
use serde_json::{Value, json};

use crate::server;

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

async fn new_version(user: &User) -> String {
    let body =
        json!({"algorithm": ALGORITHM, "auth_data": {"public_key": "abc", "signatures": {}}});
    let answer = user.post("/room_keys/version", body).await.ok();
    answer["version"].as_str().unwrap().to_owned()
}

fn key(index: u64, forwarded: u64, verified: bool) -> Value {
    json!({
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": format!("{index} {forwarded} {verified}")},
    })
}

#[tokio::test]
async fn versions_are_made_changed_and_deleted() {
    let server = server().await;
    let alice = server.user("alice").await;
    alice
        .get("/room_keys/version")
        .await
        .refused(404, "M_NOT_FOUND");
    let first = new_version(&alice).await;
    let info = alice.get("/room_keys/version").await.ok();
    assert_eq!(info["version"], first);
    assert_eq!(info["algorithm"], ALGORITHM);
    assert_eq!(
        info["auth_data"],
        json!({"public_key": "abc", "signatures": {}})
    );
    assert_eq!(info["count"], 0);
    assert!(info["etag"].is_string());
    let second = new_version(&alice).await;
    assert_ne!(first, second);
    let path = format!("/room_keys/version/{first}");
    assert_eq!(alice.get(&path).await.ok()["version"], first);

    let new = json!({"algorithm": ALGORITHM, "auth_data": {"public_key": "new", "signatures": {}}, "version": first});
    assert_eq!(alice.put(&path, new.clone()).await.ok(), json!({}));
    let info = alice.get(&path).await.ok();
    assert_eq!(info["auth_data"]["public_key"], "new");
    alice
        .put(&format!("/room_keys/version/{second}"), new)
        .await
        .refused(400, "M_INVALID_PARAM");
    let other = json!({"algorithm": "org.example", "auth_data": {}});
    alice
        .put(&path, other.clone())
        .await
        .refused(400, "M_INVALID_PARAM");
    for nowhere in ["/room_keys/version/77", "/room_keys/version/x"] {
        alice
            .put(nowhere, other.clone())
            .await
            .refused(404, "M_NOT_FOUND");
        alice.get(nowhere).await.refused(404, "M_NOT_FOUND");
        alice
            .delete(nowhere, json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
    // The latest that is left is in force; a number is not given out again.
    let gone = format!("/room_keys/version/{second}");
    for _ in 0..2 {
        assert_eq!(alice.delete(&gone, json!({})).await.ok(), json!({}));
    }
    alice.get(&gone).await.refused(404, "M_NOT_FOUND");
    assert_eq!(alice.get("/room_keys/version").await.ok()["version"], first);
    let third = new_version(&alice).await;
    assert!(third != first && third != second);
}

#[tokio::test]
async fn keys_are_put_and_found_by_room_and_session() {
    let server = server().await;
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let at = |path: &str| format!("/room_keys/keys{path}?version={version}");
    let many = json!({"rooms": {
        "!a:localhost": {"sessions": {"one": key(1, 0, false), "two": key(2, 0, false)}},
        "!b:localhost": {"sessions": {"three": key(3, 0, true)}},
    }});
    let state = alice.put(&at(""), many.clone()).await.ok();
    assert_eq!(state["count"], 3);
    let of_room = json!({"sessions": {"four": key(4, 0, false)}});
    let state = alice.put(&at("/!b:localhost"), of_room).await.ok();
    assert_eq!(state["count"], 4);
    let odd = "/!b:localhost/five%2Fslash%2B";
    let state = alice.put(&at(odd), key(5, 0, false)).await.ok();
    assert_eq!(state["count"], 5);
    let info = alice.get("/room_keys/version").await.ok();
    assert_eq!((&info["count"], &info["etag"]), (&json!(5), &state["etag"]));

    let all = alice.get(&at("")).await.ok();
    assert_eq!(all["rooms"]["!a:localhost"], many["rooms"]["!a:localhost"]);
    let of_b = all["rooms"]["!b:localhost"]["sessions"]
        .as_object()
        .unwrap();
    assert_eq!(of_b.len(), 3);
    assert_eq!(of_b["five/slash+"], key(5, 0, false));
    let of_room = alice.get(&at("/!a:localhost")).await.ok();
    assert_eq!(of_room, many["rooms"]["!a:localhost"]);
    assert_eq!(alice.get(&at(odd)).await.ok(), key(5, 0, false));
    // What is not there: none of a room, and no such session.
    assert_eq!(
        alice.get(&at("/!c:localhost")).await.ok(),
        json!({"sessions": {}})
    );
    alice
        .get(&at("/!a:localhost/nosuch"))
        .await
        .refused(404, "M_NOT_FOUND");

    let state = alice.delete(&at("/!a:localhost/one"), json!({})).await.ok();
    assert_eq!(state["count"], 4);
    let state = alice.delete(&at("/!b:localhost"), json!({})).await.ok();
    assert_eq!(state["count"], 1);
    let state = alice.delete(&at(""), json!({})).await.ok();
    assert_eq!(state["count"], 0);
    assert_eq!(alice.get(&at("")).await.ok(), json!({"rooms": {}}));
}

#[tokio::test]
async fn the_better_key_stays() {
    let server = server().await;
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let path = format!("/room_keys/keys/!a:localhost/s?version={version}");
    let mut etag = Value::Null;
    for (new, stays) in [
        (key(10, 5, false), key(10, 5, false)),
        (key(11, 0, false), key(10, 5, false)),
        (key(10, 6, false), key(10, 5, false)),
        (key(10, 5, false), key(10, 5, false)),
        (key(10, 4, false), key(10, 4, false)),
        (key(9, 9, false), key(9, 9, false)),
        (key(20, 9, true), key(20, 9, true)),
        (key(1, 1, false), key(20, 9, true)),
        (key(19, 9, true), key(19, 9, true)),
    ] {
        let state = alice.put(&path, new.clone()).await.ok();
        assert_eq!(state["count"], 1);
        // Another etag if, and only if, something changed.
        assert_eq!(state["etag"] != etag, new == stays && state["etag"] != etag);
        etag = state["etag"].clone();
        assert_eq!(alice.get(&path).await.ok(), stays, "{new}");
    }
}

#[tokio::test]
async fn keys_go_into_the_latest_version_only() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let old = new_version(&alice).await;
    let path = format!("/room_keys/keys/!a:localhost/s?version={old}");
    alice.put(&path, key(1, 0, false)).await.ok();
    let new = new_version(&alice).await;
    let refused = alice.put(&path, key(0, 0, false)).await;
    assert_eq!(refused.body["current_version"], new);
    refused.refused(403, "M_WRONG_ROOM_KEYS_VERSION");
    // What is in the old one can still be read, by its owner alone.
    assert_eq!(alice.get(&path).await.ok(), key(1, 0, false));
    bob.get(&path).await.refused(404, "M_NOT_FOUND");
    bob.put(&path, key(1, 0, false))
        .await
        .refused(404, "M_NOT_FOUND");
    for wrong in [
        json!({}),
        json!({"first_message_index": -1}),
        key(1, 0, false)["session_data"].clone(),
    ] {
        alice
            .put(
                &format!("/room_keys/keys/!a:localhost/s?version={new}"),
                wrong,
            )
            .await
            .refused(400, "M_BAD_JSON");
    }
}

#[tokio::test]
async fn many_keys_are_put_at_once() {
    let server = server().await;
    let alice = server.user("alice").await;
    let version = new_version(&alice).await;
    let sessions: serde_json::Map<_, _> = (0..1_500)
        .map(|n| (format!("session{n}"), key(n, 0, false)))
        .collect();
    let path = format!("/room_keys/keys?version={version}");
    let body = json!({"rooms": {"!a:localhost": {"sessions": sessions}}});
    assert_eq!(alice.put(&path, body.clone()).await.ok()["count"], 1_500);
    assert_eq!(alice.get(&path).await.ok(), body);
    let gone = format!("/room_keys/version/{version}");
    alice.delete(&gone, json!({})).await.ok();
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
}
