//! Searching what was said ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-side-search)).

use std::fs;

use harness::User;
use serde_json::{Value, json};

use crate::{ids, list, server};

/// The whole answer to a search.
async fn ask(user: &User, criteria: Value, next_batch: Option<&str>) -> Value {
    let body = json!({"search_categories": {"room_events": criteria}});
    let query = next_batch.map_or(String::new(), |token| format!("?next_batch={token}"));
    let answer = user.post(&format!("/search{query}"), body).await.ok();
    answer["search_categories"]["room_events"].clone()
}

async fn search(user: &User, term: &str) -> Value {
    ask(
        user,
        json!({"search_term": term, "order_by": "recent"}),
        None,
    )
    .await
}

fn results(found: &Value) -> Vec<Value> {
    let entries = list(found, "results").iter();
    entries.map(|entry| entry["result"].clone()).collect()
}

/// The ids of what is found, the latest first.
async fn found(user: &User, term: &str) -> Vec<String> {
    let results = results(&search(user, term).await);
    ids(&results).into_iter().map(str::to_owned).collect()
}

async fn private_room(user: &User) -> String {
    user.create_room(json!({"preset": "private_chat"})).await
}

async fn set(user: &User, room: &str, event_type: &str, content: Value) -> String {
    user.set_state(room, event_type, "", content).await
}

#[tokio::test]
async fn finds_messages_names_and_topics_by_their_words() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = private_room(&alice).await;
    let body = alice.say(&room, "Riders of the Rélay, ride!").await;
    let name = set(&alice, &room, "m.room.name", json!({"name": "The relay"})).await;
    let content = json!({
        "topic": "Horses",
        "m.topic": {"m.text": [{"body": "Horses of the relay"}, {"mimetype": "text/html", "body": "<b>bold</b>"}]},
    });
    let topic = set(&alice, &room, "m.room.topic", content).await;
    let other = json!({"body": "relay"});
    alice.send(&room, "org.example.note", other).await;

    assert_eq!(found(&alice, "relay").await, [&*topic, &*name, &*body]);
    assert_eq!(found(&alice, "the RELAY riders").await, [&*body]);
    assert_eq!(found(&alice, "rid").await, Vec::<String>::new());
    assert_eq!(found(&alice, "relay horses").await, [&*topic]);
    assert_eq!(found(&alice, "bold").await, Vec::<String>::new());
    assert_eq!(found(&alice, " -- ").await, Vec::<String>::new());
    for (keys, wanted) in [
        (json!(["content.body"]), vec![&*body]),
        (
            json!(["content.topic", "content.name"]),
            vec![&*topic, &*name],
        ),
        (json!(["content.other"]), vec![]),
        (json!([]), vec![]),
    ] {
        let criteria = json!({"search_term": "relay", "order_by": "recent", "keys": keys});
        let results = results(&ask(&alice, criteria, None).await);
        assert_eq!(ids(&results), wanted, "{keys}");
    }
    let answer = search(&alice, "rélay").await;
    assert_eq!(answer["count"], 3);
    assert_eq!(answer["highlights"], json!(["relay", "Rélay"]));
    assert!(answer.get("next_batch").is_none(), "{answer}");
    let result = &answer["results"][2];
    assert!(result["rank"].as_f64().unwrap() > 0.0, "{result}");
    assert_eq!(result["result"]["room_id"], room);
    assert_eq!(result["result"]["unsigned"]["membership"], "join");
}

#[tokio::test]
async fn finds_persian_and_arabic_however_it_is_spelled() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = private_room(&alice).await;
    let persian = alice.say(&room, "می‌روم به کتاب‌خانهٔ شمارهٔ ۱۲").await;
    let arabic = alice.say(&room, "قَرَأتُ كِتـــابًا في المكتبة رقم ١٢").await;
    for (term, wanted) in [
        ("ميروم", vec![&*persian]),
        ("می روم", vec![&*persian]),
        ("می‌روم", vec![&*persian]),
        ("کتابخانه", vec![&*persian]),
        ("کتابا", vec![&*arabic]),
        ("المکتبه", vec![&*arabic]),
        ("12", vec![&*arabic, &*persian]),
        ("۱۲", vec![&*arabic, &*persian]),
        ("قرات كتابا", vec![&*arabic]),
    ] {
        assert_eq!(found(&alice, term).await, wanted, "{term}");
    }
    let answer = search(&alice, "ميروم کتاب").await;
    assert_eq!(answer["highlights"], json!(["می‌روم", "کتاب‌خانهٔ"]));
}

