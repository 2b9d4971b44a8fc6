//! Application services: who proves to be one, whom it may act as, and which names are its own ([spec]).
//!
//! What the operator registered is in the settings; nothing of it is stored. Tokens are compared by their
//! hashes, all of them each time, so that how long it takes tells nothing of them.
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use config::{Namespace, RegistrationFile};
use error::Result;
use http::StatusCode;
use quick_cache::sync::Cache;
use ruma::{
    OwnedDeviceId, OwnedUserId, RoomAliasId, ServerName, UserId,
    api::client::session::login::v3::ApplicationService as ServiceLogin,
};
use storage::{
    NameHash, Reads, ShortUserId,
    schema::{ACCOUNT_BY_USER, DEVICE_BY_USER, LIMIT_BY_USER},
};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::{
    LoggedIn, NewAccount, NewDevice, OwnLimits, Registered, Requester, Users,
    account::{new_row, no_account},
    authenticate::Proven,
    localpart,
    login::{check_open, name_in},
    token::{self, TokenHash},
};

/// How many people that services act as are remembered.
const MAX_MASKS: usize = 20_000;

/// A service that the operator registered.
pub struct ApplicationService {
    settings: config::ApplicationService,
    sender: OwnedUserId,
    as_token: TokenHash,
}

/// Without tokens.
impl fmt::Debug for ApplicationService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ApplicationService")
            .field(&self.id())
            .finish()
    }
}

impl ApplicationService {
    fn new(file: &RegistrationFile, server_name: &ServerName) -> Result<Self> {
        let settings = file.service.clone();
        Ok(Self {
            sender: localpart::new_user_id(&settings.sender_localpart, server_name)?,
            as_token: token::hash(settings.as_token.reveal()),
            settings,
        })
    }

    /// Its name among the services of this server.
    pub fn id(&self) -> &str {
        &self.settings.id
    }

    /// What the operator granted to it.
    pub fn settings(&self) -> &config::ApplicationService {
        &self.settings
    }

    /// Whether it may act as a user of this server: its own one, or one of its namespaces.
    pub fn may_act_as(&self, user_id: &UserId) -> bool {
        let known = user_id.server_name() == self.sender.server_name();
        known && (*self.sender == *user_id || holds(&self.settings.users, user_id.as_str()))
    }

    /// Whether an alias is of one of its namespaces.
    pub fn has_alias(&self, alias: &RoomAliasId) -> bool {
        holds(&self.settings.aliases, alias.as_str())
    }

    fn keeps_user(&self, user_id: &UserId) -> bool {
        *self.sender == *user_id || keeps(&self.settings.users, user_id.as_str())
    }
}

fn holds(namespaces: &[Namespace], id: &str) -> bool {
    let mut namespaces = namespaces.iter();
    namespaces.any(|namespace| namespace.pattern.is_match(id))
}

fn keeps(namespaces: &[Namespace], id: &str) -> bool {
    let mut namespaces = namespaces.iter().filter(|namespace| namespace.exclusive);
    namespaces.any(|namespace| namespace.pattern.is_match(id))
}

/// A service, whom it acts as, and with which device.
type MaskKey = (TokenHash, NameHash, Option<NameHash>);

/// All services of a server, and the people that they acted as lately.
pub(crate) struct ApplicationServices {
    list: Vec<Arc<ApplicationService>>,
    /// With how often something had been forgotten when they were read: see `authenticate.rs`.
    masks: Cache<MaskKey, (u64, Arc<Requester>)>,
}

impl ApplicationServices {
    pub(crate) fn new(
        settings: &config::ApplicationServices,
        server_name: &ServerName,
    ) -> Result<Self> {
        let files = settings.registrations.iter();
        Ok(Self {
            list: files
                .map(|file| ApplicationService::new(file, server_name).map(Arc::new))
                .collect::<Result<_>>()?,
            masks: Cache::new(MAX_MASKS),
        })
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether an account without a password is one that a service keeps.
    pub(crate) fn keep(&self, user_id: &UserId) -> bool {
        self.list.iter().any(|service| service.keeps_user(user_id))
    }
}

impl Users {
    /// The service whose `as_token` this is.
    pub fn find_application_service(&self, token: &str) -> Option<Arc<ApplicationService>> {
        let hash = token::hash(token);
        let list = &self.0.application_services.list;
        let mut found = u32::MAX;
        for (at, service) in (0_u32..).zip(list) {
            let same: Choice = service.as_token.ct_eq(&hash);
            found = u32::conditional_select(&found, &at, same);
        }
        list.get(usize::try_from(found).ok()?).map(Arc::clone)
    }

