//! Accounts: made, found, opened and closed.

use error::Result;
use ruma::{OwnedUserId, UserId};
use storage::{
    Batch, Found, Range, ShortUserId, Snapshot,
    schema::{
        ACCOUNT_BY_USER, AccountRow, DEVICE_BY_USER, ERASED_BY_NAME, PROFILE_FIELD_BY_USER,
        USER_BY_NAME,
    },
};

use crate::{Requester, Users, job, localpart, password::Checked};

/// A local user's account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The short id under which the user's data is kept.
    pub user: ShortUserId,
    /// The whole user id.
    pub user_id: OwnedUserId,
    /// When it was made, in milliseconds since 1970.
    pub created_ts: u64,
    /// Whether a password opens it.
    pub has_password: bool,
    /// May administer the server.
    pub admin: bool,
    /// A guest.
    pub guest: bool,
    /// Closed for ever.
    pub deactivated: bool,
    /// Closed for ever, and what was sent is to be forgotten as far as it can.
    pub erased: bool,
    /// Closed until an administrator opens it again.
    pub locked: bool,
    /// May read and leave, not send or join.
    pub suspended: bool,
}

/// An account to be made by an operator.
#[derive(Clone, Copy, Default)]
pub struct NewAccount<'a> {
    /// The name wanted: what stands before the colon of the user id.
    pub username: &'a str,
    /// The password; without one, none opens the account.
    pub password: Option<&'a str>,
    /// May administer the server.
    pub admin: bool,
    /// A guest.
    pub guest: bool,
}

/// Without the password.
impl std::fmt::Debug for NewAccount<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewAccount")
            .field("username", &self.username)
            .field("admin", &self.admin)
            .field("guest", &self.guest)
            .finish_non_exhaustive()
    }
}

impl Account {
    pub(crate) fn new(user: ShortUserId, row: &AccountRow) -> Result<Self> {
        Ok(Self {
            user,
            user_id: UserId::parse(row.user_id.as_str()).map_err(error::internal)?,
            created_ts: row.created_ts,
            has_password: row.password_hash.is_some(),
            admin: row.admin,
            guest: row.guest,
            deactivated: row.deactivated,
            erased: row.erased,
            locked: row.locked,
            suspended: row.suspended,
        })
    }
}

/// The row of a new account, open, of nobody special.
pub(crate) fn new_row(user_id: &UserId, password_hash: Option<String>, now: u64) -> AccountRow {
    AccountRow {
        user_id: user_id.to_string(),
        password_hash,
        created_ts: now,
        admin: false,
        guest: false,
        deactivated: false,
        erased: false,
        locked: false,
        suspended: false,
    }
}

impl Users {
    /// Makes an account without asking for anything: for operators.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_USERNAME`, `M_USER_IN_USE` or `M_WEAK_PASSWORD`.
    pub async fn create(&self, new: NewAccount<'_>) -> Result<Account> {
        let user_id = localpart::new_user_id(new.username, &self.0.server_name)?;
        let password_hash = match new.password {
            Some(password) => {
                self.0.passwords.check_strength(password)?;
                Some(self.0.passwords.hash(password).await?)
            }
            None => None,
        };
        let user = self.draw_short_id();
        let mut row = new_row(&user_id, password_hash, self.now());
        row.admin = new.admin;
        row.guest = new.guest;
        let mut writer = self.unlocked_writer();
        loop {
            let snapshot = writer.snapshot().await?;
            let mut batch = Batch::new();
            if self.add_account(&snapshot, &mut batch, user, &row).await? {
                break;
            }
            let ends_first_token = new.admin && self.end_first_token(&mut batch);
            if writer.commit(batch).await?.is_some() {
                if ends_first_token {
                    self.forget_first_token();
                }
                break;
            }
        }
        self.account_made();
        Account::new(user, &row)
    }

    /// Puts a new account into a batch, on the condition that the name is free. Returns whether it is
    /// there already, written by an earlier try of the same batch.
    pub(crate) async fn add_account(
        &self,
        snapshot: &Snapshot,
        batch: &mut Batch,
        user: ShortUserId,
        row: &AccountRow,
    ) -> Result<bool> {
        let name = self.0.storage.user_hash(row.user_id.as_str());
        let taken = snapshot.multi_get(&USER_BY_NAME, &[name]).await?;
        match taken.first().and_then(Option::as_ref) {
            Some(found) if found.value == user => return Ok(true),
            Some(_) => return Err(taken_name()),
            None => {}
        }
        batch.expect_absent(&USER_BY_NAME, &name);
        batch.expect_absent(&ACCOUNT_BY_USER, &user);
        batch.put(&USER_BY_NAME, &name, &user);
        batch.put(&ACCOUNT_BY_USER, &user, row);
        Ok(false)
    }

