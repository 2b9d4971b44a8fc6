//! Events that are sent later ([MSC4140]).
//!
//! [MSC4140]: https://github.com/matrix-org/matrix-spec-proposals/pull/4140

use harness::{Answer, Server, User};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{CHAPAR, list, server};

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";
const STABLE: &str = "/_matrix/client/v1";
/// Long enough to be there at the end of a test.
const LONG: u64 = 3_600_000;

async fn later(user: &User, room: &str, txn: &str, body: Value) -> Answer {
    let path = format!("/rooms/{room}/delayed_event/m.room.message/{txn}");
    user.put(&path, body).await
}

async fn delay(user: &User, room: &str, txn: &str, delay: u64) -> String {
    let body = json!({"delay_ms": delay, "content": {"body": txn}});
    id(&later(user, room, txn, body).await.ok())
}

fn id(answer: &Value) -> String {
    answer["delay_id"].as_str().unwrap().to_owned()
}

async fn act(user: &User, delay_id: &str, action: &str) -> Answer {
    let path = format!("{STABLE}/delayed_events/{delay_id}/{action}");
    user.ask(Method::POST, &path, Some(&json!({}))).await
}

async fn find(user: &User, delay_id: &str) -> Answer {
    let path = format!("{STABLE}/delayed_events/{delay_id}");
    user.ask(Method::GET, &path, None).await
}

async fn waiting(user: &User) -> Vec<Value> {
    let path = format!("{UNSTABLE}/delayed_events");
    let answer = user.ask(Method::GET, &path, None).await.ok();
    list(&answer, "delayed_events").to_vec()
}

/// Syncs until a message of this body came.
async fn hear(user: &User, since: &str, room: &str, body: &str) -> Value {
    let heard = |sync: &harness::Sync| sync.said(room).contains(&body);
    let sync = user.sync_until(since, heard).await;
    let events = sync.timeline(room).iter();
    let mut fit = events.filter(|event| event["content"]["body"] == body);
    fit.next().unwrap().clone()
}

