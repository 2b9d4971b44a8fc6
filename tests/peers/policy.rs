//! A room of which Chapar is the policy server: the other server shows it what its people say.

use std::collections::BTreeSet;

use harness::User;
use reqwest::Method;
use serde_json::json;

use crate::{Two, join, same_state, sees};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_of_chapar_is_asked_about_what_the_other_sends() {
    let settings = "[policy_server]\nenabled = true\nrefused_words = [\"casino\"]\n";
    let two = Two::start_with(settings).await;
    let path = "/.well-known/matrix/policy_server";
    let keys = two.chapar.ask(Method::GET, path, None).await.ok();
    for version in ["11", "12"] {
        let room = json!({ "preset": "public_chat", "room_version": version });
        let room = two.bob.create_room(room).await;
        join(&two.alice, &room, &two.name_of(&two.bob)).await;
        let policy = json!({ "via": two.chapar.name(), "public_keys": keys["public_keys"] });
        two.bob.set_state(&room, "m.room.policy", "", policy).await;
        same_state(&two, &room).await;
        let mut all = BTreeSet::new();
        for user in [&two.alice, &two.bob] {
            let body = format!("fine, says {}", user.id);
            all.insert((user.say(&room, &body).await, body));
            refused(user, &room).await;
        }
        two.bob
            .set_state(&room, "m.room.topic", "", json!({ "topic": "signed" }))
            .await;
        sees(&two.alice, &room, &all).await;
        sees(&two.bob, &room, &all).await;
        same_state(&two, &room).await;
    }
}

/// Somebody is told by their server what the policy server says of their words.
async fn refused(user: &User, room: &str) {
    let content = json!({ "msgtype": "m.text", "body": "come to my casino" });
    let path = format!("/rooms/{room}/send/m.room.message/refused");
    let answer = user.put(&path, content).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(answer.body["errcode"], "M_FORBIDDEN", "{answer:?}");
    let why = "This room's policy does not let these words through";
    assert_eq!(answer.body["error"], why);
}