#[tokio::test]
async fn tells_nobody_what_they_may_not_see() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let visibility = |it: &str| json!({"history_visibility": it});
    let event_type = "m.room.history_visibility";
    let shared = alice.say(&room, "secret one").await;
    set(&alice, &room, event_type, visibility("joined")).await;
    alice.say(&room, "secret two").await;
    bob.join(&room).await;
    let three = alice.say(&room, "secret three").await;
    bob.to_room(&room, "leave", json!({})).await.ok();
    alice.say(&room, "secret four").await;

    assert_eq!(found(&bob, "secret").await, [&*three, &*shared]);
    assert_eq!(search(&bob, "secret").await["count"], 2);
    assert_eq!(found(&alice, "secret").await.len(), 4);
    assert_eq!(found(&carol, "secret").await, Vec::<String>::new());
    let criteria = json!({"search_term": "secret", "filter": {"rooms": [room]}});
    let answer = ask(&carol, criteria, None).await;
    assert_eq!(
        (&answer["count"], &answer["results"]),
        (&json!(0), &json!([]))
    );
    // What is hidden is not counted either.
    assert_eq!(search(&bob, "four").await["count"], 0);
    assert_eq!(search(&bob, "two").await["count"], 0);
    bob.to_room(&room, "forget", json!({})).await.ok();
    assert_eq!(found(&bob, "secret").await, Vec::<String>::new());

    // Nor what people say whom they ignore, nor what is encrypted.
    let room = alice.room_with(&[&bob]).await;
    let own = bob.say(&room, "secret five").await;
    let hers = alice.say(&room, "secret six").await;
    let content =
        json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "secret", "body": "secret"});
    alice.send(&room, "m.room.encrypted", content).await;
    assert_eq!(found(&bob, "secret").await, [&*hers, &*own]);
    let path = format!("/user/{}/account_data/m.ignored_user_list", bob.id);
    let list = json!({"ignored_users": {alice.id.clone(): {}, bob.id.clone(): {}}});
    bob.put(&path, list).await.ok();
    assert_eq!(found(&bob, "secret").await, [&*own]);
    assert_eq!(search(&bob, "secret").await["count"], 1);
}

#[tokio::test]
async fn what_was_erased_is_found_by_those_only_who_were_there() {
    let server = server().await;
    let (alice, erin, carol) = (
        server.user("alice").await,
        server.user("erin").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&erin]).await;
    let said = erin.say(&room, "secret").await;
    let body = json!({"erase": true, "auth": {
        "type": "m.login.password", "password": format!("{}-password", erin.name()),
        "identifier": {"type": "m.id.user", "user": erin.name()},
    }});
    erin.post("/account/deactivate", body).await.ok();
    carol.join(&room).await;
    assert_eq!(found(&alice, "secret").await, [&*said]);
    let answer = search(&carol, "secret").await;
    let nothing = (&answer["results"], &answer["count"]);
    assert_eq!(nothing, (&json!([]), &json!(0)));
}

#[tokio::test]
async fn edits_and_redactions_change_what_is_found() {
    let server = server().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let room = alice.room_with(&[&bob]).await;
    let message = alice.say(&room, "a bay horse").await;
    let edit = |body: &str| {
        json!({
            "msgtype": "m.text", "body": format!("* {body}"),
            "m.new_content": {"msgtype": "m.text", "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": message},
        })
    };
    let first = alice
        .send(&room, "m.room.message", edit("a grey horse"))
        .await;
    assert_eq!(found(&bob, "bay").await, Vec::<String>::new());
    assert_eq!(found(&bob, "horse").await, [&*message]);
    let answer = search(&bob, "grey").await;
    let result = &answer["results"][0]["result"];
    assert_eq!(result["event_id"], message);
    let shown = &result["unsigned"]["m.relations"]["m.replace"];
    assert_eq!(shown["event_id"], first);
    // Nobody edits what others say.
    bob.send(&room, "m.room.message", edit("a black horse"))
        .await;
    assert_eq!(found(&bob, "black").await, Vec::<String>::new());
    assert_eq!(found(&bob, "grey").await, [&*message]);
    let second = alice
        .send(&room, "m.room.message", edit("a white horse"))
        .await;
    assert_eq!(found(&bob, "grey").await, Vec::<String>::new());
    assert_eq!(found(&bob, "white").await, [&*message]);
    // Without its edits it says again what it said.
    for (redacted, term) in [(&second, "grey"), (&first, "bay")] {
        let path = format!("/rooms/{room}/redact/{redacted}/{term}");
        alice.put(&path, json!({})).await.ok();
        assert_eq!(found(&bob, term).await, [&*message], "{term}");
    }
    let path = format!("/rooms/{room}/redact/{message}/all");
    alice.put(&path, json!({})).await.ok();
    assert_eq!(found(&bob, "horse").await, Vec::<String>::new());
}

