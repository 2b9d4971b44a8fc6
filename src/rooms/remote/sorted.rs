//! Events in the order of what leads from one to another.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
};

use pdu::Pdu;
use ruma::OwnedEventId;

/// Events after those of them that they name, earliest first where that leaves a choice. Those that lead back
/// to themselves, which no honest server makes, are left out.
pub(super) fn sorted(
    events: &[Arc<Pdu>],
    named: impl Fn(&Pdu) -> &[OwnedEventId],
) -> Vec<Arc<Pdu>> {
    let index: HashMap<_, _> = events
        .iter()
        .enumerate()
        .map(|(index, event)| (event.event_id().to_owned(), index))
        .collect();
    let mut left: Vec<usize> = Vec::with_capacity(events.len());
    let mut followers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (own, event) in events.iter().enumerate() {
        let mut before: Vec<_> = named(event).iter().filter_map(|id| index.get(id)).collect();
        before.sort_unstable();
        before.dedup();
        left.push(before.len());
        for other in before {
            followers.entry(*other).or_default().push(own);
        }
    }
    let key = |own: usize| {
        let event = events.get(own)?;
        Some(Reverse((event.depth(), event.event_id().to_owned(), own)))
    };
    let free = left.iter().enumerate().filter(|(_, left)| **left == 0);
    let mut next: BinaryHeap<_> = free.filter_map(|(own, _)| key(own)).collect();
    let mut order = Vec::with_capacity(events.len());
    while let Some(Reverse((_, _, own))) = next.pop() {
        order.extend(events.get(own).cloned());
        for follower in followers.remove(&own).unwrap_or_default() {
            let Some(left) = left.get_mut(follower) else {
                continue;
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                next.extend(key(follower));
            }
        }
    }
    order
}

/// Those of some events to which one comes from these by their prev events, earliest first.
pub(super) fn reached(from: &[OwnedEventId], events: &[Arc<Pdu>]) -> Vec<Arc<Pdu>> {
    let mut wanted: HashSet<_> = from.iter().cloned().collect();
    let mut kept = Vec::new();
    for event in sorted(events, Pdu::prev_events).into_iter().rev() {
        if wanted.contains(event.event_id()) {
            wanted.extend(event.prev_events().iter().cloned());
            kept.push(event);
        }
    }
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use pdu::RoomRules;
    use serde_json::json;

    use super::*;

    /// An event of a version in which servers choose ids.
    fn event(name: &str, prev: &[&str]) -> Arc<Pdu> {
        let id = |name: &&str| json!([format!("${name}:a.org"), { "sha256": "" }]);
        let event = json!({
            "event_id": format!("${name}:a.org"),
            "room_id": "!r:a.org",
            "sender": "@a:a.org",
            "type": "m.room.message",
            "content": {},
            "origin_server_ts": 1,
            "depth": 7,
            "prev_events": prev.iter().map(id).collect::<Vec<_>>(),
            "auth_events": [],
            "hashes": { "sha256": "" },
            "signatures": {},
        });
        let rules = RoomRules::named("2").unwrap();
        Arc::new(Pdu::parse(event.to_string().as_bytes(), rules).unwrap())
    }

    fn names(events: &[Arc<Pdu>]) -> Vec<String> {
        let name = |event: &Arc<Pdu>| event.event_id().localpart().to_owned();
        events.iter().map(name).collect()
    }

    #[test]
    fn events_come_after_what_they_name_and_loops_are_left_out() {
        let events = vec![
            event("d", &["c", "b"]),
            event("b", &["a", "elsewhere"]),
            event("one", &["two"]),
            event("two", &["one"]),
            event("own", &["own"]),
            event("behind", &["own", "a"]),
            event("c", &["a", "b"]),
            event("a", &[]),
        ];
        assert_eq!(
            names(&sorted(&events, Pdu::prev_events)),
            ["a", "b", "c", "d"]
        );
        let from = [event("c", &[]).event_id().to_owned()];
        assert_eq!(names(&reached(&from, &events)), ["a", "b", "c"]);
    }
}
