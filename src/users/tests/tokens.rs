//! Refresh tokens, login tokens, JSON Web Tokens, the shared secret, and waiting after wrong
//! passwords.

use std::time::Duration;

use hmac::{Hmac, Mac};
use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use storage::{Range, schema};

use super::*;
use crate::{Refreshed, SharedSecretRegistration};

on_every_engine! {
    a_refresh_ends_the_old_pair_when_the_new_one_is_used,
    a_lost_answer_to_a_refresh_locks_nobody_out,
    racing_refreshes_leave_one_pair,
    an_expired_token_asks_for_a_soft_logout,
    a_logout_ends_all_tokens_of_a_device,
    a_login_token_lets_in_once_and_for_two_minutes,
    a_json_web_token_lets_in_whom_it_names,
    a_json_web_token_is_refused_for_any_flaw,
    the_shared_secret_makes_accounts,
    guessing_passwords_takes_time,
    a_new_password_ends_the_other_devices,
}

fn refreshable(device: &str) -> NewDevice {
    NewDevice {
        refresh_token: true,
        ..device_called(Some(device))
    }
}

impl World {
    async fn login_to_refresh(&self) -> LoggedIn {
        let login = password_login("anna", PASSWORD);
        self.users
            .login(&login, refreshable("PHONE"), None)
            .await
            .unwrap()
    }

    async fn refresh(&self, token: &crate::AccessToken) -> error::Result<Refreshed> {
        self.users.refresh(token.as_str()).await
    }

    async fn works(&self, token: &crate::AccessToken) -> bool {
        self.users
            .authenticate(token.as_str())
            .await
            .unwrap()
            .is_some()
    }

    /// How many tokens of all kinds are stored, by what they are and by whose they are.
    async fn stored_tokens(&self) -> (usize, usize) {
        let snapshot = self.users.snapshot().await.unwrap();
        let all = Range::prefix(&());
        let access = snapshot
            .multi_range(&schema::DEVICE_BY_TOKEN, &[all])
            .await
            .unwrap();
        let all = Range::prefix(&());
        let refresh = snapshot
            .multi_range(&schema::REFRESH_BY_TOKEN, &[all])
            .await
            .unwrap();
        let all = Range::prefix(&());
        let listed = snapshot
            .multi_range(&schema::TOKEN_BY_DEVICE, &[all])
            .await
            .unwrap();
        (access[0].len() + refresh[0].len(), listed[0].len())
    }
}

const UNKNOWN: (u16, &str) = (401, "M_UNKNOWN_TOKEN");

fn is<T: std::fmt::Debug>(result: error::Result<T>, wanted: (u16, &str)) {
    assert_eq!(code(result), (wanted.0, wanted.1.to_owned()));
}

async fn a_refresh_ends_the_old_pair_when_the_new_one_is_used() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login_to_refresh().await;
    assert_eq!(login.expires_in, Some(Duration::from_secs(300)));
    let first = login.refresh_token.clone().unwrap();
    assert!(world.works(&login.access_token).await);
    let second = world.refresh(&first).await.unwrap();
    // Until the new pair is used, the old one goes on.
    assert!(world.works(&login.access_token).await);
    assert!(world.works(&second.access_token).await);
    assert!(!world.works(&login.access_token).await);
    is(world.refresh(&first).await, UNKNOWN);
    // A refresh token is used first, too.
    let third = world.refresh(&second.refresh_token).await.unwrap();
    let fourth = world.refresh(&third.refresh_token).await.unwrap();
    is(world.refresh(&second.refresh_token).await, UNKNOWN);
    assert!(!world.works(&second.access_token).await);
    assert!(world.works(&fourth.access_token).await);
    assert_eq!(world.stored_tokens().await, (2, 2));
    // One is not the other.
    is(
        world.users.refresh(fourth.access_token.as_str()).await,
        UNKNOWN,
    );
    let found = world
        .users
        .authenticate(fourth.refresh_token.as_str())
        .await;
    assert!(found.unwrap().is_none());
    for garbage in ["", "unknown", "crt_", "crt_AAAA"] {
        is(world.users.refresh(garbage).await, UNKNOWN);
    }
}

