//! Events that are made and judged, but not stored: templates for others, and invites that the invitee's
//! server must sign before anybody hears of them.

use std::sync::Arc;

use pdu::Pdu;
use ruma::OwnedEventId;

use super::load;
use crate::{Draft, Group, Room, Rooms};

/// The event that a draft would be now, by the rules of the room, and its id; `None` if it says what is there
/// already in the event of that id.
///
/// # Errors
///
/// As [`Rooms::send`].
pub(crate) async fn tried(
    rooms: &Rooms,
    room: &Arc<Room>,
    draft: Draft,
) -> error::Result<(OwnedEventId, Option<Arc<Pdu>>)> {
    let group = Group::one(draft);
    let mut working = load::working(rooms, room, &[&group], None).await?;
    let outcomes = working.judge_group(rooms, &group).await?;
    let outcome = outcomes.into_iter().next();
    let outcome = outcome.ok_or_else(|| error::internal("a draft was not judged"))?;
    let new = outcome.new.map(|judged| Arc::clone(&judged.event.pdu));
    Ok((outcome.event_id, new))
}
