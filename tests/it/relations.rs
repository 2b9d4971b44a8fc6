//! Events that relate to an event
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events)).

use futures_util::future;
use harness::{User, encode};
use serde_json::{Value, json};

use crate::{ids, list, server};

async fn relate(
    user: &User,
    room: &str,
    event_type: &str,
    rel_type: &str,
    parent: &str,
    more: Value,
) -> String {
    let mut content = json!({"m.relates_to": {"rel_type": rel_type, "event_id": parent}});
    for (key, value) in more.as_object().unwrap() {
        if key == "key" {
            content["m.relates_to"]["key"] = value.clone();
        } else {
            content[key] = value.clone();
        }
    }
    user.send(room, event_type, content).await
}

fn text(body: &str) -> Value {
    json!({"msgtype": "m.text", "body": body})
}

async fn thread(user: &User, room: &str, root: &str, body: &str) -> String {
    relate(user, room, "m.room.message", "m.thread", root, text(body)).await
}

async fn edit(user: &User, room: &str, parent: &str, body: &str) -> String {
    let more =
        json!({"msgtype": "m.text", "body": format!("* {body}"), "m.new_content": text(body)});
    relate(user, room, "m.room.message", "m.replace", parent, more).await
}

async fn react(user: &User, room: &str, parent: &str, key: &str) -> String {
    relate(
        user,
        room,
        "m.reaction",
        "m.annotation",
        parent,
        json!({"key": key}),
    )
    .await
}

async fn related(user: &User, room: &str, parent: &str, rest: &str) -> Value {
    let path = format!(
        "/_matrix/client/v1/rooms/{}/relations/{}{rest}",
        encode(room),
        encode(parent)
    );
    user.ask(reqwest::Method::GET, &path, None).await.ok()
}

#[tokio::test]
async fn relations_are_paged_in_both_directions_and_filtered() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let root = alice.say(&room, "root").await;
    let mut all = vec![thread(&bob, &room, &root, "one").await];
    all.push(react(&bob, &room, &root, "👍").await);
    all.push(edit(&alice, &room, &root, "root!").await);
    all.push(thread(&alice, &room, &root, "two").await);
    let newest_first: Vec<&str> = all.iter().rev().map(String::as_str).collect();
    let whole = related(&alice, &room, &root, "").await;
    assert_eq!(ids(list(&whole, "chunk")), newest_first);
    assert!(whole["next_batch"].is_null());
    for (direction, expected) in [
        ("b", newest_first.clone()),
        ("f", all.iter().map(String::as_str).collect()),
    ] {
        let mut seen = Vec::new();
        let mut from = String::new();
        loop {
            let rest = format!("?dir={direction}&limit=3{from}");
            let page = related(&bob, &room, &root, &rest).await;
            seen.extend(ids(list(&page, "chunk")).into_iter().map(str::to_owned));
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={}", encode(next)),
                None => break,
            }
        }
        assert_eq!(seen, expected, "{direction}");
    }
    let threads = related(&alice, &room, &root, "/m.thread").await;
    assert_eq!(ids(list(&threads, "chunk")), [&*all[3], &*all[0]]);
    let reactions = related(&alice, &room, &root, "/m.annotation/m.reaction").await;
    assert_eq!(ids(list(&reactions, "chunk")), [&*all[1]]);
    let none = related(&alice, &room, &root, "/m.annotation/m.room.message").await;
    assert!(list(&none, "chunk").is_empty());
}

#[tokio::test]
async fn relations_of_relations_are_followed_if_asked() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let root = alice.say(&room, "root").await;
    let reply = thread(&alice, &room, &root, "reply").await;
    let changed = edit(&alice, &room, &reply, "changed").await;
    let reaction = react(&alice, &room, &reply, "🎉").await;
    let direct = related(&alice, &room, &root, "").await;
    assert_eq!(ids(list(&direct, "chunk")), [&*reply]);
    assert!(direct["recursion_depth"].is_null());
    let deep = related(&alice, &room, &root, "?recurse=true").await;
    assert_eq!(ids(list(&deep, "chunk")), [&*reaction, &*changed, &*reply]);
    assert_eq!(deep["recursion_depth"], 3);
    let deep = related(&alice, &room, &root, "/m.annotation?recurse=true").await;
    assert_eq!(ids(list(&deep, "chunk")), [&*reaction]);
}

