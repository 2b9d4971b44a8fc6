//! Whose turn it is among the rooms in which events wait, and what waits in them. The rows are on the disk;
//! here is where they are, and of whom.
//!
//! A turn is worth one event for which something is fetched. Then the room goes to the end of the line, and in the
//! room it is the turn of what another server sent: who answers slowly, or sends much, keeps the others waiting
//! for a turn of each and not for all of theirs.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
};

use parking_lot::Mutex;
use storage::{Position, ShortRoomId};
use tokio::sync::{oneshot, watch};

/// Events of one room that wait, at most.
const WAITING_MAX: usize = 500;
/// Rooms that are worked on side by side.
const ROOMS_AT_ONCE: usize = 32;
/// How many of them may be worked on for events that one server sent.
const OF_A_SERVER_AT_ONCE: usize = 4;
/// Events that are looked at together.
const EVENTS_OF_A_TURN: usize = 20;

/// The rooms in which something waits, and those that are worked on.
#[derive(Debug)]
pub(crate) struct Waiting {
    state: Mutex<State>,
    /// How many rooms are worked on, or wait for it.
    busy: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    rooms: HashMap<ShortRoomId, Queue>,
    /// Rooms that wait for their turn, and who is to hear that it has come.
    line: VecDeque<(ShortRoomId, oneshot::Sender<Share>)>,
    /// How many rooms are worked on, by the servers whose events it is for.
    turns: BTreeMap<String, usize>,
}

/// What waits in one room.
#[derive(Debug, Default)]
struct Queue {
    /// By the servers that sent them, in the order in which they came: how often each was tried in vain.
    events: BTreeMap<String, BTreeMap<Position, u32>>,
    /// Places of events that are on their way to the disk.
    coming: BTreeMap<String, usize>,
    /// All that is on the disk is in here.
    known: bool,
    /// It is worked on, or will be.
    begun: bool,
    /// Whose turn it was last.
    last: Option<String>,
}

/// What one turn is for.
#[derive(Debug)]
pub(super) struct Share {
    /// The server whose turn it is.
    pub(super) origin: String,
    /// Its first event: what that lacks is fetched.
    pub(super) first: Position,
    /// How often that was tried in vain.
    pub(super) tries: u32,
    /// Events that may lack nothing any more, in the order in which they came; the first one is among them. It is
    /// alone after it was tried in vain: something may be wrong with it.
    pub(super) events: Vec<Position>,
}

/// The turn of a room, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    waiting: &'a Waiting,
    pub(super) share: Share,
}

impl Default for Waiting {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            busy: watch::Sender::new(0),
        }
    }
}

impl Waiting {
    /// Whether all is known of a room that is on the disk.
    pub(super) fn knows(&self, room: ShortRoomId) -> bool {
        let state = self.state.lock();
        state.rooms.get(&room).is_some_and(|queue| queue.known)
    }

    /// Takes note of all that is on the disk for a room: where, and who sent it.
    pub(super) fn learn(&self, room: ShortRoomId, rows: Vec<(Position, String)>) {
        let mut state = self.state.lock();
        let queue = state.rooms.entry(room).or_default();
        for (position, origin) in rows {
            queue.add(origin, position);
        }
        queue.known = true;
    }

    /// Keeps places for so many events of a server, as far as there are: how many. A server never has more of
    /// them than stay free for others.
    pub(super) fn reserve(&self, room: ShortRoomId, origin: &str, events: usize) -> usize {
        let mut state = self.state.lock();
        let queue = state.rooms.entry(room).or_default();
        let (mut own, mut all) = (queue.of(origin), queue.len());
        let before = own;
        while own - before < events && own < WAITING_MAX.saturating_sub(all) {
            own += 1;
            all += 1;
        }
        let kept = own - before;
        if kept > 0 {
            *queue.coming.entry(origin.to_owned()).or_default() += kept;
        }
        kept
    }

    /// Events for which places were kept are on the disk.
    pub(super) fn came(&self, room: ShortRoomId, origin: &str, positions: &[Position]) {
        let mut state = self.state.lock();
        let queue = state.rooms.entry(room).or_default();
        queue.give_up(origin, positions.len());
        for position in positions {
            queue.add(origin.to_owned(), *position);
        }
    }

    /// Of events for which places were kept nobody knows whether they are on the disk.
    pub(super) fn may_have_come(&self, room: ShortRoomId, origin: &str, events: usize) {
        let mut state = self.state.lock();
        let queue = state.rooms.entry(room).or_default();
        queue.give_up(origin, events);
        queue.known = false;
    }

