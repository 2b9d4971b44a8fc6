//! Devices, tokens and the memory of whose they are.

use std::time::Duration;

use ruma::device_id;

use super::*;
use crate::Seen;

on_every_engine! {
    a_login_with_an_existing_device_ends_its_old_tokens,
    of_racing_logins_of_a_device_one_token_is_left,
    logging_out_ends_the_device,
    devices_have_a_limit,
    many_devices_go_in_several_batches,
    a_logout_wins_against_requests_that_are_on_their_way,
    garbage_is_nobodys_token,
    devices_of_others_cannot_be_seen_or_touched,
    a_device_is_seen_once_in_a_while,
    a_password_proves_a_requester_for_one_purpose,
}

async fn a_login_with_an_existing_device_ends_its_old_tokens() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let first = world.login("anna", Some("PHONE")).await;
    let other = world.login("anna", None).await;
    world
        .users
        .rename_device(user, device_id!("PHONE"), Some("My phone"))
        .await
        .unwrap();
    // Once in memory, once not.
    assert!(world.is_logged_in(&first).await);
    let second = world.login("anna", Some("PHONE")).await;
    assert!(!world.is_logged_in(&first).await);
    assert!(world.is_logged_in(&second).await && world.is_logged_in(&other).await);
    let phone = world
        .users
        .find_device(user, device_id!("PHONE"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(phone.display_name.as_deref(), Some("My phone"));
    assert_eq!(world.users.devices(user).await.unwrap().len(), 2);
}

async fn of_racing_logins_of_a_device_one_token_is_left() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let login = || world.login("anna", Some("PHONE"));
    let logins: [LoggedIn; 4] = tokio::join!(login(), login(), login(), login()).into();
    let mut open = 0;
    for login in &logins {
        open += usize::from(world.is_logged_in(login).await);
    }
    assert_eq!(open, 1);
    assert_eq!(world.users.devices(user).await.unwrap().len(), 1);
}

async fn devices_have_a_limit() {
    let mut settings = settings();
    settings.limits.max_devices_of_user = 2;
    settings.support.email = "help@example.org".to_owned();
    let world = world(settings).await;
    world.account("anna").await;
    world.account("bert").await;
    let one = world.login("anna", Some("ONE")).await;
    world.login("anna", Some("TWO")).await;
    let login = async |device| {
        let password = password_login("anna", PASSWORD);
        let device = device_called(Some(device));
        world.users.login(&password, device, None).await
    };
    let refused = (403, "M_USER_LIMIT_EXCEEDED".to_owned());
    assert_eq!(code(login("THREE").await), refused);
    // One that is there already is none more, and neither is that of somebody else.
    login("TWO").await.unwrap();
    world.login("bert", Some("THREE")).await;
    let one = world.requester(&one).await;
    world.users.logout(&one).await.unwrap();
    login("THREE").await.unwrap();
}

async fn logging_out_ends_the_device() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let one = world.login("anna", Some("ONE")).await;
    let two = world.login("anna", Some("TWO")).await;
    let three = world.login("anna", Some("THREE")).await;
    let settings = raw(r#"{"is_silenced":true}"#);
    let kinds = [
        "m.local_notification_settings.ONE",
        "org.matrix.msc3890.local_notification_settings.ONE",
    ];
    for kind in kinds {
        let set = world.users.set_account_data(user, None, kind, &settings);
        set.await.unwrap();
    }
    world
        .users
        .logout(&*world.requester(&one).await)
        .await
        .unwrap();
    assert!(!world.is_logged_in(&one).await);
    assert!(
        world
            .users
            .find_device(user, device_id!("ONE"))
            .await
            .unwrap()
            .is_none()
    );
    for kind in kinds {
        let found = world.users.find_account_data(user, None, kind);
        assert!(found.await.unwrap().is_none());
    }
    world
        .users
        .logout_all(&*world.requester(&two).await)
        .await
        .unwrap();
    assert!(!world.is_logged_in(&two).await && !world.is_logged_in(&three).await);
    assert!(world.users.devices(user).await.unwrap().is_empty());
    // What is gone is gone; again is no error.
    world
        .users
        .delete_devices(user, &[device_id!("TWO")])
        .await
        .unwrap();
}

async fn many_devices_go_in_several_batches() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    for _ in 0..120 {
        world.login("anna", None).await;
    }
    let kept = world.login("anna", None).await;
    let requester = world.requester(&kept).await;
    world
        .users
        .remove_all_devices(user, requester.device)
        .await
        .unwrap();
    assert_eq!(world.users.count_devices(user).await.unwrap(), 1);
    assert!(world.is_logged_in(&kept).await);
    // Nothing of them is left: their tokens lie under two tables.
    let rows = world.users.snapshot().await.unwrap();
    let tokens = rows
        .multi_range(
            &storage::schema::DEVICE_BY_TOKEN,
            &[storage::Range::prefix(&())],
        )
        .await
        .unwrap();
    assert_eq!(tokens[0].len(), 1);
}

