//! Events of ours that a policy server has to sign first.

use std::sync::Arc;

use ruma::OwnedEventId;

use super::ToSign;
use crate::{
    Group, Incoming, MoreRows, Received, Room, Rooms,
    writer::{Submitted, Way},
};

/// How often an event is made anew because the room has changed meanwhile so that it is not allowed any more,
/// or names another policy server.
const TRIES_MAX: usize = 3;
/// So many events of one room are shown to its policy server side by side. Each of them stands beside the others in
/// the graph, so that more would have to be tied together.
pub(super) const AT_ONCE: usize = 4;

impl Rooms {
    /// Sends what a policy server has to sign. An event that was signed stands in the graph where it was made,
    /// beside what came meanwhile; it is judged like one that comes from outside, and nothing of it is written
    /// unless it is accepted. The once key and the rows of its group come with it.
    ///
    /// Drafts of a group with several are sent one after the other, so that the first may be sent without the
    /// last.
    ///
    /// # Errors
    ///
    /// As [`Rooms::send`] and [`Rooms::fetch_policy_signature`].
    pub(crate) async fn send_signed(
        &self,
        room: &Arc<Room>,
        to_sign: ToSign,
    ) -> error::Result<Vec<OwnedEventId>> {
        if to_sign.group.drafts.len() < 2 {
            return self.send_one_signed(room, to_sign).await;
        }
        let mut ids = Vec::new();
        let Group {
            drafts, once, more, ..
        } = to_sign.group;
        let last = drafts.len().saturating_sub(1);
        for (index, draft) in drafts.into_iter().enumerate() {
            let mut group = Group::one(draft);
            if index == last {
                group.once = once;
                group.more = more.clone().map(|more| after(ids.clone(), more));
            }
            let sent = match self.writer(room).submit(self, group).await? {
                Submitted::Sent(ids) => ids,
                Submitted::ToSign(to_sign) => self.send_one_signed(room, *to_sign).await?,
            };
            ids.extend(sent);
        }
        Ok(ids)
    }

    async fn send_one_signed(
        &self,
        room: &Arc<Room>,
        mut to_sign: ToSign,
    ) -> error::Result<Vec<OwnedEventId>> {
        let turns = self.signing_turns(room.short);
        let _turn = match turns.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                let turn = turns.acquire().await.map_err(error::internal)?;
                // It follows what came meanwhile.
                let writer = self.writer(room);
                to_sign = match writer.submit(self, to_sign.group).await? {
                    Submitted::Sent(ids) => return Ok(ids),
                    Submitted::ToSign(again) => *again,
                };
                turn
            }
        };
        for _ in 0..TRIES_MAX {
            let Some(pdu) = to_sign.events.first() else {
                return Err(error::internal("there is nothing to be signed"));
            };
            let signed = self.fetch_policy_signature(room, &to_sign.policy, pdu);
            let signed = Arc::new(signed.await?);
            let event_id = signed.event_id().to_owned();
            let group = Arc::new(to_sign.group);
            let way = Way::Ours(Arc::clone(&group));
            match self.receive_one(room, Incoming::live(signed), way).await? {
                Received::Accepted => return Ok(vec![event_id]),
                Received::Rejected(reason) => return Err(error::forbidden(reason)),
                // It was sent in another way meanwhile, or the room has changed.
                Received::Known
                | Received::SoftFailed(_)
                | Received::Missing { .. }
                | Received::ToSign(_) => {}
            }
            let group = Group::clone(&group);
            to_sign = match self.writer(room).submit(self, group).await? {
                Submitted::Sent(ids) => return Ok(ids),
                Submitted::ToSign(again) => *again,
            };
        }
        Err(error::forbidden(
            "The room changes faster than its policy server answers",
        ))
    }
}

/// Rows of a group the events of which are sent in several commits, for the last of these.
fn after(before: Vec<OwnedEventId>, more: MoreRows) -> MoreRows {
    Arc::new(move |batch, last| more(batch, &[before.as_slice(), last].concat()))
}
