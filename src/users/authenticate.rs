//! Whose an access token is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use error::Result;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use storage::{
    Batch, Found, NameHash, Range, Reads, ShortUserId,
    schema::{
        ACCOUNT_BY_USER, AccountRow, DEVICE_BY_TOKEN, DEVICE_BY_USER, LIMIT_BY_USER, LimitRow,
        SEEN_BY_DEVICE, SeenRow, TOKEN_BY_DEVICE, TokenRow,
    },
};

use crate::{
    ApplicationService, OwnLimits, Users,
    token::{self, TokenHash},
};

/// How long after a device was seen it is written down again, in milliseconds.
const SEEN_AFTER: u64 = 5 * 60 * 1000;

/// The longest address and `User-Agent` that are kept, in bytes.
const MAX_SEEN_TEXT: usize = 256;

/// A user of this server, proven by an access token.
#[derive(Debug)]
pub struct Requester {
    /// The short id under which the user's data is kept.
    pub user: ShortUserId,
    /// The whole user id.
    pub user_id: OwnedUserId,
    /// The device that the token was given to; none where an application service names none.
    pub device_id: Option<OwnedDeviceId>,
    /// The device's hash, as keys hold it.
    pub device: Option<NameHash>,
    /// May administer the server.
    pub admin: bool,
    /// A guest.
    pub guest: bool,
    /// May read and leave, not send or join.
    pub suspended: bool,
    /// How often they may do things.
    pub limits: OwnLimits,
    /// The application service that acts as them, with its own token.
    pub service: Option<Arc<ApplicationService>>,
    /// May only log out.
    locked: bool,
    expires_ts: Option<u64>,
    seen_ts: AtomicU64,
}

/// What is known of a requester beside their account.
pub(crate) struct Proven {
    /// The device, and its hash.
    pub(crate) device: Option<(OwnedDeviceId, NameHash)>,
    pub(crate) limits: OwnLimits,
    pub(crate) expires_ts: Option<u64>,
    pub(crate) service: Option<Arc<ApplicationService>>,
}

impl Requester {
    pub(crate) fn of(user: ShortUserId, account: &AccountRow, proven: Proven) -> Result<Self> {
        let (device_id, device) = proven.device.unzip();
        Ok(Self {
            user,
            user_id: UserId::parse(account.user_id.as_str()).map_err(error::internal)?,
            device_id,
            device,
            admin: account.admin,
            guest: account.guest,
            suspended: account.suspended,
            limits: proven.limits,
            service: proven.service,
            locked: account.locked,
            expires_ts: proven.expires_ts,
            seen_ts: AtomicU64::new(0),
        })
    }

    /// The device's id; empty, which no device's is, where there is none.
    pub fn device_name(&self) -> &str {
        self.device_id.as_ref().map_or("", |id| id.as_str())
    }

    /// The device, for what only devices can do.
    ///
    /// # Errors
    ///
    /// 400 `M_MISSING_PARAM` if an application service names none.
    pub fn own_device(&self) -> Result<(&DeviceId, NameHash)> {
        match (&self.device_id, self.device) {
            (Some(id), Some(hash)) => Ok((id, hash)),
            _ => Err(error::missing_param(
                "This is for devices: name one of the user's in `device_id` of the query",
            )),
        }
    }
}

/// From where a device was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen<'a> {
    /// The address.
    pub ip: Option<&'a str>,
    /// The `User-Agent`.
    pub user_agent: Option<&'a str>,
}

