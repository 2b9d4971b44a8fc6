//! Profiles, account data, filters and push rules.

use ruma::{api::client::filter::FilterDefinition, room_id, user_id};
use serde_json::json;
use storage::{Position, Range, ShortRoomId, Topic, schema};

use super::*;

on_every_engine! {
    profiles_hold_what_the_specification_lets_them,
    a_profile_is_full_at_exactly_64_kib,
    a_new_display_name_leaves_one_job_and_others_none,
    account_data_is_the_users_own_and_wakes_their_devices,
    push_rules_are_there_from_the_beginning,
    a_filter_is_known_by_its_content,
    filters_have_a_limit,
}

async fn profiles_hold_what_the_specification_lets_them() {
    let world = world(settings()).await;
    let (user, user_id) = world.account("anna").await;
    let set = async |field: &str, value| world.users.set_profile_field(user, field, value).await;
    set("displayname", json!("Anna 🐎")).await.unwrap();
    set("avatar_url", json!("mxc://a.example/abc"))
        .await
        .unwrap();
    set("m.tz", json!("Asia/Tehran")).await.unwrap();
    set("org.example.any", json!({ "b": [1, null], "a": true }))
        .await
        .unwrap();
    let profile = world.users.find_profile(&user_id).await.unwrap().unwrap();
    assert_eq!(
        json!(profile),
        json!({
            "avatar_url": "mxc://a.example/abc",
            "displayname": "Anna 🐎",
            "m.tz": "Asia/Tehran",
            "org.example.any": { "b": [1, null], "a": true },
        })
    );
    set("avatar_url", json!("")).await.unwrap();
    set("displayname", json!(null)).await.unwrap();
    world
        .users
        .delete_profile_field(user, "m.tz")
        .await
        .unwrap();
    world
        .users
        .delete_profile_field(user, "m.tz")
        .await
        .unwrap();
    assert_eq!(world.users.profile_of(user).await.unwrap().len(), 1);
    let nobody = user_id!("@nobody:a.example");
    assert!(world.users.find_profile(nobody).await.unwrap().is_none());
    for (field, value, refusal) in [
        ("displayname", json!(5), (400, "M_BAD_JSON")),
        (
            "displayname",
            json!("x".repeat(2_001)),
            (400, "M_INVALID_PARAM"),
        ),
        (
            "avatar_url",
            json!("x".repeat(1_001)),
            (400, "M_INVALID_PARAM"),
        ),
        ("org.example.x", json!(1.5), (400, "M_BAD_JSON")),
        (
            "org.example.x",
            json!(9_007_199_254_740_993_u64),
            (400, "M_BAD_JSON"),
        ),
        ("", json!(1), (400, "M_INVALID_PARAM")),
        ("Org.Example", json!(1), (400, "M_INVALID_PARAM")),
        ("a b", json!(1), (400, "M_INVALID_PARAM")),
        (
            &format!("o{}", "x".repeat(255)),
            json!(1),
            (400, "M_KEY_TOO_LARGE"),
        ),
        (
            "org.example.big",
            json!("x".repeat(66_000)),
            (400, "M_PROFILE_TOO_LARGE"),
        ),
    ] {
        let refused = set(field, value).await;
        assert_eq!(code(refused), (refusal.0, refusal.1.to_owned()), "{field}");
    }
}

async fn a_profile_is_full_at_exactly_64_kib() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let set = async |field: &str, value| world.users.set_profile_field(user, field, value).await;
    set("org.example.a", json!("x".repeat(30_000)))
        .await
        .unwrap();
    let size = async || {
        json!(world.users.profile_of(user).await.unwrap())
            .to_string()
            .len()
    };
    let left = crate::MAX_PROFILE - size().await - r#","org.example.b":"""#.len();
    let full = set("org.example.b", json!("y".repeat(left + 1))).await;
    assert_eq!(code(full), (400, "M_PROFILE_TOO_LARGE".to_owned()));
    set("org.example.b", json!("y".repeat(left))).await.unwrap();
    assert_eq!(size().await, crate::MAX_PROFILE);
    // Another value of the same size is no more.
    set("org.example.b", json!("z".repeat(left))).await.unwrap();
}

