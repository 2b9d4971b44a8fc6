//! Guests: people with an account that has no password ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#guest-access

use std::sync::Arc;

use error::Result;
use storage::{Batch, NameHash, schema::ACCOUNT_BY_USER};

use crate::{
    NewDevice, Registered, Requester, Users,
    account::{find_row, new_row, no_account},
};

impl Users {
    /// Makes an account for a guest, who has no password and logs in once ([spec]).
    ///
    /// # Errors
    ///
    /// 403 `M_GUEST_ACCESS_FORBIDDEN` unless the operator lets guests in.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#guest-access
    pub async fn register_guest(&self, display_name: Option<String>) -> Result<Registered> {
        if !self.0.settings.registration.guests {
            return Err(error::guest_access_forbidden(
                "This server does not let guests in",
            ));
        }
        self.check_not_full()?;
        let user_id = self.draw_user_id()?;
        let device = NewDevice {
            display_name,
            ..NewDevice::default()
        };
        let mut row = new_row(&user_id, None, self.now());
        row.guest = true;
        let (_, registered) = self.make_account(&user_id, row, Some(device), None).await?;
        Ok(registered)
    }

    /// The guest whose access token this is, who asks for an account under their own name.
    ///
    /// # Errors
    ///
    /// 403 `M_FORBIDDEN` if it is no guest's, or the name is not theirs.
    pub(crate) async fn guest(
        &self,
        token: &str,
        username: Option<&str>,
    ) -> Result<Arc<Requester>> {
        let found = self.authenticate(token).await?;
        let guest = found.filter(|requester| requester.guest).ok_or_else(|| {
            error::forbidden("`guest_access_token` is not the access token of a guest")
        })?;
        match username {
            Some(name) if name == guest.user_id.localpart() => Ok(guest),
            _ => Err(error::forbidden(
                "`username` has to be the local part of the guest's user ID",
            )),
        }
    }

    /// Makes a guest a user like others, with a password, and logs them in.
    pub(crate) async fn end_guest(
        &self,
        guest: &Requester,
        hash: String,
        device: Option<NewDevice>,
        token: Option<NameHash>,
    ) -> Result<Registered> {
        let user = guest.user;
        let mut writer = self.writer(user).await;
        let account = loop {
            let snapshot = writer.snapshot().await?;
            let found = find_row(&snapshot, user).await?.ok_or_else(no_account)?;
            // An earlier try of ours has written it.
            if found.value.password_hash.as_ref() == Some(&hash) {
                break found;
            }
            if !found.value.guest || found.value.deactivated {
                return Err(error::forbidden("This account is no guest's any more"));
            }
            let mut row = found.value.clone();
            row.guest = false;
            row.password_hash = Some(hash.clone());
            let mut batch = Batch::new();
            if let Some(token) = token {
                row.admin |= self
                    .use_registration_token(&snapshot, &mut batch, token)
                    .await?;
            }
            batch.expect_equals(&ACCOUNT_BY_USER, &user, &found.raw);
            batch.put(&ACCOUNT_BY_USER, &user, &row);
            writer.commit(batch).await?;
        };
        drop(writer);
        self.forget_requesters_of(user).await?;
        self.settle_first_token(user).await?;
        let login = match device {
            Some(device) => Some(self.start_session(user, &account, device).await?),
            None => None,
        };
        Ok(Registered {
            user_id: guest.user_id.clone(),
            login,
        })
    }
}
