//! Searching people ([spec](https://spec.matrix.org/v1.19/client-server-api/#user-directory)).

use std::fs;

use harness::{OPEN, Server, User};
use serde_json::{Value, json};

use crate::{CHAPAR, list};

/// A server with nobody else on it.
async fn alone() -> Server {
    Server::start_with(CHAPAR, OPEN).await
}

async fn search(user: &User, term: &str) -> Value {
    let body = json!({"search_term": term});
    user.post("/user_directory/search", body).await.ok()
}

/// The ids of those who are found.
async fn found(user: &User, term: &str) -> Vec<String> {
    let answer = search(user, term).await;
    let people = list(&answer, "results").iter();
    people
        .map(|person| person["user_id"].as_str().unwrap().to_owned())
        .collect()
}

async fn rename(user: &User, name: &str) {
    let path = format!("/profile/{}/displayname", user.id);
    user.put(&path, json!({"displayname": name})).await.ok();
}

/// Waits until the server has told rooms of what changed: searches until they are so.
async fn until(user: &User, term: &str, wanted: &[&str]) {
    for _ in 0..500 {
        if found(user, term).await == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!(
        "{term}: {:?} instead of {wanted:?}",
        found(user, term).await
    );
}

#[tokio::test]
async fn a_name_in_one_room_is_not_told_to_others() {
    let server = alone().await;
    let (alice, bob, eve) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("eve").await,
    );
    rename(&alice, "Alice Cooper").await;
    alice.create_room(json!({"visibility": "public"})).await;
    let private = bob
        .create_room(json!({"visibility": "private", "invite": [alice.id]}))
        .await;
    alice.join(&private).await;
    let member = json!({"membership": "join", "displayname": "Freddy"});
    alice
        .set_state(&private, "m.room.member", &alice.id, member)
        .await;
    for user in [&bob, &eve] {
        for term in ["Alice Cooper", "coop", &alice.id, alice.name(), "@alice"] {
            let answer = search(user, term).await;
            let person = json!({"user_id": alice.id, "display_name": "Alice Cooper"});
            assert_eq!(answer["results"], json!([person]), "{term}");
            assert_eq!(answer["limited"], false);
        }
        assert_eq!(found(user, "Freddy").await, Vec::<String>::new());
    }
    // NOTSPEC: people find themselves where everybody does, as with Synapse.
    assert_eq!(found(&alice, "alice").await, [&*alice.id]);
    assert_eq!(found(&bob, "bob").await, Vec::<String>::new());
    assert_eq!(found(&eve, "bob").await, Vec::<String>::new());
}

#[tokio::test]
async fn people_are_found_where_one_may_see_them() {
    let server = alone().await;
    let (alice, bob, eve) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("eve").await,
    );
    let none = Vec::<String>::new();
    assert_eq!(found(&eve, "bob").await, none);
    let room = alice
        .create_room(json!({"preset": "private_chat", "invite": [bob.id]}))
        .await;
    assert_eq!(found(&alice, "bob").await, none, "who is only invited");
    bob.join(&room).await;
    assert_eq!(found(&alice, "bob").await, [&*bob.id]);
    assert_eq!(found(&bob, "alice").await, [&*alice.id]);
    assert_eq!(found(&eve, "bob").await, none);
    let set = async |event_type: &str, content| {
        alice.set_state(&room, event_type, "", content).await;
    };
    set("m.room.join_rules", json!({"join_rule": "public"})).await;
    assert_eq!(found(&eve, "bob").await, [&*bob.id]);
    set("m.room.join_rules", json!({"join_rule": "invite"})).await;
    assert_eq!(found(&eve, "bob").await, none);
    let visibility = |it: &str| json!({"history_visibility": it});
    set("m.room.history_visibility", visibility("world_readable")).await;
    assert_eq!(found(&eve, "bob").await, [&*bob.id]);
    set("m.room.history_visibility", visibility("shared")).await;
    assert_eq!(found(&eve, "bob").await, none);
    bob.to_room(&room, "leave", json!({})).await.ok();
    assert_eq!(found(&alice, "bob").await, none);
    assert_eq!(found(&bob, "alice").await, none);
}

