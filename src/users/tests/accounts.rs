//! Accounts and logins.

use serde_json::value::RawValue;

use super::*;

on_every_engine! {
    a_login_folds_case_and_tells_nobody_who_exists,
    the_old_field_names_the_user_and_other_identifiers_do_not,
    a_closed_account_has_no_devices_and_keeps_its_name,
    what_an_administrator_changes_holds_at_once,
    a_reset_password_opens_the_account_and_ends_devices_if_asked,
    accounts_are_listed_page_by_page,
}

async fn a_login_folds_case_and_tells_nobody_who_exists() {
    let world = world(settings()).await;
    world.account("anna").await;
    for name in ["anna", "Anna", "@ANNA:a.example", "@anna:a.example"] {
        let login = world.login(name, None).await;
        assert_eq!(login.user_id, "@anna:a.example");
        assert!(world.is_logged_in(&login).await);
    }
    for (name, password) in [
        ("anna", "wrong"),
        ("anna", ""),
        ("bert", PASSWORD),
        ("@anna:b.example", PASSWORD),
        ("", PASSWORD),
        ("an\0na", PASSWORD),
        ("\u{202e}anna", PASSWORD),
    ] {
        let refused = world
            .users
            .login(&password_login(name, password), NewDevice::default(), None)
            .await;
        let told = refused.as_ref().unwrap_err().to_string();
        assert_eq!(code(refused), (403, "M_FORBIDDEN".to_owned()), "{name:?}");
        assert_eq!(
            told,
            "403 M_FORBIDDEN: The user name or the password is wrong"
        );
    }
}

