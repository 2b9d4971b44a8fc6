//! Spaces ([spec]), and summaries of rooms.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#spaces

use harness::{Answer, Server, User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{list, server};

fn path(space: &str, query: &str) -> String {
    format!("/_matrix/client/v1/rooms/{space}/hierarchy?{query}")
}

async fn ask(user: &User, space: &str, query: &str) -> Answer {
    user.ask(Method::GET, &path(space, query), None).await
}

/// The rooms of one page, by name.
async fn tree(user: &User, space: &str, query: &str) -> Vec<String> {
    let page = ask(user, space, query).await.ok();
    assert_eq!(page.get("next_batch"), None, "{page}");
    names(&page)
}

fn names(page: &Value) -> Vec<String> {
    let rooms = list(page, "rooms").iter();
    rooms
        .map(|room| room["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn space(user: &User, name: &str) -> String {
    let content = json!({"type": "m.space"});
    let body = json!({"name": name, "preset": "public_chat", "creation_content": content});
    user.create_room(body).await
}

async fn room(user: &User, name: &str, more: Value) -> String {
    let mut body = json!({"name": name, "preset": "public_chat"});
    let more = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(more);
    user.create_room(body).await
}

async fn link(user: &User, space: &str, child: &str, content: Value) {
    let mut whole = json!({"via": ["localhost"]});
    let content = content.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(content);
    user.set_state(space, "m.space.child", child, whole).await;
}

fn restricted(rule: &str, allowed: &str) -> Value {
    let allow = json!([{"type": "m.room_membership", "room_id": allowed}, {"type": "else"}]);
    let content = json!({"join_rule": rule, "allow": allow});
    json!({"initial_state": [{"type": "m.room.join_rules", "content": content}]})
}

#[tokio::test]
async fn the_tree_depth_first_in_the_order_of_its_spaces() {
    let server = server().await;
    let alice = server.user("alice").await;
    let root = space(&alice, "root").await;
    let (sub, deep) = (space(&alice, "sub").await, space(&alice, "deep").await);
    let mut rooms = Vec::new();
    for name in ["first", "second", "ordered", "inner", "bottom"] {
        rooms.push(room(&alice, name, json!({})).await);
    }
    // By time, after those with an order that is one.
    link(&alice, &root, &rooms[0], json!({"suggested": true})).await;
    link(
        &alice,
        &root,
        &sub,
        json!({"order": "\u{1f}", "suggested": true}),
    )
    .await;
    link(&alice, &root, &rooms[1], json!({"order": 1})).await;
    link(&alice, &root, &rooms[2], json!({"order": "a"})).await;
    link(&alice, &sub, &deep, json!({})).await;
    link(&alice, &sub, &rooms[3], json!({"suggested": true})).await;
    link(&alice, &deep, &rooms[4], json!({})).await;
    // Around in a circle.
    link(&alice, &deep, &root, json!({})).await;
    // No children: without a server, of no room, and of what is no space.
    let state = json!({"via": []});
    alice
        .set_state(&root, "m.space.child", &rooms[4], state)
        .await;
    let state = json!({"via": "localhost"});
    alice
        .set_state(&root, "m.space.child", &rooms[3], state)
        .await;
    let state = json!({"via": ["localhost"]});
    alice
        .set_state(&root, "m.space.child", "nonsense", state)
        .await;
    link(&alice, &rooms[0], &rooms[4], json!({})).await;

    let all = [
        "root", "ordered", "first", "sub", "deep", "bottom", "inner", "second",
    ];
    assert_eq!(tree(&alice, &root, "").await, all);
    let page = ask(&alice, &root, "max_depth=1").await.ok();
    assert_eq!(names(&page), ["root", "ordered", "first", "sub", "second"]);
    let children = list(&list(&page, "rooms")[0], "children_state");
    let keys: Vec<_> = children.iter().map(|child| &child["state_key"]).collect();
    assert_eq!(keys, [&rooms[2], &rooms[0], &sub, &rooms[1]]);
    let mut fields: Vec<_> = children[0].as_object().unwrap().keys().collect();
    fields.sort();
    let stripped = ["content", "origin_server_ts", "sender", "state_key", "type"];
    assert_eq!(fields, stripped);
    assert_eq!(list(&list(&page, "rooms")[3], "children_state").len(), 2);
    assert!(list(&list(&page, "rooms")[2], "children_state").is_empty());

    assert_eq!(tree(&alice, &root, "max_depth=0").await, ["root"]);
    let page = ask(&alice, &root, "suggested_only=true").await.ok();
    assert_eq!(names(&page), ["root", "first", "sub", "inner"]);
    assert_eq!(list(&list(&page, "rooms")[0], "children_state").len(), 2);
    let older = format!("/_matrix/client/unstable/org.matrix.msc2946/rooms/{root}/hierarchy");
    let page = alice.ask(Method::GET, &older, None).await.ok();
    assert_eq!(names(&page), all);
}

#[tokio::test]
async fn pages_go_on_with_what_was_asked_first() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let root = space(&alice, "0").await;
    for name in ["1", "2", "3", "4"] {
        let room = room(&alice, name, json!({})).await;
        link(&alice, &root, &room, json!({"order": name})).await;
    }
    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = ask(&alice, &root, &format!("limit=2&max_depth=3{from}"))
            .await
            .ok();
        found.extend(names(&page));
        let Some(next) = page["next_batch"].as_str() else {
            break;
        };
        from = format!("&from={}", encode(next));
    }
    assert_eq!(found, ["0", "1", "2", "3", "4"]);
    let other = space(&alice, "other").await;
    let changed = [
        (&alice, &root, "max_depth=2"),
        (&alice, &root, "max_depth=3&suggested_only=true"),
        (&alice, &other, "max_depth=3"),
        (&bob, &root, "max_depth=3"),
    ];
    for (user, space, query) in changed {
        let answer = ask(user, space, &format!("{query}{from}")).await;
        answer.refused(400, "M_INVALID_PARAM");
    }
    // The same page again, as often as one likes.
    for _ in 0..2 {
        let page = ask(&alice, &root, &format!("max_depth=3{from}")).await.ok();
        assert_eq!(names(&page), ["4"]);
    }
    for query in [
        "from=unknown",
        "limit=0",
        "limit=-1",
        "max_depth=-1",
        "limit=x",
        "suggested_only=1",
    ] {
        ask(&alice, &root, query)
            .await
            .refused(400, "M_INVALID_PARAM");
    }
}

#[tokio::test]
async fn only_rooms_that_one_is_in_or_could_come_to() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let root = space(&alice, "root").await;
    let club = room(&alice, "club", json!({"preset": "private_chat"})).await;
    let private = json!({"preset": "private_chat"});
    let visible = json!({"history_visibility": "world_readable"});
    let readable = json!({"preset": "private_chat", "initial_state":
        [{"type": "m.room.history_visibility", "content": visible}]});
    let knock = json!({"initial_state":
        [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]});
    let mut restricted_once = restricted("restricted", &club);
    restricted_once["room_version"] = json!("7");
    let kinds = [
        ("public", json!({})),
        ("private", private),
        ("readable", readable),
        ("knock", knock),
        ("restricted", restricted("restricted", &club)),
        ("knock_restricted", restricted("knock_restricted", &club)),
        // A version that does not know the rule.
        ("unknown rule", restricted_once),
    ];
    let mut rooms = Vec::new();
    for (name, more) in kinds {
        let room = room(&alice, name, more).await;
        link(&alice, &root, &room, json!({})).await;
        rooms.push(room);
    }
    // Nobody here knows it.
    link(&alice, &root, "!unknown:elsewhere.org", json!({})).await;
    let open = ["root", "public", "readable", "knock", "knock_restricted"];
    assert_eq!(tree(&bob, &root, "").await, open);

    let body = json!({"user_id": bob.id});
    alice.to_room(&club, "invite", body.clone()).await.ok();
    alice.to_room(&rooms[1], "invite", body.clone()).await.ok();
    let more = [
        "root",
        "public",
        "private",
        "readable",
        "knock",
        "knock_restricted",
    ];
    assert_eq!(tree(&bob, &root, "").await, more);
    bob.join(&club).await;
    let most = [
        "root",
        "public",
        "private",
        "readable",
        "knock",
        "restricted",
        "knock_restricted",
    ];
    assert_eq!(tree(&bob, &root, "").await, most);

    for room in &rooms {
        alice.to_room(room, "ban", body.clone()).await.ok();
    }
    assert_eq!(tree(&bob, &root, "").await, ["root", "readable"]);
    alice.to_room(&root, "ban", body).await.ok();
    ask(&bob, &root, "").await.refused(403, "M_FORBIDDEN");
    ask(&bob, &club, "").await.ok();
    ask(&bob, "!unknown:localhost", "")
        .await
        .refused(403, "M_FORBIDDEN");
}