    /// Whether a room is to be begun with: it is neither worked on nor waits for it.
    pub(super) fn begins(&self, room: ShortRoomId) -> bool {
        let mut state = self.state.lock();
        let queue = state.rooms.entry(room).or_default();
        let begins = !std::mem::replace(&mut queue.begun, true);
        if begins {
            self.busy.send_modify(|busy| *busy += 1);
        }
        begins
    }

    /// Whether nothing waits in a room any more. Then nobody works on it until something comes again.
    pub(super) fn is_done(&self, room: ShortRoomId) -> bool {
        let mut state = self.state.lock();
        let Some(queue) = state.rooms.get_mut(&room) else {
            return true;
        };
        if !queue.known || !queue.events.is_empty() {
            return false;
        }
        if std::mem::take(&mut queue.begun) {
            self.busy.send_modify(|busy| *busy = busy.saturating_sub(1));
        }
        if queue.coming.is_empty() {
            state.rooms.remove(&room);
        }
        true
    }

    /// Waits for the turn of a room; none if nothing waits there.
    pub(super) async fn turn(&self, room: ShortRoomId) -> Option<Turn<'_>> {
        let given = {
            let mut state = self.state.lock();
            state
                .rooms
                .get(&room)
                .filter(|queue| !queue.events.is_empty())?;
            let (give, given) = oneshot::channel();
            state.line.push_back((room, give));
            state.give_turns();
            given
        };
        let share = given.await.ok()?;
        Some(Turn {
            waiting: self,
            share,
        })
    }

    /// Events wait no more.
    pub(super) fn remove(&self, room: ShortRoomId, positions: &[Position]) {
        let mut state = self.state.lock();
        if let Some(queue) = state.rooms.get_mut(&room) {
            queue.events.retain(|_, events| {
                events.retain(|position, _| !positions.contains(position));
                !events.is_empty()
            });
        }
    }

    /// The first event of a turn was tried in vain: how often so far.
    pub(super) fn tried(&self, room: ShortRoomId, share: &Share) -> u32 {
        let mut state = self.state.lock();
        let queue = state.rooms.get_mut(&room);
        let events = queue.and_then(|queue| queue.events.get_mut(&share.origin));
        let Some(tries) = events.and_then(|events| events.get_mut(&share.first)) else {
            return 0;
        };
        *tries = tries.saturating_add(1);
        *tries
    }

    /// Waits until no room has events that wait.
    pub(super) async fn nothing_waits(&self) {
        let mut busy = self.busy.subscribe();
        // The sender lives as long as the rooms.
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    fn ends(&self, origin: &str) {
        let mut state = self.state.lock();
        if let Some(turns) = state.turns.get_mut(origin) {
            *turns = turns.saturating_sub(1);
            if *turns == 0 {
                state.turns.remove(origin);
            }
        }
        state.give_turns();
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.waiting.ends(&self.share.origin);
    }
}

impl State {
    /// Gives turns to those who are first in the line, as long as there are some to be had.
    fn give_turns(&mut self) {
        let mut at = 0;
        while self.turns.values().sum::<usize>() < ROOMS_AT_ONCE
            && let Some((room, _)) = self.line.get(at)
        {
            let queue = self.rooms.get_mut(room);
            let Some(share) = queue.and_then(|queue| queue.share(&self.turns)) else {
                at += 1;
                continue;
            };
            let origin = share.origin.clone();
            if let Some((_, waits)) = self.line.remove(at)
                && waits.send(share).is_ok()
            {
                *self.turns.entry(origin).or_default() += 1;
            }
        }
    }
}

impl Queue {
    fn len(&self) -> usize {
        let here: usize = self.events.values().map(BTreeMap::len).sum();
        here + self.coming.values().sum::<usize>()
    }

    fn of(&self, origin: &str) -> usize {
        let here = self.events.get(origin).map_or(0, BTreeMap::len);
        here + self.coming.get(origin).copied().unwrap_or_default()
    }

    fn add(&mut self, origin: String, position: Position) {
        let events = self.events.entry(origin).or_default();
        events.entry(position).or_default();
    }

    fn give_up(&mut self, origin: &str, places: usize) {
        if let Some(coming) = self.coming.get_mut(origin) {
            *coming = coming.saturating_sub(places);
            if *coming == 0 {
                self.coming.remove(origin);
            }
        }
    }

