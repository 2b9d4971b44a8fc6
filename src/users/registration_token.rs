//! Registration tokens: words that let people make an account.

use error::Result;
use ruma::{OwnedUserId, UserId};
use storage::{
    Batch, NameHash, Range, Reads, Snapshot,
    schema::{ACCOUNT_BY_USER, AccountRow, REGISTRATION_TOKEN_BY_HASH, RegistrationTokenRow},
};

use crate::Users;

/// Letters in a token that we draw.
const TOKEN_LETTERS: usize = 24;

/// Among how many accounts the first one of a person is looked for: of more, one is taken to be there.
const OF_SERVICES: usize = 100;

/// The longest token ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
const MAX_TOKEN: usize = 64;

/// The token for the first account, made at this start.
pub(crate) struct FirstToken {
    text: String,
    hash: NameHash,
}

/// A registration token to be made.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewRegistrationToken<'a> {
    /// The token; drawn if none.
    pub token: Option<&'a str>,
    /// How many accounts it is good for; any number if none.
    pub uses_allowed: Option<u32>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ts: Option<u64>,
}

impl Users {
    /// The token that makes the first account, an administrator's. `None` once there is one.
    pub fn first_token(&self) -> Option<String> {
        let token = self.0.first_token.lock();
        token.as_ref().map(|token| token.text.clone())
    }

    /// Makes a registration token and returns it. Only its hash is kept.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` if the token is too long, has other letters than A-Z, a-z, 0-9, `.`,
    /// `_`, `~`, `-`, or is there already.
    pub async fn create_registration_token(&self, new: NewRegistrationToken<'_>) -> Result<String> {
        let token = match new.token {
            Some(token) => token.to_owned(),
            None => self.0.random.letters(TOKEN_LETTERS),
        };
        if !well_formed(&token) {
            return Err(error::invalid_param(format!(
                "A registration token has 1 to {MAX_TOKEN} of the letters A-Z a-z 0-9 . _ ~ -"
            )));
        }
        let hash = self.0.storage.registration_token_hash(&token);
        let row = RegistrationTokenRow {
            uses_allowed: new.uses_allowed,
            completed: 0,
            expires_ts: new.expires_ts,
            first: false,
        };
        let mut writer = self.unlocked_writer();
        loop {
            let found = find(&writer.snapshot().await?, hash).await?;
            match found {
                // Nobody can have used it before it was given out, so an equal row is our own.
                Some(found) if found == row && new.token.is_none() => break,
                Some(_) => return Err(error::invalid_param("This registration token exists")),
                None => {}
            }
            let mut batch = Batch::new();
            batch.expect_absent(&REGISTRATION_TOKEN_BY_HASH, &hash);
            batch.put(&REGISTRATION_TOKEN_BY_HASH, &hash, &row);
            if writer.commit(batch).await?.is_some() {
                break;
            }
        }
        Ok(token)
    }

    /// Whether a registration token can make an account now ([spec]).
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1registermloginregistration_tokenvalidity
    pub async fn is_registration_token_valid(&self, token: &str) -> Result<bool> {
        if !well_formed(token) {
            return Ok(false);
        }
        let hash = self.0.storage.registration_token_hash(token);
        let row = find(&self.snapshot().await?, hash).await?;
        Ok(row.is_some_and(|row| self.is_valid(&row)))
    }

    /// The hash of a token that can make an account now.
    ///
    /// # Errors
    ///
    /// 403 if it cannot.
    pub(crate) async fn check_registration_token(&self, token: &str) -> Result<NameHash> {
        if self.is_registration_token_valid(token).await? {
            Ok(self.0.storage.registration_token_hash(token))
        } else {
            Err(no_such_token())
        }
    }

    fn is_valid(&self, row: &RegistrationTokenRow) -> bool {
        let left = row
            .uses_allowed
            .is_none_or(|allowed| row.completed < allowed);
        let open = row.expires_ts.is_none_or(|end| self.now() < end);
        // While registration is closed, the first token alone opens it.
        left && open && (row.first || self.0.settings.registration.enabled)
    }