async fn a_new_display_name_leaves_one_job_and_others_none() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let waiting = world.storage.subscribe(&[Topic::Jobs]);
    let id = world.users.job_id(crate::job::PROFILE, user);
    let jobs = async || {
        let snapshot = world.users.snapshot().await.unwrap();
        let found = snapshot.multi_get(&schema::JOB_BY_ID, &[id]).await.unwrap();
        found[0].as_ref().map(|found| found.value.clone())
    };
    let set = async |field: &str, value| {
        world
            .users
            .set_profile_field(user, field, value)
            .await
            .unwrap();
    };
    set("m.tz", json!("Asia/Tehran")).await;
    assert!(jobs().await.is_none() && waiting.take().is_empty());
    set("displayname", json!("Anna")).await;
    let first = jobs().await.unwrap();
    assert_eq!(first.kind, crate::job::PROFILE);
    assert!(!waiting.take().is_empty());
    set("displayname", json!("Anna")).await;
    assert_eq!(jobs().await.unwrap(), first, "nothing changed");
    set("displayname", json!("Anne")).await;
    // Another row, so that whoever works the first one off does not delete it.
    assert_ne!(jobs().await.unwrap(), first);
}

async fn account_data_is_the_users_own_and_wakes_their_devices() {
    let world = world(settings()).await;
    let (anna, _) = world.account("anna").await;
    let (bert, _) = world.account("bert").await;
    let room = Some(ShortRoomId(*b"roomroom"));
    let waiting = world.storage.subscribe(&[Topic::User(anna)]);
    let set = async |room, kind: &str, json: &str| {
        world
            .users
            .set_account_data(anna, room, kind, &raw(json))
            .await
    };
    let get = async |user, room, kind: &str| {
        let found = world
            .users
            .find_account_data(user, room, kind)
            .await
            .unwrap();
        found.map(|data| data.content.get().to_owned())
    };
    set(None, "m.direct", r#"{"@b:b":["!r"]}"#).await.unwrap();
    set(room, "m.tag", r#"{"tags":{}}"#).await.unwrap();
    set(room, "m.tag", r#"{"tags":{"m.favourite":{}}}"#)
        .await
        .unwrap();
    assert_eq!(
        get(anna, None, "m.direct").await.unwrap(),
        r#"{"@b:b":["!r"]}"#
    );
    assert_eq!(
        get(anna, room, "m.tag").await.unwrap(),
        r#"{"tags":{"m.favourite":{}}}"#
    );
    assert_eq!(get(anna, None, "m.tag").await, None);
    assert_eq!(get(bert, None, "m.direct").await, None);
    assert_eq!(waiting.take().len(), 1);
    // Three changes in the order in which they happened, and the tail at the last.
    let snapshot = world.users.snapshot().await.unwrap();
    let changes = snapshot
        .multi_range(&schema::CHANGE_BY_USER_POSITION, &[Range::prefix(&(anna,))])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|((_, at), _)| *at > Position::START));
    let tail = snapshot
        .multi_get(&schema::TAIL_BY_USER, &[anna])
        .await
        .unwrap();
    assert_eq!(tail[0].as_ref().unwrap().value.position, changes[2].0.1);
    for kind in ["m.push_rules", "m.fully_read"] {
        let refused = set(room, kind, "{}").await;
        assert_eq!(code(refused), (405, "M_BAD_JSON".to_owned()));
    }
    for json in ["[]", "5", "\"{}\"", "null"] {
        let refused = set(None, "a", json).await;
        assert_eq!(code(refused), (400, "M_BAD_JSON".to_owned()));
    }
    let endless = format!("{{\"a\":\"{}\"}}", "x".repeat(600_000));
    assert_eq!(
        code(set(None, "a", &endless).await),
        (413, "M_TOO_LARGE".to_owned())
    );
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(300_000));
    set(None, "a", &large).await.unwrap();
    assert_eq!(get(anna, None, "a").await.unwrap(), large);
    assert_eq!(world.users.account_data(anna, room).await.unwrap().len(), 1);
}

