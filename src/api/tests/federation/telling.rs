//! What another server tells beside events, and keys of its people and of ours: what is believed, what is kept,
//! what is not.

use federation::Patience;
use http::Method;
use ruma::{
    RoomVersionId, ServerName,
    api::federation::{
        device::get_devices, keys, transactions::send_transaction_message::v1::Request,
    },
    device_id,
    serde::Raw,
    user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    cross_signing_key,
    far::{NEAR, World},
    signing_key,
};

const BOB: &str = "@bob:far.example";
const ALICE: &str = "@alice:near.example";

fn near() -> &'static ServerName {
    NEAR.try_into().unwrap()
}

/// Sends EDUs from the played server.
async fn tell(world: &World, id: &str, edus: &[(&str, Value)]) {
    let origin = "far.example".try_into().unwrap();
    let mut question = Request::new(id.into(), origin, world.clock.now());
    question.edus = edus
        .iter()
        .map(|(edu_type, content)| {
            let edu = json!({ "edu_type": edu_type, "content": content });
            Raw::from_json(to_raw_value(&edu).unwrap())
        })
        .collect();
    world
        .far
        .ask(near(), question, Patience::QUERY)
        .await
        .unwrap();
}

fn device_keys(user: &str, device: &str) -> Value {
    json!({
        "user_id": user, "device_id": device, "algorithms": ["m.megolm.v1.aes-sha2"],
        "keys": { format!("curve25519:{device}"): "aGVsbG8" }, "signatures": {},
    })
}

fn update(user: &str, device: &str, id: u64, prev: &[u64]) -> (&'static str, Value) {
    let content = json!({
        "user_id": user, "device_id": device, "stream_id": id, "prev_id": prev,
        "keys": device_keys(user, device),
    });
    ("m.device_list_update", content)
}

/// The devices that Alice is told somebody has.
async fn devices(world: &World, user: &str) -> Vec<String> {
    let body = json!({ "device_keys": { user: [] } });
    let answer = world.client(Method::POST, "/keys/query", &body).await;
    let devices = answer["device_keys"][user].as_object();
    devices
        .into_iter()
        .flatten()
        .map(|(id, _)| id.clone())
        .collect()
}

/// What Alice is told since a token, and the next one.
async fn sync(world: &World, since: &str) -> (Value, String) {
    let since = match since {
        "" => String::new(),
        since => format!("?since={since}"),
    };
    let sync = world
        .client(Method::GET, &format!("/sync{since}"), &Value::Null)
        .await;
    let next = sync["next_batch"].as_str().unwrap().to_owned();
    (sync, next)
}

