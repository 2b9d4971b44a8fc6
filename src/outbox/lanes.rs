//! The lanes: for each server what waits for it, as far as that is in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use pdu::EventNumber;
use ruma::{OwnedServerName, ServerName};
use storage::{NameHash, Position, ShortRoomId, schema::Place};

use crate::edus::Ephemeral;

/// So many servers have lanes at once. What is for others lies in storage, and is read again after a while.
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

/// So many servers are sent to at once that answer in time, and so many that are known not to.
const QUICK_AT_ONCE: usize = 128;
const SLOW_AT_ONCE: usize = 32;
/// So many that turn out to be slow while they are sent to make room for others.
const OVERDUE_MAX: usize = 512;
/// So many servers are known to be slow.
const SLOW_MAX: usize = 50_000;
/// So many lanes are looked at for one that can give up its place.
const LOOKED_AT_MAX: usize = 16;

/// All lanes.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: HashMap<OwnedServerName, Lane>,
    /// So many there are at once.
    pub(crate) most: usize,
    /// Those that answer in time, and those that do not: they do not wait for each other.
    quick: Line,
    slow: Line,
    /// Servers that did not answer in time.
    known_slow: BTreeSet<OwnedServerName>,
    /// The number of the next that waits.
    next: u64,
    /// How often late rooms were taken on, or a lane began.
    turns: u64,
    /// Events in all lanes.
    queued: usize,
    /// Something was left for a server that has no lane: it has to be read again.
    pub(crate) left_out: bool,
}

