//! Push rules and pushers.

use ruma::{
    api::client::push::{PusherIds, set_pusher::v3::PusherAction},
    push::{Action, NewPatternedPushRule, NewPushRule, NewSimplePushRule, RuleKind, Tweak},
};
use serde_json::json;
use storage::Topic;

use super::*;

on_every_engine! {
    rules_are_added_moved_changed_and_removed,
    the_rules_of_the_specification_cannot_be_replaced,
    rules_that_two_devices_set_at_once_are_both_kept,
    pushers_end_with_their_device_and_move_with_their_phone,
    what_cannot_be_a_pusher_is_refused,
}

fn words(id: &str, pattern: &str) -> NewPushRule {
    NewPushRule::Content(NewPatternedPushRule::new(
        id.to_owned(),
        pattern.to_owned(),
        vec![Action::Notify],
    ))
}

async fn content_rules(world: &World, user: ShortUserId) -> Vec<String> {
    let rules = world.users.push_rules(user).await.unwrap();
    rules
        .content
        .iter()
        .map(|rule| rule.rule_id.clone())
        .filter(|id| !id.starts_with('.'))
        .collect()
}

async fn rules_are_added_moved_changed_and_removed() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let waiting = world.storage.subscribe(&[Topic::User(user)]);
    let set =
        async |rule, after, before| world.users.set_push_rule(user, rule, after, before).await;
    set(words("a", "apple"), None, None).await.unwrap();
    set(words("b", "pear"), Some("a"), None).await.unwrap();
    set(words("c", "plum"), None, Some("b")).await.unwrap();
    assert_eq!(content_rules(&world, user).await, ["a", "c", "b"]);
    assert_eq!(waiting.take().len(), 1);
    let kind = RuleKind::Content;
    let users = &world.users;
    users
        .set_push_rule_enabled(user, kind.clone(), "c", false)
        .await
        .unwrap();
    let loud = [
        Action::Notify,
        Action::SetTweak(Tweak::Sound("default".into())),
    ];
    users
        .set_push_rule_actions(user, kind.clone(), "c", &loud)
        .await
        .unwrap();
    let rules = users.push_rules(user).await.unwrap();
    let rule = rules.get(kind.clone(), "c").unwrap();
    assert!(!rule.enabled());
    assert_eq!(rule.actions().len(), 2);
    users
        .delete_push_rule(user, kind.clone(), "a")
        .await
        .unwrap();
    assert_eq!(content_rules(&world, user).await, ["c", "b"]);
    let data = users
        .find_account_data(user, None, "m.push_rules")
        .await
        .unwrap()
        .unwrap();
    assert!(data.content.get().contains("plum"));
    // What is as it was is not written, and wakes nobody.
    waiting.take();
    users
        .set_push_rule_enabled(user, kind.clone(), "c", false)
        .await
        .unwrap();
    assert!(waiting.take().is_empty());
    let missing = (404, "M_NOT_FOUND".to_owned());
    assert_eq!(
        code(users.delete_push_rule(user, kind.clone(), "a").await),
        missing
    );
    let enabled = users
        .set_push_rule_enabled(user, kind.clone(), "a", true)
        .await;
    assert_eq!(code(enabled), missing);
    let actions = users.set_push_rule_actions(user, kind, "a", &[]).await;
    assert_eq!(code(actions), missing);
    assert_eq!(
        code(set(words("d", "x"), Some("nothing"), None).await),
        (400, "M_UNKNOWN".to_owned())
    );
}

async fn the_rules_of_the_specification_cannot_be_replaced() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let users = &world.users;
    let invalid = (400, "M_INVALID_PARAM".to_owned());
    for id in [".m.rule.master", "a/b", "a\\b"] {
        let refused = users.set_push_rule(user, words(id, "x"), None, None).await;
        assert_eq!(code(refused), invalid, "{id}");
    }
    let room = ruma::owned_room_id!("!a:b");
    let rule = NewPushRule::Room(NewSimplePushRule::new(room, vec![]));
    let beside = users
        .set_push_rule(user, rule, Some(".m.rule.master"), None)
        .await;
    assert_eq!(code(beside), invalid);
    let master = ".m.rule.master";
    let removed = users
        .delete_push_rule(user, RuleKind::Override, master)
        .await;
    assert_eq!(code(removed), invalid);
    // But turned on they can be.
    users
        .set_push_rule_enabled(user, RuleKind::Override, master, true)
        .await
        .unwrap();
    let rules = users.push_rules(user).await.unwrap();
    assert!(rules.get(RuleKind::Override, master).unwrap().enabled());
}

async fn rules_that_two_devices_set_at_once_are_both_kept() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    // Another process with locks of its own.
    let other = world_on(world.storage.clone(), settings(), 2).await;
    let (one, two) = tokio::join!(
        world
            .users
            .set_push_rule(user, words("a", "apple"), None, None),
        other
            .users
            .set_push_rule(user, words("b", "pear"), None, None),
    );
    one.unwrap();
    two.unwrap();
    let mut ids = content_rules(&world, user).await;
    ids.sort();
    assert_eq!(ids, ["a", "b"]);
}