    /// Whether somebody may register `username` ([spec]).
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_USERNAME`, `M_USER_IN_USE` or `M_EXCLUSIVE`.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3registeravailable
    pub async fn check_available(&self, username: &str) -> Result<()> {
        let user_id = localpart::new_user_id(username, &self.0.server_name)?;
        self.check_not_kept(&user_id, None)?;
        self.check_not_in_use(&user_id).await
    }

    /// Whether nobody has a user id.
    ///
    /// # Errors
    ///
    /// 400 `M_USER_IN_USE`.
    pub(crate) async fn check_not_in_use(&self, user_id: &UserId) -> Result<()> {
        match self.find_short_id(user_id).await? {
            Some(_) => Err(taken_name()),
            None => Ok(()),
        }
    }

    /// The short id of a user of this server.
    pub async fn find_short_id(&self, user_id: &UserId) -> Result<Option<ShortUserId>> {
        if user_id.server_name() != self.0.server_name {
            return Ok(None);
        }
        let name = self.0.storage.user_hash(user_id.as_str());
        let found = self
            .snapshot()
            .await?
            .multi_get(&USER_BY_NAME, &[name])
            .await?;
        Ok(found.into_iter().flatten().next().map(|found| found.value))
    }

    /// The account with a user id, closed ones too.
    pub async fn find_account(&self, user_id: &UserId) -> Result<Option<Account>> {
        match self.find_short_id(user_id).await? {
            Some(user) => self.find_account_of(user).await,
            None => Ok(None),
        }
    }

    /// The account with a short id, closed ones too.
    pub async fn find_account_of(&self, user: ShortUserId) -> Result<Option<Account>> {
        let snapshot = self.snapshot().await?;
        let found = find_row(&snapshot, user).await?;
        found
            .map(|found| Account::new(user, &found.value))
            .transpose()
    }

    /// Accounts in the order of their short ids, after `after`, at most `limit`.
    pub async fn accounts(&self, after: Option<ShortUserId>, limit: usize) -> Result<Vec<Account>> {
        let mut range = Range::prefix(&()).limit(limit);
        if let Some(after) = after {
            range = range.after(&after);
        }
        let rows = self
            .snapshot()
            .await?
            .multi_range(&ACCOUNT_BY_USER, &[range])
            .await?;
        rows.into_iter()
            .flatten()
            .map(|(user, found)| Account::new(user, &found.value))
            .collect()
    }

    /// Makes a user an administrator, or one no longer.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<()> {
        self.change_account(user_id, |row| row.admin = admin).await
    }

    /// Locks an account or opens it again ([account locking]).
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    ///
    /// [account locking]: https://spec.matrix.org/v1.19/client-server-api/#account-locking
    pub async fn set_locked(&self, user_id: &UserId, locked: bool) -> Result<()> {
        self.change_account(user_id, |row| row.locked = locked)
            .await
    }

    /// Suspends an account or ends that ([account suspension]).
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    ///
    /// [account suspension]: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
    pub async fn set_suspended(&self, user_id: &UserId, suspended: bool) -> Result<()> {
        self.change_account(user_id, |row| row.suspended = suspended)
            .await
    }

    /// Sets a password without asking for the old one: for operators. Tokens stay unless
    /// `logout_devices`.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account, 400 `M_WEAK_PASSWORD`.
    pub async fn reset_password(
        &self,
        user_id: &UserId,
        password: &str,
        logout_devices: bool,
    ) -> Result<()> {
        self.0.passwords.check_strength(password)?;
        let account = self.account_or_404(user_id).await?;
        let hash = self.0.passwords.hash(password).await?;
        self.change_account(user_id, |row| row.password_hash = Some(hash.clone()))
            .await?;
        if logout_devices {
            self.remove_all_devices(account.user, None).await?;
        }
        Ok(())
    }

    /// Sets a new password for a requester who has proven again that it is them
    /// ([`Users::prove_again`]). With `logout_devices` all other devices end, with their pushers.
    ///
    /// # Errors
    ///
    /// 400 `M_WEAK_PASSWORD`.
    pub async fn change_password(
        &self,
        requester: &Requester,
        password: &str,
        logout_devices: bool,
    ) -> Result<()> {
        self.reset_password(&requester.user_id, password, false)
            .await?;
        if logout_devices {
            self.remove_all_devices(requester.user, requester.device)
                .await?;
        }
        Ok(())
    }

    /// Closes an account for ever: no password, no devices, its name stays taken. Its rooms are left
    /// by a job ([`job::DEACTIVATE`]). With `erase`, profile, account data and key backups go, and what it
    /// sent is shown to those only who were there.
    /// Doing it twice does no harm.
    ///
    /// # Errors
    ///
    /// 404 if there is no such account.
    pub async fn deactivate(&self, user_id: &UserId, erase: bool) -> Result<()> {
        let user = self.account_or_404(user_id).await?.user;
        if erase {
            // While it is open: where this is interrupted, its owner can ask for it again.
            self.erase_account_data(user).await?;
            self.erase_backups(user).await?;
        }
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let Some(found) = find_row(&snapshot, user).await? else {
                return Err(no_account());
            };
            let mut row = found.value.clone();
            if row.deactivated && (row.erased || !erase) {
                break;
            }
            row.deactivated = true;
            row.erased |= erase;
            row.password_hash = None;
            row.admin = false;
            let mut batch = Batch::new();
            batch.expect_equals(&ACCOUNT_BY_USER, &user, &found.raw);
            batch.put(&ACCOUNT_BY_USER, &user, &row);
            job::leave(&mut batch, self, job::DEACTIVATE, user);
            if erase {
                let name = self.0.storage.user_hash(user_id);
                batch.put(&ERASED_BY_NAME, &name, &());
                let fields = Range::prefix(&(user,));
                let rows = snapshot
                    .multi_range(&PROFILE_FIELD_BY_USER, &[fields])
                    .await?;
                for (key, _) in rows.into_iter().flatten() {
                    batch.delete(&PROFILE_FIELD_BY_USER, &key);
                }
            }
            if writer.commit(batch).await?.is_some() {
                if !found.value.deactivated {
                    self.account_closed();
                }
                break;
            }
        }
        drop(writer);
        // Closed already: no device can be added any more, and a crash in here is mended by the job.
        self.remove_all_devices(user, None).await
    }

    /// Changes the row of an account, in the same way each time it is called.
    async fn change_account(
        &self,
        user_id: &UserId,
        change: impl Fn(&mut AccountRow),
    ) -> Result<()> {
        let user = self.account_or_404(user_id).await?.user;
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let Some(found) = find_row(&snapshot, user).await? else {
                return Err(no_account());
            };
            if found.value.deactivated {
                return Err(error::user_deactivated("This account was closed for ever"));
            }
            let mut row = found.value.clone();
            change(&mut row);
            if row == found.value {
                break;
            }
            let mut batch = Batch::new();
            batch.expect_equals(&ACCOUNT_BY_USER, &user, &found.raw);
            batch.put(&ACCOUNT_BY_USER, &user, &row);
            if writer.commit(batch).await?.is_some() {
                break;
            }
        }
        self.forget_requesters_of(user).await
    }

    /// Keeps the new hash of a password whose cost changed. If the row changed meanwhile, that is
    /// left to the next login.
    pub(crate) async fn keep_new_hash(
        &self,
        user: ShortUserId,
        found: &Found<AccountRow>,
        checked: Checked,
    ) -> Result<Found<AccountRow>> {
        let Checked::RightBut(hash) = checked else {
            return Ok(found.clone());
        };
        let mut row = found.value.clone();
        row.password_hash = Some(hash);
        let mut batch = Batch::new();
        batch.expect_equals(&ACCOUNT_BY_USER, &user, &found.raw);
        batch.put(&ACCOUNT_BY_USER, &user, &row);
        self.writer(user).await.commit(batch).await?;
        let snapshot = self.snapshot().await?;
        find_row(&snapshot, user).await?.ok_or_else(no_account)
    }

    pub(crate) async fn account_or_404(&self, user_id: &UserId) -> Result<Account> {
        self.find_account(user_id).await?.ok_or_else(no_account)
    }

    pub(crate) fn draw_short_id(&self) -> ShortUserId {
        let mut id = [0; 8];
        self.0.random.fill(&mut id);
        ShortUserId(id)
    }

    /// How many devices a user has.
    pub async fn count_devices(&self, user: ShortUserId) -> Result<usize> {
        let range = Range::prefix(&(user,));
        let rows = self
            .snapshot()
            .await?
            .multi_range(&DEVICE_BY_USER, &[range])
            .await?;
        Ok(rows.iter().map(Vec::len).sum())
    }
}

/// The row of an account.
pub(crate) async fn find_row(
    snapshot: &Snapshot,
    user: ShortUserId,
) -> Result<Option<Found<AccountRow>>> {
    let found = snapshot.multi_get(&ACCOUNT_BY_USER, &[user]).await?;
    Ok(found.into_iter().flatten().next())
}

pub(crate) fn no_account() -> error::Error {
    error::not_found("There is no such user on this server")
}

fn taken_name() -> error::Error {
    error::user_in_use("This user name is taken")
}
