//! Who may see which event: history visibility ([spec]).
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility

use std::collections::BTreeSet;

use ruma::events::room::history_visibility::HistoryVisibility;
use storage::{
    Snapshot,
    schema::{Membership, Visibility},
};

use crate::{Look, ReadEvent, Room, Viewer};

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
        let roots: BTreeSet<_> = events
            .iter()
            .filter(|event| matches!(decide(look, event), Decision::ByMembership(_)))
            .flat_map(|event| roots_of(viewer, event))
            .collect();
        let memberships = self.memberships_at(snapshot, &roots, viewer).await?;
        Ok(events
            .iter()
            .map(|event| match decide(look, event) {
                Decision::Visible => true,
                Decision::Hidden => false,
                Decision::ByMembership(visibility) => roots_of(viewer, event)
                    .filter_map(|root| memberships.get(&root))
                    .any(|membership| match membership {
                        Membership::Join => true,
                        Membership::Invite => visibility == Visibility::Invited,
                        Membership::Knock | Membership::Leave | Membership::Ban => false,
                    }),
            })
            .collect())
    }
}

enum Decision {
    Visible,
    Hidden,
    /// The membership at the event decides; this is the visibility there.
    ByMembership(Visibility),
}

fn decide(look: &Look, event: &ReadEvent) -> Decision {
    let visibility = in_force(event);
    if visibility == Visibility::WorldReadable {
        return Decision::Visible;
    }
    let seen = match look.until {
        _ if look.is_joined() => true,
        Some(until) => event
            .row
            .header
            .place
            .is_some_and(|place| place <= until.place),
        None => false,
    };
    match visibility {
        Visibility::Shared if seen => Decision::Visible,
        Visibility::Joined | Visibility::Invited if seen => Decision::ByMembership(visibility),
        _ => Decision::Hidden,
    }
}

/// The states in which the viewer's membership counts: that after the event, and for their own member
/// events also the one before, so that people see their own joining and leaving.
fn roots_of(viewer: &Viewer, event: &ReadEvent) -> impl Iterator<Item = [u8; 16]> {
    let own = event.is_state("m.room.member")
        && event.row.header.state_key.as_deref() == Some(viewer.user_id.as_str());
    let before = own.then_some(event.roots.before);
    std::iter::once(event.roots.after).chain(before)
}

/// The visibility at an event; for one that changes it, the more open of both.
fn in_force(event: &ReadEvent) -> Visibility {
    let before = event.row.header.visibility;
    if !event.is_state("m.room.history_visibility") {
        return before;
    }
    #[derive(serde::Deserialize)]
    struct Content {
        history_visibility: HistoryVisibility,
    }
    let content = serde_json::from_slice::<Content>(event.content());
    let after = match content.map(|content| content.history_visibility) {
        Ok(HistoryVisibility::WorldReadable) => Visibility::WorldReadable,
        Ok(HistoryVisibility::Invited) => Visibility::Invited,
        Ok(HistoryVisibility::Joined) => Visibility::Joined,
        _ => Visibility::Shared,
    };
    if openness(after) > openness(before) {
        after
    } else {
        before
    }
}

fn openness(visibility: Visibility) -> u8 {
    match visibility {
        Visibility::Joined => 0,
        Visibility::Invited => 1,
        Visibility::Shared => 2,
        Visibility::WorldReadable => 3,
    }
}
