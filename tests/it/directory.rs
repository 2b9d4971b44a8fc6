//! The directory of published rooms (client-server API, *Published room directory*).

use harness::{OPEN, Server, User, encode};
use serde_json::{Value, json};

use crate::{CHAPAR, list, server};

/// A server that nobody else publishes on.
async fn alone() -> Server {
    Server::start_with(CHAPAR, OPEN).await
}

fn names(page: &Value) -> Vec<&str> {
    let rooms = list(page, "chunk").iter();
    rooms
        .map(|room| room["name"].as_str().unwrap_or("-"))
        .collect()
}

async fn publish(user: &User, room: &str, visibility: &str) {
    let path = format!("/directory/list/room/{room}");
    user.put(&path, json!({"visibility": visibility}))
        .await
        .ok();
}

async fn search(user: &User, filter: Value) -> Value {
    let body = json!({"filter": filter});
    user.post("/publicRooms", body).await.ok()
}

#[tokio::test]
async fn shows_what_is_published_and_how_it_changes() {
    let server = alone().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice
        .create_room(json!({
            "visibility": "public", "name": "The relay", "topic": "Horses",
            "room_alias_name": "relay", "creation_content": {"type": "m.space"},
        }))
        .await;
    let hidden = alice
        .create_room(json!({"preset": "public_chat", "name": "Hidden"}))
        .await;
    let page = bob.get("/publicRooms").await.ok();
    assert_eq!(names(&page), ["The relay"]);
    assert_eq!(page["total_room_count_estimate"], 1);
    assert!(
        page.get("next_batch").is_none() && page.get("prev_batch").is_none(),
        "{page}"
    );
    let alias = format!("#relay:{}", alice.id.split_once(':').unwrap().1);
    assert_eq!(
        page["chunk"][0],
        json!({
            "room_id": room, "name": "The relay", "topic": "Horses", "canonical_alias": alias,
            "num_joined_members": 1, "world_readable": false, "guest_can_join": false,
            "room_type": "m.space", "join_rule": "public",
        })
    );

    bob.join(&room).await;
    alice
        .set_state(&room, "m.room.topic", "", json!({"topic": "Riders"}))
        .await;
    alice
        .set_state(&room, "m.room.avatar", "", json!({"url": "mxc://x/y"}))
        .await;
    alice
        .set_state(
            &room,
            "m.room.guest_access",
            "",
            json!({"guest_access": "can_join"}),
        )
        .await;
    alice
        .set_state(
            &room,
            "m.room.history_visibility",
            "",
            json!({"history_visibility": "world_readable"}),
        )
        .await;
    alice
        .set_state(
            &room,
            "m.room.join_rules",
            "",
            json!({"join_rule": "knock"}),
        )
        .await;
    let page = bob.get("/publicRooms").await.ok();
    let shown = &page["chunk"][0];
    assert_eq!(shown["num_joined_members"], 2);
    assert_eq!(shown["topic"], "Riders");
    assert_eq!(shown["avatar_url"], "mxc://x/y");
    assert_eq!(shown["join_rule"], "knock");
    assert_eq!(
        (&shown["world_readable"], &shown["guest_can_join"]),
        (&json!(true), &json!(true))
    );

    // A room that others cannot join, look at or knock on is not shown, and comes back when they can.
    alice
        .set_state(
            &room,
            "m.room.join_rules",
            "",
            json!({"join_rule": "invite"}),
        )
        .await;
    assert_eq!(
        names(&bob.get("/publicRooms").await.ok()),
        ["The relay"],
        "readable to all"
    );
    alice
        .set_state(
            &room,
            "m.room.history_visibility",
            "",
            json!({"history_visibility": "shared"}),
        )
        .await;
    let page = bob.get("/publicRooms").await.ok();
    assert_eq!(
        (names(&page).len(), &page["total_room_count_estimate"]),
        (0, &json!(0))
    );
    alice
        .set_state(
            &room,
            "m.room.join_rules",
            "",
            json!({"join_rule": "public"}),
        )
        .await;
    publish(&alice, &hidden, "public").await;
    let page = bob.get("/publicRooms").await.ok();
    assert_eq!(names(&page), ["The relay", "Hidden"], "the greatest first");
    publish(&alice, &room, "private").await;
    publish(&alice, &room, "private").await;
    let page = bob.get("/publicRooms").await.ok();
    assert_eq!(names(&page), ["Hidden"]);
    assert_eq!(page["total_room_count_estimate"], 1);
    alice.to_room(&hidden, "leave", json!({})).await.ok();
    assert_eq!(
        names(&bob.get("/publicRooms").await.ok()).len(),
        0,
        "nobody is there"
    );
}

