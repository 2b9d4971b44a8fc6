//! Registration, its tokens and sessions.

use std::time::Duration;

use ruma::api::client::uiaa::{AuthType, FallbackAcknowledgement};

use super::*;
use crate::NewRegistrationToken;

on_every_engine! {
    closed_registration_tells_how_to_open_it_once_there_is_an_account,
    the_first_token_makes_one_administrator,
    another_start_without_accounts_ends_the_first_token_before,
    a_first_token_races_to_one_account,
    without_auth_the_client_hears_what_to_prove,
    a_session_ends_after_a_while,
    tokens_count_expire_and_are_well_formed,
    of_two_who_want_a_name_one_gets_it,
    hostile_names_weak_passwords_and_endless_devices_are_refused,
    a_name_is_drawn_and_a_login_can_be_inhibited,
    guests_come_in_where_they_may,
}

fn with_token() -> Settings {
    let mut settings = open();
    settings.registration.require_token = true;
    settings
}

async fn closed_registration_tells_how_to_open_it_once_there_is_an_account() {
    let world = world(settings()).await;
    world
        .users
        .create(NewAccount {
            username: "op",
            admin: true,
            ..NewAccount::default()
        })
        .await
        .unwrap();
    assert_eq!(world.users.first_token(), None);
    let refused = world.users.register(wish("anna", Some(&dummy()))).await;
    let told = refused.as_ref().unwrap_err().to_string();
    assert!(told.contains("chapar user create"), "{told}");
    assert_eq!(code(refused), (403, "M_FORBIDDEN".to_owned()));
    let guest = world.users.register_guest(None).await;
    assert_eq!(code(guest), (403, "M_GUEST_ACCESS_FORBIDDEN".to_owned()));
}

async fn the_first_token_makes_one_administrator() {
    let world = world(settings()).await;
    let first = world.users.first_token().unwrap();
    let wrong = world
        .users
        .register(wish("anna", Some(&token("wrong"))))
        .await;
    assert_eq!(code(wrong), (401, "M_FORBIDDEN".to_owned()));
    let offered = world.users.register(wish("anna", Some(&dummy()))).await;
    assert_eq!(code(offered), (401, "M_UNRECOGNIZED".to_owned()));
    let anna = world
        .users
        .register(wish("anna", Some(&token(&first))))
        .await
        .unwrap();
    let account = world
        .users
        .find_account(&anna.user_id)
        .await
        .unwrap()
        .unwrap();
    assert!(account.admin);
    assert_eq!(world.users.first_token(), None);
    let again = world
        .users
        .register(wish("bert", Some(&token(&first))))
        .await;
    assert_eq!(code(again), (403, "M_FORBIDDEN".to_owned()));
    // Another start makes none.
    let later = world_on(world.storage.clone(), settings(), 2).await;
    assert_eq!(later.users.first_token(), None);
}

async fn another_start_without_accounts_ends_the_first_token_before() {
    let world = world(settings()).await;
    let old = world.users.first_token().unwrap();
    let later = world_on(world.storage.clone(), settings(), 2).await;
    let new = later.users.first_token().unwrap();
    assert_ne!(old, new);
    assert!(!later.users.is_registration_token_valid(&old).await.unwrap());
    assert!(later.users.is_registration_token_valid(&new).await.unwrap());
}

async fn a_first_token_races_to_one_account() {
    let world = world(settings()).await;
    let first = token(&world.users.first_token().unwrap());
    let (one, two) = tokio::join!(
        world.users.register(wish("anna", Some(&first))),
        world.users.register(wish("bert", Some(&first))),
    );
    assert_ne!(one.is_ok(), two.is_ok());
    assert_eq!(world.users.accounts(None, 9).await.unwrap().len(), 1);
}

async fn without_auth_the_client_hears_what_to_prove() {
    let world = world(with_token()).await;
    let challenge = world
        .users
        .register(Registration::default())
        .await
        .unwrap_err();
    let info = challenge.uiaa_info().unwrap();
    assert_eq!(info.flows[0].stages, [AuthType::RegistrationToken]);
    let session = info.session.clone().unwrap();
    let mut shown = token("let-me.in");
    if let AuthData::RegistrationToken(shown) = &mut shown {
        shown.session = Some(session.clone());
    }
    world
        .users
        .create_registration_token(NewRegistrationToken {
            token: Some("let-me.in"),
            uses_allowed: Some(1),
            expires_ts: None,
        })
        .await
        .unwrap();
    // The stage is proven, but there is no password: the session goes on.
    let lacking = Registration {
        password: None,
        ..wish("anna", Some(&shown))
    };
    let lacking = world.users.register(lacking).await;
    assert_eq!(code(lacking), (400, "M_MISSING_PARAM".to_owned()));
    let go_on = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(session.clone()));
    let anna = world
        .users
        .register(wish("anna", Some(&go_on)))
        .await
        .unwrap();
    assert_eq!(anna.user_id, "@anna:a.example");
    // Session and token are used up.
    let more = world.users.register(wish("bert", Some(&go_on))).await;
    assert_eq!(code(more), (401, String::new()));
    assert_eq!(
        code(world.users.register(wish("bert", Some(&shown))).await),
        (401, "M_FORBIDDEN".to_owned())
    );
}