#[tokio::test]
async fn an_event_is_sent_after_its_delay_and_remembered() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let since = bob.sync(None).await.next_batch();
    let delay_id = delay(&alice, &room, "soon", 300).await;
    let event = hear(&bob, &since, &room, "soon").await;
    assert_eq!(event["unsigned"].get("org.matrix.msc4140.delay_id"), None);
    let found = find(&alice, &delay_id).await.ok();
    assert_eq!(found["finalised"]["event_id"], event["event_id"]);
    assert_eq!(found["content"], json!({"body": "soon"}));
    let own = alice
        .event(&room, event["event_id"].as_str().unwrap())
        .await;
    assert_eq!(
        own.ok()["unsigned"]["org.matrix.msc4140.delay_id"],
        delay_id
    );
    find(&bob, &delay_id).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_merged_form() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let [first, again] = [
        delay(&alice, &room, "1", LONG).await,
        delay(&alice, &room, "1", LONG).await,
    ];
    assert_eq!(first, again);
    let body = json!({"delay_ms": LONG, "state_key": "", "content": {"topic": "later"}});
    let path = format!("{UNSTABLE}/rooms/{room}/delayed_event/m.room.topic/2");
    let topic = id(&alice.ask(Method::PUT, &path, Some(&body)).await.ok());
    let found = find(&alice, &topic).await.ok();
    let since = found["delayed_since_ts"].as_u64().unwrap();
    let wanted = json!({"delay_id": topic, "room_id": room, "type": "m.room.topic", "state_key": "",
        "delay_ms": LONG, "delayed_since_ts": since, "delay": LONG, "running_since": since,
        "content": {"topic": "later"}});
    assert_eq!(found, wanted);
    let ids: Vec<_> = waiting(&alice).await.iter().map(id).collect();
    assert_eq!(ids, [&*first, &*topic]);
    assert!(waiting(&bob).await.is_empty());

    act(&bob, &topic, "send").await.refused(404, "M_NOT_FOUND");
    act(&alice, &topic, "restart").await.ok();
    act(&alice, &topic, "send").await.ok();
    let topic_now = alice.state(&room, "m.room.topic", "").await.ok();
    assert_eq!(topic_now["topic"], "later");
    act(&alice, &first, "cancel").await.ok();
    for (delay_id, same, others) in [
        (&topic, "send", ["cancel", "restart"]),
        (&first, "cancel", ["send", "restart"]),
    ] {
        act(&alice, delay_id, same).await.ok();
        for other in others {
            act(&alice, delay_id, other).await.refused(409, "M_UNKNOWN");
        }
    }
    assert!(waiting(&alice).await.is_empty());
    let done = find(&alice, &first).await.ok();
    let mut keys: Vec<_> = done["finalised"].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["finalised_ts"]);

    act(&alice, "unknown", "send")
        .await
        .refused(404, "M_NOT_FOUND");
    act(&alice, &first, "oops")
        .await
        .refused(404, "M_UNRECOGNIZED");
    let path = format!("{STABLE}/delayed_events/{first}/send");
    let stranger = server.ask(Method::POST, &path, Some(&json!({}))).await;
    stranger.refused(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn what_cannot_be_left() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let content = json!({"body": "x"});
    let wrong = [
        (
            json!({"delay_ms": 0, "content": content}),
            400,
            "M_INVALID_PARAM",
        ),
        (
            json!({"delay_ms": -5, "content": content}),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({"delay_ms": 1.5, "content": content}),
            400,
            "M_BAD_JSON",
        ),
        (json!({"content": content}), 400, "M_MISSING_PARAM"),
        (json!({"delay_ms": 1}), 400, "M_MISSING_PARAM"),
        (json!({"delay_ms": 1, "content": 7}), 400, "M_BAD_JSON"),
        (
            json!({"delay_ms": 1, "content": content, "state_key": 7}),
            400,
            "M_BAD_JSON",
        ),
        (
            json!({"delay_ms": 1, "content": {"body": "x".repeat(70_000)}}),
            413,
            "M_TOO_LARGE",
        ),
        (
            json!({"delay_ms": 86_400_001, "content": content}),
            400,
            "M_DELAY_TOO_LARGE",
        ),
    ];
    for (n, (body, status, errcode)) in wrong.into_iter().enumerate() {
        let answer = later(&alice, &room, &n.to_string(), body).await;
        answer.refused(status, errcode);
    }
    let long = json!({"delay_ms": 86_400_001, "content": content});
    let path = format!("{UNSTABLE}/rooms/{room}/delayed_event/m.room.message/1");
    let answer = alice.ask(Method::PUT, &path, Some(&long)).await;
    assert_eq!(answer.body["org.matrix.msc4140.max_delay"], 86_400_000);
    answer.refused(400, "ORG.MATRIX.MSC4140_DELAY_TOO_LARGE");
    // As Element Call reads it.
    let query = "org.matrix.msc4140.delay=86400001";
    let path = format!("/rooms/{room}/send/m.room.message/1?{query}");
    let answer = alice.put(&path, content.clone()).await;
    assert_eq!(
        answer.body["org.matrix.msc4140.errcode"],
        "M_MAX_DELAY_EXCEEDED"
    );
    assert_eq!(answer.body["org.matrix.msc4140.max_delay"], 86_400_000);
    answer.refused(400, "M_UNKNOWN");
    let some = json!({"delay_ms": 1, "content": content});
    later(&bob, &room, "1", some)
        .await
        .refused(403, "M_FORBIDDEN");
    let alias = json!({"delay_ms": 1, "state_key": "", "content": {"alias": "#none:localhost"}});
    let path = format!("/rooms/{room}/delayed_event/m.room.canonical_alias/1");
    alice.put(&path, alias).await.refused(400, "M_BAD_ALIAS");
    assert!(waiting(&alice).await.is_empty());
    assert!(
        !alice
            .timeline(&room)
            .await
            .iter()
            .any(|event| event["type"] == "m.room.message")
    );
}

