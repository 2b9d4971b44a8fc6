//! Refreshing access tokens ([spec]).
//!
//! A refresh token is turned into a new pair. It and its access token go on until the new pair is
//! first used, so that an answer lost on its way locks nobody out; refreshed again before that, the
//! pair that nobody used ends.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens

use std::time::Duration;

use error::Result;
use storage::{
    Batch, Found, NameHash, Reads, ShortUserId, Snapshot,
    schema::{
        ACCOUNT_BY_USER, DEVICE_BY_TOKEN, DEVICE_BY_USER, DeviceRow, REFRESH_BY_TOKEN, RefreshRow,
        TOKEN_BY_DEVICE, TokenKind, TokenRow,
    },
};

use crate::{
    AccessToken, Users,
    token::{self, TokenHash},
};

/// A new pair of tokens.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The access token.
    pub access_token: AccessToken,
    /// The refresh token, which replaces the one that was used.
    pub refresh_token: AccessToken,
    /// How long the access token is good for.
    pub expires_in: Duration,
}

/// A pair of tokens to be put into a batch.
pub(crate) struct Pair {
    pub(crate) access: AccessToken,
    pub(crate) refresh: AccessToken,
    expires_ts: u64,
}

impl Users {
    /// Turns a refresh token into a new pair.
    ///
    /// # Errors
    ///
    /// 401 `M_UNKNOWN_TOKEN` if it is not one that can be used (any more), with `soft_logout` if it has
    /// expired; 401 `M_USER_LOCKED`.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Refreshed> {
        let Some(user) = token::claimed_user(token::REFRESH, refresh_token) else {
            return Err(unknown());
        };
        let hash = token::hash(refresh_token);
        let pair = self.draw_pair(user);
        let mut writer = self.writer(user).await;
        let ended = loop {
            let snapshot = writer.snapshot().await?;
            let mut batch = Batch::new();
            match self
                .refresh_in(&snapshot, &mut batch, user, hash, &pair)
                .await?
            {
                None => break Vec::new(),
                Some(ended) if writer.commit(batch).await?.is_some() => break ended,
                Some(_) => {}
            }
        };
        self.forget_requesters(&ended);
        Ok(Refreshed {
            access_token: pair.access,
            refresh_token: pair.refresh,
            expires_in: self.access_token_lifetime(),
        })
    }

    /// Puts a refresh into a batch. Returns the tokens that it ends, or `None` if an earlier try of the
    /// same was written.
    async fn refresh_in(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        user: ShortUserId,
        hash: TokenHash,
        pair: &Pair,
    ) -> Result<Option<Vec<TokenHash>>> {
        let mut reads = Reads::new();
        let row = reads.get(&REFRESH_BY_TOKEN, &hash);
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let answers = snapshot.read(&reads).await?;
        let (Some(found), Some(account)) = (answers.one(&row)?, answers.one(&account)?) else {
            return Err(unknown());
        };
        let row = &found.value;
        if row.user != user || account.value.deactivated {
            return Err(unknown());
        }
        if account.value.locked {
            return Err(error::user_locked("This account is locked"));
        }
        if row.expires_ts.is_some_and(|end| end <= self.now()) {
            return Err(error::unknown_token(true, "This refresh token has expired"));
        }
        let new = (pair.access.hash(), pair.refresh.hash());
        if row.next == Some(new) {
            return Ok(None);
        }
        let device = (user, self.0.storage.device_hash(row.device_id.as_str()));
        let mut reads = Reads::new();
        let device_row = reads.get(&DEVICE_BY_USER, &device);
        let old = row
            .ends_refresh
            .map(|old| reads.get(&REFRESH_BY_TOKEN, &old));
        let answers = snapshot.read(&reads).await?;
        let device_row = answers.one(&device_row)?.ok_or_else(unknown)?;
        batch.expect_equals(&REFRESH_BY_TOKEN, &hash, &found.raw);
        batch.expect_equals(&DEVICE_BY_USER, &device, &device_row.raw);
        let logins = device_row.value.logins.wrapping_add(1);
        let device_row = DeviceRow {
            logins,
            ..device_row.value
        };
        batch.put(&DEVICE_BY_USER, &device, &device_row);
        let mut ended = Vec::new();
        if let (Some(old), Some(slot)) = (row.ends_refresh, old) {
            end_pair(batch, device, old, answers.one(&slot)?.as_ref(), &mut ended);
        }
        if let Some((access, refresh)) = row.next {
            batch.delete(&DEVICE_BY_TOKEN, &access);
            batch.delete(&REFRESH_BY_TOKEN, &refresh);
            batch.delete(&TOKEN_BY_DEVICE, &(device.0, device.1, access));
            batch.delete(&TOKEN_BY_DEVICE, &(device.0, device.1, refresh));
            ended.extend([access, refresh]);
        }
        let used = RefreshRow {
            ends_refresh: None,
            next: Some(new),
            ..row.clone()
        };
        batch.put(&REFRESH_BY_TOKEN, &hash, &used);
        put_pair(batch, device, &row.device_id, pair, Some(hash));
        Ok(Some(ended))
    }

    /// The first use of an access token that came from a refresh ends what it was got with.
    pub(crate) async fn end_refreshed(
        &self,
        user: ShortUserId,
        hash: TokenHash,
        token: &Found<TokenRow>,
    ) -> Result<()> {
        let Some(old) = token.value.ends_refresh else {
            return Ok(());
        };
        let device = self.0.storage.device_hash(token.value.device_id.as_str());
        let mut writer = self.writer(user).await;
        let ended = loop {
            let mut reads = Reads::new();
            let token = reads.get(&DEVICE_BY_TOKEN, &hash);
            let row = reads.get(&REFRESH_BY_TOKEN, &old);
            let answers = writer.snapshot().await?.read(&reads).await?;
            let token = answers.one(&token)?;
            let Some(token) = token.filter(|token| token.value.ends_refresh == Some(old)) else {
                // Whoever was faster has done the same, or has ended this token.
                return Ok(());
            };
            let mut batch = Batch::new();
            let mut ended = Vec::new();
            batch.expect_equals(&DEVICE_BY_TOKEN, &hash, &token.raw);
            let used = TokenRow {
                ends_refresh: None,
                ..token.value
            };
            batch.put(&DEVICE_BY_TOKEN, &hash, &used);
            let row = answers.one(&row)?;
            end_pair(&mut batch, (user, device), old, row.as_ref(), &mut ended);
            if writer.commit(batch).await?.is_some() {
                break ended;
            }
        };
        self.forget_requesters(&ended);
        Ok(())
    }

    pub(crate) fn draw_pair(&self, user: ShortUserId) -> Pair {
        let lifetime = self.access_token_lifetime().as_millis();
        let lifetime = u64::try_from(lifetime).unwrap_or(u64::MAX);
        Pair {
            access: AccessToken::draw(token::ACCESS, user, &self.0.random),
            refresh: AccessToken::draw(token::REFRESH, user, &self.0.random),
            expires_ts: self.now().saturating_add(lifetime),
        }
    }

    pub(crate) fn access_token_lifetime(&self) -> Duration {
        self.0.settings.logins.access_token_lifetime
    }
}