async fn a_session_ends_after_a_while() {
    let world = world(open()).await;
    let challenge = world.users.register(wish("anna", None)).await.unwrap_err();
    let session = challenge.uiaa_info().unwrap().session.clone().unwrap();
    world.clock.advance(Duration::from_secs(3600));
    let go_on = AuthData::FallbackAcknowledgement(FallbackAcknowledgement::new(session.clone()));
    let again = world
        .users
        .register(wish("anna", Some(&go_on)))
        .await
        .unwrap_err();
    assert_ne!(again.uiaa_info().unwrap().session, Some(session));
}

async fn tokens_count_expire_and_are_well_formed() {
    let world = world(with_token()).await;
    let make = |token, uses_allowed, expires_ts| {
        world.users.create_registration_token(NewRegistrationToken {
            token,
            uses_allowed,
            expires_ts,
        })
    };
    let drawn = make(None, Some(2), None).await.unwrap();
    for name in ["a", "b"] {
        let shown = token(&drawn);
        world
            .users
            .register(wish(name, Some(&shown)))
            .await
            .unwrap();
    }
    let shown = token(&drawn);
    let third = world.users.register(wish("c", Some(&shown))).await;
    assert_eq!(code(third), (401, "M_FORBIDDEN".to_owned()));
    let short = make(None, None, Some(NOW + 1_000)).await.unwrap();
    assert!(
        world
            .users
            .is_registration_token_valid(&short)
            .await
            .unwrap()
    );
    world.clock.advance(Duration::from_secs(1));
    assert!(
        !world
            .users
            .is_registration_token_valid(&short)
            .await
            .unwrap()
    );
    make(Some("x"), None, None).await.unwrap();
    for bad in ["x", "", "a b", "é", &"y".repeat(65)] {
        let refused = make(Some(bad), None, None).await;
        assert_eq!(code(refused), (400, "M_INVALID_PARAM".to_owned()), "{bad}");
        assert!(bad == "x" || !world.users.is_registration_token_valid(bad).await.unwrap());
    }
}

async fn of_two_who_want_a_name_one_gets_it() {
    let world = world(open()).await;
    let auth = dummy();
    let (one, two) = tokio::join!(
        world.users.register(wish("Anna", Some(&auth))),
        world.users.register(wish("anna", Some(&auth))),
    );
    let lost = if one.is_ok() { two } else { one };
    assert_eq!(code(lost), (400, "M_USER_IN_USE".to_owned()));
    assert_eq!(world.users.accounts(None, 9).await.unwrap().len(), 1);
    assert_eq!(
        code(world.users.check_available("ANNA").await),
        (400, "M_USER_IN_USE".to_owned())
    );
    world.users.check_available("bert").await.unwrap();
}

async fn hostile_names_weak_passwords_and_endless_devices_are_refused() {
    let world = world(open()).await;
    let auth = dummy();
    for name in ["", "bad name!", "ünïcode", "a:b", "\0", &"x".repeat(300)] {
        let refused = world.users.register(wish(name, Some(&auth))).await;
        assert_eq!(
            code(refused),
            (400, "M_INVALID_USERNAME".to_owned()),
            "{name:?}"
        );
    }
    let weak = Registration {
        password: Some("short"),
        ..wish("anna", Some(&auth))
    };
    let weak = world.users.register(weak).await;
    assert_eq!(code(weak), (400, "M_WEAK_PASSWORD".to_owned()));
    let endless = Registration {
        device: device_called(Some(&"d".repeat(256))),
        ..wish("anna", Some(&auth))
    };
    let endless = world.users.register(endless).await;
    assert_eq!(code(endless), (400, "M_INVALID_PARAM".to_owned()));
    // Nothing half made is left.
    assert!(world.users.accounts(None, 9).await.unwrap().is_empty());
}

async fn a_name_is_drawn_and_a_login_can_be_inhibited() {
    let world = world(open()).await;
    let auth = dummy();
    let drawn = Registration {
        username: None,
        inhibit_login: true,
        ..wish("", Some(&auth))
    };
    let drawn = world.users.register(drawn).await.unwrap();
    assert_eq!(drawn.user_id.localpart().len(), 12);
    assert!(drawn.login.is_none());
    let account = world
        .users
        .find_account(&drawn.user_id)
        .await
        .unwrap()
        .unwrap();
    assert!(!account.admin);
    assert!(world.users.devices(account.user).await.unwrap().is_empty());
}

async fn guests_come_in_where_they_may() {
    let mut settings = settings();
    settings.registration.guests = true;
    let world = world(settings).await;
    let guest = world.users.register_guest(None).await.unwrap();
    let requester = world.requester(&guest.login.unwrap()).await;
    assert!(requester.guest && !requester.admin);
}
