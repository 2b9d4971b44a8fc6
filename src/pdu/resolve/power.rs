//! The power events, and the order in which they take effect.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
};

use roaring::RoaringBitmap;
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch,
    events::{StateEventType, room::member::MembershipState},
};

use super::{facts::EventFact, run::Run};
use crate::{EventNumber, PowerLevel, PowerLevels};

/// Power events: those that may take away what somebody was allowed to do.
///
/// NOTSPEC: the spec does not name `m.room.create`; all implementations count it.
fn is_power_event(event: &EventFact) -> bool {
    if event.is(&StateEventType::RoomPowerLevels)
        || event.is(&StateEventType::RoomJoinRules)
        || event.is(&StateEventType::RoomCreate)
    {
        return true;
    }
    let Some((StateEventType::RoomMember, target)) = &event.key else {
        return false;
    };
    let takes_away = [Some(MembershipState::Leave), Some(MembershipState::Ban)];
    event.pdu.sender() != target && takes_away.contains(&event.pdu.membership())
}

/// The power events of the full conflicted set and what they lean on in it, in the *reverse topological
/// power ordering*. `None` if a fact was missing.
///
/// NOTSPEC: the spec takes in "the events in the auth chain of P which also belong to the full conflicted
/// set"; like all implementations, only those count that are reached without leaving the set.
pub(super) fn order(run: &mut Run<'_>, full: &RoaringBitmap) -> Option<Vec<EventNumber>> {
    let mut waiting = Vec::new();
    for number in full.iter().map(EventNumber) {
        if is_power_event(run.ask.event(number)?) {
            waiting.push(number);
        }
    }
    let mut graph: BTreeMap<EventNumber, Vec<EventNumber>> = BTreeMap::new();
    while let Some(number) = waiting.pop() {
        if graph.contains_key(&number) {
            continue;
        }
        let auth_events = run.ask.event(number)?.auth_events.iter().copied();
        let inside: Vec<_> = auth_events.filter(|auth| full.contains(auth.0)).collect();
        waiting.extend(&inside);
        graph.insert(number, inside);
    }
    sort(run, &graph)
}

/// What decides between events none of which leans on another: the smallest goes first.
type Precedence<'a> = (Reverse<PowerLevel>, MilliSecondsSinceUnixEpoch, &'a EventId);

/// An event on its way into the order.
struct Unplaced<'a> {
    precedence: Precedence<'a>,
    /// How many of its auth events within the graph are not placed yet.
    behind: usize,
    /// The events of the graph that cite it.
    citing: Vec<EventNumber>,
}

/// Kahn's algorithm on events and, of each, the auth events within the graph.
fn sort(
    run: &mut Run<'_>,
    graph: &BTreeMap<EventNumber, Vec<EventNumber>>,
) -> Option<Vec<EventNumber>> {
    let mut unplaced = HashMap::with_capacity(graph.len());
    for (&number, auth_events) in graph {
        let pdu = &run.ask.event(number)?.pdu;
        let level = sender_level(run, number)?;
        let precedence = (Reverse(level), pdu.origin_server_ts(), pdu.event_id());
        unplaced.insert(
            number,
            Unplaced {
                precedence,
                behind: auth_events.len(),
                citing: Vec::new(),
            },
        );
    }
    let mut ready = BinaryHeap::new();
    for (&number, auth_events) in graph {
        for auth_event in auth_events {
            if let Some(cited) = unplaced.get_mut(auth_event) {
                cited.citing.push(number);
            }
        }
        if let Some(event) = unplaced.get(&number)
            && event.behind == 0
        {
            ready.push(Reverse((event.precedence, number)));
        }
    }
    let mut sorted = Vec::with_capacity(graph.len());
    while let Some(Reverse((_, number))) = ready.pop() {
        sorted.push(number);
        for citing in unplaced
            .remove(&number)
            .into_iter()
            .flat_map(|event| event.citing)
        {
            let Some(event) = unplaced.get_mut(&citing) else {
                continue;
            };
            event.behind = event.behind.saturating_sub(1);
            if event.behind == 0 {
                ready.push(Reverse((event.precedence, citing)));
            }
        }
    }
    Some(sorted)
}

/// The power level of an event's sender by the event's own auth events. `None` if a fact was missing.
fn sender_level(run: &mut Run<'_>, number: EventNumber) -> Option<PowerLevel> {
    let event = run.ask.event(number)?;
    let create = if run.rules.authorization.room_create_event_id_as_room_id {
        Some(run.ask.event(run.differences.create)?)
    } else {
        run.find_auth_event(event, &StateEventType::RoomCreate)?
            .map(|(_, create)| create)
    };
    let levels = run.find_auth_event(event, &StateEventType::RoomPowerLevels)?;
    let levels = levels.map(|(_, levels)| &*levels.pdu);
    // Without a create event there are no rules to ask: that is the create event itself, which comes first
    // anyway. And malformed levels must not stop the room.
    let level = create.and_then(|create| {
        PowerLevels::new(run.rules, &create.pdu, levels)
            .user(event.pdu.sender())
            .ok()
    });
    Some(level.unwrap_or(PowerLevel::Level(0)))
}
