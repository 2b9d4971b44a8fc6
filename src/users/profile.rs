//! Profiles: what people say about themselves ([spec]), a row a field.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#profiles

use std::collections::BTreeMap;

use error::Result;
use ruma::{CanonicalJsonValue, UserId};
use serde_json::Value;
use storage::{
    Batch, Range, ShortUserId,
    schema::{ACCOUNT_BY_USER, PROFILE_FIELD_BY_USER, ProfileFieldRow},
};

use crate::{Users, account::no_account, job};

/// The largest profile as canonical JSON, in bytes.
pub const MAX_PROFILE: usize = 64 * 1024;

/// The longest name of a field, in bytes.
const MAX_FIELD: usize = 255;

/// The longest display name, in bytes. The largest event could hold no more of it by far.
const MAX_DISPLAY_NAME: usize = 2_000;

/// The longest address of an avatar, in bytes.
const MAX_AVATAR_URL: usize = 1_000;

/// The fields that member events of rooms repeat.
const IN_ROOMS: [&str; 2] = ["avatar_url", "displayname"];

impl Users {
    /// The profile of a user of this server, by the name of the field. `None` if there is no such
    /// user.
    pub async fn find_profile(&self, user_id: &UserId) -> Result<Option<BTreeMap<String, Value>>> {
        match self.find_account(user_id).await? {
            Some(account) => self.profile_of(account.user).await.map(Some),
            None => Ok(None),
        }
    }

    /// The profile of the user with a short id, by the name of the field.
    pub async fn profile_of(&self, user: ShortUserId) -> Result<BTreeMap<String, Value>> {
        let range = Range::prefix(&(user,));
        let rows = self
            .snapshot()
            .await?
            .multi_range(&PROFILE_FIELD_BY_USER, &[range])
            .await?;
        rows.into_iter()
            .flatten()
            .map(|(_, found)| {
                let value = serde_json::from_str(&found.value.json).map_err(error::internal)?;
                Ok((found.value.field, value))
            })
            .collect()
    }

    /// Sets a field of a user's profile. `null` or nothing as display name or avatar removes it. What
    /// rooms show of it follows by a job ([`job::PROFILE`]).
    ///
    /// # Errors
    ///
    /// 400 `M_KEY_TOO_LARGE`, `M_PROFILE_TOO_LARGE`, `M_INVALID_PARAM`, `M_BAD_JSON`; 404 if there is
    /// no such user.
    pub async fn set_profile_field(
        &self,
        user: ShortUserId,
        field: &str,
        value: Value,
    ) -> Result<()> {
        check_field(field)?;
        if IN_ROOMS.contains(&field) && is_nothing(&value) {
            return self.change_profile(user, field, None).await;
        }
        check_value(field, &value)?;
        let json = CanonicalJsonValue::try_from(value)
            .map_err(|_| error::bad_json("The value has numbers that events cannot hold"))?
            .to_string();
        self.change_profile(user, field, Some(json)).await
    }

    /// Removes a field of a user's profile; one that is not there is no error.
    ///
    /// # Errors
    ///
    /// 400 `M_KEY_TOO_LARGE`, `M_INVALID_PARAM`; 404 if there is no such user.
    pub async fn delete_profile_field(&self, user: ShortUserId, field: &str) -> Result<()> {
        check_field(field)?;
        self.change_profile(user, field, None).await
    }

    async fn change_profile(
        &self,
        user: ShortUserId,
        field: &str,
        json: Option<String>,
    ) -> Result<()> {
        let key = (user, self.0.storage.field_hash(field));
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let mut reads = storage::Reads::new();
            let account = reads.get(&ACCOUNT_BY_USER, &user);
            let fields = reads.range(&PROFILE_FIELD_BY_USER, &Range::prefix(&(user,)));
            let answers = snapshot.read(&reads).await?;
            let account = answers.one(&account)?.ok_or_else(no_account)?;
            let fields = answers.rows(&fields)?;
            let old = fields.iter().find(|(other, _)| *other == key);
            if old.map(|(_, old)| &old.value.json) == json.as_ref() {
                return Ok(());
            }
            let mut batch = Batch::new();
            // An erased profile must not come back.
            batch.expect_equals(&ACCOUNT_BY_USER, &user, &account.raw);
            batch.expect_unchanged(&PROFILE_FIELD_BY_USER, &key, old.map(|(_, old)| &old.raw));
            match &json {
                Some(json) => {
                    let others = fields
                        .iter()
                        .filter(|(other, _)| *other != key)
                        .map(|(_, other)| size(&other.value.field, &other.value.json));
                    // Two braces, and a comma between fields.
                    if others.chain([size(field, json)]).sum::<usize>() + 1 > MAX_PROFILE {
                        return Err(error::profile_too_large(format!(
                            "A profile has at most {MAX_PROFILE} bytes"
                        )));
                    }
                    let row = ProfileFieldRow {
                        field: field.to_owned(),
                        json: json.clone(),
                    };
                    batch.put(&PROFILE_FIELD_BY_USER, &key, &row);
                }
                None => batch.delete(&PROFILE_FIELD_BY_USER, &key),
            }
            if IN_ROOMS.contains(&field) {
                job::leave(&mut batch, self, job::PROFILE, user);
            }
            if writer.commit(batch).await?.is_some() {
                return Ok(());
            }
        }
    }
}

/// Bytes of a field in canonical JSON: `"field":value,`.
fn size(field: &str, json: &str) -> usize {
    let field = serde_json::to_string(field).map_or(field.len() + 2, |field| field.len());
    field + 1 + json.len() + 1
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

/// The name of a field: an identifier of the specification's grammar, namespaced or not.
fn check_field(field: &str) -> Result<()> {
    if field.len() > MAX_FIELD {
        return Err(error::key_too_large(format!(
            "The name of a profile field has at most {MAX_FIELD} bytes"
        )));
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let starts = field
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase());
    if starts && field.bytes().all(allowed) {
        Ok(())
    } else {
        Err(error::invalid_param(
            "The name of a profile field begins with a-z and has a-z 0-9 . _ - only",
        ))
    }
}

fn check_value(field: &str, value: &Value) -> Result<()> {
    let longest = match field {
        "displayname" => MAX_DISPLAY_NAME,
        "avatar_url" => MAX_AVATAR_URL,
        "m.tz" => MAX_PROFILE,
        _ => return Ok(()),
    };
    let Some(text) = value.as_str() else {
        return Err(error::bad_json(format!("{field} is a string")));
    };
    if text.len() > longest {
        return Err(error::invalid_param(format!(
            "{field} has at most {longest} bytes"
        )));
    }
    // NOTSPEC: an `avatar_url` need not be an `mxc:` address. Synapse takes any text, Complement sets one, and
    // a client that knows nothing else shows no picture.
    Ok(())
}
