//! Invites of people of whom only an address was known.

use http::Method;
use pdu::{
    SigningKey,
    canonical::{Numbers, Value as Canonical},
};
use ruma::server_name;
use serde_json::{Value, json};

use super::{A, Answer, B, Person, World, ask};

/// What the identity server says about whose an address is.
fn statement(key: &SigningKey, mxid: &str) -> Value {
    let text = json!({ "mxid": mxid, "token": "abc" }).to_string();
    let Canonical::Object(mut signed) =
        Canonical::parse(text.as_bytes(), Numbers::Canonical).unwrap()
    else {
        panic!("no object");
    };
    key.sign_json(server_name!("id.example"), &mut signed);
    serde_json::from_slice(&signed.to_canonical()).unwrap()
}

/// Tells Bob's server that an address is his.
async fn bind(bob: &Person, alice: &Person, room: &str, signed: Value) -> Answer {
    let invite = json!({
        "medium": "email", "address": "bob@mail.example", "mxid": bob.user_id,
        "room_id": room, "sender": alice.user_id, "signed": signed,
    });
    let body = json!({
        "medium": "email", "address": "bob@mail.example", "mxid": bob.user_id, "invites": [invite],
    });
    let path = "/_matrix/federation/v1/3pid/onbind";
    ask(&bob.server, "", Method::PUT, path, &body).await
}

#[tokio::test]
async fn an_address_that_turns_out_to_be_somebodys_invites_them() {
    let world = World::new();
    let (a, b) = (world.server(A).await, world.server(B).await);
    let (alice, bob) = (Person::new(&a, "alice").await, Person::new(&b, "bob").await);
    let room = alice.create(json!({ "preset": "private_chat" })).await;
    let key = SigningKey::from_seed(&[4; 32], "0").unwrap();
    let other = SigningKey::from_seed(&[5; 32], "0").unwrap();
    let public = key.verify_key().to_base64();
    let content = json!({
        "display_name": "b…@mail…", "public_key": public, "key_validity_url": "https://id.example",
        "public_keys": [{ "public_key": public }],
    });
    let path = format!("/rooms/{room}/state/m.room.third_party_invite/abc");
    alice.put(&path, content).await.ok();
    // Signed by somebody else, or about somebody else, it is worth nothing.
    let own = bob.user_id.as_str();
    for forged in [
        statement(&other, own),
        statement(&key, "@mallory:b.example"),
        json!({}),
    ] {
        bind(&bob, &alice, &room, forged).await.ok();
        assert!(bob.rooms("invite").await[&room].is_null());
    }
    bind(&bob, &alice, &room, statement(&key, own)).await.ok();
    assert!(bob.rooms("invite").await[&room].is_object());
    assert_eq!(alice.membership(&room, &bob).await, "invite");
    bob.join(&room, &[]).await.ok();
    let mut nobody = bob;
    nobody.user_id = "@nobody:b.example".try_into().unwrap();
    bind(&nobody, &alice, &room, json!({}))
        .await
        .refused(404, "M_NOT_FOUND");
}
