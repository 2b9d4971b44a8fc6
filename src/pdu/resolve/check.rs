//! The auth rules applied to a list of events, one after another.

use ruma::events::{StateEventType, TimelineEventType};

use super::{
    facts::EventFact,
    run::{Resolved, Run},
};
use crate::{EventNumber, Pdu, check_auth};

/// The *iterative auth checks algorithm*: puts each event that the auth rules allow into the state.
///
/// `agreed_count` says whether the state began as the entries on which all agree, or empty. `None` if a
/// fact was missing.
///
/// Rejected events are tried like others (room version 2, *Rejected events*), but do not vouch for others.
pub(super) fn apply<'a>(
    run: &mut Run<'a>,
    events: &[EventNumber],
    agreed_count: bool,
    state: &mut Resolved<'a>,
) -> Option<()> {
    for &number in events {
        let event = run.ask.event(number)?;
        let Some(key) = &event.key else { continue };

        let mut pool = Pool::default();
        for &auth_event in &event.auth_events {
            pool.put(run.ask.event(auth_event)?);
        }
        if run.rules.authorization.room_create_event_id_as_room_id {
            pool.put(run.ask.event(run.differences.create)?);
        }
        for key in event.auth_keys(run.rules) {
            let held = match state.get(key) {
                Some(&number) => Some(number),
                None if agreed_count => run.agreed(key)?,
                None => None,
            };
            if let Some(number) = held {
                pool.put(run.ask.event(number)?);
            }
        }
        if pool.allows(run, event) {
            state.insert(key, number);
        }
    }
    Some(())
}

/// The state that an event is checked against: a handful of events, the last put under a key counts.
#[derive(Default)]
pub(super) struct Pool<'a>(Vec<&'a EventFact>);

impl<'a> Pool<'a> {
    /// Rejected events are left out: what they would have replaced stays.
    pub(super) fn put(&mut self, event: &'a EventFact) {
        if !event.is_rejected() && event.key.is_some() {
            self.0.push(event);
        }
    }

    fn find(&self, event_type: &StateEventType, state_key: &str) -> Option<&'a Pdu> {
        let event = self.0.iter().rev().find(|event| {
            let key = event.key.as_ref();
            key.is_some_and(|key| key.0 == *event_type && key.1 == state_key)
        })?;
        Some(&event.pdu)
    }

    /// Whether the auth rules allow the event in this state.
    pub(super) fn allows(&self, run: &Run<'_>, event: &EventFact) -> bool {
        let create = self
            .find(&StateEventType::RoomCreate, "")
            .unwrap_or(&event.pdu);
        if *create.event_type() != TimelineEventType::RoomCreate {
            return false;
        }
        check_auth(&event.pdu, run.rules, create, |event_type, state_key| {
            self.find(event_type, state_key)
        })
        .is_ok()
    }
}