#[tokio::test]
async fn filters_say_what_is_wanted() {
    let server = server().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let (one, two) = (alice.room_with(&[&bob]).await, private_room(&alice).await);
    let hers = alice.say(&one, "horse").await;
    let his = bob.say(&one, "horse").await;
    let content = json!({"msgtype": "m.image", "body": "horse", "url": "mxc://a.example/b"});
    let picture = alice.send(&one, "m.room.message", content).await;
    let elsewhere = alice.say(&two, "horse").await;
    let name = set(&alice, &two, "m.room.name", json!({"name": "horse"})).await;
    for (filter, wanted) in [
        (
            json!({}),
            vec![&*name, &*elsewhere, &*picture, &*his, &*hers],
        ),
        (json!({"rooms": [two]}), vec![&*name, &*elsewhere]),
        (json!({"rooms": []}), vec![]),
        (json!({"not_rooms": [two]}), vec![&*picture, &*his, &*hers]),
        (json!({"senders": [bob.id]}), vec![&*his]),
        (json!({"senders": []}), vec![]),
        (json!({"not_senders": [alice.id]}), vec![&*his]),
        (json!({"types": ["m.room.n*"]}), vec![&*name]),
        (json!({"types": []}), vec![]),
        (json!({"not_types": ["m.room.message"]}), vec![&*name]),
        (json!({"contains_url": true}), vec![&*picture]),
        (
            json!({"contains_url": false, "rooms": [one]}),
            vec![&*his, &*hers],
        ),
        (json!({"limit": 2}), vec![&*name, &*elsewhere]),
    ] {
        let criteria =
            json!({"search_term": "horse", "order_by": "recent", "filter": filter.clone()});
        let results = results(&ask(&alice, criteria, None).await);
        assert_eq!(ids(&results), wanted, "{filter}");
    }
}

/// All pages, to the last one.
async fn pages(user: &User, criteria: &Value, between: impl AsyncFn()) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut token: Option<String> = None;
    loop {
        let answer = ask(user, criteria.clone(), token.as_deref()).await;
        let results = results(&answer);
        pages.push(ids(&results).into_iter().map(str::to_owned).collect());
        assert!(pages.len() < 20, "pages without an end");
        match answer["next_batch"].as_str() {
            Some(next) => token = Some(next.to_owned()),
            None => return pages,
        }
        between().await;
    }
}

