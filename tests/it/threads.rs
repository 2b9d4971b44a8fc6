//! Subscriptions to threads ([MSC4306]), and their changes ([MSC4308]).
//!
//! [MSC4306]: https://github.com/matrix-org/matrix-spec-proposals/pull/4306
//! [MSC4308]: https://github.com/matrix-org/matrix-spec-proposals/pull/4308

use harness::{Answer, User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const NOT_IN_THREAD: &str = "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD";
const CONFLICT: &str = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";

async fn ask(user: &User, method: Method, room: &str, root: &str, body: Option<Value>) -> Answer {
    let path = format!(
        "/_matrix/client/unstable/io.element.msc4306/rooms/{room}/thread/{}/subscription",
        encode(root)
    );
    user.ask(method, &path, body.as_ref()).await
}

async fn find(user: &User, room: &str, root: &str) -> Answer {
    ask(user, Method::GET, room, root, None).await
}

async fn subscribe(user: &User, room: &str, root: &str, automatic: Option<&str>) -> Answer {
    let body = match automatic {
        Some(cause) => json!({"automatic": cause}),
        None => json!({}),
    };
    ask(user, Method::PUT, room, root, Some(body)).await
}

async fn unsubscribe(user: &User, room: &str, root: &str) -> Answer {
    ask(user, Method::DELETE, room, root, None).await
}

async fn reply(user: &User, room: &str, root: &str) -> String {
    let relates = json!({"rel_type": "m.thread", "event_id": root});
    let content = json!({"msgtype": "m.text", "body": "reply", "m.relates_to": relates});
    user.send(room, "m.room.message", content).await
}

async fn changes(user: &User, query: &str) -> Answer {
    let path = format!("/_matrix/client/unstable/io.element.msc4308/thread_subscriptions?{query}");
    user.ask(Method::GET, &path, None).await
}

#[tokio::test]
async fn by_choice_and_by_oneself() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let (root, other) = (
        alice.say(&room, "root").await,
        alice.say(&room, "other").await,
    );
    let none = find(&alice, &room, &root).await;
    none.refused(404, "M_NOT_FOUND");
    unsubscribe(&alice, &room, &root).await.ok();

    let first = reply(&alice, &room, &root).await;
    let elsewhere = reply(&alice, &room, &other).await;
    for wrong in [&root, &elsewhere] {
        let answer = subscribe(&alice, &room, &root, Some(wrong)).await;
        answer.refused(400, NOT_IN_THREAD);
    }
    subscribe(&alice, &room, &root, Some(&first)).await.ok();
    assert_eq!(
        find(&alice, &room, &root).await.ok(),
        json!({"automatic": true})
    );
    subscribe(&alice, &room, &root, None).await.ok();
    assert_eq!(
        find(&alice, &room, &root).await.ok(),
        json!({"automatic": false})
    );
    // What one chose oneself stays so.
    subscribe(&alice, &room, &root, Some(&first)).await.ok();
    assert_eq!(
        find(&alice, &room, &root).await.ok(),
        json!({"automatic": false})
    );

    // Who has ended it is not subscribed for what was said before.
    let second = reply(&alice, &room, &root).await;
    unsubscribe(&alice, &room, &root).await.ok();
    let third = reply(&alice, &room, &root).await;
    for before in [&first, &second] {
        let answer = subscribe(&alice, &room, &root, Some(before)).await;
        answer.refused(409, CONFLICT);
        find(&alice, &room, &root).await.refused(404, "M_NOT_FOUND");
    }
    subscribe(&alice, &room, &root, Some(&third)).await.ok();
    assert_eq!(
        find(&alice, &room, &root).await.ok(),
        json!({"automatic": true})
    );
    unsubscribe(&alice, &room, &root).await.ok();
    subscribe(&alice, &room, &root, None).await.ok();

    // To threads that are not there, or not for them, nobody is subscribed.
    for (user, root) in [(&alice, "$notathread:example.org"), (&bob, &*root)] {
        find(user, &room, root).await.refused(404, "M_NOT_FOUND");
        let answer = subscribe(user, &room, root, None).await;
        answer.refused(404, "M_NOT_FOUND");
        unsubscribe(user, &room, root)
            .await
            .refused(404, "M_NOT_FOUND");
    }
    let answer = subscribe(&alice, &room, &root, Some("$none")).await;
    answer.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn changes_are_listed_the_latest_first() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    assert_eq!(changes(&alice, "dir=b").await.ok(), json!({}));
    let mut roots = Vec::new();
    for n in 0..5 {
        let root = alice.say(&room, &n.to_string()).await;
        subscribe(&alice, &room, &root, None).await.ok();
        roots.push(root);
    }
    unsubscribe(&alice, &room, &roots[0]).await.ok();
    let cause = reply(&alice, &room, &roots[1]).await;
    unsubscribe(&alice, &room, &roots[1]).await.ok();
    let later = reply(&alice, &room, &roots[1]).await;
    assert_ne!(cause, later);
    subscribe(&alice, &room, &roots[1], Some(&later)).await.ok();

    let all = changes(&alice, "dir=b").await.ok();
    assert_eq!(all.get("end"), None);
    let subscribed = all["subscribed"][&room].as_object().unwrap();
    assert_eq!(subscribed.len(), 4);
    assert_eq!(subscribed[&roots[1]]["automatic"], true);
    assert_eq!(subscribed[&roots[2]]["automatic"], false);
    let ended = &all["unsubscribed"][&room][&roots[0]];
    let stamp = |change: &Value| change["bump_stamp"].as_u64().unwrap();
    assert!(stamp(ended) > stamp(&subscribed[&roots[4]]));
    assert!(stamp(ended) < stamp(&subscribed[&roots[1]]));

    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = changes(&alice, &format!("dir=b&limit=2{from}")).await.ok();
        for list in ["subscribed", "unsubscribed"] {
            let threads = page[list][&room].as_object().into_iter().flatten();
            found.extend(threads.map(|(root, _)| root.clone()));
        }
        let Some(end) = page["end"].as_str() else {
            break;
        };
        from = format!("&from={}", encode(end));
    }
    let mut wanted = roots.clone();
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    let after = format!("dir=b&to={}", stamp(ended));
    let newer = changes(&alice, &after).await.ok();
    assert_eq!(newer["subscribed"][&room].as_object().unwrap().len(), 1);
    assert_eq!(newer.get("unsubscribed"), None);
    assert_eq!(changes(&bob, "dir=b").await.ok(), json!({}));
    for wrong in ["dir=f", "dir=b&limit=0", "dir=b&from=x", "dir=b&to=-1"] {
        changes(&alice, wrong).await.refused(400, "M_INVALID_PARAM");
    }
    changes(&alice, "").await.refused(400, "M_MISSING_PARAM");
}