fn pusher(key: &str, append: bool) -> PusherAction {
    pusher_of(&json!({
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": key,
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "fa",
        "data": { "url": "https://push.example/_matrix/push/v1/notify", "format": "event_id_only" },
        "append": append,
    }))
}

fn pusher_of(json: &serde_json::Value) -> PusherAction {
    serde_json::from_value(json.clone()).unwrap()
}

async fn pushers_end_with_their_device_and_move_with_their_phone() {
    let world = world(settings()).await;
    let (anna, _) = world.account("anna").await;
    let (bert, _) = world.account("bert").await;
    let phone = world.requester(&world.login("anna", None).await).await;
    let tablet = world.requester(&world.login("anna", None).await).await;
    let his = world.requester(&world.login("bert", None).await).await;
    let users = &world.users;
    let keys = async |user| {
        let pushers = users.pushers(user).await.unwrap();
        pushers
            .into_iter()
            .map(|pusher| pusher.ids.pushkey)
            .collect::<Vec<_>>()
    };
    users
        .set_pusher(&phone, &pusher("phone", false))
        .await
        .unwrap();
    world.clock.advance(std::time::Duration::from_secs(1));
    users
        .set_pusher(&tablet, &pusher("tablet", false))
        .await
        .unwrap();
    world.clock.advance(std::time::Duration::from_secs(1));
    users
        .set_pusher(&phone, &pusher("phone", false))
        .await
        .unwrap();
    assert_eq!(keys(anna).await, ["tablet", "phone"]);
    let first = serde_json::to_value(&users.pushers(anna).await.unwrap()[0]).unwrap();
    assert_eq!(
        first["data"]["url"],
        "https://push.example/_matrix/push/v1/notify"
    );
    assert_eq!(first["lang"], "fa");
    users
        .set_pusher(&his, &pusher("phone", true))
        .await
        .unwrap();
    assert_eq!((keys(anna).await.len(), keys(bert).await.len()), (2, 1));
    users
        .set_pusher(&his, &pusher("phone", false))
        .await
        .unwrap();
    assert_eq!(keys(anna).await, ["tablet"]);
    users
        .set_pusher(&phone, &pusher("phone", true))
        .await
        .unwrap();
    users
        .change_password(&phone, "battery staple", true)
        .await
        .unwrap();
    assert_eq!(keys(anna).await, ["phone"], "the tablet's session is over");
    let ids = PusherIds::new("phone".to_owned(), "org.example.app".to_owned());
    users
        .set_pusher(&phone, &PusherAction::Delete(ids))
        .await
        .unwrap();
    assert!(keys(anna).await.is_empty());
    assert_eq!(keys(bert).await, ["phone"]);
    users.logout(&his).await.unwrap();
    assert!(keys(bert).await.is_empty());
    // A device that is gone sets none.
    let late = users.set_pusher(&his, &pusher("phone", false)).await;
    assert_eq!(code(late), (401, "M_UNKNOWN_TOKEN".to_owned()));
}

async fn what_cannot_be_a_pusher_is_refused() {
    let world = world(settings()).await;
    world.account("anna").await;
    let requester = world.requester(&world.login("anna", None).await).await;
    let good = json!({
        "kind": "http", "app_id": "a", "pushkey": "k", "app_display_name": "App",
        "device_display_name": "Phone", "lang": "en",
        "data": { "url": "https://push.example/_matrix/push/v1/notify" },
    });
    let set =
        async |json: &serde_json::Value| world.users.set_pusher(&requester, &pusher_of(json)).await;
    set(&good).await.unwrap();
    for (field, value) in [
        ("app_id", json!("x".repeat(65))),
        ("pushkey", json!("x".repeat(513))),
        ("data", json!({ "url": "https://push.example/other" })),
        ("data", json!({ "url": "file:///_matrix/push/v1/notify" })),
        ("data", json!({ "url": "not an address" })),
        ("data", json!({ "url": "" })),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        assert_eq!(
            code(set(&bad).await),
            (400, "M_INVALID_PARAM".to_owned()),
            "{field}"
        );
    }
    let mut mail = good.clone();
    mail["kind"] = json!("email");
    assert_eq!(code(set(&mail).await), (400, "M_INVALID_PARAM".to_owned()));
    let mut endless = good.clone();
    endless["app_display_name"] = json!("x".repeat(20_000));
    assert_eq!(code(set(&endless).await), (413, "M_TOO_LARGE".to_owned()));
    for number in 1..100 {
        let mut more = good.clone();
        more["pushkey"] = json!(number.to_string());
        set(&more).await.unwrap();
    }
    let mut more = good.clone();
    more["pushkey"] = json!("one more");
    assert_eq!(code(set(&more).await), (413, "M_TOO_LARGE".to_owned()));
    set(&good).await.unwrap();
}