#[tokio::test]
async fn pages_follow_each_other_whatever_comes_in_meanwhile() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = private_room(&alice).await;
    let mut sent = Vec::new();
    for number in 0..7 {
        let long = "and a cart ".repeat(6 - number);
        sent.push(alice.say(&room, &format!("horse {number} {long}")).await);
    }
    let latest_first: Vec<_> = sent.iter().rev().cloned().collect();
    for order in ["recent", "rank"] {
        let criteria = json!({"search_term": "horse", "order_by": order, "filter": {"limit": 3}});
        let more = async || drop(alice.say(&room, "horse horse").await);
        let pages = pages(&alice, &criteria, more).await;
        let all: Vec<_> = pages.concat();
        assert_eq!(pages[0].len(), 3);
        if order == "recent" {
            assert_eq!(all, latest_first);
            // Those that came in meanwhile have the word twice, and nothing beside it.
            continue;
        }
        // The best first: the shorter ones.
        let place = |id: &String| all.iter().position(|it| it == id);
        assert!(
            sent.iter().all(|id| place(id).is_some()),
            "{order}: {pages:?}"
        );
        assert!(place(&sent[0]) > place(&sent[6]), "{order}: {pages:?}");
        let mut each = all.clone();
        each.sort();
        each.dedup();
        assert_eq!(each.len(), all.len(), "told twice");
    }
    let criteria = json!({"search_term": "horse", "order_by": "recent", "filter": {"limit": 3}});
    let token = ask(&alice, criteria, None).await["next_batch"].clone();
    let other = json!({"search_categories": {"room_events": {"search_term": "horse"}}});
    let path = format!("/search?next_batch={}", token.as_str().unwrap());
    alice
        .post(&path, other)
        .await
        .refused(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn groups_go_on_by_themselves() {
    let server = server().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let (one, two) = (alice.room_with(&[&bob]).await, private_room(&alice).await);
    let mut in_one = Vec::new();
    for number in 0..3 {
        in_one.push(bob.say(&one, &format!("horse {number}")).await);
    }
    let in_two = alice.say(&two, "horse").await;
    let last = alice.say(&one, "horse").await;
    let criteria = json!({
        "search_term": "horse", "order_by": "recent", "filter": {"limit": 2},
        "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}, {"key": "phase"}]},
    });
    let answer = ask(&alice, criteria.clone(), None).await;
    assert_eq!(ids(&results(&answer)), [&last, &in_two]);
    let groups = &answer["groups"];
    assert_eq!(groups["room_id"][&one]["results"], json!([last]));
    assert_eq!(groups["room_id"][&one]["order"], 0);
    assert_eq!(groups["room_id"][&two]["results"], json!([in_two]));
    assert_eq!(groups["room_id"][&two]["order"], 1);
    assert_eq!(
        groups["sender"][&alice.id]["results"],
        json!([last, in_two])
    );
    assert!(groups.get("phase").is_none());
    let next = groups["room_id"][&one]["next_batch"].as_str().unwrap();
    let page = ask(&alice, criteria.clone(), Some(next)).await;
    assert_eq!(ids(&results(&page)), [&in_one[2], &in_one[1]]);
    let next = page["next_batch"].as_str().unwrap();
    let page = ask(&alice, criteria.clone(), Some(next)).await;
    assert_eq!(ids(&results(&page)), [&in_one[0]]);
    let next = groups["sender"][&alice.id]["next_batch"].as_str().unwrap();
    let page = ask(&alice, criteria, Some(next)).await;
    assert_eq!(page["results"], json!([]));
    assert!(page.get("next_batch").is_none());
}

#[tokio::test]
async fn results_come_with_what_was_said_around_them() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = private_room(&alice).await;
    let path = format!("/profile/{}/displayname", alice.id);
    alice.put(&path, json!({"displayname": "Alice"})).await.ok();
    for number in 1..=7 {
        alice.say(&room, &format!("Message number {number}")).await;
    }
    let criteria = json!({
        "search_term": "Message 4", "include_state": true,
        "event_context": {"before_limit": 2, "after_limit": 1, "include_profile": true},
    });
    let answer = ask(&alice, criteria, None).await;
    assert_eq!(answer["count"], 1);
    let context = &answer["results"][0]["context"];
    let bodies = |key| crate::bodies(list(context, key)).join(", ");
    assert_eq!(
        bodies("events_before"),
        "Message number 3, Message number 2"
    );
    assert_eq!(bodies("events_after"), "Message number 5");
    assert!(context["profile_info"][&alice.id].is_object(), "{context}");
    let state = list(&answer["state"], &room);
    crate::only(state, "m.room.create", "");
    crate::only(state, "m.room.member", &alice.id);
    // The tokens are those of the timeline.
    let end = context["end"].as_str().unwrap();
    let page = alice
        .get(&format!("/rooms/{room}/messages?dir=f&from={end}"))
        .await
        .ok();
    assert_eq!(crate::bodies(list(&page, "chunk"))[0], "Message number 6");
    let start = context["start"].as_str().unwrap();
    let page = alice
        .get(&format!("/rooms/{room}/messages?dir=b&from={start}"))
        .await
        .ok();
    assert_eq!(crate::bodies(list(&page, "chunk"))[0], "Message number 1");
}