/// More replies than one page looks at.
#[tokio::test]
async fn a_long_thread_is_paged_to_its_end_with_what_relates_to_its_replies() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let root = alice.say(&room, "root").await;
    let first = thread(&alice, &room, &root, "first").await;
    let mut expected = vec![first.clone(), edit(&alice, &room, &first, "changed").await];
    for _ in 0..35 {
        let some = (0..64).map(|_| thread(&alice, &room, &root, "on"));
        expected.extend(future::join_all(some).await);
    }
    let last = expected.last().unwrap().clone();
    expected.push(react(&alice, &room, &last, "🏁").await);
    expected.sort_unstable();
    for direction in ["b", "f"] {
        let mut seen = Vec::new();
        let mut from = String::new();
        loop {
            let rest = format!("?recurse=true&dir={direction}&limit=100{from}");
            let page = related(&alice, &room, &root, &rest).await;
            seen.extend(ids(list(&page, "chunk")).into_iter().map(str::to_owned));
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={}", encode(next)),
                None => break,
            }
        }
        seen.sort_unstable();
        assert!(
            seen == expected,
            "{direction}: {} of {}",
            seen.len(),
            expected.len()
        );
    }
}

#[tokio::test]
async fn who_may_not_see_the_event_sees_no_relations() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"preset": "private_chat"})).await;
    let root = alice.say(&room, "root").await;
    thread(&alice, &room, &root, "reply").await;
    let path = |event: &str| {
        format!(
            "/_matrix/client/v1/rooms/{room}/relations/{}",
            encode(event)
        )
    };
    let asked = bob.ask(reqwest::Method::GET, &path(&root), None).await;
    asked.refused(403, "M_FORBIDDEN");
    let unknown = alice
        .ask(reqwest::Method::GET, &path("$nosuch"), None)
        .await;
    unknown.refused(404, "M_NOT_FOUND");
}

/// What is told with an event.
async fn bundle(user: &User, room: &str, event: &str) -> Value {
    user.event(room, event).await.ok()["unsigned"]["m.relations"].clone()
}

#[tokio::test]
async fn the_latest_edit_by_the_same_sender_is_told_with_an_event() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.say(&room, "first").await;
    assert_eq!(bundle(&bob, &room, &event).await, Value::Null);
    let first = edit(&alice, &room, &event, "second").await;
    let last = edit(&alice, &room, &event, "third").await;
    // Not by others, not of another type, not of an edit, not without new content.
    edit(&bob, &room, &event, "forged").await;
    relate(
        &alice,
        &room,
        "org.example",
        "m.replace",
        &event,
        json!({"m.new_content": {}}),
    )
    .await;
    relate(
        &alice,
        &room,
        "m.room.message",
        "m.replace",
        &event,
        text("nothing new"),
    )
    .await;
    edit(&alice, &room, &last, "edited edit").await;
    let told = bundle(&bob, &room, &event).await;
    assert_eq!(told["m.replace"]["event_id"], last);
    assert_eq!(
        told["m.replace"]["content"]["m.new_content"]["body"],
        "third"
    );
    assert_eq!(bundle(&bob, &room, &last).await, Value::Null);
    // The original stays as it was.
    let original = bob.event(&room, &event).await.ok();
    assert_eq!(original["content"]["body"], "first");
    // Where the specification says so, and not where it does not.
    let page = bob
        .get(&format!("/rooms/{room}/messages?dir=b&limit=50"))
        .await
        .ok();
    let of = |events: &[Value]| {
        let found = events.iter().find(|e| e["event_id"] == *event).unwrap();
        found["unsigned"]["m.relations"]["m.replace"]["event_id"].clone()
    };
    assert_eq!(of(list(&page, "chunk")), last);
    let context = bob
        .get(&format!("/rooms/{room}/context/{}", encode(&event)))
        .await
        .ok();
    assert_eq!(of(&[context["event"].clone()]), last);
    assert_eq!(of(bob.sync(None).await.timeline(&room)), last);
    // What is redacted edits nothing any more.
    let path = format!("/rooms/{room}/redact/{}/1", encode(&last));
    alice.put(&path, json!({})).await.ok();
    assert_eq!(
        bundle(&bob, &room, &event).await["m.replace"]["event_id"],
        first
    );
}

