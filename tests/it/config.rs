//! Account data, global and of a room.

use serde_json::{Value, json};

use crate::server;

fn data<'a>(list: &'a Value, kind: &str) -> Option<&'a Value> {
    list["events"]
        .as_array()?
        .iter()
        .find(|e| e["type"] == kind)
        .map(|e| &e["content"])
}

#[tokio::test]
async fn global_data_is_kept_and_synced_to_other_devices() {
    let server = server().await;
    let alice = server.user("alice").await;
    let since = alice.sync(None).await.next_batch();
    let path = format!("/user/{}/account_data/org.example.colour", alice.id);
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
    assert_eq!(
        alice.put(&path, json!({"colour": "green"})).await.ok(),
        json!({})
    );
    alice.put(&path, json!({"colour": "blue"})).await.ok();
    assert_eq!(alice.get(&path).await.ok(), json!({"colour": "blue"}));

    let sync = alice.sync(Some(&since)).await;
    assert_eq!(
        data(&sync.body["account_data"], "org.example.colour"),
        Some(&json!({"colour": "blue"}))
    );
    let next = alice.sync(Some(&sync.next_batch())).await;
    assert_eq!(data(&next.body["account_data"], "org.example.colour"), None);
    let first = alice.sync(None).await;
    assert_eq!(
        data(&first.body["account_data"], "org.example.colour"),
        Some(&json!({"colour": "blue"}))
    );
}

#[tokio::test]
async fn the_data_of_a_room_is_its_own() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other) = (alice.room_with(&[&bob]).await, alice.room_with(&[]).await);
    let since = alice.sync(None).await.next_batch();
    let of = |room: &str| {
        format!(
            "/user/{}/rooms/{room}/account_data/org.example.note",
            alice.id
        )
    };
    alice.put(&of(&room), json!({"note": 1})).await.ok();
    assert_eq!(alice.get(&of(&room)).await.ok(), json!({"note": 1}));
    alice.get(&of(&other)).await.refused(404, "M_NOT_FOUND");

    let sync = alice.sync(Some(&since)).await;
    assert_eq!(
        data(&sync.joined(&room)["account_data"], "org.example.note"),
        Some(&json!({"note": 1}))
    );
    assert!(sync.joined(&other).is_null());
    let bobs = bob.sync(None).await;
    assert_eq!(
        data(&bobs.joined(&room)["account_data"], "org.example.note"),
        None
    );
}

#[tokio::test]
async fn data_of_others_is_out_of_reach() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    for path in [
        format!("/user/{}/account_data/org.example.colour", alice.id),
        format!(
            "/user/{}/rooms/{room}/account_data/org.example.colour",
            alice.id
        ),
    ] {
        bob.get(&path).await.refused(403, "M_FORBIDDEN");
        bob.put(&path, json!({"colour": "red"}))
            .await
            .refused(403, "M_FORBIDDEN");
        alice.get(&path).await.refused(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn what_the_server_keeps_itself_cannot_be_written() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let marker = format!("/user/{}/rooms/{room}/account_data/m.fully_read", alice.id);
    alice
        .put(&marker, json!({"event_id": "$x"}))
        .await
        .refused(405, "M_BAD_JSON");
    let rules = format!("/user/{}/account_data/m.push_rules", alice.id);
    alice
        .put(&rules, json!({"global": {}}))
        .await
        .refused(405, "M_BAD_JSON");
}

#[tokio::test]
async fn only_objects_are_data() {
    let server = server().await;
    let alice = server.user("alice").await;
    let path = format!("/user/{}/account_data/org.example.colour", alice.id);
    for body in [json!([1]), json!("text"), json!(1), Value::Null] {
        let refused = alice.put(&path, body).await;
        assert_eq!(refused.status, 400, "{refused}");
    }
    alice.get(&path).await.refused(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn what_is_taken_back_or_empty_is_not_there() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[]).await;
    let kind = "org.example.colour";
    let global = format!("/user/{}/account_data/{kind}", alice.id);
    let of_room = format!("/user/{}/rooms/{room}/account_data/{kind}", alice.id);
    for (path, room) in [(&global, None), (&of_room, Some(&room))] {
        let unstable = format!("/_matrix/client/unstable/org.matrix.msc3391{path}");
        let delete = async |user: &harness::User| {
            let nothing = json!({});
            user.ask(reqwest::Method::DELETE, &unstable, Some(&nothing))
                .await
        };
        let told = |sync: &harness::Sync| {
            let list = match room {
                None => &sync.body["account_data"],
                Some(room) => &sync.joined(room)["account_data"],
            };
            data(list, kind).cloned()
        };
        // There being nothing is no error, and no news.
        let since = alice.sync(None).await.next_batch();
        delete(&alice).await.ok();
        assert_eq!(told(&alice.sync(Some(&since)).await), None);
        for by_delete in [true, false] {
            alice.put(path, json!({"colour": "green"})).await.ok();
            delete(&bob).await.refused(403, "M_FORBIDDEN");
            let first = alice.sync(None).await;
            assert_eq!(told(&first), Some(json!({"colour": "green"})));
            if by_delete {
                delete(&alice).await.ok();
            } else {
                alice.put(path, json!({})).await.ok();
            }
            alice.get(path).await.refused(404, "M_NOT_FOUND");
            let sync = alice.sync(Some(&first.next_batch())).await;
            assert_eq!(told(&sync), Some(json!({})));
            let first = alice.sync(None).await;
            assert_eq!(told(&first), None);
            if let Some(room) = room {
                let list = &first.joined(room)["account_data"];
                assert_eq!(*list, json!({"events": []}));
            }
        }
    }
    let marker = format!("/user/{}/rooms/{room}/account_data/m.fully_read", alice.id);
    let unstable = format!("/_matrix/client/unstable/org.matrix.msc3391{marker}");
    alice
        .ask(reqwest::Method::DELETE, &unstable, Some(&json!({})))
        .await
        .refused(405, "M_BAD_JSON");
}
