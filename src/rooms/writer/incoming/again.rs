//! Judging an event again that came in before all members of its room were known (MSC3902).

use std::{collections::HashMap, sync::Arc};

use pdu::{
    EventNumber,
    tree::{NodeHash, Nodes},
};
use ruma::events::StateEventType;
use storage::schema::{EventRoots, Visibility};

use super::{Judging, draft_of, ends::Followed};
use crate::{
    Incoming, Room, Rooms, Standing, StoredEvent,
    writer::{Way, auth_ids, judge::visibility_of, load, needs::Needs, working::Working},
};

/// What is known of the room around an event that is judged again.
#[derive(Debug)]
pub(in crate::writer) struct Around<'a> {
    /// The states around events that were judged again, as they are now known to be.
    pub(in crate::writer) roots: &'a HashMap<EventNumber, EventRoots>,
    /// The states around the event, as they were thought to be.
    pub(in crate::writer) old: EventRoots,
    /// The room's state when it came, for an event that is not history.
    pub(in crate::writer) current: Option<[u8; 16]>,
}

/// An event that was judged again.
#[derive(Debug)]
pub(in crate::writer) struct Again {
    /// Why it is not allowed, if it is not.
    pub(in crate::writer) rejected: Option<String>,
    /// Why it would not have been allowed any more when it came.
    pub(in crate::writer) soft_failed: Option<String>,
    /// The states around it.
    pub(in crate::writer) roots: EventRoots,
    /// Who may see it.
    pub(in crate::writer) visibility: Visibility,
    /// New nodes of states.
    pub(in crate::writer) new_nodes: Vec<(NodeHash, Vec<u8>)>,
    /// What writing it needs.
    pub(in crate::writer) working: Box<Working>,
}

/// Judges an event again, by the states that its prev events now leave behind.
pub(in crate::writer) async fn judge_again(
    rooms: &Rooms,
    room: &Arc<Room>,
    event: &StoredEvent,
    around: &Around<'_>,
    nodes: &mut Nodes,
) -> error::Result<Again> {
    let snapshot = rooms.snapshot().await?;
    let pdu = &event.pdu;
    let auth_ids = auth_ids(room, pdu);
    let mut needs = Needs::incoming(room.rules, rooms.server_name(), &draft_of(pdu)?);
    needs.graph.extend(auth_ids.iter().cloned());
    needs.graph.extend(pdu.prev_events().iter().cloned());
    let mut working = load::with_needs(rooms, room, &snapshot, &needs, None).await?;
    let graph = std::mem::take(&mut working.graph);
    let mut before = Vec::new();
    let mut lacking = pdu.prev_events().is_empty();
    for id in pdu.prev_events() {
        let prev = graph.events.get(id);
        let roots = prev.and_then(|prev| {
            let anew = around.roots.get(&prev.event.number).copied();
            anew.or(prev.roots)
        });
        match roots {
            Some(roots) => before.push(roots.after),
            None => lacking = true,
        }
    }
    if lacking {
        // Behind what is not here, another server told the state: it still counts.
        before.push(around.old.before);
    }
    let incoming = Incoming {
        pdu: Arc::clone(pdu),
        standing: Standing::Live { state_before: None },
    };
    let auth_events = auth_ids.iter().filter_map(|id| graph.events.get(id));
    let mut judging = Judging {
        rooms,
        room,
        snapshot: &snapshot,
        incoming: &incoming,
        way: &Way::Heard,
        nodes: std::mem::take(nodes),
        new_nodes: Vec::new(),
        known_as: Some(event.number),
        auth_events: auth_events.map(|event| Arc::clone(&event.event)).collect(),
        redactions: Vec::new(),
        anew: false,
        reset: false,
        followed: Followed::default(),
        is_followed: false,
        working: &mut working,
        alone: true,
    };
    let again = judging.again(before, around.current).await;
    *nodes = std::mem::take(&mut judging.nodes);
    let (rejected, soft_failed, roots, visibility) = again?;
    let new_nodes = judging.new_nodes;
    Ok(Again {
        rejected,
        soft_failed,
        roots,
        visibility,
        new_nodes,
        working,
    })
}

/// Why it is rejected, or soft-failed; the states around it, and who may see it.
type Judged = (Option<String>, Option<String>, EventRoots, Visibility);

impl Judging<'_> {
    /// Checks 4 to 6 once more; as [`Judging::judge`], but nothing is written.
    async fn again(
        &mut self,
        before: Vec<[u8; 16]>,
        current: Option<[u8; 16]>,
    ) -> error::Result<Judged> {
        let create = self.create_event()?;
        let first = create
            .as_ref()
            .map_or(EventNumber(1), |create| create.number);
        let mut rejected = self.check_by_auth_events(create.as_deref()).err();
        let before = self.resolved(&before, first, None).await?;
        let keys = self.keys();
        let states: Vec<_> = std::iter::once(before).chain(current).collect();
        let state = self.find(&states, &keys).await?;
        let check = |root: [u8; 16]| self.check_by_state(create.as_deref(), root, &state);
        if rejected.is_none() {
            rejected = check(before).err();
        }
        let soft_failed = match (&rejected, current) {
            (None, Some(current)) => check(current).err(),
            _ => None,
        };
        let visibility = (StateEventType::RoomHistoryVisibility, String::new());
        let visibility = state.get(&(before, visibility));
        let visibility = visibility_of(visibility.map(|event| &*event.pdu));
        let after = self.state_after(before, rejected.is_some()).await?;
        let roots = EventRoots { before, after };
        Ok((rejected, soft_failed, roots, visibility))
    }
}

/// The state that several events leave behind, and the new nodes of it.
pub(in crate::writer) async fn resolved(
    rooms: &Rooms,
    room: &Arc<Room>,
    roots: &[[u8; 16]],
    nodes: &mut Nodes,
) -> error::Result<([u8; 16], Vec<(NodeHash, Vec<u8>)>)> {
    let snapshot = rooms.snapshot().await?;
    let create = (StateEventType::RoomCreate, String::new());
    let Some(first) = roots.first() else {
        return Err(error::internal("there are no states to resolve"));
    };
    let found = room
        .find_state(&snapshot, &[*first], std::slice::from_ref(&create))
        .await?;
    let create = found.into_values().next().unwrap_or(EventNumber(1));
    let resolved = room.resolve(&snapshot, nodes, roots, create, None).await?;
    Ok((resolved.root, resolved.nodes))
}
