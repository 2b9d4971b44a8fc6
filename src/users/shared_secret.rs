//! Accounts made by whoever knows the operator's shared secret, as Synapse's
//! `/_synapse/admin/v1/register` does: a nonce, and a MAC over it and what is asked for.

use std::{collections::VecDeque, fmt};

use error::Result;
use hmac::{Hmac, Mac};
use http::StatusCode;
use serde::Deserialize;
use sha1::Sha1;

use crate::{NewDevice, Users, account::new_row, localpart};

/// How long a nonce lasts, in milliseconds.
const LIFETIME: u64 = 60 * 1000;

/// How many nonces there may be; a new one ends the oldest.
const MAX_NONCES: usize = 10_000;

/// Letters in a nonce.
const NONCE_LETTERS: usize = 32;

/// The kinds of users that Synapse knows: this server makes no difference between them.
const USER_TYPES: [&str; 2] = ["bot", "support"];

/// Nonces that were given out, with when they end, oldest first.
#[derive(Default)]
pub(crate) struct Nonces(VecDeque<(u64, String)>);

/// Who is to be made.
#[derive(Clone, Deserialize)]
pub struct SharedSecretRegistration {
    /// A nonce got before.
    pub nonce: String,
    /// The name wanted.
    pub username: String,
    /// The display name, if it is to be set.
    #[serde(default)]
    pub displayname: Option<String>,
    /// The password.
    pub password: String,
    /// May administer the server.
    #[serde(default)]
    pub admin: bool,
    /// Synapse's kind of user.
    #[serde(default)]
    pub user_type: Option<String>,
    /// Makes the account only, and logs nobody in.
    #[serde(default)]
    pub inhibit_login: bool,
    /// HMAC-SHA1, in hexadecimal, over all of this.
    pub mac: String,
}

/// Without the password.
impl fmt::Debug for SharedSecretRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSecretRegistration")
            .field("username", &self.username)
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

impl Users {
    /// A nonce for [`Users::register_with_shared_secret`], good once and for a minute.
    ///
    /// # Errors
    ///
    /// 400 `M_UNKNOWN` if the operator has set no shared secret.
    pub fn registration_nonce(&self) -> Result<String> {
        if self.0.settings.registration.shared_secret.is_none() {
            return Err(not_enabled());
        }
        let nonce = self.0.random.letters(NONCE_LETTERS);
        let now = self.now();
        let mut nonces = self.0.nonces.lock();
        while let Some((ends, _)) = nonces.0.front()
            && (*ends <= now || nonces.0.len() >= MAX_NONCES)
        {
            nonces.0.pop_front();
        }
        nonces
            .0
            .push_back((now.saturating_add(LIFETIME), nonce.clone()));
        Ok(nonce)
    }

    /// Makes an account for whoever knows the shared secret, whether registration is open or not.
    /// `None` in place of device and token if the login was inhibited.
    ///
    /// # Errors
    ///
    /// 400 `M_UNKNOWN` for an unknown nonce, 403 `M_UNKNOWN` for a wrong MAC, and those of
    /// [`Users::create`].
    pub async fn register_with_shared_secret(
        &self,
        wish: SharedSecretRegistration,
    ) -> Result<crate::Registered> {
        let Some(secret) = &self.0.settings.registration.shared_secret else {
            return Err(not_enabled());
        };
        self.use_nonce(&wish.nonce)?;
        if !is_right(secret.reveal(), &wish) {
            return Err(error::unknown(StatusCode::FORBIDDEN, "HMAC incorrect"));
        }
        if let Some(kind) = &wish.user_type
            && !USER_TYPES.contains(&kind.as_str())
        {
            return Err(error::invalid_param("There is no such user type"));
        }
        let user_id = localpart::new_user_id(&wish.username, &self.0.server_name)?;
        self.0.passwords.check_strength(&wish.password)?;
        self.check_available(&wish.username).await?;
        let hash = self.0.passwords.hash(&wish.password).await?;
        let mut row = new_row(&user_id, Some(hash), self.now());
        row.admin = wish.admin;
        let device = (!wish.inhibit_login).then(NewDevice::default);
        let (user, registered) = self.make_account(&user_id, row, device, None).await?;
        if let Some(name) = wish.displayname {
            self.set_profile_field(user, "displayname", name.into())
                .await?;
        }
        Ok(registered)
    }

    fn use_nonce(&self, nonce: &str) -> Result<()> {
        let now = self.now();
        let mut nonces = self.0.nonces.lock();
        let found = nonces.0.iter().position(|(_, known)| known == nonce);
        match found.and_then(|at| nonces.0.remove(at)) {
            Some((ends, _)) if ends > now => Ok(()),
            _ => Err(error::unknown(
                StatusCode::BAD_REQUEST,
                "unrecognised nonce",
            )),
        }
    }
}

fn is_right(secret: &str, wish: &SharedSecretRegistration) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    let admin = if wish.admin { "admin" } else { "notadmin" };
    let mut parts = vec![&wish.nonce, &wish.username, &wish.password];
    let admin = admin.to_owned();
    parts.push(&admin);
    parts.extend(&wish.user_type);
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            mac.update(&[0]);
        }
        mac.update(part.as_bytes());
    }
    from_hex(&wish.mac).is_some_and(|given| mac.verify_slice(&given).is_ok())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok())
        .collect()
}

fn not_enabled() -> error::Error {
    error::unknown(
        StatusCode::BAD_REQUEST,
        "Shared secret registration is not enabled",
    )
}
