//! Registration: people make accounts for themselves.

use std::fmt;

use error::Result;
use ruma::{
    OwnedUserId, UserId,
    api::client::uiaa::{AuthData, AuthType},
};
use storage::{Batch, NameHash, ShortUserId, schema::AccountRow};

use crate::{LoggedIn, NewDevice, Users, account::new_row, localpart, uiaa::Interaction};

/// Letters in a name that we draw.
const NAME_LETTERS: usize = 12;

/// What sessions of user-interactive authentication for this are good for.
const PURPOSE: &str = "register";

/// Who wants an account.
#[derive(Clone, Default)]
pub struct Registration<'a> {
    /// The name wanted; drawn if none.
    pub username: Option<&'a str>,
    /// The password.
    pub password: Option<&'a str>,
    /// The device to log in with.
    pub device: NewDevice,
    /// Makes the account only, and logs nobody in.
    pub inhibit_login: bool,
    /// What proves that they may.
    pub auth: Option<&'a AuthData>,
    /// The access token of a guest who is to get an account of their own under their name.
    pub guest_access_token: Option<&'a str>,
}

/// Without the password.
impl fmt::Debug for Registration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("username", &self.username)
            .field("device", &self.device)
            .field("inhibit_login", &self.inhibit_login)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

/// A new account.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its user id.
    pub user_id: OwnedUserId,
    /// Device and token, unless that was inhibited.
    pub login: Option<LoggedIn>,
}

impl Users {
    /// Makes an account and logs it in ([spec]).
    ///
    /// # Errors
    ///
    /// 401 with what is left to be proven; 403 `M_FORBIDDEN` if registration is closed, 403
    /// `M_RESOURCE_LIMIT_EXCEEDED` if there are as many accounts as may be; 400
    /// `M_INVALID_USERNAME`, `M_USER_IN_USE`, `M_EXCLUSIVE`, `M_MISSING_PARAM`, `M_WEAK_PASSWORD`.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register
    pub async fn register(&self, registration: Registration<'_>) -> Result<Registered> {
        let flows = self.registration_flows()?;
        let guest = match registration.guest_access_token {
            Some(token) => Some(self.guest(token, registration.username).await?),
            None => {
                self.check_not_full()?;
                None
            }
        };
        let user_id = match (&guest, registration.username) {
            (Some(guest), _) => guest.user_id.clone(),
            (None, Some(username)) => {
                self.check_available(username).await?;
                localpart::new_user_id(username, &self.0.server_name)?
            }
            (None, None) => self.draw_user_id()?,
        };
        if let Some(password) = registration.password {
            self.0.passwords.check_strength(password)?;
        }
        let interaction = Interaction {
            purpose: PURPOSE.to_owned(),
            flows,
            requester: None,
        };
        let proven = self.interact(&interaction, registration.auth).await?;
        let Some(password) = registration.password else {
            return Err(error::missing_param("An account needs a `password`"));
        };
        let hash = self.0.passwords.hash(password).await?;
        let device = (!registration.inhibit_login).then_some(registration.device);
        if let Some(guest) = guest {
            let token = proven.registration_token;
            let registered = self.end_guest(&guest, hash, device, token).await?;
            self.end_interaction(&proven);
            return Ok(registered);
        }
        let row = new_row(&user_id, Some(hash), self.now());
        let (_, registered) = self
            .make_account(&user_id, row, device, proven.registration_token)
            .await?;
        self.end_interaction(&proven);
        Ok(registered)
    }

    /// Account, first device and use of the token, in one batch.
    pub(crate) async fn make_account(
        &self,
        user_id: &UserId,
        mut row: AccountRow,
        device: Option<NewDevice>,
        token: Option<NameHash>,
    ) -> Result<(ShortUserId, Registered)> {
        let user = self.draw_short_id();
        let drawn = device
            .map(|device| self.draw_device(user, device))
            .transpose()?;
        let admin = row.admin;
        let mut writer = self.unlocked_writer();
        loop {
            let snapshot = writer.snapshot().await?;
            let mut batch = Batch::new();
            if let Some(drawn) = &drawn {
                self.add_device(&snapshot, &mut batch, user, drawn).await?;
            }
            let mut first = false;
            if let Some(token) = token {
                match self
                    .use_registration_token(&snapshot, &mut batch, token)
                    .await
                {
                    Ok(made_first) => first = made_first,
                    // Perhaps an earlier try of ours has used it up.
                    Err(_) if self.find_account_of(user).await?.is_some() => break,
                    Err(failure) => return Err(failure),
                }
            }
            row.admin = admin || first;
            if self.add_account(&snapshot, &mut batch, user, &row).await? {
                break;
            }
            if writer.commit(batch).await?.is_some() {
                break;
            }
        }
        self.account_made();
        self.settle_first_token(user).await?;
        let registered = Registered {
            user_id: user_id.to_owned(),
            login: drawn.map(|drawn| drawn.into_logged_in(user_id.to_owned())),
        };
        Ok((user, registered))
    }

    /// Forgets the first token if the account just made used it.
    pub(crate) async fn settle_first_token(&self, user: ShortUserId) -> Result<()> {
        if self.first_token().is_some()
            && self
                .find_account_of(user)
                .await?
                .is_some_and(|account| account.admin)
        {
            self.forget_first_token();
        }
        Ok(())
    }

    /// What somebody has to show to get an account.
    fn registration_flows(&self) -> Result<Vec<Vec<AuthType>>> {
        let settings = &self.0.settings.registration;
        let mut flows = Vec::new();
        if settings.enabled && !settings.require_token {
            flows.push(vec![AuthType::Dummy]);
        }
        if settings.enabled && settings.require_token || self.first_token().is_some() {
            flows.push(vec![AuthType::RegistrationToken]);
        }
        if flows.is_empty() {
            return Err(error::forbidden(config::Registration::CLOSED));
        }
        Ok(flows)
    }

    /// The id of a new user whose name we draw.
    ///
    /// # Errors
    ///
    /// 400 `M_EXCLUSIVE` if application services keep all names for themselves.
    pub(crate) fn draw_user_id(&self) -> Result<OwnedUserId> {
        let user_id = localpart::new_user_id(&self.draw_name(), &self.0.server_name)?;
        self.check_not_kept(&user_id, None)?;
        Ok(user_id)
    }

    fn draw_name(&self) -> String {
        let mut bytes = [0; NAME_LETTERS];
        self.0.random.fill(&mut bytes);
        bytes
            .iter()
            .map(|byte| char::from(b'a' + byte % 26))
            .collect()
    }
}
