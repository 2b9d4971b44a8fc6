//! People on the engines of storage, without HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

/// Runs a test on the model engine, on the same with faults, and on RocksDB.
macro_rules! on_every_engine {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test]
            async fn model() {
                super::$name().await;
            }

            #[tokio::test]
            async fn faulty_model() {
                crate::tests::on_faulty_model();
                super::$name().await;
            }

            #[tokio::test]
            async fn rocks() {
                crate::tests::on_rocks();
                super::$name().await;
            }
        }
    )*};
}

mod accounts;
mod data;
mod devices;
mod keys;
mod push;
mod registration;
mod tokens;

use std::cell::{Cell, RefCell};

use federation::Federation;
use ruma::{
    OwnedUserId,
    api::client::{
        session::login::v3::{LoginInfo, Password},
        uiaa::{AuthData, Dummy, MatrixUserIdentifier, RegistrationToken, UserIdentifier},
    },
    server_name,
};
use serde_json::value::RawValue;
use storage::{Clock, Faults, Random, ShortUserId, Storage};

use crate::{LoggedIn, NewAccount, NewDevice, Registration, Requester, Settings, Users};

/// When tests take place, in milliseconds since 1970.
const NOW: u64 = 1_800_000_000_000;

const PASSWORD: &str = "correct horse";

/// People, and what they are made of.
struct World {
    storage: Storage,
    clock: Clock,
    users: Users,
}

/// Hashing that costs nearly nothing.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.passwords.memory = config::ByteCount::kib(8);
    settings.passwords.passes = 1;
    settings
}

/// Registration open to everybody.
fn open() -> Settings {
    let mut settings = settings();
    settings.registration.enabled = true;
    settings.registration.require_token = false;
    settings
}

thread_local! {
    /// The folder of the test's database, if it is on RocksDB: a test has a thread of its own.
    static FOLDER: RefCell<Option<tempfile::TempDir>> = const { RefCell::new(None) };
}

/// Lets the worlds of this test lie in RocksDB.
fn on_rocks() {
    FOLDER.set(Some(tempfile::tempdir().unwrap()));
}

thread_local! {
    /// How the test's model misbehaves.
    static FAULTS: Cell<Faults> = const { Cell::new(Faults::NONE) };
}

/// Lets the worlds of this test lie in a model that refuses and loses some of what it is given.
fn on_faulty_model() {
    FAULTS.set(Faults {
        seed: 1,
        conflicts: 150,
        lost_replies: 50,
        lost_batches: 100,
        read_takes: std::time::Duration::from_millis(500),
        ..Faults::NONE
    });
}

/// An empty database of the test's engine.
fn empty() -> Storage {
    FOLDER.with_borrow(|folder| match folder {
        None => Storage::model_with(FAULTS.get()),
        Some(folder) => {
            let name = Random::from_system().letters(12);
            let options = storage::Options {
                block_cache: 1 << 20,
                memory_budget: 16 << 20,
                ..storage::Options::default()
            };
            Storage::open(folder.path().join(name), &options).unwrap()
        }
    })
}

async fn world(settings: Settings) -> World {
    world_on(empty(), settings, 1).await
}

/// What `a.example` has to do with other servers: nothing.
async fn alone(storage: &Storage, clock: &Clock) -> Federation {
    let name = server_name!("a.example");
    let alone = federation::Parts::alone(storage, name, clock, &Random::seeded(7));
    Federation::open(alone).await.unwrap()
}

async fn world_on(storage: Storage, settings: Settings, seed: u64) -> World {
    let clock = Clock::standing_at(NOW);
    let random = Random::seeded(seed);
    let users = Users::open(
        &storage,
        &alone(&storage, &clock).await,
        &clock,
        &random,
        settings,
    )
    .await
    .unwrap();
    World {
        storage,
        clock,
        users,
    }
}

impl World {
    /// An account with [`PASSWORD`].
    async fn account(&self, name: &str) -> (ShortUserId, OwnedUserId) {
        let account = self
            .users
            .create(NewAccount {
                username: name,
                password: Some(PASSWORD),
                ..NewAccount::default()
            })
            .await
            .unwrap();
        (account.user, account.user_id)
    }

    /// A login of an account with [`PASSWORD`].
    async fn login(&self, name: &str, device: Option<&str>) -> LoggedIn {
        self.users
            .login(&password_login(name, PASSWORD), device_called(device), None)
            .await
            .unwrap()
    }

    async fn requester(&self, login: &LoggedIn) -> std::sync::Arc<Requester> {
        self.users
            .authenticate(login.access_token.as_str())
            .await
            .unwrap()
            .unwrap()
    }

    async fn is_logged_in(&self, login: &LoggedIn) -> bool {
        let found = self.users.authenticate(login.access_token.as_str()).await;
        found.unwrap().is_some()
    }
}

fn device_called(device: Option<&str>) -> NewDevice {
    NewDevice {
        device_id: device.map(Into::into),
        display_name: Some("Phone".to_owned()),
        refresh_token: false,
    }
}

fn identifier(name: &str) -> UserIdentifier {
    MatrixUserIdentifier::new(name.to_owned()).into()
}

fn password_login(name: &str, password: &str) -> LoginInfo {
    LoginInfo::Password(Password::new(identifier(name), password.to_owned()))
}

fn dummy() -> AuthData {
    AuthData::Dummy(Dummy::new())
}

fn token(text: &str) -> AuthData {
    AuthData::RegistrationToken(RegistrationToken::new(text.to_owned()))
}

fn wish<'a>(name: &'a str, auth: Option<&'a AuthData>) -> Registration<'a> {
    Registration {
        username: Some(name),
        password: Some(PASSWORD),
        auth,
        ..Registration::default()
    }
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

/// Status and `errcode`.
fn code<T: std::fmt::Debug>(result: error::Result<T>) -> (u16, String) {
    let failure = result.unwrap_err();
    let errcode = match failure.uiaa_info() {
        Some(info) => info
            .auth_error
            .as_ref()
            .map(|reason| reason.kind.errcode().to_string()),
        None => failure.kind().map(|kind| kind.errcode().to_string()),
    };
    (failure.status().as_u16(), errcode.unwrap_or_default())
}
