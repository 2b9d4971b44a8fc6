//! Push rules and pushers, and what rules of one's own do to counts.

use harness::{Sync, User};
use serde_json::{Value, json};

use crate::server;

fn counts(sync: &Sync, room: &str) -> (u64, u64) {
    let unread = &sync.joined(room)["unread_notifications"];
    let count = |key: &str| unread[key].as_u64().unwrap();
    (count("notification_count"), count("highlight_count"))
}

async fn mention(from: &User, room: &str, whom: &User) {
    let content = json!({
        "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [whom.id] },
    });
    from.send(room, "m.room.message", content).await;
}

#[tokio::test]
async fn rules_are_set_changed_and_removed() {
    let server = server().await;
    let alice = server.user("alice").await;
    let since = alice.sync(None).await.next_batch();
    let rule = "/pushrules/global/content/word";
    alice.get(rule).await.refused(404, "M_NOT_FOUND");
    let body = json!({"pattern": "word", "actions": ["notify"]});
    assert_eq!(alice.put(rule, body.clone()).await.ok(), json!({}));
    let expected = json!({
        "rule_id": "word", "default": false, "enabled": true, "pattern": "word",
        "actions": ["notify"],
    });
    assert_eq!(alice.get(rule).await.ok(), expected);
    let before = "/pushrules/global/content/first?before=word";
    alice.put(before, body.clone()).await.ok();
    let all = alice.get("/pushrules/").await.ok();
    let ids: Vec<_> = all["global"]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["rule_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["first", "word"]);
    assert_eq!(alice.get("/pushrules/global/").await.ok(), all["global"]);

    let sync = alice.sync(Some(&since)).await;
    let told = &sync.body["account_data"]["events"];
    assert_eq!(told[0]["type"], "m.push_rules", "{told}");
    assert_eq!(told[0]["content"], all);

    let enabled = format!("{rule}/enabled");
    assert_eq!(alice.get(&enabled).await.ok(), json!({"enabled": true}));
    alice.put(&enabled, json!({"enabled": false})).await.ok();
    assert_eq!(alice.get(&enabled).await.ok(), json!({"enabled": false}));
    let actions = format!("{rule}/actions");
    alice.put(&actions, json!({"actions": []})).await.ok();
    assert_eq!(alice.get(&actions).await.ok(), json!({"actions": []}));
    let default = "/pushrules/global/underride/.m.rule.message/actions";
    alice.put(default, json!({"actions": []})).await.ok();
    assert_eq!(alice.get(default).await.ok(), json!({"actions": []}));

    assert_eq!(alice.delete(rule, json!({})).await.ok(), json!({}));
    alice.get(rule).await.refused(404, "M_NOT_FOUND");
    alice
        .delete(rule, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn polls_are_told_of_and_votes_are_not() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let rule = async |kind: &str, name: &str| {
        let path = format!("/pushrules/global/{kind}/.org.matrix.msc3930.rule.poll_{name}");
        bob.get(&path).await.ok()
    };
    let votes = rule("override", "response").await;
    let pattern = "org.matrix.msc3381.poll.response";
    let condition = json!({"kind": "event_match", "key": "type", "pattern": pattern});
    assert_eq!(
        votes,
        json!({
            "rule_id": ".org.matrix.msc3930.rule.poll_response", "default": true, "enabled": true,
            "conditions": [condition], "actions": [],
        })
    );
    let sound = json!({"set_tweak": "sound", "value": "default"});
    for name in ["start", "end"] {
        let loud = rule("underride", name).await;
        assert_eq!(loud["actions"], json!(["notify"]));
        let two = rule("underride", &format!("{name}_one_to_one")).await;
        assert_eq!(two["actions"], json!(["notify", sound]));
        assert_eq!(two["conditions"][0]["kind"], "room_member_count");
    }
    for (name, unread) in [("start", 1), ("response", 1), ("end", 2)] {
        let kind = format!("org.matrix.msc3381.poll.{name}");
        alice.send(&room, &kind, json!({})).await;
        assert_eq!(counts(&bob.sync(None).await, &room), (unread, 0), "{name}");
    }
    let off = "/pushrules/global/underride/.org.matrix.msc3930.rule.poll_end_one_to_one/enabled";
    bob.put(off, json!({"enabled": false})).await.ok();
    bob.put(&off.replace("_one_to_one", ""), json!({"enabled": false}))
        .await
        .ok();
    assert_eq!(counts(&bob.sync(None).await, &room), (1, 0));
}

#[tokio::test]
async fn wrong_rules_are_refused() {
    let server = server().await;
    let alice = server.user("alice").await;
    let body = json!({"pattern": "word", "actions": ["notify"]});
    let refused = [
        ("content/.m.rule.mine", body.clone(), 400),
        ("content/a%2Fb", body.clone(), 400),
        ("nonsense/word", body.clone(), 400),
        ("content/word?after=unknown", body, 400),
        ("content/word", json!({"actions": ["notify"]}), 400),
        ("content/word", json!({"pattern": "word"}), 400),
        (
            "content/word",
            json!({"pattern": "word", "actions": "notify"}),
            400,
        ),
        ("room/nonsense", json!({"actions": []}), 400),
    ];
    for (rule, body, status) in refused {
        let answer = alice.put(&format!("/pushrules/global/{rule}"), body).await;
        assert_eq!(answer.status, status, "{rule}");
    }
    let master = "/pushrules/global/override/.m.rule.master";
    alice
        .delete(master, json!({}))
        .await
        .refused(400, "M_INVALID_PARAM");
    let enabled = "/pushrules/global/content/unknown/enabled";
    let body = json!({"enabled": true});
    alice.put(enabled, body).await.refused(404, "M_NOT_FOUND");
    let enabled = "/pushrules/global/override/.m.rule.master/enabled";
    alice
        .put(enabled, json!({}))
        .await
        .refused(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn rules_of_ones_own_decide_what_is_unread() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    alice.say(&room, "1").await;
    mention(&alice, &room, &bob).await;
    alice.say(&room, "a Word").await;
    assert_eq!(counts(&bob.sync(None).await, &room), (3, 1));

    let quiet = format!("/pushrules/global/room/{}", harness::encode(&room));
    bob.put(&quiet, json!({"actions": []})).await.ok();
    assert_eq!(
        counts(&bob.sync(None).await, &room),
        (1, 1),
        "mentions only"
    );
    let word = "/pushrules/global/content/word";
    let actions = json!(["notify", {"set_tweak": "highlight"}]);
    bob.put(word, json!({"pattern": "word", "actions": actions}))
        .await
        .ok();
    assert_eq!(counts(&bob.sync(None).await, &room), (2, 2), "and a word");
    let mute = "/pushrules/global/override/mute";
    let here = json!({"kind": "event_match", "key": "room_id", "pattern": room});
    bob.put(mute, json!({"conditions": [here], "actions": []}))
        .await
        .ok();
    assert_eq!(counts(&bob.sync(None).await, &room), (0, 0), "muted");

    for rule in [quiet.as_str(), word, mute] {
        bob.delete(rule, json!({})).await.ok();
    }
    assert_eq!(counts(&bob.sync(None).await, &room), (3, 1));
    let ignored = format!("/user/{}/account_data/m.ignored_user_list", bob.id);
    let list = json!({"ignored_users": {&alice.id: {}}});
    bob.put(&ignored, list).await.ok();
    assert_eq!(counts(&bob.sync(None).await, &room), (0, 0), "ignored");
}

fn pusher(key: &str) -> Value {
    json!({
        "kind": "http", "app_id": "org.example.app", "pushkey": key, "lang": "en",
        "app_display_name": "App", "device_display_name": "Phone",
        "data": {"url": "https://push.example.org/_matrix/push/v1/notify"},
    })
}

#[tokio::test]
async fn pushers_are_set_listed_and_removed() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let empty = json!({"pushers": []});
    assert_eq!(alice.get("/pushers").await.ok(), empty);
    assert_eq!(
        alice.post("/pushers/set", pusher("1")).await.ok(),
        json!({})
    );
    alice.post("/pushers/set", pusher("2")).await.ok();
    let keys = |answer: Value| {
        let pushers = answer["pushers"].as_array().unwrap().clone();
        let mut keys: Vec<_> = pushers.iter().map(|it| it["pushkey"].to_string()).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(alice.get("/pushers").await.ok()), ["\"1\"", "\"2\""]);

    // The same app on the same phone, with another account.
    bob.post("/pushers/set", pusher("1")).await.ok();
    assert_eq!(keys(alice.get("/pushers").await.ok()), ["\"2\""]);
    let gone = json!({"kind": null, "app_id": "org.example.app", "pushkey": "2"});
    alice.post("/pushers/set", gone).await.ok();
    assert_eq!(alice.get("/pushers").await.ok(), empty);

    let mut wrong = pusher("3");
    wrong["data"]["url"] = json!("ftp://push.example.org");
    alice
        .post("/pushers/set", wrong)
        .await
        .refused(400, "M_INVALID_PARAM");
    let lacking = json!({"kind": "http", "app_id": "org.example.app", "pushkey": "2"});
    assert_eq!(alice.post("/pushers/set", lacking).await.status, 400);
}

/// What somebody is notified of: the bodies, and whether they were read; the next page's token.
async fn notified(user: &User, query: &str) -> (Vec<(String, bool)>, Option<String>) {
    let page = user.get(&format!("/notifications{query}")).await.ok();
    let list = page["notifications"].as_array().unwrap().iter();
    let list = list.map(|one| {
        assert!(one["ts"].as_u64().unwrap() > 0, "{one}");
        assert!(
            one["room_id"].is_string() && one["actions"][0] == "notify",
            "{one}"
        );
        let body = one["event"]["content"]["body"].as_str().unwrap().to_owned();
        (body, one["read"].as_bool().unwrap())
    });
    let next = page["next_token"].as_str().map(ToOwned::to_owned);
    (list.collect(), next)
}

#[tokio::test]
async fn notifications_are_listed_from_all_rooms_latest_first() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    assert_eq!(notified(&alice, "").await, (vec![], None));
    let (one, other) = (
        alice.room_with(&[&bob]).await,
        alice.room_with(&[&bob]).await,
    );
    for number in 0..4 {
        let room = if number % 2 == 0 { &one } else { &other };
        bob.say(room, &format!("message {number}")).await;
    }
    let read = alice.sync(None).await;
    let last = read.joined(&other)["timeline"]["events"]
        .as_array()
        .unwrap()
        .len()
        - 1;
    let last = &read.joined(&other)["timeline"]["events"][last]["event_id"];
    let receipt = format!("/rooms/{other}/receipt/m.read/{}", last.as_str().unwrap());
    alice.post(&receipt, json!({})).await.ok();
    mention(&bob, &one, &alice).await;
    let gone = bob.say(&other, "gone").await;
    bob.put(&format!("/rooms/{other}/redact/{gone}/1"), json!({}))
        .await
        .ok();

    let message = |number: u8, read| (format!("message {number}"), read);
    let all = vec![
        ("you".to_owned(), false),
        message(3, true),
        message(2, false),
        message(1, true),
        message(0, false),
    ];
    assert_eq!(notified(&alice, "").await, (all.clone(), None));
    assert_eq!(notified(&alice, "?only=highlight").await.0, all[..1]);
    assert!(
        notified(&bob, "").await.0.is_empty(),
        "one's own is no news"
    );
    let (mut paged, mut from) = (Vec::new(), String::new());
    loop {
        let (page, next) = notified(&alice, &format!("?limit=2{from}")).await;
        assert!(page.len() <= 2);
        paged.extend(page);
        match next {
            Some(next) => from = format!("&from={next}"),
            None => break,
        }
    }
    assert_eq!(paged, all);

    let mute = json!({ "actions": [] });
    let rule = format!("/pushrules/global/room/{one}");
    alice.put(&rule, mute).await.ok();
    assert_eq!(
        notified(&alice, "").await.0,
        [all[0].clone(), all[1].clone(), all[3].clone()]
    );
    let wrong = alice.get("/notifications?from=s12").await;
    wrong.refused(400, "M_INVALID_PARAM");
}
