//! The state before an event that follows what we do not have.

use std::collections::{BTreeSet, HashSet};

use ruma::{EventId, OwnedEventId, events::StateEventType};

use super::asking::Asking;

/// Of so many unknown events of a state, or fewer, each is fetched by itself.
const FEW: usize = 20;
/// Above that they are fetched one by one only if they are less than this part of the state: else all of it.
const PART: usize = 2;
/// So many are never fetched one by one.
const MANY: usize = 500;

impl Asking {
    /// The ids of the events of the state before an event, as another server says, each of them here
    /// afterwards as an outlier at least. Those that cannot be had or verified are left out; none if that
    /// leaves no state of this room.
    pub(super) async fn fetch_state_before(
        &self,
        event_id: &EventId,
    ) -> error::Result<Option<Vec<OwnedEventId>>> {
        let Some((state, chain)) = self.fetch_state_ids(event_id).await else {
            return Ok(None);
        };
        let all: BTreeSet<_> = state.iter().chain(&chain).cloned().collect();
        let all: Vec<_> = all.into_iter().collect();
        let unknown = self.unknown(&all).await?;
        let most = unknown.len() > FEW && unknown.len() > all.len() / PART;
        let events = match unknown.len() {
            0 => Vec::new(),
            many if many > MANY || most => self.fetch_state(event_id).await?,
            _ => self.fetch_each(&unknown).await?,
        };
        self.keep_as_outliers(events).await?;
        let lacking: HashSet<_> = self.unknown(&state).await?.into_iter().collect();
        if !lacking.is_empty() {
            tracing::warn!(
                room = %self.room.room_id, event = %event_id, lacking = lacking.len(), of = state.len(),
                "some of the state before an event cannot be had"
            );
        }
        let here: Vec<_> = state
            .into_iter()
            .filter(|id| !lacking.contains(id))
            .collect();
        Ok(match self.create_event().await? {
            Some(create) if here.contains(&create) => Some(here),
            _ => None,
        })
    }

    /// The id of the room's create event.
    async fn create_event(&self) -> error::Result<Option<OwnedEventId>> {
        let snapshot = self.rooms.snapshot().await?;
        let key = (StateEventType::RoomCreate, String::new());
        let keys = std::slice::from_ref(&key);
        let (_, state) = self
            .room
            .current_state(&self.rooms, &snapshot, keys)
            .await?;
        Ok(state.get(&key).map(|event| event.pdu.event_id().to_owned()))
    }
}