/// Lanes that wait for their turn to send.
#[derive(Debug)]
struct Line {
    /// So many send at once.
    at_once: usize,
    sending: usize,
    /// Those with something to send, by when they may, in the order in which they came.
    waiting: BTreeMap<(u64, u64), OwnedServerName>,
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
    /// Its server does not answer in time: in which line it stands.
    slow: bool,
    /// Where it stands among those who wait.
    waits: Option<(u64, u64)>,
    /// The position of the last event that was put into it.
    taken: Position,
    /// The turn in which its late rooms were last taken on, or it began.
    turn: u64,
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
    fn new(hash: NameHash, turn: u64) -> Self {
        Self {
            turn,
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
            slow: false,
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

impl Line {
    fn new(at_once: usize) -> Self {
        Self {
            at_once,
            sending: 0,
            waiting: BTreeMap::new(),
        }
    }

    /// When the first of those who wait may send, if another one may begin.
    fn next_due(&self) -> Option<u64> {
        let first = self.waiting.keys().next().map(|(due, _)| *due);
        first.filter(|_| self.sending < self.at_once)
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            most: LANES_MAX,
            quick: Line::new(QUICK_AT_ONCE),
            slow: Line::new(SLOW_AT_ONCE),
            known_slow: BTreeSet::new(),
            next: 0,
            turns: 0,
            queued: 0,
            left_out: false,
        }
    }
}

impl Lanes {
    pub(crate) fn get_mut(&mut self, server: &ServerName) -> Option<&mut Lane> {
        self.lanes.get_mut(server)
    }

    /// The lane of a server, a new one if need be. If there are too many, the one gives up its place that would
    /// wait longest, unless this server is `away` too: then there is none.
    pub(crate) fn lane(
        &mut self,
        server: &ServerName,
        hash: NameHash,
        away: impl FnOnce() -> bool,
    ) -> Option<&mut Lane> {
        if !self.lanes.contains_key(server) {
            if self.lanes.len() >= self.most && (away() || !self.make_room()) {
                return None;
            }
            self.turns += 1;
            let mut lane = Lane::new(hash, self.turns);
            lane.slow = self.known_slow.contains(server);
            self.lanes.insert(server.to_owned(), lane);
        }
        self.lanes.get_mut(server)
    }

    /// Takes away a lane that has to wait, and of which everything lies in storage.
    fn make_room(&mut self) -> bool {
        let mut last: Vec<_> = [&self.quick, &self.slow]
            .into_iter()
            .flat_map(|line| line.waiting.iter().rev().take(LOOKED_AT_MAX))
            .filter(|((due, _), _)| *due > 0)
            .collect();
        last.sort_unstable_by(|one, other| other.cmp(one));
        let stored = |server: &OwnedServerName| {
            let lane = self.lanes.get(server);
            lane.is_some_and(|lane| lane.queue.is_empty())
        };
        let found = last.into_iter().find(|(_, server)| stored(server));
        let Some((key, server)) = found.map(|(key, server)| (*key, server.clone())) else {
            return false;
        };
        if let Some(lane) = self.lanes.remove(&server) {
            self.line(lane.slow).waiting.remove(&key);
        }
        self.left_out = true;
        true
    }

    fn line(&mut self, slow: bool) -> &mut Line {
        if slow {
            &mut self.slow
        } else {
            &mut self.quick
        }
    }

    /// Puts an event into the lane of a server; see [`Lanes::lane`] for whether it is `away`.
    pub(crate) fn put(
        &mut self,
        server: &ServerName,
        hash: NameHash,
        event: Queued,
        position: Position,
        away: impl FnOnce() -> bool,
    ) -> Put {
        let full = self.queued >= QUEUED_MAX;
        let Some(lane) = self.lane(server, hash, away) else {
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

    /// The turn that it is.
    pub(crate) fn turn(&self) -> u64 {
        self.turns
    }

    /// Somebody works off the rows of these late rooms; if there are none, the lane is not late any more. Whether it
    /// is there.
    pub(crate) fn take_on(&mut self, server: &ServerName, rooms: &[ShortRoomId]) -> bool {
        let Some(lane) = self.lanes.get_mut(server) else {
            return false;
        };
        self.turns += 1;
        lane.turn = self.turns;
        if let Some(late) = &mut lane.late {
            for room in rooms {
                late.known.remove(room);
            }
            if rooms.is_empty() && late.known.is_empty() {
                lane.late = None;
            }
        }
        true
    }

    /// A room has a row, which was written after a turn. It is not noted if since then somebody took on what there
    /// was: they may have worked off this one too.
    pub(crate) fn parked(&mut self, server: &ServerName, room: ShortRoomId, turn: u64) {
        let lane = self.lanes.get_mut(server).filter(|lane| lane.turn <= turn);
        if let Some(late) = lane.and_then(|lane| lane.late.as_mut())
            && late.known.len() < KNOWN_MAX
        {
            late.known.insert(room);
        }
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
        let line = if lane.slow {
            &mut self.slow
        } else {
            &mut self.quick
        };
        if let Some(old) = lane.waits.take() {
            line.waiting.remove(&old);
        }
        if let Some(due) = wants {
            lane.waits = Some((due, self.next));
            line.waiting.insert((due, self.next), server.to_owned());
            self.next += 1;
        }
    }

    /// Those who may send now, at most so many. Each has to be [given back](Lanes::done).
    pub(crate) fn take_due(&mut self, now: u64, most: usize) -> Vec<OwnedServerName> {
        let mut due = Vec::new();
        for line in [&mut self.quick, &mut self.slow] {
            while due.len() < most
                && line.sending < line.at_once
                && let Some(first) = line.waiting.first_entry()
                && first.key().0 <= now
            {
                let server = first.remove();
                if let Some(lane) = self.lanes.get_mut(&server) {
                    lane.waits = None;
                    lane.sending = true;
                    line.sending += 1;
                    due.push(server);
                }
            }
        }
        due
    }

    /// When the first of those who wait may send, in milliseconds since 1970; none if nobody waits, or as many
    /// send as may.
    pub(crate) fn next_due(&self) -> Option<u64> {
        let due = [&self.quick, &self.slow].into_iter();
        due.filter_map(Line::next_due).min()
    }

    /// A server that is being sent to does not answer in time: another one may be sent to in its place.
    pub(crate) fn is_slow(&mut self, server: &ServerName) {
        while self.known_slow.len() >= SLOW_MAX {
            self.known_slow.pop_first();
        }
        self.known_slow.insert(server.to_owned());
        if let Some(lane) = self.lanes.get_mut(server)
            && lane.sending
            && !lane.slow
            && self.slow.sending < OVERDUE_MAX
        {
            lane.slow = true;
            self.quick.sending = self.quick.sending.saturating_sub(1);
            self.slow.sending += 1;
        }
    }

    /// Gives a lane back that nobody sends to any more, not before a time. Whether its server was `slow`.
    pub(crate) fn done(&mut self, server: &ServerName, not_before: u64, slow: bool) {
        if !slow {
            self.known_slow.remove(server);
        }
        let Some(lane) = self.lanes.get_mut(server) else {
            return;
        };
        let line = if lane.slow {
            &mut self.slow
        } else {
            &mut self.quick
        };
        line.sending = line.sending.saturating_sub(1);
        lane.sending = false;
        lane.slow = slow;
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
