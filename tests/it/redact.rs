//! Redactions.

use harness::User;
use serde_json::{Value, json};

use crate::{bodies, server};

async fn redact(user: &User, room: &str, event: &str, txn: &str, body: Value) -> harness::Answer {
    user.put(&format!("/rooms/{room}/redact/{event}/{txn}"), body)
        .await
}

#[tokio::test]
async fn takes_back_ones_own_words_in_every_version() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    for version in ["1", "6", "10", "11", "12"] {
        let room = alice
            .create_room(json!({"preset": "public_chat", "room_version": version}))
            .await;
        bob.join(&room).await;
        let event = bob.say(&room, "oops").await;
        let since = alice.sync(None).await.next_batch();
        let made = redact(&bob, &room, &event, "1", json!({"reason": "typo"}))
            .await
            .ok();
        assert_eq!(
            redact(&bob, &room, &event, "1", json!({"reason": "typo"}))
                .await
                .ok(),
            made
        );

        let seen = alice.event(&room, &event).await.ok();
        assert_eq!(seen["content"], json!({}));
        let because = &seen["unsigned"]["redacted_because"];
        assert_eq!(because["event_id"], made["event_id"]);
        assert_eq!(because["content"]["reason"], "typo");
        assert!(bodies(&alice.timeline(&room).await).is_empty());

        let sync = alice.sync(Some(&since)).await;
        let told = sync.timeline(&room);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0]["type"], "m.room.redaction");
        assert_eq!(told[0]["sender"], bob.id);
        // Clients of either kind find the target where they look for it.
        assert_eq!(told[0]["redacts"], event, "version {version}");
        if ["11", "12"].contains(&version) {
            assert_eq!(told[0]["content"]["redacts"], event);
        }
    }
}

#[tokio::test]
async fn others_words_need_power() {
    let server = server().await;
    let (alice, bob, carol) = (
        server.user("alice").await,
        server.user("bob").await,
        server.user("carol").await,
    );
    let room = alice.room_with(&[&bob]).await;
    let (alices, bobs) = (alice.say(&room, "a").await, bob.say(&room, "b").await);
    redact(&bob, &room, &alices, "1", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    redact(&carol, &room, &bobs, "1", json!({}))
        .await
        .refused(403, "M_FORBIDDEN");
    redact(&alice, &room, &bobs, "1", json!({})).await.ok();
    assert_eq!(bodies(&alice.timeline(&room).await), ["a"]);
}

#[tokio::test]
async fn redacted_state_keeps_only_what_the_rules_need() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let name = alice
        .set_state(&room, "m.room.name", "", json!({"name": "bad"}))
        .await;
    redact(&alice, &room, &name, "1", json!({})).await.ok();
    assert_eq!(alice.state(&room, "m.room.name", "").await.ok(), json!({}));

    let content = json!({"membership": "join", "displayname": "bad"});
    let member = bob
        .set_state(&room, "m.room.member", &bob.id, content)
        .await;
    redact(&alice, &room, &member, "2", json!({})).await.ok();
    let left = alice.state(&room, "m.room.member", &bob.id).await.ok();
    assert_eq!(left, json!({"membership": "join"}));
    bob.say(&room, "still here").await;
}

#[tokio::test]
async fn a_redaction_can_be_sent_as_any_event() {
    let server = server().await;
    let alice = server.user("alice").await;
    let room = alice.room_with(&[]).await;
    let event = alice.say(&room, "oops").await;
    alice
        .send(&room, "m.room.redaction", json!({"redacts": event}))
        .await;
    assert_eq!(alice.event(&room, &event).await.ok()["content"], json!({}));
}

#[tokio::test]
async fn events_of_other_rooms_are_out_of_reach() {
    let server = server().await;
    let alice = server.user("alice").await;
    let (room, other) = (alice.room_with(&[]).await, alice.room_with(&[]).await);
    let event = alice.say(&room, "here").await;
    let refused = redact(&alice, &other, &event, "1", json!({})).await;
    assert!([200, 400, 403, 404].contains(&refused.status), "{refused}");
    assert_eq!(
        alice.event(&room, &event).await.ok()["content"]["body"],
        "here"
    );
}

#[tokio::test]
async fn a_ban_may_take_all_words_of_its_target_away() {
    let server = server().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = alice.room_with(&[&bob]).await;
    let (stays, goes) = (alice.say(&room, "buy").await, bob.say(&room, "buy").await);
    let flag = "org.matrix.msc4293.redact_events";
    let body = json!({"user_id": bob.id, "reason": "spam", flag: "yes"});
    alice
        .post(&format!("/rooms/{room}/ban"), body)
        .await
        .refused(400, "M_BAD_JSON");
    let body = json!({"user_id": bob.id, "reason": "spam", flag: true});
    alice.post(&format!("/rooms/{room}/ban"), body).await.ok();
    // It is done in the background.
    let mut seen = alice.event(&room, &goes).await.ok();
    for _ in 0..1_000 {
        if seen["content"] == json!({}) {
            break;
        }
        seen = alice.event(&room, &goes).await.ok();
    }
    let because = &seen["unsigned"]["redacted_because"];
    assert_eq!(because["content"]["reason"], "spam");
    assert_eq!(because["content"][flag], true);
    assert_eq!(bodies(&alice.timeline(&room).await), ["buy"]);
    // A search waits for what its asker has done.
    alice.say(&room, "done").await;
    let criteria = json!({"search_categories": {"room_events": {"search_term": "buy"}}});
    let found = alice.post("/search", criteria).await.ok();
    let found = &found["search_categories"]["room_events"]["results"];
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found[0]["result"]["event_id"], stays);
}