    /// What the next turn of the room is for; none if for each server whose events wait here as many rooms are
    /// worked on as may be.
    fn share(&mut self, turns: &BTreeMap<String, usize>) -> Option<Share> {
        let in_turn = self.in_turn();
        let busy = |origin: &String| turns.get(origin).copied().unwrap_or_default();
        let mut origins = in_turn.iter();
        let origin = *origins.find(|origin| busy(origin) < OF_A_SERVER_AT_ONCE)?;
        let (first, tries) = self.events.get(origin)?.first_key_value()?;
        let (first, tries) = (*first, *tries);
        // The first of each server, then the second of each, and so on.
        let mut ranked: Vec<_> = in_turn
            .iter()
            .flat_map(|origin| self.events.get(*origin))
            .flat_map(|events| events.keys().take(EVENTS_OF_A_TURN).enumerate())
            .filter(|(_, position)| **position != first)
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        let others = ranked.into_iter().map(|(_, position)| *position);
        let beside = if tries == 0 { EVENTS_OF_A_TURN - 1 } else { 0 };
        let mut events: Vec<_> = others.take(beside).collect();
        events.push(first);
        events.sort_unstable();
        let origin = origin.clone();
        self.last = Some(origin.clone());
        Some(Share {
            origin,
            first,
            tries,
            events,
        })
    }

    /// The servers whose events wait here, from the one after whose turn it was last.
    fn in_turn(&self) -> Vec<&String> {
        let Some(last) = self.last.as_deref() else {
            return self.events.keys().collect();
        };
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let up_to = (Bound::Unbounded, Bound::Included(last));
        let after = self.events.range::<str, _>(after);
        let in_turn = after.chain(self.events.range::<str, _>(up_to));
        in_turn.map(|(origin, _)| origin).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use futures_util::FutureExt as _;

    use super::*;

    const ROOM: ShortRoomId = ShortRoomId([1; 8]);

    fn room(number: u8) -> ShortRoomId {
        ShortRoomId([number; 8])
    }

    /// The positions of a commit.
    fn positions(commit: u8, count: u16) -> Vec<Position> {
        let position = |index| {
            let mut bytes = [0; Position::LEN];
            bytes[13] = commit;
            bytes[14..].copy_from_slice(&u16::to_be_bytes(index));
            Position::from_bytes(bytes)
        };
        (0..count).map(position).collect()
    }

    /// Events of a server come in a room.
    fn come(waiting: &Waiting, room: ShortRoomId, origin: &str, positions: &[Position]) {
        let kept = waiting.reserve(room, origin, positions.len());
        assert_eq!(kept, positions.len());
        waiting.came(room, origin, positions);
        waiting.learn(room, Vec::new());
        waiting.begins(room);
    }

    /// The turn of a room, if it has it at once.
    fn turn(waiting: &Waiting, room: ShortRoomId) -> Option<Turn<'_>> {
        waiting.turn(room).now_or_never().flatten()
    }

    #[test]
    fn no_server_takes_the_places_of_others() {
        let waiting = Waiting::default();
        let half = WAITING_MAX / 2;
        assert_eq!(waiting.reserve(ROOM, "a", WAITING_MAX), half);
        assert_eq!(waiting.reserve(ROOM, "a", 1), 0);
        assert_eq!(waiting.reserve(ROOM, "b", WAITING_MAX), half / 2);
        assert_eq!(waiting.reserve(ROOM, "b", 1), 0);
        assert!(waiting.reserve(ROOM, "c", 50) >= 50);
        assert_eq!(waiting.reserve(room(2), "a", 50), 50);
        // However many they are, there are not more places.
        let more = (0..WAITING_MAX).map(|n| waiting.reserve(ROOM, &n.to_string(), WAITING_MAX));
        let all = half + half / 2 + 50 + more.sum::<usize>();
        assert!(all <= WAITING_MAX, "{all}");
        // What did not come gives its places back.
        waiting.may_have_come(ROOM, "a", half);
        assert!(waiting.reserve(ROOM, "a", 50) > 0);
    }

    #[test]
    fn what_is_on_the_disk_counts_after_a_restart() {
        let waiting = Waiting::default();
        let before = positions(1, 250).into_iter();
        let before: Vec<_> = before.map(|one| (one, "a".to_owned())).collect();
        assert!(!waiting.knows(ROOM));
        waiting.learn(ROOM, before.clone());
        waiting.learn(ROOM, before);
        assert!(waiting.knows(ROOM));
        assert_eq!(waiting.reserve(ROOM, "a", 50), 0);
        assert_eq!(waiting.reserve(ROOM, "b", 50), 50);
        waiting.may_have_come(ROOM, "b", 50);
        assert!(!waiting.knows(ROOM), "it is to be looked for");
    }

