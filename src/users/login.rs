//! Logging in: a device and a token for somebody who has proven who they are.

use std::{fmt, net::IpAddr, time::Duration};

use error::Result;
use http::StatusCode;
use ruma::{
    OwnedDeviceId, OwnedUserId, UserId,
    api::client::{
        session::{
            get_login_types::v3::{
                ApplicationServiceLoginType, LoginType, PasswordLoginType, TokenLoginType,
            },
            login::v3::{LoginInfo, Password},
        },
        uiaa::UserIdentifier,
    },
};
use storage::{
    Batch, Found, NameHash, Range, Reads, ShortUserId, Snapshot,
    schema::{
        ACCOUNT_BY_USER, AccountRow, DEVICE_BY_TOKEN, DEVICE_BY_USER, DeviceRow, TOKEN_BY_DEVICE,
        TokenKind, TokenRow, USER_BY_NAME,
    },
};

use crate::{
    AccessToken, NewAccount, Users, account,
    device::{check_device_id, check_display_name, end_tokens},
    failures::Tried,
    jwt, localpart,
    password::Checked,
    refresh::{Pair, put_pair},
    token::{self, TokenHash},
};

/// The device that somebody logs in with.
#[derive(Clone, Debug, Default)]
pub struct NewDevice {
    /// Its id; drawn if none. One that the user has already ends its old tokens.
    pub device_id: Option<OwnedDeviceId>,
    /// What to call it, if it is new.
    pub display_name: Option<String>,
    /// Its client can refresh an access token, so it gets one that ends.
    pub refresh_token: bool,
}

/// A device and its token.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// Who logged in.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Its access token.
    pub access_token: AccessToken,
    /// Its refresh token, if it asked for one.
    pub refresh_token: Option<AccessToken>,
    /// How long the access token is good for; for ever if `None`.
    pub expires_in: Option<Duration>,
}

/// A device and a token that were drawn, to be put into a batch however often that takes.
pub(crate) struct Drawn {
    pub(crate) device_id: OwnedDeviceId,
    display_name: Option<String>,
    tokens: Tokens,
    now: u64,
}

enum Tokens {
    /// For clients that cannot refresh.
    Lasting(AccessToken),
    Refreshable(Pair, Duration),
}

impl Users {
    /// Logs in ([spec]), from an address if that is known.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if password and user do not belong together, whether there is such a user or
    /// not; 403 `M_USER_DEACTIVATED`; 401 `M_USER_LOCKED`; 400 `M_UNKNOWN` for a way to log in that
    /// this server does not offer.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
    pub async fn login(
        &self,
        info: &LoginInfo,
        device: NewDevice,
        from: Option<IpAddr>,
    ) -> Result<LoggedIn> {
        match info {
            LoginInfo::Password(info) => {
                let (user, account) = self.prove_by_password(info, from).await?;
                self.start_session(user, &account, device).await
            }
            LoginInfo::Token(info) => {
                let user = self.use_login_token(&info.token)?;
                let account = account::find_row(&self.snapshot().await?, user).await?;
                let account = account.ok_or_else(account::no_account)?;
                check_open(&account)?;
                self.start_session(user, &account, device).await
            }
            _ if info.login_type() == jwt::TYPE => {
                let Some(jwt) = &self.0.jwt else {
                    return Err(jwt::not_offered());
                };
                let name = jwt.prove(jwt::token_in(&info.data())?, self.now())?;
                let (user, account) = self.account_by_trust(&name).await?;
                check_open(&account)?;
                self.start_session(user, &account, device).await
            }
            _ => Err(jwt::not_offered()),
        }
    }

    /// The ways to log in that this server offers ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login
    pub fn login_types(&self) -> Vec<LoginType> {
        let mut token = TokenLoginType::new();
        token.get_login_token = true;
        let mut types = vec![
            LoginType::Password(PasswordLoginType::new()),
            LoginType::Token(token),
        ];
        if !self.0.application_services.is_empty() {
            types.push(LoginType::ApplicationService(
                ApplicationServiceLoginType::new(),
            ));
        }
        if self.0.jwt.is_some() {
            types.extend(LoginType::new(jwt::TYPE, serde_json::Map::new()).ok());
        }
        types
    }

    /// The account of somebody whom another, whom we trust, calls `name`. Made if there is none.
    async fn account_by_trust(&self, name: &str) -> Result<(ShortUserId, Found<AccountRow>)> {
        if let Some(found) = self.find_by_login_name(name).await? {
            return Ok(found);
        }
        self.check_not_full()?;
        let user_id = localpart::new_user_id(name, &self.0.server_name)
            .map_err(|_| error::forbidden("No account can have this name"))?;
        self.check_not_kept(&user_id, None)?;
        let new = NewAccount {
            username: name,
            ..NewAccount::default()
        };
        match self.create(new).await {
            Ok(_) => {}
            // Another login at the same time was faster.
            Err(failure) if failure.status() == StatusCode::BAD_REQUEST => {
                tracing::debug!(%failure, "an account for a trusted name was not made");
            }
            Err(failure) => return Err(failure),
        }
        self.find_by_login_name(name)
            .await?
            .ok_or_else(|| error::forbidden("No account can have this name"))
    }

