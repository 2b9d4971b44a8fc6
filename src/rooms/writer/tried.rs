//! Events that are made and judged, but not stored: templates for others, and invites that the invitee's
//! server must sign before anybody hears of them.

use std::sync::Arc;

use pdu::{Pdu, PolicyServer};
use ruma::OwnedEventId;

use super::load;
use crate::{Group, Room, Rooms};

/// What the draft of a group would be now, by the rules of the room.
#[derive(Debug)]
pub(crate) struct Tried {
    /// Its id.
    pub(crate) event_id: OwnedEventId,
    /// The event. None if the draft says what is there already, in the event of that id, or the group was sent
    /// before.
    pub(crate) event: Option<Arc<Pdu>>,
    /// Who has to sign it before it is sent.
    pub(crate) policy: Option<PolicyServer>,
}

/// Judges a group with one draft, and writes nothing.
///
/// # Errors
///
/// As [`Rooms::send`].
pub(crate) async fn tried(rooms: &Rooms, room: &Arc<Room>, group: &Group) -> error::Result<Tried> {
    let mut working = load::working(rooms, room, &[group], None).await?;
    let outcomes = working.judge_group(rooms, group).await?;
    let policy = working.policy_server_for(rooms, group, &outcomes);
    let policy = policy.map(|(policy, _)| policy);
    let not_judged = || error::internal("a draft was not judged");
    let Some(outcome) = outcomes.into_iter().next() else {
        let event_id = working.answers(group).into_iter().next();
        return Ok(Tried {
            event_id: event_id.ok_or_else(not_judged)?,
            event: None,
            policy: None,
        });
    };
    let event = outcome.new.map(|judged| Arc::clone(&judged.event.pdu));
    Ok(Tried {
        event_id: outcome.event_id,
        event,
        policy,
    })
}