async fn a_logout_wins_against_requests_that_are_on_their_way() {
    for round in 0..50 {
        let world = world_on(empty(), settings(), round).await;
        let (user, _) = world.account("anna").await;
        let login = world.login("anna", Some("PHONE")).await;
        let phone = [device_id!("PHONE")];
        let ask = || world.users.authenticate(login.access_token.as_str());
        let (_, ended, _) = tokio::join!(ask(), world.users.delete_devices(user, &phone), ask());
        ended.unwrap();
        assert!(!world.is_logged_in(&login).await);
    }
}

async fn garbage_is_nobodys_token() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login("anna", None).await;
    let mut foreign = login.access_token.as_str().to_owned();
    foreign.pop();
    for garbage in [
        "",
        "x",
        "cat_",
        &foreign,
        "syt_YW5uYQ_abcdefghijklmnopqrst_2DXPnE",
    ] {
        assert!(
            world.users.authenticate(garbage).await.unwrap().is_none(),
            "{garbage}"
        );
    }
    // One that we could have made, but did not.
    let made_up = crate::AccessToken::draw("cat_", ShortUserId([1; 8]), &Random::seeded(9));
    assert!(
        world
            .users
            .authenticate(made_up.as_str())
            .await
            .unwrap()
            .is_none()
    );
}

async fn devices_of_others_cannot_be_seen_or_touched() {
    let world = world(settings()).await;
    let (anna, _) = world.account("anna").await;
    let (bert, _) = world.account("bert").await;
    let login = world.login("anna", Some("PHONE")).await;
    world
        .users
        .delete_devices(bert, &[device_id!("PHONE")])
        .await
        .unwrap();
    assert!(
        world
            .users
            .find_device(bert, device_id!("PHONE"))
            .await
            .unwrap()
            .is_none()
    );
    let renamed = world
        .users
        .rename_device(bert, device_id!("PHONE"), Some("x"))
        .await;
    assert_eq!(code(renamed), (404, "M_NOT_FOUND".to_owned()));
    assert!(world.is_logged_in(&login).await);
    assert_eq!(world.users.devices(anna).await.unwrap().len(), 1);
    let endless = "x".repeat(5_000);
    let renamed = world
        .users
        .rename_device(anna, device_id!("PHONE"), Some(&endless))
        .await;
    assert_eq!(code(renamed), (413, "M_TOO_LARGE".to_owned()));
}

async fn a_device_is_seen_once_in_a_while() {
    let world = world(settings()).await;
    let (user, _) = world.account("anna").await;
    let login = world.login("anna", Some("PHONE")).await;
    let requester = world.requester(&login).await;
    let saw = async |ip: &str| {
        let seen = Seen {
            ip: Some(ip),
            user_agent: Some("Element"),
        };
        world.users.saw(&requester, seen).await.unwrap();
        let device = world
            .users
            .find_device(user, device_id!("PHONE"))
            .await
            .unwrap()
            .unwrap();
        (device.last_seen_ip.unwrap(), device.last_seen_ts.unwrap())
    };
    assert_eq!(saw("10.0.0.1").await, ("10.0.0.1".to_owned(), NOW));
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(saw("10.0.0.2").await, ("10.0.0.1".to_owned(), NOW));
    world.clock.advance(Duration::from_secs(600));
    assert_eq!(
        saw("10.0.0.3").await,
        ("10.0.0.3".to_owned(), NOW + 660_000)
    );
    world.users.logout(&requester).await.unwrap();
    world.clock.advance(Duration::from_secs(600));
    let seen = Seen::default();
    world.users.saw(&requester, seen).await.unwrap();
    assert!(world.users.devices(user).await.unwrap().is_empty());
}

async fn a_password_proves_a_requester_for_one_purpose() {
    use ruma::api::client::uiaa::{FallbackAcknowledgement, Password};
    let world = world(settings()).await;
    world.account("anna").await;
    world.account("bert").await;
    let requester = world.requester(&world.login("anna", None).await).await;
    let prove = async |purpose: &str, auth: Option<AuthData>| {
        world
            .users
            .prove_again(&requester, purpose, auth.as_ref())
            .await
    };
    let auth = |name: &str, password: &str, session: Option<&str>| {
        let mut data = Password::new(identifier(name), password.to_owned());
        data.session = session.map(str::to_owned);
        Some(AuthData::Password(data))
    };
    let challenge = prove("delete_device A", None).await.unwrap_err();
    let session = challenge.uiaa_info().unwrap().session.clone().unwrap();
    let wrong = prove("delete_device A", auth("anna", "wrong", Some(&session))).await;
    assert_eq!(code(wrong), (401, "M_FORBIDDEN".to_owned()));
    let other = prove("delete_device A", auth("bert", PASSWORD, Some(&session))).await;
    assert_eq!(code(other), (403, "M_FORBIDDEN".to_owned()));
    prove("delete_device A", auth("anna", PASSWORD, Some(&session)))
        .await
        .unwrap();
    // Neither the same again, nor anything else with the proof.
    let again = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(session));
    let again = prove("delete_device A", Some(again)).await;
    assert_eq!(code(again), (401, String::new()));
    let dummy = prove("delete_device A", Some(dummy())).await;
    assert_eq!(code(dummy), (401, "M_UNRECOGNIZED".to_owned()));
    // A client that asks nothing first.
    prove("delete_device B", auth("@Anna:a.example", PASSWORD, None))
        .await
        .unwrap();
}