async fn push_rules_are_there_from_the_beginning() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let rules = world
        .users
        .find_account_data(user, None, "m.push_rules")
        .await
        .unwrap()
        .unwrap();
    assert!(rules.content.get().contains(".m.rule.master"));
    assert!(rules.content.get().contains("@anna:a.example"));
    let all = world.users.account_data(user, None).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].event_type, "m.push_rules");
    let nobody = world.users.push_rules(ShortUserId([9; 8])).await;
    assert_eq!(code(nobody), (404, "M_NOT_FOUND".to_owned()));
}

async fn filters_have_a_limit() {
    let mut settings = settings();
    settings.limits.max_filters_of_user = 3;
    let world = world(settings).await;
    let (anna, _) = world.account("anna").await;
    let (bert, _) = world.account("bert").await;
    let filter = |limit: u8| raw(&format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#));
    for limit in 1..=3 {
        world
            .users
            .create_filter(anna, &filter(limit))
            .await
            .unwrap();
    }
    let refused = world.users.create_filter(anna, &filter(4)).await;
    assert_eq!(code(refused), (403, "M_FORBIDDEN".to_owned()));
    // What is there already, and what others have, does not count.
    world.users.create_filter(anna, &filter(2)).await.unwrap();
    world.users.create_filter(bert, &filter(4)).await.unwrap();
}

async fn a_filter_is_known_by_its_content() {
    let world = world(settings()).await;
    let (anna, _) = world.account("anna").await;
    let (bert, _) = world.account("bert").await;
    let create = async |json: &str| world.users.create_filter(anna, &raw(json)).await;
    let json = r#"{"room":{"timeline":{"limit":5},"rooms":["!a:b"]},"event_fields":["type"]}"#;
    let id = create(json).await.unwrap();
    let same = create(
        r#"{ "event_fields": ["type"], "room": {"rooms":["!a:b"], "timeline":{"limit":5}} }"#,
    );
    assert_eq!(same.await.unwrap(), id);
    assert_ne!(create("{}").await.unwrap(), id);
    let found = world.users.find_filter(anna, &id).await.unwrap().unwrap();
    let parsed: serde_json::Value = serde_json::from_str(found.get()).unwrap();
    assert_eq!(
        parsed,
        serde_json::from_str::<serde_json::Value>(json).unwrap()
    );
    assert!(world.users.find_filter(bert, &id).await.unwrap().is_none());
    for unknown in ["", "999999", "../..", "{}", &"A".repeat(22)] {
        assert!(
            world
                .users
                .find_filter(anna, unknown)
                .await
                .unwrap()
                .is_none()
        );
    }
    let named: FilterDefinition = world.users.filter_of(anna, &id).await.unwrap();
    assert_eq!(named.room.rooms.unwrap(), [room_id!("!a:b").to_owned()]);
    let inline: FilterDefinition = world
        .users
        .filter_of(anna, r#"{"room":{"include_leave":true}}"#)
        .await
        .unwrap();
    assert!(inline.room.include_leave);
    let unknown = world.users.filter_of::<FilterDefinition>(anna, "0").await;
    assert_eq!(code(unknown), (400, "M_INVALID_PARAM".to_owned()));
    for (bad, status) in [
        ("[]", (400, "M_BAD_JSON")),
        (r#"{"room":5}"#, (400, "M_BAD_JSON")),
        (
            &format!("{{\"a\":\"{}\"}}", "x".repeat(40_000)),
            (413, "M_TOO_LARGE"),
        ),
    ] {
        assert_eq!(code(create(bad).await), (status.0, status.1.to_owned()));
    }
}
