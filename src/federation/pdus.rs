//! Events as other servers send them: the first three of the checks on receipt
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu)). The others
//! need the room.

use error::Result;
use pdu::{Pdu, PduError, RoomRules, SignatureError};
use ruma::{OwnedEventId, ServerName, ServerSigningKeyId};
use serde_json::value::RawValue;
use tokio::task::spawn_blocking;

use crate::{
    Federation,
    remote_keys::{Asking, KeysOfServers, SignatureOf, Wanted},
};

/// From how many events on it is worth to spread them over the cores.
const MANY: usize = 32;

/// Why an event is dropped before its room is looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PduFault {
    /// It has not the form of an event of its room's version.
    #[error(transparent)]
    Form(#[from] PduError),
    /// Its signatures do not prove that it is its sender's.
    #[error("{fault}")]
    Signature {
        /// Which event.
        event_id: OwnedEventId,
        /// What is wrong.
        fault: SignatureError,
    },
}

/// Events that were looked at, or what is wrong with each.
pub type Checked = Vec<Result<Pdu, PduFault>>;

impl Federation {
    /// Checks the form, the signatures and the hash of events of one room, whose keys are fetched if need be;
    /// the answers come in the order of the events. One that is not what its hash says is redacted.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn check_pdus(
        &self,
        rules: &'static RoomRules,
        raw: Vec<Box<RawValue>>,
    ) -> Result<Checked> {
        let parse = move |raw: Box<RawValue>| Ok(Pdu::parse(raw.get().as_bytes(), rules)?);
        self.verify(rules, spread(raw, parse).await?).await
    }

    /// The same for events that are known to be well formed.
    ///
    /// # Errors
    ///
    /// Storage fails.
    pub async fn verify_pdus(&self, rules: &'static RoomRules, pdus: Vec<Pdu>) -> Result<Checked> {
        self.verify(rules, pdus.into_iter().map(Ok).collect()).await
    }

    async fn verify(&self, rules: &'static RoomRules, parsed: Checked) -> Result<Checked> {
        let mut wanted = Vec::new();
        for pdu in parsed.iter().flatten() {
            // What is wrong with it is found when the signatures are looked at.
            let required = pdu::required_signatures(pdu, rules).unwrap_or_default();
            let at = if rules.enforce_key_validity {
                pdu.origin_server_ts().get().into()
            } else {
                0
            };
            wanted.extend(required.into_iter().map(|required| Wanted {
                server: required.server,
                key_ids: required.key_ids,
                at,
                of: SignatureOf::Event,
            }));
        }
        wanted.retain(|wanted| !wanted.key_ids.is_empty());
        let keys = self.fetch_keys(&wanted, Asking::IfReachable).await?;
        let keys = std::sync::Arc::new(keys);
        let us = self.clone();
        spread(parsed, move |parsed: Result<Pdu, PduFault>| {
            us.check_pdu(parsed?, rules, &keys)
        })
        .await
    }

    fn check_pdu(
        &self,
        pdu: Pdu,
        rules: &RoomRules,
        keys: &KeysOfServers,
    ) -> Result<Pdu, PduFault> {
        let find = |server: &ServerName, key_id: &ServerSigningKeyId| {
            let key = if server == self.server_name() {
                self.own_key(key_id)
            } else {
                keys.get(server)?.get(key_id).copied()
            };
            key.map(|key| key.public())
        };
        pdu::verify_signatures(&pdu, rules, &find).map_err(|fault| PduFault::Signature {
            event_id: pdu.event_id().to_owned(),
            fault,
        })?;
        if pdu::check_content_hash(&pdu) {
            Ok(pdu)
        } else {
            Ok(pdu.redacted(rules)?)
        }
    }
}

/// Works on each of a list, on all cores where it is long.
pub(crate) async fn spread<T, U, F>(list: Vec<T>, work: F) -> Result<Vec<U>>
where
    T: Send + 'static,
    U: Send + 'static,
    F: Fn(T) -> U + Clone + Send + Sync + 'static,
{
    if list.len() < MANY {
        return Ok(list.into_iter().map(work).collect());
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let length = list.len().div_ceil(cores).max(1);
    let mut list = list.into_iter();
    let mut working = Vec::new();
    loop {
        let part: Vec<T> = list.by_ref().take(length).collect();
        if part.is_empty() {
            break;
        }
        let work = work.clone();
        working.push(spawn_blocking(move || -> Vec<U> {
            part.into_iter().map(work).collect()
        }));
    }
    let mut all = Vec::new();
    for part in working {
        all.extend(part.await.map_err(error::internal)?);
    }
    Ok(all)
}
