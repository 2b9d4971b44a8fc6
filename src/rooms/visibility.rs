//! Who may see which event: history visibility ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

use storage::{
    Snapshot,
    schema::{Membership, Visibility},
};

use crate::{Look, ReadEvent, Room, Viewer, extremities::DUMMY_EVENT};

impl Room {
    /// Which of these events the viewer may see, in their order. The state at an event is asked only
    /// where `joined` or `invited` is in force.
    pub async fn visible(
        &self,
        snapshot: &Snapshot,
        viewer: &Viewer,
        look: &Look,
        events: &[ReadEvent],
    ) -> error::Result<Vec<bool>> {
        let decisions: Vec<_> = events
            .iter()
            .map(|event| decide(viewer, look, event))
            .collect();
        let asked: Vec<_> = events
            .iter()
            .zip(&decisions)
            .filter(|(_, decision)| matches!(decision, Decision::ByMembership(_)))
            .map(|(event, _)| event)
            .collect();
        let mut memberships = self
            .memberships_around(snapshot, viewer, look, &asked)
            .await?
            .into_iter();
        Ok(decisions
            .into_iter()
            .map(|decision| match decision {
                Decision::Visible => true,
                Decision::Hidden => false,
                Decision::ByMembership(enough) => memberships
                    .next()
                    .into_iter()
                    .flatten()
                    .flatten()
                    .any(|membership| enough.admits(membership)),
            })
            .collect())
    }
}

enum Decision {
    Visible,
    Hidden,
    /// The viewer's membership at the event decides.
    ByMembership(Enough),
}

/// Which memberships at an event are enough to see it.
#[derive(Clone, Copy)]
struct Enough {
    join: bool,
    invite: bool,
}

impl Enough {
    fn admits(self, membership: Membership) -> bool {
        match membership {
            Membership::Join => self.join,
            Membership::Invite => self.invite,
            Membership::Knock | Membership::Leave | Membership::Ban => false,
        }
    }
}

/// The five rules of the specification, in its order, as far as they can be told without the state.
fn decide(viewer: &Viewer, look: &Look, event: &ReadEvent) -> Decision {
    let header = &event.row.header;
    if header.event_type == DUMMY_EVENT && header.state_key.is_none() {
        return Decision::Hidden;
    }
    let in_force = in_force(event);
    if in_force.contains(&Visibility::WorldReadable) {
        return Decision::Visible;
    }
    if look.row.is_none() {
        return Decision::Hidden;
    }
    // Who is in the room has joined it at some point after every event in which they were not; who was
    // in it, after everything up to where that ended.
    let place = event.row.header.place;
    let before_end = match look.until {
        _ if look.is_joined() => true,
        Some(until) => place.is_some_and(|place| place <= until.place),
        None => false,
    };
    if before_end && in_force.contains(&Visibility::Shared) {
        return Decision::Visible;
    }
    let enough = Enough {
        // Their own joining is the one event of a stay that may come before all that is known of it.
        join: before_end || event.is_member_event_of(&viewer.user_id),
        invite: in_force.contains(&Visibility::Invited),
    };
    if enough.join || enough.invite {
        Decision::ByMembership(enough)
    } else {
        Decision::Hidden
    }
}

/// The visibility at an event; for one that changes it, that before and that after it.
fn in_force(event: &ReadEvent) -> [Visibility; 2] {
    let before = event.row.header.visibility;
    let changes = event.is_state("m.room.history_visibility")
        && event.row.header.state_key.as_deref() == Some("");
    if !changes {
        return [before; 2];
    }
    let after = match event.content_string("history_visibility").as_deref() {
        Some("world_readable") => Visibility::WorldReadable,
        Some("invited") => Visibility::Invited,
        Some("joined") => Visibility::Joined,
        _ => Visibility::Shared,
    };
    [before, after]
}