    /// The user as whom a service asks for something, with a device if it names one ([spec]). Its own user is
    /// made when it is first needed.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` for users that it may not act as, or has not registered; 400 `M_INVALID_PARAM` for what
    /// is no user id; 400 `M_UNKNOWN_DEVICE` for a device that the user does not have; 403
    /// `M_USER_DEACTIVATED`, 401 `M_USER_LOCKED`.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#identity-assertion
    pub async fn act_as(
        &self,
        service: &Arc<ApplicationService>,
        user_id: Option<&str>,
        device_id: Option<&str>,
    ) -> Result<Arc<Requester>> {
        let user_id = match user_id {
            None => service.sender.clone(),
            Some(text) => UserId::parse(text)
                .map_err(|_| error::invalid_param("`user_id` in the query is no user id"))?,
        };
        if !service.may_act_as(&user_id) {
            return Err(error::forbidden(
                "This application service may not act as this user",
            ));
        }
        let name = self.0.storage.user_hash(user_id.as_str());
        let device = device_id.map(|id| self.0.storage.device_hash(id));
        let key = (service.as_token, name, device);
        let masks = &self.0.application_services.masks;
        let forgotten = self.0.invalidations.load(Ordering::SeqCst);
        if let Some((at, requester)) = masks.get(&key)
            && at == forgotten
        {
            return Ok(requester);
        }
        let requester = Arc::new(self.put_on(service, &user_id, device_id).await?);
        // What was forgotten meanwhile makes this old at once.
        masks.insert(key, (forgotten, Arc::clone(&requester)));
        Ok(requester)
    }

    async fn put_on(
        &self,
        service: &Arc<ApplicationService>,
        user_id: &UserId,
        device_id: Option<&str>,
    ) -> Result<Requester> {
        let user = match self.find_short_id(user_id).await? {
            Some(user) => user,
            None if *user_id == *service.sender => self.make_sender(service).await?,
            None => {
                return Err(error::forbidden(
                    "The application service has not registered this user",
                ));
            }
        };
        let device = device_id.map(|id| self.0.storage.device_hash(id));
        let mut reads = Reads::new();
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let limits = reads.get(&LIMIT_BY_USER, &user);
        let devices: Vec<_> = device.iter().map(|device| (user, *device)).collect();
        let devices = reads.get_all(&DEVICE_BY_USER, &devices);
        let answers = self.snapshot().await?.read(&reads).await?;
        let account = answers.one(&account)?.ok_or_else(no_account)?;
        check_open(&account)?;
        if answers.all(&devices)?.iter().any(Option::is_none) {
            return Err(error::unknown_device("This user has no such device"));
        }
        let unlimited = *user_id == *service.sender || !service.settings.rate_limited;
        let limits = match answers.one(&limits)? {
            _ if unlimited => OwnLimits::None,
            Some(row) => OwnLimits::of_row(&row.value)?,
            None => OwnLimits::Usual,
        };
        Requester::of(
            user,
            &account.value,
            Proven {
                device: device_id.map(OwnedDeviceId::from).zip(device),
                limits,
                expires_ts: None,
                service: Some(Arc::clone(service)),
            },
        )
    }