impl Users {
    /// Whose an access token is; `None` if it is nobody's. Answered from memory, or with one read.
    ///
    /// # Errors
    ///
    /// 401 `M_UNKNOWN_TOKEN` with `soft_logout` if the token has expired, 401 `M_USER_LOCKED` if the
    /// account is locked.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Arc<Requester>>> {
        let requester = self.authenticate_even_locked(token).await?;
        if requester.as_ref().is_some_and(|requester| requester.locked) {
            return Err(error::user_locked("This account is locked"));
        }
        Ok(requester)
    }

    /// As [`Users::authenticate`], but a locked account may do this too: for logging out.
    ///
    /// # Errors
    ///
    /// 401 `M_UNKNOWN_TOKEN` with `soft_logout` if the token has expired.
    pub async fn authenticate_even_locked(&self, token: &str) -> Result<Option<Arc<Requester>>> {
        let Some(user) = token::claimed_user(token::ACCESS, token) else {
            return Ok(None);
        };
        let hash = token::hash(token);
        let requester = match self.0.requesters.get(&hash) {
            Some(requester) => requester,
            None => match self.find_requester(user, hash).await? {
                Some(requester) => requester,
                None => return Ok(None),
            },
        };
        if requester.expires_ts.is_some_and(|end| end <= self.now()) {
            return Err(error::unknown_token(true, "This access token has expired"));
        }
        Ok(Some(requester))
    }

    async fn find_requester(
        &self,
        user: ShortUserId,
        hash: TokenHash,
    ) -> Result<Option<Arc<Requester>>> {
        // A logout between the read and the insertion must win. It raises the number first and
        // removes then, so either the number is seen to have changed here, or the removal comes after.
        let before = self.0.invalidations.load(Ordering::SeqCst);
        let mut reads = Reads::new();
        let token = reads.get(&DEVICE_BY_TOKEN, &hash);
        let account = reads.get(&ACCOUNT_BY_USER, &user);
        let limits = reads.get(&LIMIT_BY_USER, &user);
        let answers = self.snapshot().await?.read(&reads).await?;
        let limits = answers.one(&limits)?;
        let limits = limits.as_ref().map(|found| &found.value);
        let (Some(token), Some(account)) = (answers.one(&token)?, answers.one(&account)?) else {
            return Ok(None);
        };
        if token.value.user != user || account.value.deactivated {
            return Ok(None);
        }
        let expired = token.value.expires_ts.is_some_and(|end| end <= self.now());
        if token.value.ends_refresh.is_some() && !expired {
            self.end_refreshed(user, hash, &token).await?;
            // The row is another now, and what was just thrown out has raised the number.
            let requester = self.requester_of(user, &token.value, &account, limits)?;
            return Ok(Some(Arc::new(requester)));
        }
        let requester = Arc::new(self.requester_of(user, &token.value, &account, limits)?);
        self.0.requesters.insert(hash, Arc::clone(&requester));
        if self.0.invalidations.load(Ordering::SeqCst) != before {
            self.0.requesters.remove(&hash);
        }
        Ok(Some(requester))
    }

    fn requester_of(
        &self,
        user: ShortUserId,
        token: &TokenRow,
        account: &Found<AccountRow>,
        limits: Option<&LimitRow>,
    ) -> Result<Requester> {
        let device = self.0.storage.device_hash(token.device_id.as_str());
        let proven = Proven {
            device: Some((token.device_id.as_str().into(), device)),
            limits: limits.map_or(Ok(OwnLimits::Usual), OwnLimits::of_row)?,
            expires_ts: token.expires_ts,
            service: None,
        };
        Requester::of(user, &account.value, proven)
    }

    /// Forgets whose these tokens are. To be called after the commit that ends them.
    pub(crate) fn forget_requesters<'a>(&self, tokens: impl IntoIterator<Item = &'a TokenHash>) {
        self.0.invalidations.fetch_add(1, Ordering::SeqCst);
        for token in tokens {
            self.0.requesters.remove(token);
        }
    }

    /// Forgets what is remembered of a user's account, after it changed.
    pub(crate) async fn forget_requesters_of(&self, user: ShortUserId) -> Result<()> {
        self.0.invalidations.fetch_add(1, Ordering::SeqCst);
        let range = Range::prefix(&(user,));
        let rows = self
            .snapshot()
            .await?
            .multi_range(&TOKEN_BY_DEVICE, &[range])
            .await?;
        let tokens: Vec<TokenHash> = rows
            .into_iter()
            .flatten()
            .map(|((_, _, token), _)| token)
            .collect();
        self.forget_requesters(&tokens);
        Ok(())
    }

    /// Writes down that a device was seen, at most once in a few minutes. Costs nothing otherwise.
    pub async fn saw(&self, requester: &Requester, seen: Seen<'_>) -> Result<()> {
        let now = self.now();
        let last = requester.seen_ts.load(Ordering::Relaxed);
        if last != 0 && now < last.saturating_add(SEEN_AFTER) {
            return Ok(());
        }
        // Of several requests at once, one writes.
        let mine = requester.seen_ts.compare_exchange(
            last,
            now.max(1),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if mine.is_err() {
            return Ok(());
        }
        let Some(device) = requester.device else {
            return Ok(());
        };
        let key = (requester.user, device);
        let mut reads = Reads::new();
        let device = reads.get(&DEVICE_BY_USER, &key);
        let answers = self.snapshot().await?.read(&reads).await?;
        let Some(device) = answers.one(&device)? else {
            return Ok(());
        };
        let row = SeenRow {
            ts: now,
            ip: seen.ip.map(shortened),
            user_agent: seen.user_agent.map(shortened),
        };
        let mut batch = Batch::new();
        // A device that is gone must not come back as a row.
        batch.expect_equals(&DEVICE_BY_USER, &key, &device.raw);
        batch.put(&SEEN_BY_DEVICE, &key, &row);
        self.unlocked_writer().commit(batch).await?;
        Ok(())
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_SEEN_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
