//! What an operator denies of what goes between servers, in which direction: that, and nothing else.

use std::collections::BTreeSet;

use http::Method;
use serde_json::json;
use tempfile::TempDir;

use super::membership::{A, B, Person, World};

/// What people of one server can do at another.
const ALL: [&str; 5] = ["rooms", "invites", "profiles", "directory", "media"];

/// A server that denies this, and somebody there.
async fn somebody(world: &World, server: &str, name: &str, deny: &[String]) -> (Person, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let server = world.server_with(server, |config| {
        config.storage.data = folder.path().to_owned();
        let rules = deny.iter().map(|rule| rule.parse().unwrap());
        config.federation.deny = rules.collect();
    });
    (Person::new(&server.await, name).await, folder)
}

/// What somebody can do who wants all of it from the server of somebody else.
async fn reached(who: &Person, other: &Person) -> BTreeSet<&'static str> {
    let server = other.user_id.server_name().as_str();
    let public = json!({ "preset": "public_chat", "visibility": "public" });
    let theirs = other.create(public).await;
    let own = who.create(json!({ "preset": "private_chat" })).await;
    let upload = "/_matrix/media/v3/upload";
    let file = other.ask(Method::POST, upload, &json!({})).await.ok();
    let file = file["content_uri"].as_str().unwrap().to_owned();
    let file = file.strip_prefix("mxc://").unwrap();
    let file = format!("/_matrix/client/v1/media/download/{file}");
    let answers = [
        who.join(&theirs, &[server]).await,
        who.invite(&own, other).await,
        who.get(&format!("/profile/{}", other.user_id)).await,
        who.get(&format!("/publicRooms?server={server}")).await,
        who.ask(Method::GET, &file, &json!({})).await,
    ];
    let done = ALL.into_iter().zip(answers);
    done.filter(|(_, answer)| answer.status == 200)
        .map(|(class, _)| class)
        .collect()
}

#[tokio::test]
async fn who_is_denied_one_thing_may_do_the_others() {
    let all = BTreeSet::from(ALL);
    for class in ALL {
        for denied_by in [A, B] {
            let world = World::new();
            let of_a = format!("{B} in {class}");
            let of_b = format!("{A} out {class}");
            let deny = |server: &str, rule: String| match server == denied_by {
                true => vec![rule],
                false => Vec::new(),
            };
            let (alice, _a) = somebody(&world, A, "alice", &deny(A, of_a)).await;
            let (bob, _b) = somebody(&world, B, "bob", &deny(B, of_b)).await;
            let mut left = all.clone();
            left.remove(class);
            let what = format!("{class}, as {denied_by} says");
            assert_eq!(reached(&bob, &alice).await, left, "{what}");
            assert_eq!(reached(&alice, &bob).await, all, "the other way: {what}");
        }
    }
}