/// In the form of Element Call's clients and Complement.
#[tokio::test]
async fn by_a_parameter_of_the_query() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let query = "org.matrix.msc4140.delay";
    let send = format!("/rooms/{room}/send/m.room.message/1?{query}={LONG}");
    let message = id(&alice.put(&send, json!({"body": "later"})).await.ok());
    // The same transaction again, without a word.
    let whole = format!("{}{send}", User::PREFIX);
    let again = alice.ask(Method::PUT, &whole, None).await.ok();
    assert_eq!(id(&again), message);
    let other = whole.replace("/1?", "/2?");
    alice
        .ask(Method::PUT, &other, None)
        .await
        .refused(400, "M_NOT_JSON");
    // And without a delay it is another one.
    let path = format!("/rooms/{room}/send/m.room.message/1");
    alice.put(&path, json!({"body": "now"})).await.ok();

    let path = format!("/rooms/{room}/state/m.room.topic/?{query}={LONG}");
    let topic = id(&alice.put(&path, json!({"topic": "later"})).await.ok());
    alice
        .state(&room, "m.room.topic", "")
        .await
        .refused(404, "M_NOT_FOUND");
    let shown = waiting(&alice).await;
    assert_eq!(shown.len(), 2);
    assert_eq!(
        (&shown[1]["state_key"], &shown[1]["delay"]),
        (&json!(""), &json!(LONG))
    );
    for wrong in ["0", "-1", "x", "1.5", ""] {
        let path = format!("/rooms/{room}/send/m.room.message/3?{query}={wrong}");
        alice
            .put(&path, json!({}))
            .await
            .refused(400, "M_INVALID_PARAM");
    }

    // Whoever knows the id may act.
    let post = async |path: &str, body: Value| {
        let path = format!("{UNSTABLE}/delayed_events/{path}");
        server.ask(Method::POST, &path, Some(&body)).await
    };
    post(&format!("{topic}/restart"), json!({})).await.ok();
    post(&format!("{topic}/send"), json!({})).await.ok();
    assert_eq!(
        alice.state(&room, "m.room.topic", "").await.ok()["topic"],
        "later"
    );
    post(&message, json!({"action": "cancel"})).await.ok();
    post(&format!("{message}/cancel"), json!({})).await.ok();
    post(&format!("{message}/restart"), json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
    post("abc", json!({})).await.refused(400, "M_MISSING_PARAM");
    post("abc/oops", json!({}))
        .await
        .refused(404, "M_UNRECOGNIZED");
    for action in ["cancel", "restart", "send"] {
        post(&format!("abc/{action}"), json!({}))
            .await
            .refused(404, "M_NOT_FOUND");
    }
    assert!(waiting(&alice).await.is_empty());
}

#[tokio::test]
async fn they_are_there_after_a_restart_and_within_the_limits() {
    let settings = format!(
        "{}\n[delayed_events]\nmax_delay = \"1 h\"\nmax_scheduled = 3\n",
        harness::OPEN
    );
    let mut server = Server::start_with(CHAPAR, &settings).await;
    let alice = server.user("alice").await;
    let answer = alice.get("/capabilities").await.ok();
    for name in ["m.delayed_events", "org.matrix.msc4140.delayed_events"] {
        let wanted = json!({"max_delay_ms": LONG, "max_scheduled": 3});
        assert_eq!(answer["capabilities"][name], wanted);
    }
    let path = "/_matrix/client/versions";
    let versions = server.ask(Method::GET, path, None).await.ok();
    for name in ["org.matrix.msc4140", "org.matrix.msc4140.stable"] {
        assert_eq!(versions["unstable_features"][name], true);
    }
    let room = alice.room_with(&[]).await;
    let since = alice.sync(None).await.next_batch();
    let [kept, _, soon] = [
        delay(&alice, &room, "kept", LONG).await,
        delay(&alice, &room, "kept too", LONG).await,
        delay(&alice, &room, "soon", 1_000).await,
    ];
    let body = json!({"delay_ms": 1, "content": {}});
    let answer = later(&alice, &room, "more", body).await;
    assert!(answer.body["retry_after_ms"].as_u64().unwrap() <= 1_000);
    answer.refused(429, "M_LIMIT_EXCEEDED");
    server.terminate().await;
    server.restart().await;
    hear(&alice, &since, &room, "soon").await;
    let found = find(&alice, &soon).await.ok();
    assert!(found["finalised"]["event_id"].is_string());
    let ids: Vec<_> = waiting(&alice).await.iter().map(id).collect();
    assert_eq!(ids.len(), 2);
    assert!(ids.contains(&kept));
    delay(&alice, &room, "more", 1_000).await;
}

#[tokio::test]
async fn an_operator_may_allow_none() {
    let settings = format!("{}\n[delayed_events]\nmax_delay = \"0 s\"\n", harness::OPEN);
    let server = Server::start_with(CHAPAR, &settings).await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let body = json!({"delay_ms": 1, "content": {}});
    later(&alice, &room, "1", body)
        .await
        .refused(403, "M_FORBIDDEN");
}
