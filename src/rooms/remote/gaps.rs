//! Holes in the graph: what lies behind them is taken on another server's word for the state there.

use std::sync::Arc;

use pdu::Pdu;
use ruma::EventId;

use super::asking::Asking;
use crate::{Received, Standing};

impl Asking {
    /// Takes in an event that was told when asked for what is missing. Where it follows what is not here,
    /// that is fetched with the state before it: a hole remains behind it, which history fills. `gaps` is how
    /// many of these may still be left.
    pub(super) async fn take_in_told(
        &self,
        pdu: &Arc<Pdu>,
        gaps: &mut usize,
    ) -> error::Result<Received> {
        let live = Standing::Live { state_before: None };
        let received = self.receive_with_auth(pdu, live.clone()).await?;
        let prev = match received {
            Received::Missing { prev, .. } if !prev.is_empty() && prev.len() <= *gaps => prev,
            received => return Ok(received),
        };
        *gaps -= prev.len();
        for id in &prev {
            self.take_in_behind_gap(id).await?;
        }
        self.receive_with_auth(pdu, live).await
    }

    /// Fetches an event and the state before it, and takes it in on that.
    async fn take_in_behind_gap(&self, event_id: &EventId) -> error::Result<()> {
        let Some(event) = self.fetch_event(event_id).await? else {
            return Ok(());
        };
        let live = Standing::Live { state_before: None };
        let received = self.receive_with_auth(&event, live).await?;
        let Received::Missing { prev, .. } = received else {
            return Ok(());
        };
        if prev.is_empty() {
            return Ok(());
        }
        let Some(state) = self.fetch_state_before(event_id).await? else {
            return Ok(());
        };
        let live = Standing::Live {
            state_before: Some(state),
        };
        self.receive_with_auth(&event, live).await?;
        Ok(())
    }
}