#[allow(deprecated)]
async fn the_old_field_names_the_user_and_other_identifiers_do_not() {
    let world = world(settings()).await;
    world.account("anna").await;
    let parse = |json| serde_json::from_str::<LoginInfo>(json).unwrap();
    let old = parse(r#"{"type":"m.login.password","user":"anna","password":"correct horse"}"#);
    world
        .users
        .login(&old, NewDevice::default(), None)
        .await
        .unwrap();
    let refused = |json| {
        let info = parse(json);
        let users = world.users.clone();
        async move { code(users.login(&info, NewDevice::default(), None).await) }
    };
    assert_eq!(
        refused(r#"{"type":"m.login.password","password":"x"}"#).await,
        (400, "M_MISSING_PARAM".to_owned())
    );
    assert_eq!(
        refused(
            r#"{"type":"m.login.password","password":"x",
                "identifier":{"type":"m.id.thirdparty","medium":"email","address":"a@b"}}"#
        )
        .await,
        (400, "M_INVALID_PARAM".to_owned())
    );
    assert_eq!(
        refused(r#"{"type":"org.example.magic"}"#).await,
        (400, "M_UNKNOWN".to_owned())
    );
}

#[tokio::test]
async fn no_secret_lies_in_storage_or_in_logs() {
    let world = world(open()).await;
    let auth = dummy();
    let wish = wish("anna", Some(&auth));
    assert!(!format!("{wish:?}").contains(PASSWORD));
    let anna = world.users.register(wish).await.unwrap();
    let login = anna.login.unwrap();
    let registration_token = world
        .users
        .create_registration_token(crate::NewRegistrationToken::default())
        .await
        .unwrap();
    let secret = login.access_token.as_str();
    assert!(!format!("{login:?}").contains(secret));
    assert!(!format!("{:?}", world.requester(&login).await).contains(secret));
    // The model engine shows all its rows: values as text, keys as numbers.
    let rows = format!("{:?}", world.storage);
    let as_numbers = |text: &str| {
        let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        numbers.join(", ")
    };
    assert!(rows.contains("@anna:a.example"), "the rows cannot be seen");
    for secret in [secret, PASSWORD, registration_token.as_str()] {
        assert!(!rows.contains(secret));
        assert!(!rows.contains(&as_numbers(secret)));
        assert!(!rows.contains(&as_numbers(&secret[4..])));
    }
    let account = crate::account::new_row(&anna.user_id, Some("$argon2id$x".to_owned()), 0);
    assert!(!format!("{account:?}").contains("argon2id"));
}

async fn a_closed_account_has_no_devices_and_keeps_its_name() {
    let world = world(open()).await;
    let (user, user_id) = world.account("anna").await;
    let login = world.login("anna", None).await;
    world
        .users
        .set_profile_field(user, "displayname", "Anna".into())
        .await
        .unwrap();
    // Longer than an engine's values are.
    let long = format!(r#"{{"long":"{}"}}"#, "x".repeat(200_000));
    let data = RawValue::from_string(long).unwrap();
    for event_type in ["org.example.one", "org.example.two"] {
        let set = world.users.set_account_data(user, None, event_type, &data);
        set.await.unwrap();
    }
    let kept = async || {
        let data = world.users.account_data(user, None).await.unwrap();
        let own = |data: &&crate::AccountData| data.event_type.starts_with("org.example");
        data.iter().filter(own).count()
    };
    let backup = world
        .users
        .create_backup(user, "org.example", RawValue::NULL);
    let version = backup.await.unwrap();
    world.users.deactivate(&user_id, false).await.unwrap();
    assert!(!world.is_logged_in(&login).await);
    assert_eq!(world.users.profile_of(user).await.unwrap().len(), 1);
    assert_eq!(kept().await, 2);
    world.users.backup(user, Some(&version)).await.unwrap();
    world.users.deactivate(&user_id, true).await.unwrap();
    world.users.deactivate(&user_id, false).await.unwrap();
    let account = world.users.find_account(&user_id).await.unwrap().unwrap();
    assert!(account.deactivated && account.erased && !account.has_password);
    assert!(world.users.profile_of(user).await.unwrap().is_empty());
    assert_eq!(kept().await, 0);
    assert!(world.users.backup(user, Some(&version)).await.is_err());
    assert!(world.users.devices(user).await.unwrap().is_empty());
    let refused = world
        .users
        .login(
            &password_login("anna", PASSWORD),
            NewDevice::default(),
            None,
        )
        .await;
    assert_eq!(code(refused), (403, "M_USER_DEACTIVATED".to_owned()));
    let auth = dummy();
    let taken = world.users.register(wish("anna", Some(&auth))).await;
    assert_eq!(code(taken), (400, "M_USER_IN_USE".to_owned()));
    let reset = world
        .users
        .reset_password(&user_id, "another password", true)
        .await;
    assert_eq!(code(reset), (403, "M_USER_DEACTIVATED".to_owned()));
    let job = world.users.job_id(crate::job::DEACTIVATE, user);
    let jobs = world.users.snapshot().await.unwrap();
    let jobs = jobs
        .multi_get(&storage::schema::JOB_BY_ID, &[job])
        .await
        .unwrap();
    let row = &jobs[0].as_ref().unwrap().value;
    assert_eq!(crate::job::UserJob::from_row(row).unwrap().user, user);
}

async fn what_an_administrator_changes_holds_at_once() {
    let world = world(settings()).await;
    let (_, user_id) = world.account("anna").await;
    let login = world.login("anna", None).await;
    assert!(!world.requester(&login).await.admin);
    world.users.set_admin(&user_id, true).await.unwrap();
    assert!(world.requester(&login).await.admin);
    world.users.set_suspended(&user_id, true).await.unwrap();
    assert!(world.requester(&login).await.suspended);
    world.users.set_locked(&user_id, true).await.unwrap();
    let token = login.access_token.as_str();
    assert_eq!(
        code(world.users.authenticate(token).await),
        (401, "M_USER_LOCKED".to_owned())
    );
    assert!(
        world
            .users
            .authenticate_even_locked(token)
            .await
            .unwrap()
            .is_some()
    );
    let refused = world
        .users
        .login(
            &password_login("anna", PASSWORD),
            NewDevice::default(),
            None,
        )
        .await;
    assert_eq!(code(refused), (401, "M_USER_LOCKED".to_owned()));
    world.users.set_locked(&user_id, false).await.unwrap();
    assert!(world.is_logged_in(&login).await);
    let nobody = ruma::user_id!("@nobody:a.example");
    assert_eq!(
        code(world.users.set_admin(nobody, true).await),
        (404, "M_NOT_FOUND".to_owned())
    );
}

async fn a_reset_password_opens_the_account_and_ends_devices_if_asked() {
    let world = world(settings()).await;
    let (_, user_id) = world.account("anna").await;
    let login = world.login("anna", None).await;
    world
        .users
        .reset_password(&user_id, "battery staple", false)
        .await
        .unwrap();
    assert!(world.is_logged_in(&login).await);
    let old = world
        .users
        .login(
            &password_login("anna", PASSWORD),
            NewDevice::default(),
            None,
        )
        .await;
    assert_eq!(code(old), (403, "M_FORBIDDEN".to_owned()));
    world
        .users
        .login(
            &password_login("anna", "battery staple"),
            NewDevice::default(),
            None,
        )
        .await
        .unwrap();
    world
        .users
        .reset_password(&user_id, PASSWORD, true)
        .await
        .unwrap();
    assert!(!world.is_logged_in(&login).await);
}

#[tokio::test]
async fn a_login_renews_a_hash_of_another_cost() {
    let world = world(settings()).await;
    let (_, user_id) = world.account("anna").await;
    let mut dearer = settings();
    dearer.passwords.passes = 2;
    let dearer = world_on(world.storage.clone(), dearer, 2).await;
    let before = format!("{:?}", world.storage).matches("t=2,p=1").count();
    dearer.login("anna", None).await;
    let after = format!("{:?}", world.storage).matches("t=2,p=1").count();
    assert_eq!((before, after), (0, 1));
    assert!(
        dearer
            .users
            .find_account(&user_id)
            .await
            .unwrap()
            .unwrap()
            .has_password
    );
}

async fn accounts_are_listed_page_by_page() {
    let world = world(settings()).await;
    for name in ["a", "b", "c", "d", "e"] {
        world.account(name).await;
    }
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = world.users.accounts(after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.user);
        names.extend(
            page.iter()
                .map(|account| account.user_id.localpart().to_owned()),
        );
    }
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
}
