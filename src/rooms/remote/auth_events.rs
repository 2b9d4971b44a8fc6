//! What allows an event, fetched where it is not here.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};
use pdu::Pdu;
use ruma::OwnedEventId;

use super::asking::Asking;
use crate::{
    Received, Standing,
    writer::{Laid, auth_ids, lay_down},
};

/// Single events that are fetched for one that needs them, at most.
const FETCHED_MAX: usize = 200;
/// So many auth events, or fewer, are asked for by themselves first.
const FEW: usize = 3;
/// Events that are fetched side by side.
const AT_ONCE: usize = 8;

impl Asking {
    /// Receives an event, after the auth events that it lacks were fetched. If it lacks what it follows as well,
    /// that has to come first: its auth events are as a rule among that, or in the state before it.
    pub(super) async fn receive_with_auth(
        &self,
        pdu: &Arc<Pdu>,
        standing: Standing,
    ) -> error::Result<Received> {
        let received = self.receive(pdu, standing.clone()).await?;
        let Received::Missing { auth, prev } = &received else {
            return Ok(received);
        };
        let by_prev = standing == Standing::Live { state_before: None };
        if auth.is_empty() || (by_prev && !prev.is_empty()) {
            return Ok(received);
        }
        // All that allows a member of a room of which we know not all may be here: a chain would hold all of it.
        let few = match auth.len() {
            0..=FEW => self.fetch_each(auth).await?,
            _ => Vec::new(),
        };
        if few.len() < auth.len() || !self.are_allowed_here(&few).await? {
            let chain = self.fetch_chain(pdu.event_id()).await?;
            self.keep_as_outliers(chain).await?;
        }
        self.keep_as_outliers(few).await?;
        let lacking = self.unknown(auth).await?;
        let single = self.fetch_each(&lacking).await?;
        self.keep_as_outliers(single).await?;
        self.receive(pdu, standing).await
    }

    /// Whether what allows some events is here, or among them.
    async fn are_allowed_here(&self, events: &[Arc<Pdu>]) -> error::Result<bool> {
        let among = |id: &OwnedEventId| events.iter().any(|event| event.event_id() == id);
        let auth = events.iter().flat_map(|event| auth_ids(&self.room, event));
        let auth: Vec<_> = auth.filter(|id| !among(id)).collect();
        Ok(self.unknown(&auth).await?.is_empty())
    }

    /// Fetches events one by one, a few side by side. Those that nobody has are left out.
    pub(super) async fn fetch_each(&self, ids: &[OwnedEventId]) -> error::Result<Vec<Arc<Pdu>>> {
        let fetches = ids.iter().cloned();
        let fetches = fetches.map(|id| async move { self.fetch_event(&id).await });
        let mut fetches = stream::iter(fetches).buffer_unordered(AT_ONCE);
        let mut events = Vec::new();
        while let Some(fetched) = fetches.next().await {
            events.extend(fetched?);
        }
        Ok(events)
    }

    /// Receives events that are only somebody's state or auth events. What allows them and is not among
    /// them is fetched; those for which it cannot be had are not kept, nor is what rests on them.
    pub(super) async fn keep_as_outliers(&self, events: Vec<Arc<Pdu>>) -> error::Result<()> {
        self.lay_down_with_auth(events).await.map(drop)
    }

    /// The same: those that lie there, and what allows them, by their ids.
    pub(super) async fn lay_down_with_auth(
        &self,
        events: Vec<Arc<Pdu>>,
    ) -> error::Result<HashMap<OwnedEventId, Laid>> {
        let mut all = HashMap::new();
        let mut left = events;
        let mut budget = FETCHED_MAX;
        loop {
            let laid = lay_down(&self.rooms, &self.room, &left).await?;
            left.retain(|event| !laid.contains_key(event.event_id()));
            let again = left;
            let auth = again.iter().flat_map(|event| auth_ids(&self.room, event));
            let mut lacking: BTreeSet<_> = auth.filter(|id| !laid.contains_key(id)).collect();
            for event in &again {
                lacking.remove(event.event_id());
            }
            let lacking: Vec<_> = lacking.into_iter().take(budget).collect();
            all.extend(laid);
            if lacking.is_empty() {
                return Ok(all);
            }
            budget -= lacking.len();
            let found = self.fetch_each(&lacking).await?;
            if found.is_empty() {
                return Ok(all);
            }
            left = again;
            left.extend(found);
        }
    }
}
