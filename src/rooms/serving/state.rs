//! The state at an event, and what allows events, as other servers ask for them.

use std::collections::BTreeSet;

use bytes::Bytes;
use pdu::{AuthChain, EventNumber};
use ruma::EventId;
use storage::{
    NameHash,
    schema::{self, EventRow},
};

use super::Serving;

/// Rows that are read together.
const ROWS_AT_ONCE: usize = 2_000;

/// The state before an event, and the auth chains of all that it is made of.
#[derive(Clone, Debug, Default)]
pub struct ServedState<T> {
    /// The state's events.
    pub state: Vec<T>,
    /// The events that allow them, those that allow these, and so on.
    pub auth_chain: Vec<T>,
}

impl Serving {
    /// The events of the state before an event
    /// ([`GET /state/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid)).
    ///
    /// # Errors
    ///
    /// 404 `M_NOT_FOUND` if the event is not one of this room or nothing is known of the state before it, 403
    /// `M_FORBIDDEN` if the server may not see it.
    pub async fn state(&self, event_id: &EventId) -> error::Result<ServedState<Bytes>> {
        self.state_of(event_id, |row| row.json).await
    }

    /// Their ids
    /// ([`GET /state_ids/{roomId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1state_idsroomid)).
    ///
    /// # Errors
    ///
    /// As [`Serving::state`].
    pub async fn state_ids(&self, event_id: &EventId) -> error::Result<ServedState<String>> {
        self.state_of(event_id, |row| row.header.event_id).await
    }

    /// The events that allow an event, those that allow these, and so on
    /// ([`GET /event_auth/{roomId}/{eventId}`](https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid)).
    ///
    /// # Errors
    ///
    /// As [`Serving::state`].
    pub async fn event_auth(&self, event_id: &EventId) -> error::Result<Vec<Bytes>> {
        let event = self.named(event_id).await?;
        let chain = self
            .chains(BTreeSet::from([event.event.header.chain]))
            .await?;
        self.rows(&chain, |row| row.json).await
    }

    async fn state_of<T>(
        &self,
        event_id: &EventId,
        told: impl Fn(EventRow) -> T,
    ) -> error::Result<ServedState<T>> {
        let event = self.named(event_id).await?;
        if self.partial {
            // NOTSPEC: nothing says what a server answers that cannot. Synapse does not know either whether whoever
            // asks is in the room, and says so; they ask another one then.
            let unknown = "The state of this room is not known whole here yet";
            return Err(error::forbidden(unknown));
        }
        let roots = event
            .roots
            .ok_or_else(|| error::not_found("The state before this event is not known here"))?;
        let mut numbers = self.room.whole_state(&self.snapshot, roots.before).await?;
        numbers.sort_unstable();
        let mut sets = BTreeSet::new();
        let (mut state, mut chains) = (Vec::new(), Vec::new());
        for row in self.rows(&numbers, |row| row).await? {
            sets.insert(row.header.chain);
            state.push(told(row));
        }
        if !sets.is_empty() {
            chains = self.chains(sets).await?;
        }
        let auth_chain = self.rows(&chains, told).await?;
        Ok(ServedState { state, auth_chain })
    }

    /// All that is in one of these auth chains.
    async fn chains(&self, sets: BTreeSet<NameHash>) -> error::Result<Vec<EventNumber>> {
        let keys = sets.into_iter().filter(|set| *set != NameHash::NONE);
        let keys: Vec<_> = keys.map(|set| (self.room.short, set)).collect();
        let mut all = roaring::RoaringBitmap::new();
        for keys in keys.chunks(ROWS_AT_ONCE) {
            let rows = self.snapshot.multi_get(&schema::CHAIN_BY_SET, keys).await?;
            for row in rows {
                let row = row.ok_or_else(|| error::internal("a stored auth chain is missing"))?;
                let chain = AuthChain::from_bytes(&row.value.0).map_err(error::internal)?;
                all |= chain.numbers();
            }
        }
        Ok(all.into_iter().map(EventNumber).collect())
    }

    /// What is told of events, in the order of their numbers.
    async fn rows<T>(
        &self,
        numbers: &[EventNumber],
        told: impl Fn(EventRow) -> T,
    ) -> error::Result<Vec<T>> {
        let keys: Vec<_> = numbers.iter().map(|one| (self.room.short, *one)).collect();
        let mut all = Vec::with_capacity(keys.len());
        for keys in keys.chunks(ROWS_AT_ONCE) {
            let rows = self
                .snapshot
                .multi_get(&schema::EVENT_BY_NUMBER, keys)
                .await?;
            for row in rows {
                let row =
                    row.ok_or_else(|| error::internal("an event that a state names is missing"))?;
                all.push(told(row.value));
            }
        }
        Ok(all)
    }
}
