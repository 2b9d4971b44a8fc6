//! Reporting content (<https://spec.matrix.org/v1.19/client-server-api/#reporting-content>), and what
//! administrators see of it (<https://element-hq.github.io/synapse/latest/admin_api/event_reports.html>).

use harness::{Answer, Server, User, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{list, server};

const ADMIN: &str = "/_synapse/admin/v1";

async fn admin(server: &Server) -> User {
    let root = server.user("root").await;
    let made = server.command(&["user", "make-admin", root.name()]);
    assert!(made.status.success());
    root
}

async fn report(user: &User, path: &str, reason: Value) -> Answer {
    user.post(path, json!({ "reason": reason })).await
}

async fn get(admin: &User, path: &str) -> Answer {
    admin
        .ask(Method::GET, &format!("{ADMIN}{path}"), None)
        .await
}

fn ids(page: &Value, field: &str) -> Vec<u64> {
    let reports = list(page, field).iter();
    reports
        .map(|report| report["id"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn members_report_events_and_administrators_see_them() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let root = admin(&server).await;
    let room = alice.room_with(&[&bob]).await;
    alice
        .set_state(&room, "m.room.name", "", json!({"name": "Tea"}))
        .await;
    let event = alice.say(&room, "something bad").await;
    let path = format!("/rooms/{room}/report/{}", encode(&event));
    assert_eq!(
        report(&bob, &path, json!("it is bad")).await.ok(),
        json!({})
    );
    assert_eq!(
        bob.post(&path, json!({"score": -100})).await.ok(),
        json!({})
    );

    let page = get(&root, "/event_reports").await.ok();
    assert_eq!(page["total"], 2);
    let [second, first] = list(&page, "event_reports") else {
        panic!("{page}")
    };
    assert_eq!(second["reason"], Value::Null);
    let told = json!({
        "id": 1, "received_ts": first["received_ts"], "reason": "it is bad", "score": null,
        "user_id": bob.id, "sender": alice.id, "event_id": event, "room_id": room, "name": "Tea",
        "canonical_alias": null,
    });
    assert_eq!(first, &told);
    assert!(first["received_ts"].as_u64().unwrap() > 1_600_000_000_000);
    let mut whole = get(&root, "/event_reports/1").await.ok();
    let json = whole.as_object_mut().unwrap().remove("event_json").unwrap();
    assert_eq!(whole, told);
    assert_eq!(json["content"]["body"], "something bad");
    assert!(json["signatures"].is_object(), "as servers have it: {json}");

    let delete = async |id: &str| {
        let path = format!("{ADMIN}/event_reports/{id}");
        root.ask(Method::DELETE, &path, None).await
    };
    assert_eq!(delete("1").await.ok(), json!({}));
    delete("1").await.refused(404, "M_NOT_FOUND");
    get(&root, "/event_reports/1")
        .await
        .refused(404, "M_NOT_FOUND");
    for wrong in ["x", "-1", "1.5"] {
        delete(wrong).await.refused(400, "M_INVALID_PARAM");
        get(&root, &format!("/event_reports/{wrong}"))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    assert_eq!(
        ids(&get(&root, "/event_reports").await.ok(), "event_reports"),
        [2]
    );
}

#[tokio::test]
async fn who_is_not_in_the_room_reports_none_of_its_events() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    let event = alice.say(&room, "hi").await;
    let path = format!("/rooms/{room}/report/{}", encode(&event));
    report(&bob, &path, json!("x"))
        .await
        .refused(404, "M_NOT_FOUND");
    alice
        .to_room(&room, "invite", json!({"user_id": bob.id}))
        .await
        .ok();
    report(&bob, &path, json!("x"))
        .await
        .refused(404, "M_NOT_FOUND");
    bob.join(&room).await;
    report(&bob, &path, json!("x")).await.ok();
    bob.to_room(&room, "leave", json!({})).await.ok();
    report(&bob, &path, json!("x"))
        .await
        .refused(404, "M_NOT_FOUND");
    for wrong in [
        format!("/rooms/{room}/report/$nothing"),
        format!("/rooms/!nothing:example.org/report/{}", encode(&event)),
    ] {
        report(&alice, &wrong, json!("x"))
            .await
            .refused(404, "M_NOT_FOUND");
    }
    let long = report(&alice, &path, json!("x".repeat(1_001))).await;
    long.refused(400, "M_INVALID_PARAM");
    report(&alice, &path, json!("آ".repeat(1_000))).await.ok();
    report(&alice, &path, json!(7))
        .await
        .refused(400, "M_BAD_JSON");
}

#[tokio::test]
async fn anybody_reports_rooms_and_people_and_learns_nothing_by_it() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let root = admin(&server).await;
    let room = alice.create_room(json!({"name": "Secret"})).await;
    for path in [&room, "!nothing:example.org"] {
        let path = format!("/rooms/{path}/report");
        assert_eq!(
            report(&bob, &path, json!("a bad room")).await.ok(),
            json!({})
        );
        report(&bob, &path, json!("x".repeat(1_001)))
            .await
            .refused(400, "M_INVALID_PARAM");
        report(&bob, &path, json!([]))
            .await
            .refused(400, "M_BAD_JSON");
    }
    let nobody = alice.id.replace(alice.name(), "nobody");
    for id in [&alice.id, &nobody, "@a:elsewhere.example"] {
        let path = format!("/users/{id}/report");
        assert_eq!(report(&bob, &path, json!("")).await.ok(), json!({}));
        bob.post(&path, json!({}))
            .await
            .refused(400, "M_MISSING_PARAM");
        report(&bob, &path, json!("x".repeat(1_001)))
            .await
            .refused(400, "M_INVALID_PARAM");
    }
    report(&bob, "/users/alice/report", json!("x"))
        .await
        .refused(400, "M_INVALID_PARAM");

    let rooms = get(&root, "/room_reports").await.ok();
    assert_eq!(rooms["total"], 1);
    let told = &rooms["room_reports"][0];
    assert_eq!(
        told,
        &json!({
            "id": 1, "received_ts": told["received_ts"], "reason": "a bad room", "user_id": bob.id,
            "room_id": room, "name": "Secret", "canonical_alias": null,
        })
    );
    assert_eq!(&get(&root, "/room_reports/1").await.ok(), told);
    let people = get(&root, "/user_reports?dir=f").await.ok();
    let told = list(&people, "user_reports").iter();
    let told: Vec<_> = told
        .map(|told| (&told["target_user_id"], &told["reason"]))
        .collect();
    let other = json!("@a:elsewhere.example");
    assert_eq!(
        told,
        [(&json!(alice.id), &Value::Null), (&other, &Value::Null)]
    );
}

#[tokio::test]
async fn reports_come_in_pages_and_can_be_sought() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let root = admin(&server).await;
    let rooms = [
        alice.room_with(&[&bob]).await,
        bob.room_with(&[&alice]).await,
    ];
    for (at, user) in [(0, &alice), (1, &bob), (0, &bob), (1, &alice), (0, &alice)] {
        let event = alice.say(&rooms[at], "hi").await;
        let path = format!("/rooms/{}/report/{}", rooms[at], encode(&event));
        report(user, &path, json!("x")).await.ok();
    }
    let field = "event_reports";
    let page = async |query: &str| get(&root, &format!("/event_reports?{query}")).await.ok();
    for (query, wanted, total, next) in [
        ("", vec![5, 4, 3, 2, 1], 5, Value::Null),
        ("dir=f", vec![1, 2, 3, 4, 5], 5, Value::Null),
        ("limit=2", vec![5, 4], 5, json!(2)),
        ("limit=2&from=2", vec![3, 2], 5, json!(4)),
        ("limit=2&from=4", vec![1], 5, Value::Null),
        ("from=9", vec![], 5, Value::Null),
        ("limit=0", vec![], 5, Value::Null),
        (
            &format!("user_id={}", bob.name()),
            vec![3, 2],
            2,
            Value::Null,
        ),
        (
            &format!("room_id={}", encode(&rooms[1])),
            vec![4, 2],
            2,
            Value::Null,
        ),
        (
            &format!(
                "room_id={}&user_id={}&dir=f",
                encode(&rooms[0]),
                alice.name()
            ),
            vec![1, 5],
            2,
            Value::Null,
        ),
        (
            &format!("event_sender_user_id={}&limit=1", alice.name()),
            vec![5],
            5,
            json!(1),
        ),
        (
            &format!("event_sender_user_id={}", bob.name()),
            vec![],
            0,
            Value::Null,
        ),
    ] {
        let page = page(query).await;
        assert_eq!(ids(&page, field), wanted, "{query}");
        assert_eq!(
            (&page["total"], &page["next_token"]),
            (&json!(total), &next),
            "{query}"
        );
    }
    for wrong in ["limit=-1", "from=-1", "limit=x", "dir=sideways"] {
        let refused = get(&root, &format!("/event_reports?{wrong}")).await;
        refused.refused(400, "M_INVALID_PARAM");
    }
    for kind in ["event_reports", "room_reports", "user_reports"] {
        get(&alice, &format!("/{kind}"))
            .await
            .refused(403, "M_FORBIDDEN");
        get(&alice, &format!("/{kind}/1"))
            .await
            .refused(403, "M_FORBIDDEN");
        let path = format!("{ADMIN}/{kind}/1");
        alice
            .ask(Method::DELETE, &path, None)
            .await
            .refused(403, "M_FORBIDDEN");
    }
}