async fn without_token(server: &Server, room: &str) -> Answer {
    let path = format!("/_matrix/client/v1/room_summary/{}", encode(room));
    server.ask(Method::GET, &path, None).await
}

/// [Room summaries](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias).
#[tokio::test]
async fn a_room_tells_those_outside_what_it_is() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let club = space(&alice, "club").await;
    let mut body = restricted("restricted", &club);
    body["topic"] = json!("what it is about");
    body["room_alias_name"] = json!("den");
    body["room_version"] = json!("10");
    let encryption = json!({"algorithm": "m.megolm.v1.aes-sha2"});
    let states = body["initial_state"].as_array_mut().unwrap();
    states.push(json!({"type": "m.room.encryption", "content": encryption}));
    states.push(json!({"type": "m.room.avatar", "content": {"url": "mxc://localhost/a"}}));
    let room = room(&alice, "den", body).await;
    let alias = alice.state(&room, "m.room.canonical_alias", "").await.ok();
    let alias = alias["alias"].as_str().unwrap().to_owned();
    let paths = |name: &str| {
        let name = encode(name);
        [
            format!("/_matrix/client/v1/room_summary/{name}"),
            format!("/_matrix/client/unstable/im.nheko.summary/rooms/{name}/summary"),
            format!("/_matrix/client/unstable/im.nheko.summary/summary/{name}"),
        ]
    };
    for name in [&room, &alias] {
        for path in paths(name) {
            let summary = alice.ask(Method::GET, &path, None).await.ok();
            let wanted = json!({
                "room_id": room,
                "name": "den",
                "topic": "what it is about",
                "avatar_url": "mxc://localhost/a",
                "canonical_alias": alias,
                "num_joined_members": 1,
                "join_rule": "restricted",
                "allowed_room_ids": [club],
                "guest_can_join": false,
                "world_readable": false,
                "encryption": "m.megolm.v1.aes-sha2",
                "room_version": "10",
                "membership": "join",
            });
            assert_eq!(summary, wanted);
            // Whoever is not in the club is not told.
            let answer = bob.ask(Method::GET, &path, None).await;
            answer.refused(404, "M_NOT_FOUND");
        }
        without_token(&server, name)
            .await
            .refused(404, "M_NOT_FOUND");
    }
    bob.join(&club).await;
    let path = &paths(&room)[0];
    let summary = bob.ask(Method::GET, path, None).await.ok();
    assert_eq!(summary["membership"], "leave");
    let summary = without_token(&server, &club).await.ok();
    assert_eq!(summary["room_type"], "m.space");
    assert_eq!(summary["num_joined_members"], 2);
    assert_eq!(summary.get("membership"), None);
    assert_eq!(summary.get("allowed_room_ids"), None);
    for none in ["!none:localhost", "#none:localhost"] {
        without_token(&server, none)
            .await
            .refused(404, "M_NOT_FOUND");
    }
    without_token(&server, "#none:elsewhere.invalid")
        .await
        .refused(502, "M_UNKNOWN");
    without_token(&server, "nothing")
        .await
        .refused(400, "M_INVALID_PARAM");
    let mut wrong = bob.clone();
    wrong.token = "wrong".to_owned();
    let answer = wrong.ask(Method::GET, path, None).await;
    answer.refused(401, "M_UNKNOWN_TOKEN");
}
