//! Asking notaries for the keys of servers that do not answer themselves
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server)).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedServerSigningKeyId, ServerName, UInt,
    api::federation::discovery::get_remote_server_keys_batch::v2::{QueryCriteria, Request},
};

use super::{Asking, KeysOfServers, PATIENCE, SignatureOf, Wanted, is_rested, was_not_asked};
use crate::{
    Federation, Patience,
    keys_answer::{self, KeysAnswer},
};

/// Notaries are not asked about a server again before this.
const PAUSE: Duration = Duration::from_secs(60);

/// The most servers that one notary is asked about at once.
const SERVERS_A_REQUEST: usize = 100;

/// What answers about that many servers may take.
const NOTARY_PATIENCE: Patience = Patience {
    bytes: 4 << 20,
    ..PATIENCE
};

type Query = BTreeMap<OwnedServerName, BTreeMap<OwnedServerSigningKeyId, QueryCriteria>>;

impl Federation {
    /// Asks the notaries, one after the other until all is known, and stores what servers have said to them.
    pub(super) async fn ask_notaries(&self, wanted: &[&Wanted]) {
        let mut by_server: BTreeMap<&OwnedServerName, Vec<&Wanted>> = BTreeMap::new();
        for wanted in wanted {
            by_server.entry(&wanted.server).or_default().push(wanted);
        }
        let by_server: Vec<_> = by_server.into_iter().collect();
        for some in by_server.chunks(SERVERS_A_REQUEST) {
            self.ask_notaries_about(some).await;
        }
    }

    /// The same for as many servers as one request is about, in the order of their names. Who comes meanwhile for
    /// one of them waits for what the notaries say.
    async fn ask_notaries_about(&self, wanted: &[(&OwnedServerName, Vec<&Wanted>)]) {
        let came = self.now();
        let (mut turns, mut left) = (Vec::new(), Vec::new());
        for (server, wanted) in wanted {
            // All take them in the order of the names: nobody waits for somebody who waits for them.
            let turn = self.0.remote_keys.turn(server);
            let turn = Arc::clone(&turn.notaries).lock_owned().await;
            if is_rested(*turn, PAUSE, came) {
                turns.push(turn);
                left.extend(wanted);
            }
        }
        for notary in &self.settings().notaries {
            if left.is_empty() {
                return;
            }
            if notary == self.server_name() || !self.ask_notary(notary, &left).await {
                continue;
            }
            let now = self.now();
            turns.iter_mut().for_each(|turn| **turn = Some(now));
            let mut found = KeysOfServers::new();
            if let Err(error) = self.load_keys(&left, &mut found).await {
                tracing::error!(%error, "keys cannot be read");
                return;
            }
            left.retain(|wanted| !wanted.is_met(&found));
        }
    }

    /// Whether a notary was asked: not if it is left alone.
    async fn ask_notary(&self, notary: &ServerName, wanted: &[&Wanted]) -> bool {
        let mut query = Query::new();
        for wanted in wanted {
            let ids = query.entry(wanted.server.clone()).or_default();
            for id in &wanted.key_ids {
                let mut criteria = QueryCriteria::new();
                let at = UInt::new_saturating(wanted.at);
                criteria.minimum_valid_until_ts = Some(MilliSecondsSinceUnixEpoch(at));
                ids.insert(id.clone(), criteria);
            }
        }
        let answer = self.ask(notary, Request::new(query), NOTARY_PATIENCE).await;
        let asked = !was_not_asked(&answer);
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                tracing::debug!(%notary, %failure, "a notary does not answer");
                return asked;
            }
        };
        let answers = answer.server_keys.iter().take(SERVERS_A_REQUEST * 4);
        for answer in answers.map(|answer| answer.json().get().as_bytes()) {
            self.believe(notary, wanted, answer).await;
        }
        asked
    }

    /// Stores what a notary passes on, if the notary and the server itself have signed it.
    async fn believe(&self, notary: &ServerName, wanted: &[&Wanted], answer: &[u8]) {
        let said = match KeysAnswer::read(answer) {
            Ok(said) => said,
            Err(fault) => {
                tracing::warn!(%notary, %fault, "what a notary passes on is not believed");
                return;
            }
        };
        if !wanted.iter().any(|wanted| wanted.server == said.server) {
            return;
        }
        if !self.is_signed_by(notary, answer).await {
            tracing::warn!(%notary, "a notary does not sign what it passes on");
            return;
        }
        if let Err(error) = self.store_keys(&said, None).await {
            tracing::error!(server = %said.server, %error, "the keys of a server cannot be stored");
        }
    }

    /// Whether a server has signed a JSON object, with a key that it tells itself.
    async fn is_signed_by(&self, server: &ServerName, json: &[u8]) -> bool {
        let key_ids = keys_answer::signed_with(json, server);
        if key_ids.is_empty() {
            return false;
        }
        let wanted = Wanted {
            server: server.to_owned(),
            key_ids: key_ids.clone(),
            at: self.now(),
            of: SignatureOf::Request,
        };
        let mut found = KeysOfServers::new();
        if self.load_keys(&[&wanted], &mut found).await.is_err() {
            return false;
        }
        if !wanted.is_met(&found) {
            self.ask_for_keys(server.to_owned(), Asking::IfReachable)
                .await;
            if self.load_keys(&[&wanted], &mut found).await.is_err() {
                return false;
            }
        }
        let Some(keys) = found.get(server) else {
            return false;
        };
        let known = key_ids.iter().filter_map(|id| Some((id, keys.get(id)?)));
        known
            .filter(|(_, key)| !key.expired)
            .any(|(id, key)| keys_answer::verifies(json, server, id, key.key))
    }
}
