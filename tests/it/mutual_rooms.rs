//! Rooms that one shares with somebody
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms)).

use harness::{User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::server;

const STABLE: &str = "/_matrix/client/v1/mutual_rooms";
const UNSTABLE: &str = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms";

async fn shared(user: &User, path: &str, other: &str) -> Value {
    let path = format!("{path}?user_id={}", encode(other));
    user.ask(Method::GET, &path, None).await.ok()
}

#[tokio::test]
async fn rooms_in_which_both_are_are_told() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let carol = server.user("carol").await;
    let mut both = vec![
        alice.room_with(&[&bob]).await,
        bob.room_with(&[&alice, &carol]).await,
    ];
    let left = alice.room_with(&[&bob]).await;
    bob.to_room(&left, "leave", json!({})).await.ok();
    alice.create_room(json!({"invite": [bob.id]})).await;
    alice.room_with(&[&carol]).await;
    both.sort_unstable();
    for path in [STABLE, UNSTABLE] {
        for (user, other) in [(&alice, &bob), (&bob, &alice)] {
            let told = shared(user, path, &other.id).await;
            let mut rooms: Vec<_> = told["joined"].as_array().unwrap().iter().collect();
            rooms.sort_unstable_by_key(|room| room.as_str());
            assert_eq!((json!(rooms), &told["count"]), (json!(both), &json!(2)));
            assert!(told.get("next_batch").is_none());
        }
    }
    let none = shared(&alice, STABLE, "@nobody:elsewhere.example").await;
    assert_eq!(none, json!({"joined": [], "count": 0}));
    let own = format!("?user_id={}", encode(&alice.id));
    for (query, errcode) in [
        ("", "M_MISSING_PARAM"),
        ("?user_id=nobody", "M_INVALID_PARAM"),
        (&own, "M_INVALID_PARAM"),
        ("?user_id=%40bob%3Alocalhost&from=x", "M_INVALID_PARAM"),
    ] {
        let answer = alice
            .ask(Method::GET, &format!("{STABLE}{query}"), None)
            .await;
        answer.refused(400, errcode);
    }
}
