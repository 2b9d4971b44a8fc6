//! Being a notary: passing on what other servers say of their keys, signed by us
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server)).

use std::time::Duration;

use bytes::Bytes;
use error::Result;
use futures_util::{StreamExt as _, stream};
use ruma::OwnedServerName;
use storage::{Position, schema::KEYS_ANSWER_BY_SERVER};
use tokio::time::timeout;

use super::{AT_ONCE, Asking};
use crate::{
    Federation,
    keys_answer::{self, KeysAnswer},
};

/// The most servers that may be asked about at once.
const MAX_SERVERS: usize = 200;

/// How long servers are asked for their keys before the answer is given with what is known.
const TIME: Duration = Duration::from_secs(30);

impl Federation {
    /// What servers said of their keys, as JSON with our signature beside theirs; nothing of those that never
    /// said anything. They are asked again if what they said is not good until the time given, in
    /// milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// 400 `M_INVALID_PARAM` for too many servers. Storage fails.
    pub async fn vouch_for_keys(
        &self,
        wanted: Vec<(OwnedServerName, u64)>,
    ) -> Result<Vec<Vec<u8>>> {
        if wanted.len() > MAX_SERVERS {
            return Err(error::invalid_param(format!(
                "Keys of at most {MAX_SERVERS} servers can be asked for at once"
            )));
        }
        let mut answers = Vec::new();
        let ours = |name: &OwnedServerName| name == self.server_name();
        if wanted.iter().any(|(name, _)| ours(name)) {
            answers.push(self.own_keys_answer());
        }
        let theirs: Vec<_> = wanted.into_iter().filter(|(name, _)| !ours(name)).collect();
        let names: Vec<_> = theirs.iter().map(|(name, _)| name.clone()).collect();
        let said = self.answers_of(&names).await?;
        let stale = theirs.iter().zip(&said).filter(|((_, until), said)| {
            let said = said.as_ref().and_then(|said| KeysAnswer::read(said).ok());
            said.is_none_or(|said| said.valid_until < *until)
        });
        let stale: Vec<_> = stale.map(|((name, _), _)| name.clone()).collect();
        let said = if stale.is_empty() {
            said
        } else {
            let asked = stream::iter(stale)
                .map(|name| self.ask_for_another(name))
                .buffer_unordered(AT_ONCE);
            // What is not here by then is not waited for.
            let _ = timeout(TIME, asked.collect::<()>()).await;
            self.answers_of(&names).await?
        };
        let key = self.signing_keys().current();
        let signed = said
            .iter()
            .flatten()
            .filter_map(|said| keys_answer::sign_too(said, self.server_name(), &key).ok());
        answers.extend(signed);
        Ok(answers)
    }

    /// Asks a server for its keys because another one wants them: for all others together not more at a time than for
    /// ourselves.
    async fn ask_for_another(&self, name: OwnedServerName) {
        if let Ok(_place) = self.0.remote_keys.vouching.acquire().await {
            self.ask_for_keys(name, Asking::IfReachable).await;
        }
    }

    /// What servers last said of their keys themselves, in the order of their names.
    async fn answers_of(&self, names: &[OwnedServerName]) -> Result<Vec<Option<Bytes>>> {
        let storage = self.storage();
        let keys: Vec<_> = names
            .iter()
            .map(|name| storage.hash("server", name))
            .collect();
        let snapshot = storage.snapshot(Position::START).await?;
        let rows = snapshot.multi_get(&KEYS_ANSWER_BY_SERVER, &keys).await?;
        Ok(rows
            .into_iter()
            .map(|row| row.map(|row| row.value.0))
            .collect())
    }
}