async fn a_lost_answer_to_a_refresh_locks_nobody_out() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login_to_refresh().await;
    let first = login.refresh_token.clone().unwrap();
    let lost = world.refresh(&first).await.unwrap();
    let again = world.refresh(&first).await.unwrap();
    assert!(!world.works(&lost.access_token).await);
    is(world.refresh(&lost.refresh_token).await, UNKNOWN);
    assert!(world.works(&again.access_token).await);
    is(world.refresh(&first).await, UNKNOWN);
    assert_eq!(world.stored_tokens().await, (2, 2));
}

async fn racing_refreshes_leave_one_pair() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login_to_refresh().await;
    let first = login.refresh_token.clone().unwrap();
    let (one, two, three) = tokio::join!(
        world.refresh(&first),
        world.refresh(&first),
        world.refresh(&first)
    );
    let mut working = 0;
    for pair in [one, two, three] {
        working += usize::from(world.works(&pair.unwrap().access_token).await);
    }
    assert_eq!(working, 1);
    assert_eq!(world.stored_tokens().await, (2, 2));
}

async fn an_expired_token_asks_for_a_soft_logout() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login_to_refresh().await;
    let lasting = world.login("anna", Some("OLD CLIENT")).await;
    assert!(world.works(&login.access_token).await);
    world.clock.advance(Duration::from_secs(300));
    let expired = world.users.authenticate(login.access_token.as_str()).await;
    match expired.unwrap_err().kind().unwrap() {
        ruma::api::error::ErrorKind::UnknownToken(data) => assert!(data.soft_logout),
        other => panic!("{other:?}"),
    }
    assert!(world.is_logged_in(&lasting).await);
    let new = world.refresh(&login.refresh_token.unwrap()).await.unwrap();
    assert!(world.works(&new.access_token).await);
}

async fn a_logout_ends_all_tokens_of_a_device() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = world.login_to_refresh().await;
    let first = login.refresh_token.clone().unwrap();
    let new = world.refresh(&first).await.unwrap();
    let requester = world.requester(&login).await;
    world.users.logout(&requester).await.unwrap();
    assert!(!world.works(&login.access_token).await && !world.works(&new.access_token).await);
    is(world.refresh(&first).await, UNKNOWN);
    is(world.refresh(&new.refresh_token).await, UNKNOWN);
    assert_eq!(world.stored_tokens().await, (0, 0));
}

fn token_login(token: &str) -> LoginInfo {
    use ruma::api::client::session::login::v3::Token;
    LoginInfo::Token(Token::new(token.to_owned()))
}

async fn a_login_token_lets_in_once_and_for_two_minutes() {
    let world = world(settings()).await;
    let (_, user_id) = world.account("anna").await;
    let requester = world.requester(&world.login("anna", None).await).await;
    let (token, lifetime) = world.users.create_login_token(&requester).unwrap();
    assert_eq!(lifetime, Duration::from_secs(120));
    let use_it = async |token: &str| {
        let login = token_login(token);
        world.users.login(&login, NewDevice::default(), None).await
    };
    let login = use_it(&token).await.unwrap();
    assert_eq!(login.user_id, user_id);
    is(use_it(&token).await, (403, "M_FORBIDDEN"));
    is(use_it("unknown").await, (403, "M_FORBIDDEN"));
    let (late, _) = world.users.create_login_token(&requester).unwrap();
    world.clock.advance(lifetime);
    is(use_it(&late).await, (403, "M_FORBIDDEN"));
    let (closed, _) = world.users.create_login_token(&requester).unwrap();
    world.users.deactivate(&user_id, false).await.unwrap();
    is(use_it(&closed).await, (403, "M_USER_DEACTIVATED"));
}

const JWT_KEY: &str = "0123456789abcdef0123456789abcdef";

fn with_jwt() -> Settings {
    let mut settings = settings();
    settings.logins.jwt_key = Some(config::Secret::new(JWT_KEY.to_owned()));
    settings.logins.jwt_issuer = "https://id.example".to_owned();
    settings
}

fn jwt(key: &str, claims: &serde_json::Value) -> LoginInfo {
    let key = EncodingKey::from_secret(key.as_bytes());
    let token = encode(&Header::default(), claims, &key).unwrap();
    jwt_login(&token)
}

fn jwt_login(token: &str) -> LoginInfo {
    let mut data = serde_json::Map::new();
    data.insert("token".to_owned(), token.into());
    LoginInfo::new("org.matrix.login.jwt", data).unwrap()
}

