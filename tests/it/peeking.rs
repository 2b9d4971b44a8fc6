//! The old ways of reading that the specification keeps (client-server API, *Room previews*, `/initialSync` of a
//! room, `/events`).

use harness::encode;
use serde_json::{Value, json};

use crate::{bodies, ids, list, only, server};

fn open() -> Value {
    let content = json!({"history_visibility": "world_readable"});
    json!({
        "name": "Open", "visibility": "public", "preset": "public_chat",
        "initial_state": [{"type": "m.room.history_visibility", "content": content}],
    })
}

#[tokio::test]
async fn a_room_is_told_at_once_to_its_members_and_to_those_who_look_in() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(open()).await;
    for i in 0..25 {
        alice.say(&room, &i.to_string()).await;
    }
    let tag = format!("/user/{}/rooms/{room}/tags/u.work", alice.id);
    alice.put(&tag, json!({})).await.ok();
    let path = format!("/rooms/{room}/initialSync");
    let told = alice.get(&path).await.ok();
    assert_eq!(
        (&told["room_id"], &told["membership"]),
        (&json!(room), &json!("join"))
    );
    assert_eq!(told["visibility"], "public");
    let chunk = list(&told["messages"], "chunk");
    let expected: Vec<_> = (5..25).map(|i| i.to_string()).collect();
    assert_eq!(bodies(chunk), expected, "the latest, oldest first");
    assert_eq!(chunk[0]["room_id"], room);
    let start = told["messages"]["start"].as_str().unwrap();
    let earlier = format!(
        "/rooms/{room}/messages?dir=b&limit=5&from={}",
        encode(start)
    );
    let earlier = alice.get(&earlier).await.ok();
    assert_eq!(bodies(list(&earlier, "chunk")), ["4", "3", "2", "1", "0"]);
    assert_eq!(
        only(list(&told, "state"), "m.room.name", "")["content"]["name"],
        "Open"
    );
    let data = list(&told, "account_data");
    assert_eq!((data.len(), &data[0]["type"]), (1, &json!("m.tag")));

    let told = bob.get(&path).await.ok();
    assert_eq!(told.get("membership"), None);
    assert_eq!(list(&told["messages"], "chunk").len(), 20);
    let shut = alice.room_with(&[]).await;
    bob.get(&format!("/rooms/{shut}/initialSync"))
        .await
        .refused(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn who_looks_in_hears_what_is_said() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(open()).await;
    let told = bob.get(&format!("/rooms/{room}/initialSync")).await.ok();
    let end = told["messages"]["end"].as_str().unwrap();
    let listen = |from: &str, timeout: u64| {
        let path = format!(
            "/events?room_id={room}&from={}&timeout={timeout}",
            encode(from)
        );
        let bob = bob.clone();
        async move { bob.get(&path).await.ok() }
    };
    let nothing = listen(end, 0).await;
    assert_eq!(
        (list(&nothing, "chunk").len(), &nothing["end"]),
        (0, &json!(end))
    );
    let (heard, said) = tokio::join!(listen(end, 30_000), alice.say(&room, "salaam"));
    assert_eq!(ids(list(&heard, "chunk")), [said]);
    assert_eq!(
        (&heard["start"], &heard["chunk"][0]["room_id"]),
        (&json!(end), &json!(room))
    );
    alice.say(&room, "again").await;
    let again = listen(heard["end"].as_str().unwrap(), 30_000).await;
    assert_eq!(bodies(list(&again, "chunk")), ["again"]);

    bob.get(&format!("/events?room_id={room}&from=x&timeout=0"))
        .await
        .refused(400, "M_INVALID_PARAM");
    let shut = alice.room_with(&[]).await;
    bob.get(&format!("/events?room_id={shut}&timeout=0"))
        .await
        .refused(403, "M_FORBIDDEN");
}
