//! The lanes: for each server what waits for it, as far as that is in memory.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pdu::EventNumber;
use ruma::{OwnedServerName, ServerName};
use storage::{NameHash, Position, ShortRoomId, schema::Place};

use crate::edus::Ephemeral;

/// So many servers have lanes at once. What is for others waits in storage for one.
const LANES_MAX: usize = 50_000;
/// So many events wait in one lane, and in all together; a lane with more is late.
const QUEUE_MAX: usize = 500;
const QUEUED_MAX: usize = 500_000;
/// A lane is late whose first event waits for longer, in milliseconds.
const WAIT_MAX: u64 = 2 * 60 * 1_000;
/// So many rooms are remembered of which a late lane has rows.
const KNOWN_MAX: usize = 10_000;
/// Events in one transaction at most ([spec]).
///
/// [spec]: https://spec.matrix.org/v1.19/server-server-api/#transactions
pub(crate) const PDUS_MAX: usize = 50;

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: HashMap<OwnedServerName, Lane>,
    /// Lanes with something to send, by when they may, in the order in which they came.
    waiting: BTreeMap<(u64, u64), OwnedServerName>,
    /// The number of the next that comes.
    next: u64,
    /// Events in all lanes.
    queued: usize,
}

/// What waits for one server.
#[derive(Debug)]
pub(crate) struct Lane {
    /// The hash of the server's name.
    pub(crate) hash: NameHash,
    /// Events that it is to be told, in order. None while it is late.
    pub(crate) queue: VecDeque<Queued>,
    /// It lags: of its rooms there are rows.
    pub(crate) late: Option<Late>,
    /// There may be messages to devices for it, or news of devices.
    pub(crate) durable: bool,
    /// What people do at this moment.
    pub(crate) ephemeral: Ephemeral,
    /// The rows that say that there is something for it.
    pub(crate) left: Vec<Position>,
    /// How often in a row it did not take what it was sent.
    pub(crate) failures: u32,
    /// So many events it is sent at once at most.
    pub(crate) most: usize,
    /// Not before this time, in milliseconds since 1970.
    not_before: u64,
    /// Somebody sends to it.
    sending: bool,
    /// Where it stands among those who wait.
    waits: Option<(u64, u64)>,
    /// The position of the last event that was put into it.
    taken: Position,
}

/// A lane that lags.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// Rooms of which it has rows that nobody works off.
    pub(crate) known: HashSet<ShortRoomId>,
}

/// An event that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    /// Where the stream is to be read on if this is not sent.
    pub(crate) after: Position,
    pub(crate) room: ShortRoomId,
    pub(crate) number: EventNumber,
    pub(crate) place: Place,
    /// When it was put here, in milliseconds since 1970.
    pub(crate) ts: u64,
}

/// A room of which a server has to be told later, from a place on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parking {
    pub(crate) server: OwnedServerName,
    pub(crate) hash: NameHash,
    pub(crate) room: ShortRoomId,
    pub(crate) from: Place,
}

/// What became of an event that was to be put into a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// It is there.
    Done,
    /// The lane is late: it has to be written.
    Park,
    /// The lane is late from now on: all that waits in it has to be written too.
    ParkAll,
}

impl Lane {
    fn new(hash: NameHash) -> Self {
        Self {
            hash,
            queue: VecDeque::new(),
            late: None,
            durable: false,
            ephemeral: Ephemeral::default(),
            left: Vec::new(),
            failures: 0,
            most: PDUS_MAX,
            not_before: 0,
            sending: false,
            waits: None,
            taken: Position::START,
        }
    }

    fn has_work(&self) -> bool {
        self.durable
            || self.late.is_some()
            || !self.queue.is_empty()
            || !self.ephemeral.is_empty()
            || !self.left.is_empty()
    }
}

impl Late {
    /// Notes that a room has a row.
    pub(crate) fn parked(&mut self, room: ShortRoomId) {
        if self.known.len() < KNOWN_MAX {
            self.known.insert(room);
        }
    }
}

impl Lanes {
    pub(crate) fn get_mut(&mut self, server: &ServerName) -> Option<&mut Lane> {
        self.lanes.get_mut(server)
    }