#[tokio::test]
async fn the_rooms_before_an_upgraded_room_are_searched_with_it() {
    let server = server().await;
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let old = alice.room_with(&[]).await;
    let before = alice.say(&old, "before the upgrade").await;
    let answer = alice
        .to_room(&old, "upgrade", json!({"new_version": "11"}))
        .await
        .ok();
    let new = answer["replacement_room"].as_str().unwrap();
    let after = alice.say(new, "after the upgrade").await;
    bob.join(new).await;
    let criteria =
        json!({"search_term": "upgrade", "order_by": "recent", "filter": {"rooms": [new]}});
    let both = results(&ask(&alice, criteria.clone(), None).await);
    assert_eq!(ids(&both), [&after, &before]);
    // Bob never was in the old one.
    let his = results(&ask(&bob, criteria, None).await);
    assert_eq!(ids(&his), [&after]);
}

#[tokio::test]
async fn the_index_survives_and_is_built_anew_where_it_did_not() {
    let mut server = harness::Server::start_with(crate::CHAPAR, harness::OPEN).await;
    let alice = server.user("alice").await;
    let room = private_room(&alice).await;
    let mut sent = vec![alice.say(&room, "horse one").await];
    assert_eq!(found(&alice, "horse").await, sent);
    for step in 0..4 {
        sent.insert(0, alice.say(&room, "another horse").await);
        let folder = server.folder().join("data/search");
        match step {
            0 => server.kill9(),
            _ => drop(server.terminate().await),
        }
        match step {
            1 => fs::remove_dir_all(&folder).unwrap(),
            2 => fs::write(folder.join("meta.json"), "{").unwrap(),
            3 => {
                for entry in fs::read_dir(&folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path
                        .extension()
                        .is_some_and(|it| it != "json" && it != "lock")
                    {
                        fs::write(path, "damaged").unwrap();
                    }
                }
            }
            _ => {}
        }
        server.restart().await;
        assert_eq!(found(&alice, "horse").await, sent, "step {step}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = server().await;
    let alice = server.user("alice").await;
    let many = (0..60)
        .map(|number| format!("w{number} "))
        .collect::<String>();
    for (criteria, errcode) in [
        (json!({}), "M_MISSING_PARAM"),
        (json!({"search_term": 7}), "M_BAD_JSON"),
        (
            json!({"search_term": "a", "keys": "content.body"}),
            "M_BAD_JSON",
        ),
        (
            json!({"search_term": "a", "filter": {"limit": -1}}),
            "M_BAD_JSON",
        ),
        (
            json!({"search_term": "a", "event_context": {"before_limit": -1}}),
            "M_BAD_JSON",
        ),
        (
            json!({"search_term": "a", "groupings": {"group_by": {}}}),
            "M_BAD_JSON",
        ),
        (
            json!({"search_term": "a", "order_by": "luck"}),
            "M_INVALID_PARAM",
        ),
        (json!({"search_term": many}), "M_INVALID_PARAM"),
    ] {
        let body = json!({"search_categories": {"room_events": criteria.clone()}});
        let answer = alice.post("/search", body).await;
        assert_eq!(answer.status, 400, "{criteria} {:?}", answer.body);
        assert_eq!(
            answer.body["errcode"], errcode,
            "{criteria} {:?}",
            answer.body
        );
    }
    let body = json!({"search_categories": {"room_events": {"search_term": "a"}}});
    for token in ["x", "%00", &"A".repeat(40), &"A".repeat(4_000), "!!!"] {
        let path = format!("/search?next_batch={token}");
        let answer = alice.post(&path, body.clone());
        answer.await.refused(400, "M_INVALID_PARAM");
    }
    let none = alice
        .post("/search", json!({"search_categories": {}}))
        .await
        .ok();
    assert_eq!(none, json!({"search_categories": {}}));
    let huge = json!({
        "search_term": "x".repeat(100_000),
        "filter": {"limit": 9_007_199_254_740_991_u64},
        "event_context": {"before_limit": 9_007_199_254_740_991_u64},
    });
    assert_eq!(ask(&alice, huge, None).await["count"], 0);
}