async fn a_json_web_token_lets_in_whom_it_names() {
    let world = world(with_jwt()).await;
    let (_, user_id) = world.account("anna").await;
    let exp = NOW / 1_000 + 60;
    let enter = async |name: &str| {
        let claims = json!({ "sub": name, "iss": "https://id.example", "exp": exp });
        world
            .users
            .login(&jwt(JWT_KEY, &claims), NewDevice::default(), None)
            .await
    };
    assert_eq!(enter("anna").await.unwrap().user_id, user_id);
    // Who has no account gets one, once, even when two come at once.
    let (one, two) = tokio::join!(enter("bert"), enter("bert"));
    assert_eq!(one.unwrap().user_id, two.unwrap().user_id);
    assert_eq!(world.users.accounts(None, 9).await.unwrap().len(), 2);
    is(enter("no such name").await, (403, "M_FORBIDDEN"));
    world.users.set_locked(&user_id, true).await.unwrap();
    is(enter("anna").await, (401, "M_USER_LOCKED"));
    let types = json!(world.users.login_types()).to_string();
    assert!(types.contains("org.matrix.login.jwt"), "{types}");
}

async fn a_json_web_token_is_refused_for_any_flaw() {
    let world = world(with_jwt()).await;
    world.account("anna").await;
    let good = json!({ "sub": "anna", "iss": "https://id.example" });
    let with = |claim: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[claim] = value;
        claims
    };
    let enter =
        async |login: LoginInfo| world.users.login(&login, NewDevice::default(), None).await;
    enter(jwt(JWT_KEY, &good)).await.unwrap();
    let now = NOW / 1_000;
    for flawed in [
        jwt("another key of thirty-two bytes!", &good),
        jwt(JWT_KEY, &with("exp", json!(now))),
        jwt(JWT_KEY, &with("exp", json!("soon"))),
        jwt(JWT_KEY, &with("nbf", json!(now + 1))),
        jwt(JWT_KEY, &with("iss", json!("https://evil.example"))),
        jwt(JWT_KEY, &with("sub", json!(""))),
        jwt(JWT_KEY, &with("sub", json!(5))),
        jwt(JWT_KEY, &json!({ "sub": "anna" })),
        jwt(JWT_KEY, &json!({ "iss": "https://id.example" })),
        // `{"alg":"none"}` and the good claims.
        jwt_login("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm5hIiwiaXNzIjoiaHR0cHM6Ly9pZC5leGFtcGxlIn0."),
        jwt_login("..."),
        jwt_login(""),
        jwt_login(&"x".repeat(100_000)),
    ] {
        is(enter(flawed).await, (403, "M_FORBIDDEN"));
    }
    let empty = LoginInfo::new("org.matrix.login.jwt", serde_json::Map::new()).unwrap();
    is(enter(empty).await, (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn without_a_key_nobody_logs_in_by_json_web_token() {
    let world = world(settings()).await;
    world.account("anna").await;
    let login = jwt(JWT_KEY, &json!({ "sub": "anna" }));
    let refused = world.users.login(&login, NewDevice::default(), None).await;
    is(refused, (400, "M_UNKNOWN"));
    assert!(!json!(world.users.login_types()).to_string().contains("jwt"));
    let mut settings = with_jwt();
    settings.logins.jwt_algorithm = config::JwtAlgorithm::Es256;
    let random = Random::seeded(1);
    let federation = alone(&world.storage, &world.clock).await;
    let opened = Users::open(&world.storage, &federation, &world.clock, &random, settings);
    assert!(opened.await.unwrap_err().to_string().contains("jwt_key"));
}

fn mac(secret: &str, message: &str) -> String {
    let mut mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let bytes = mac.finalize().into_bytes();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn the_shared_secret_makes_accounts() {
    let mut settings = settings();
    is(
        world(settings.clone()).await.users.registration_nonce(),
        (400, "M_UNKNOWN"),
    );
    settings.registration.shared_secret = Some(config::Secret::new("complement".to_owned()));
    let world = world(settings).await;
    let wish = |nonce: &str, name: &str, secret: &str, admin: bool| SharedSecretRegistration {
        nonce: nonce.to_owned(),
        username: name.to_owned(),
        displayname: Some("Anna".to_owned()),
        password: PASSWORD.to_owned(),
        admin,
        user_type: None,
        inhibit_login: false,
        mac: mac(secret, &format!("{nonce}\0{name}\0{PASSWORD}\0admin")),
    };
    let make = async |wish| world.users.register_with_shared_secret(wish).await;
    let nonce = || world.users.registration_nonce().unwrap();
    let made = make(wish(&nonce(), "anna", "complement", true))
        .await
        .unwrap();
    let account = world
        .users
        .find_account(&made.user_id)
        .await
        .unwrap()
        .unwrap();
    assert!(account.admin);
    assert!(world.requester(&made.login.unwrap()).await.admin);
    let profile = world.users.profile_of(account.user).await.unwrap();
    assert_eq!(profile["displayname"], "Anna");
    world.login("anna", None).await;
    // A nonce is good once, and for a minute.
    let used = nonce();
    is(
        make(wish(&used, "anna", "complement", true)).await,
        (400, "M_USER_IN_USE"),
    );
    is(
        make(wish(&used, "bert", "complement", true)).await,
        (400, "M_UNKNOWN"),
    );
    let late = nonce();
    world.clock.advance(Duration::from_secs(60));
    is(
        make(wish(&late, "bert", "complement", true)).await,
        (400, "M_UNKNOWN"),
    );
    is(
        make(wish(&nonce(), "bert", "guessed", true)).await,
        (403, "M_UNKNOWN"),
    );
    // What is signed is `admin`, so nobody can be made less or more than was meant.
    is(
        make(wish(&nonce(), "bert", "complement", false)).await,
        (403, "M_UNKNOWN"),
    );
    for garbage in ["", "0", "zz", "é", "00"] {
        let mut wish = wish(&nonce(), "bert", "complement", true);
        garbage.clone_into(&mut wish.mac);
        assert!(!format!("{wish:?}").contains(PASSWORD));
        is(make(wish).await, (403, "M_UNKNOWN"));
    }
    let mut typed = wish(&nonce(), "bert", "complement", true);
    typed.user_type = Some("bot".to_owned());
    typed.mac = mac(
        "complement",
        &format!("{}\0bert\0{PASSWORD}\0admin\0bot", typed.nonce),
    );
    make(typed).await.unwrap();
}

async fn guessing_passwords_takes_time() {
    let world = world(settings()).await;
    world.account("anna").await;
    let requester = world.requester(&world.login("anna", None).await).await;
    let enter = async |name: &str, password: &str| {
        let login = password_login(name, password);
        world.users.login(&login, NewDevice::default(), None).await
    };
    for name in ["anna", "nobody"] {
        for _ in 0..10 {
            is(enter(name, "wrong").await, (403, "M_FORBIDDEN"));
        }
        is(enter(name, PASSWORD).await, (429, "M_LIMIT_EXCEEDED"));
    }
    // Neither in capitals, nor in another way of writing the name, nor elsewhere.
    is(enter("ANNA", PASSWORD).await, (429, "M_LIMIT_EXCEEDED"));
    is(
        enter("@anna:a.example", PASSWORD).await,
        (429, "M_LIMIT_EXCEEDED"),
    );
    let data = ruma::api::client::uiaa::Password::new(identifier("anna"), PASSWORD.to_owned());
    let data = AuthData::Password(data);
    let proven = world.users.prove_again(&requester, "x", Some(&data)).await;
    is(proven, (401, "M_LIMIT_EXCEEDED"));
    world.account("bert").await;
    enter("bert", PASSWORD).await.unwrap();
    world.clock.advance(Duration::from_secs(30));
    enter("anna", PASSWORD).await.unwrap();
    enter("anna", PASSWORD).await.unwrap();
}

async fn a_new_password_ends_the_other_devices() {
    let world = world(settings()).await;
    world.account("anna").await;
    let mine = world.login("anna", None).await;
    let other = world.login("anna", None).await;
    let requester = world.requester(&mine).await;
    world
        .users
        .change_password(&requester, "battery staple", false)
        .await
        .unwrap();
    assert!(world.is_logged_in(&other).await);
    world
        .users
        .change_password(&requester, "tr0ub4dor&3", true)
        .await
        .unwrap();
    assert!(world.is_logged_in(&mine).await && !world.is_logged_in(&other).await);
    is(
        world.users.change_password(&requester, "short", true).await,
        (400, "M_WEAK_PASSWORD"),
    );
    let login = password_login("anna", "tr0ub4dor&3");
    world
        .users
        .login(&login, NewDevice::default(), None)
        .await
        .unwrap();
}