    /// The lane of a server, a new one if need be; none if there are too many.
    pub(crate) fn lane(&mut self, server: &ServerName, hash: NameHash) -> Option<&mut Lane> {
        if !self.lanes.contains_key(server) {
            if self.lanes.len() >= LANES_MAX {
                return None;
            }
            self.lanes.insert(server.to_owned(), Lane::new(hash));
        }
        self.lanes.get_mut(server)
    }

    /// Puts an event into the lane of a server.
    pub(crate) fn put(
        &mut self,
        server: &ServerName,
        hash: NameHash,
        event: Queued,
        position: Position,
    ) -> Put {
        let full = self.queued >= QUEUED_MAX;
        let Some(lane) = self.lane(server, hash) else {
            return Put::Park;
        };
        if position <= lane.taken {
            return Put::Done;
        }
        if let Some(late) = &mut lane.late {
            return match late.known.contains(&event.room) {
                true => Put::Done,
                false => Put::Park,
            };
        }
        let waits = lane.queue.front().map_or(event.ts, |first| first.ts);
        let lags = waits.saturating_add(WAIT_MAX) < event.ts || lane.queue.len() >= QUEUE_MAX;
        if lags || full {
            lane.late = Some(Late::default());
            return Put::ParkAll;
        }
        lane.taken = position;
        lane.queue.push_back(event);
        self.queued += 1;
        self.schedule(server);
        Put::Done
    }

    /// A lane is late from now on: what waits in it, all of which has to be written; none if it was late before,
    /// or nothing waits.
    pub(crate) fn make_late(&mut self, server: &ServerName) -> Option<Vec<Queued>> {
        let lane = self.lanes.get_mut(server)?;
        if lane.late.is_some() || lane.queue.is_empty() {
            return None;
        }
        lane.late = Some(Late::default());
        Some(lane.queue.iter().copied().collect())
    }

    /// Takes the first events out of a lane, after they were told or written.
    pub(crate) fn drop_first(&mut self, server: &ServerName, count: usize) {
        if let Some(lane) = self.lanes.get_mut(server) {
            let dropped = lane.queue.drain(..count.min(lane.queue.len())).count();
            self.queued = self.queued.saturating_sub(dropped);
        }
    }

    /// Lets a lane stand among those who wait, if there is something to send.
    pub(crate) fn schedule(&mut self, server: &ServerName) {
        let Some(lane) = self.lanes.get_mut(server) else {
            return;
        };
        let wants = (!lane.sending && lane.has_work()).then_some(lane.not_before);
        if lane.waits.map(|(due, _)| due) == wants {
            return;
        }
        if let Some(old) = lane.waits.take() {
            self.waiting.remove(&old);
        }
        if let Some(due) = wants {
            lane.waits = Some((due, self.next));
            self.waiting.insert((due, self.next), server.to_owned());
            self.next += 1;
        }
    }

    /// Those who may send now, at most so many. Each has to be [given back](Lanes::done).
    pub(crate) fn take_due(&mut self, now: u64, most: usize) -> Vec<OwnedServerName> {
        let mut due = Vec::new();
        while due.len() < most
            && let Some(first) = self.waiting.first_entry()
            && first.key().0 <= now
        {
            let server = first.remove();
            if let Some(lane) = self.lanes.get_mut(&server) {
                lane.waits = None;
                lane.sending = true;
                due.push(server);
            }
        }
        due
    }

    /// When the first of those who wait may send, in milliseconds since 1970.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.waiting.keys().next().map(|(due, _)| *due)
    }

    /// Gives a lane back that nobody sends to any more, not before a time.
    pub(crate) fn done(&mut self, server: &ServerName, not_before: u64) {
        let Some(lane) = self.lanes.get_mut(server) else {
            return;
        };
        lane.sending = false;
        lane.not_before = not_before;
        if lane.has_work() {
            self.schedule(server);
        } else {
            self.lanes.remove(server);
        }
    }

    /// A server was heard from; whether there is something to send.
    pub(crate) fn heard_from(&mut self, server: &ServerName) -> bool {
        let Some(lane) = self.lanes.get_mut(server) else {
            return false;
        };
        if lane.not_before == 0 && lane.failures == 0 {
            return false;
        }
        lane.not_before = 0;
        lane.failures = 0;
        self.schedule(server);
        true
    }

    /// Where the stream would have to be read on if the process ended now; none if nothing waits in memory.
    pub(crate) fn place(&self) -> Option<Position> {
        let first = self.lanes.values().filter_map(|lane| lane.queue.front());
        first.map(|first| first.after).min()
    }
}
