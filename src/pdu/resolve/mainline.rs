//! The mainline ordering: by how far back the power levels lie that an event knows.

use std::{cmp::Reverse, collections::HashMap};

use roaring::RoaringBitmap;
use ruma::events::StateEventType;

use super::run::{Resolved, Run};
use crate::EventNumber;

/// The *mainline ordering* of events, based on the power levels of the state resolved so far.
///
/// `None` if a fact was missing.
pub(super) fn order(
    run: &mut Run<'_>,
    events: &RoaringBitmap,
    agreed_count: bool,
    state: &Resolved<'_>,
) -> Option<Vec<EventNumber>> {
    if events.is_empty() {
        return Some(Vec::new());
    }
    let key = (StateEventType::RoomPowerLevels, String::new());
    let levels = match state.get(&key) {
        Some(&number) => Some(number),
        None if agreed_count => run.agreed(&key)?,
        None => None,
    };
    let mut mainline = Mainline::new(levels);
    let mut sorted = Vec::new();
    let mut incomplete = false;
    for number in events.iter().map(EventNumber) {
        let (Some(position), Some(event)) = (mainline.position(run, number), run.ask.event(number))
        else {
            // The others may lack something too: it is asked for in the same round.
            incomplete = true;
            continue;
        };
        let pdu = &event.pdu;
        sorted.push((
            Reverse(position),
            pdu.origin_server_ts(),
            pdu.event_id(),
            number,
        ));
    }
    if incomplete {
        return None;
    }
    sorted.sort_unstable();
    Some(sorted.into_iter().map(|(.., number)| number).collect())
}

/// For events that no event of the mainline stands behind: further back than all of it.
const BEYOND: usize = usize::MAX;

/// The power levels that led to those of the resolved state, each named by the one after it.
///
/// It is followed only as far back as somebody asks: an event's number is above those of what it cites, so
/// a number higher than the last one of the mainline is on it already or never will be.
struct Mainline {
    /// From the latest backwards.
    line: Vec<EventNumber>,
    places: HashMap<EventNumber, usize>,
    /// Whether the last one cites no other.
    ended: bool,
    /// The positions found for events off the mainline.
    found: HashMap<EventNumber, usize>,
    /// How many steps were taken, on the mainline and off it.
    steps: usize,
}

/// How many events are asked for at once where the way back is unknown, at the least.
const AHEAD_MIN: usize = 16;

impl Mainline {
    fn new(levels: Option<EventNumber>) -> Self {
        Self {
            line: levels.into_iter().collect(),
            places: levels.into_iter().map(|number| (number, 0)).collect(),
            ended: levels.is_none(),
            found: HashMap::new(),
            steps: 0,
        }
    }

    /// The index in the mainline of the nearest power levels behind an event. `None` if a fact was missing.
    fn position(&mut self, run: &mut Run<'_>, event: EventNumber) -> Option<usize> {
        let mut passed = Vec::new();
        let mut at = event;
        let position = loop {
            if let Some(&position) = self.places.get(&at).or_else(|| self.found.get(&at)) {
                break position;
            }
            match self.extend(run, at) {
                Some(true) => continue,
                Some(false) if self.is_beyond(at) => break BEYOND,
                Some(false) => {}
                None => {
                    // The way back from the event will be needed as well: both are asked for at once.
                    self.step(run, event, at);
                    return None;
                }
            }
            passed.push(at);
            match self.step(run, event, at)? {
                Some(levels) => at = levels,
                None => break BEYOND,
            }
        };
        self.found
            .extend(passed.into_iter().map(|at| (at, position)));
        Some(position)
    }

    /// Whether all of the mainline is known, and all of it lies in front of this number.
    fn is_beyond(&self, number: EventNumber) -> bool {
        self.ended && self.line.last().is_none_or(|&last| number < last)
    }

    /// Follows the mainline back to this number. Whether the number turned out to be on it; `None` if a fact
    /// was missing.
    fn extend(&mut self, run: &mut Run<'_>, until: EventNumber) -> Option<bool> {
        while let (false, Some(&first), Some(&last)) =
            (self.ended, self.line.first(), self.line.last())
        {
            if last <= until {
                return Some(last == until);
            }
            match self.step(run, first, last)? {
                Some(levels) => {
                    self.places.insert(levels, self.line.len());
                    self.line.push(levels);
                }
                None => self.ended = true,
            }
        }
        Some(false)
    }

    /// The power levels among the auth events of an event; the outer `None` if they are not known yet.
    ///
    /// `from` is where the way began. Which events of its chain are power levels is not known before they
    /// are read, and reading them one after another would cost a round each. So what lies further back is
    /// asked for in portions that grow with the way already gone.
    fn step(
        &mut self,
        run: &mut Run<'_>,
        from: EventNumber,
        at: EventNumber,
    ) -> Option<Option<EventNumber>> {
        self.steps += 1;
        let event = run.ask.event(at)?;
        if let Some(found) = run.find_auth_event(event, &StateEventType::RoomPowerLevels) {
            return Some(found.map(|(number, _)| number));
        }
        let ahead = AHEAD_MIN.max(self.steps.saturating_mul(4));
        for number in run
            .ask
            .chain(from)?
            .numbers()
            .range(..at.0)
            .rev()
            .take(ahead)
        {
            run.ask.event(EventNumber(number));
        }
        None
    }
}