    async fn prove_by_password(
        &self,
        info: &Password,
        from: Option<IpAddr>,
    ) -> Result<(ShortUserId, Found<AccountRow>)> {
        let name = name_of(info)?;
        let tried = Tried::new(self.failure_key(name), from);
        self.0.failures.check(tried, self.now())?;
        let found = self.find_by_login_name(name).await?;
        let stored = found
            .as_ref()
            .and_then(|(_, account)| account.value.password_hash.as_deref());
        let checked = self.0.passwords.check(&info.password, stored).await?;
        let Some((user, account)) = found else {
            self.0.failures.failed(tried, self.now());
            return Err(wrong_password());
        };
        if checked == Checked::Wrong && !account.value.deactivated {
            self.0.failures.failed(tried, self.now());
            return Err(wrong_password());
        }
        check_open(&account)?;
        self.0.failures.succeeded(tried);
        let account = self.keep_new_hash(user, &account, checked).await?;
        Ok((user, account))
    }

    /// Under which the failures of an account are counted, however its name is written and whether
    /// there is such an account or not.
    pub(crate) fn failure_key(&self, name: &str) -> NameHash {
        let candidates = localpart::login_candidates(name, &self.0.server_name);
        match candidates.last() {
            Some(folded) => self.0.storage.user_hash(folded.as_str()),
            None => self.0.storage.user_hash(&name.to_lowercase()),
        }
    }

    /// The account that somebody meant who wrote `name` to log in.
    pub(crate) async fn find_by_login_name(
        &self,
        name: &str,
    ) -> Result<Option<(ShortUserId, Found<AccountRow>)>> {
        let names: Vec<_> = localpart::login_candidates(name, &self.0.server_name)
            .iter()
            .map(|user_id| self.0.storage.user_hash(user_id.as_str()))
            .collect();
        let snapshot = self.snapshot().await?;
        let found = snapshot.multi_get(&USER_BY_NAME, &names).await?;
        let Some(user) = found.into_iter().flatten().next() else {
            return Ok(None);
        };
        let account = account::find_row(&snapshot, user.value).await?;
        Ok(account.map(|account| (user.value, account)))
    }

    /// Gives somebody who has proven to be `user` a device and a token. `account` is what the proof
    /// rests on: if it is another by now, nobody is logged in.
    pub(crate) async fn start_session(
        &self,
        user: ShortUserId,
        account: &Found<AccountRow>,
        device: NewDevice,
    ) -> Result<LoggedIn> {
        let user_id = UserId::parse(account.value.user_id.as_str()).map_err(error::internal)?;
        let drawn = self.draw_device(user, device)?;
        let mut writer = self.writer(user).await;
        let ended = loop {
            let snapshot = writer.snapshot().await?;
            let now = account::find_row(&snapshot, user).await?;
            if now.is_none_or(|now| now.raw != account.raw) {
                return Err(error::forbidden(
                    "The account has just changed; log in again",
                ));
            }
            let mut batch = Batch::new();
            batch.expect_equals(&ACCOUNT_BY_USER, &user, &account.raw);
            let Some(ended) = self.add_device(&snapshot, &mut batch, user, &drawn).await? else {
                break Vec::new();
            };
            if writer.commit(batch).await?.is_some() {
                break ended;
            }
        };
        self.forget_requesters(&ended);
        Ok(drawn.into_logged_in(user_id))
    }

    /// Draws what a login needs.
    pub(crate) fn draw_device(&self, user: ShortUserId, device: NewDevice) -> Result<Drawn> {
        check_display_name(device.display_name.as_deref())?;
        let device_id = match device.device_id {
            Some(id) => {
                check_device_id(&id)?;
                id
            }
            None => self.draw_device_id(),
        };
        let tokens = if device.refresh_token {
            Tokens::Refreshable(self.draw_pair(user), self.access_token_lifetime())
        } else {
            Tokens::Lasting(AccessToken::draw(token::ACCESS, user, &self.0.random))
        };
        Ok(Drawn {
            device_id,
            display_name: device.display_name,
            tokens,
            now: self.now(),
        })
    }

    /// Ten letters that people can read to each other.
    fn draw_device_id(&self) -> OwnedDeviceId {
        let mut bytes = [0; 10];
        self.0.random.fill(&mut bytes);
        let letters: String = bytes
            .iter()
            .map(|byte| char::from(b'A' + byte % 26))
            .collect();
        letters.into()
    }

