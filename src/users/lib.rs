//! The people of this server: accounts, devices, tokens, profiles, account data, filters, push
//! rules, the keys of their devices and what waits for these.
//!
//! Everything hangs off one [`Users`]. What a user's data is changes only through a writer (see
//! `writer.rs`), one batch a request. What has to happen in rooms afterwards is left as a job
//! ([`job`]) in the same batch.
//!
//! Who writes what is keyed by user *and* room: account data of a room is written here, because it
//! is nobody's but the user's and its precondition is its own row; memberships, read markers and
//! receipts are the room writer's.

mod account;
mod account_data;
mod application_services;
mod authenticate;
mod carry_over;
mod change;
mod crowd;
mod device;
mod failures;
mod filter;
mod guest;
mod invites;
pub mod job;
mod jwt;
mod keys;
mod limiter;
mod localpart;
mod login;
mod login_token;
mod openid;
mod own_limits;
mod password;
mod profile;
mod push_rules;
mod pusher;
mod refresh;
mod registration;
mod registration_token;
mod shared_secret;
mod to_device;
mod token;
mod uiaa;
mod writer;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use error::Result;
use federation::Federation;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use ruma::{OwnedServerName, ServerName};
use storage::{Clock, Position, Random, Snapshot, Storage};

pub use self::{
    account::{Account, NewAccount},
    account_data::{AccountData, account_data_event, ignored_users, says_nothing},
    application_services::ApplicationService,
    authenticate::{Requester, Seen},
    carry_over::{NamedRoom, carry_over},
    device::Device,
    invites::{InvitePermissions, Invites},
    keys::{
        Backup, BackupKey, BackupKeys, BackupScope, BackupState, ClaimedKeys, CrossSigningUpload,
        DeviceNews, KeyUpload, PublishedDevices, SignatureFailures, UserKeys, foreign_device_keys,
        foreign_master_key, foreign_self_signing_key, publish_devices,
    },
    limiter::{Limiter, network_of},
    login::{LoggedIn, NewDevice},
    own_limits::OwnLimits,
    profile::MAX_PROFILE,
    push_rules::{TYPE as PUSH_RULES, default_rules, ruleset},
    refresh::Refreshed,
    registration::{Registered, Registration},
    registration_token::NewRegistrationToken,
    shared_secret::SharedSecretRegistration,
    to_device::Messages,
    token::AccessToken,
};
use self::{
    application_services::ApplicationServices, crowd::Crowd, failures::Failures, jwt::Jwt,
    login_token::LoginTokens, openid::OpenIdTokens, password::Passwords,
    registration_token::FirstToken, shared_secret::Nonces, token::TokenHash, uiaa::Sessions,
    writer::Locks,
};

/// What an operator chose.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who may make an account.
    pub registration: config::Registration,
    /// How passwords are kept.
    pub passwords: config::Passwords,
    /// How people log in, besides by password.
    pub logins: config::Logins,
    /// How often something may be done.
    pub rate_limits: config::RateLimits,
    /// Whom people turn to.
    pub support: config::Support,
    /// How much of something is too much.
    pub limits: config::Limits,
    /// Who talks for the server.
    pub server_notices: config::ServerNotices,
    /// Bridges and bots.
    pub application_services: config::ApplicationServices,
}

/// The people of this server. Clones are the same people.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    storage: Storage,
    server_name: OwnedServerName,
    federation: Federation,
    clock: Clock,
    random: Random,
    settings: Settings,
    passwords: Passwords,
    locks: Locks,
    sessions: Mutex<Sessions>,
    login_tokens: Mutex<LoginTokens>,
    openid_tokens: Mutex<OpenIdTokens>,
    nonces: Mutex<Nonces>,
    failures: Failures,
    crowd: Option<Crowd>,
    application_services: ApplicationServices,
    jwt: Option<Jwt>,
    requesters: Cache<TokenHash, Arc<Requester>>,
    /// Raised before anything is thrown out of `requesters`; see `authenticate.rs`.
    invalidations: std::sync::atomic::AtomicU64,
    first_token: Mutex<Option<FirstToken>>,
}

/// How many access tokens are remembered with whose they are.
const MAX_REQUESTERS: usize = 50_000;

impl Users {
    /// 403: the user has as many of something as the operator allows. `M_USER_LIMIT_EXCEEDED` needs somebody to
    /// turn to; where nobody is named it is `M_FORBIDDEN`.
    pub(crate) fn too_many(&self, message: String) -> error::Error {
        match self.0.settings.support.uri() {
            Some(uri) => error::user_limit_exceeded(uri, message),
            None => error::forbidden(message),
        }
    }

    /// The people kept in `storage`. If there is no account yet, makes the registration token for the
    /// first one (see [`Users::first_token`]), and ends the one made at an earlier start.
    ///
    /// # Errors
    ///
    /// Storage fails, or the cost of passwords is not one that argon2 takes.
    pub async fn open(
        storage: &Storage,
        federation: &Federation,
        clock: &Clock,
        random: &Random,
        settings: Settings,
    ) -> Result<Self> {
        let users = Self(Arc::new(Inner {
            storage: storage.clone(),
            server_name: federation.server_name().to_owned(),
            federation: federation.clone(),
            clock: clock.clone(),
            random: random.clone(),
            passwords: Passwords::new(&settings.passwords, random)?,
            failures: Failures::new(&settings.rate_limits),
            crowd: Crowd::count(storage, &settings).await?,
            jwt: Jwt::new(&settings.logins)?,
            application_services: ApplicationServices::new(
                &settings.application_services,
                federation.server_name(),
            )?,
            settings,
            locks: Locks::default(),
            sessions: Mutex::default(),
            login_tokens: Mutex::default(),
            openid_tokens: Mutex::default(),
            nonces: Mutex::default(),
            requesters: Cache::new(MAX_REQUESTERS),
            invalidations: 0.into(),
            first_token: Mutex::new(None),
        }));
        users.make_first_token().await?;
        Ok(users)
    }

    /// What we have to do with other servers.
    pub fn federation(&self) -> &Federation {
        &self.0.federation
    }

    /// The name of this server: what stands behind the colon of its users' ids.
    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// Whether somebody may make one more account.
    ///
    /// # Errors
    ///
    /// 403 `M_RESOURCE_LIMIT_EXCEEDED` if the operator allows no more.
    fn check_not_full(&self) -> Result<()> {
        self.0.crowd.as_ref().map_or(Ok(()), Crowd::check)
    }

    fn account_made(&self) {
        self.0.crowd.as_ref().map(Crowd::grow);
    }

    fn account_closed(&self) {
        self.0.crowd.as_ref().map(Crowd::shrink);
    }

    /// Milliseconds since 1970.
    fn now(&self) -> u64 {
        self.0.clock.now().get().into()
    }

    /// A view of whatever there is now.
    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.0.storage.snapshot(Position::START).await?)
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("server_name", &self.0.server_name)
            .finish_non_exhaustive()
    }
}
