//! What people said who closed their account and wanted it to be erased: those who were in the room still
//! see it, others a redacted copy ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate

use std::collections::{BTreeSet, HashMap, HashSet};

use pdu::EventNumber;
use storage::{
    Snapshot,
    schema::{EventRow, Membership},
};

use crate::{Look, ReadEvent, Room, Rooms, StoredEvent, Viewer, client_event::MembershipThen};

impl Room {
    /// Redacted copies of those of some events whose senders wanted what they said to be erased. One round
    /// trip, if the viewer was not there at all of them.
    pub(crate) async fn erased(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        viewer: &Viewer,
        events: impl IntoIterator<Item = (&ReadEvent, MembershipThen)>,
    ) -> error::Result<HashMap<EventNumber, ReadEvent>> {
        let own_server = viewer.user_id.server_name().as_str();
        let missed: Vec<&ReadEvent> = events
            .into_iter()
            .filter(|(_, membership)| *membership != Some(Some(Membership::Join)))
            .map(|(event, _)| event)
            .filter(|event| {
                let sender = &event.row.header.sender;
                sender
                    .split_once(':')
                    .is_some_and(|(_, server)| server == own_server)
            })
            .collect();
        let senders: BTreeSet<&str> = missed
            .iter()
            .map(|event| &*event.row.header.sender)
            .collect();
        let erased = rooms.erased_people(snapshot, senders).await?;
        missed
            .into_iter()
            .filter(|event| erased.contains(&*event.row.header.sender))
            .map(|event| Ok((event.number, self.redacted_copy(event)?)))
            .collect()
    }

    /// Of which of some events the viewer gets redacted copies only. One round trip where nobody of their
    /// senders is erased.
    pub async fn erased_for(
        &self,
        rooms: &Rooms,
        snapshot: &Snapshot,
        (viewer, look): (&Viewer, &Look),
        events: &[ReadEvent],
    ) -> error::Result<HashSet<EventNumber>> {
        let sender = |event: &ReadEvent| event.row.header.sender.clone();
        let senders: BTreeSet<_> = events.iter().map(sender).collect();
        let senders = senders.iter().map(String::as_str).collect();
        let erased = rooms.erased_people(snapshot, senders).await?;
        let erased: Vec<_> = events
            .iter()
            .filter(|event| erased.contains(&*event.row.header.sender))
            .collect();
        let memberships = self
            .memberships_after(snapshot, viewer, look, &erased)
            .await?;
        let all = erased.iter().zip(memberships);
        Ok(all
            .filter(|(_, membership)| *membership != Some(Membership::Join))
            .map(|(event, _)| event.number)
            .collect())
    }

    fn redacted_copy(&self, event: &ReadEvent) -> error::Result<ReadEvent> {
        let stored = StoredEvent::from_row(event.number, event.row.clone(), self.rules, false)?;
        let pdu = stored.pdu.redacted(self.rules).map_err(error::internal)?;
        let mut header = stored.header;
        header.content = pdu.content_span();
        Ok(ReadEvent {
            row: EventRow {
                header,
                json: pdu.json().clone(),
            },
            ..event.clone()
        })
    }
}

impl Rooms {
    pub(crate) async fn erased_people<'a>(
        &self,
        snapshot: &Snapshot,
        people: BTreeSet<&'a str>,
    ) -> error::Result<HashSet<&'a str>> {
        let keys: Vec<_> = people
            .iter()
            .map(|user| self.storage().user_hash(*user))
            .collect();
        let rows = snapshot
            .multi_get(&storage::schema::ERASED_BY_NAME, &keys)
            .await?;
        Ok(people
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| row.is_some())
            .map(|(user, _)| user)
            .collect())
    }
}