#[tokio::test]
async fn names_are_found_by_how_their_words_begin_however_they_are_spelled() {
    let server = alone().await;
    let alice = server.user("alice").await;
    let mut others = Vec::new();
    for (name, display) in [
        ("m1", "Zoë Ångström"),
        ("m2", "علي رضایی"),
        ("m3", "مي‌گون"),
        ("m4", "Zoltan"),
        ("zoe", "Somebody"),
    ] {
        let user = server.user(name).await;
        rename(&user, display).await;
        others.push(user);
    }
    alice.room_with(&others.iter().collect::<Vec<_>>()).await;
    let id = |index: usize| others[index].id.as_str();
    for (term, wanted) in [
        ("ANGSTROM zo", vec![id(0)]),
        ("على رضا", vec![id(1)]),
        ("رضايي", vec![id(1)]),
        ("میگون", vec![id(2)]),
        ("می گو", vec![id(2)]),
        ("strom", vec![]),
        ("zol", vec![id(3)]),
        ("", vec![]),
        ("@", vec![]),
        ("@m4:", vec![id(3)]),
    ] {
        assert_eq!(found(&alice, term).await, wanted, "{term}");
    }
    // Whose name is the word comes before whose name begins with it.
    let zo = found(&alice, "zoe").await;
    assert_eq!(zo.len(), 2);
    assert_eq!(found(&alice, "zo").await.len(), 3);
    let body = json!({"search_term": "zo", "limit": 2});
    let answer = alice.post("/user_directory/search", body).await.ok();
    assert_eq!(list(&answer, "results").len(), 2);
    assert_eq!(answer["limited"], true);
    let body = json!({"search_term": "zo", "limit": 3});
    let answer = alice.post("/user_directory/search", body).await.ok();
    assert_eq!(answer["limited"], false);
}

#[tokio::test]
async fn profiles_change_and_people_go() {
    let mut server = alone().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.room_with(&[&bob]).await;
    rename(&bob, "Robert").await;
    until(&alice, "robert", &[&bob.id]).await;
    rename(&bob, "Bertram").await;
    until(&alice, "bertram", &[&bob.id]).await;
    assert_eq!(found(&alice, "robert").await, Vec::<String>::new());
    let path = format!("/profile/{}/avatar_url", bob.id);
    let url = json!({"avatar_url": "mxc://a.example/b"});
    bob.put(&path, url).await.ok();
    let answer = search(&alice, "bertram").await;
    assert_eq!(answer["results"][0]["avatar_url"], "mxc://a.example/b");

    server.terminate().await;
    fs::remove_dir_all(server.folder().join("data/search")).unwrap();
    server.restart().await;
    assert_eq!(found(&alice, "bertram").await, [&*bob.id]);
    bob.say(&room, "good bye").await;
    let auth = json!({
        "type": "m.login.password", "password": format!("{}-password", bob.name()),
        "identifier": {"type": "m.id.user", "user": bob.id},
    });
    let gone = bob.post("/account/deactivate", json!({"auth": auth})).await;
    gone.ok();
    assert_eq!(found(&alice, "bertram").await, Vec::<String>::new());
    assert_eq!(found(&alice, "bob").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = alone().await;
    let alice = server.user("alice").await;
    for (body, errcode) in [
        (json!({}), "M_MISSING_PARAM"),
        (json!({"search_term": 7}), "M_BAD_JSON"),
        (json!({"search_term": "a", "limit": -1}), "M_BAD_JSON"),
        (json!({"search_term": "a", "limit": "ten"}), "M_BAD_JSON"),
    ] {
        let answer = alice.post("/user_directory/search", body.clone()).await;
        answer.refused(400, errcode);
    }
    let many: String = (0..60).map(|number| format!("w{number} ")).collect();
    let body = json!({"search_term": many});
    let answer = alice.post("/user_directory/search", body).await;
    answer.refused(400, "M_INVALID_PARAM");
    let long = json!({"search_term": "x".repeat(60_000), "limit": 9_007_199_254_740_991_u64});
    let answer = alice.post("/user_directory/search", long).await.ok();
    assert_eq!(answer, json!({"results": [], "limited": false}));
}