#[tokio::test]
async fn state_is_not_edited() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let name = alice
        .set_state(&room, "m.room.name", "", json!({"name": "a"}))
        .await;
    relate(
        &alice,
        &room,
        "m.room.name",
        "m.replace",
        &name,
        json!({"m.new_content": {"name": "b"}}),
    )
    .await;
    assert_eq!(bundle(&alice, &room, &name).await, Value::Null);
}

#[tokio::test]
async fn nothing_is_told_with_state() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let name = alice
        .set_state(&room, "m.room.name", "", json!({"name": "a"}))
        .await;
    relate(
        &alice,
        &room,
        "org.example",
        "m.reference",
        &name,
        json!({}),
    )
    .await;
    assert!(bundle(&alice, &room, &name).await["m.reference"].is_object());
    let first = alice.get(&format!("/rooms/{room}/initialSync")).await.ok();
    let whole = alice.get(&format!("/rooms/{room}/state")).await.body;
    for state in [list(&first, "state"), whole.as_array().unwrap()] {
        let name = state.iter().find(|event| event["event_id"] == *name);
        assert!(name.unwrap()["unsigned"]["m.relations"].is_null());
    }
}

#[tokio::test]
async fn a_thread_is_told_with_its_root() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob, &carol]).await;
    let root = alice.say(&room, "root").await;
    thread(&bob, &room, &root, "one").await;
    let last = thread(&bob, &room, &root, "two").await;
    react(&bob, &room, &root, "👍").await;
    for (user, participated) in [(&alice, true), (&bob, true), (&carol, false)] {
        let told = bundle(user, &room, &root).await["m.thread"].clone();
        assert_eq!(told["latest_event"]["event_id"], last);
        assert_eq!(told["count"], 2);
        assert_eq!(
            told["current_user_participated"], participated,
            "{}",
            user.id
        );
    }
    // Nothing of people who are ignored.
    let ignored = json!({"ignored_users": {&bob.id: {}}});
    let path = format!("/user/{}/account_data/m.ignored_user_list", carol.id);
    carol.put(&path, ignored).await.ok();
    assert_eq!(bundle(&carol, &room, &root).await, Value::Null);
}

#[tokio::test]
async fn references_are_told_by_their_ids() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let root = alice.say(&room, "root").await;
    let mut all = Vec::new();
    for _ in 0..2 {
        all.push(
            relate(
                &alice,
                &room,
                "org.example",
                "m.reference",
                &root,
                json!({}),
            )
            .await,
        );
    }
    let told = bundle(&alice, &room, &root).await;
    let chunk = json!([{"event_id": all[0]}, {"event_id": all[1]}]);
    assert_eq!(told, json!({"m.reference": {"chunk": chunk}}));
}

#[tokio::test]
async fn who_left_is_told_nothing_of_what_came_after() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.say(&room, "before").await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    edit(&alice, &room, &event, "after").await;
    thread(&alice, &room, &event, "after").await;
    assert_eq!(bundle(&bob, &room, &event).await, Value::Null);
    let told = related(&bob, &room, &event, "").await;
    assert!(list(&told, "chunk").is_empty());
}

