//! Filters that clients store to name them later ([spec]), by the hash of their content: storing the
//! same again gives the same id.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use error::Result;
use ruma::api::client::filter::FilterDefinition;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use storage::{Batch, NameHash, Range, ShortUserId, schema::FILTER_BY_USER};

use crate::Users;

/// The longest filter, in bytes.
const MAX_FILTER: usize = 32 * 1024;

impl Users {
    /// Stores a filter and returns its id.
    ///
    /// # Errors
    ///
    /// 400 `M_BAD_JSON` if it is none, 413 if it is too long, 403 if the user has too many.
    pub async fn create_filter(&self, user: ShortUserId, filter: &RawValue) -> Result<String> {
        parse_filter::<FilterDefinition>(filter.get())?;
        // Sorted, so that the same filter has the same id however it is written.
        let value: Value = serde_json::from_str(filter.get()).map_err(not_a_filter)?;
        let json = value.to_string();
        let hash = self.0.storage.filter_hash(&json);
        let key = (user, hash);
        let mut writer = self.writer(user).await;
        loop {
            let snapshot = writer.snapshot().await?;
            let found = snapshot.multi_get(&FILTER_BY_USER, &[key]).await?;
            if found.iter().any(Option::is_some) {
                break;
            }
            let most = self.0.settings.limits.max_filters_of_user as usize;
            let all = Range::prefix(&(user,)).limit(most);
            let all = snapshot.multi_range(&FILTER_BY_USER, &[all]).await?;
            if all.iter().flatten().count() >= most {
                return Err(self.too_many(format!(
                    "You have stored {most} filters, as many as this server allows; give them in the \
                     request instead"
                )));
            }
            let mut batch = Batch::new();
            // What is under this key is what we write: there is nothing to conflict with.
            batch.put(&FILTER_BY_USER, &key, &json);
            if writer.commit(batch).await?.is_some() {
                break;
            }
        }
        Ok(URL_SAFE_NO_PAD.encode(hash.0))
    }

    /// A stored filter as its JSON.
    pub async fn find_filter(&self, user: ShortUserId, id: &str) -> Result<Option<Box<RawValue>>> {
        let Some(hash) = hash_of(id) else {
            return Ok(None);
        };
        let found = self
            .snapshot()
            .await?
            .multi_get(&FILTER_BY_USER, &[(user, hash)])
            .await?;
        found
            .into_iter()
            .flatten()
            .next()
            .map(|found| RawValue::from_string(found.value).map_err(error::internal))
            .transpose()
    }

    /// What `filter` of a request names: a stored filter's id, or the JSON itself.
    ///
    /// # Errors
    ///
    /// 400 `M_BAD_JSON` if it is no filter, `M_INVALID_PARAM` if there is none with this id.
    pub async fn filter_of<T: DeserializeOwned>(
        &self,
        user: ShortUserId,
        filter: &str,
    ) -> Result<T> {
        if filter.trim_start().starts_with('{') {
            return parse_filter(filter);
        }
        match self.find_filter(user, filter).await? {
            Some(json) => parse_filter(json.get()),
            None => Err(error::invalid_param("You have no filter with this id")),
        }
    }
}

/// Reads a filter.
///
/// # Errors
///
/// 400 `M_BAD_JSON` if it is none, 413 if it is too long.
fn parse_filter<T: DeserializeOwned>(json: &str) -> Result<T> {
    if json.len() > MAX_FILTER {
        return Err(error::too_large(format!(
            "A filter has at most {MAX_FILTER} bytes"
        )));
    }
    serde_json::from_str(json).map_err(not_a_filter)
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
fn not_a_filter(failure: serde_json::Error) -> error::Error {
    error::bad_json(format!("This is not a filter: {failure}"))
}

fn hash_of(id: &str) -> Option<NameHash> {
    let bytes = URL_SAFE_NO_PAD.decode(id).ok()?;
    bytes.try_into().ok().map(NameHash)
}