    /// The account of a service's own user, who has no password.
    async fn make_sender(&self, service: &ApplicationService) -> Result<ShortUserId> {
        let new = NewAccount {
            username: &service.settings.sender_localpart,
            ..NewAccount::default()
        };
        match self.create(new).await {
            Ok(account) => Ok(account.user),
            // Another request at the same time was faster.
            Err(failure) if failure.status() == StatusCode::BAD_REQUEST => {
                let found = self.find_short_id(&service.sender).await?;
                found.ok_or(failure)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Makes an account for a user of a service, without a password ([spec]).
    ///
    /// # Errors
    ///
    /// 400 `M_MISSING_PARAM` without a name, `M_EXCLUSIVE` for one outside of its namespaces or of somebody
    /// else, `M_INVALID_USERNAME`, `M_USER_IN_USE`.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
    pub async fn register_for(
        &self,
        service: &ApplicationService,
        username: Option<&str>,
        device: Option<NewDevice>,
    ) -> Result<Registered> {
        let username = username
            .ok_or_else(|| error::missing_param("An application service names the `username`"))?;
        let user_id = localpart::new_user_id(username, &self.0.server_name)?;
        if !service.may_act_as(&user_id) {
            return Err(error::exclusive(
                "This user name is in none of the application service's namespaces",
            ));
        }
        self.check_not_kept(&user_id, Some(service))?;
        self.check_not_in_use(&user_id).await?;
        let row = new_row(&user_id, None, self.now());
        let (_, registered) = self.make_account(&user_id, row, device, None).await?;
        Ok(registered)
    }

    /// Logs in a user of a service ([spec]).
    ///
    /// # Errors
    ///
    /// 400 `M_EXCLUSIVE` for users outside of its namespaces, `M_MISSING_PARAM` where none is named; 403
    /// `M_FORBIDDEN` where there is no such user, `M_USER_DEACTIVATED`; 401 `M_USER_LOCKED`.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
    #[allow(deprecated)] // `user` is how services of old say it, and the specification still lets them.
    pub async fn login_for(
        &self,
        service: &ApplicationService,
        login: &ServiceLogin,
        device: NewDevice,
    ) -> Result<LoggedIn> {
        let name = match (&login.identifier, &login.user) {
            (Some(identifier), _) => name_in(identifier)?,
            (None, Some(user)) => user,
            (None, None) => {
                return Err(error::missing_param(
                    "Say who logs in, in `identifier`: {\"type\": \"m.id.user\", \"user\": …}",
                ));
            }
        };
        let candidates = localpart::login_candidates(name, &self.0.server_name);
        let mut allowed = candidates.iter();
        if !allowed.any(|user_id| service.may_act_as(user_id)) {
            return Err(error::exclusive(
                "This user is in none of the application service's namespaces",
            ));
        }
        let found = self.find_by_login_name(name).await?;
        let found = found.filter(|(_, account)| {
            let user_id = UserId::parse(account.value.user_id.as_str());
            user_id.is_ok_and(|user_id| service.may_act_as(&user_id))
        });
        let Some((user, account)) = found else {
            return Err(error::forbidden(
                "The application service has not registered this user",
            ));
        };
        check_open(&account)?;
        self.start_session(user, &account, device).await
    }

    /// Whether a user name may be taken by somebody: a service, or anybody else if none.
    ///
    /// # Errors
    ///
    /// 400 `M_EXCLUSIVE` if another service, or the server itself, keeps such names for itself.
    pub(crate) fn check_not_kept(
        &self,
        user_id: &UserId,
        by: Option<&ApplicationService>,
    ) -> Result<()> {
        if user_id.localpart() == self.0.settings.server_notices.user {
            return Err(error::exclusive("This user name is the server's own"));
        }
        let mut others = self.others(by);
        match others.any(|service| service.keeps_user(user_id)) {
            true => Err(error::exclusive(
                "This user name is kept for an application service",
            )),
            false => Ok(()),
        }
    }

    /// Whether somebody may point an alias to a room, or take it away ([spec]). Whether it is the alias of a
    /// service that asks.
    ///
    /// # Errors
    ///
    /// 400 `M_EXCLUSIVE` if it is outside of the namespaces of the service that asks, or if another one keeps it
    /// for itself.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
    pub fn check_alias(&self, requester: &Requester, alias: &RoomAliasId) -> Result<bool> {
        let by = requester.service.as_deref();
        if by.is_some_and(|service| !service.has_alias(alias)) {
            return Err(error::exclusive(
                "This alias is in none of the application service's namespaces",
            ));
        }
        let mut others = self.others(by);
        if others.any(|service| keeps(&service.settings.aliases, alias.as_str())) {
            return Err(error::exclusive(
                "This alias is kept for an application service",
            ));
        }
        Ok(by.is_some())
    }

    fn others(
        &self,
        than: Option<&ApplicationService>,
    ) -> impl Iterator<Item = &Arc<ApplicationService>> {
        let than = than.map(|service| service.as_token);
        let list = self.0.application_services.list.iter();
        list.filter(move |service| Some(service.as_token) != than)
    }
}