#[tokio::test]
async fn the_same_reaction_again_is_refused() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let event = alice.say(&room, "hello").await;
    let content =
        json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": event, "key": "👍"}});
    let path = |transaction| format!("/rooms/{room}/send/m.reaction/{transaction}");
    let sent = alice.put(&path("a"), content.clone()).await.ok();
    // The same request again is the same event; another request is another reaction.
    assert_eq!(alice.put(&path("a"), content.clone()).await.ok(), sent);
    alice
        .put(&path("b"), content.clone())
        .await
        .refused(400, "M_DUPLICATE_ANNOTATION");
    // However the client spells its JSON.
    let spaced = serde_json::to_string_pretty(&content).unwrap();
    let url = format!("{}{}{}", server.base(), User::PREFIX, path("spaced"));
    let request = reqwest::Client::new().put(url).bearer_auth(&alice.token);
    assert_eq!(request.body(spaced).send().await.unwrap().status(), 400);
    react(&alice, &room, &event, "🎉").await;
    bob.put(&path("b"), content.clone()).await.ok();
    // After it was taken back it may be made again.
    let redact = format!(
        "/rooms/{room}/redact/{}/1",
        encode(sent["event_id"].as_str().unwrap())
    );
    alice.put(&redact, json!({})).await.ok();
    alice.put(&path("c"), content).await.ok();
}

#[tokio::test]
async fn a_thread_begins_at_an_event_that_relates_to_none() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let root = alice.say(&room, "root").await;
    let reply = thread(&alice, &room, &root, "reply").await;
    let content = json!({"msgtype": "m.text", "body": "deeper", "m.relates_to": {"rel_type": "m.thread", "event_id": reply}});
    let answer = alice
        .put(&format!("/rooms/{room}/send/m.room.message/x"), content)
        .await;
    assert_eq!(answer.status, 400, "{answer}");
}

#[tokio::test]
async fn threads_are_listed_by_their_latest_reply() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let room = alice.room_with(&[&bob, &carol]).await;
    let mut roots = Vec::new();
    for n in 0..3 {
        let root = alice.say(&room, &format!("root {n}")).await;
        thread(&bob, &room, &root, "reply").await;
        roots.push(root);
    }
    thread(&carol, &room, &roots[0], "late").await;
    let threads = async |user: &User, rest: &str| {
        let path = format!("/_matrix/client/v1/rooms/{room}/threads{rest}");
        user.ask(reqwest::Method::GET, &path, None).await.ok()
    };
    let order = [&*roots[0], &*roots[2], &*roots[1]];
    let all = threads(&alice, "").await;
    assert_eq!(ids(list(&all, "chunk")), order);
    assert_eq!(
        all["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"],
        2
    );
    let first = threads(&alice, "?limit=2").await;
    assert_eq!(ids(list(&first, "chunk")), order[..2]);
    let from = encode(first["next_batch"].as_str().unwrap());
    let second = threads(&alice, &format!("?limit=2&from={from}")).await;
    assert_eq!(ids(list(&second, "chunk")), order[2..]);
    assert!(second["next_batch"].is_null());
    let own = threads(&carol, "?include=participated").await;
    assert_eq!(ids(list(&own, "chunk")), [&*roots[0]]);
    // Who began a thread is part of it.
    let own = threads(&alice, "?include=participated").await;
    assert_eq!(ids(list(&own, "chunk")).len(), 3);
}

