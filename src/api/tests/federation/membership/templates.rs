//! Servers that lie to who wants to decline an invite, or to knock.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    brought::{By, Trap},
    name,
    played::EVIL,
};

/// What is wrong with a template.
fn lies() -> Vec<(&'static str, Value)> {
    vec![
        ("room_id", json!("!other:evil.example")),
        ("sender", json!("@eve:evil.example")),
        ("state_key", json!("@eve:evil.example")),
        ("type", json!("m.room.power_levels")),
        ("content", json!({ "membership": "ban" })),
        ("content", json!({ "membership": "join" })),
        ("content", json!({})),
        ("prev_events", json!("none")),
    ]
}

/// The evil server makes templates of a membership, each with one lie, and takes what is made of them: the last
/// event that it was given.
fn play(
    trap: &Trap,
    membership: &str,
    user: &str,
    lie: Option<(&str, &Value)>,
) -> Arc<Mutex<Value>> {
    let mut template = trap.room.template(user);
    template["event"]["content"] = json!({ "membership": membership });
    match lie {
        Some(("room_version", version)) => template["room_version"] = version.clone(),
        Some((field, wrong)) => template["event"][field] = wrong.clone(),
        None => {}
    }
    let keys = String::from_utf8(trap.peer.own_keys_answer()).unwrap();
    let given: Arc<Mutex<Value>> = Arc::default();
    let takes = Arc::clone(&given);
    let answer = move |request: Request<Bytes>| {
        let path = request.uri().path();
        let body = if path.contains("/make_") {
            template.to_string()
        } else if path.contains("/send_") {
            *takes.lock() = serde_json::from_slice(request.body()).unwrap();
            json!({ "knock_room_state": [] }).to_string()
        } else {
            keys.clone()
        };
        Response::new(body.into())
    };
    trap.world.network.play(&name(EVIL), answer);
    given
}

#[tokio::test]
async fn nothing_else_is_signed_for_who_declines_an_invite() {
    let trap = Trap::new("11").await;
    let room = trap.room.room_id.as_str();
    let beth = trap.beth.user_id.as_str();
    let unknown = json!("99");
    let lies = lies();
    let lies = lies.iter().map(|(field, wrong)| (*field, wrong));
    for lie in lies.chain([("room_version", &unknown)]) {
        let given = play(&trap, "leave", beth, Some(lie));
        let invite = trap.sign(&trap.draft(), trap.room.rules);
        trap.bring_it(&invite, By::New("11")).await.unwrap();
        trap.beth.leave(room).await.ok();
        assert_eq!(*given.lock(), Value::Null, "{lie:?}");
        // For her it is over in any case.
        assert!(trap.beth.rooms("invite").await[room].is_null());
    }
    let given = play(&trap, "leave", beth, None);
    let invite = trap.sign(&trap.draft(), trap.room.rules);
    trap.bring_it(&invite, By::New("11")).await.unwrap();
    trap.beth.leave(room).await.ok();
    let given = given.lock();
    assert_eq!(given["sender"], beth);
    assert_eq!(given["content"], json!({ "membership": "leave" }));
}

#[tokio::test]
async fn nothing_else_is_signed_for_who_knocks() {
    let trap = Trap::new("11").await;
    let room = trap.room.room_id.as_str();
    let bob = trap.bob.user_id.as_str();
    let path = format!("/knock/{room}?via={EVIL}");
    for (field, wrong) in &lies() {
        let given = play(&trap, "knock", bob, Some((field, wrong)));
        let answer = trap.bob.post(&path, json!({})).await;
        answer.refused(502, "M_UNKNOWN");
        assert_eq!(*given.lock(), Value::Null, "{field} {wrong}");
        assert!(trap.bob.rooms("knock").await[room].is_null());
    }
    let unknown = json!("99");
    let given = play(&trap, "knock", bob, Some(("room_version", &unknown)));
    let answer = trap.bob.post(&path, json!({})).await;
    answer.refused(400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(*given.lock(), Value::Null);
    let given = play(&trap, "knock", bob, None);
    trap.bob.post(&path, json!({})).await.ok();
    assert_eq!(given.lock()["content"]["membership"], "knock");
    assert!(trap.bob.rooms("knock").await[room].is_object());
}