#[tokio::test]
async fn pages_lead_both_ways() {
    let mut server = alone().await;
    let alice = server.user("alice").await;
    for number in 0..7 {
        let body = json!({"visibility": "public", "name": format!("room {number}")});
        alice.create_room(body).await;
    }
    let all = alice.get("/publicRooms").await.ok();
    let all = names(&all);
    assert_eq!(all.len(), 7);
    let page = |token: Option<&Value>| {
        let since = token.map(|token| format!("&since={}", encode(token.as_str().unwrap())));
        let path = format!("/publicRooms?limit=3{}", since.unwrap_or_default());
        let alice = alice.clone();
        async move { alice.get(&path).await.ok() }
    };
    let first = page(None).await;
    assert_eq!(names(&first), all[..3]);
    assert!(first.get("prev_batch").is_none());
    let second = page(first.get("next_batch")).await;
    assert_eq!(names(&second), all[3..6]);
    let third = page(second.get("next_batch")).await;
    assert_eq!(names(&third), all[6..]);
    assert!(third.get("next_batch").is_none(), "{third}");
    let back = page(third.get("prev_batch")).await;
    assert_eq!(names(&back), all[3..6]);
    assert_eq!(names(&page(back.get("next_batch")).await), all[6..]);
    let back = page(back.get("prev_batch")).await;
    assert_eq!(names(&back), all[..3]);
    assert!(back.get("prev_batch").is_none(), "{back}");

    // A page of what is searched for has as many as are asked for, and says whether there are more.
    let body = |since: Option<&Value>| json!({"limit": 2, "since": since, "filter": {"generic_search_term": "ROOM"}});
    let first = alice
        .post(
            "/publicRooms",
            json!({"limit": 2, "filter": {"generic_search_term": "ROOM"}}),
        )
        .await
        .ok();
    assert_eq!(names(&first), all[..2]);
    let second = alice
        .post("/publicRooms", body(first.get("next_batch")))
        .await
        .ok();
    assert_eq!(names(&second), all[2..4]);

    server.terminate().await;
    server.restart().await;
    assert_eq!(names(&page(first.get("next_batch")).await), all[2..5]);
}

#[tokio::test]
async fn finds_words_in_name_topic_and_alias_however_they_are_written() {
    let server = alone().await;
    let alice = server.user("alice").await;
    for (name, topic, alias) in [
        ("Café Straße", "", "one"),
        ("Two", "کتاب‌های خوب", "two"),
        ("Three", "WOMBLES of Wimbledon", "three"),
        ("Four", "", "wombat"),
    ] {
        let body = json!({
            "visibility": "public", "name": name, "topic": topic, "room_alias_name": alias,
        });
        alice.create_room(body).await;
    }
    for (term, found) in [
        ("cafe STRASSE", vec!["Café Straße"]),
        ("كتابهاي", vec!["Two"]),
        ("wombles", vec!["Three"]),
        ("WOMBAT", vec!["Four"]),
        ("nothing of this", vec![]),
    ] {
        let page = search(&alice, json!({"generic_search_term": term})).await;
        assert_eq!(names(&page), found, "{term}");
    }
    let womb = search(&alice, json!({"generic_search_term": "womb"})).await;
    assert_eq!(names(&womb).len(), 2);
    let all = search(&alice, json!({"generic_search_term": "  "})).await;
    assert_eq!(names(&all).len(), 4, "no words are no condition");
}

#[tokio::test]
async fn filters_by_type() {
    let server = alone().await;
    let alice = server.user("alice").await;
    for (name, kind) in [
        ("Plain", None),
        ("Space", Some("m.space")),
        ("Other", Some("org.example.t")),
    ] {
        let content = kind.map_or(json!({}), |kind| json!({"type": kind}));
        let body = json!({"visibility": "public", "name": name, "creation_content": content});
        alice.create_room(body).await;
    }
    for (types, found) in [
        (json!([null]), vec!["Plain"]),
        (json!(["m.space"]), vec!["Space"]),
        (json!(["org.example.t"]), vec!["Other"]),
        (json!(["org.example.none"]), vec![]),
    ] {
        let page = search(&alice, json!({"room_types": types})).await;
        assert_eq!(names(&page), found, "{types}");
    }
    let two = search(&alice, json!({"room_types": [null, "m.space"]})).await;
    assert_eq!(names(&two).len(), 2);
    let body = json!({"third_party_instance_id": "irc"});
    let none = alice.post("/publicRooms", body).await.ok();
    assert_eq!(names(&none).len(), 0, "no bridge has rooms here");
}

#[tokio::test]
async fn who_may_ask_and_for_what() {
    let server = server().await;
    let alice = server.user("alice").await;
    server
        .get("/publicRooms")
        .await
        .refused(401, "M_MISSING_TOKEN");
    alice
        .get("/publicRooms?server=elsewhere.invalid")
        .await
        .refused(502, "M_UNKNOWN");
    let own = alice.id.split_once(':').unwrap().1;
    alice.get(&format!("/publicRooms?server={own}")).await.ok();
    for since in [
        "x",
        "n1",
        &"n".repeat(33),
        "p00000000000000000000000000000é",
    ] {
        alice
            .get(&format!("/publicRooms?since={}", encode(since)))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    let open = format!("{OPEN}\n[directory]\nopen = true\n");
    let open = Server::start_with(CHAPAR, &open).await;
    let page = open.get("/publicRooms").await.ok();
    assert_eq!(names(&page).len(), 0);
    open.post("/publicRooms", json!({}))
        .await
        .refused(401, "M_MISSING_TOKEN");
}