/// [Filtering](https://spec.matrix.org/v1.19/client-server-api/#filtering) by relations, and MSC3874.
#[tokio::test]
async fn events_are_chosen_by_how_they_relate_and_are_related_to() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = alice.sync(None).await.next_batch();
    let root = alice.say(&room, "root").await;
    let mut relating = Vec::new();
    for (user, rel_type) in [(&alice, "m.thread"), (&bob, "m.reference")] {
        let relates = json!({"event_id": root, "rel_type": rel_type});
        let content = json!({"msgtype": "m.text", "body": rel_type, "m.relates_to": relates});
        relating.push(user.send(&room, "m.room.message", content).await);
    }
    let annotation = json!({"event_id": relating[0], "rel_type": "m.annotation", "key": "x"});
    let content = json!({"m.relates_to": annotation});
    bob.send(&room, "m.reaction", content).await;
    let [thread, reference] = [relating[0].as_str(), relating[1].as_str()];
    let root = root.as_str();
    let (alice_id, bob_id) = (&alice.id, &bob.id);
    let cases = [
        (
            json!({"org.matrix.msc3874.rel_types": ["m.thread"]}),
            vec![thread],
        ),
        (json!({"rel_types": ["m.thread"]}), vec![thread]),
        (
            json!({"rel_types": ["m.thread", "m.reference"]}),
            vec![thread, reference],
        ),
        (json!({"rel_types": []}), vec![]),
        (
            json!({"org.matrix.msc3874.not_rel_types": ["m.thread"]}),
            vec![root, reference],
        ),
        (
            json!({"not_rel_types": ["m.reference"]}),
            vec![root, thread],
        ),
        (
            json!({"not_rel_types": ["m.thread", "m.reference"]}),
            vec![root],
        ),
        (json!({"not_rel_types": []}), vec![root, thread, reference]),
        (json!({"related_by_rel_types": ["m.thread"]}), vec![root]),
        (
            json!({"related_by_rel_types": ["m.annotation"]}),
            vec![thread],
        ),
        (
            json!({"related_by_rel_types": ["m.reference", "m.annotation"]}),
            vec![root, thread],
        ),
        (json!({"related_by_rel_types": ["m.replace"]}), vec![]),
        (json!({"related_by_senders": [bob_id]}), vec![root, thread]),
        (json!({"related_by_senders": [alice_id]}), vec![root]),
        (
            json!({"related_by_senders": [alice_id], "related_by_rel_types": ["m.thread"]}),
            vec![root],
        ),
        (
            json!({"related_by_senders": [bob_id], "related_by_rel_types": ["m.thread"]}),
            vec![],
        ),
    ];
    let path = format!("/rooms/{room}/messages?dir=f&from={}", encode(&since));
    for (mut filter, wanted) in cases {
        filter["types"] = json!(["m.room.message"]);
        let query = format!("{path}&filter={}", encode(&filter.to_string()));
        let page = alice.get(&query).await.ok();
        assert_eq!(ids(list(&page, "chunk")), wanted, "{filter}");

        let query = format!("/rooms/{room}/context/{root}?limit=50");
        let query = format!("{query}&filter={}", encode(&filter.to_string()));
        let around = alice.get(&query).await.ok();
        let behind: Vec<_> = wanted.iter().filter(|id| **id != root).copied().collect();
        let after = around["events_after"].as_array();
        let after = after.map_or(&[][..], Vec::as_slice);
        assert_eq!(ids(after), behind, "{filter}");

        let whole = json!({"room": {"timeline": filter}});
        let stored = alice
            .post(&format!("/user/{alice_id}/filter"), whole.clone())
            .await
            .ok();
        for filter in [
            encode(&whole.to_string()),
            stored["filter_id"].as_str().unwrap().to_owned(),
        ] {
            let query = format!("/sync?since={}&filter={filter}", encode(&since));
            let sync = alice.get(&query).await.ok();
            let timeline = &sync["rooms"]["join"][&room]["timeline"];
            let told = timeline["events"].as_array().map_or(&[][..], Vec::as_slice);
            assert_eq!(ids(told), wanted, "{whole}");
        }
    }
    for wrong in [
        json!({"rel_types": "m.thread"}),
        json!({"related_by_senders": ["nobody"]}),
        json!([]),
    ] {
        let query = format!("{path}&filter={}", encode(&wrong.to_string()));
        alice.get(&query).await.refused(400, "M_INVALID_PARAM");
    }
    let versions = "/_matrix/client/versions";
    let versions = server.ask(reqwest::Method::GET, versions, None).await.ok();
    assert_eq!(versions["unstable_features"]["org.matrix.msc3874"], true);
}
