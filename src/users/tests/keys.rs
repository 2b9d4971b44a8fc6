//! Keys of devices, messages to them, and backups, on storage that refuses and loses.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedUserId, room_id, serde::Raw};
use serde_json::json;
use storage::{OnceKey, Range, schema};

use super::*;
use crate::{BackupKey, BackupKeys, BackupScope, KeyUpload, Messages};

on_every_engine! {
    of_many_claims_at_once_each_gets_another_key,
    what_was_given_out_is_not_taken_in_again,
    a_message_is_queued_once,
    a_device_takes_its_keys_and_messages_along,
    a_backup_counts_what_it_holds,
}

fn one_time_keys(names: std::ops::Range<u32>) -> KeyUpload {
    let keys = names.map(|name| {
        let id = format!("signed_curve25519:{name}");
        let key = json!({ "key": format!("key {name}") });
        (id.parse().unwrap(), Raw::from_json(raw(&key.to_string())))
    });
    KeyUpload {
        one_time_keys: keys.collect(),
        ..KeyUpload::default()
    }
}

fn of_device(
    user: &OwnedUserId,
    device: &str,
) -> BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>> {
    let device = (device.into(), OneTimeKeyAlgorithm::SignedCurve25519);
    BTreeMap::from([(user.clone(), BTreeMap::from([device]))])
}

/// How many rows a device has of its keys and messages.
async fn rows_of(world: &World, user: ShortUserId, device: &str) -> usize {
    let key = (user, world.storage.device_hash(device));
    let snapshot = world.users.snapshot().await.unwrap();
    let count = |rows: Vec<Vec<_>>| rows.iter().map(Vec::len).sum::<usize>();
    let keys = snapshot
        .multi_range(&schema::ONE_TIME_KEY_BY_DEVICE, &[Range::prefix(&key)])
        .await
        .unwrap();
    let messages = snapshot
        .multi_range(&schema::MESSAGE_BY_DEVICE, &[Range::prefix(&key)])
        .await
        .unwrap();
    let counts = snapshot
        .multi_get(&schema::KEY_COUNTS_BY_DEVICE, &[key])
        .await
        .unwrap();
    count(keys) + messages.iter().map(Vec::len).sum::<usize>() + counts.iter().flatten().count()
}

async fn of_many_claims_at_once_each_gets_another_key() {
    let world = world(settings()).await;
    let (_, anna) = world.account("anna").await;
    let login = world.login("anna", Some("PHONE")).await;
    let requester = world.requester(&login).await;
    for names in [0..15, 10..30] {
        world
            .users
            .upload_keys(&requester, &one_time_keys(names))
            .await
            .unwrap();
    }
    let wanted = of_device(&anna, "PHONE");
    let claim = async || {
        let claimed = world.users.claim_keys(&wanted).await.unwrap();
        let key = claimed.get(&anna)?.values().next()?;
        Some(key.0.clone())
    };
    let mut claimed = Vec::new();
    for _ in 0..10 {
        let (a, b, c) = tokio::join!(claim(), claim(), claim());
        claimed.extend([a, b, c].into_iter().flatten());
    }
    // A reply that was lost may have wasted one; none was given out twice.
    let different: BTreeSet<_> = claimed.iter().collect();
    assert_eq!(different.len(), claimed.len());
    assert!(
        claimed.len() <= 30 && claimed.len() > 15,
        "{}",
        claimed.len()
    );
    let counts = world
        .users
        .upload_keys(&requester, &KeyUpload::default())
        .await
        .unwrap();
    assert_eq!(counts.get("signed_curve25519").copied(), Some(0));
}

async fn what_was_given_out_is_not_taken_in_again() {
    let world = world(settings()).await;
    let (_, anna) = world.account("anna").await;
    let login = world.login("anna", Some("PHONE")).await;
    let requester = world.requester(&login).await;
    let upload = async |names| {
        let keys = one_time_keys(names);
        let counts = world.users.upload_keys(&requester, &keys).await.unwrap();
        counts.get("signed_curve25519").copied().unwrap_or_default()
    };
    assert_eq!(upload(0..2).await, 2);
    let wanted = of_device(&anna, "PHONE");
    let mut claimed = BTreeSet::new();
    // A reply that is lost may waste one.
    while let Some(keys) = world.users.claim_keys(&wanted).await.unwrap().get(&anna) {
        assert!(claimed.insert(keys.values().next().unwrap().0.clone()));
    }
    // The answer to the upload never came: the device uploads the same again, and something new.
    assert_eq!(upload(0..3).await, 1);
    let keys = world.users.claim_keys(&wanted).await.unwrap();
    if let Some(keys) = keys.get(&anna) {
        assert_eq!(keys.values().next().unwrap().0, "signed_curve25519:2");
    }
}