    #[test]
    fn a_room_is_begun_with_once_and_done_with_when_nothing_waits() {
        let waiting = Waiting::default();
        let [one, two] = positions(1, 2)[..] else {
            panic!("there are two");
        };
        assert_eq!(waiting.reserve(ROOM, "a", 2), 2);
        assert!(waiting.begins(ROOM) && !waiting.begins(ROOM));
        assert!(!waiting.is_done(ROOM), "nobody knows what is on the disk");
        waiting.learn(ROOM, Vec::new());
        waiting.came(ROOM, "a", &[one]);
        assert!(!waiting.is_done(ROOM));
        waiting.remove(ROOM, &[one]);
        assert!(waiting.is_done(ROOM));
        assert_eq!(*waiting.busy.borrow(), 0);
        // What was on its way when nothing waited begins it anew.
        waiting.came(ROOM, "a", &[two]);
        assert!(waiting.begins(ROOM) && !waiting.is_done(ROOM));
        waiting.remove(ROOM, &[two]);
        assert!(waiting.is_done(ROOM));
        assert!(waiting.state.lock().rooms.is_empty());
    }

    #[test]
    fn in_a_room_servers_take_turns_and_each_has_its_events_in_order() {
        let waiting = Waiting::default();
        let (many, few) = (positions(1, 200), positions(2, 2));
        come(&waiting, ROOM, "many", &many);
        come(&waiting, ROOM, "few", &few);
        let mut order = Vec::new();
        for _ in 0..5 {
            let turn = turn(&waiting, ROOM).unwrap();
            assert_eq!(turn.share.events.len(), EVENTS_OF_A_TURN);
            assert!(turn.share.events.contains(&turn.share.first));
            // Of all that wait those of the few are looked at as well.
            let of_few = few.iter().filter(|one| turn.share.events.contains(one));
            let left = waiting.state.lock().rooms[&ROOM]
                .events
                .get("few")
                .map_or(0, BTreeMap::len);
            assert_eq!(of_few.count(), left);
            waiting.remove(ROOM, &[turn.share.first]);
            order.push((turn.share.origin.clone(), turn.share.first));
        }
        let expected = [few[0], many[0], few[1], many[1], many[2]];
        let first: Vec<_> = order.iter().map(|(_, first)| *first).collect();
        assert_eq!(first, expected);
    }

    #[test]
    fn for_one_server_few_rooms_are_worked_on_and_the_others_wait_in_line() {
        let waiting = Waiting::default();
        let [event] = positions(1, 1)[..] else {
            panic!("there is one");
        };
        for number in 0..10 {
            come(&waiting, room(number), "slow", &[event]);
        }
        let held: Vec<_> = (0..4).map(|n| turn(&waiting, room(n)).unwrap()).collect();
        let mut fifth = Box::pin(waiting.turn(room(4)));
        assert!((&mut fifth).now_or_never().is_none());
        let mut sixth = Box::pin(waiting.turn(room(5)));
        assert!((&mut sixth).now_or_never().is_none());
        // Others are not in its line, in the same rooms neither.
        come(&waiting, room(11), "quick", &[event]);
        assert!(turn(&waiting, room(11)).is_some());
        let [later] = positions(2, 1)[..] else {
            panic!("there is one");
        };
        come(&waiting, room(6), "quick", &[later]);
        assert_eq!(turn(&waiting, room(6)).unwrap().share.first, later);
        drop(held);
        let fifth = fifth.now_or_never().flatten().unwrap();
        assert_eq!(fifth.share.origin, "slow");
        assert!(sixth.now_or_never().flatten().is_some());
    }

    #[test]
    fn so_many_rooms_are_worked_on_at_once_and_each_in_its_turn() {
        let waiting = Waiting::default();
        let [event] = positions(1, 1)[..] else {
            panic!("there is one");
        };
        let all = u8::try_from(ROOMS_AT_ONCE).unwrap();
        for number in 0..=all {
            come(&waiting, room(number), &number.to_string(), &[event]);
        }
        come(&waiting, room(0), "0", &positions(2, 1));
        let mut held: Vec<_> = (0..all).map(|n| turn(&waiting, room(n)).unwrap()).collect();
        let mut last = Box::pin(waiting.turn(room(all)));
        assert!((&mut last).now_or_never().is_none());
        let first = held.remove(0);
        assert_eq!(first.share.events.len(), 2);
        assert_eq!(waiting.tried(room(0), &first.share), 1);
        drop(first);
        // The one that had a turn stands behind it.
        let mut again = Box::pin(waiting.turn(room(0)));
        assert!((&mut again).now_or_never().is_none());
        assert!(last.now_or_never().flatten().is_some());
        let again = again.now_or_never().flatten().unwrap();
        assert_eq!((again.share.first, again.share.tries), (event, 1));
        assert_eq!(again.share.events, [event], "it is alone now");
    }
}