    /// Puts a device and its token into a batch. An existing device keeps its name and loses its old
    /// tokens, whose hashes are returned. `None` if an earlier try of the same batch was written.
    ///
    /// # Errors
    ///
    /// 403 if it is a new one and the user has too many.
    pub(crate) async fn add_device(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        user: ShortUserId,
        drawn: &Drawn,
    ) -> Result<Option<Vec<TokenHash>>> {
        let device = self.0.storage.device_hash(&drawn.device_id);
        let key = (user, device);
        let hash = drawn.access().hash();
        let mut reads = Reads::new();
        let row = reads.get(&DEVICE_BY_USER, &key);
        let tokens = reads.range(&TOKEN_BY_DEVICE, &Range::prefix(&key));
        let most = self.0.settings.limits.max_devices_of_user as usize;
        let all = reads.range(&DEVICE_BY_USER, &Range::prefix(&(user,)).limit(most));
        let answers = snapshot.read(&reads).await?;
        let tokens = answers.rows(&tokens)?;
        if tokens.iter().any(|((_, _, token), _)| *token == hash) {
            return Ok(None);
        }
        let found = answers.one(&row)?;
        if found.is_none() && answers.rows(&all)?.len() >= most {
            return Err(self.too_many(format!(
                "You have {most} devices, as many as this server allows; log out of one first"
            )));
        }
        batch.expect_unchanged(
            &DEVICE_BY_USER,
            &key,
            found.as_ref().map(|found| &found.raw),
        );
        let row = match &found {
            Some(found) => DeviceRow {
                logins: found.value.logins.wrapping_add(1),
                ..found.value.clone()
            },
            None => DeviceRow {
                device_id: drawn.device_id.to_string(),
                display_name: drawn.display_name.clone(),
                created_ts: drawn.now,
                logins: 1,
            },
        };
        batch.put(&DEVICE_BY_USER, &key, &row);
        let mut ended = Vec::new();
        end_tokens(batch, tokens, &mut ended);
        match &drawn.tokens {
            Tokens::Lasting(_) => {
                let token = TokenRow {
                    user,
                    device_id: drawn.device_id.to_string(),
                    expires_ts: None,
                    ends_refresh: None,
                };
                batch.put(&DEVICE_BY_TOKEN, &hash, &token);
                batch.put(&TOKEN_BY_DEVICE, &(user, device, hash), &TokenKind::Access);
            }
            Tokens::Refreshable(pair, _) => {
                put_pair(batch, key, drawn.device_id.as_str(), pair, None);
            }
        }
        if found.is_none() {
            self.tell_device_list(batch, user, []);
        }
        Ok(Some(ended))
    }
}

impl Drawn {
    fn access(&self) -> &AccessToken {
        match &self.tokens {
            Tokens::Lasting(token) => token,
            Tokens::Refreshable(pair, _) => &pair.access,
        }
    }

    pub(crate) fn into_logged_in(self, user_id: OwnedUserId) -> LoggedIn {
        let (access_token, refresh_token, expires_in) = match self.tokens {
            Tokens::Lasting(token) => (token, None, None),
            Tokens::Refreshable(pair, lifetime) => {
                (pair.access, Some(pair.refresh), Some(lifetime))
            }
        };
        LoggedIn {
            user_id,
            device_id: self.device_id,
            access_token,
            refresh_token,
            expires_in,
        }
    }
}

/// The name that somebody wrote to log in.
///
/// # Errors
///
/// 400 `M_MISSING_PARAM` if there is none, `M_INVALID_PARAM` if it is of a kind we do not know.
#[allow(deprecated)] // `user` is how clients of old say it, and the specification still lets them.
pub(crate) fn name_of(info: &Password) -> Result<&str> {
    match (&info.identifier, &info.user) {
        (Some(identifier), _) => name_in(identifier),
        (None, Some(user)) => Ok(user),
        (None, None) => Err(error::missing_param(
            "Say who logs in, in `identifier`: {\"type\": \"m.id.user\", \"user\": …}",
        )),
    }
}

/// The name in an identifier.
pub(crate) fn name_in(identifier: &UserIdentifier) -> Result<&str> {
    match identifier {
        UserIdentifier::Matrix(identifier) => Ok(&identifier.user),
        _ => Err(error::invalid_param(
            "This server knows people by their user name only: `m.id.user`",
        )),
    }
}

/// Whether somebody who has proven to be the owner may log in.
pub(crate) fn check_open(account: &Found<AccountRow>) -> Result<()> {
    if account.value.deactivated {
        return Err(error::user_deactivated("This account was closed for ever"));
    }
    if account.value.locked {
        return Err(error::user_locked("This account is locked"));
    }
    Ok(())
}

fn wrong_password() -> error::Error {
    error::forbidden("The user name or the password is wrong")
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Drawn").field(&self.device_id).finish()
    }
}