fn messages(user: &OwnedUserId, device: &str, number: u64) -> Messages {
    let content = Raw::from_json(raw(&json!({ "number": number }).to_string()));
    let device = (device.try_into().unwrap(), content);
    Messages::from([(user.clone(), BTreeMap::from([device]))])
}

fn once(name: u8) -> OnceKey {
    OnceKey {
        day: 20_000,
        name: storage::NameHash([name; 16]),
    }
}

async fn a_message_is_queued_once() {
    let world = world(settings()).await;
    let (user, anna) = world.account("anna").await;
    let login = world.login("anna", Some("PHONE")).await;
    let requester = world.requester(&login).await;
    for number in [1, 2, 1, 2, 1] {
        world
            .users
            .send_to_devices(
                &requester.user_id,
                "org.example",
                &messages(&anna, "PHONE", number),
                once(u8::try_from(number).unwrap()),
            )
            .await
            .unwrap();
    }
    assert_eq!(rows_of(&world, user, "PHONE").await, 2);
    let device = world.storage.device_hash("PHONE");
    world
        .users
        .remove_messages(user, device, storage::Position::END)
        .await
        .unwrap();
    assert_eq!(rows_of(&world, user, "PHONE").await, 0);
}

async fn a_device_takes_its_keys_and_messages_along() {
    let world = world(settings()).await;
    let (user, anna) = world.account("anna").await;
    let login = world.login("anna", Some("PHONE")).await;
    let requester = world.requester(&login).await;
    // More than are removed one by one.
    world
        .users
        .upload_keys(&requester, &one_time_keys(0..600))
        .await
        .unwrap();
    world
        .users
        .send_to_devices(
            &requester.user_id,
            "org.example",
            &messages(&anna, "*", 1),
            once(1),
        )
        .await
        .unwrap();
    assert_eq!(rows_of(&world, user, "PHONE").await, 602);
    world.users.logout(&requester).await.unwrap();
    assert_eq!(rows_of(&world, user, "PHONE").await, 0);
    // A token that was proven before the logout uploads nothing after it.
    let late = world
        .users
        .upload_keys(&requester, &one_time_keys(0..1))
        .await;
    assert_eq!(code(late), (401, "M_UNKNOWN_TOKEN".to_owned()));
    let many = world.login("anna", Some("TABLET")).await;
    let many = world.requester(&many).await;
    let too_many = world
        .users
        .upload_keys(&many, &one_time_keys(0..1_001))
        .await;
    assert_eq!(code(too_many), (413, "M_TOO_LARGE".to_owned()));
}

async fn a_backup_counts_what_it_holds() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let users = &world.users;
    let version = users
        .create_backup(user, "org.example", &raw("{}"))
        .await
        .unwrap();
    let keys = |names: std::ops::Range<u32>, index: u64| {
        let sessions = names.map(|name| {
            let key = BackupKey {
                first_message_index: index,
                forwarded_count: 0,
                is_verified: false,
                json: raw("{}"),
            };
            (format!("session{name}"), key)
        });
        BackupKeys::from([(room_id!("!a:a.example").to_owned(), sessions.collect())])
    };
    let put = async |keys: BackupKeys| {
        let state = users.put_backup_keys(user, &version, &keys).await;
        state.unwrap().count
    };
    let counts = tokio::join!(put(keys(0..300, 5)), put(keys(200..500, 5)));
    assert!(counts.0 == 500 || counts.1 == 500, "{counts:?}");
    assert_eq!(put(keys(0..500, 9)).await, 500);
    let state = users
        .delete_backup_keys(user, &version, BackupScope::All)
        .await
        .unwrap();
    assert_eq!(state.count, 0);
    users.delete_backup(user, &version).await.unwrap();
    let next = users
        .create_backup(user, "org.example", &raw("{}"))
        .await
        .unwrap();
    assert_ne!(next, version);
}