    /// Puts one use of a token into a batch. Returns whether it makes the first account.
    ///
    /// # Errors
    ///
    /// 403 if it cannot be used any more.
    pub(crate) async fn use_registration_token(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        hash: NameHash,
    ) -> Result<bool> {
        let found = snapshot
            .multi_get(&REGISTRATION_TOKEN_BY_HASH, &[hash])
            .await?;
        let Some(found) = found.into_iter().flatten().next() else {
            return Err(no_such_token());
        };
        if !self.is_valid(&found.value) {
            return Err(no_such_token());
        }
        batch.expect_equals(&REGISTRATION_TOKEN_BY_HASH, &hash, &found.raw);
        if found.value.first {
            batch.delete(&REGISTRATION_TOKEN_BY_HASH, &hash);
        } else {
            let row = RegistrationTokenRow {
                completed: found.value.completed.saturating_add(1),
                ..found.value
            };
            batch.put(&REGISTRATION_TOKEN_BY_HASH, &hash, &row);
        }
        Ok(found.value.first)
    }

    /// Whether an account is one that an application service made for itself, and nobody logs in to.
    fn is_of_a_service(&self, row: &AccountRow) -> bool {
        let user_id = UserId::parse(row.user_id.as_str());
        let kept = |user_id: OwnedUserId| self.0.application_services.keep(&user_id);
        row.password_hash.is_none() && !row.admin && user_id.is_ok_and(kept)
    }

    /// Ends the first tokens of earlier starts; makes a new one if there is no account, or none but those of
    /// application services.
    pub(crate) async fn make_first_token(&self) -> Result<()> {
        let text = self.0.random.letters(TOKEN_LETTERS);
        let hash = self.0.storage.registration_token_hash(&text);
        let row = RegistrationTokenRow {
            uses_allowed: Some(1),
            completed: 0,
            expires_ts: None,
            first: true,
        };
        let mut writer = self.unlocked_writer();
        let made = loop {
            let mut reads = Reads::new();
            let accounts = reads.range(&ACCOUNT_BY_USER, &Range::prefix(&()).limit(OF_SERVICES));
            let tokens = reads.range(&REGISTRATION_TOKEN_BY_HASH, &Range::prefix(&()));
            let answers = writer.snapshot().await?.read(&reads).await?;
            let accounts = answers.rows(&accounts)?;
            let made = accounts.len() < OF_SERVICES
                && accounts
                    .iter()
                    .all(|(_, row)| self.is_of_a_service(&row.value));
            let tokens = answers.rows(&tokens)?;
            if tokens.iter().any(|(key, _)| *key == hash) {
                break made;
            }
            let mut batch = Batch::new();
            for (key, _) in tokens.iter().filter(|(_, token)| token.value.first) {
                batch.delete(&REGISTRATION_TOKEN_BY_HASH, key);
            }
            if made {
                batch.put(&REGISTRATION_TOKEN_BY_HASH, &hash, &row);
            }
            if batch.is_empty() || writer.commit(batch).await?.is_some() {
                break made;
            }
        };
        *self.0.first_token.lock() = made.then_some(FirstToken { text, hash });
        Ok(())
    }

    /// Puts the end of the first token into a batch, if there is one.
    pub(crate) fn end_first_token(&self, batch: &mut Batch) -> bool {
        let token = self.0.first_token.lock();
        let Some(token) = token.as_ref() else {
            return false;
        };
        batch.delete(&REGISTRATION_TOKEN_BY_HASH, &token.hash);
        true
    }

    /// Forgets the first token, after the commit that ended it.
    pub(crate) fn forget_first_token(&self) {
        *self.0.first_token.lock() = None;
    }
}

async fn find(snapshot: &Snapshot, hash: NameHash) -> Result<Option<RegistrationTokenRow>> {
    let found = snapshot
        .multi_get(&REGISTRATION_TOKEN_BY_HASH, &[hash])
        .await?;
    Ok(found.into_iter().flatten().next().map(|found| found.value))
}

fn well_formed(token: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'~' | b'-');
    (1..=MAX_TOKEN).contains(&token.len()) && token.bytes().all(allowed)
}

fn no_such_token() -> error::Error {
    error::forbidden("This registration token is not valid (any more)")
}