/// Puts a new pair into a batch; its first use ends `ends_refresh`.
pub(crate) fn put_pair(
    batch: &mut Batch,
    (user, device): (ShortUserId, NameHash),
    device_id: &str,
    pair: &Pair,
    ends_refresh: Option<TokenHash>,
) {
    let (access, refresh) = (pair.access.hash(), pair.refresh.hash());
    let token = TokenRow {
        user,
        device_id: device_id.to_owned(),
        expires_ts: Some(pair.expires_ts),
        ends_refresh,
    };
    batch.put(&DEVICE_BY_TOKEN, &access, &token);
    let row = RefreshRow {
        user,
        device_id: device_id.to_owned(),
        expires_ts: None,
        access,
        ends_refresh,
        next: None,
    };
    batch.put(&REFRESH_BY_TOKEN, &refresh, &row);
    batch.put(
        &TOKEN_BY_DEVICE,
        &(user, device, access),
        &TokenKind::Access,
    );
    batch.put(
        &TOKEN_BY_DEVICE,
        &(user, device, refresh),
        &TokenKind::Refresh,
    );
}

/// Puts the end of a refresh token and its access token into a batch.
fn end_pair(
    batch: &mut Batch,
    (user, device): (ShortUserId, NameHash),
    refresh: TokenHash,
    row: Option<&Found<RefreshRow>>,
    ended: &mut Vec<TokenHash>,
) {
    let Some(row) = row else { return };
    let access = row.value.access;
    batch.delete(&REFRESH_BY_TOKEN, &refresh);
    batch.delete(&DEVICE_BY_TOKEN, &access);
    batch.delete(&TOKEN_BY_DEVICE, &(user, device, refresh));
    batch.delete(&TOKEN_BY_DEVICE, &(user, device, access));
    ended.extend([refresh, access]);
}

fn unknown() -> error::Error {
    error::unknown_token(false, "This refresh token is not valid (any more)")
}
