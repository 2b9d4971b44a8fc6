//! What servers ask each other about people, rooms and files.

use harness::encode;
use reqwest::Method;
use serde_json::json;

use super::two;

#[tokio::test]
async fn people_aliases_and_files_of_another_server_are_found() {
    let (a, mut b, name_of_b) = two().await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let name = json!({ "displayname": "Bob" });
    let path = format!("/profile/{}/displayname", bob.id);
    bob.put(&path, name.clone()).await.ok();
    assert_eq!(alice.get(&path).await.ok(), name);

    let room =
        json!({ "preset": "public_chat", "visibility": "public", "room_alias_name": "bazaar" });
    let room = bob.post("/createRoom", room).await.ok();
    let alias = encode(&format!("#bazaar:{name_of_b}"));
    let found = alice.get(&format!("/directory/room/{alias}")).await.ok();
    assert_eq!(found["room_id"], room["room_id"]);
    let page = alice
        .get(&format!("/publicRooms?server={name_of_b}"))
        .await
        .ok();
    assert_eq!(page["chunk"][0]["room_id"], room["room_id"]);

    // It is found again after it was away, on connections that are gone.
    b.kill9();
    let away = alice.get(&path).await;
    assert_eq!(away.status, 502, "{away:?}");
    b.restart().await;
    let bob = b.user("bob").await;
    let path = format!("/profile/{}", bob.id);
    let begun = std::time::Instant::now();
    while alice.get(&path).await.status != 200 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
    }
    let query = format!("/_matrix/key/v2/query/{name_of_b}");
    let keys = a.ask(Method::GET, &query, None).await.ok();
    assert_eq!(keys["server_keys"][0]["server_name"], name_of_b);
}

#[tokio::test]
async fn an_operator_changes_the_key_and_whom_the_server_talks_to_while_it_runs() {
    let (a, b, _) = two().await;
    let (alice, bob) = (a.user("alice").await, b.user("bob").await);
    let path = format!("/profile/{}", bob.id);
    assert_eq!(alice.get(&path).await.status, 200);
    let keys = async || {
        let keys = a
            .ask(Method::GET, "/_matrix/key/v2/server", None)
            .await
            .ok();
        let names = |list: &str| {
            keys[list]
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        (names("verify_keys"), names("old_verify_keys"))
    };
    let (before, none) = keys().await;
    assert!(none.is_empty());
    let changed = a.command(&["federation", "rotate-key"]);
    assert!(changed.status.success(), "{changed:?}");
    let (now, old) = keys().await;
    assert_eq!(old, before);
    let said = String::from_utf8(changed.stdout).unwrap();
    assert!(said.contains(&now[0]), "{said}");

    let file = a.folder().join("chapar.toml");
    let settings = std::fs::read_to_string(&file).unwrap();
    let denied = settings.replace("[federation]", "[federation]\ndeny = [\"localhost\"]");
    std::fs::write(&file, denied).unwrap();
    assert!(a.command(&["federation", "reload"]).status.success());
    assert_eq!(alice.get(&path).await.status, 403);
    std::fs::write(
        &file,
        settings.replace("[federation]", "[federation]\ndeny = [\"_\"]"),
    )
    .unwrap();
    assert!(!a.command(&["federation", "reload"]).status.success());
    std::fs::write(&file, settings).unwrap();
    assert!(a.command(&["federation", "reload"]).status.success());
    let begun = std::time::Instant::now();
    while alice.get(&path).await.status != 200 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30));
    }
}