/// Waits for what goes on beside requests.
async fn settled(world: &World) {
    while !world.server.tasks.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn devices_of_people_elsewhere_are_kept_for_as_long_as_they_can_be_relied_on() {
    let mut world = World::new(RoomVersionId::V11).await;
    let answer = json!({ "device_keys": { BOB: { "PHONE": device_keys(BOB, "PHONE") } } });
    world.answer_with("/user/keys/query", answer);
    let all = json!({
        "user_id": BOB, "stream_id": 5,
        "devices": [{ "device_id": "PHONE", "keys": device_keys(BOB, "PHONE") }],
    });
    world.answer_with("/user/devices", all);
    for _ in 0..3 {
        assert_eq!(devices(&world, BOB).await, ["PHONE"]);
    }
    assert_eq!(world.asked("/user/keys/query"), 1, "it is kept");
    let (_, since) = sync(&world, "").await;
    // It follows what we never saw.
    tell(&world, "1", &[update(BOB, "PHONE", 5, &[4])]).await;
    settled(&world).await;
    assert_eq!(world.asked("/user/devices"), 1, "all of it is asked for");
    let (told, since) = sync(&world, &since).await;
    assert_eq!(told["device_lists"]["changed"], json!([BOB]));
    tell(&world, "2", &[update(BOB, "TABLET", 6, &[5])]).await;
    assert_eq!(devices(&world, BOB).await, ["PHONE", "TABLET"]);
    let (told, since) = sync(&world, &since).await;
    assert_eq!(told["device_lists"]["changed"], json!([BOB]));
    // The same again says nothing.
    tell(&world, "3", &[update(BOB, "TABLET", 6, &[5])]).await;
    let (told, _) = sync(&world, &since).await;
    assert_eq!(
        told["device_lists"]["changed"]
            .as_array()
            .map(Vec::len)
            .unwrap_or(0),
        0
    );
    let gone = json!({ "user_id": BOB, "device_id": "PHONE", "stream_id": 7, "prev_id": [6], "deleted": true });
    tell(&world, "4", &[("m.device_list_update", gone)]).await;
    assert_eq!(devices(&world, BOB).await, ["TABLET"]);
    assert_eq!(world.asked("/user/keys/query"), 1);
    // Without a shared room nobody tells of changes.
    let bob = world.bob.clone();
    let leave = world.member(&bob, "leave");
    assert_eq!(world.send(&[&leave]).await, [Ok(())]);
    assert_eq!(devices(&world, BOB).await, ["PHONE"]);
    assert_eq!(devices(&world, BOB).await, ["PHONE"]);
    assert_eq!(world.asked("/user/keys/query"), 3);
    // Who comes back may have others.
    world.look().await;
    let join = world.member(&bob, "join");
    assert_eq!(world.send(&[&join]).await, [Ok(())]);
    assert_eq!(devices(&world, BOB).await, ["PHONE"]);
    assert_eq!(world.asked("/user/keys/query"), 4);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_named_and_holds_up_nobody() {
    let world = World::new(RoomVersionId::V11).await;
    world.network.take_away("far.example".try_into().unwrap());
    let body = json!({ "device_keys": { BOB: [], ALICE: [] } });
    let answer = world.client(Method::POST, "/keys/query", &body).await;
    assert_eq!(
        answer["failures"]["far.example"]["errcode"],
        "M_UNREACHABLE"
    );
    assert!(answer["device_keys"][ALICE].is_object(), "{answer}");
    assert_eq!(answer["device_keys"].get(BOB), None);
    let body = json!({ "one_time_keys": { BOB: { "PHONE": "signed_curve25519" } } });
    let answer = world.client(Method::POST, "/keys/claim", &body).await;
    assert_eq!(
        answer["failures"]["far.example"]["errcode"],
        "M_UNREACHABLE"
    );
}

#[tokio::test]
async fn keys_that_a_server_makes_up_are_not_passed_on() {
    let world = World::new(RoomVersionId::V11).await;
    let mut forged = device_keys(BOB, "FORGED");
    forged["keys"]["ed25519:FORGED"] = json!(world.key().verify_key().to_base64());
    forged["signatures"] = json!({ BOB: { "ed25519:FORGED": "AAAA" } });
    let answer = json!({
        "device_keys": {
            BOB: {
                "PHONE": device_keys(BOB, "PHONE"),
                "OTHER": device_keys(BOB, "PHONE"),
                "THEIRS": device_keys(ALICE, "THEIRS"),
                "FORGED": forged,
            },
            ALICE: { "PHONE": device_keys(ALICE, "PHONE") },
        },
        "master_keys": { BOB: { "user_id": ALICE, "usage": ["master"], "keys": { "ed25519:a": "a" } } },
    });
    world.answer_with("/user/keys/query", answer);
    let body = json!({ "device_keys": { BOB: [] } });
    let answer = world.client(Method::POST, "/keys/query", &body).await;
    let told = answer["device_keys"].as_object().unwrap();
    assert_eq!(told.keys().collect::<Vec<_>>(), [BOB]);
    let devices = told[BOB].as_object().unwrap();
    assert_eq!(devices.keys().collect::<Vec<_>>(), ["PHONE"]);
    assert_eq!(answer["master_keys"][BOB], Value::Null);
    let given = json!({ "one_time_keys": {
        BOB: { "PHONE": { "signed_curve25519:A": { "key": "a" }, "other:B": { "key": "b" } } },
        ALICE: { "PHONE": { "signed_curve25519:A": { "key": "a" } } },
    } });
    world.answer_with("/user/keys/claim", given);
    let body = json!({ "one_time_keys": { BOB: { "PHONE": "signed_curve25519" } } });
    let answer = world.client(Method::POST, "/keys/claim", &body).await;
    let expected = json!({ BOB: { "PHONE": { "signed_curve25519:A": { "key": "a" } } } });
    assert_eq!(answer["one_time_keys"], expected);
}

#[tokio::test]
async fn a_message_to_a_device_arrives_once_and_only_from_who_sends_it() {
    let world = World::new(RoomVersionId::V11).await;
    let (_, since) = sync(&world, "").await;
    let message = |sender: &str, id: &str, number: u32| {
        let content = json!({
            "sender": sender, "type": "org.example", "message_id": id,
            "messages": {
                ALICE: { "*": { "number": number } },
                "@nobody:near.example": { "*": {} },
                BOB: { "*": {} },
            },
        });
        ("m.direct_to_device", content)
    };
    let edus = [
        message(BOB, "a", 1),
        message(ALICE, "b", 2),
        message("@c:c.example", "c", 3),
    ];
    tell(&world, "1", &edus).await;
    tell(&world, "2", &[message(BOB, "a", 1)]).await;
    tell(&world, "3", &[message(BOB, "d", 4)]).await;
    let (told, _) = sync(&world, &since).await;
    let numbers: Vec<_> = told["to_device"]["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            (
                event["sender"].as_str().unwrap(),
                event["content"]["number"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(numbers, [(BOB, 1), (BOB, 4)]);
}

#[tokio::test]
async fn nobody_speaks_for_others_nor_in_rooms_where_they_are_not() {
    let mut world = World::new(RoomVersionId::V11).await;
    let room = world.room.to_string();
    let event = world.say("hello").await;
    let (_, mut since) = sync(&world, "").await;
    let typing = |user: &str| {
        let content = json!({ "room_id": room, "user_id": user, "typing": true });
        ("m.typing", content)
    };
    let receipt = |user: &str| {
        let of_user = json!({ user: { "event_ids": [event], "data": { "ts": 5 } } });
        ("m.receipt", json!({ room.clone(): { "m.read": of_user } }))
    };
    let presence = |user: &str| {
        let push = json!([{ "user_id": user, "presence": "online", "last_active_ago": 1 }]);
        ("m.presence", json!({ "push": push }))
    };
    for user in [ALICE, "@stranger:far.example", "@c:c.example"] {
        let edus = [
            typing(user),
            receipt(user),
            presence(user),
            update(user, "X", 1, &[]),
        ];
        tell(&world, user, &edus).await;
        let (told, next) = sync(&world, &since).await;
        assert_eq!(
            told["rooms"]["join"][&room]["ephemeral"]["events"],
            Value::Null,
            "{told}"
        );
        assert_eq!(
            told["device_lists"]["changed"]
                .as_array()
                .map_or(0, Vec::len),
            0
        );
        assert!(!told["presence"].to_string().contains("online"), "{told}");
        since = next;
    }
    // Nor do words that are none harm anybody.
    let broken = [
        ("m.typing", json!({ "room_id": 5 })),
        ("m.receipt", json!({ room.clone(): [] })),
        ("m.presence", json!({ "push": {} })),
        ("m.direct_to_device", json!({})),
        ("m.device_list_update", json!({ "stream_id": -1 })),
        (
            "m.signing_key_update",
            json!({ "user_id": BOB, "master_key": {} }),
        ),
        ("org.example", json!(null)),
    ];
    tell(&world, "broken", &broken).await;
    // What is no event id is taken for one that is not known.
    let odd = json!({ BOB: { "event_ids": ["odd"], "data": { "ts": 3 } } });
    let odd = ("m.receipt", json!({ room.clone(): { "m.read": odd } }));
    tell(&world, "odd", &[odd]).await;
    let (told, since) = sync(&world, &since).await;
    let ephemeral = &told["rooms"]["join"][&room]["ephemeral"]["events"][0];
    assert_eq!(
        ephemeral["content"]["odd"]["m.read"][BOB]["ts"], 3,
        "{told}"
    );
    let edus = [typing(BOB), receipt(BOB), presence(BOB)];
    tell(&world, "good", &edus).await;
    let (told, since) = sync(&world, &since).await;
    let ephemeral = told["rooms"]["join"][&room]["ephemeral"]["events"].to_string();
    assert!(
        ephemeral.contains("m.typing") && ephemeral.contains("m.receipt"),
        "{told}"
    );
    assert_eq!(told["presence"]["events"][0]["sender"], BOB);
    assert_eq!(
        told["presence"]["events"][0]["content"]["presence"],
        "online"
    );
    // A server that the room's list denies says nothing in it.
    let acl = json!({ "allow": ["*"], "deny": ["far.example"] });
    world.set("m.room.server_acl", &acl).await;
    let quiet = json!({ "room_id": room, "user_id": BOB, "typing": false });
    tell(&world, "denied", &[("m.typing", quiet)]).await;
    let (told, _) = sync(&world, &since).await;
    assert_eq!(
        told["rooms"]["join"][&room]["ephemeral"]["events"],
        Value::Null,
        "{told}"
    );
}

#[tokio::test]
async fn other_servers_get_the_keys_of_people_of_ours_and_of_nobody_else() {
    let world = World::new(RoomVersionId::V11).await;
    let me = world
        .client(Method::GET, "/account/whoami", &Value::Null)
        .await;
    let device = me["device_id"].as_str().unwrap();
    let upload = json!({
        "device_keys": device_keys(ALICE, device),
        "one_time_keys": { "signed_curve25519:A": { "key": "a" } },
    });
    world.client(Method::POST, "/keys/upload", &upload).await;
    let wanted = [
        (user_id!("@alice:near.example").to_owned(), vec![]),
        (world.bob.clone(), vec![]),
    ];
    let question = keys::get_keys::v1::Request::new(wanted.into());
    let answer = world
        .far
        .ask(near(), question, Patience::QUERY)
        .await
        .unwrap();
    assert_eq!(answer.device_keys.len(), 1);
    let answer = answer.device_keys[user_id!("@alice:near.example")].len();
    assert_eq!(answer, 1);
    let mut given = Vec::new();
    for _ in 0..2 {
        let of_alice = [(device.into(), "signed_curve25519".into())].into();
        let claims = [(user_id!("@alice:near.example").to_owned(), of_alice)].into();
        let question = keys::claim_keys::v1::Request::new(claims);
        let answer = world
            .far
            .ask(near(), question, Patience::QUERY)
            .await
            .unwrap();
        given.push(answer.one_time_keys.len());
    }
    assert_eq!(given, [1, 0], "each once");
    let question = get_devices::v1::Request::new(user_id!("@alice:near.example").to_owned());
    let answer = world
        .far
        .ask(near(), question, Patience::QUERY)
        .await
        .unwrap();
    assert_eq!(answer.devices.len(), 1);
    assert_ne!(answer.devices[0].device_id, device_id!("PHONE"));
    for nobody in [
        user_id!("@nobody:near.example"),
        user_id!("@bob:far.example"),
    ] {
        let question = get_devices::v1::Request::new(nobody.to_owned());
        let answer = world.far.ask(near(), question, Patience::QUERY).await;
        assert!(answer.is_err(), "{nobody}");
    }
}

#[tokio::test]
async fn new_keys_of_somebody_elsewhere_are_believed_if_their_master_key_signed_them() {
    let world = World::new(RoomVersionId::V11).await;
    let (master, own) = (signing_key(1), signing_key(2));
    let usage = "self_signing";
    let master_key = cross_signing_key(BOB, "master", &master, &master);
    let answer = json!({
        "device_keys": { BOB: { "PHONE": device_keys(BOB, "PHONE") } },
        "master_keys": { BOB: master_key },
        "self_signing_keys": { BOB: cross_signing_key(BOB, usage, &own, &master) },
    });
    world.answer_with("/user/keys/query", answer);
    let told = async || {
        let body = json!({ "device_keys": { BOB: [] } });
        let keys = world.client(Method::POST, "/keys/query", &body).await;
        let key = &keys["self_signing_keys"][BOB]["keys"];
        let name = key.as_object().unwrap().keys().next().cloned();
        name.unwrap()
    };
    let name = |seed: u8| format!("ed25519:{}", signing_key(seed).verify_key().to_base64());
    assert_eq!(told().await, name(2));
    let new = |seed: u8, by: u8| {
        let key = cross_signing_key(BOB, usage, &signing_key(seed), &signing_key(by));
        let content = json!({ "user_id": BOB, "self_signing_key": key });
        ("m.signing_key_update", content)
    };
    // Signed by a key that is none of theirs, and in the name of the right one by a wrong one.
    let mut forged = new(4, 5);
    let by = name(1);
    let signature = forged.1["self_signing_key"]["signatures"][BOB][name(5)].take();
    forged.1["self_signing_key"]["signatures"][BOB] = json!({ by: signature });
    tell(&world, "1", &[new(3, 3), forged]).await;
    settled(&world).await;
    assert_eq!(told().await, name(2));
    tell(&world, "2", &[new(6, 1)]).await;
    settled(&world).await;
    assert_eq!(told().await, name(6));
    assert_eq!(world.asked("/user/keys/query"), 1, "it is kept");
    assert_eq!(world.asked("/user/devices"), 0);
}
